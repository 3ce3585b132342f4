"""Measure the longest turn of a node's loop, and its cause, while a market grows to millions of orders.

Runs the parts of a node in one process, in turns as the reactor does: commands are applied; balances are compared for
the heartbeat; readers ask for pages; listings and snapshots are taken by forked children; memory is prepared for the
next fork and scrubbed. Times are processor time of the loop, so that other processes on the machine do not count; the
elapsed time is beside it. Called by the command line and, small, by the tests.
"""

import gc
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.bench import machine_conditions
from smrx.bench.bench_error import WrongResultError
from smrx.bench.bench_market import INSTRUMENT, Commands, SessionNumbering, market_commands, open_session
from smrx.consensus.snapshot_files import SnapshotFiles
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.engine import warm_up
from smrx.engine.inspect import DTYPES
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.node.replicated_state import ReplicatedState
from smrx.node.timed_commands import SessionTimeouts, disconnects
from smrx.node.views import Refused, Views, Waiting
from smrx.wire import batches
from smrx.wire.client_order_ids import pack_numbers
from smrx.wire.codes import (
    CommandKind,
    InstrumentStatus,
    OrderType,
    OutcomeStatus,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, STATUS_COMMAND

#: The longest turn that is allowed, in milliseconds of processor time.
MARK_MS: Final = 5.0
#: Commands applied in a turn: a busy node's entry.
_BATCH: Final = 256
_LEVELS: Final = 2000
_DEPOSIT_UNITS: Final = 1 << 40
#: Turns between two of a kind.
_READ_TURNS: Final = 4
_HEARTBEAT_TURNS: Final = 64
_SCRUB_TURNS: Final = 16
#: Snapshots and listings taken while the market grows.
_SNAPSHOTS: Final = 8
#: Rows of a page; sessions of the venue that end, and the orders of each.
_PAGE: Final = 100
_SESSIONS: Final = 1000
_SESSION_ORDERS: Final = 100
_FIRST_VENUE_SESSION: Final = 0x7000_0000
_COLLECT_AFTER: Final = 5_000


class _Turn(NamedTuple):
    """A turn: processor time, the part with most of it, orders, elapsed time, pages provided, garbage collection."""

    seconds: float
    cause: str
    orders: int
    elapsed: float
    faults: int
    collected: float


class Turns:
    """The parts of turns: the longest of each kind, and the longest turn."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self.count = 0
        self.longest = _Turn(0.0, "", 0, 0.0, 0, 0.0)
        self._present: dict[str, float] = {}
        self._elapsed = 0.0
        self._faults = 0
        self._collected = 0.0
        self._collecting_since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the present turn."""
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        started, began = time.thread_time(), time.perf_counter()
        yield
        spent = time.thread_time() - started
        self._elapsed += time.perf_counter() - began
        self._faults += resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - faults
        self._present[name] = self._present.get(name, 0.0) + spent

    def end(self, orders: int) -> None:
        """End the turn; the market has so many orders."""
        total = sum(self._present.values())
        for name, seconds in self._present.items():
            self.parts.setdefault(name, []).append(seconds)
        if total > self.longest[0]:
            cause = max(self._present, key=self._present.__getitem__)
            self.longest = _Turn(total, cause, orders, self._elapsed, self._faults, self._collected)
        self.count += 1
        self._present, self._elapsed, self._faults, self._collected = {}, 0.0, 0, 0.0

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """Measure the collection of garbage: a callback of the module gc."""
        if phase == "start":
            self._collecting_since = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting_since


class _Loop:
    """A node without sockets and consensus."""

    def __init__(self, folder: Path, accounts: int, show: Callable[[str, float], None] | None) -> None:
        self.machine = ReplicatedState(1 << 18)
        self.turns = Turns()
        self._store = ForkedSnapshots(
            self.machine, SnapshotFiles(folder / "snapshot", cluster="bench", node_id=1), persistent=True
        )
        self._views = Views()
        self._index = 1
        self._cursor: str | None = None
        self._scrubbed = 0
        self._accounts = accounts
        self._random = np.random.default_rng(7)
        self._show = show
        self.snapshots = 0
        self.listings = 0

    def apply(self, commands: CommandList, part: str = "apply") -> NDArray[Any]:
        """Run a turn that applies these commands, which must be accepted; return their outcomes."""
        turns, machine, number = self.turns, self.machine, self.turns.count
        entry = batches.encode(commands.records.tobytes(), 1, 0, 0, commands.details.tobytes())
        self._index += 1
        with turns.part(part):
            machine.apply(self._index, 1, entry)
            (applied,) = machine.take_applied()
        if (applied.outcomes["status"] != OutcomeStatus.ACCEPTED).any():
            raise WrongResultError(f"the engine refused a command: {applied.outcomes[0]}")
        if number % _READ_TURNS == 0:
            with turns.part("reads"):
                self._read()
        if number % _HEARTBEAT_TURNS == 0:
            with turns.part("heartbeat"):
                machine.engine.balance_digest()
        if number % _SCRUB_TURNS == 0:
            with turns.part("scrub"):
                self._scrubbed, _ = machine.engine.scrub(self._scrubbed, 1024)
        with turns.part("memory"):
            self._store.poll()
            self._views.poll()
        if self._cursor is not None:
            with turns.part("listing page"):
                found = self._views.read("bench", self._cursor, 0, _PAGE)
            if not isinstance(found, Waiting):
                self._cursor = None
        turns.end(machine.engine.inspect.counts()["orders"])
        return applied.outcomes

    def snapshot(self) -> None:
        """Begin a snapshot, in a turn of its own."""
        if self._store.pending_index is None:
            with self.turns.part("snapshot"):
                self._store.begin(self._index, 1)
            self.snapshots += self._store.pending_index is not None
            self.turns.end(self.machine.engine.inspect.counts()["orders"])

    def list_orders(self) -> None:
        """Begin a listing of all orders, in a turn of its own."""
        inspect = self.machine.engine.inspect
        with self.turns.part("listing"):
            found = self._views.open(
                "bench", DTYPES["orders"], lambda: inspect.listing("orders"), inspect.arrays_outside("orders"), 0
            )
        if not isinstance(found, Refused):
            self._cursor = found
            self.listings += 1
        self.turns.end(inspect.counts()["orders"])

    def close(self) -> None:
        """End the children."""
        self._views.close()
        self._store.close()

    def _read(self) -> None:
        """Answer the queries that a turn of reads has."""
        inspect = self.machine.engine.inspect
        account = int(1 + self._random.integers(self._accounts))
        page = inspect.orders_of(account, limit=_PAGE)
        if page is not None and len(page.rows):
            inspect.order(int(page.rows["order_id"][0]))
        inspect.balances_of(account)
        if inspect.open_order_count(account) <= _PAGE:
            inspect.positions(account)
        inspect.transfers_of(account, limit=_PAGE)
        inspect.depth(INSTRUMENT, 20)
        inspect.counts()


def _orders(first: int, count: int, accounts: int) -> CommandList:
    """Return commands that place resting orders of many accounts at many prices."""
    number = np.arange(first, first + count)
    rows = np.zeros(count, COMMAND)
    buys = number % 2 == 0
    rows["kind"], rows["instrument"] = CommandKind.PLACE, INSTRUMENT
    rows["account"] = 1 + number % accounts
    rows["side"] = np.where(buys, Side.BUY, Side.SELL)
    rows["price_ticks"] = np.where(buys, 100_000 - number % _LEVELS, 100_001 + number % _LEVELS)
    rows["quantity_lots"] = 1 + number % 100
    rows["client_order_id"] = pack_numbers(number.astype(np.uint64) + np.uint64(1))
    rows["order_type"], rows["tif"], rows["stp"] = OrderType.LIMIT, TimeInForce.GTC, Stp.CANCEL_NEWEST
    return CommandList(rows)


def _venue_sessions(sessions: int) -> Commands:
    """Return the commands that open sessions of the venue with cancel on disconnect."""
    rows = np.zeros(sessions, COMMAND)
    rows["kind"] = CommandKind.OPEN_SESSION
    rows["session_id"] = _FIRST_VENUE_SESSION + np.arange(sessions)
    rows["flags"] = SessionFlags.CANCEL_ON_DISCONNECT
    return rows


def run(
    orders: int = 1_000_000, accounts: int = 100_000, show: Callable[[str, float], None] | None = None
) -> dict[str, Any]:
    """Let a market grow to so many orders and accounts; return the longest turn and its cause.

    Keys: orders, accounts, turns, longest_ms (processor time), longest_elapsed_ms, longest_pages (that the system
    provided in it), longest_collection_ms (of garbage), cause, at_orders, is_below_mark, parts (by name: count, p99_ms,
    max_ms), snapshots, listings, conditions. Raises WrongResultError if the engine refuses a command.
    """
    if orders < _BATCH or accounts < 1:
        raise ValueError(f"orders and accounts: expected {_BATCH} and 1 or more, found {orders} and {accounts}")
    warm_up()
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop = _Loop(Path(folder), accounts, show)
            gc.callbacks.append(loop.turns.collecting)
            try:
                _grow(loop, orders, accounts, show)
                return _figures(loop, orders, accounts)
            finally:
                gc.callbacks.remove(loop.turns.collecting)
                loop.close()
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _grow(loop: _Loop, orders: int, accounts: int, show: Callable[[str, float], None] | None) -> None:
    numbering = SessionNumbering()
    # As the first leader of an exchange.
    rules = np.zeros(1, COMMAND)
    rules["kind"], rules["quantity_lots"] = CommandKind.SET_VERSION, NEWEST_RULES
    loop.apply(CommandList(rules))
    setup = CommandList(open_session())
    numbering.number(setup.records)
    loop.apply(setup)
    opening = market_commands(accounts, _DEPOSIT_UNITS)
    numbering.number(opening.records)
    total = len(opening.records) + orders
    for start in range(0, len(opening.records), _BATCH):
        loop.apply(CommandList(*opening.part(start, start + _BATCH)))
        if show is not None:
            show("pauses", start / total)
    due = [orders * at // _SNAPSHOTS for at in range(1, _SNAPSHOTS)]
    for start in range(0, orders, _BATCH):
        part = _orders(start, min(_BATCH, orders - start), accounts)
        numbering.number(part.records)
        loop.apply(part)
        if due and start >= due[0]:
            del due[0]
            loop.snapshot() if len(due) % 2 else loop.list_orders()
        if show is not None:
            show("pauses", (len(opening.records) + start) / total)
    found = loop.machine.engine.inspect.counts()
    if (found["orders"], found["accounts"]) != (orders, accounts + 1):
        raise WrongResultError(f"expected {orders} orders and {accounts} accounts, found {found}")
    _end_sessions(loop, min(_SESSIONS, max(1, orders // _SESSION_ORDERS)), accounts, orders)
    _close_instrument(loop, numbering)


def _end_sessions(loop: _Loop, sessions: int, accounts: int, first: int) -> None:
    """Let sessions of the venue place orders for many accounts, and end them as a leader does."""
    opened = _venue_sessions(sessions)
    timeouts = SessionTimeouts(1.0)
    for start in range(0, sessions, _BATCH):
        loop.apply(CommandList(opened[start : start + _BATCH]))
    for at, session in enumerate(opened["session_id"].tolist()):
        placed = _orders(first + at * _SESSION_ORDERS, _SESSION_ORDERS, accounts)
        placed.records["session_id"] = session
        placed.records["request_id"] = np.arange(1, _SESSION_ORDERS + 1)
        loop.apply(placed)
    timeouts.restart(opened["session_id"].tolist(), 0.0)
    while silent := timeouts.due(2.0, loop.machine.orders_ending_with):
        loop.apply(CommandList(disconnects(silent)), "disconnect")
    if loop.machine.engine.inspect.counts()["orders"] != first:
        raise WrongResultError("sessions have ended, and orders are left that end with them")


def _close_instrument(loop: _Loop, numbering: SessionNumbering) -> None:
    """Close the instrument, which cancels all orders, as a client does: again while orders are left."""
    rows = np.zeros(1, STATUS_COMMAND)
    rows["kind"], rows["instrument"], rows["status"] = CommandKind.SET_STATUS, INSTRUMENT, InstrumentStatus.CLOSED
    left = True
    while left:
        commands = rows.view(COMMAND).copy()
        numbering.number(commands)
        left = bool(loop.apply(CommandList(commands), "close")["leaves_lots"][0])
    if loop.machine.engine.inspect.counts()["orders"]:
        raise WrongResultError("the instrument is closed, and orders are left")


def _figures(loop: _Loop, orders: int, accounts: int) -> dict[str, Any]:
    longest = loop.turns.longest
    parts = {
        name: {
            "count": len(times),
            "p99_ms": round(1000 * float(np.percentile(times, 99)), 3),
            "max_ms": round(1000 * max(times), 3),
        }
        for name, times in sorted(loop.turns.parts.items())
    }
    return {
        "orders": orders,
        "accounts": accounts,
        "turns": loop.turns.count,
        "longest_ms": round(1000 * longest.seconds, 3),
        "longest_elapsed_ms": round(1000 * longest.elapsed, 3),
        "longest_pages": longest.faults,
        "longest_collection_ms": round(1000 * longest.collected, 3),
        "cause": longest.cause,
        "at_orders": longest.orders,
        "is_below_mark": 1000 * longest.seconds < MARK_MS,
        "parts": parts,
        "snapshots": loop.snapshots,
        "listings": loop.listings,
        "conditions": machine_conditions.machine() | {"commands_per_turn": _BATCH, "mark_ms": MARK_MS},
    }
