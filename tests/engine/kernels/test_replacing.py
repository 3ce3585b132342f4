"""REPLACE: which changes keep the place in the queue, and what a rejected one leaves unchanged."""

import pytest

from smrx.wire.codes import (
    EventKind,
    InstrumentStatus,
    OrderFlags,
    Reason,
    Side,
    Stp,
)
from tests.commands import command, place, set_status
from tests.engine.small_market import BASE, QUOTE, SmallMarket, events_of, fills, last_outcome, order_id


def two_bids() -> tuple[SmallMarket, int, int]:
    """Return a market with two bids of 10 at 100, of accounts 1 and 2, and their ids."""
    market = SmallMarket()
    return market, order_id(market.buy(1, 10, 100)), order_id(market.buy(2, 10, 100))


@pytest.mark.parametrize(
    ("lots", "price", "first"),
    [(4, 100, True), (10, 100, False), (11, 100, False), (4, 101, True), (10, 99, False)],
    ids=["fewer", "the same again", "more", "a better price", "a worse price"],
)
def test_only_a_reduction_at_the_same_price_keeps_the_place(lots: int, price: int, first: bool) -> None:
    market, mine, other = two_bids()
    result = market.replace(1, mine, lots, price)
    assert last_outcome(result) == ("REPLACED", "NONE", 0, lots)
    assert events_of(result) == [("REPLACED", mine)]
    row = market.engine.inspect.orders(1)[0]
    sequence = int(result.events["sequence"][0])
    kept = (lots, price) == (4, 100)
    assert (int(row["priority"]) == sequence) is not kept
    assert market.balance_change(1, QUOTE) == (0, lots * price)
    assert fills(market.sell(3, 1, 99))[0][0] == (mine if first else other)
    market.check_state()


def test_replaced_order_trades_and_keeps_its_fills() -> None:
    market, mine, _ = two_bids()
    market.sell(3, 3, 100)
    ask = order_id(market.sell(3, 5, 105))
    result = market.replace(1, mine, 9, 106)
    assert events_of(result) == [
        ("REPLACED", mine),
        ("TRADE", ask),
        ("FILLED", ask),
        ("PARTIALLY_FILLED", mine),
    ]
    assert last_outcome(result) == ("PARTIALLY_FILLED", "NONE", 8, 1)
    # 3 at 100 and 5 at 105; one lot is held at 106.
    assert market.balance_change(1, QUOTE) == (-825, 106)
    assert market.balance_change(1, BASE) == (8, 0)
    assert market.engine.inspect.orders(1)["quantity_lots"].tolist() == [9]
    market.check_state()


def test_replaced_order_may_fill_or_expire() -> None:
    market, mine, _ = two_bids()
    market.sell(3, 5, 105)
    assert last_outcome(market.replace(1, mine, 5, 105)) == ("FILLED", "NONE", 5, 0)
    own = order_id(market.sell(1, 7, 110))
    mine = order_id(market.buy(1, 2, 90))
    result = market.replace(1, mine, 3, 110)
    assert last_outcome(result) == ("EXPIRED", "SELF_TRADE", 0, 0)
    assert events_of(result) == [("REPLACED", mine), ("EXPIRED", mine)]
    assert own in market.open_ids()
    assert mine not in market.open_ids()
    assert market.balance_change(1, QUOTE)[1] == 0
    market.check_state()


