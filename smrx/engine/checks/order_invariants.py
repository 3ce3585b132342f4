"""Check orders' terms, holds, stops, expiries and sessions: the invariants that depend on the rules of the exchange.

Plain NumPy, one generator of sentences for each subject, as in invariants.py, which alone calls it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.engine.checks.full_hash import ID_FIELDS, TERMS_FIELDS
from smrx.engine.checks.record_columns import Columns, StateColumns
from smrx.engine.checks.xxh3_rows import hash_rows
from smrx.engine.state import BOOKS, NEVER
from smrx.wire.codes import CommandKind, InstrumentStatus, OrderType, Side, TimeInForce
from smrx.wire.records import DETAILS_FIELDS, LONG_ID, SHORT_ID_SIZE

#: Terms that orders do not have yet.
_RESERVED_TERMS = tuple(name for name in TERMS_FIELDS if name not in DETAILS_FIELDS[CommandKind.PLACE])
#: Sums that may overflow a word are computed in two parts: below so many bits, and above. The notional of open orders
#: is counted in twice as many bits, see balances.py.
HALF = 31
_LOW31 = (1 << HALF) - 1
_MILLION = 1_000_000


def leaves_lots(orders: Columns) -> NDArray[np.int64]:
    """Return the lots that the open orders have left."""
    left: NDArray[np.int64] = orders.live("quantity") - orders.live("cum")
    return left


def exact_sums(places: Any, count: int, *amounts: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the exact sums of amounts by place, in two parts: how often 2^31 is in each, and the rest below that."""
    high, low = (np.zeros(count, dtype=np.int64) for _ in range(2))
    for column in amounts:
        np.add.at(high, places, column >> HALF)
        np.add.at(low, places, column & _LOW31)
    return high + (low >> HALF), low & _LOW31


def visible_lots(orders: Columns) -> NDArray[np.int64]:
    """Return the lots that levels count: the shown lots of icebergs, the remaining lots of all others."""
    shown = orders.live("shown")
    return np.where(shown != 0, shown, leaves_lots(orders))


def order_terms(tables: StateColumns, field: str) -> NDArray[np.int64]:
    """Return a field of the details of the open orders; 0 for those without."""
    found: NDArray[np.int64] = tables["order_details"][field][tables["orders"].live("details")]
    return found


def details_violations(tables: StateColumns) -> Iterator[str]:
    """Each record of details belongs to one order and says something; client order ids are texts in one form."""
    orders, details = tables["orders"], tables["order_details"]
    owned = np.bincount(orders.live("details"), minlength=len(details))[1:]
    if (owned != (details["live"][1:] != 0)).any():
        yield "order_details: a record does not belong to one order"
    words = np.stack([details[name] for name in ID_FIELDS], axis=1)
    has_text: NDArray[np.bool_] = (words != 0).sum(axis=1) != 0
    terms = np.stack([details[name] != 0 for name in TERMS_FIELDS], axis=1)
    says = has_text | terms.any(axis=1)
    if not says[details.slots].all():
        yield "order_details: a record is empty"
    if any(details.live(name).any() for name in _RESERVED_TERMS):
        yield "order_details: a record has terms that no order has"
    has_text = has_text & (details["live"] != 0)
    if not _are_texts(words[has_text], SHORT_ID_SIZE + 1):
        yield "order_details: a client order id is not a text of more than 8 characters"
    forms = np.zeros(len(details), dtype=np.uint64)
    if has_text.any():
        forms[has_text] = hash_rows(words[has_text]) | np.uint64(LONG_ID)
    found, expected = orders.live("client_order_id"), forms[orders.live("details")]
    short = expected == 0
    if (found != expected)[~short].any() or not _are_texts(found[short & (found != 0)].reshape(-1, 1), 1):
        yield "orders: a client order id is not a text, or not the form of its text"
    pending = orders.live("order_type") >= OrderType.STOP
    if ((order_terms(tables, "stop_price_ticks") > 0) != pending).any():
        yield "orders: one that is not a pending stop has a stop price, or a stop has none"
    if ((order_terms(tables, "expiry_ns") != 0) != (orders.live("tif") == TimeInForce.GTD)).any():
        yield "orders: one that is not GTD has an expiry, or a GTD order has none"


