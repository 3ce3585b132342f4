"""What must always hold, checked from the outside with plain NumPy.

`broken` returns one sentence for each thing that does not hold, none if all is well. It never changes the state and
shares no code with the kernels, but for the layout and the keys of indexes. Used by tests, the simulator, `smrx verify`
and, before it accepts foreign bytes, by restore.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from smrx.engine.checks.full_hash import WORDS, compared, static_hashes
from smrx.engine.checks.index_invariants import indexes
from smrx.engine.checks.order_invariants import (
    HALF,
    halves,
    heap,
    holds,
    icebergs,
    open_notionals,
    sessions,
    statuses,
    stops,
    visible,
)
from smrx.engine.checks.price_tree_invariants import trees
from smrx.engine.checks.record_columns import Columns, View
from smrx.engine.state import BALANCES, BOOKS, TABLES, State
from smrx.wire.codes import InstrumentStatus, OrderType

#: Fields that hold a slot, and the table they point into.
LINKS = {
    "sessions": {"account": "accounts"},
    "accounts": {"first": "orders", "last": "orders"},
    "levels": {"first": "orders", "last": "orders", "better": "levels", "worse": "levels"},
    "orders": {
        "account": "accounts", "instrument": "instruments", "level": "levels", "before": "orders", "next": "orders",
        "older": "orders", "newer": "orders", "gives": "balances", "takes": "balances", "session": "sessions",
    },
    "instruments": {"fee_balance": "balances"},
}  # fmt: skip
#: Links that a live record may not lack; and those that it may not lack where there is a ledger.
REQUIRED = {"account", "instrument", "level"}
PAYING = {"gives", "takes"}


def broken(state: State) -> list[str]:
    """Everything that does not hold. Where links lead astray nothing that follows links is checked."""
    view = View(state)
    return astray(view) or contradictions(view)


def astray(view: View) -> list[str]:
    """What is wrong with slots and links: nothing may follow them if anything is. Needs no index."""
    return list(pools_astray(view)) or list(links_astray(view))


def contradictions(view: View) -> list[str]:
    """What else does not hold of a state with sound links."""
    core = view.state.core[0]
    found: list[str] = []
    for part in (queues, account_lists, price_order, trees, indexes, icebergs, stops, heap, sessions, statuses, money):
        found += part(view)
    if core["ledger"]:
        found += [*holds(view), *open_notionals(view)]
    return [*found, *hashes(view.state)] if core["hashing"] else found


def pools_astray(view: View) -> Iterator[str]:
    """Every slot ever used is either live or on the free list, once."""
    for number, table in enumerate(TABLES):
        pool = view.state.pools[number]
        rows = getattr(view.state, table.name)
        top = int(pool["top"])
        if not 1 <= top <= len(rows):
            yield f"{table.name}: {top - 1} slots used of {len(rows) - 1}"
            continue
        if rows[0].tobytes().strip(b"\0"):
            yield f"{table.name}: slot 0 is not empty"
        columns = view[table.name]
        slot = int(pool["free"])
        following = columns["next"].tolist() if slot else []
        free = bytearray(top)
        while slot and slot < top and not free[slot]:
            free[slot] = 1
            slot = following[slot]
        if slot:
            yield f"{table.name}: the free list does not end"
        on_list, live = free.count(1), int(pool["live"])
        if on_list + live != top - 1:
            yield f"{table.name}: {on_list} free and {live} live slots of {top - 1}"
        if number != BALANCES and len(columns.slots) != live:
            yield f"{table.name}: {len(columns.slots)} live records, {live} counted"
        if np.frombuffer(free, np.uint8)[columns.slots].any():
            yield f"{table.name}: a live record is on the free list"


def links_astray(view: View) -> Iterator[str]:
    """Links of live records lead to live records; books to live levels."""
    required = REQUIRED | PAYING if view.state.core["ledger"][0] else REQUIRED
    for table, links in LINKS.items():
        for field, target in links.items():
            if not _lead_to_live(view, view[table].live(field), target, field in required):
                yield f"{table}: a {field} leads astray"
    if not _lead_to_live(view, view.state.books["best"], "levels", False):
        yield "books: a best level leads astray"
    if (view["levels"].live("book") >= len(view.state.books)).any():
        yield "levels: a book leads astray"


def _lead_to_live(view: View, slots: Any, target: str, required: bool) -> bool:
    # Balances that were never paid into are not live and yet an order's.
    columns = view[target]
    allowed = columns["live"] != 0 if target != "balances" else np.ones(len(columns), dtype=bool)
    allowed[0] = not required
    return bool((slots < len(allowed)).all() and allowed[slots].all())


def queues(view: View) -> Iterator[str]:
    """A level's quantity and count are the sums over its queue, which is in order of priority."""
    orders, levels = view["orders"], view["levels"]
    home = orders.live("level")
    counts = np.bincount(home, minlength=len(levels))
    if (counts[levels.slots] != levels.live("orders")).any() or not levels.live("orders").all():
        yield "levels: an order count is not that of the queue"
    sums = np.zeros(len(levels), dtype=np.int64)
    np.add.at(sums, home, visible(orders))
    if (sums[levels.slots] != levels.live("quantity")).any():
        yield "levels: a quantity is not that of the queue"
    if (orders.live("cum") < 0).any() or (orders.live("cum") >= orders.live("quantity")).any():
        yield "orders: an open order has no lots left"
    if (orders.live("order_id") > view.state.core["command_sequence"][0]).any():
        yield "orders: one is newer than the last command"
    pending = orders.live("order_type") >= OrderType.STOP
    side = orders.live("side").astype(np.int64)
    book = BOOKS * orders.live("instrument").astype(np.int64) + np.where(pending, 4 - side, side - 1)
    price = np.where(pending, orders.live("extra").astype(np.int64), orders.live("price"))
    if (levels["price"][home] != price).any() or (levels["book"][home] != book).any():
        yield "orders: an order is at another price or in another book"
    if not _chained(orders, "next", "before", "level", "priority"):
        yield "orders: a queue is not linked in order of priority"
    if not _ends(orders, levels, "next", "before", "level"):
        yield "levels: the ends of a queue are not those of its orders"


