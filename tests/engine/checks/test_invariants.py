"""The invariant checks find violations: one of each kind, written into a valid state."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smrx.engine.checks.full_hash import ID_FIELDS
from smrx.engine.state import ACCOUNTS, BALANCES, BOOKS, NODES, ORDERS, in_use
from smrx.wire.codes import Permission, Scope, Side, TimeInForce
from tests.commands import add_credential, open_account, open_session, place, session_of
from tests.engine.small_market import BASE, FUNDS, QUOTE, SmallMarket, busy_market

Damage = Callable[[Any], None]


#: The books of the only instrument, which has slot 1.
BIDS, ASKS = BOOKS, BOOKS + 1


def best_level_slot(state: Any, book: int = BIDS) -> int:
    """Return the slot of a book's best level, by default of the bids."""
    return int(state.books["best"][book])


def put(table: str, field: str, value: int, slot: Callable[[Any], int] = lambda state: 1) -> Damage:
    """Return a damage that writes a value to a field of a record."""

    def damage(state: Any) -> None:
        getattr(state, table)[field][slot(state)] = value

    return damage


def add(table: str, field: str, value: int, slot: Callable[[Any], int] = lambda state: 1) -> Damage:
    """Return a damage that adds a value to a field of a record."""

    def damage(state: Any) -> None:
        getattr(state, table)[field][slot(state)] += value

    return damage


def first_order(state: Any) -> int:
    """Return an order with others behind it in its queue and in its account's list."""
    orders = state.orders
    return next(
        slot
        for slot in range(1, len(orders))
        if orders["live"][slot] and orders["next"][slot] and orders["newer"][slot]
    )


def cross_book(state: Any) -> None:
    """Move the best ask level to the best bid's price, without its index entry and hold."""
    ask, bid = best_level_slot(state, ASKS), best_level_slot(state)
    state.levels["price"][ask] = state.levels["price"][bid]


def drop_entry(state: Any) -> None:
    """Remove an entry of an index."""
    cells = in_use(state.order_index)
    cells[cells.nonzero()[0][0]] = 0


def change_entry(cells: Any, difference: int) -> None:
    """Change an entry of an index: the slot in its low half or the hash in its high half."""
    cells[cells.nonzero()[0][0]] ^= np.uint64(difference)


def move_entry_out_of_reach(state: Any) -> None:
    """Move an entry of an index to a cell that no search reaches."""
    cells = in_use(state.account_index)
    empty = next(at for at in range(len(cells) - 1, 0, -1) if not cells[at] and not cells[at - 1])
    full = int(cells.nonzero()[0][0])
    cells[empty] = cells[full]
    cells[full] = 0


def swap_levels(state: Any) -> None:
    """Make the second best bid level the best."""
    best = best_level_slot(state)
    state.books["best"][BIDS] = state.levels["worse"][best]


def root(state: Any) -> int:
    """Return the node at the root of the bids' tree."""
    return int(state.books["root"][BIDS])


def join_branches(state: Any) -> None:
    """Let both branches of a book's root refer to the same child."""
    state.nodes["zero"][root(state)] = state.nodes["one"][root(state)]


def swap_branches(state: Any) -> None:
    """Swap the branches of a book's root."""
    node = root(state)
    state.nodes["zero"][node], state.nodes["one"][node] = state.nodes["one"][node], state.nodes["zero"][node]


def overflow_balance_sum(state: Any) -> None:
    """Give two accounts so much more of an asset that the sum of all balances is the same in 64 bits."""
    mine = (state.balances["asset_id"] == QUOTE).nonzero()[0]
    for slot in mine[:2]:
        state.balances["available"][slot] += 1 << 62
        state.balances["held"][slot] += 1 << 62


