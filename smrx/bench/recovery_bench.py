"""Measure the restart of a node, and the cost of taking snapshots.

- Recovery: the time from the start of a process, with many commands in the journal after its snapshot, until it
  acknowledges an order.
- Snapshot: the pause of the node's loop and the work of the child for a large state, and the pause alone by process
  size (snapshot_pause.py).
- Latency: single orders to three nodes while all of them take snapshots of such a state (snapshot_latency.py).

Prints nothing; called by the command line.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from smrx.bench import snapshot_latency, snapshot_pause
from smrx.bench.bench_error import WrongResultError
from smrx.bench.bench_market import SessionNumbering, open_session
from smrx.bench.machine_conditions import processor
from smrx.client import Client
from smrx.config import Limits
from smrx.consensus.disk_journal import FILE, DiskJournal
from smrx.consensus.recovery import MetaStore
from smrx.consensus.snapshot_files import FOLDER, SnapshotFiles
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.consensus.storage import LmdbStorage
from smrx.local import LocalCluster
from smrx.node.log_reader import open_node_log
from smrx.node.replicated_state import ReplicatedState
from smrx.tape.generate import generate
from smrx.tape.tape_file import Tape
from smrx.wire import batches
from smrx.wire.client_order_ids import pack_numbers
from smrx.wire.command_list import CommandList, join

_BATCH: Final = 1000
#: Longer than any restart, so that the client's timeout is never what is measured.
_CLIENT_TIMEOUT_SECONDS: Final = 600.0


def run(
    *,
    commands: int = 1_000_000,
    accounts: int = 100_000,
    orders: int = 1_000_000,
    largest_mib: int = 2048,
    seconds: float = 10.0,
    directory: str | Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Return the figures of one run; raises BenchError.

    Keys: recovery (commands, seconds until the restarted process acknowledges the first order, and the parts of it),
    snapshot (of the state with `accounts` and `orders`; see snapshot_pause.measure_market), pause_ms_by_mib (the pause
    for the fork, by memory of the process), latency (single orders to three nodes on disk with that state, `seconds`
    without snapshots and `seconds` with them; see snapshot_latency.run; None if `seconds` is 0), conditions.
    """
    show = progress or (lambda phase, share: None)
    with tempfile.TemporaryDirectory(prefix="smrx-bench-", dir=directory) as folder:
        show("recovery", 0.0)
        recovery = _recovery(Path(folder), commands)
        show("recovery", 1.0)
        show("snapshot", 0.0)
        snapshot = snapshot_pause.measure_market(Path(folder), accounts, orders)
        show("snapshot", 1.0)
        by_mib = snapshot_pause.measure_pause_by_mib(Path(folder), largest_mib)
        show("latency", 0.0)
        market = snapshot_pause.large_market(accounts, orders)
        latency = snapshot_latency.run(Path(folder) / "latency", market, seconds=seconds) if seconds else None
        show("latency", 1.0)
    return {
        "recovery": recovery,
        "snapshot": snapshot,
        "pause_ms_by_mib": by_mib,
        "latency": latency,
        "conditions": {
            "batch_commands": _BATCH,
            "engine": "state hash, ledger and events on",
            "cpu_count": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
        },
    }


def _recovery(folder: Path, count: int) -> dict[str, Any]:
    """Write a node's disk with `count` commands after a snapshot; start the node on it, and send an order."""
    limits = Limits(snapshot_commands=10 * count, compaction_entries=100_000_000)
    cluster = LocalCluster(folder / "recovery", nodes=1, durability="disk", limits=limits)
    directory = cluster.config.node_dir(1)
    tape = generate(min(count, 200_000), seed=3)
    meta = MetaStore(directory, cluster=cluster.config.cluster, node_id=1)
    machine = ReplicatedState(1 << 16)
    journal = DiskJournal(
        LmdbStorage(directory / FILE), cluster=cluster.config.cluster, node_id=1, joined=False, where=directory / FILE
    )
    journal.attach(meta)
    journal.setCurrentTerm(1, 1)
    meta.set_joined()
    files = SnapshotFiles(directory / FOLDER, cluster=cluster.config.cluster, node_id=1)
    flow = _RepeatedTape(tape)
    for entry in flow.entries(0):
        _append(journal, machine, entry)
    journal.sync()
    snapshot_pause.take_snapshot(ForkedSnapshots(machine, files, persistent=True), journal.last_index)
    before = machine.engine.sequence
    while machine.engine.sequence - before < count:
        for entry in flow.entries(count - (machine.engine.sequence - before)):
            _append(journal, machine, entry)
    meta.sync()
    journal.sync_commit_index()
    journal.close()
    meta.close()
    expected = machine.position()
    applied = _replay_seconds(machine, directory, cluster)
    started = time.perf_counter()
    with cluster, Client(cluster.config, account=0, timeout=_CLIENT_TIMEOUT_SECONDS) as client:
        client.open_account(4_000_000_000)
        elapsed = time.perf_counter() - started
        sequence = max(status.sequence for status in cluster.statuses().values())
    if sequence <= expected[0]:
        raise WrongResultError(f"the restarted node is at command {sequence}; expected one after {expected[0]}")
    return {
        "commands": expected[0] - before,
        "seconds_from_start_to_first_acknowledged_order": round(elapsed, 3),
        "seconds_to_apply_the_journal": round(applied, 3),
        "journal_bytes": (directory / FILE).stat().st_size,
    }


def _replay_seconds(machine: ReplicatedState, directory: Path, cluster: LocalCluster) -> float:
    """Return the time to read, check and apply the journal: the part of a restart that grows with it."""
    started = time.perf_counter()
    with open_node_log(cluster.config, 1) as history:
        replayed = history.replay(lambda applied, entry: None)
    if replayed.position() != machine.position():
        raise WrongResultError(f"replay gave the state {replayed.position()}; expected {machine.position()}")
    return time.perf_counter() - started


class _RepeatedTape:
    """A tape that one session sends again and again, as log entries."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        ids = np.frombuffer(tape.commands["client_order_id"].tobytes(), "S8")
        self._has_order_id = np.flatnonzero(ids != b"")
        #: A generated tape calls its orders by numbers.
        self._order_numbers = ids[self._has_order_id].astype(np.uint64)
        self._numbering = SessionNumbering()
        self._round = 0

    def entries(self, count: int) -> list[bytes]:
        """Return the entries of the setup at the first call; then of the next `count` commands, at most one tape."""
        if self._round == 0:
            commands = join([CommandList(open_session()), self._tape.setup])
        else:
            rows = self._tape.commands.copy()
            # Each round has its own client order ids; otherwise its orders would be rejected as duplicates.
            numbers = self._order_numbers + np.uint64(self._round * len(rows))
            rows["client_order_id"][self._has_order_id] = pack_numbers(numbers)
            commands = CommandList(rows[:count])
        self._round += 1
        self._numbering.number(commands.records)
        time_ns = 1 + self._numbering.last_request
        parts = [commands.part(start, start + _BATCH) for start in range(0, len(commands.records), _BATCH)]
        return [batches.encode(part.records.tobytes(), time_ns, 0, 0, part.details.tobytes()) for part in parts]


def _append(journal: DiskJournal, machine: ReplicatedState, entry: bytes) -> None:
    index = journal.last_index + 1
    journal.add(entry, index, 1)
    journal.setRaftCommitIndex(index)
    if index % 64 == 0:
        journal.sync()
    machine.apply(index, 1, entry)
    machine.take_applied()
