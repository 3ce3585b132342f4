"""Self-trade prevention: each mode at a maker of the same account, in matching and where fill-or-kill looks first."""

import pytest

from smrx.engine.engine import Result
from smrx.wire.codes import EventKind, Side, Stp, TimeInForce
from tests.engine.desk import BASE, QUOTE, Desk, ended, order_id, told


def own_ask_between() -> tuple[Desk, list[int]]:
    """Asks at 100: 4 of account 2, 5 of account 1, 6 of account 3."""
    desk = Desk()
    return desk, [order_id(desk.sell(account, lots, 100)) for account, lots in ((2, 4), (1, 5), (3, 6))]


def take(desk: Desk, lots: int, stp: Stp) -> tuple[Result, int]:
    result = desk.buy(1, lots, 100, stp=stp)
    desk.check()
    return result, order_id(result)


def test_the_newest_goes() -> None:
    desk, (first, own, last) = own_ask_between()
    result, mine = take(desk, 12, Stp.CANCEL_NEWEST)
    assert told(result)[1:] == [("TRADE", first), ("FILLED", first), ("PARTIALLY_FILLED", mine), ("EXPIRED", mine)]
    assert ended(result) == ("EXPIRED", "SELF_TRADE", 4, 0)
    assert desk.open_ids() == [own, last]


def test_the_oldest_goes_and_matching_goes_on() -> None:
    desk, (first, own, last) = own_ask_between()
    result, mine = take(desk, 12, Stp.CANCEL_OLDEST)
    assert [kind for kind in told(result) if kind[0] in ("CANCELLED", "TRADE")] == [
        ("TRADE", first),
        ("CANCELLED", own),
        ("TRADE", last),
    ]
    assert ended(result) == ("PARTIALLY_FILLED", "NONE", 10, 2)
    assert desk.open_ids() == [mine]
    assert desk.money(1, BASE) == (10, 0)


def test_both_go() -> None:
    desk, (_, own, last) = own_ask_between()
    result, mine = take(desk, 12, Stp.CANCEL_BOTH)
    assert told(result)[-2:] == [("CANCELLED", own), ("EXPIRED", mine)]
    assert result.events["reason"][-2:].tolist() == [205, 205]
    assert desk.open_ids() == [last]
    assert desk.money(1, BASE) == (4, 0)
    assert desk.money(1, QUOTE) == (-400, 0)


@pytest.mark.parametrize(
    ("lots", "events", "result"),
    [
        (6, [("REPLACED", "own"), ("EXPIRED", "mine")], ("EXPIRED", "SELF_TRADE", 4, 0)),
        (9, [("CANCELLED", "own"), ("EXPIRED", "mine")], ("EXPIRED", "SELF_TRADE", 4, 0)),
        (12, [("CANCELLED", "own"), ("REPLACED", "mine")], ("FILLED", "NONE", 7, 0)),
        (20, [("CANCELLED", "own"), ("REPLACED", "mine")], ("PARTIALLY_FILLED", "NONE", 10, 5)),
    ],
    ids=["the taker is smaller", "equal", "the maker is smaller", "a rest stands"],
)
def test_both_shrink_by_the_overlap(
    lots: int, events: list[tuple[str, str]], result: tuple[str, str, int, int]
) -> None:
    desk, (_, own, _) = own_ask_between()
    found, mine = take(desk, lots, Stp.DECREMENT)
    assert ended(found) == result
    names = {"own": own, "mine": mine}
    changes = [event for event in told(found) if event[0] in ("REPLACED", "CANCELLED", "EXPIRED")]
    assert changes == [(kind, names[name]) for kind, name in events]
    for event in found.events:
        if event["kind"] == EventKind.REPLACED:
            quantity = {own: 5 - (lots - 4), mine: lots - 5}[int(event["order_id"])]
            assert (event["quantity_lots"], event["reason"]) == (quantity, 205)
            assert event["leaves_lots"] == event["quantity_lots"] - event["cum_lots"]
        elif event["kind"] in (EventKind.CANCELLED, EventKind.EXPIRED):
            # What dies has the quantity from before.
            assert event["quantity_lots"] == (5 if event["order_id"] == own else lots)


def test_a_maker_that_shrinks_keeps_its_place() -> None:
    desk = Desk()
    own = order_id(desk.sell(1, 5, 100))
    desk.sell(3, 6, 100)
    priority = desk.engine.inspect.orders(1)["priority"].tolist()
    take(desk, 2, Stp.DECREMENT)
    assert desk.engine.inspect.orders(1)["priority"].tolist() == priority
    assert desk.book()[1] == [(100, 9, 2)]
    assert told(desk.buy(2, 3, 100))[1] == ("TRADE", own)
    desk.check()


def test_without_prevention_an_account_trades_with_itself() -> None:
    desk, (_, own, _) = own_ask_between()
    result, _ = take(desk, 9, Stp.NONE)
    assert ended(result) == ("FILLED", "NONE", 9, 0)
    assert ("TRADE", own) in told(result)
    # Four bought of account 2; the other five went in a circle.
    assert desk.money(1, BASE) == (4, 0)
    assert desk.money(1, QUOTE) == (-400, 0)


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
def test_fill_or_kill_looks_first(stp: Stp, lots: int, fills: bool) -> None:
    desk, asks = own_ask_between()
    result = desk.buy(1, lots, 100, stp=stp, tif=TimeInForce.FOK)
    desk.check()
    if fills:
        assert ended(result) == ("FILLED", "NONE", lots, 0)
    else:
        assert ended(result) == ("EXPIRED", "FOK_UNFILLABLE", 0, 0)
        assert desk.open_ids() == asks


def test_own_orders_cost_a_taker_that_cancels_them_no_lots() -> None:
    """One lot meets a hundred orders: more than its lots say."""
    desk = Desk()
    for _ in range(100):
        desk.sell(1, 1, 100)
    last = order_id(desk.sell(2, 1, 100))
    result, mine = take(desk, 1, Stp.CANCEL_OLDEST)
    assert len(result.events) == 104
    assert told(result)[-3:] == [("TRADE", last), ("FILLED", last), ("FILLED", mine)]


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_market_order_prevents_too(side: Side) -> None:
    desk = Desk()
    act, react = (desk.buy, desk.sell) if side == Side.BUY else (desk.sell, desk.buy)
    own = order_id(react(1, 5, 100))
    result = act(1, 3, 0, order_type=2, tif=TimeInForce.IOC, stp=Stp.CANCEL_BOTH)
    assert told(result)[1:] == [("CANCELLED", own), ("EXPIRED", order_id(result))]
    assert ended(result) == ("EXPIRED", "SELF_TRADE", 0, 0)
    desk.check()
