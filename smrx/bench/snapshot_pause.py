"""Measure what a snapshot costs the node that takes it: the pause for the fork, the child's work, slower commands.

Runs the parts of a node in one process: a state with many accounts and orders, to which commands are applied while the
child writes, so that pages are copied as in a node. Called by recovery_bench.py; prints nothing.
"""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench.bench_error import WrongResultError
from smrx.bench.bench_market import INSTRUMENT, SESSION, SessionNumbering, market_commands, open_session
from smrx.consensus.snapshot_files import SnapshotFiles, Stored
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.node.replicated_state import ReplicatedState
from smrx.wire import batches
from smrx.wire.client_order_ids import pack_client_order_id, pack_numbers
from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND

_DEPOSIT_UNITS: Final = 1 << 40
_BATCH: Final = 1000
_LEVELS: Final = 2000
_SNAPSHOTS: Final = 20
_IDLE_SECONDS: Final = 0.5
_FORKS: Final = 5
#: Client order ids of the flow are F and seven hexadecimal digits; those of the market are numbers.
_ID_MASK: Final = (1 << 28) - 1
#: Shorter than the interval between two turns of an idle node.
_TURN_SECONDS: Final = 0.001


def measure_market(folder: Path, accounts: int, orders: int) -> dict[str, Any]:
    """Take snapshots of a large state one after the other while single commands are applied to it.

    Keys: accounts, orders, bytes (of one snapshot), snapshots, work_s (the median), pause_ms (first: before the memory
    is compacted into large pages, which a node does within half a minute; median and max: of the others), apply_us (of
    one command: without_snapshot and during_snapshot, each p50, p99, max), restore_seconds (until a new machine has
    the state and has checked it). Raises WrongResultError.
    """
    machine = _large_machine(accounts, orders)
    counts = machine.engine.inspect.counts()
    if (counts["accounts"], counts["orders"]) != (accounts + 1, orders):
        raise WrongResultError(f"expected {accounts} accounts and {orders} orders in the state, found {counts}")
    store = ForkedSnapshots(machine, SnapshotFiles(folder / "snapshot", cluster="bench", node_id=1), persistent=True)
    flow = _Flow(machine, accounts)
    end = time.perf_counter() + _IDLE_SECONDS
    while time.perf_counter() < end:
        flow.apply()
    without_snapshot = flow.take_percentiles()
    pauses, works = [], []
    for number in range(_SNAPSHOTS):
        take_snapshot(store, 2 + number, flow)
        pauses.append(1000 * store.last_pause_s)
        works.append(store.last_work_s)
    during_snapshot = flow.take_percentiles()
    stored = take_snapshot(store, 2 + _SNAPSHOTS)
    started = time.perf_counter()
    state = stored.part("state")
    assert state is not None
    restored = ReplicatedState(1 << 16)
    restored.restore(state)
    restore_seconds = time.perf_counter() - started
    if restored.position() != machine.position():
        raise WrongResultError("the state restored from a snapshot differs from the state it was taken of")
    return {
        "accounts": accounts,
        "orders": orders,
        "bytes": stored.metadata.bytes,
        "snapshots": _SNAPSHOTS,
        "work_s": round(float(np.median(works)), 3),
        "pause_ms": {
            "first": round(pauses[0], 3),
            "median": round(float(np.median(pauses[1:])), 3),
            "max": round(max(pauses[1:]), 3),
        },
        "apply_us": {"without_snapshot": without_snapshot, "during_snapshot": during_snapshot},
        "restore_seconds": round(restore_seconds, 3),
    }


def take_snapshot(store: ForkedSnapshots, index: int, flow: "_Flow | None" = None) -> Stored:
    """Take a snapshot as a node does; poll until it is complete and its memory is released."""
    store.begin(index, 1)
    while store.pending_index is not None:
        if flow is None:
            time.sleep(_TURN_SECONDS)
        else:
            flow.apply()
        store.poll()
    if store.stored is None or store.stored.log_index != index:
        raise WrongResultError("the snapshot failed; the log has the reason")
    while not store.is_idle:
        time.sleep(_TURN_SECONDS)
        store.poll()
    return store.stored


