"""The checkers notice what they are there for: one fault of each kind, put into a sound state."""

from collections.abc import Callable
from typing import Any

import pytest

from smrx.engine.state import ACCOUNTS, BALANCES, BOOKS, NODES, ORDERS
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
    cells["slot"][cells["slot"].nonzero()[0][0]] = 0


def move_in_index(state: Any) -> None:
    """Put an entry where no search comes by."""
    cells = state.account_index
    empty = next(at for at in range(len(cells) - 1, 0, -1) if not cells["slot"][at] and not cells["slot"][at - 1])
    full = int(cells["slot"].nonzero()[0][0])
    cells[empty] = cells[full]
    cells[full] = 0


def swap_levels(state: Any) -> None:
    best = slot_of_best(state)
    state.books["best"][BIDS] = state.levels["worse"][best]


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a level with too many lots": (add("levels", "quantity", 1, slot_of_best), "levels: a quantity is not"),
    "a level with too many orders": (add("levels", "orders", 1, slot_of_best), "levels: an order count is not"),
    "an order that is done and still there": (
        lambda state: put("orders", "cum", int(state.orders["quantity"][first_order(state)]), first_order)(state),
        "orders: an open order has no lots left",
    ),
    "an order at another price": (add("orders", "price", 1, first_order), "orders: an order is at another price"),
    "a queue out of order": (put("orders", "priority", 1 << 40, first_order), "orders: a queue is not linked in order"),
    "a queue that is cut": (put("orders", "next", 0, first_order), "orders: a queue is not linked in order"),
    "a level without its first order": (
        lambda state: put("levels", "first", int(state.levels["last"][slot_of_best(state)]), slot_of_best)(state),
        "levels: the ends of a queue",
    ),
    "an account's list that is cut": (put("orders", "newer", 0, first_order), "orders: an account's list is"),
    "an account that counts wrong": (add("accounts", "orders", 1, lambda s: 2), "accounts: a count of open orders"),
    "an order of another account": (put("orders", "account_id", 99, first_order), "linked to another account"),
    "levels out of order": (add("levels", "price", -50, slot_of_best), "levels: neighbours are not in order"),
    "a best that is not the best": (swap_levels, "books: the best level is not"),
    "a book that counts its levels wrong": (add("books", "levels", 1, lambda s: BIDS), "books: a count of levels"),
    "a book that counts its orders wrong": (add("books", "orders", 1, lambda s: BIDS), "books: a count of orders"),
    "a crossed book": (cross, "is crossed"),
    "a tree that turns the wrong way": (
        lambda state: add("nodes", "bit", int(state.nodes["bit"][1]) * 7)(state),
        "nodes: ",
    ),
    "an order that is not in the index": (drop_from_index, "order_index: it does not have the live orders"),
    "an entry that no search finds": (move_in_index, "account_index: a search stops"),
    "an entry for another order": (add("order_index", "key", 1, lambda s: int(s.order_index["slot"].nonzero()[0][0])),
        "order_index: it does not have"),
    "money below 0": (put("balances", "available", -1), "balances: one is below 0"),
    "money from nowhere": (add("balances", "available", 5), "accounts have"),
    "money held for nothing": (add("balances", "held", 5), "what is held is not"),
    "an order that holds another's money": (
        lambda state: put("orders", "gives", int(state.orders["takes"][first_order(state)]), first_order)(state),
        "orders: one gives a balance that is not its own",
    ),
    "a market order that rests": (put("orders", "order_type", 2, first_order), "not a limit order"),
    "a pool that counts wrong": (add("pools", "live", 1, lambda s: ACCOUNTS), "accounts: "),
    "a pool that forgot a slot": (put("pools", "free", 0, lambda s: ORDERS), "orders: "),
    "a free list that does not end": (
        lambda state: put("orders", "next", int(state.pools["free"][ORDERS]),
                          lambda s: int(s.pools["free"][ORDERS]))(state),
        "orders: the free list does not end",
    ),
    "a node too many": (add("pools", "top", 1, lambda s: NODES), "nodes: "),
    "a live record on the free list": (
        lambda state: put("orders", "live", 1, lambda s: int(s.pools["free"][ORDERS]))(state),
        "orders: ",
    ),
    "something in slot 0": (put("orders", "cum", 1, lambda s: 0), "orders: slot 0 is not empty"),
    "a link to a record that is gone": (
        lambda state: put("orders", "next", int(state.pools["free"][ORDERS]), first_order)(state),
        "orders: a next leads astray",
    ),
    "a level nobody may be at": (put("books", "best", 1 << 20, lambda s: ASKS), "books: a best level leads astray"),
    "a digest that is not": (add("core", "digest", 1, lambda s: 0), "the digest kept is not"),
    "a hash of a record that is not": (add("assets", "hash", 1), "asset 1: its hash is not the one kept"),
    "an order of a command to come": (put("orders", "order_id", 1 << 40, first_order), "newer than the last command"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_fault_is_named(name: str) -> None:
    desk = busy_desk()
    damage, expected = DAMAGE[name]
    damage(desk.engine._state)
    found = desk.engine.check_invariants()
    assert any(expected in sentence for sentence in found), found


def test_a_sound_state_has_no_fault() -> None:
    assert busy_desk().engine.check_invariants() == []
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
    before = desk.engine.content_digest()
    assert desk.engine.corrupt_balance(2, QUOTE, 1)
    assert desk.engine.content_digest() == before != desk.engine.content_digest_from_scratch()
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
