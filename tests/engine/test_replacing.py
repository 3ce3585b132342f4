"""REPLACE: what keeps its place, what loses it, and what a refused one leaves behind."""

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
from tests.engine.desk import BASE, QUOTE, Desk, ended, fills, order_id, told


def two_bids() -> tuple[Desk, int, int]:
    """Two bids of 10 at 100, of accounts 1 and 2."""
    desk = Desk()
    return desk, order_id(desk.buy(1, 10, 100)), order_id(desk.buy(2, 10, 100))


@pytest.mark.parametrize(
    ("lots", "price", "first"),
    [(4, 100, True), (10, 100, False), (11, 100, False), (4, 101, True), (10, 99, False)],
    ids=["fewer", "the same again", "more", "a better price", "a worse price"],
)
def test_only_fewer_lots_at_the_same_price_keep_the_place(lots: int, price: int, first: bool) -> None:
    desk, mine, other = two_bids()
    result = desk.replace(1, mine, lots, price)
    assert ended(result) == ("REPLACED", "NONE", 0, lots)
    assert told(result) == [("REPLACED", mine)]
    row = desk.engine.inspect.orders(1)[0]
    sequence = int(result.events["sequence"][0])
    kept = (lots, price) == (4, 100)
    assert (int(row["priority"]) == sequence) is not kept
    assert desk.money(1, QUOTE) == (0, lots * price)
    assert fills(desk.sell(3, 1, 99))[0][0] == (mine if first else other)
    desk.check()


def test_a_replaced_order_trades_as_a_new_one_and_keeps_what_it_had_filled() -> None:
    desk, mine, _ = two_bids()
    desk.sell(3, 3, 100)
    ask = order_id(desk.sell(3, 5, 105))
    result = desk.replace(1, mine, 9, 106)
    assert told(result) == [
        ("REPLACED", mine),
        ("TRADE", ask),
        ("FILLED", ask),
        ("PARTIALLY_FILLED", mine),
    ]
    assert ended(result) == ("PARTIALLY_FILLED", "NONE", 8, 1)
    # 3 at 100 and 5 at 105; one lot is held at 106.
    assert desk.money(1, QUOTE) == (-825, 106)
    assert desk.money(1, BASE) == (8, 0)
    assert desk.engine.inspect.orders(1)["quantity_lots"].tolist() == [9]
    desk.check()


def test_a_replaced_order_may_fill_or_expire() -> None:
    desk, mine, _ = two_bids()
    desk.sell(3, 5, 105)
    assert ended(desk.replace(1, mine, 5, 105)) == ("FILLED", "NONE", 5, 0)
    own = order_id(desk.sell(1, 7, 110))
    mine = order_id(desk.buy(1, 2, 90))
    result = desk.replace(1, mine, 3, 110)
    assert ended(result) == ("EXPIRED", "SELF_TRADE", 0, 0)
    assert told(result) == [("REPLACED", mine), ("EXPIRED", mine)]
    assert own in desk.open_ids()
    assert mine not in desk.open_ids()
    assert desk.money(1, QUOTE)[1] == 0
    desk.check()


