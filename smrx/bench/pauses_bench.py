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
#: How long a snapshot or a listing may wait for large pages; turns after the last one.
_FORK_SECONDS: Final = 60.0
_TURNS_AFTER: Final = 200
_IDLE_SECONDS: Final = 0.01


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
        #: By part: the longest, the elapsed time of it, the pages that the system provided in it, and the orders then.
        self.longest_parts: dict[str, tuple[float, float, int, int]] = {}
        self._orders = 0
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
        spent, elapsed = time.thread_time() - started, time.perf_counter() - began
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - faults
        self._elapsed += elapsed
        self._faults += faults
        if spent > self.longest_parts.get(name, (0.0,))[0]:
            self.longest_parts[name] = spent, elapsed, faults, self._orders
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
        self._orders = orders
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
        files = SnapshotFiles(folder / "snapshot", cluster="bench", node_id=1)
        self._store = ForkedSnapshots(self.machine, files, persistent=True, growing=self.machine.growing_memory)
        self._views = Views(pages=self._store.pages)
        self._index = 1
        self._cursor: str | None = None
        self._scrubbed = 0
        self._accounts = accounts
        self._random = np.random.default_rng(7)
        self._show = show
        self.snapshots = 0
        self.listings = 0
        self.machine.engine.inspect.warm_up()

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

    def prepare(self) -> None:
        """Let the memory of the process itself be joined to large pages, as in a node that has run for some seconds."""
        self._store.pages.begin(time.monotonic())
        deadline = time.monotonic() + _FORK_SECONDS
        while not self._store.is_idle and time.monotonic() < deadline:
            time.sleep(_IDLE_SECONDS)

    def fork(self, number: int) -> bool:
        """Begin a snapshot, or a listing if the number is odd; False if it has to wait."""
        return self.list_orders() if number % 2 else self.snapshot()

    def snapshot(self) -> bool:
        """Begin a snapshot, in a turn of its own; False if it has to wait."""
        if self._store.pending_index is not None:
            return False
        with self.turns.part("snapshot"):
            self._store.begin(self._index, 1)
        has_begun = self._store.pending_index is not None
        self.snapshots += has_begun
        self.turns.end(self.machine.engine.inspect.counts()["orders"])
        return has_begun

    def list_orders(self) -> bool:
        """Begin a listing of all orders, in a turn of its own; False if it has to wait."""
        inspect = self.machine.engine.inspect
        with self.turns.part("listing"):
            found = self._views.open(
                "bench",
                DTYPES["orders"],
                lambda: inspect.listing("orders"),
                self.machine.arrays_outside_listings("orders"),
                0,
            )
        has_begun = not isinstance(found, Refused)
        if not isinstance(found, Refused):
            self._cursor = found
            self.listings += 1
        self.turns.end(inspect.counts()["orders"])
        return has_begun

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


def _steady_flow(numbering: SessionNumbering, first: int, accounts: int) -> Iterator[CommandList]:
    """Yield turns without end: orders of random accounts at random prices, and in each next turn their cancels."""
    random = np.random.default_rng(3)
    while True:
        placed = _orders(first, _BATCH, accounts).records
        placed["account"] = random.integers(1, accounts + 1, _BATCH)
        away = random.integers(_LEVELS, size=_BATCH)
        placed["price_ticks"] += np.where(placed["side"] == Side.BUY, -away, away)
        cancels = np.zeros(_BATCH, COMMAND)
        cancels["kind"] = CommandKind.CANCEL
        for name in ("account", "client_order_id"):
            cancels[name] = placed[name]
        for rows in (placed, cancels):
            numbering.number(rows)
            yield CommandList(rows)


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
                loop.prepare()
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
    listed = len(opening.records)
    # A node does not have them.
    del opening
    due = [orders * at // _SNAPSHOTS for at in range(1, _SNAPSHOTS)]
    for start in range(0, orders, _BATCH):
        part = _orders(start, min(_BATCH, orders - start), accounts)
        numbering.number(part.records)
        loop.apply(part)
        if due and start >= due[0] and loop.fork(len(due)):
            del due[0]
        if show is not None:
            show("pauses", (listed + start) / total)
    _fork_the_rest(loop, due, _steady_flow(numbering, orders, accounts))
    found = loop.machine.engine.inspect.counts()
    if (found["orders"], found["accounts"]) != (orders, accounts + 1):
        raise WrongResultError(f"expected {orders} orders and {accounts} accounts, found {found}")
    _end_sessions(loop, min(_SESSIONS, max(1, orders // _SESSION_ORDERS)), accounts, orders)
    _close_instrument(loop, numbering)


def _fork_the_rest(loop: _Loop, due: list[int], flow: Iterator[CommandList]) -> None:
    """Take the snapshots and listings that are left while orders are placed and cancelled."""
    deadline = time.monotonic() + _FORK_SECONDS * len(due)
    turns = 0
    while due or turns % _TURNS_AFTER:
        loop.apply(next(flow))
        turns += 1
        if due and turns % 2 == 0 and loop.fork(len(due)):
            del due[0]
        if due and time.monotonic() > deadline:
            raise WrongResultError(f"{len(due)} snapshots and listings could not be begun")


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
            "max_elapsed_ms": round(1000 * loop.turns.longest_parts[name][1], 3),
            "max_pages": loop.turns.longest_parts[name][2],
            "max_at_orders": loop.turns.longest_parts[name][3],
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
