"""Self-trade prevention: each mode with a maker of the same account, in matching and for fill-or-kill."""

import pytest

from smrx.engine.engine import Result
from smrx.wire.codes import EventKind, Side, Stp, TimeInForce
from tests.engine.small_market import BASE, QUOTE, SmallMarket, events_of, last_outcome, order_id


def own_ask_between_others() -> tuple[SmallMarket, list[int]]:
    """Return a market with asks at 100: 4 of account 2, 5 of account 1, 6 of account 3; and their ids."""
    market = SmallMarket()
    return market, [order_id(market.sell(account, lots, 100)) for account, lots in ((2, 4), (1, 5), (3, 6))]


def take(market: SmallMarket, lots: int, stp: Stp) -> tuple[Result, int]:
    """Buy for account 1; return the result and the order's id."""
    result = market.buy(1, lots, 100, stp=stp)
    market.check_state()
    return result, order_id(result)


def test_cancel_newest_expires_the_taker() -> None:
    market, (first, own, last) = own_ask_between_others()
    result, mine = take(market, 12, Stp.CANCEL_NEWEST)
    assert events_of(result)[1:] == [("TRADE", first), ("FILLED", first), ("PARTIALLY_FILLED", mine), ("EXPIRED", mine)]
    assert last_outcome(result) == ("EXPIRED", "SELF_TRADE", 4, 0)
    assert market.open_ids() == [own, last]


def test_cancel_oldest_cancels_the_maker_and_continues() -> None:
    market, (first, own, last) = own_ask_between_others()
    result, mine = take(market, 12, Stp.CANCEL_OLDEST)
    assert [kind for kind in events_of(result) if kind[0] in ("CANCELLED", "TRADE")] == [
        ("TRADE", first),
        ("CANCELLED", own),
        ("TRADE", last),
    ]
    assert last_outcome(result) == ("PARTIALLY_FILLED", "NONE", 10, 2)
    assert market.open_ids() == [mine]
    assert market.balance_change(1, BASE) == (10, 0)


def test_cancel_both_ends_both() -> None:
    market, (_, own, last) = own_ask_between_others()
    result, mine = take(market, 12, Stp.CANCEL_BOTH)
    assert events_of(result)[-2:] == [("CANCELLED", own), ("EXPIRED", mine)]
    assert result.events["reason"][-2:].tolist() == [205, 205]
    assert market.open_ids() == [last]
    assert market.balance_change(1, BASE) == (4, 0)
    assert market.balance_change(1, QUOTE) == (-400, 0)


@pytest.mark.parametrize(
    ("lots", "events", "result"),
    [
        (6, [("REPLACED", "own"), ("EXPIRED", "mine")], ("EXPIRED", "SELF_TRADE", 4, 0)),
        (9, [("CANCELLED", "own"), ("EXPIRED", "mine")], ("EXPIRED", "SELF_TRADE", 4, 0)),
        (12, [("CANCELLED", "own"), ("REPLACED", "mine")], ("FILLED", "NONE", 7, 0)),
        (20, [("CANCELLED", "own"), ("REPLACED", "mine")], ("PARTIALLY_FILLED", "NONE", 10, 5)),
    ],
    ids=["smaller taker", "equal", "smaller maker", "remainder rests"],
)
def test_decrement_reduces_both_by_the_overlap(
    lots: int, events: list[tuple[str, str]], result: tuple[str, str, int, int]
) -> None:
    market, (_, own, _) = own_ask_between_others()
    found, mine = take(market, lots, Stp.DECREMENT)
    assert last_outcome(found) == result
    names = {"own": own, "mine": mine}
    changes = [event for event in events_of(found) if event[0] in ("REPLACED", "CANCELLED", "EXPIRED")]
    assert changes == [(kind, names[name]) for kind, name in events]
    for event in found.events:
        if event["kind"] == EventKind.REPLACED:
            quantity = {own: 5 - (lots - 4), mine: lots - 5}[int(event["order_id"])]
            assert (event["quantity_lots"], event["reason"]) == (quantity, 205)
            assert event["leaves_lots"] == event["quantity_lots"] - event["cum_lots"]
        elif event["kind"] in (EventKind.CANCELLED, EventKind.EXPIRED):
            # An ended order shows its quantity before the decrement.
            assert event["quantity_lots"] == (5 if event["order_id"] == own else lots)


def test_decremented_maker_keeps_its_place() -> None:
    market = SmallMarket()
    own = order_id(market.sell(1, 5, 100))
    market.sell(3, 6, 100)
    priority = market.engine.inspect.orders(1)["priority"].tolist()
    take(market, 2, Stp.DECREMENT)
    assert market.engine.inspect.orders(1)["priority"].tolist() == priority
    assert market.depth()[1] == [(100, 9, 2)]
    assert events_of(market.buy(2, 3, 100))[1] == ("TRADE", own)
    market.check_state()


def test_account_trades_with_itself_without_prevention() -> None:
    market, (_, own, _) = own_ask_between_others()
    result, _ = take(market, 9, Stp.NONE)
    assert last_outcome(result) == ("FILLED", "NONE", 9, 0)
    assert ("TRADE", own) in events_of(result)
    # Four lots come from account 2; the other five are its own.
    assert market.balance_change(1, BASE) == (4, 0)
    assert market.balance_change(1, QUOTE) == (-400, 0)


@pytest.mark.parametrize(
    ("stp", "lots", "fills"),
    [
        (Stp.CANCEL_NEWEST, 4, True),
        (Stp.CANCEL_NEWEST, 5, False),
        (Stp.CANCEL_BOTH, 4, True),
        (Stp.CANCEL_BOTH, 5, False),
        (Stp.DECREMENT, 4, True),
        (Stp.DECREMENT, 5, False),
        (Stp.CANCEL_OLDEST, 10, True),
        (Stp.CANCEL_OLDEST, 11, False),
        (Stp.NONE, 15, True),
        (Stp.NONE, 16, False),
    ],
)
def test_fill_or_kill_accounts_for_prevention(stp: Stp, lots: int, fills: bool) -> None:
    market, asks = own_ask_between_others()
    result = market.buy(1, lots, 100, stp=stp, tif=TimeInForce.FOK)
    market.check_state()
    if fills:
        assert last_outcome(result) == ("FILLED", "NONE", lots, 0)
    else:
        assert last_outcome(result) == ("EXPIRED", "FOK_UNFILLABLE", 0, 0)
        assert market.open_ids() == asks


def test_cancelled_own_orders_use_no_lots() -> None:
    """One lot meets a hundred own orders, more than its quantity."""
    market = SmallMarket()
    for _ in range(100):
        market.sell(1, 1, 100)
    last = order_id(market.sell(2, 1, 100))
    result, mine = take(market, 1, Stp.CANCEL_OLDEST)
    assert len(result.events) == 104
    assert events_of(result)[-3:] == [("TRADE", last), ("FILLED", last), ("FILLED", mine)]


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_market_order_prevents_self_trades(side: Side) -> None:
    market = SmallMarket()
    act, react = (market.buy, market.sell) if side == Side.BUY else (market.sell, market.buy)
    own = order_id(react(1, 5, 100))
    result = act(1, 3, 0, order_type=2, tif=TimeInForce.IOC, stp=Stp.CANCEL_BOTH)
    assert events_of(result)[1:] == [("CANCELLED", own), ("EXPIRED", order_id(result))]
    assert last_outcome(result) == ("EXPIRED", "SELF_TRADE", 0, 0)
    market.check_state()
