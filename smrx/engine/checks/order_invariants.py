"""What must always hold of orders' terms, holds and timing: the part of invariants.py that knows the exchange.

Plain NumPy, one generator of sentences for each matter, as there; called by it alone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.engine.checks.record_columns import Columns, View
from smrx.engine.state import BOOKS, NEVER
from smrx.wire.codes import InstrumentStatus, OrderType, Side, TimeInForce

_LOW32 = np.uint64(0xFFFF_FFFF)
_U32 = np.uint64(32)
#: Sums that may be above any word are made of two: of what is below so many bits, and of what is above. The notional
#: of open orders is counted in twice as many bits, see balances.py.
HALF = 31
_LOW31 = (1 << HALF) - 1
_MILLION = 1_000_000


def leaves(orders: Columns) -> NDArray[np.int64]:
    """The lots that the open orders have left."""
    left: NDArray[np.int64] = orders.live("quantity") - orders.live("cum")
    return left


def halves(places: Any, count: int, *amounts: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sums of amounts by place, exact: how often 2^31 is in each, and the rest, which is less than that."""
    high, low = (np.zeros(count, dtype=np.int64) for _ in range(2))
    for column in amounts:
        np.add.at(high, places, column >> HALF)
        np.add.at(low, places, column & _LOW31)
    return high + (low >> HALF), low & _LOW31


def visible(orders: Columns) -> NDArray[np.int64]:
    """The lots that levels count: what icebergs show, what all others have left."""
    shown = orders.live("shown")
    return np.where(shown != 0, shown.astype(np.int64), leaves(orders))


def icebergs(view: View) -> Iterator[str]:
    """An iceberg shows some of its lots and at most its display; nobody else shows a part."""
    orders, books = view["orders"], view.state.books
    limit = orders.live("order_type") == OrderType.LIMIT
    display = np.where(limit, orders.live("extra") & _LOW32, 0).astype(np.int64)
    shown = orders.live("shown").astype(np.int64)
    hides = display != 0
    if ((shown != 0) != hides).any() or (shown > np.minimum(display, leaves(orders))).any():
        yield "orders: one shows more or less than its display"
    homes = view["levels"]["book"][orders.live("level")[hides]]
    if (np.bincount(homes, minlength=len(books)) != books["icebergs"]).any():
        yield "books: a count of icebergs is not that of the orders"


def stops(view: View) -> Iterator[str]:
    """No order waits for a price that is there already; none is left between its election and its turn."""
    orders, turn = view["orders"], view.state.turn
    kinds = orders.live("order_type")
    if ((kinds != OrderType.LIMIT) & (kinds < OrderType.STOP)).any():
        yield "orders: one that rests is not a limit order"
    pending = orders.slots[kinds >= OrderType.STOP]
    last = view["instruments"]["last_price"][orders["instrument"][pending]]
    price = orders["extra"][pending].astype(np.int64)
    reached = np.where(orders["side"][pending] == Side.BUY, last >= price, last <= price)
    if (reached & (last != 0)).any():
        yield "orders: a stop waits for a price that is reached"
    if turn["elected"][0] or turn["stage"][0]:
        yield "turn: a command is not finished"


def heap(view: View) -> Iterator[str]:
    """Every GTD order is in the heap, where it says; none is earlier than its parent; core knows the first."""
    state, orders = view.state, view["orders"]
    waiting = orders.slots[orders.live("tif") == TimeInForce.GTD]
    count = int(state.core["expiring"][0])
    if count >= len(state.heap):
        yield "heap: it has more orders than there is room for"
        return
    places = state.heap[1 : count + 1]
    if not np.array_equal(np.sort(places), waiting):
        yield "heap: it does not have the GTD orders"
        return
    if (orders["place"][places] != np.arange(1, count + 1)).any() or np.count_nonzero(orders.live("place")) != count:
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


def sessions(view: View) -> Iterator[str]:
    """A session counts the open orders that end with it."""
    rows = view["sessions"]
    counts = np.bincount(view["orders"].live("session"), minlength=len(rows))
    if (counts[rows.slots] != rows.live("orders")).any():
        yield "sessions: a count of orders is not that of the orders"
    if (rows.live("flags") == 0)[rows.live("orders") != 0].any():
        yield "sessions: one has orders though it did not ask for it"


def statuses(view: View) -> Iterator[str]:
    """A closed instrument has no open order; one with fees has a balance of the venue to pay them into."""
    instruments, balances = view["instruments"], view["balances"]
    orders = view.state.books["orders"][: BOOKS * len(instruments)].reshape(-1, BOOKS).sum(axis=1)
    if ((instruments["status"] == InstrumentStatus.CLOSED) & (orders != 0)).any():
        yield "instruments: a closed one has open orders"
    named = instruments["fee_balance"]
    paid = named != 0
    astray = (balances["account_id"][named] != 0) | (balances["asset_id"][named] != instruments["quote_id"])
    if (paid & astray).any():
        yield "instruments: fees go to another balance than the venue's"
    if ((instruments["taker_fee"] != 0) & ~paid).any():
        yield "instruments: one has fees and no balance for them"


def _fees(notional: Any, rate: Any) -> Any:
    """ceil(notional * rate / 10^6), by parts of a million each, of which no product is too large."""
    millions = notional // _MILLION
    return millions * rate - (-(notional - millions * _MILLION) * rate) // _MILLION


def holds(view: View) -> Iterator[str]:
    """What balances hold is the sum of what the open orders hold of them, fees included, each in its own asset."""
    orders, balances, instruments = view["orders"], view["balances"], view["instruments"]
    traded = orders.live("instrument")
    buys = orders.live("side") == Side.BUY
    left = leaves(orders)
    unit = orders.live("price") * instruments["scale_units"].astype(np.int64)[traded]
    rate = instruments["taker_fee"]
    if rate.any():
        unit = unit + _fees(unit, rate[traded])
    base = instruments["lot_units"].astype(np.int64)[traded]
    held = np.zeros(len(balances), dtype=np.int64)
    np.add.at(held, orders.live("gives"), left * np.where(buys, unit, base))
    if (held != balances["held"]).any():
        yield "balances: what is held is not what the open orders hold"
    bases, quotes = instruments["base_id"][traded], instruments["quote_id"][traded]
    for link, bought in (("gives", ~buys), ("takes", buys)):
        named = orders.live(link)
        asset = np.where(bought, bases, quotes)
        owner = orders.live("account_id")
        if (balances["account_id"][named] != owner).any() or (balances["asset_id"][named] != asset).any():
            yield f"orders: one {link} a balance that is not its own"


def open_notionals(view: View) -> Iterator[str]:
    """A balance counts the notional of its account's open orders that are quoted in its asset."""
    orders, balances = view["orders"], view["balances"]
    scale = view["instruments"]["scale_units"].astype(np.int64)[orders.live("instrument")]
    notional = orders.live("price") * scale * leaves(orders)
    where = np.where(orders.live("side") == Side.BUY, orders.live("gives"), orders.live("takes"))
    high, low = halves(where, len(balances), notional)
    part = (high & _LOW31) << HALF | low
    if (balances["open"] != part).any() or (balances["open_wraps"] != high >> HALF).any():
        yield "balances: an open notional is not that of the open orders"