def repeat_client_id(state: Any) -> None:
    """Give an order the client order id of another of the same account, and index it twice."""
    orders, cells = state.orders, in_use(state.client_index)
    named = ((orders["live"] != 0) & (orders["client_order_id"] != 0)).nonzero()[0]
    first, second = next(
        (one, two) for one in named for two in named if one < two and orders["account"][one] == orders["account"][two]
    )
    orders["client_order_id"][second] = orders["client_order_id"][first]
    if orders["details"][first] and orders["details"][second]:
        for name in ID_FIELDS:
            texts = state.order_details[name]
            texts[orders["details"][second]] = texts[orders["details"][first]]
    slots = cells & np.uint64(0xFFFF_FFFF)
    cells[slots == second] = 0
    at = int((slots == first).nonzero()[0][0])
    hashed = cells[at] >> np.uint64(32) << np.uint64(32)
    while cells[at]:
        at = (at + 1) % len(cells)
    cells[at] = hashed | np.uint64(second)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a level with too many lots": (add("levels", "quantity", 1, best_level_slot), "levels: a quantity does not match"),
    "a level with too many orders": (add("levels", "orders", 1, best_level_slot), "levels: an order count does not"),
    "a filled order that is still open": (
        lambda state: put("orders", "cum", int(state.orders["quantity"][first_order(state)]), first_order)(state),
        "orders: an open order has no lots left",
    ),
    "an order at another price": (add("orders", "price", 1, first_order), "orders: an order is at the wrong price"),
    "a queue out of order": (put("orders", "priority", 1 << 40, first_order), "orders: a queue is not linked in order"),
    "a queue that is cut": (put("orders", "next", 0, first_order), "orders: a queue is not linked in order"),
    "a level without its first order": (
        lambda state: put("levels", "first", int(state.levels["last"][best_level_slot(state)]), best_level_slot)(state),
        "levels: the ends of a queue",
    ),
    "an account's list that is cut": (put("orders", "newer", 0, first_order), "orders: an account's list is"),
    "an account with a wrong count": (add("accounts", "orders", 1, lambda s: 2), "accounts: a count of open orders"),
    "an order of another account": (put("orders", "account_id", 99, first_order), "linked to the wrong account"),
    "levels out of order": (add("levels", "price", -50, best_level_slot), "levels: neighbours are not in order"),
    "a best level that is not the best": (swap_levels, "books: the best level has a better one"),
    "a book with a wrong level count": (add("books", "levels", 1, lambda s: BIDS), "books: a count of levels"),
    "a book with a wrong order count": (add("books", "orders", 1, lambda s: BIDS), "books: a count of orders"),
    "a crossed book": (cross_book, "is crossed"),
    "a node with a wrong bit": (
        lambda state: add("nodes", "bit", int(state.nodes["bit"][1]) * 7)(state),
        "nodes: ",
    ),
    "a node without a bit": (put("nodes", "bit", 0, root), "wrong parent or"),
    "a node with two bits": (add("nodes", "bit", 1 << 40, root), "wrong parent or bit"),
    "a node with a wrong parent": (put("nodes", "parent", 1, root), "wrong parent or"),
    "a tree that misses a level": (
        lambda state: put("books", "root", (1 << 31) + best_level_slot(state), lambda s: BIDS)(state),
        "levels: a leaf of book 4 is invalid",
    ),
    "a leaf outside the table": (put("books", "root", (1 << 31) + (1 << 20), lambda s: BIDS), "levels: a leaf of book"),
    "a branch outside the table": (put("books", "root", 1 << 20, lambda s: BIDS), "nodes: a branch of book 4"),
    "branches that join again": (join_branches, "nodes: "),
    "branches on the wrong side": (swap_branches, "nodes: the tree of book 4 does not have its levels in order"),
    "two books with one tree": (
        lambda state: put("books", "root", root(state), lambda s: ASKS)(state),
        "is invalid",
    ),
    "a balance sum that overflows": (overflow_balance_sum, f"asset {QUOTE}: the supply is"),
    "a repeated client order id": (repeat_client_id, "client_index: a key is there twice"),
    "an order that is not in the index": (drop_entry, "order_index: its entries are not the live orders"),
    "an entry that no search reaches": (move_entry_out_of_reach, "account_index: a search stops"),
    "an entry for another order": (
        lambda state: change_entry(in_use(state.order_index), 1),
        "order_index: its entries are not the live orders",
    ),
    "an entry with another hash": (
        lambda state: change_entry(in_use(state.order_index), 1 << 50),
        "order_index: a search stops",
    ),
    "a negative balance": (put("balances", "available", -1), "balances: one is negative"),
    "an unfunded balance": (add("balances", "available", 5), "the balances add up to"),
    "a hold without an order": (add("balances", "held", 5), "a held amount does not match"),
    "an order that holds from a wrong balance": (
        lambda state: put("orders", "gives", int(state.orders["takes"][first_order(state)]), first_order)(state),
        "orders: the gives balance of one is not its own",
    ),
    "a market order that rests": (put("orders", "order_type", 2, first_order), "a resting order is not a limit order"),
    "a pool with a wrong count": (add("pools", "live", 1, lambda s: ACCOUNTS), "accounts: "),
    "a pool that lost a slot": (put("pools", "free", 0, lambda s: ORDERS), "orders: "),
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
    "a record in slot 0": (put("orders", "cum", 1, lambda s: 0), "orders: slot 0 is not empty"),
    "a link to a freed record": (
        lambda state: put("orders", "next", int(state.pools["free"][ORDERS]), first_order)(state),
        "orders: a next link is invalid",
    ),
    "a best level outside the table": (put("books", "best", 1 << 20, lambda s: ASKS), "books: a best level is invalid"),
    "a wrong sum of hashes": (add("core", "digest", 1, lambda s: 0), "the stored sum of record hashes is wrong"),
    "a wrong record hash": (add("assets", "hash", 1), "asset 1: the stored hash is wrong"),
    "an order of a later command": (put("orders", "order_id", 1 << 40, first_order), "above the last command sequence"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_violation_is_reported(name: str) -> None:
    market = busy_market()
    damage, expected = DAMAGE[name]
    damage(market.engine._state)
    found = market.engine.check_invariants()
    assert any(expected in sentence for sentence in found), found


def full_market() -> SmallMarket:
    """Return a market with icebergs, stops, GTD orders, fees, limits and a session with cancel on disconnect.

    Credential 5 in slot 1 is of account 1, 6 in slot 2 of firm 7; the last session is that of 6.
    """
    market = SmallMarket()
    market.set_rules(taker_fee=1_000, maker_fee=-500, min_price_ticks=2)
    market.set_limits(1, max_open_orders=99)
    market.send(open_session(20, 1, 1))
    market.send(place((20, 1), 1, Side.SELL, 5, 130))
    for account, lots in ((1, 50), (2, 40), (3, 30)):
        market.sell(account, lots, 120, display_lots=7, client_order_id=f"iceberg of account {account}")
        market.sell(
            account,
            lots,
            121,
            tif=TimeInForce.GTD,
            expiry_seconds=60 - lots,
            client_order_id=f"GTD of account {account}",
        )
        market.stop(account, Side.BUY, lots, 140 + lots)
        market.stop(account, Side.SELL, lots, 70, 60)
    market.buy(2, 20, 120)
    market.send(open_account(market.sender(0), 71, 7))
    market.send(add_credential(market.sender(0), 5, Permission.TRADE, 1, networks=["10.1.0.0/16"]))
    market.send(add_credential(market.sender(0), 6, Permission.READ, 7, scope=Scope.FIRM))
    market.send(open_session(session_of(6, 1), 71))
    market.check_state()
    return market


def keyed_session(state: Any) -> int:
    """Return the slot of the session of credential 6."""
    return int(np.flatnonzero(state.sessions["credential_id"] == 6)[0])


def unswitch(state: Any) -> None:
    """Put the first rules into force."""
    state.core["rules_version"] = 1


def slot_where(field: str, table: str = "orders") -> Callable[[Any], int]:
    """Return a function that finds a live record in which a field is not 0."""
    return lambda state: int(
        next(
            slot
            for slot in range(1, len(getattr(state, table)))
            if getattr(state, table)["live"][slot] and getattr(state, table)[field][slot]
        )
    )


def answer_slot(state: Any) -> int:
    """Return the record of the answer to request 1 of account 1's session, which is not its newest."""
    session = state.sessions[state.sessions["session_id"] == 11][0]
    assert session["last_request_id"] > 1
    return int(session["answers"]) + 1


def newest_answer_slot(state: Any) -> int:
    """Return the record of the newest answer of account 1's session."""
    session = state.sessions[state.sessions["session_id"] == 11][0]
    return int(session["answers"]) + int(session["last_request_id"])


def second_transfer(state: Any) -> int:
    """Return the newest transfer of an account that has another one."""
    owners = state.transfers["account_id"][1:].tolist()
    return 1 + max(at for at, owner in enumerate(owners) if owner and owner in owners[:at])


def stop_slot(state: Any) -> int:
    """Return the slot of a pending stop."""
    return int(next(slot for slot in range(1, len(state.orders)) if state.orders["order_type"][slot] == 3))


def details_of(slot: Callable[[Any], int]) -> Callable[[Any], int]:
    """Return a function that finds the details of an order."""
    return lambda state: int(state.orders["details"][slot(state)])


def keep_text(state: Any, text: bytes) -> None:
    """Write a client order id into the details of an iceberg."""
    slot = details_of(slot_where("shown"))(state)
    words = np.frombuffer(text.ljust(64, b"\0"), "<u8")
    for at, word in enumerate(words):
        state.order_details[f"client_order_id_{at}"][slot] = word


def swap_in_heap(state: Any) -> None:
    """Put a later order before an earlier one in the heap, with matching places."""
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
    "a book with a wrong iceberg count": (add("books", "icebergs", 1, lambda s: ASKS), "a count of icebergs"),
    "a stop whose price is reached": (
        put("instruments", "last_price", 180),
        "a stop is pending although its price is reached",
    ),
    "a stop at another price": (
        add("order_details", "stop_price_ticks", 1, details_of(stop_slot)),
        "orders: an order is at the wrong price",
    ),
    "an elected stop that is left": (put("turn", "elected", 1, lambda s: 0), "a command is unfinished"),
    "a GTD order that is not in the heap": (put("orders", "tif", 4, slot_where("shown")), "heap: its entries are not"),
    "a heap without one of its orders": (put("core", "expiring", 2, lambda s: 0), "heap: its entries are not"),
    "a heap too large": (put("core", "expiring", 1 << 20, lambda s: 0), "heap: its count exceeds"),
    "an order at the wrong place": (add("orders", "place", 1, slot_where("place")), "an order is at the wrong place"),
    "a heap out of order": (swap_in_heap, "earlier than its parent"),
    "a wrong first expiry": (add("core", "next_expiry", 1, lambda s: 0), "heap: the first expiry"),
    "a session with a wrong count": (
        add("sessions", "orders", 1, slot_where("flags", "sessions")),
        "sessions: a count",
    ),
    "orders of a session without the flag": (
        put("sessions", "flags", 0, slot_where("flags", "sessions")),
        "one without cancel on disconnect",
    ),
    "a closed instrument with orders": (put("instruments", "status", 4), "a closed one has open orders"),
    "fees to a wrong balance": (put("instruments", "fee_balance", 2), "a fee balance is not the venue's"),
    "fees without a balance": (put("instruments", "fee_balance", 0), "one with fees has no fee balance"),
    "a hold without its fee": (
        add("balances", "held", -1, slot_where("held", "balances")),
        "a held amount does not match",
    ),
    "a wrong open notional": (add("balances", "open", 1, slot_where("open", "balances")), "an open notional"),
    "a wrong open notional count": (
        add("balances", "open_wraps", 1, slot_where("open", "balances")),
        "an open notional",
    ),
    "an unhashed rule": (put("instruments", "min_notional", 5), "instrument 1: the stored hash"),
    "an unhashed last price": (put("instruments", "last_price", 119), "instrument 1: the stored hash"),
    "a wrong static hash": (add("instruments", "static_hash", 1), "a stored static hash"),
    "an unhashed limit": (put("accounts", "max_open_notional", 5), "account 0: the stored hash"),
    "an unhashed cap": (put("assets", "cap", 5), "asset 1: the stored hash"),
    "an unhashed session flag": (put("sessions", "flags", 1), "session 1: the stored hash"),
    "an order with a wrong session": (put("orders", "session", 1, slot_where("shown")), "the stored hash is wrong"),
    "a repeated long client order id": (repeat_client_id, "client_index: a key is there twice"),
    "an unhashed long client order id": (
        add("order_details", "client_order_id_0", 1 << 8, details_of(slot_where("shown"))),
        "the stored hash is wrong",
    ),
    "an unhashed term": (add("order_details", "display_lots", 1, details_of(slot_where("shown"))), "the stored hash"),
    "details without an order": (
        put("orders", "details", 0, slot_where("shown")),
        "order_details: a record does not belong to one order",
    ),
    "details of two orders": (
        lambda state: put("orders", "details", details_of(stop_slot)(state), slot_where("shown"))(state),
        "order_details: a record does not belong to one order",
    ),
    "details that do not exist": (put("orders", "details", 1 << 20, stop_slot), "orders: a details link is invalid"),
    "empty details": (
        put("order_details", "stop_price_ticks", 0, details_of(stop_slot)),
        "order_details: a record is empty",
    ),
    "a term that no order has": (
        put("order_details", "order_list_id", 1, details_of(stop_slot)),
        "order_details: a record has terms that no order has",
    ),
    "a long id that is too short": (
        lambda state: keep_text(state, b"12345678"),
        "order_details: a client order id is not a text of more than 8 characters",
    ),
    "a long id with a gap": (
        lambda state: keep_text(state, b"12345678\0x"),
        "order_details: a client order id is not a text of more than 8 characters",
    ),
    "a long id that is not printable": (
        lambda state: keep_text(state, b"12345678\x7f"),
        "order_details: a client order id is not a text of more than 8 characters",
    ),
    "a long id with another form": (
        add("orders", "client_order_id", 1, slot_where("shown")),
        "orders: a client order id is not a text, or not the form of its text",
    ),
    "a short id that is not a text": (
        put("orders", "client_order_id", 7, stop_slot),
        "orders: a client order id is not a text, or not the form of its text",
    ),
    "a short id with a gap": (
        put("orders", "client_order_id", 0x31_0031, stop_slot),
        "orders: a client order id is not a text, or not the form of its text",
    ),
    "a stop price of a limit order": (
        put("order_details", "stop_price_ticks", 5, details_of(slot_where("shown"))),
        "orders: one that is not a pending stop has a stop price",
    ),
    "an expiry of an order that is not GTD": (
        put("order_details", "expiry_ns", 5, details_of(stop_slot)),
        "orders: one that is not GTD has an expiry",
    ),
    "a changed answer": (add("answers", "order_id", 1, answer_slot), "answers: the chain of a session is broken"),
    "the newest answer changed": (add("answers", "cum_lots", 1, newest_answer_slot), "session 11: the stored hash"),
    "an answer at the wrong place": (add("answers", "request_id", 1, answer_slot), "answers: the chain of a session"),
    "a wrong chain": (add("sessions", "chain", 1), "answers: the chain of a session is broken"),
    "a session with another last request": (add("sessions", "last_request_id", 1), "session 1: the stored hash"),
    "a session that is closed": (put("sessions", "closed", 1), "session 1: the stored hash"),
    "runs that overlap": (put("sessions", "answers", 2), "answers: the runs do not make up"),
    "a run of an invalid length": (put("sessions", "run", 17), "sessions: the length of a run is invalid"),
    "more answers than there are": (put("core", "answers_top", 1 << 30, lambda s: 0), "answers: "),
    "a free run outside": (lambda state: state.runs.__setitem__(3, 1 << 20), "answers: a list of free runs"),
    "sessions out of order": (put("sessions", "activity", 1 << 40), "sessions: they are not linked by activity"),
    "a session active before the one before it": (
        put("sessions", "last_active_ns", -5, lambda state: int(state.core["newest_session"][0])),
        "sessions: a last activity is out of order",
    ),
    "sessions of the future": (put("core", "activity", 1, lambda s: 0), "sessions: a last activity is in the future"),
    "sessions that end too late": (put("core", "next_session_end", 1 << 62, lambda s: 0), "the first end is too late"),
    "transfers out of order": (put("transfers", "sequence", 1 << 40), "transfers: they are not linked by sequence"),
    "transfers of the future": (
        put("transfers", "time_ns", 1 << 50, lambda state: int(state.core["newest_transfer"][0])),
        "transfers: a time is out of order",
    ),
    "transfers that are kept too long": (
        put("core", "next_transfer_end", 1 << 62, lambda s: 0),
        "transfers: the first end is too late",
    ),
    "a credential before there are any": (unswitch, "credentials: there are some, or firms, before the rules"),
    "a credential without a number": (put("credentials", "credential_id", 0), "credentials: one has number 0"),
    "a credential with a number twice": (put("credentials", "credential_id", 6), "credential_index: "),
    "unknown permissions": (put("credentials", "permissions", 128), "credentials: one has no permissions"),
    "no permissions": (put("credentials", "permissions", 0), "credentials: one has no permissions"),
    "other permissions": (put("credentials", "permissions", 3), "credential 5: the stored hash is wrong"),
    "a credential of an unknown account": (put("credentials", "subject", 99), "credentials: the subject of one"),
    "a credential of no firm": (put("credentials", "subject", 0, lambda s: 2), "credentials: the subject of one"),
    "a credential of another scope": (put("credentials", "scope", 3), "credentials: the subject of one"),
    "a credential of no scope": (put("credentials", "scope", 4), "credentials: the subject of one"),
    "a credential that is half revoked": (put("credentials", "revoked", 2), "credentials: one has an invalid state"),
    "a revoked credential": (put("credentials", "revoked", 1), "credential 5: the stored hash is wrong"),
    "an expiry before 1970": (put("credentials", "expires_ns", -1), "credentials: one has an invalid state"),
    "another key": (put("credentials", "key_2", 5), "credentials: one has no key, or is not found by it"),
    "a key that is not found": (put("credentials", "key_form", 5), "key_index: "),
    "a network with bits behind its prefix": (put("credentials", "prefixes", 100), "credentials: one has a network"),
    "a prefix of more bits than an address": (put("credentials", "prefixes", 129), "credentials: one has a network"),
    "another network": (put("credentials", "networks_1", 0x0B_FFFF_0000_0000 >> 8), "credential"),
    "a session of another credential": (
        put("sessions", "credential", 1, keyed_session),
        "sessions: one is not linked to its credential",
    ),
    "a session of no credential": (
        put("sessions", "credential_id", 0, keyed_session),
        "sessions: one is not linked to its credential",
    ),
    "a session whose id names no credential": (
        lambda state: (put("sessions", "credential", 1)(state), put("sessions", "credential_id", 5)(state)),
        "sessions: one belongs to a credential that its id does not name",
    ),
    "a session linked to nothing": (put("sessions", "credential", 3, keyed_session), "a credential link is invalid"),
    "an unknown person": (
        put("order_details", "credential", 99, details_of(stop_slot)),
        "orders: the person behind one is unknown",
    ),
    "another firm": (
        put("accounts", "firm", 8, lambda state: int(np.flatnonzero(state.accounts["firm"] == 7)[0])),
        "account 71: the stored hash is wrong",
    ),
    "a free slot of accounts": (
        lambda state: state.pools["free"].__setitem__(ACCOUNTS, 1),
        "accounts: there are free slots, though no record is ever removed",
    ),
    "a wrong number of funded balances": (
        add("core", "funded_balances", 1, lambda s: 0),
        "the stored sum of the hashes of balances is wrong",
    ),
    "a wrong sum of balances": (add("core", "balance_sum", 1, lambda s: 0), "the stored sum of the hashes of balances"),
    "a wrong sum of empty balances": (
        add("core", "empty_sum", 1, lambda s: 0),
        "the stored sum of the hashes of balances is wrong",
    ),
    "a wrong sum of kept answers": (
        add("core", "kept_answers", 1, lambda s: 0),
        "sessions: the sum of the lengths of their runs is wrong",
    ),
    "a transfer that its account's list skips": (
        lambda state: state.transfer_links.__setitem__(second_transfer(state), 0),
        "transfers: those of an account are not linked by sequence",
    ),
    "a list of transfers without its newest": (
        lambda state: state.last_transfers.__setitem__(2, 0),
        "its newest transfer is not the first of its list",
    ),
    "transfers without a link to the next": (
        put("transfers", "newer", 0),
        "transfers: they are not linked by sequence",
    ),
    "transfers that begin later": (
        put("core", "oldest_transfer", 2, lambda s: 0),
        "transfers: they are not linked by sequence",
    ),
    "sessions without a link to the one before": (
        put("sessions", "older", 0, lambda s: 2),
        "sessions: they are not linked by activity",
    ),
    "sessions without a link to the next": (
        put("sessions", "newer", 0, lambda state: int(state.core["oldest_session"][0])),
        "sessions: they are not linked by activity",
    ),
    "sessions that end earlier": (
        put("core", "newest_session", 1, lambda s: 0),
        "sessions: they are not linked by activity",
    ),
    "a session's list without its order": (
        lambda state: state.session_lists["first"].__setitem__(slot_where("orders", "sessions")(state), 0),
        "sessions: a list of orders does not begin or end with its first or last order",
    ),
    "a session's list that goes on": (
        lambda state: state.session_links["newer"].__setitem__(slot_where("session")(state), 1),
        "sessions: the orders that end with one are not linked by id",
    ),
    "an unhashed capacity": (put("core", "max_orders", 5, lambda s: 0), "the stored sum"),
    "an unhashed retention": (put("core", "transfers", 5, lambda s: 0), "the stored sum"),
    "an unhashed kill switch": (put("core", "killed", 1, lambda s: 0), ""),
}


