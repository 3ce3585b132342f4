"""What must always hold of orders' terms, holds and timing: the part of invariants.py that knows the exchange.

Plain NumPy, one generator of sentences for each matter, as there; called by it alone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codes import InstrumentStatus, OrderType, Side, TimeInForce
from .state import BOOKS, NEVER, TABLES, State

Rows = NDArray[Any]
_LOW32 = np.uint64(0xFFFF_FFFF)
_U32 = np.uint64(32)
#: What the notional of open orders is counted in, see ledger.py.
_WRAP = 1 << 62


def used(state: State, table: str) -> Rows:
    """The records of a table up to the first slot never used; slot 0 is among them, so slots are positions."""
    number = next(number for number, known in enumerate(TABLES) if known.name == table)
    rows: Rows = getattr(state, table)[: int(state.pools["top"][number])]
    return rows


def live_slots(state: State, table: str) -> NDArray[np.intp]:
    return np.flatnonzero(used(state, table)["live"] != 0)


def _open(state: State) -> Rows:
    return used(state, "orders")[live_slots(state, "orders")]


def visible(orders: Rows) -> NDArray[np.int64]:
    """The lots that levels count: what icebergs show, what all others have left."""
    leaves = orders["quantity"] - orders["cum"]
    return np.where(orders["shown"] != 0, orders["shown"].astype(np.int64), leaves)


def icebergs(state: State) -> Iterator[str]:
    """An iceberg shows some of its lots and at most its display; nobody else shows a part."""
    orders = _open(state)
    display = np.where(orders["order_type"] == OrderType.LIMIT, orders["extra"] & _LOW32, 0).astype(np.int64)
    shown = orders["shown"].astype(np.int64)
    most = np.minimum(display, orders["quantity"] - orders["cum"])
    if ((shown != 0) != (display != 0)).any() or (shown > most).any():
        yield "orders: one shows more or less than its display"
    books = used(state, "levels")["book"][orders["level"]]
    if (np.bincount(books[display != 0], minlength=len(state.books)) != state.books["icebergs"]).any():
        yield "books: a count of icebergs is not that of the orders"


def stops(state: State) -> Iterator[str]:
    """No order waits for a price that is there already; none is left between its election and its turn."""
    orders = _open(state)
    if ((orders["order_type"] != OrderType.LIMIT) & (orders["order_type"] < OrderType.STOP)).any():
        yield "orders: one that rests is not a limit order"
    pending = orders[orders["order_type"] >= OrderType.STOP]
    last = used(state, "instruments")["last_price"][pending["instrument"]]
    price = pending["extra"].astype(np.int64)
    reached = np.where(pending["side"] == Side.BUY, last >= price, last <= price)
    if (reached & (last != 0)).any():
        yield "orders: a stop waits for a price that is reached"
    if state.turn["elected"][0] or state.turn["stage"][0]:
        yield "turn: a command is not finished"


def heap(state: State) -> Iterator[str]:
    """Every GTD order is in the heap, where it says; none is earlier than its parent; core knows the first."""
    orders, slots = used(state, "orders"), live_slots(state, "orders")
    waiting = slots[orders["tif"][slots] == TimeInForce.GTD]
    count = int(state.core["expiring"][0])
    if count >= len(state.heap):
        yield "heap: it has more orders than there is room for"
        return
    places = state.heap[1 : count + 1]
    if sorted(places.tolist()) != waiting.tolist():
        yield "heap: it does not have the GTD orders"
        return
    if (orders["place"][places] != np.arange(1, count + 1)).any() or orders["place"][slots].astype(bool).sum() != count:
        yield "heap: an order has another place than it says"
    expiry, ids = orders["extra"][places] >> _U32, orders["order_id"][places]
    parents = (np.arange(1, count + 1) >> 1) - 1
    children = np.arange(1, count)
    above = parents[children]
    if (
        (expiry[above] > expiry[children]) | ((expiry[above] == expiry[children]) & (ids[above] > ids[children]))
    ).any():
        yield "heap: an order is earlier than its parent"
    if int(state.core["next_expiry"][0]) != (int(expiry[0]) * 1_000_000_000 if count else NEVER):
        yield "heap: the first expiry is not that of the first order"


def sessions(state: State) -> Iterator[str]:
    """A session counts the open orders that end with it."""
    rows, slots = used(state, "sessions"), live_slots(state, "sessions")
    counts = np.bincount(_open(state)["session"], minlength=len(rows))
    if (counts[slots] != rows["orders"][slots]).any():
        yield "sessions: a count of orders is not that of the orders"
    if (rows["flags"][slots] == 0)[rows["orders"][slots] != 0].any():
        yield "sessions: one has orders though it did not ask for it"


def statuses(state: State) -> Iterator[str]:
    """A closed instrument has no open order; one with fees has a balance of the venue to pay them into."""
    instruments, balances = used(state, "instruments"), used(state, "balances")
    orders = state.books["orders"][: BOOKS * len(instruments)].reshape(-1, BOOKS).sum(axis=1)
    if ((instruments["status"] == InstrumentStatus.CLOSED) & (orders != 0)).any():
        yield "instruments: a closed one has open orders"
    named = balances[instruments["fee_balance"]]
    paid = instruments["fee_balance"] != 0
    if (paid & ((named["account_id"] != 0) | (named["asset_id"] != instruments["quote_id"]))).any():
        yield "instruments: fees go to another balance than the venue's"
    if ((instruments["taker_fee"] != 0) & ~paid).any():
        yield "instruments: one has fees and no balance for them"


def _fees(notional: Any, rate: Any) -> Any:
    """ceil(notional * rate / 10^6); exact, as Python's integers are."""
    pairs = zip(notional.tolist(), rate.tolist(), strict=True)
    return np.array([-(-amount * millionths // 1_000_000) for amount, millionths in pairs], dtype=np.int64)


def holds(state: State) -> Iterator[str]:
    """What balances hold is the sum of what the open orders hold of them, fees included, each in its own asset."""
    orders = _open(state)
    balances = used(state, "balances")
    instruments = used(state, "instruments")[orders["instrument"]]
    buys = orders["side"] == Side.BUY
    leaves = orders["quantity"] - orders["cum"]
    unit = orders["price"] * instruments["scale_units"].astype(np.int64)
    charge = np.where(instruments["taker_fee"] != 0, _fees(unit, instruments["taker_fee"]), 0)
    base = leaves * instruments["lot_units"].astype(np.int64)
    held = np.zeros(len(balances), dtype=np.int64)
    np.add.at(held, orders["gives"], np.where(buys, leaves * (unit + charge), base))
    if (held != balances["held"]).any():
        yield "balances: what is held is not what the open orders hold"
    for link, bought in (("gives", ~buys), ("takes", buys)):
        named = balances[orders[link]]
        asset = np.where(bought, instruments["base_id"], instruments["quote_id"])
        if (named["account_id"] != orders["account_id"]).any() or (named["asset_id"] != asset).any():
            yield f"orders: one {link} a balance that is not its own"


def open_notionals(state: State) -> Iterator[str]:
    """A balance counts the notional of its account's open orders that are quoted in its asset."""
    orders = _open(state)
    balances = used(state, "balances")
    scale = used(state, "instruments")["scale_units"][orders["instrument"]].astype(np.int64)
    notional = orders["price"] * scale * (orders["quantity"] - orders["cum"])
    where = np.where(orders["side"] == Side.BUY, orders["gives"], orders["takes"])
    # Sums may be above any word: they are made of two halves.
    high, low = (np.zeros(len(balances), dtype=np.int64) for _ in range(2))
    np.add.at(high, where, notional >> 31)
    np.add.at(low, where, notional & ((1 << 31) - 1))
    expected = [(int(upper) << 31) + int(lower) for upper, lower in zip(high, low, strict=True)]
    kept = zip(balances["open"].tolist(), balances["open_wraps"].tolist(), strict=True)
    if any(
        not 0 <= part < _WRAP or part + wraps * _WRAP != total
        for (part, wraps), total in zip(kept, expected, strict=True)
    ):
        yield "balances: an open notional is not that of the open orders"
