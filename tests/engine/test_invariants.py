"""The checkers notice what they are there for: one fault of each kind, put into a sound state."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smrx.engine.state import ACCOUNTS, BALANCES, BOOKS, NODES, ORDERS
from smrx.wire.codes import Side, TimeInForce
from tests.commands import open_session, place
from tests.engine.desk import BASE, FUNDS, QUOTE, Desk, busy_desk

Damage = Callable[[Any], None]


#: The books of the only instrument, which has slot 1.
BIDS, ASKS = BOOKS, BOOKS + 1


def slot_of_best(state: Any, book: int = BIDS) -> int:
    """The slot of the best bid's level."""
    return int(state.books["best"][book])


def put(table: str, field: str, value: int, slot: Callable[[Any], int] = lambda state: 1) -> Damage:
    """Write a value into a field of a record."""

    def damage(state: Any) -> None:
        getattr(state, table)[field][slot(state)] = value

    return damage


def add(table: str, field: str, value: int, slot: Callable[[Any], int] = lambda state: 1) -> Damage:
    def damage(state: Any) -> None:
        getattr(state, table)[field][slot(state)] += value

    return damage


def first_order(state: Any) -> int:
    """An order with others behind it in its queue and in its account's list."""
    orders = state.orders
    return next(
        slot
        for slot in range(1, len(orders))
        if orders["live"][slot] and orders["next"][slot] and orders["newer"][slot]
    )


def cross(state: Any) -> None:
    """Move the whole best ask, level and orders, index and hold apart, onto the best bid's price."""
    ask, bid = slot_of_best(state, ASKS), slot_of_best(state)
    state.levels["price"][ask] = state.levels["price"][bid]


def drop_from_index(state: Any) -> None:
    cells = state.order_index
    cells[cells.nonzero()[0][0]] = 0


def name_another(cells: Any, difference: int) -> None:
    """Change an entry of an index: the slot in its low half or the hash in its high half."""
    cells[cells.nonzero()[0][0]] ^= np.uint64(difference)


def move_in_index(state: Any) -> None:
    """Put an entry where no search comes by."""
    cells = state.account_index
    empty = next(at for at in range(len(cells) - 1, 0, -1) if not cells[at] and not cells[at - 1])
    full = int(cells.nonzero()[0][0])
    cells[empty] = cells[full]
    cells[full] = 0


def swap_levels(state: Any) -> None:
    best = slot_of_best(state)
    state.books["best"][BIDS] = state.levels["worse"][best]


def root(state: Any) -> int:
    """The node at the root of the bids' tree."""
    return int(state.books["root"][BIDS])


def join_branches(state: Any) -> None:
    """Let both branches of a book's root lead to the same place."""
    state.nodes["zero"][root(state)] = state.nodes["one"][root(state)]


def swap_branches(state: Any) -> None:
    node = root(state)
    state.nodes["zero"][node], state.nodes["one"][node] = state.nodes["one"][node], state.nodes["zero"][node]


def lend_beyond_words(state: Any) -> None:
    """Give two accounts so much more of an asset that the sum of what all have is the same in 64 bits."""
    mine = (state.balances["asset_id"] == QUOTE).nonzero()[0]
    for slot in mine[:2]:
        state.balances["available"][slot] += 1 << 62
        state.balances["held"][slot] += 1 << 62


