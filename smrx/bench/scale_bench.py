"""Measure how the cost of a command grows with the size of the exchange, and the worst cases of a single command.

A curve prepares an engine of each size and measures some commands on it. Its cost is in nanoseconds per command or, if
one command does much work, per order that it touches. A level curve means that no data structure degrades; what remains
are cache misses. The memory of an exchange in which everything grows at once is measured, too. Called by the command
line and, small, by the tests.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.bench import machine_conditions, svg, tapes
from smrx.bench.memory_bench import resident_bytes, table_bytes
from smrx.engine import Engine
from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, DETAILS, ORDER_DETAILS

Commands = NDArray[Any]

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
#: Pairs of an order and its cancel that a curve measures.
PAIRS: Final = 5_000
#: Commands per call; bounds the memory for the events of a call.
_CALL: Final = 10_000
#: Bids are below this price, asks from here on; a million prices fit on each side.
_MIDDLE: Final = 1 << 24
_SECOND_NS: Final = 1_000_000_000
_MIB: Final = 1 << 20
#: A whole exchange with a million orders has 100,000 accounts and 1,000 instruments.
_ORDERS_PER_ACCOUNT: Final = 10
_ORDERS_PER_INSTRUMENT: Final = 1_000


class Unsupported(Exception):
    """The engine refuses a command that a curve needs, or did not do what the curve measures."""


class LoadedEngine:
    """An engine with a market, and methods that build commands for it and apply them."""

    def __init__(self, accounts: int = 2, instruments: int = 1) -> None:
        self.engine = Engine()
        self.numbering = tapes.Numbering(accounts)
        self.time_ns = 1
        self.send(*tapes.market(accounts, instruments))

    def send(self, commands: Commands, details: NDArray[np.void] = NO_DETAILS) -> tuple[float, int]:
        """Apply commands; return seconds and events. Raises Unsupported if one of them is refused."""
        before = self.engine.event_sequence
        seconds = 0.0
        for at in range(0, len(commands), _CALL):
            begin = time.perf_counter()
            result = self.engine.apply(commands[at : at + _CALL], self.time_ns, details)
            seconds += time.perf_counter() - begin
            refused = result.outcomes["reason"][result.outcomes["status"] != OutcomeStatus.ACCEPTED]
            if len(refused):
                raise Unsupported(f"refused with reason {int(refused[0])}")
        return seconds, self.engine.event_sequence - before

    def orders(self, count: int, prices: Any, *, account: Any = 1, side: Any = Side.BUY, lots: Any = 1) -> Commands:
        """Return limit orders that rest."""
        rows = np.zeros(count, COMMAND)
        rows["kind"] = CommandKind.PLACE
        rows["order_type"] = OrderType.LIMIT
        rows["tif"] = TimeInForce.GTC
        rows["stp"] = Stp.CANCEL_NEWEST
        rows["instrument"] = tapes.INSTRUMENT
        rows["account"], rows["side"], rows["price_ticks"], rows["quantity_lots"] = account, side, prices, lots
        return rows

    def cancels(self, order_ids: Any, account: Any = 1) -> Commands:
        rows = np.zeros(len(order_ids), COMMAND)
        rows["kind"] = CommandKind.CANCEL
        rows["account"], rows["order_id"] = account, order_ids
        return rows

    def numbered(self, rows: Commands) -> Commands:
        self.numbering.number(rows)
        return rows

    def rest(self, rows: Commands, terms: NDArray[np.void] | None = None) -> NDArray[np.uint64]:
        """Place orders that rest, with `terms` (ORDER_DETAILS) if each has some; return their order ids."""
        first = self.engine.sequence + 1
        self.numbered(rows)
        for at in range(0, len(rows) if terms is not None else 0, _CALL):
            assert terms is not None
            part = rows[at : at + _CALL]
            part["details"] = np.arange(1, len(part) + 1)
            self.send(part, terms[at : at + _CALL].view(DETAILS))
        if terms is None:
            self.send(rows)
        return np.arange(first, first + len(rows), dtype=np.uint64)

    def pairs(self, orders: Commands) -> float:
        """Place and cancel each order in turn; return nanoseconds per command."""
        rows = np.repeat(orders, 2)
        first = self.engine.sequence + 1
        rows[1::2] = self.cancels(np.arange(first, first + len(rows), 2), orders["account"])
        return self.send(self.numbered(rows))[0] / len(rows) * _SECOND_NS


def _random(size: int) -> np.random.Generator:
    """Return a generator seeded by the size of a point, so that each point is the same in every run."""
    return np.random.default_rng(size)


def resting_orders(size: int) -> float:
    """Place and cancel in a book of `size` orders at 1,000 prices."""
    bench = LoadedEngine()
    random = _random(size)
    bench.rest(bench.orders(size, _MIDDLE - random.integers(0, 1_000, size)))
    return bench.pairs(bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS)))


def distinct_prices(size: int) -> float:
    """Place and cancel at new prices in a book of `size` prices."""
    bench = LoadedEngine()
    random = _random(size)
    prices = _MIDDLE - 2 * random.permutation(size)
    bench.rest(bench.orders(size, prices))
    return bench.pairs(bench.orders(PAIRS, prices[random.integers(0, size, PAIRS)] + 1))


def accounts(size: int) -> float:
    """Place and cancel by random accounts of `size`."""
    bench = LoadedEngine(accounts=size)
    random = _random(size)
    chosen = random.integers(1, size + 1, PAIRS)
    return bench.pairs(bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS), account=chosen))


def instruments(size: int) -> float:
    """Place and cancel on random instruments of `size`."""
    bench = LoadedEngine(instruments=size)
    random = _random(size)
    rows = bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS))
    rows["instrument"] = random.integers(tapes.INSTRUMENT, tapes.INSTRUMENT + size, PAIRS)
    return bench.pairs(rows)


def price_level_per_order(size: int) -> float:
    """Place `size` orders at as many prices in random order, and cancel them in another random order."""
    bench = LoadedEngine()
    random = _random(size)
    first = bench.engine.sequence + 1
    placed, _ = bench.send(bench.numbered(bench.orders(size, _MIDDLE - random.permutation(size))))
    cancelled, _ = bench.send(bench.numbered(bench.cancels(first + random.permutation(size))))
    return (placed + cancelled) / (2 * size) * _SECOND_NS


def deep_sweep(size: int) -> float:
    """Fill `size` makers with one order; the cost is per maker."""
    bench = LoadedEngine()
    bench.rest(bench.orders(size, _MIDDLE + _random(size).integers(0, 1_000, size), side=Side.SELL))
    take = bench.orders(1, _MIDDLE + 1_000, account=2, lots=size)
    seconds, events = bench.send(bench.numbered(take))
    if events < 3 * size:
        raise Unsupported(f"the order did not fill {size} makers ({events} events)")
    return seconds / size * _SECOND_NS


def mass_cancel(size: int) -> float:
    """Cancel `size` orders with one command; the cost is per order."""
    bench = LoadedEngine()
    bench.rest(bench.orders(size, _MIDDLE - _random(size).integers(0, 1_000, size)))
    rows = np.zeros(1, COMMAND)
    rows["kind"], rows["account"] = CommandKind.MASS_CANCEL, 1
    seconds, _ = bench.send(bench.numbered(rows))
    return seconds / size * _SECOND_NS


def middle_of_a_queue(size: int) -> float:
    """Cancel orders in the middle of one price level with `size` orders."""
    bench = LoadedEngine()
    ids = bench.rest(bench.orders(size, _MIDDLE))
    chosen = ids[size // 4 : size // 4 + min(PAIRS, size // 2)]
    cancels = bench.numbered(bench.cancels(_random(size).permutation(chosen)))
    return bench.send(cancels)[0] / len(cancels) * _SECOND_NS


def stop_cascade(size: int) -> float:
    """Trigger `size` stop orders with one trade, each by the trade of the one before; the cost is per stop order."""
    bench = LoadedEngine()
    steps = np.arange(size)
    # One bid of one lot per tick, and one stop order per bid: each sale lowers the price by a tick.
    bench.rest(bench.orders(size + 1, _MIDDLE - np.arange(size + 1)))
    stops = bench.orders(size, 0, account=2, side=Side.SELL)
    stops["order_type"], stops["tif"] = OrderType.STOP, TimeInForce.IOC
    terms = np.zeros(size, ORDER_DETAILS)
    terms["stop_price_ticks"] = _MIDDLE - steps
    bench.rest(stops, terms)
    seconds, events = bench.send(bench.numbered(bench.orders(1, _MIDDLE, account=2, side=Side.SELL)))
    if events < 4 * size:
        raise Unsupported(f"the trade did not trigger {size} stop orders ({events} events)")
    return seconds / size * _SECOND_NS


def expiries(size: int) -> float:
    """Expire `size` orders at the time of one command; the cost is per order."""
    bench = LoadedEngine()
    random = _random(size)
    rows = bench.orders(size, _MIDDLE - random.integers(0, 1_000, size))
    rows["tif"] = TimeInForce.GTD
    terms = np.zeros(size, ORDER_DETAILS)
    terms["expiry_ns"] = (1 + random.permutation(size)) * _SECOND_NS
    bench.rest(rows, terms)
    bench.time_ns = (size + 1) * _SECOND_NS
    seconds, events = bench.send(bench.numbered(bench.orders(1, _MIDDLE)))
    if events < size:
        raise Unsupported(f"the command did not expire {size} orders ({events} events)")
    return seconds / size * _SECOND_NS


def whole_exchange_engine(size: int) -> LoadedEngine:
    """Return an engine with `size` resting orders, each at its own price, and accounts and instruments in proportion.

    A million orders belong to 100,000 accounts and are on 1,000 instruments. Raises Unsupported if the engine does not
    hold all of it.
    """
    holders, listed = max(2, size // _ORDERS_PER_ACCOUNT), max(1, size // _ORDERS_PER_INSTRUMENT)
    bench = LoadedEngine(accounts=holders, instruments=listed)
    random = _random(size)
    rows = bench.orders(size, _MIDDLE - 2 * random.permutation(size), account=1 + random.permutation(size) % holders)
    rows["instrument"] = tapes.INSTRUMENT + random.permutation(size) % listed
    bench.rest(rows)
    # The venue's own account always exists.
    wanted = {"orders": size, "levels": size, "accounts": holders + 1, "instruments": listed}
    found = {name: count for name, count in bench.engine.inspect.counts().items() if name in wanted}
    if found != wanted:
        raise Unsupported(f"the engine holds {found}; expected {wanted}")
    return bench


def whole_exchange(size: int) -> float:
    """Place and cancel at random places in an exchange that is large in every respect."""
    bench = whole_exchange_engine(size)
    random = _random(size)
    counts = bench.engine.inspect.counts()
    chosen = random.integers(1, counts["accounts"], PAIRS)
    rows = bench.orders(PAIRS, _MIDDLE + 1 - 2 * random.integers(0, size, PAIRS), account=chosen)
    rows["instrument"] = tapes.INSTRUMENT + random.integers(0, counts["instruments"], PAIRS)
    return bench.pairs(rows)


def memory(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measure a whole exchange of each size: the bytes of its tables, and the resident memory that they add.

    The first row is an empty engine. Tables double when they are full, so their bytes grow in steps; untouched pages
    are not resident. Call it before other engines leave freed memory behind.
    """
    # Loads the engine's code and fills NumPy's caches, which are not memory of the exchange.
    whole_exchange_engine(100)
    gc.collect()
    before = resident_bytes()
    rows: list[dict[str, Any]] = []
    for size in (0, *(size for size in sizes if size <= SIZES[-1])):
        engine = whole_exchange_engine(size).engine if size else Engine()
        gc.collect()
        tables, resident = table_bytes(engine), resident_bytes() - before
        counts = engine.inspect.counts()
        rows.append(
            {
                "orders": counts["orders"],
                "prices": counts["levels"],
                "accounts": counts["accounts"],
                "instruments": counts["instruments"],
                "table_bytes": tables,
                "resident_bytes": max(0, resident),
                "table_bytes_per_order": round(tables / size) if size else None,
            }
        )
        del engine
    return rows