def _are_texts(words: NDArray[np.uint64], at_least: int) -> bool:
    """Whether each row of words is at least so many printable ASCII characters, and then only NULs."""
    characters = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), 8 * words.shape[1])
    used = characters != 0
    lengths = used.sum(axis=1)
    padded = used == (np.arange(characters.shape[1]) < lengths[:, None])
    printable = (characters >= ord(" ")) & (characters <= ord("~"))
    return bool(padded.all() and (printable == used).all() and (lengths >= at_least).all())


def iceberg_violations(tables: StateColumns) -> Iterator[str]:
    """An iceberg shows at least one and at most its display of lots; no other order has shown lots."""
    orders, books = tables["orders"], tables.state.books
    limit = orders.live("order_type") == OrderType.LIMIT
    display = np.where(limit, order_terms(tables, "display_lots"), 0)
    shown = orders.live("shown")
    hides = display != 0
    if ((shown != 0) != hides).any() or (shown > np.minimum(display, leaves_lots(orders))).any():
        yield "orders: the shown lots of one do not match its display"
    homes = tables["levels"]["book"][orders.live("level")[hides]]
    if (np.bincount(homes, minlength=len(books)) != books["icebergs"]).any():
        yield "books: a count of icebergs does not match the orders"


def stop_violations(tables: StateColumns) -> Iterator[str]:
    """No stop is pending whose price is reached; no elected stop is left, and no command is unfinished."""
    orders, turn = tables["orders"], tables.state.turn
    kinds = orders.live("order_type")
    if ((kinds != OrderType.LIMIT) & (kinds < OrderType.STOP)).any():
        yield "orders: a resting order is not a limit order"
    pending = orders.slots[kinds >= OrderType.STOP]
    last = tables["instruments"]["last_price"][orders["instrument"][pending]]
    price = tables["order_details"]["stop_price_ticks"][orders["details"][pending]]
    reached = np.where(orders["side"][pending] == Side.BUY, last >= price, last <= price)
    if (reached & (last != 0)).any():
        yield "orders: a stop is pending although its price is reached"
    if turn["elected"][0] or turn["stage"][0]:
        yield "turn: a command is unfinished"


def heap_violations(tables: StateColumns) -> Iterator[str]:
    """The heap contains every GTD order at its place, none earlier than its parent; core has the first expiry."""
    state, orders = tables.state, tables["orders"]
    waiting = orders.slots[orders.live("tif") == TimeInForce.GTD]
    count = int(state.core["expiring"][0])
    if count >= len(state.heap):
        yield "heap: its count exceeds its capacity"
        return
    places = state.heap[1 : count + 1]
    if not np.array_equal(np.sort(places), waiting):
        yield "heap: its entries are not the GTD orders"
        return
    if (orders["place"][places] != np.arange(1, count + 1)).any() or np.count_nonzero(orders.live("place")) != count:
        yield "heap: an order is at the wrong place"
    expiry = tables["order_details"]["expiry_ns"][orders["details"][places]]
    ids = orders["order_id"][places]
    parents = (np.arange(1, count + 1) >> 1) - 1
    children = np.arange(1, count)
    above = parents[children]
    if (
        (expiry[above] > expiry[children]) | ((expiry[above] == expiry[children]) & (ids[above] > ids[children]))
    ).any():
        yield "heap: an order is earlier than its parent"
    if int(state.core["next_expiry"][0]) != (int(expiry[0]) if count else NEVER):
        yield "heap: the first expiry does not match the first order"


def session_violations(tables: StateColumns) -> Iterator[str]:
    """A session counts the open orders that end with it."""
    rows = tables["sessions"]
    counts = np.bincount(tables["orders"].live("session"), minlength=len(rows))
    if (counts[rows.slots] != rows.live("orders")).any():
        yield "sessions: a count of orders does not match the orders"
    if (rows.live("flags") == 0)[rows.live("orders") != 0].any():
        yield "sessions: one without cancel on disconnect has orders"
    yield from _session_list_violations(tables)