def repeat_client_id(state: Any) -> None:
    """Give an order the client id of another of the same account, and let the index have it twice."""
    orders, cells = state.orders, state.client_index
    named = ((orders["live"] != 0) & (orders["client_order_id"] != 0)).nonzero()[0]
    first, second = next(
        (one, two) for one in named for two in named if one < two and orders["account"][one] == orders["account"][two]
    )
    orders["client_order_id"][second] = orders["client_order_id"][first]
    slots = cells & np.uint64(0xFFFF_FFFF)
    cells[slots == second] = 0
    at = int((slots == first).nonzero()[0][0])
    hashed = cells[at] >> np.uint64(32) << np.uint64(32)
    while cells[at]:
        at = (at + 1) % len(cells)
    cells[at] = hashed | np.uint64(second)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a level with too many lots": (add("levels", "quantity", 1, slot_of_best), "levels: a quantity does not match"),
    "a level with too many orders": (add("levels", "orders", 1, slot_of_best), "levels: an order count does not match"),
    "an order that is done and still there": (
        lambda state: put("orders", "cum", int(state.orders["quantity"][first_order(state)]), first_order)(state),
        "orders: an open order has no lots left",
    ),
    "an order at another price": (add("orders", "price", 1, first_order), "orders: an order is at the wrong price"),
    "a queue out of order": (put("orders", "priority", 1 << 40, first_order), "orders: a queue is not linked in order"),
    "a queue that is cut": (put("orders", "next", 0, first_order), "orders: a queue is not linked in order"),
    "a level without its first order": (
        lambda state: put("levels", "first", int(state.levels["last"][slot_of_best(state)]), slot_of_best)(state),
        "levels: the ends of a queue",
    ),
    "an account's list that is cut": (put("orders", "newer", 0, first_order), "orders: an account's list is"),
    "an account that counts wrong": (add("accounts", "orders", 1, lambda s: 2), "accounts: a count of open orders"),
    "an order of another account": (put("orders", "account_id", 99, first_order), "linked to the wrong account"),
    "levels out of order": (add("levels", "price", -50, slot_of_best), "levels: neighbours are not in order"),
    "a best that is not the best": (swap_levels, "books: the best level has a better one"),
    "a book that counts its levels wrong": (add("books", "levels", 1, lambda s: BIDS), "books: a count of levels"),
    "a book that counts its orders wrong": (add("books", "orders", 1, lambda s: BIDS), "books: a count of orders"),
    "a crossed book": (cross, "is crossed"),
    "a tree that turns the wrong way": (
        lambda state: add("nodes", "bit", int(state.nodes["bit"][1]) * 7)(state),
        "nodes: ",
    ),
    "a node that tells nothing apart": (put("nodes", "bit", 0, root), "wrong parent or"),
    "a node with two bits": (add("nodes", "bit", 1 << 40, root), "wrong parent or bit"),
    "a node of another parent": (put("nodes", "parent", 1, root), "wrong parent or"),
    "a tree that misses a level": (
        lambda state: put("books", "root", (1 << 31) + slot_of_best(state), lambda s: BIDS)(state),
        "levels: a leaf of book 4 is invalid",
    ),
    "a leaf out of memory": (put("books", "root", (1 << 31) + (1 << 20), lambda s: BIDS), "levels: a leaf of book 4"),
    "a branch out of memory": (put("books", "root", 1 << 20, lambda s: BIDS), "nodes: a branch of book 4"),
    "branches that meet again": (join_branches, "nodes: "),
    "branches on the wrong side": (swap_branches, "nodes: the tree of book 4 does not have its levels in order"),
    "two books with one tree": (
        lambda state: put("books", "root", root(state), lambda s: ASKS)(state),
        "is invalid",
    ),
    "money beyond any word": (lend_beyond_words, f"asset {QUOTE}: the supply is"),
    "a client's id that is there twice": (repeat_client_id, "client_index: a key is there twice"),
    "an order that is not in the index": (drop_from_index, "order_index: its entries are not the live orders"),
    "an entry that no search finds": (move_in_index, "account_index: a search stops"),
    "an entry for another order": (
        lambda state: name_another(state.order_index, 1),
        "order_index: its entries are not the live orders",
    ),
    "an entry with another hash": (
        lambda state: name_another(state.order_index, 1 << 50),
        "order_index: a search stops",
    ),
    "money below 0": (put("balances", "available", -1), "balances: one is negative"),
    "money from nowhere": (add("balances", "available", 5), "the balances add up to"),
    "money held for nothing": (add("balances", "held", 5), "a held amount does not match"),
    "an order that holds another's money": (
        lambda state: put("orders", "gives", int(state.orders["takes"][first_order(state)]), first_order)(state),
        "orders: the gives balance of one is not its own",
    ),
    "a market order that rests": (put("orders", "order_type", 2, first_order), "a resting order is not a limit order"),
    "a pool that counts wrong": (add("pools", "live", 1, lambda s: ACCOUNTS), "accounts: "),
    "a pool that forgot a slot": (put("pools", "free", 0, lambda s: ORDERS), "orders: "),
    "a free list that does not end": (
        lambda state: put("orders", "next", int(state.pools["free"][ORDERS]),
                          lambda s: int(s.pools["free"][ORDERS]))(state),
        "orders: the free list is circular",
    ),
    "a node too many": (add("pools", "top", 1, lambda s: NODES), "nodes: "),
    "a live record on the free list": (
        lambda state: put("orders", "live", 1, lambda s: int(s.pools["free"][ORDERS]))(state),
        "orders: ",
    ),
    "something in slot 0": (put("orders", "cum", 1, lambda s: 0), "orders: slot 0 is not empty"),
    "a link to a record that is gone": (
        lambda state: put("orders", "next", int(state.pools["free"][ORDERS]), first_order)(state),
        "orders: a next link is invalid",
    ),
    "a level nobody may be at": (put("books", "best", 1 << 20, lambda s: ASKS), "books: a best level is invalid"),
    "a digest that is not": (add("core", "digest", 1, lambda s: 0), "the stored sum of record hashes is wrong"),
    "a hash of a record that is not": (add("assets", "hash", 1), "asset 1: the stored hash is wrong"),
    "an order of a later command": (put("orders", "order_id", 1 << 40, first_order), "above the last command sequence"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_fault_is_named(name: str) -> None:
    desk = busy_desk()
    damage, expected = DAMAGE[name]
    damage(desk.engine._state)
    found = desk.engine.check_invariants()
    assert any(expected in sentence for sentence in found), found


def full_desk() -> Desk:
    """A desk with one of everything: icebergs, stops, GTD orders, fees, limits, a session that cancels."""
    desk = Desk()
    desk.rules(taker_fee=1_000, maker_fee=-500, min_price_ticks=2)
    desk.limits(1, max_open_orders=99)
    desk.send(open_session(20, 1, 1))
    desk.send(place((20, 1), 1, Side.SELL, 5, 130))
    for account, lots in ((1, 50), (2, 40), (3, 30)):
        desk.sell(account, lots, 120, display_lots=7)
        desk.sell(account, lots, 121, tif=TimeInForce.GTD, expiry_seconds=60 - lots)
        desk.stop(account, Side.BUY, lots, 140 + lots)
        desk.stop(account, Side.SELL, lots, 70, 60)
    desk.buy(2, 20, 120)
    desk.check()
    return desk


def slot_where(field: str, table: str = "orders") -> Callable[[Any], int]:
    """A live record in which a field is not 0."""
    return lambda state: int(
        next(
            slot
            for slot in range(1, len(getattr(state, table)))
            if getattr(state, table)["live"][slot] and getattr(state, table)[field][slot]
        )
    )


def stop_slot(state: Any) -> int:
    return int(next(slot for slot in range(1, len(state.orders)) if state.orders["order_type"][slot] == 3))


def swap_in_heap(state: Any) -> None:
    """Put a later order before an earlier one, places and all."""
    first, second = int(state.heap[1]), int(state.heap[2])
    state.heap[1], state.heap[2] = second, first
    state.orders["place"][first], state.orders["place"][second] = 2, 1


FULL_DAMAGE: dict[str, tuple[Damage, str]] = {
    "an iceberg that shows too much": (
        put("orders", "shown", 8, slot_where("shown")),
        "the shown lots of one do not match",
    ),
    "an iceberg that shows nothing": (
        put("orders", "shown", 0, slot_where("shown")),
        "the shown lots of one do not match",
    ),
    "a book that counts its icebergs wrong": (add("books", "icebergs", 1, lambda s: ASKS), "a count of icebergs"),
    "a stop whose price is reached": (
        put("instruments", "last_price", 180),
        "a stop is pending although its price is reached",
    ),
    "a stop at another price": (add("orders", "extra", 1, stop_slot), "orders: an order is at the wrong price"),
    "a stop that was never triggered": (put("turn", "elected", 1, lambda s: 0), "a command is unfinished"),
    "a GTD order that is not in the heap": (put("orders", "tif", 4, slot_where("shown")), "heap: its entries are not"),
    "a heap that lost one": (put("core", "expiring", 2, lambda s: 0), "heap: its entries are not"),
    "a heap too large": (put("core", "expiring", 1 << 20, lambda s: 0), "heap: its count exceeds"),
    "an order at the wrong place": (add("orders", "place", 1, slot_where("place")), "an order is at the wrong place"),
    "a heap out of order": (swap_in_heap, "earlier than its parent"),
    "a first expiry that is not": (add("core", "next_expiry", 1, lambda s: 0), "heap: the first expiry"),
    "a session that counts wrong": (add("sessions", "orders", 1, slot_where("flags", "sessions")), "sessions: a count"),
    "a session that asked for nothing": (
        put("sessions", "flags", 0, slot_where("flags", "sessions")),
        "one without cancel on disconnect",
    ),
    "a closed instrument with orders": (put("instruments", "status", 4), "a closed one has open orders"),
    "fees into a pocket": (put("instruments", "fee_balance", 2), "a fee balance is not the venue's"),
    "fees to nowhere": (put("instruments", "fee_balance", 0), "one with fees has no fee balance"),
    "a hold without its fee": (
        add("balances", "held", -1, slot_where("held", "balances")),
        "a held amount does not match",
    ),
    "open notional from nowhere": (add("balances", "open", 1, slot_where("open", "balances")), "an open notional"),
    "open notional beyond any": (add("balances", "open_wraps", 1, slot_where("open", "balances")), "an open notional"),
    "a rule that nobody set": (put("instruments", "min_notional", 5), "instrument 1: the stored hash"),
    "a price that nobody paid": (put("instruments", "last_price", 119), "instrument 1: the stored hash"),
    "a hash that the next trade will use": (add("instruments", "static_hash", 1), "a stored static hash"),
    "a limit that nobody set": (put("accounts", "max_open_notional", 5), "account 0: the stored hash"),
    "a cap that nobody set": (put("assets", "cap", 5), "asset 1: the stored hash"),
    "a session that asks for more": (put("sessions", "flags", 1), "session 1: the stored hash"),
    "an order of another session": (put("orders", "session", 1, slot_where("shown")), "the stored hash is wrong"),
    "a kill switch that nobody touched": (put("core", "killed", 1, lambda s: 0), ""),
}


@pytest.mark.parametrize("name", FULL_DAMAGE)
def test_a_fault_of_the_whole_exchange_is_named(name: str) -> None:
    desk = full_desk()
    damage, expected = FULL_DAMAGE[name]
    before = desk.engine.content_hash()
    damage(desk.engine._state)
    found = desk.engine.check_invariants()
    # The counters, and the switch among them, are no record: what they are shows in the digest alone.
    assert any(expected in sentence for sentence in found) or (not expected and desk.engine.content_hash() != before)


def test_a_sound_state_has_no_fault() -> None:
    assert busy_desk().engine.check_invariants() == []
    assert full_desk().engine.check_invariants() == []
    assert Desk().engine.check_invariants() == []


def scrub_all(desk: Desk, records: int) -> list[str]:
    """Every record that scrubbing names, in one round of small steps."""
    found, start = [], 0
    while True:
        start, bad = desk.engine.scrub(start, records)
        if bad is not None:
            found.append(bad)
            start += records
        if start == 0:
            return found


@pytest.mark.parametrize("records", [1, 7, 100_000])
def test_scrubbing_comes_round_and_finds_nothing_in_a_sound_state(records: int) -> None:
    assert scrub_all(busy_desk(), records) == []


@pytest.mark.parametrize("records", [16, 100_000])
def test_scrubbing_names_the_record_that_is_not_what_was_hashed(records: int) -> None:
    desk = busy_desk()
    before = desk.engine.content_hash()
    assert desk.engine.corrupt_balance(2, QUOTE, 1)
    assert desk.engine.content_hash() == before != desk.engine.recompute_content_hash()
    start, bad = 0, None
    while bad is None:
        start, bad = desk.engine.scrub(start, records)
        assert start or bad, "a whole round found nothing"
    assert bad == f"balance account 2 asset {QUOTE}"


def test_corrupting_what_does_not_exist_does_nothing() -> None:
    desk = busy_desk()
    before = desk.engine.snapshot()
    assert not desk.engine.corrupt_balance(77, QUOTE, 1)
    assert desk.engine.snapshot() == before


def test_corruption_shows_in_the_hash_of_the_next_command_that_touches_it() -> None:
    sound, corrupt = busy_desk(), busy_desk()
    assert corrupt.engine.corrupt_balance(1, QUOTE, 1)
    hashes = [desk.buy(1, 1, 50).hashes[-1] for desk in (sound, corrupt)]
    assert hashes[0] != hashes[1]


def test_money_is_neither_made_nor_lost() -> None:
    desk = busy_desk()
    rows = desk.engine.inspect.balances()
    for asset in (BASE, QUOTE):
        mine = rows[rows["asset"] == asset]
        assert int(mine["available"].sum() + mine["held"].sum()) == 3 * FUNDS
    assert desk.engine._state.pools["live"][BALANCES] == 6
