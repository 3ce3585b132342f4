"""How long a node is away: the journal applied again after a snapshot, and what taking a snapshot costs.

Three measurements on one node, as real as the node's own parts: the restart of a process with so many commands of
journal after its snapshot, until it serves; what snapshots of a state of 100,000 accounts and 1,000,000 orders cost the
loop, and the pause alone for states up to the size asked for (both in pauses.py). And one on three nodes: what an order
waits while all of them take snapshots of such a state. Prints nothing.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import pauses, undisturbed
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
from smrx.wire import batches
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND

Commands = NDArray[np.void]

_BATCH: Final = 1000
_SESSION: Final = 0x5EED


class RecoveryBenchError(Exception):
    """What was measured is not what was to be measured."""


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
    """Return the figures of one run.

    Keys: recovery (commands, seconds until the first order is acknowledged by the restarted process, and the parts of
    it), snapshot (of the state with `accounts` and `orders`: see pauses.of_a_market), pause_ms_by_mib (the fork alone,
    of a process that holds so much), latency (of single orders to three nodes on disk with that state, `seconds`
    without snapshots and as long with them; see undisturbed.run; None for 0), conditions.
    """
    show = progress or (lambda phase, share: None)
    with tempfile.TemporaryDirectory(prefix="smrx-bench-", dir=directory) as folder:
        show("recovery", 0.0)
        recovery = _recovery(Path(folder), commands)
        show("recovery", 1.0)
        show("snapshot", 0.0)
        snapshot = pauses.of_a_market(Path(folder), accounts, orders)
        show("snapshot", 1.0)
        by_mib = pauses.by_mib(Path(folder), largest_mib)
        show("latency", 0.0)
        market = pauses.large_market(accounts, orders)
        latency = undisturbed.run(Path(folder) / "latency", market, seconds=seconds) if seconds else None
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
    """Write a node's disk as `count` commands after a snapshot leave it; start the node on it, and order."""
    limits = Limits(snapshot_commands=10 * count, compaction_entries=100_000_000)
    cluster = LocalCluster(folder / "recovery", nodes=1, durability="disk", limits=limits)
    directory = cluster.config.node_dir(1)
    tape = generate(min(count, 200_000), seed=3)
    meta = MetaStore(directory, cluster=cluster.config.cluster, node_id=1)
    machine = ReplicatedState(1 << 16, 1 << 16)
    journal = DiskJournal(
        LmdbStorage(directory / FILE), cluster=cluster.config.cluster, node_id=1, joined=False, where=directory / FILE
    )
    journal.attach(meta)
    journal.setCurrentTerm(1, 1)
    meta.set_joined()
    files = SnapshotFiles(directory / FOLDER, cluster=cluster.config.cluster, node_id=1)
    flow = _Flow(tape.setup, tape.commands)
    for entry in flow.entries(0):
        _put(journal, machine, entry)
    journal.sync()
    pauses.taken(ForkedSnapshots(machine, files, persistent=True), journal.last_index)
    before = machine.engine.sequence
    while machine.engine.sequence - before < count:
        for entry in flow.entries(count - (machine.engine.sequence - before)):
            _put(journal, machine, entry)
    meta.sync()
    journal.note_commit()
    journal.close()
    meta.close()
    expected = machine.position()
    applied = _replay_seconds(machine, directory, cluster)
    started = time.perf_counter()
    with cluster, Client(cluster.config, account=0) as client:
        client.open_account(4_000_000_000)
        elapsed = time.perf_counter() - started
        found = max(cluster.statuses().values(), key=lambda status: status.sequence)
    if found.sequence <= expected[0]:
        raise RecoveryBenchError(f"expected a node past command {expected[0]}, found one at {found.sequence}")
    return {
        "commands": expected[0] - before,
        "seconds_from_start_to_first_acknowledged_order": round(elapsed, 3),
        "seconds_to_apply_the_journal": round(applied, 3),
        "journal_bytes": (directory / FILE).stat().st_size,
    }


def _replay_seconds(machine: ReplicatedState, directory: Path, cluster: LocalCluster) -> float:
    """The part of a restart that grows with the journal: reading it, checking it, applying it."""
    started = time.perf_counter()
    with open_node_log(cluster.config, 1) as history:
        again = history.replay(lambda applied, entry: None)
    if again.position() != machine.position():
        raise RecoveryBenchError(f"expected the state {machine.position()} again, found {again.position()}")
    return time.perf_counter() - started


class _Flow:
    """A tape over and over, as one session sends it."""

    def __init__(self, setup: Commands, commands: Commands) -> None:
        self._setup = setup
        self._commands = commands
        self._request = 0
        self._round = 0

    def entries(self, count: int) -> list[bytes]:
        """The setup first; then the next `count` commands, at most one tape of them."""
        if self._round == 0:
            opening = np.zeros(1, COMMAND)
            opening["kind"], opening["session_id"] = CommandKind.OPEN_SESSION, _SESSION
            rows = np.concatenate([opening, self._setup])
        else:
            rows = self._commands[:count].copy()
            named = rows["client_order_id"] > 0
            # Ids of its own in each round: else all orders but the first round's are duplicates.
            rows["client_order_id"][named] += np.uint64(self._round << 40)
        self._round += 1
        opens = rows["kind"] == CommandKind.OPEN_SESSION
        rows["session_id"] = _SESSION
        rows["request_id"] = np.where(opens, 0, self._request + np.cumsum(~opens))
        self._request += int(np.count_nonzero(~opens))
        return [
            batches.encode(rows[start : start + _BATCH].tobytes(), 1 + self._request, 0, 0)
            for start in range(0, len(rows), _BATCH)
        ]


def _put(journal: DiskJournal, machine: ReplicatedState, entry: bytes) -> None:
    index = journal.last_index + 1
    journal.add(entry, index, 1)
    journal.setRaftCommitIndex(index)
    if index % 64 == 0:
        journal.sync()
    machine.apply(index, 1, entry)
    machine.take_applied()