class Curve(NamedTuple):
    """A cost curve: its name, the unit that its cost is per, the function that measures a point, its largest size."""

    name: str
    unit: str
    measure: Callable[[int], float]
    max_size: int = SIZES[-1]


CURVES: Final = (
    Curve("resting orders", "command", resting_orders),
    Curve("distinct prices", "command", distinct_prices),
    Curve("accounts", "command", accounts),
    Curve("instruments", "command", instruments, 100_000),
    Curve("whole exchange", "command", whole_exchange),
    Curve("one price level per order", "command", price_level_per_order),
    Curve("cancel in the middle of a queue", "command", middle_of_a_queue),
    Curve("deep sweep by one order", "maker", deep_sweep),
    Curve("mass cancel", "order", mass_cancel),
    Curve("stops in one cascade", "stop", stop_cascade),
    Curve("GTD expiries at once", "order", expiries),
)


def run(
    sizes: Sequence[int] = SIZES,
    repeats: int = 3,
    curves: Sequence[Curve] = CURVES,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Measure every curve at every size, `repeats` times with a new engine each; the fastest run counts.

    The memory of the whole exchange at the same sizes is measured before the curves. A curve that the engine does not
    support has the reason in `absent`.
    """
    if not sizes or min(sizes) < 100 or repeats < 1:
        raise ValueError(f"sizes and repeats: expected sizes of 100 or more, repeated once or more, found {sizes}")
    try:
        memory_rows = memory(sizes)
    except Unsupported:
        memory_rows = []  # The curve of the whole exchange has the reason.
    found = []
    for number, curve in enumerate(curves):
        points: list[dict[str, float]] = []
        absent = None
        for size in (size for size in sizes if size <= curve.max_size):
            try:
                cost = min(curve.measure(size) for _ in range(repeats))
            except Unsupported as error:
                absent = f"not supported by this engine: {error}"
                break
            points.append({"size": size, "ns": round(cost, 1)})
            if progress is not None:
                progress("curves", (number + size / max(sizes)) / len(curves))
        growth = round(points[-1]["ns"] / points[0]["ns"], 2) if points else None
        found.append({"name": curve.name, "unit": curve.unit, "points": points, "growth": growth, "absent": absent})
    return {
        "curves": found,
        "memory": memory_rows,
        "conditions": machine_conditions.machine() | {"repeats": repeats, "tier": "B", "cores": 1},
    }


def picture(figures: dict[str, Any]) -> str:
    """Return a chart of the curves as SVG, and below it one of the memory if that was measured."""
    costs = svg.chart(
        "What a command costs as the exchange grows",
        svg.Axis("size"),
        svg.Axis("nanoseconds"),
        [
            svg.Series(
                f"{curve['name']} (per {curve['unit']})", [(point["size"], point["ns"]) for point in curve["points"]]
            )
            for curve in figures["curves"]
            if curve["points"]
        ],
    )
    if not any(row["orders"] for row in figures["memory"]):
        return costs
    lines = {"table_bytes": "tables of the engine", "resident_bytes": "resident memory they add"}
    memory_chart = svg.chart(
        "Memory of a whole exchange",
        svg.Axis("resting orders, each at its own price; a tenth as many accounts"),
        svg.Axis("MiB"),
        [
            svg.Series(
                name, [(row["orders"], row[key] / _MIB) for row in figures["memory"] if row["orders"] and row[key]]
            )
            for key, name in lines.items()
        ],
    )
    return svg.stack([costs, memory_chart])