def account_lists(view: View) -> Iterator[str]:
    """Every open order is in the list of its account, oldest first."""
    orders, accounts = view["orders"], view["accounts"]
    owner = orders.live("account")
    counts = np.bincount(owner, minlength=len(accounts))
    if (counts[accounts.slots] != accounts.live("orders")).any():
        yield "accounts: a count of open orders is not that of the orders"
    if (accounts["account_id"][owner] != orders.live("account_id")).any():
        yield "orders: an order is linked to another account"
    if not _chained(orders, "newer", "older", "account", "order_id"):
        yield "orders: an account's list is not linked oldest first"
    if not _ends(orders, accounts, "newer", "older", "account"):
        yield "accounts: the ends of a list are not those of its orders"


def _chained(rows: Columns, ahead: str, back: str, owner: str, key: str) -> bool:
    """Links ahead and back agree, stay with one owner and rise in the key; so there is no circle."""
    following, preceding = rows.live(ahead), rows.live(back)
    linked = following != 0
    here, there = rows.slots[linked], following[linked]
    behind = preceding != 0
    return bool(
        (rows[back][there] == here).all()
        and (rows[owner][there] == rows[owner][here]).all()
        and (rows[key][there] > rows[key][here]).all()
        and (rows[ahead][preceding[behind]] == rows.slots[behind]).all()
    )


def _ends(rows: Columns, owners: Columns, ahead: str, back: str, owner: str) -> bool:
    """Each owner's first and last are its only records without one before or behind."""
    for link, end in ((back, "first"), (ahead, "last")):
        outermost = rows.slots[rows.live(link) == 0]
        theirs = rows[owner][outermost]
        expected = np.zeros(len(owners), dtype=np.uint32)
        expected[theirs] = outermost
        if np.bincount(theirs).max(initial=0) > 1 or (owners.live(end) != expected[owners.slots]).any():
            return False
    return True


def price_order(view: View) -> Iterator[str]:
    """The levels of a book are linked from the best on, by falling bids and rising asks; no book is crossed."""
    levels, books = view["levels"], view.state.books
    prices, homes, home = levels["price"], levels["book"], levels.live("book")
    worse = levels.live("worse")
    here, there = levels.slots[worse != 0], worse[worse != 0]
    falls = np.where(homes[here] % 2 == 1, prices[there] > prices[here], prices[there] < prices[here])
    linked = (levels["better"][there] == here).all() and (homes[there] == homes[here]).all()
    if not linked or not falls.all():
        yield "levels: neighbours are not in order of price"
    best = np.zeros(len(books), dtype=np.uint32)
    first = levels.slots[levels.live("better") == 0]
    best[homes[first]] = first
    if np.bincount(homes[first]).max(initial=0) > 1 or (best != books["best"]).any():
        yield "books: the best level is not the one that has none before it"
    if (np.bincount(home, minlength=len(books)) != books["levels"]).any():
        yield "books: a count of levels is not that of the levels"
    per_book = np.zeros(len(books), dtype=np.int64)
    np.add.at(per_book, home, levels.live("orders").astype(np.int64))
    if (per_book != books["orders"]).any():
        yield "books: a count of orders is not that of the levels"
    trading = view["instruments"]["status"] == InstrumentStatus.TRADING
    bids, asks = (books["best"][side::BOOKS][: len(trading)] for side in (0, 1))
    crossed = trading & (bids != 0) & (asks != 0) & (prices[bids] >= prices[asks])
    yield from (f"books: the book of instrument slot {slot} is crossed" for slot in np.flatnonzero(crossed))


def money(view: View) -> Iterator[str]:
    """No balance is below 0; per asset, deposits less withdrawals are what the accounts have."""
    rows, assets = view["balances"], view["assets"]
    if (rows["available"] < 0).any() or (rows["held"] < 0).any():
        yield "balances: one is below 0"
    idle = rows["live"] == 0
    if any(rows[field][idle].any() for field in ("available", "held", "hash")):
        yield "balances: one that is not live has money or a hash"
    # Assets by id, and each balance with its asset or, if there is none with that id, behind the last.
    order = np.argsort(assets.live("asset_id"), kind="stable")
    known = assets.live("asset_id")[order]
    place = np.searchsorted(known, rows["asset_id"])
    place[np.append(known, 0)[place] != rows["asset_id"]] = len(known)
    high, low = halves(place, len(known) + 1, rows["available"], rows["held"])
    for asset, upper, lower, supply in zip(known, high, low, assets.live("supply")[order], strict=False):
        total = (int(upper) << HALF) + int(lower)
        if total != int(supply):
            yield f"asset {asset}: accounts have {total} of a supply of {supply}"


def hashes(state: State) -> Iterator[str]:
    """Each record's hash is kept beside it, and the digest is their sum."""
    total = 0
    for table in WORDS:
        digest, wrong = compared(state, table)
        total += digest
        if wrong is not None:
            yield f"{wrong}: its hash is not the one kept"
    instruments = state.instruments[state.instruments["live"] != 0]
    if (static_hashes(state, instruments) != instruments["static_hash"]).any():
        yield "instruments: the hash kept of what no trade changes is not its hash"
    if total % (1 << 64) != int(state.core["digest"][0]):
        yield "the digest kept is not the digest of the records"
