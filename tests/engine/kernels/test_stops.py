"""Stop orders: when they trigger, in which sequence, what they hold until then, and cascades."""

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
from tests.engine.small_market import (
    BASE,
    FUNDS,
    QUOTE,
    SmallMarket,
    events_of,
    fills,
    in_own_layout,
    last_outcome,
    order_id,
)


def trade_at(market: SmallMarket, price: int) -> Result:
    """Trade one lot of account 3 with itself at a price; triggered stops belong to that command."""
    market.sell(3, 1, price, stp=Stp.NONE)
    return market.buy(3, 1, price, stp=Stp.NONE)


def triggered(result: Result) -> list[int]:
    """Return the ids of the triggered orders, in sequence."""
    ids: list[int] = result.events["order_id"][result.events["kind"] == EventKind.TRIGGERED].tolist()
    return ids


@pytest.mark.parametrize(
    ("side", "quiet", "loud"), [(Side.BUY, [108, 109], 110), (Side.BUY, [109], 111), (Side.SELL, [112, 111], 110)]
)
def test_stop_triggers_at_its_price(side: Side, quiet: list[int], loud: int) -> None:
    market = SmallMarket()
    stop = order_id(market.stop(1, side, 5, 110))
    for price in quiet:
        assert triggered(trade_at(market, price)) == []
    assert market.open_ids() == [stop]
    result = trade_at(market, loud)
    assert events_of(result)[-2:] == [("TRIGGERED", stop), ("EXPIRED", stop)]
    assert market.open_ids() == []
    market.check_state()


def test_triggered_event_fields() -> None:
    market = SmallMarket()
    result = market.stop(1, Side.BUY, 5, 110, 115, client_order_id=7)
    stop = order_id(result)
    assert last_outcome(result) == ("NEW", "NONE", 0, 5)
    assert events_of(result) == [("NEW", stop), ("ORDER_TERMS", stop)]
    assert int(in_own_layout(result.events[1])["stop_price_ticks"]) == 110
    assert market.depth() == ([], [])
    ask = order_id(market.sell(2, 3, 114))
    result = trade_at(market, 110)
    assert last_outcome(result) == ("FILLED", "NONE", 1, 0)
    assert events_of(result)[4:] == [("TRIGGERED", stop), ("TRADE", ask), ("FILLED", ask), ("PARTIALLY_FILLED", stop)]
    event = result.events[4]
    names = ("order_type", "following", "price_ticks", "quantity_lots", "cum_lots", "leaves_lots", "session_id")
    assert [int(event[name]) for name in names] == [OrderType.LIMIT, 0, 115, 5, 0, 5, 13]
    assert int(result.outcomes["event_count"][0]) == len(result.events)
    row = market.engine.inspect.orders(1)[0]
    assert int(row["priority"]) == int(event["sequence"])
    assert market.depth() == ([(115, 2, 1)], [])
    market.check_state()


@pytest.mark.parametrize(("side", "last", "stop"), [(Side.BUY, 100, 100), (Side.SELL, 100, 101)])
def test_stop_that_would_trigger_at_once_is_rejected(side: Side, last: int, stop: int) -> None:
    market = SmallMarket()
    terms: dict[str, Any] = {"order_type": OrderType.STOP, "tif": TimeInForce.IOC, "stop_ticks": stop}
    market.send(place(market.sender(1), 1, side, 1, **terms))
    other = SmallMarket()
    trade_at(other, last)
    assert other.rejected(place(other.sender(1), 1, side, 1, **terms)) == Reason.STOP_WOULD_TRIGGER


def test_stop_holds() -> None:
    market = SmallMarket()
    market.set_rules(taker_fee=10_000)
    market.stop(1, Side.BUY, 5, 110)
    assert market.balance_change(1, QUOTE) == (0, 0)
    limit = order_id(market.stop(1, Side.BUY, 5, 110, 115))
    assert market.balance_change(1, QUOTE) == (0, 5 * (115 + 2))
    sell = order_id(market.stop(1, Side.SELL, 7, 90))
    assert market.balance_change(1, BASE) == (0, 7)
    market.stop(1, Side.SELL, 2_000, 5)
    market.cancel(1, limit)
    market.cancel(1, sell)
    assert market.balance_change(1, QUOTE) == (0, 0)
    assert market.balance_change(1, BASE) == (0, 2_000)
    too_much = place(
        market.sender(1), 1, Side.BUY, 2_000, FUNDS, order_type=OrderType.STOP_LIMIT, stop_ticks=FUNDS
    )  # fmt: skip
    assert market.rejected(too_much) == Reason.INSUFFICIENT_FUNDS
    market.check_state()


def test_pending_stop_can_be_cancelled() -> None:
    market = SmallMarket()
    stops = [order_id(market.stop(1, Side.BUY, 5, 110, client_order_id=4)), order_id(market.stop(1, Side.SELL, 5, 90))]
    result = market.send(command(CommandKind.CANCEL, market.sender(1), account=1, client_order_id=4))
    assert last_outcome(result) == ("CANCELLED", "NONE", 0, 0)
    result = market.send(command(CommandKind.MASS_CANCEL, market.sender(1), account=1, instrument=1, side=Side.SELL))
    assert events_of(result)[0] == ("CANCELLED", stops[1])
    assert market.open_ids() == []
    market.check_state()


def test_stops_are_elected_by_distance_then_id() -> None:
    """At an instrument's first trade both sides may be due."""
    market = SmallMarket()
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
        at[name] = order_id(market.stop(1, side, 1, price))
    result = trade_at(market, 100)
    order = ("sell 104", "buy 97", "buy 97 again", "sell 103", "sell 102", "buy 98")
    assert triggered(result) == [at[name] for name in order]
    assert market.open_ids() == [at["not due"]]
    market.check_state()


