"""A private stream shows what concerns its accounts, and nothing that belongs to others."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.node import account_events as module
from smrx.node.account_events import account_events, accounts_of
from smrx.node.account_sets import AllAccounts, ListedAccounts
from smrx.wire.codes import EventKind, Reason
from smrx.wire.records import EVENT, TRADE_EVENT
from tests.settlement.market import market_events

Events = NDArray[np.void]
#: Reasons of rejections that any sender can cause for any account, by the table of docs/exchange.md.
BY_ANYONE = [
    Reason.UNKNOWN_KIND, Reason.INVALID_DETAILS, Reason.RESERVED_NOT_ZERO, Reason.INVALID_SIDE, Reason.INVALID_ID,
    Reason.UNKNOWN_SESSION, Reason.SESSION_CLOSED, Reason.REQUEST_GAP, Reason.SESSION_IN_USE,
    Reason.UNKNOWN_CREDENTIAL, Reason.CREDENTIAL_REVOKED, Reason.NOT_AUTHORISED, Reason.UNKNOWN_ACCOUNT,
]  # fmt: skip


def of_accounts(events: Events, *accounts: int) -> Events:
    return account_events(events, ListedAccounts(frozenset(accounts)))


def concerned(events: Events, account: int) -> Events:
    """Return the events that concern an account, field by field."""
    trades = events.view(TRADE_EVENT)
    is_trade = events["kind"] == EventKind.TRADE
    assert not np.isin(events["reason"][events["kind"] == EventKind.REJECTED], BY_ANYONE).any()
    return events[(events["account"] == account) | (is_trade & (trades["counter_account"] == account))]


def with_other_values(events: Events, account: int, seed: int) -> Events:
    """Return the events with other values in every field that belongs to others than the account."""
    rng = np.random.default_rng(seed)
    changed = events.copy()
    trades = changed.view(TRADE_EVENT)
    is_trade = changed["kind"] == EventKind.TRADE
    for name in ("session_id", "request_id"):
        changed[name] = rng.integers(1, 1 << 62, len(changed))
    taker = np.flatnonzero(is_trade & (changed["account"] == account) & (trades["counter_account"] != account))
    maker = np.flatnonzero(is_trade & (changed["account"] != account) & (trades["counter_account"] == account))
    both = {"taker": taker, "maker": maker}
    fields = {
        "taker": ("counter_account", "counter_order_id", "maker_fee"),
        "maker": ("account", "order_id", "taker_fee", "order_type", "tif", "stp", "flags"),
    }
    for side, rows in both.items():
        for name in fields[side]:
            high = 1 << 7 if trades[name].dtype.itemsize == 1 else 1 << 30
            trades[name][rows] = rng.integers(account + 1, high, len(rows))
    return changed


def test_every_event_of_the_accounts_is_there_and_no_other() -> None:
    events = market_events()
    accounts = accounts_of(events).tolist()
    assert len(accounts) > 3
    for account in accounts:
        found, wanted = of_accounts(events, account), concerned(events, account)
        assert found["sequence"].tolist() == wanted["sequence"].tolist()
        own = found["kind"] != EventKind.TRADE
        for name in set(EVENT.names or ()) - {"session_id", "request_id"}:
            assert (found[name][own] == wanted[name][own]).all(), name
    whole = of_accounts(events, *accounts)
    assert (whole["sequence"] == events["sequence"]).all()
    is_trade = events["kind"] == EventKind.TRADE
    for name in ("account", "order_id", "counter_order_id", "counter_account", "price_ticks", "quantity_lots"):
        assert (whole.view(TRADE_EVENT)[name] == events.view(TRADE_EVENT)[name])[is_trade].all(), name


def shows_nothing_of_others() -> bool:
    events = market_events()
    return all(
        of_accounts(events, account).tobytes()
        == of_accounts(with_other_values(events, account, seed), account).tobytes()
        for seed, account in enumerate(sorted(set(accounts_of(events).tolist()) - {0}))
    )


def test_stream_does_not_depend_on_what_belongs_to_others() -> None:
    assert shows_nothing_of_others()


def _no_removal(words: NDArray[np.uint64], is_own: NDArray[np.bool_], is_makers: NDArray[np.bool_]) -> None:
    """Remove nothing."""


def _sessions_only(words: NDArray[np.uint64], is_own: NDArray[np.bool_], is_makers: NDArray[np.bool_]) -> None:
    words[:, 4:6] = 0


@pytest.mark.parametrize("broken", [_no_removal, _sessions_only])
def test_the_check_finds_what_is_not_removed(monkeypatch: pytest.MonkeyPatch, broken: Callable[..., None]) -> None:
    monkeypatch.setattr(module, "_remove_others", broken)
    assert not shows_nothing_of_others()


def test_credential_of_another_is_removed() -> None:
    events = np.zeros(7, EVENT)
    events["sequence"] = np.arange(1, 8)
    events["account"] = 1
    events["kind"] = [
        EventKind.NEW, EventKind.FILLED, EventKind.PARTIALLY_FILLED, EventKind.TRIGGERED, EventKind.CANCELLED,
        EventKind.CANCELLED, EventKind.TRADE,
    ]  # fmt: skip
    events["reason"][4:6] = [200, 205]
    events.view(np.uint32).reshape(7, 32)[:, 30] = 77
    # A TRADE has it at 64, and there the maker's account.
    trade = events.view(np.uint32).reshape(7, 32)[6]
    trade[16], trade[30] = 77, 2
    found = of_accounts(events, 1).view(np.uint32).reshape(7, 32)
    assert found[:, 30].tolist() == [77, 0, 0, 0, 77, 0, 0]
    assert found[6, 16] == 0
    both = of_accounts(events, 1, 2).view(np.uint32).reshape(7, 32)
    assert (both[6, 16], both[6, 30]) == (77, 2)


def rejected(reason: int, first: int = 1, account: int = 1) -> Events:
    """Return the events of a rejected order with a long client order id and terms, and of an accepted one."""
    events = np.zeros(6, EVENT)
    events["sequence"] = np.arange(first, first + 6)
    events["command_sequence"] = [1, 1, 1, 2, 2, 2]
    events["kind"] = [
        EventKind.REJECTED, EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS,
        EventKind.NEW, EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS,
    ]  # fmt: skip
    events["reason"][0] = reason
    events["account"] = account
    return events


@pytest.mark.parametrize("reason", BY_ANYONE)
def test_rejection_that_anyone_can_cause_is_shown_to_nobody(reason: Reason) -> None:
    """Otherwise any client that names an account writes into its stream, with client order ids of its own choice."""
    events = rejected(reason)
    assert of_accounts(events, 1)["sequence"].tolist() == [4, 5, 6]
    assert account_events(events, AllAccounts())["sequence"].tolist() == [4, 5, 6]
    # Also if the stream goes on between the rejection and what follows it.
    assert account_events(events, AllAccounts(), 2)["sequence"].tolist() == [4, 5, 6]
    assert account_events(events[1:], AllAccounts(), 5)["sequence"].tolist() == [5, 6]


@pytest.mark.parametrize("reason", [Reason.ACCOUNT_SUSPENDED, Reason.INSUFFICIENT_FUNDS, Reason.UNKNOWN_ORDER])
def test_rejection_of_the_accounts_own_command_is_shown(reason: Reason) -> None:
    assert of_accounts(rejected(reason), 1)["sequence"].tolist() == [1, 2, 3, 4, 5, 6]