def test_refusals_in_their_order() -> None:
    desk, mine, _ = two_bids()
    desk.sell(3, 4, 100)
    desk.sell(3, 10, 120)
    poster = order_id(desk.buy(1, 5, 80, flags=OrderFlags.POST_ONLY))
    desk.rules(min_price_ticks=50, min_quantity_lots=2, min_notional=300, max_notional=50_000, band_bp=5_000)
    funds = desk.money(1, QUOTE)[0]

    def refused(lots: int, price: int, order: int = mine) -> Reason:
        return desk.refused(desk.replacing(1, order, lots, price))

    assert refused(5, 100, 999) == Reason.UNKNOWN_ORDER
    assert desk.refused(desk.replacing(2, mine, 5, 100)) == Reason.UNKNOWN_ORDER
    assert refused(0, 0) == Reason.INVALID_PRICE
    assert refused(0, 49) == Reason.PRICE_BELOW_MINIMUM
    assert refused(0, 1 << 51) == Reason.PRICE_ABOVE_MAXIMUM
    # The last trade was at 100: 50 % around it.
    assert refused(0, 151) == Reason.PRICE_OUTSIDE_BAND
    assert refused(4, 150) == Reason.INVALID_QUANTITY
    assert refused(1, 150, poster) == Reason.QUANTITY_BELOW_MINIMUM
    assert refused(1 << 12, 150) == Reason.QUANTITY_ABOVE_MAXIMUM
    assert refused(5, 51) == Reason.NOTIONAL_BELOW_MINIMUM
    assert refused(500, 150) == Reason.NOTIONAL_ABOVE_MAXIMUM
    desk.limits(1, max_open_orders=1, max_order_quantity=8, max_order_notional=900, max_open_notional=1_000)
    assert refused(9, 120, poster) == Reason.OPEN_ORDERS_LIMIT
    desk.limits(1, max_open_orders=2, max_order_quantity=8, max_order_notional=900, max_open_notional=1_000)
    assert refused(9, 120, poster) == Reason.ORDER_QUANTITY_LIMIT
    assert refused(8, 120, poster) == Reason.ORDER_NOTIONAL_LIMIT
    # 600 are open at 100, and 400 at 80 of the order itself, which do not count.
    assert refused(5, 120, poster) == Reason.OPEN_NOTIONAL_LIMIT
    assert refused(3, 120, poster) == Reason.POST_ONLY_WOULD_TAKE
    assert ended(desk.replace(1, poster, 5, 79)) == ("REPLACED", "NONE", 0, 5)
    desk.limits(1)
    desk.rules()
    assert refused(2_000, 1 << 40) == Reason.INSUFFICIENT_FUNDS
    desk.send(set_status(desk.sender(0), 1, InstrumentStatus.HALTED))
    assert refused(7, 100) == Reason.INSTRUMENT_NOT_TRADING
    assert refused(7, 100, 999) == Reason.UNKNOWN_ORDER
    assert desk.money(1, QUOTE)[0] == funds
    desk.check()


def test_an_order_may_spend_what_it_held_itself() -> None:
    desk = Desk()
    whole, price = 1 << 10, 1 << 30
    mine = order_id(desk.buy(1, whole, price))
    assert desk.engine.inspect.balances(1)["available"][1] == 0
    assert ended(desk.replace(1, mine, whole // 2, 2 * price)) == ("REPLACED", "NONE", 0, whole // 2)
    assert desk.refused(desk.replacing(1, mine, whole // 2 + 1, 2 * price)) == Reason.INSUFFICIENT_FUNDS
    desk.check()


def test_limits_do_not_stop_an_order_from_getting_smaller() -> None:
    desk, mine, _ = two_bids()
    desk.limits(1, max_open_orders=1, max_order_quantity=1, max_order_notional=1, max_open_notional=1)
    assert ended(desk.replace(1, mine, 9, 100)) == ("REPLACED", "NONE", 0, 9)
    assert desk.refused(desk.replacing(1, mine, 9, 99)) == Reason.ORDER_QUANTITY_LIMIT


def test_a_client_order_id_names_the_order_too() -> None:
    desk = Desk()
    mine = order_id(desk.buy(1, 5, 100, client_order_id=77))
    named = command(3, desk.sender(1), account=1, client_order_id=77, quantity_lots=4, price_ticks=100)
    assert order_id(desk.send(named)) == mine
    assert (
        desk.refused(place(desk.sender(1), 1, Side.BUY, 1, 1, client_order_id=77)) == Reason.DUPLICATE_CLIENT_ORDER_ID
    )


def test_a_pending_stop_keeps_its_place_and_its_stop_price() -> None:
    desk = Desk()
    limit = order_id(desk.stop(1, Side.BUY, 5, 110, 112))
    other = order_id(desk.stop(2, Side.BUY, 5, 110, 112))
    bare = order_id(desk.stop(1, Side.SELL, 5, 90))
    before = desk.engine.inspect.orders()["priority"].tolist()
    assert ended(desk.replace(1, limit, 7, 115)) == ("REPLACED", "NONE", 0, 7)
    assert desk.money(1, QUOTE)[1] == 7 * 115
    assert desk.refused(desk.replacing(1, bare, 4, 1)) == Reason.INVALID_PRICE
    assert ended(desk.replace(1, bare, 9, 0)) == ("REPLACED", "NONE", 0, 9)
    assert desk.money(1, BASE)[1] == 9
    rows = desk.engine.inspect.orders()
    assert rows["priority"].tolist() == before
    assert rows["stop_price_ticks"].tolist() == [110, 110, 90]
    assert desk.engine.inspect.stops(1, 9) == ([(90, 9, 1)], [(110, 12, 2)])
    desk.sell(3, 20, 110)
    result = desk.buy(3, 1, 110, stp=Stp.NONE)
    triggered = result.events["order_id"][result.events["kind"] == EventKind.TRIGGERED]
    assert triggered.tolist() == [limit, other]
    desk.check()