class _Flow:
    """Orders of random accounts at random bid prices, each cancelled by the next command."""

    def __init__(self, machine: ReplicatedState, accounts: int) -> None:
        self._machine = machine
        self._accounts = accounts
        self._random = np.random.default_rng(5)
        self._index = 1 << 40
        self._request = int(machine.engine.inspect.sessions()["last_request_id"][0])
        self._placed: tuple[int, int] | None = None
        self._times: list[float] = []

    def apply(self) -> None:
        """Place an order, or cancel the one placed before."""
        command = np.zeros(1, COMMAND)
        self._index += 1
        self._request += 1
        command["session_id"], command["request_id"] = SESSION, self._request
        if self._placed is not None:
            command["kind"] = CommandKind.CANCEL
            command["account"], command["client_order_id"] = self._placed
            self._placed = None
        else:
            text = f"F{self._index & _ID_MASK:07x}"
            self._placed = int(1 + self._random.integers(self._accounts)), pack_client_order_id(text)[0]
            command["kind"], command["instrument"], command["side"] = CommandKind.PLACE, INSTRUMENT, Side.BUY
            command["account"], command["client_order_id"] = self._placed
            command["price_ticks"] = 100_000 - self._random.integers(_LEVELS)
            command["quantity_lots"] = 1
            command["order_type"], command["tif"] = OrderType.LIMIT, TimeInForce.GTC
            command["stp"] = Stp.CANCEL_NEWEST
        entry = batches.encode(command.tobytes(), 1, 0, 0)
        started = time.perf_counter()
        self._machine.apply(self._index, 1, entry)
        (applied,) = self._machine.take_applied()
        self._times.append(time.perf_counter() - started)
        if applied.outcomes["status"][0] != OutcomeStatus.ACCEPTED:
            raise WrongResultError(f"the engine refused a command: {applied.outcomes[0]}")

    def take_percentiles(self) -> dict[str, float]:
        """Return the percentiles, in microseconds, of the commands applied since the last call."""
        times, self._times = 1e6 * np.array(self._times), []
        return {
            name: round(float(np.percentile(times, at)), 1) for name, at in (("p50", 50), ("p99", 99), ("max", 100))
        }


def large_market(accounts: int, orders: int) -> CommandList:
    """Return the commands that open `accounts` accounts with deposits and place `orders` resting orders."""
    placed = np.zeros(orders, COMMAND)
    number = np.arange(orders)
    buys = number % 2 == 0
    placed["kind"] = CommandKind.PLACE
    placed["account"] = 1 + number % accounts
    placed["side"] = np.where(buys, Side.BUY, Side.SELL)
    placed["price_ticks"] = np.where(buys, 100_000 - number % _LEVELS, 100_001 + number % _LEVELS)
    placed["quantity_lots"] = 1 + number % 100
    placed["client_order_id"] = pack_numbers(number.astype(np.uint64) + np.uint64(1))
    placed["order_type"], placed["tif"] = OrderType.LIMIT, TimeInForce.GTC
    placed["stp"], placed["instrument"] = Stp.CANCEL_NEWEST, INSTRUMENT
    return join([market_commands(accounts, _DEPOSIT_UNITS), CommandList(placed)])


def _large_machine(accounts: int, orders: int) -> ReplicatedState:
    """Return a machine with such a market."""
    machine = ReplicatedState(1 << 20)
    commands = join([CommandList(open_session()), large_market(accounts, orders)])
    SessionNumbering().number(commands.records)
    for index, start in enumerate(range(0, len(commands.records), _BATCH)):
        rows, details = commands.part(start, start + _BATCH)
        machine.apply(index + 2, 1, batches.encode(rows.tobytes(), 1, 0, 0, details.tobytes()))
        machine.take_applied()
    return machine


class _MemoryOnly:
    """A machine with no state but much memory."""

    def __init__(self, mib: int) -> None:
        self.memory = np.ones(mib << 17, np.uint64)

    def snapshot_parts(self) -> dict[str, list[bytes | memoryview]]:
        return {"state": [b"none"]}

    def arrays_outside_snapshots(self) -> list[NDArray[np.void]]:
        return []

    def position(self) -> tuple[int, int]:
        return 0, 0


def measure_pause_by_mib(folder: Path, largest_mib: int) -> dict[str, float]:
    """Return the median pause of the loop for a fork in milliseconds, by memory of the process in MiB."""
    found = {}
    for mib in (200, 500, 1000, 2048):
        if mib > largest_mib:
            break
        machine = _MemoryOnly(mib)
        store = ForkedSnapshots(
            machine, SnapshotFiles(folder / f"pauses-{mib}", cluster="bench", node_id=1), persistent=True
        )
        pauses = []
        for index in range(_FORKS):
            take_snapshot(store, 2 + index)
            pauses.append(1000 * store.last_pause_s)
        found[str(mib)] = round(float(np.median(pauses)), 3)
        del machine, store
    return found