def test_cascade_triggers_stop_after_stop() -> None:
    """Each triggered stop trades at the price that triggers the next, all within one command."""
    market = SmallMarket()
    stops = [order_id(market.stop(1, Side.BUY, 1, price)) for price in (100, 101, 102, 103)]
    asks = [order_id(market.sell(2, 1, price)) for price in (100, 101, 102, 103, 104)]
    result = market.buy(3, 1, 100)
    assert last_outcome(result) == ("FILLED", "NONE", 1, 0)
    assert [fill[0] for fill in fills(result)] == asks
    assert triggered(result) == stops
    assert len(set(result.events["command_sequence"].tolist())) == 1
    assert set(result.events["request_id"].tolist()) == {int(result.outcomes["request_id"][0])}
    assert market.engine.inspect.instruments()["last_price_ticks"].tolist() == [104]
    assert market.open_ids() == []
    market.check_state()


def test_earlier_elected_stops_trigger_first() -> None:
    market = SmallMarket()
    first = [order_id(market.stop(1, Side.BUY, 1, 100)) for _ in range(2)]
    later = order_id(market.stop(1, Side.BUY, 1, 105))
    for price in (100, 105, 106, 107):
        market.sell(2, 1, price)
    assert triggered(market.buy(3, 1, 100)) == [*first, later]
    market.check_state()


def test_elected_stop_triggers_even_if_the_price_returns() -> None:
    market = SmallMarket()
    up = order_id(market.stop(1, Side.BUY, 5, 100))
    down = order_id(market.stop(2, Side.SELL, 1, 100))
    market.buy(3, 9, 90)
    market.sell(3, 5, 110, stp=Stp.NONE)
    result = trade_at(market, 100)
    # Both are at distance 0: the older first. It trades at 110, and the other is elected all the same.
    assert triggered(result) == [up, down]
    assert [fill[1] for fill in fills(result)] == [100, 110, 90]
    market.check_state()


def test_triggered_limit_order_may_rest_expire_or_be_killed() -> None:
    market = SmallMarket()
    stays = order_id(market.stop(1, Side.BUY, 5, 100, 95))
    expires = order_id(market.stop(1, Side.BUY, 5, 100, 96, tif=TimeInForce.IOC))
    killed = order_id(market.stop(1, Side.BUY, 5, 100, 120, tif=TimeInForce.FOK))
    market.sell(2, 4, 110)
    result = trade_at(market, 100)
    assert events_of(result)[-5:] == [
        ("TRIGGERED", stays),
        ("TRIGGERED", expires),
        ("EXPIRED", expires),
        ("TRIGGERED", killed),
        ("EXPIRED", killed),
    ]
    assert result.events["reason"][-3::2].tolist() == [Reason.IOC_REMAINDER, Reason.FOK_UNFILLABLE]
    assert market.depth() == ([(95, 5, 1)], [(110, 4, 1)])
    assert market.balance_change(1, QUOTE) == (0, 5 * 95)
    market.check_state()


def test_triggered_market_buy_is_limited_by_funds() -> None:
    market = SmallMarket()
    market.stop(1, Side.BUY, 2_000, 100)
    market.buy(1, 1_000, FUNDS // 1_000 - 1_000)
    market.sell(2, 2_000, FUNDS // 1_000)
    result = trade_at(market, FUNDS // 1_000)
    assert "FUNDS_EXHAUSTED" in [Reason(int(reason)).name for reason in result.events["reason"]]
    assert market.balance_change(1, BASE)[0] == 0
    market.check_state()


def test_triggered_stop_may_fill_the_commands_own_order() -> None:
    """The outcome shows the order before the first trigger; the events show the rest."""
    market = SmallMarket()
    stop = order_id(market.stop(1, Side.SELL, 2, 100))
    market.sell(2, 1, 100)
    result = market.buy(3, 5, 100)
    mine = order_id(result)
    assert last_outcome(result) == ("PARTIALLY_FILLED", "NONE", 1, 4)
    assert events_of(result)[-4:] == [
        ("TRIGGERED", stop),
        ("TRADE", mine),
        ("PARTIALLY_FILLED", mine),
        ("FILLED", stop),
    ]
    assert market.depth() == ([(100, 2, 1)], [])
    market.check_state()


def test_cancelled_stop_does_not_trigger() -> None:
    market = SmallMarket()
    gone = order_id(market.stop(1, Side.BUY, 1, 100))
    market.cancel(1, gone)
    assert triggered(trade_at(market, 100)) == []


@pytest.mark.parametrize("count", [300])
def test_long_cascade_in_one_command(count: int) -> None:
    """Every stop triggers the next, while books and tables grow: one command, one outcome."""
    market = SmallMarket(orders=1, levels=1)
    asks = [place(market.sender(2), 2, Side.SELL, 1, 100 + at) for at in range(count)]
    stops = [
        place(
            market.sender(1), 1, Side.BUY, 2, 101 + at, order_type=OrderType.STOP_LIMIT, stop_ticks=100 + at,
        )
        for at in range(count)
    ]  # fmt: skip
    market.send(join([*stops, *asks]))
    result = market.buy(3, 1, 100)
    assert len(triggered(result)) == count
    assert (np.diff(result.events["sequence"].astype(np.int64)) == 1).all()
    assert int(result.outcomes["event_count"][0]) == len(result.events)
    market.check_state()
