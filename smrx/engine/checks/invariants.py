"""Check the invariants of a state, independently of the kernels, with plain NumPy.

`violations` returns one sentence for each invariant that does not hold, none if all hold. It never changes the state
and shares only the layout and the keys of indexes with the kernels. Used by tests, the simulator, `smrx verify` and,
before it accepts foreign bytes, by restore.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from smrx.engine.checks.credential_invariants import credential_violations
from smrx.engine.checks.full_hash import WORDS, balance_sums, capacity, compare_table, retention, static_hashes
from smrx.engine.checks.index_invariants import index_violations
from smrx.engine.checks.order_invariants import (
    HALF,
    details_violations,
    exact_sums,
    heap_violations,
    hold_violations,
    iceberg_violations,
    open_notional_violations,
    session_violations,
    status_violations,
    stop_violations,
    visible_lots,
)
from smrx.engine.checks.price_tree_invariants import tree_violations
from smrx.engine.checks.record_columns import Columns, StateColumns
from smrx.engine.checks.retention_invariants import (
    have_broken_chains,
    list_violations,
    run_violations,
    transfer_list_violations,
)
from smrx.engine.state import BALANCES, BOOKS, TABLES, State
from smrx.wire.codes import InstrumentStatus, OrderType

#: Fields that hold a slot, and the table they point into.
LINKS = {
    "sessions": {"account": "accounts", "older": "sessions", "newer": "sessions", "credential": "credentials"},
    "transfers": {"newer": "transfers"},
    "accounts": {"first": "orders", "last": "orders"},
    "levels": {"first": "orders", "last": "orders", "better": "levels", "worse": "levels"},
    "orders": {
        "account": "accounts", "instrument": "instruments", "level": "levels", "before": "orders", "next": "orders",
        "older": "orders", "newer": "orders", "gives": "balances", "takes": "balances", "session": "sessions",
        "details": "order_details",
    },
    "instruments": {"fee_balance": "balances"},
}  # fmt: skip
#: Links that a live record must have; and those that it must have if there is a ledger.
REQUIRED = {"account", "instrument", "level"}
REQUIRED_WITH_LEDGER = {"gives", "takes"}


def violations(state: State) -> list[str]:
    """Return every violation. If links are invalid, nothing that follows links is checked."""
    tables = StateColumns(state)
    return invalid_links(tables) or inconsistencies(tables)


def invalid_links(tables: StateColumns) -> list[str]:
    """Return what is wrong with slots and links: nothing may follow them if anything is. Needs no index."""
    return list(pool_violations(tables)) or [*link_violations(tables), *run_violations(tables)]


def inconsistencies(tables: StateColumns) -> list[str]:
    """Return every other violation of a state whose links are valid."""
    core = tables.state.core[0]
    found: list[str] = []
    for check in (
        queue_violations,
        account_list_violations,
        price_order_violations,
        tree_violations,
        index_violations,
        details_violations,
        iceberg_violations,
        stop_violations,
        heap_violations,
        session_violations,
        list_violations,
        credential_violations,
        transfer_list_violations,
        status_violations,
        money_violations,
    ):
        found += check(tables)
    if core["ledger"]:
        found += [*hold_violations(tables), *open_notional_violations(tables)]
    return [*found, *hash_violations(tables.state)] if core["hashing"] else found


def pool_violations(tables: StateColumns) -> Iterator[str]:
    """Every slot ever used is either live or on the free list, once."""
    for number, table in enumerate(TABLES):
        pool = tables.state.pools[number]
        rows = getattr(tables.state, table.name)
        top = int(pool["top"])
        if not 1 <= top <= len(rows):
            yield f"{table.name}: {top - 1} slots used of {len(rows) - 1}"
            continue
        if rows[0].tobytes().strip(b"\0"):
            yield f"{table.name}: slot 0 is not empty"
        columns = tables[table.name]
        slot = int(pool["free"])
        if slot and "next" not in (rows.dtype.names or ()):
            yield f"{table.name}: there are free slots, though no record is ever removed"
            continue
        following = columns["next"].tolist() if slot else []
        free = bytearray(top)
        while slot and slot < top and not free[slot]:
            free[slot] = 1
            slot = following[slot]
        if slot:
            yield f"{table.name}: the free list is circular or leaves the table"
        on_list, live = free.count(1), int(pool["live"])
        if on_list + live != top - 1:
            yield f"{table.name}: {on_list} free and {live} live slots of {top - 1}"
        if number != BALANCES and len(columns.slots) != live:
            yield f"{table.name}: {len(columns.slots)} live records, {live} counted"
        if np.frombuffer(free, np.uint8)[columns.slots].any():
            yield f"{table.name}: a live record is on the free list"


def link_violations(tables: StateColumns) -> Iterator[str]:
    """Links of live records refer to live records, books to live levels."""
    required = REQUIRED | REQUIRED_WITH_LEDGER if tables.state.core["ledger"][0] else REQUIRED
    for table, links in LINKS.items():
        for field, target in links.items():
            if not _are_live(tables, tables[table].live(field), target, field in required):
                yield f"{table}: a {field} link is invalid"
    if not _are_live(tables, tables.state.books["best"], "levels", False):
        yield "books: a best level is invalid"
    if (tables["levels"].live("book") >= len(tables.state.books)).any():
        yield "levels: a book number is invalid"


def _are_live(tables: StateColumns, slots: Any, target: str, required: bool) -> bool:
    """Whether slots of a table are live, or 0 if they are not required."""
    # Balances that were never paid into are not live, but orders link to them.
    columns = tables[target]
    allowed = columns["live"] != 0 if target != "balances" else np.ones(len(columns), dtype=bool)
    allowed[0] = not required
    return bool((slots < len(allowed)).all() and allowed[slots].all())


def queue_violations(tables: StateColumns) -> Iterator[str]:
    """A level's quantity and count are the sums over its queue, which is in order of priority."""
    orders, levels = tables["orders"], tables["levels"]
    home = orders.live("level")
    counts = np.bincount(home, minlength=len(levels))
    if (counts[levels.slots] != levels.live("orders")).any() or not levels.live("orders").all():
        yield "levels: an order count does not match the queue"
    sums = np.zeros(len(levels), dtype=np.int64)
    np.add.at(sums, home, visible_lots(orders))
    if (sums[levels.slots] != levels.live("quantity")).any():
        yield "levels: a quantity does not match the queue"
    if (orders.live("cum") < 0).any() or (orders.live("cum") >= orders.live("quantity")).any():
        yield "orders: an open order has no lots left"
    if (orders.live("order_id") > tables.state.core["command_sequence"][0]).any():
        yield "orders: an order id is above the last command sequence"
    pending = orders.live("order_type") >= OrderType.STOP
    side = orders.live("side").astype(np.int64)
    book = BOOKS * orders.live("instrument").astype(np.int64) + np.where(pending, 4 - side, side - 1)
    stop = tables["order_details"]["stop_price_ticks"][orders.live("details")]
    price = np.where(pending, stop, orders.live("price"))
    if (levels["price"][home] != price).any() or (levels["book"][home] != book).any():
        yield "orders: an order is at the wrong price or in the wrong book"
    if not _is_chained(orders, "next", "before", "level", "priority"):
        yield "orders: a queue is not linked in order of priority"
    if not _has_ends(orders, levels, "next", "before", "level"):
        yield "levels: the ends of a queue do not match its orders"