def _session_list_violations(tables: StateColumns) -> Iterator[str]:
    """The orders that end with a session are linked by id."""
    state, orders, sessions = tables.state, tables["orders"], tables["sessions"]
    slots = orders.slots[orders.live("session") != 0]
    slots = slots[np.lexsort((orders["order_id"][slots], orders["session"][slots]))]
    owners = orders["session"][slots]
    same = owners[1:] == owners[:-1]
    older, newer = np.zeros((2, len(slots)), np.uint32)
    older[1:], newer[:-1] = np.where(same, slots[:-1], 0), np.where(same, slots[1:], 0)
    links = state.session_links[slots]
    if (links["older"] != older).any() or (links["newer"] != newer).any():
        yield "sessions: the orders that end with one are not linked by id"
    ends = np.zeros((2, len(sessions)), np.uint32)
    ends[0][owners[older == 0]] = slots[older == 0]
    ends[1][owners[newer == 0]] = slots[newer == 0]
    lists = state.session_lists[sessions.slots]
    if (lists["first"] != ends[0][sessions.slots]).any() or (lists["last"] != ends[1][sessions.slots]).any():
        yield "sessions: a list of orders does not begin or end with its first or last order"


def status_violations(tables: StateColumns) -> Iterator[str]:
    """A closed instrument has no open order; one with fees has a balance of the venue to credit them to."""
    instruments, balances = tables["instruments"], tables["balances"]
    orders = tables.state.books["orders"][: BOOKS * len(instruments)].reshape(-1, BOOKS).sum(axis=1)
    if ((instruments["status"] == InstrumentStatus.CLOSED) & (orders != 0)).any():
        yield "instruments: a closed one has open orders"
    named = instruments["fee_balance"]
    paid = named != 0
    foreign = (balances["account_id"][named] != 0) | (balances["asset_id"][named] != instruments["quote_id"])
    if (paid & foreign).any():
        yield "instruments: a fee balance is not the venue's"
    if ((instruments["taker_fee"] != 0) & ~paid).any():
        yield "instruments: one with fees has no fee balance"


def _fees(notional: Any, rate: Any) -> Any:
    """Return ceil(notional * rate / 10^6), in parts of a million each, so that no product overflows."""
    millions = notional // _MILLION
    return millions * rate - (-(notional - millions * _MILLION) * rate) // _MILLION


def hold_violations(tables: StateColumns) -> Iterator[str]:
    """Each balance holds the sum of what its open orders need, fees included, each in its own asset."""
    orders, balances, instruments = tables["orders"], tables["balances"], tables["instruments"]
    traded = orders.live("instrument")
    buys = orders.live("side") == Side.BUY
    left = leaves_lots(orders)
    unit = orders.live("price") * instruments["scale_units"].astype(np.int64)[traded]
    rate = instruments["taker_fee"]
    if rate.any():
        unit = unit + _fees(unit, rate[traded])
    base = instruments["lot_units"].astype(np.int64)[traded]
    held = np.zeros(len(balances), dtype=np.int64)
    np.add.at(held, orders.live("gives"), left * np.where(buys, unit, base))
    if (held != balances["held"]).any():
        yield "balances: a held amount does not match the open orders"
    bases, quotes = instruments["base_id"][traded], instruments["quote_id"][traded]
    for link, bought in (("gives", ~buys), ("takes", buys)):
        named = orders.live(link)
        asset = np.where(bought, bases, quotes)
        owner = orders.live("account_id")
        if (balances["account_id"][named] != owner).any() or (balances["asset_id"][named] != asset).any():
            yield f"orders: the {link} balance of one is not its own"


def open_notional_violations(tables: StateColumns) -> Iterator[str]:
    """A balance counts the notional of its account's open orders that are quoted in its asset."""
    orders, balances = tables["orders"], tables["balances"]
    scale = tables["instruments"]["scale_units"].astype(np.int64)[orders.live("instrument")]
    notional = orders.live("price") * scale * leaves_lots(orders)
    where = np.where(orders.live("side") == Side.BUY, orders.live("gives"), orders.live("takes"))
    high, low = exact_sums(where, len(balances), notional)
    part = (high & _LOW31) << HALF | low
    if (balances["open"] != part).any() or (balances["open_wraps"] != high >> HALF).any():
        yield "balances: an open notional does not match the open orders"