def test_rejections_in_order_of_precedence() -> None:
    market, mine, _ = two_bids()
    market.sell(3, 4, 100)
    market.sell(3, 10, 120)
    poster = order_id(market.buy(1, 5, 80, flags=OrderFlags.POST_ONLY))
    market.set_rules(min_price_ticks=50, min_quantity_lots=2, min_notional=300, max_notional=50_000, band_bp=5_000)
    funds = market.balance_change(1, QUOTE)[0]

    def rejected(lots: int, price: int, order: int = mine) -> Reason:
        return market.rejected(market.replace_command(1, order, lots, price))

    assert rejected(5, 100, 999) == Reason.UNKNOWN_ORDER
    assert market.rejected(market.replace_command(2, mine, 5, 100)) == Reason.UNKNOWN_ORDER
    assert rejected(0, 0) == Reason.INVALID_PRICE
    assert rejected(0, 49) == Reason.PRICE_BELOW_MINIMUM
    assert rejected(0, 1 << 51) == Reason.PRICE_ABOVE_MAXIMUM
    # The last trade was at 100: 50 % around it.
    assert rejected(0, 151) == Reason.PRICE_OUTSIDE_BAND
    assert rejected(4, 150) == Reason.INVALID_QUANTITY
    assert rejected(1, 150, poster) == Reason.QUANTITY_BELOW_MINIMUM
    assert rejected(1 << 12, 150) == Reason.QUANTITY_ABOVE_MAXIMUM
    assert rejected(5, 51) == Reason.NOTIONAL_BELOW_MINIMUM
    assert rejected(500, 150) == Reason.NOTIONAL_ABOVE_MAXIMUM
    market.set_limits(1, max_open_orders=1, max_order_quantity=8, max_order_notional=900, max_open_notional=1_000)
    assert rejected(9, 120, poster) == Reason.OPEN_ORDERS_LIMIT
    market.set_limits(1, max_open_orders=2, max_order_quantity=8, max_order_notional=900, max_open_notional=1_000)
    assert rejected(9, 120, poster) == Reason.ORDER_QUANTITY_LIMIT
    assert rejected(8, 120, poster) == Reason.ORDER_NOTIONAL_LIMIT
    # 600 are open at 100, and 400 at 80 of the order itself, which do not count.
    assert rejected(5, 120, poster) == Reason.OPEN_NOTIONAL_LIMIT
    assert rejected(3, 120, poster) == Reason.POST_ONLY_WOULD_TAKE
    assert last_outcome(market.replace(1, poster, 5, 79)) == ("REPLACED", "NONE", 0, 5)
    market.set_limits(1)
    market.set_rules()
    assert rejected(2_000, 1 << 40) == Reason.INSUFFICIENT_FUNDS
    market.send(set_status(market.sender(0), 1, InstrumentStatus.HALTED))
    assert rejected(7, 100) == Reason.INSTRUMENT_NOT_TRADING
    assert rejected(7, 100, 999) == Reason.UNKNOWN_ORDER
    assert market.balance_change(1, QUOTE)[0] == funds
    market.check_state()


def test_replace_may_use_the_orders_own_hold() -> None:
    market = SmallMarket()
    whole, price = 1 << 10, 1 << 30
    mine = order_id(market.buy(1, whole, price))
    assert market.engine.inspect.balances(1)["available"][1] == 0
    assert last_outcome(market.replace(1, mine, whole // 2, 2 * price)) == ("REPLACED", "NONE", 0, whole // 2)
    assert market.rejected(market.replace_command(1, mine, whole // 2 + 1, 2 * price)) == Reason.INSUFFICIENT_FUNDS
    market.check_state()


def test_limits_do_not_apply_to_reductions() -> None:
    market, mine, _ = two_bids()
    market.set_limits(1, max_open_orders=1, max_order_quantity=1, max_order_notional=1, max_open_notional=1)
    assert last_outcome(market.replace(1, mine, 9, 100)) == ("REPLACED", "NONE", 0, 9)
    assert market.rejected(market.replace_command(1, mine, 9, 99)) == Reason.ORDER_QUANTITY_LIMIT


def test_client_order_id_names_the_order() -> None:
    market = SmallMarket()
    mine = order_id(market.buy(1, 5, 100, client_order_id=77))
    named = command(3, market.sender(1), account=1, client_order_id=77, quantity_lots=4, price_ticks=100)
    assert order_id(market.send(named)) == mine
    assert (
        market.rejected(place(market.sender(1), 1, Side.BUY, 1, 1, client_order_id=77))
        == Reason.DUPLICATE_CLIENT_ORDER_ID
    )


def test_pending_stop_keeps_its_place_and_stop_price() -> None:
    market = SmallMarket()
    limit = order_id(market.stop(1, Side.BUY, 5, 110, 112))
    other = order_id(market.stop(2, Side.BUY, 5, 110, 112))
    bare = order_id(market.stop(1, Side.SELL, 5, 90))
    before = market.engine.inspect.orders()["priority"].tolist()
    assert last_outcome(market.replace(1, limit, 7, 115)) == ("REPLACED", "NONE", 0, 7)
    assert market.balance_change(1, QUOTE)[1] == 7 * 115
    assert market.rejected(market.replace_command(1, bare, 4, 1)) == Reason.INVALID_PRICE
    assert last_outcome(market.replace(1, bare, 9, 0)) == ("REPLACED", "NONE", 0, 9)
    assert market.balance_change(1, BASE)[1] == 9
    rows = market.engine.inspect.orders()
    assert rows["priority"].tolist() == before
    assert rows["stop_price_ticks"].tolist() == [110, 110, 90]
    assert market.engine.inspect.stops(1, 9) == ([(90, 9, 1)], [(110, 12, 2)])
    market.sell(3, 20, 110)
    result = market.buy(3, 1, 110, stp=Stp.NONE)
    triggered = result.events["order_id"][result.events["kind"] == EventKind.TRIGGERED]
    assert triggered.tolist() == [limit, other]
    market.check_state()
