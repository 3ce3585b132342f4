"""Stops: when they trigger, in which order, what they hold until then, and cascades of them."""

from typing import Any

import numpy as np
import pytest

from smrx.engine.engine import Result
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.commands import command, join, place
from tests.engine.desk import BASE, FUNDS, QUOTE, Desk, ended, fills, order_id, told


def trade_at(desk: Desk, price: int) -> Result:
    """One lot from account 3 to itself at a price; what it triggers belongs to it."""
    desk.sell(3, 1, price, stp=Stp.NONE)
    return desk.buy(3, 1, price, stp=Stp.NONE)


def triggered(result: Result) -> list[int]:
    ids: list[int] = result.events["order_id"][result.events["kind"] == EventKind.TRIGGERED].tolist()
    return ids


@pytest.mark.parametrize(
    ("side", "quiet", "loud"), [(Side.BUY, [108, 109], 110), (Side.BUY, [109], 111), (Side.SELL, [112, 111], 110)]
)
def test_a_stop_waits_for_its_price(side: Side, quiet: list[int], loud: int) -> None:
    desk = Desk()
    stop = order_id(desk.stop(1, side, 5, 110))
    for price in quiet:
        assert triggered(trade_at(desk, price)) == []
    assert desk.open_ids() == [stop]
    result = trade_at(desk, loud)
    assert told(result)[-2:] == [("TRIGGERED", stop), ("EXPIRED", stop)]
    assert desk.open_ids() == []
    desk.check()


def test_what_a_trigger_says() -> None:
    desk = Desk()
    result = desk.stop(1, Side.BUY, 5, 110, 115, client_order_id=7)
    stop = order_id(result)
    assert ended(result) == ("NEW", "NONE", 0, 5)
    assert int(result.events["counter_order_id"][0]) == 110
    assert desk.book() == ([], [])
    ask = order_id(desk.sell(2, 3, 114))
    result = trade_at(desk, 110)
    assert ended(result) == ("FILLED", "NONE", 1, 0)
    assert told(result)[4:] == [("TRIGGERED", stop), ("TRADE", ask), ("FILLED", ask), ("PARTIALLY_FILLED", stop)]
    event = result.events[4]
    names = ("order_type", "counter_order_id", "price_ticks", "quantity_lots", "cum_lots", "leaves_lots", "session_id")
    assert [int(event[name]) for name in names] == [OrderType.LIMIT, 0, 115, 5, 0, 5, 13]
    assert int(result.outcomes["event_count"][0]) == len(result.events)
    row = desk.engine.inspect.orders(1)[0]
    assert int(row["priority"]) == int(event["sequence"])
    assert desk.book() == ([(115, 2, 1)], [])
    desk.check()


@pytest.mark.parametrize(("side", "last", "stop"), [(Side.BUY, 100, 100), (Side.SELL, 100, 101)])
def test_a_stop_that_would_trigger_at_once_is_refused(side: Side, last: int, stop: int) -> None:
    desk = Desk()
    terms: dict[str, Any] = {"order_type": OrderType.STOP, "tif": TimeInForce.IOC, "stop_ticks": stop}
    desk.send(place(desk.sender(1), 1, side, 1, **terms))
    other = Desk()
    trade_at(other, last)
    assert other.refused(place(other.sender(1), 1, side, 1, **terms)) == Reason.STOP_WOULD_TRIGGER


def test_what_stops_hold() -> None:
    desk = Desk()
    desk.rules(taker_fee=10_000)
    desk.stop(1, Side.BUY, 5, 110)
    assert desk.money(1, QUOTE) == (0, 0)
    limit = order_id(desk.stop(1, Side.BUY, 5, 110, 115))
    assert desk.money(1, QUOTE) == (0, 5 * (115 + 2))
    sell = order_id(desk.stop(1, Side.SELL, 7, 90))
    assert desk.money(1, BASE) == (0, 7)
    desk.stop(1, Side.SELL, 2_000, 5)
    desk.cancel(1, limit)
    desk.cancel(1, sell)
    assert desk.money(1, QUOTE) == (0, 0)
    assert desk.money(1, BASE) == (0, 2_000)
    too_much = place(
        desk.sender(1), 1, Side.BUY, 2_000, FUNDS, order_type=OrderType.STOP_LIMIT, stop_ticks=FUNDS
    )  # fmt: skip
    assert desk.refused(too_much) == Reason.INSUFFICIENT_FUNDS
    desk.check()


def test_a_pending_stop_can_be_cancelled_like_any_order() -> None:
    desk = Desk()
    stops = [order_id(desk.stop(1, Side.BUY, 5, 110, client_order_id=4)), order_id(desk.stop(1, Side.SELL, 5, 90))]
    result = desk.send(command(CommandKind.CANCEL, desk.sender(1), account=1, client_order_id=4))
    assert ended(result) == ("CANCELLED", "NONE", 0, 0)
    result = desk.send(command(CommandKind.MASS_CANCEL, desk.sender(1), account=1, instrument=1, side=Side.SELL))
    assert told(result)[0] == ("CANCELLED", stops[1])
    assert desk.open_ids() == []
    desk.check()


def test_the_stop_that_the_price_reached_first_goes_first() -> None:
    """At the first trade both sides may be due: by distance from its price, then by id."""
    desk = Desk()
    at = {}
    for name, side, price in (
        ("sell 102", Side.SELL, 102),
        ("buy 97", Side.BUY, 97),
        ("buy 98", Side.BUY, 98),
        ("sell 104", Side.SELL, 104),
        ("buy 97 again", Side.BUY, 97),
        ("sell 103", Side.SELL, 103),
        ("not due", Side.BUY, 101),
    ):
        at[name] = order_id(desk.stop(1, side, 1, price))
    result = trade_at(desk, 100)
    order = ("sell 104", "buy 97", "buy 97 again", "sell 103", "sell 102", "buy 98")
    assert triggered(result) == [at[name] for name in order]
    assert desk.open_ids() == [at["not due"]]
    desk.check()


