"""Cost curves: what a command costs as one thing grows, and the worst cases that one command can make.

A curve is a preparation and some commands to measure, for each size; its cost is nanoseconds for a command or, where
one command does much, for each order that it touches. A structure without a cliff shows as a line that stays about
level: what remains is memory that no longer fits into a cache. Beside the costs stands the memory of an exchange in
which everything grows at once. Called by the command line and, small, by the tests.
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
from smrx.wire.records import COMMAND

Commands = NDArray[Any]

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
#: Commands of a measurement that has no number of its own; pairs of an order and its cancel.
PAIRS: Final = 5_000
#: Commands a call: as many as keep the events of a call in memory that is used anyway.
_CALL: Final = 10_000
#: Bids lie below, asks from here on; a million prices on each side have room.
_MIDDLE: Final = 1 << 24
_SECOND_NS: Final = 1_000_000_000
_MIB: Final = 1 << 20
#: Of a whole exchange with a million orders: 100,000 accounts and 1,000 instruments.
_ORDERS_PER_ACCOUNT: Final = 10
_ORDERS_PER_INSTRUMENT: Final = 1_000


class Unsupported(Exception):
    """This engine refuses what a curve needs."""


class Bench:
    """An engine with a market, and commands that are numbered as they are made."""

    def __init__(self, accounts: int = 2, instruments: int = 1) -> None:
        self.engine = Engine()
        self.numbering = tapes.Numbering(accounts)
        self.time_ns = 1
        self.send(tapes.market(accounts, instruments))

    def send(self, commands: Commands) -> tuple[float, int]:
        """Apply commands; return seconds and events. Raises Unsupported if one of them is refused."""
        before = self.engine.event_sequence
        seconds = 0.0
        for at in range(0, len(commands), _CALL):
            begin = time.perf_counter()
            result = self.engine.apply(commands[at : at + _CALL], self.time_ns)
            seconds += time.perf_counter() - begin
            refused = result.outcomes["reason"][result.outcomes["status"] != OutcomeStatus.ACCEPTED]
            if len(refused):
                raise Unsupported(f"refused with reason {int(refused[0])}")
        return seconds, self.engine.event_sequence - before

    def orders(self, count: int, prices: Any, *, account: Any = 1, side: Any = Side.BUY, lots: Any = 1) -> Commands:
        """Limit orders that rest."""
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

    def rest(self, rows: Commands) -> NDArray[np.uint64]:
        """Let orders rest; return their ids."""
        first = self.engine.sequence + 1
        self.send(self.numbered(rows))
        return np.arange(first, first + len(rows), dtype=np.uint64)

    def pairs(self, orders: Commands) -> float:
        """Nanoseconds a command of placing each order and cancelling it, one after the other."""
        rows = np.repeat(orders, 2)
        first = self.engine.sequence + 1
        rows[1::2] = self.cancels(np.arange(first, first + len(rows), 2), orders["account"])
        return self.send(self.numbered(rows))[0] / len(rows) * _SECOND_NS


def _random(count: int) -> np.random.Generator:
    return np.random.default_rng(count)


def resting_orders(size: int) -> float:
    """Place and cancel in a book of so many orders at 1,000 prices."""
    bench = Bench()
    random = _random(size)
    bench.rest(bench.orders(size, _MIDDLE - random.integers(0, 1_000, size)))
    return bench.pairs(bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS)))


def distinct_prices(size: int) -> float:
    """Place and cancel at prices of their own between so many others."""
    bench = Bench()
    random = _random(size)
    prices = _MIDDLE - 2 * random.permutation(size)
    bench.rest(bench.orders(size, prices))
    return bench.pairs(bench.orders(PAIRS, prices[random.integers(0, size, PAIRS)] + 1))


def accounts(size: int) -> float:
    """Place and cancel by accounts chosen among so many."""
    bench = Bench(accounts=size)
    random = _random(size)
    chosen = random.integers(1, size + 1, PAIRS)
    return bench.pairs(bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS), account=chosen))


def instruments(size: int) -> float:
    """Place and cancel on instruments chosen among so many."""
    bench = Bench(instruments=size)
    random = _random(size)
    rows = bench.orders(PAIRS, _MIDDLE - random.integers(0, 1_000, PAIRS))
    rows["instrument"] = random.integers(tapes.INSTRUMENT, tapes.INSTRUMENT + size, PAIRS)
    return bench.pairs(rows)


def price_level_per_order(size: int) -> float:
    """Place so many orders, each at a price of its own, in random order, and cancel them in another."""
    bench = Bench()
    random = _random(size)
    first = bench.engine.sequence + 1
    placed, _ = bench.send(bench.numbered(bench.orders(size, _MIDDLE - random.permutation(size))))
    cancelled, _ = bench.send(bench.numbered(bench.cancels(first + random.permutation(size))))
    return (placed + cancelled) / (2 * size) * _SECOND_NS


def deep_sweep(size: int) -> float:
    """One order through so many makers; for each of them."""
    bench = Bench()
    bench.rest(bench.orders(size, _MIDDLE + _random(size).integers(0, 1_000, size), side=Side.SELL))
    take = bench.orders(1, _MIDDLE + 1_000, account=2, lots=size)
    seconds, events = bench.send(bench.numbered(take))
    if events < 3 * size:
        raise Unsupported(f"expected {size} makers to be met, found {events} events")
    return seconds / size * _SECOND_NS


def mass_cancel(size: int) -> float:
    """One command that cancels so many orders; for each of them."""
    bench = Bench()
    bench.rest(bench.orders(size, _MIDDLE - _random(size).integers(0, 1_000, size)))
    rows = np.zeros(1, COMMAND)
    rows["kind"], rows["account"] = CommandKind.MASS_CANCEL, 1
    seconds, _ = bench.send(bench.numbered(rows))
    return seconds / size * _SECOND_NS


def middle_of_a_queue(size: int) -> float:
    """Cancel out of the middle of one price's queue of so many."""
    bench = Bench()
    ids = bench.rest(bench.orders(size, _MIDDLE))
    chosen = ids[size // 4 : size // 4 + min(PAIRS, size // 2)]
    cancels = bench.numbered(bench.cancels(_random(size).permutation(chosen)))
    return bench.send(cancels)[0] / len(cancels) * _SECOND_NS


def stop_cascade(size: int) -> float:
    """One trade that triggers so many stops, each of which trades and triggers the next; for each of them."""
    bench = Bench()
    steps = np.arange(size)
    # A ladder of bids, one lot a tick, and a stop for each of them: every sale moves the price one tick down.
    bench.rest(bench.orders(size + 1, _MIDDLE - np.arange(size + 1)))
    stops = bench.orders(size, 0, account=2, side=Side.SELL)
    stops["order_type"], stops["tif"], stops["order_id"] = OrderType.STOP, TimeInForce.IOC, _MIDDLE - steps
    bench.rest(stops)
    seconds, events = bench.send(bench.numbered(bench.orders(1, _MIDDLE, account=2, side=Side.SELL)))
    if events < 4 * size:
        raise Unsupported(f"expected {size} stops to be triggered, found {events} events")
    return seconds / size * _SECOND_NS


def expiries(size: int) -> float:
    """One command at whose time so many orders expire; for each of them."""
    bench = Bench()
    random = _random(size)
    rows = bench.orders(size, _MIDDLE - random.integers(0, 1_000, size))
    rows["tif"] = TimeInForce.GTD
    # The extra word of a PLACE: the expiry in whole seconds, in the high half.
    rows["order_id"] = (1 + random.permutation(size)).astype(np.uint64) << np.uint64(32)
    bench.rest(rows)
    bench.time_ns = (size + 1) * _SECOND_NS
    seconds, events = bench.send(bench.numbered(bench.orders(1, _MIDDLE)))
    if events < size:
        raise Unsupported(f"expected {size} orders to expire, found {events} events")
    return seconds / size * _SECOND_NS


def whole(size: int) -> Bench:
    """An exchange with so many resting orders, each at a price that no other has, and accounts and instruments alike.

    A million orders are those of 100,000 accounts on 1,000 instruments. Raises Unsupported if one of all that is not
    in the engine afterwards.
    """
    holders, listed = max(2, size // _ORDERS_PER_ACCOUNT), max(1, size // _ORDERS_PER_INSTRUMENT)
    bench = Bench(accounts=holders, instruments=listed)
    random = _random(size)
    rows = bench.orders(size, _MIDDLE - 2 * random.permutation(size), account=1 + random.permutation(size) % holders)
    rows["instrument"] = tapes.INSTRUMENT + random.permutation(size) % listed
    bench.rest(rows)
    # The venue's own account is there from the beginning.
    wanted = {"orders": size, "levels": size, "accounts": holders + 1, "instruments": listed}
    found = {name: count for name, count in bench.engine.inspect.counts().items() if name in wanted}
    if found != wanted:
        raise Unsupported(f"expected {wanted} in one engine, found {found}")
    return bench


def whole_exchange(size: int) -> float:
    """Place and cancel anywhere in an exchange that is as large in everything at once."""
    bench = whole(size)
    random = _random(size)
    counts = bench.engine.inspect.counts()
    chosen = random.integers(1, counts["accounts"], PAIRS)
    rows = bench.orders(PAIRS, _MIDDLE + 1 - 2 * random.integers(0, size, PAIRS), account=chosen)
    rows["instrument"] = tapes.INSTRUMENT + random.integers(0, counts["instruments"], PAIRS)
    return bench.pairs(rows)


def memory(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """What a whole exchange of each size holds and takes: the bytes of its tables, and the resident memory they add.

    The first row is an engine with nothing in it. Tables double when they are full, so their bytes go up in steps;
    pages of them that nothing was written to are not resident. Measure it before other engines leave memory behind.
    """
    # The code of the engine, and what NumPy keeps, are no memory of an exchange.
    whole(100)
    gc.collect()
    before = resident_bytes()
    rows: list[dict[str, Any]] = []
    for size in (0, *(size for size in sizes if size <= SIZES[-1])):
        engine = whole(size).engine if size else Engine()
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
    """A curve: what it is called, for what its cost is, and how one point of it is measured."""

    name: str
    unit: str
    measure: Callable[[int], float]
    most: int = SIZES[-1]


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
    """Measure every curve at every size, `repeats` times on a new engine each; the fastest run counts.

    The memory of the whole exchange, at the same sizes, is measured before all curves.
    """
    if not sizes or min(sizes) < 100 or repeats < 1:
        raise ValueError(f"sizes and repeats: expected sizes of 100 or more, repeated once or more, found {sizes}")
    try:
        taken = memory(sizes)
    except Unsupported:
        taken = []  # the curve of the whole exchange says why
    found = []
    for number, curve in enumerate(curves):
        points: list[dict[str, float]] = []
        absent = None
        for size in (size for size in sizes if size <= curve.most):
            try:
                cost = min(curve.measure(size) for _ in range(repeats))
            except Unsupported as error:
                absent = f"this engine does not do it: {error}"
                break
            points.append({"size": size, "ns": round(cost, 1)})
            if progress is not None:
                progress("curves", (number + size / max(sizes)) / len(curves))
        growth = round(points[-1]["ns"] / points[0]["ns"], 2) if points else None
        found.append({"name": curve.name, "unit": curve.unit, "points": points, "growth": growth, "absent": absent})
    return {
        "curves": found,
        "memory": taken,
        "conditions": machine_conditions.machine() | {"repeats": repeats, "tier": "B", "cores": 1},
    }


def picture(figures: dict[str, Any]) -> str:
    """The curves as SVG, and below them the memory if it was measured."""
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
    taken = svg.chart(
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
    return svg.stack([costs, taken])