def account_list_violations(tables: StateColumns) -> Iterator[str]:
    """Every open order is in the list of its account, oldest first."""
    orders, accounts = tables["orders"], tables["accounts"]
    owner = orders.live("account")
    counts = np.bincount(owner, minlength=len(accounts))
    if (counts[accounts.slots] != accounts.live("orders")).any():
        yield "accounts: a count of open orders does not match the orders"
    if (accounts["account_id"][owner] != orders.live("account_id")).any():
        yield "orders: an order is linked to the wrong account"
    if not _is_chained(orders, "newer", "older", "account", "order_id"):
        yield "orders: an account's list is not linked oldest first"
    if not _has_ends(orders, accounts, "newer", "older", "account"):
        yield "accounts: the ends of a list do not match its orders"


def _is_chained(rows: Columns, ahead: str, back: str, owner: str, key: str) -> bool:
    """Whether links ahead and back agree, stay with one owner and rise in the key, so that there is no circle."""
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


def _has_ends(rows: Columns, owners: Columns, ahead: str, back: str, owner: str) -> bool:
    """Whether each owner's first and last are its only records without one before or behind."""
    for link, end in ((back, "first"), (ahead, "last")):
        outermost = rows.slots[rows.live(link) == 0]
        theirs = rows[owner][outermost]
        expected = np.zeros(len(owners), dtype=np.uint32)
        expected[theirs] = outermost
        if np.bincount(theirs).max(initial=0) > 1 or (owners.live(end) != expected[owners.slots]).any():
            return False
    return True