def test_a_cascade() -> None:
    """Each triggered stop trades at the price that triggers the next, and the first one's commands waits for none."""
    desk = Desk()
    stops = [order_id(desk.stop(1, Side.BUY, 1, price)) for price in (100, 101, 102, 103)]
    asks = [order_id(desk.sell(2, 1, price)) for price in (100, 101, 102, 103, 104)]
    result = desk.buy(3, 1, 100)
    assert ended(result) == ("FILLED", "NONE", 1, 0)
    assert [fill[0] for fill in fills(result)] == asks
    assert triggered(result) == stops
    assert len(set(result.events["command_sequence"].tolist())) == 1
    assert set(result.events["request_id"].tolist()) == {int(result.outcomes["request_id"][0])}
    assert desk.engine.inspect.instruments()["last_price_ticks"].tolist() == [104]
    assert desk.open_ids() == []
    desk.check()


def test_stops_elected_together_go_before_those_that_their_trades_elect() -> None:
    desk = Desk()
    first = [order_id(desk.stop(1, Side.BUY, 1, 100)) for _ in range(2)]
    later = order_id(desk.stop(1, Side.BUY, 1, 105))
    for price in (100, 105, 106, 107):
        desk.sell(2, 1, price)
    assert triggered(desk.buy(3, 1, 100)) == [*first, later]
    desk.check()


def test_an_elected_stop_goes_even_if_the_price_goes_back() -> None:
    desk = Desk()
    up = order_id(desk.stop(1, Side.BUY, 5, 100))
    down = order_id(desk.stop(2, Side.SELL, 1, 100))
    desk.buy(3, 9, 90)
    desk.sell(3, 5, 110, stp=Stp.NONE)
    result = trade_at(desk, 100)
    # Both are at distance 0: the older first. It trades at 110, and the other is elected all the same.
    assert triggered(result) == [up, down]
    assert [fill[1] for fill in fills(result)] == [100, 110, 90]
    desk.check()


def test_a_triggered_limit_order_may_rest_expire_or_be_killed() -> None:
    desk = Desk()
    stays = order_id(desk.stop(1, Side.BUY, 5, 100, 95))
    expires = order_id(desk.stop(1, Side.BUY, 5, 100, 96, tif=TimeInForce.IOC))
    killed = order_id(desk.stop(1, Side.BUY, 5, 100, 120, tif=TimeInForce.FOK))
    desk.sell(2, 4, 110)
    result = trade_at(desk, 100)
    assert told(result)[-5:] == [
        ("TRIGGERED", stays),
        ("TRIGGERED", expires),
        ("EXPIRED", expires),
        ("TRIGGERED", killed),
        ("EXPIRED", killed),
    ]
    assert result.events["reason"][-3::2].tolist() == [Reason.IOC_REMAINDER, Reason.FOK_UNFILLABLE]
    assert desk.book() == ([(95, 5, 1)], [(110, 4, 1)])
    assert desk.money(1, QUOTE) == (0, 5 * 95)
    desk.check()


def test_a_triggered_market_buy_takes_what_it_can_pay() -> None:
    desk = Desk()
    desk.stop(1, Side.BUY, 2_000, 100)
    desk.buy(1, 1_000, FUNDS // 1_000 - 1_000)
    desk.sell(2, 2_000, FUNDS // 1_000)
    result = trade_at(desk, FUNDS // 1_000)
    assert "FUNDS_EXHAUSTED" in [Reason(int(reason)).name for reason in result.events["reason"]]
    assert desk.money(1, BASE)[0] == 0
    desk.check()


def test_the_own_order_of_the_command_may_be_taken_by_what_it_triggers() -> None:
    """The outcome tells how it was before: the events tell the rest."""
    desk = Desk()
    stop = order_id(desk.stop(1, Side.SELL, 2, 100))
    desk.sell(2, 1, 100)
    result = desk.buy(3, 5, 100)
    mine = order_id(result)
    assert ended(result) == ("PARTIALLY_FILLED", "NONE", 1, 4)
    assert told(result)[-4:] == [("TRIGGERED", stop), ("TRADE", mine), ("PARTIALLY_FILLED", mine), ("FILLED", stop)]
    assert desk.book() == ([(100, 2, 1)], [])
    desk.check()


def test_a_cancelled_stop_does_not_trigger() -> None:
    desk = Desk()
    gone = order_id(desk.stop(1, Side.BUY, 1, 100))
    desk.cancel(1, gone)
    assert triggered(trade_at(desk, 100)) == []


@pytest.mark.parametrize("count", [300])
def test_a_long_cascade_in_one_command(count: int) -> None:
    """Every stop opens the next, and the books and tables grow on the way: one command, one outcome."""
    desk = Desk(orders=1, levels=1)
    asks = [place(desk.sender(2), 2, Side.SELL, 1, 100 + at) for at in range(count)]
    stops = [
        place(
            desk.sender(1), 1, Side.BUY, 2, 101 + at, order_type=OrderType.STOP_LIMIT, stop_ticks=100 + at,
        )
        for at in range(count)
    ]  # fmt: skip
    desk.send(join([*stops, *asks]))
    result = desk.buy(3, 1, 100)
    assert len(triggered(result)) == count
    assert (np.diff(result.events["sequence"].astype(np.int64)) == 1).all()
    assert int(result.outcomes["event_count"][0]) == len(result.events)
    desk.check()