@pytest.mark.parametrize("name", FULL_DAMAGE)
def test_violation_of_trading_rules_is_reported(name: str) -> None:
    market = full_market()
    damage, expected = FULL_DAMAGE[name]
    before = market.engine.content_hash()
    damage(market.engine._state)
    found = market.engine.check_invariants()
    # The counters and the kill switch are no record: they change only the content hash.
    assert any(expected in sentence for sentence in found) or (not expected and market.engine.content_hash() != before)


def test_valid_state_has_no_violation() -> None:
    assert busy_market().engine.check_invariants() == []
    assert full_market().engine.check_invariants() == []
    assert SmallMarket().engine.check_invariants() == []


def scrub_all(market: SmallMarket, records: int) -> list[str]:
    """Return every record that a whole round of scrub steps reports."""
    found, start = [], 0
    while True:
        start, bad = market.engine.scrub(start, records)
        if bad is not None:
            found.append(bad)
            start += records
        if start == 0:
            return found


@pytest.mark.parametrize("records", [1, 7, 100_000])
def test_scrub_of_a_valid_state_finds_nothing(records: int) -> None:
    assert scrub_all(busy_market(), records) == []


@pytest.mark.parametrize("records", [16, 100_000])
def test_scrub_reports_the_corrupted_record(records: int) -> None:
    market = busy_market()
    before = market.engine.content_hash()
    assert market.engine.corrupt_balance(2, QUOTE, 1)
    assert market.engine.content_hash() == before != market.engine.recompute_content_hash()
    start, bad = 0, None
    while bad is None:
        start, bad = market.engine.scrub(start, records)
        assert start or bad, "a whole round found nothing"
    assert bad == f"balance account 2 asset {QUOTE}"


def test_corrupting_an_unknown_balance_does_nothing() -> None:
    market = busy_market()
    before = market.engine.snapshot()
    assert not market.engine.corrupt_balance(77, QUOTE, 1)
    assert market.engine.snapshot() == before


def test_corruption_changes_the_next_hash_that_covers_it() -> None:
    valid, corrupt = busy_market(), busy_market()
    assert corrupt.engine.corrupt_balance(1, QUOTE, 1)
    hashes = [market.buy(1, 1, 50).hashes[-1] for market in (valid, corrupt)]
    assert hashes[0] != hashes[1]


def test_trading_preserves_the_supply() -> None:
    market = busy_market()
    rows = market.engine.inspect.balances()
    for asset in (BASE, QUOTE):
        mine = rows[rows["asset"] == asset]
        assert int(mine["available"].sum() + mine["held"].sum()) == 3 * FUNDS
    assert market.engine._state.pools["live"][BALANCES] == 6
