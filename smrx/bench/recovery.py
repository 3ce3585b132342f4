"""How long a node is away: the journal applied again after a snapshot, and what taking a snapshot costs.

Three measurements on one node, as real as the node's own parts: the restart of a process with so many commands of
journal after its snapshot, until it serves; the pause of the loop and the work of the forked child for a state of
100,000 accounts and 1,000,000 orders; the pause alone for states up to the size asked for. And one on three nodes: what
an order waits while all of them take snapshots of such a state. Prints nothing.
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

from smrx.bench import undisturbed
from smrx.bench.conditions import processor
from smrx.client import Client
from smrx.config import Limits
from smrx.consensus.disk_journal import FILE, DiskJournal
from smrx.consensus.recovery import MetaStore
from smrx.consensus.snapshot_files import FOLDER, SnapshotFiles, Stored
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.consensus.storage import LmdbStorage
from smrx.engine.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.engine.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol
from smrx.local import LocalCluster
from smrx.node.history import open_history
from smrx.node.machine import ExchangeMachine
from smrx.tape.generate import generate
from smrx.wire import batches

Commands = NDArray[np.void]

_BATCH: Final = 1000
_SESSION: Final = 0x5EED
_LEVELS: Final = 2000
_FORKS: Final = 5


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
    it), snapshot (of the state with `accounts` and `orders`: bytes, work_s, pause_ms over some forks,
    restore_seconds until a new machine has it and every check of it is done), pause_ms_by_mib (the fork alone, of a
    process that holds so much), latency (of single orders to three nodes on disk with that state, `seconds` without
    snapshots and as long with them; see undisturbed.run; None for 0), conditions.
    """
    show = progress or (lambda phase, share: None)
    with tempfile.TemporaryDirectory(prefix="smrx-bench-", dir=directory) as folder:
        show("recovery", 0.0)
        recovery = _recovery(Path(folder), commands)
        show("recovery", 1.0)
        show("snapshot", 0.0)
        snapshot = _snapshot(Path(folder), accounts, orders)
        show("snapshot", 1.0)
        pauses = _pauses(Path(folder), largest_mib)
        show("latency", 0.0)
        market = _large_market(accounts, orders)
        latency = undisturbed.run(Path(folder) / "latency", market, seconds=seconds) if seconds else None
        show("latency", 1.0)
    return {
        "recovery": recovery,
        "snapshot": snapshot,
        "pause_ms_by_mib": pauses,
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
    machine = ExchangeMachine(1 << 16, 1 << 16)
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
    _taken(machine, files, journal)
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


def _replay_seconds(machine: ExchangeMachine, directory: Path, cluster: LocalCluster) -> float:
    """The part of a restart that grows with the journal: reading it, checking it, applying it."""
    started = time.perf_counter()
    with open_history(cluster.config, 1) as history:
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


def _put(journal: DiskJournal, machine: ExchangeMachine, entry: bytes) -> None:
    index = journal.last_index + 1
    journal.add(entry, index, 1)
    journal.setRaftCommitIndex(index)
    if index % 64 == 0:
        journal.sync()
    machine.apply(index, 1, entry)
    machine.take_applied()


def _taken(machine: ExchangeMachine, files: SnapshotFiles, journal: DiskJournal) -> tuple[Stored, float, float]:
    """Take a snapshot as a node does; return it with the pause and the work, in seconds."""
    journal.sync()
    store = ForkedSnapshots(machine, files, persistent=True)
    store.begin(journal.last_index, 1)
    while store.pending_index is not None:
        time.sleep(0.001)
        store.poll()
    if store.stored is None:
        raise RecoveryBenchError("expected a snapshot, found none; see the log")
    return store.stored, store.last_pause_s, store.last_work_s


def _snapshot(folder: Path, accounts: int, orders: int) -> dict[str, Any]:
    machine = _large_machine(accounts, orders)
    counts = machine.engine.inspect.counts()
    if (counts["accounts"], counts["orders"]) != (accounts + 1, orders):
        raise RecoveryBenchError(f"expected {accounts} accounts and {orders} orders, found {counts}")
    files = SnapshotFiles(folder / "snapshot", cluster="bench", node_id=1)
    journal = DiskJournal(LmdbStorage(folder / FILE), cluster="bench", node_id=1, joined=False)
    pauses, works = [], []
    for _ in range(_FORKS):
        stored, pause, work = _taken(machine, files, journal)
        pauses.append(1000 * pause)
        works.append(work)
        # Another state each time, so that each is written anew.
        machine.apply(journal.last_index + 1, 1, batches.encode(b"", 0, 0, 0))
        journal.add(batches.encode(b"", 0, 0, 0), journal.last_index + 1, 1)
    journal.close()
    started = time.perf_counter()
    state = stored.part("state")
    assert state is not None
    again = ExchangeMachine(1 << 16, 1 << 16)
    again.restore(state)
    restored = time.perf_counter() - started
    if again.position() != machine.position():
        raise RecoveryBenchError("expected the same state from the snapshot, found another")
    return {
        "accounts": accounts,
        "orders": orders,
        "bytes": stored.metadata.bytes,
        "work_s": round(float(np.median(works)), 3),
        "pause_ms": {"median": round(float(np.median(pauses)), 3), "max": round(max(pauses), 3)},
        "restore_seconds": round(restored, 3),
    }


def _large_market(accounts: int, orders: int) -> Commands:
    """The commands that make so many accounts, each with money, and so many resting orders."""
    setup = np.zeros(3, COMMAND)
    setup["kind"] = [*[CommandKind.ADD_ASSET] * 2, CommandKind.ADD_INSTRUMENT]
    setup["instrument"] = [1, 2, 1]
    setup["client_order_id"][:2] = [pack_symbol("BTC"), pack_symbol("USD")]
    setup["quantity_lots"][:2] = [8, 2]
    instrument = setup[2:3].view(INSTRUMENT_COMMAND)
    instrument["symbol"] = pack_symbol("BTC-USD")
    instrument["base_asset"], instrument["quote_asset"] = 1, 2
    instrument["lot_units"], instrument["scale_units"] = 1, 1
    instrument["max_price_ticks"], instrument["max_quantity_lots"] = 1 << 24, 1 << 30
    names = np.arange(1, accounts + 1, dtype=np.uint32)
    opened = np.zeros(accounts, COMMAND)
    opened["kind"], opened["account"] = CommandKind.OPEN_ACCOUNT, names
    deposits = np.zeros(2 * accounts, COMMAND)
    deposits["kind"], deposits["account"] = CommandKind.DEPOSIT, np.tile(names, 2)
    deposits["instrument"] = np.repeat([1, 2], accounts)
    deposits["order_id"] = np.arange(1, 2 * accounts + 1)
    deposits["quantity_lots"] = 1 << 40
    placed = np.zeros(orders, COMMAND)
    number = np.arange(orders)
    buys = number % 2 == 0
    placed["kind"] = CommandKind.PLACE
    placed["account"] = names[number % accounts]
    placed["side"] = np.where(buys, Side.BUY, Side.SELL)
    placed["price_ticks"] = np.where(buys, 100_000 - number % _LEVELS, 100_001 + number % _LEVELS)
    placed["quantity_lots"] = 1 + number % 100
    placed["client_order_id"] = number + 1
    placed["order_type"], placed["tif"] = OrderType.LIMIT, TimeInForce.GTC
    placed["stp"], placed["instrument"] = Stp.CANCEL_NEWEST, 1
    return np.concatenate([setup, opened, deposits, placed])


def _large_machine(accounts: int, orders: int) -> ExchangeMachine:
    """One machine with such a market."""
    machine = ExchangeMachine(1 << 20, 1 << 18)
    opening = np.zeros(1, COMMAND)
    opening["kind"] = CommandKind.OPEN_SESSION
    rows = np.concatenate([opening, _large_market(accounts, orders)])
    rows["session_id"] = _SESSION
    rows["request_id"] = np.arange(len(rows))
    for index, start in enumerate(range(0, len(rows), _BATCH)):
        machine.apply(index + 2, 1, batches.encode(rows[start : start + _BATCH].tobytes(), 1, 0, 0))
        machine.take_applied()
    return machine


class _Ballast:
    """A machine that is only memory."""

    def __init__(self, mib: int) -> None:
        self.memory = np.ones(mib << 17, np.uint64)

    def snapshot_parts(self) -> dict[str, list[bytes | memoryview]]:
        return {"state": [b"ballast"]}

    def position(self) -> tuple[int, int]:
        return 0, 0


def _pauses(folder: Path, largest_mib: int) -> dict[str, float]:
    """The median pause of the loop for a fork, by the memory that the process holds."""
    found = {}
    for mib in (200, 500, 1000, 2048):
        if mib > largest_mib:
            break
        ballast = _Ballast(mib)
        files = SnapshotFiles(folder / f"pauses-{mib}", cluster="bench", node_id=1)
        pauses = []
        for index in range(_FORKS):
            store = ForkedSnapshots(ballast, files, persistent=True)
            store.begin(index + 2, 1)
            while store.pending_index is not None:
                time.sleep(0.001)
                store.poll()
            pauses.append(1000 * store.last_pause_s)
        found[str(mib)] = round(float(np.median(pauses)), 3)
        del ballast
    return found
