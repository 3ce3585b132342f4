"""What a snapshot costs the node that takes it: the pause for the fork, the child's work, and the orders meanwhile.

One process with the parts of a node: a machine with 100,000 accounts and 1,000,000 orders, which goes on applying
orders while the child writes, so that the memory of the two comes apart as it does in a node. Called by the recovery
benchmark; prints nothing.
"""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.consensus.snapshot_files import SnapshotFiles, Stored
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.node.replicated_state import ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[np.void]

_SESSION: Final = 0x5EED
_BATCH: Final = 1000
_LEVELS: Final = 2000
_SNAPSHOTS: Final = 20
_CALM_SECONDS: Final = 0.5
_FORKS: Final = 5
#: Between two turns of a node with nothing to do passes more.
_TURN_SECONDS: Final = 0.001


class PauseBenchError(Exception):
    """What was measured is not what was to be measured."""


def of_a_market(folder: Path, accounts: int, orders: int) -> dict[str, Any]:
    """Take snapshots of such a state one after the other, and apply orders, one at a time, while they are taken.

    Keys: accounts, orders, bytes (of one snapshot), snapshots, work_s (the median), pause_ms (first: with memory as
    loading the market left it, where a node would have put it in order within half a minute; median and max of the
    others), apply_us (of one command: calm and while_taken, each p50, p99, max), restore_seconds (until a new machine
    has the state and every check of it is done).
    """
    machine = _large_machine(accounts, orders)
    counts = machine.engine.inspect.counts()
    if (counts["accounts"], counts["orders"]) != (accounts + 1, orders):
        raise PauseBenchError(f"expected {accounts} accounts and {orders} orders, found {counts}")
    store = ForkedSnapshots(machine, SnapshotFiles(folder / "snapshot", cluster="bench", node_id=1), persistent=True)
    flow = _Flow(machine, accounts)
    end = time.perf_counter() + _CALM_SECONDS
    while time.perf_counter() < end:
        flow.apply()
    calm = flow.figures()
    pauses, works = [], []
    for number in range(_SNAPSHOTS):
        taken(store, 2 + number, flow)
        pauses.append(1000 * store.last_pause_s)
        works.append(store.last_work_s)
    while_taken = flow.figures()
    stored = taken(store, 2 + _SNAPSHOTS)
    started = time.perf_counter()
    state = stored.part("state")
    assert state is not None
    again = ReplicatedState(1 << 16, 1 << 16)
    again.restore(state)
    restored = time.perf_counter() - started
    if again.position() != machine.position():
        raise PauseBenchError("expected the same state from the snapshot, found another")
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
        "apply_us": {"calm": calm, "while_taken": while_taken},
        "restore_seconds": round(restored, 3),
    }


def taken(store: ForkedSnapshots, index: int, flow: "_Flow | None" = None) -> Stored:
    """Take a snapshot as a node does, and let the turns after it pass."""
    store.begin(index, 1)
    while store.pending_index is not None:
        if flow is None:
            time.sleep(_TURN_SECONDS)
        else:
            flow.apply()
        store.poll()
    if store.stored is None or store.stored.log_index != index:
        raise PauseBenchError("expected a snapshot, found none; see the log")
    while not store.settled:
        time.sleep(_TURN_SECONDS)
        store.poll()
    return store.stored


class _Flow:
    """One order after the other, of any account and at any price of the bids, each cancelled by the next command."""

    def __init__(self, machine: ReplicatedState, accounts: int) -> None:
        self._machine = machine
        self._accounts = accounts
        self._chance = np.random.default_rng(5)
        self._index = 1 << 40
        self._request = int(machine.engine.inspect.sessions()["last_request_id"][0])
        self._placed: tuple[int, int] | None = None
        self._times: list[float] = []

    def apply(self) -> None:
        """Place an order, or cancel it."""
        command = np.zeros(1, COMMAND)
        self._index += 1
        self._request += 1
        command["session_id"], command["request_id"] = _SESSION, self._request
        if self._placed is not None:
            command["kind"] = CommandKind.CANCEL
            command["account"], command["client_order_id"] = self._placed
            self._placed = None
        else:
            self._placed = int(1 + self._chance.integers(self._accounts)), self._index
            command["kind"], command["instrument"], command["side"] = CommandKind.PLACE, 1, Side.BUY
            command["account"], command["client_order_id"] = self._placed
            command["price_ticks"] = 100_000 - self._chance.integers(_LEVELS)
            command["quantity_lots"] = 1
            command["order_type"], command["tif"] = OrderType.LIMIT, TimeInForce.GTC
            command["stp"] = Stp.CANCEL_NEWEST
        entry = batches.encode(command.tobytes(), 1, 0, 0)
        started = time.perf_counter()
        self._machine.apply(self._index, 1, entry)
        (applied,) = self._machine.take_applied()
        self._times.append(time.perf_counter() - started)
        if applied.outcomes["status"][0] != OutcomeStatus.ACCEPTED:
            raise PauseBenchError(f"expected the command to be accepted, found {applied.outcomes[0]}")

    def figures(self) -> dict[str, float]:
        """Microseconds of what was applied since the last call."""
        times, self._times = 1e6 * np.array(self._times), []
        return {
            name: round(float(np.percentile(times, at)), 1) for name, at in (("p50", 50), ("p99", 99), ("max", 100))
        }


def large_market(accounts: int, orders: int) -> Commands:
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


def _large_machine(accounts: int, orders: int) -> ReplicatedState:
    """One machine with such a market."""
    machine = ReplicatedState(1 << 20, 1 << 18)
    opening = np.zeros(1, COMMAND)
    opening["kind"] = CommandKind.OPEN_SESSION
    rows = np.concatenate([opening, large_market(accounts, orders)])
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

    def beside_snapshots(self) -> list[NDArray[np.void]]:
        return []

    def position(self) -> tuple[int, int]:
        return 0, 0


def by_mib(folder: Path, largest_mib: int) -> dict[str, float]:
    """The median pause of the loop for a fork in milliseconds, by the memory that the process holds."""
    found = {}
    for mib in (200, 500, 1000, 2048):
        if mib > largest_mib:
            break
        ballast = _Ballast(mib)
        store = ForkedSnapshots(
            ballast, SnapshotFiles(folder / f"pauses-{mib}", cluster="bench", node_id=1), persistent=True
        )
        pauses = []
        for index in range(_FORKS):
            taken(store, 2 + index)
            pauses.append(1000 * store.last_pause_s)
        found[str(mib)] = round(float(np.median(pauses)), 3)
        del ballast, store
    return found