def price_order_violations(tables: StateColumns) -> Iterator[str]:
    """The levels of a book are linked from the best on, by falling bids and rising asks; no book is crossed."""
    levels, books = tables["levels"], tables.state.books
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
        yield "books: the best level has a better one"
    if (np.bincount(home, minlength=len(books)) != books["levels"]).any():
        yield "books: a count of levels does not match the levels"
    per_book = np.zeros(len(books), dtype=np.int64)
    np.add.at(per_book, home, levels.live("orders").astype(np.int64))
    if (per_book != books["orders"]).any():
        yield "books: a count of orders does not match the levels"
    trading = tables["instruments"]["status"] == InstrumentStatus.TRADING
    bids, asks = (books["best"][side::BOOKS][: len(trading)] for side in (0, 1))
    crossed = trading & (bids != 0) & (asks != 0) & (prices[bids] >= prices[asks])
    yield from (f"books: the book of instrument slot {slot} is crossed" for slot in np.flatnonzero(crossed))


def money_violations(tables: StateColumns) -> Iterator[str]:
    """No balance is negative; for each asset, the balances add up to the supply."""
    rows, assets = tables["balances"], tables["assets"]
    if (rows["available"] < 0).any() or (rows["held"] < 0).any():
        yield "balances: one is negative"
    idle = rows["live"] == 0
    if any(rows[field][idle].any() for field in ("available", "held", "hash")):
        yield "balances: one that is not live has money or a hash"
    # Assets by id; a balance whose asset does not exist is counted behind the last.
    order = np.argsort(assets.live("asset_id"), kind="stable")
    known = assets.live("asset_id")[order]
    place = np.searchsorted(known, rows["asset_id"])
    place[np.append(known, 0)[place] != rows["asset_id"]] = len(known)
    high, low = exact_sums(place, len(known) + 1, rows["available"], rows["held"])
    for asset, upper, lower, supply in zip(known, high, low, assets.live("supply")[order], strict=False):
        total = (int(upper) << HALF) + int(lower)
        if total != int(supply):
            yield f"asset {asset}: the supply is {supply}, the balances add up to {total}"


def hash_violations(state: State) -> Iterator[str]:
    """Each record's stored hash is its hash, and the sum of them is the stored sum."""
    total = 0
    for table in WORDS:
        table_sum, wrong = compare_table(state, table)
        total += table_sum
        if wrong is not None:
            yield f"{wrong}: the stored hash is wrong"
    instruments = state.instruments[state.instruments["live"] != 0]
    if (static_hashes(state, instruments) != instruments["static_hash"]).any():
        yield "instruments: a stored static hash is wrong"
    sessions = state.sessions[state.sessions["live"] != 0]
    if have_broken_chains(state, sessions).any():
        yield "answers: the chain of a session is broken"
    total += retention(state) + capacity(state)
    if total % (1 << 64) != int(state.core["digest"][0]):
        yield "the stored sum of record hashes is wrong"
    if any(int(state.core[name][0]) != value for name, value in balance_sums(state).items()):
        yield "the stored sum of the hashes of balances is wrong"
