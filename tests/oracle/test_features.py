"""The oracle's stops, icebergs, dates, budgets, fees and limits against results worked out by hand."""

import pytest

from smrx.wire.codes import (
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)
from tests import commands as make
from tests.oracle import Oracle, Result
from tests.oracle.desk import ALICE, BOB, BTC, BUY, CAROL, SELL, USD, Venue, kinds, order_id, refused, verdict
from tests.oracle.records import hash_words

SECOND = 1_000_000_000


@pytest.fixture
def venue() -> Venue:
    return Venue()


def budget(venue: Venue, amount: int) -> Result:
    return venue.place(
        ALICE, BUY, amount, order_type=OrderType.MARKET, tif=TimeInForce.IOC, flags=OrderFlags.QUOTE_BUDGET
    )


def stop(venue: Venue, account: int, side: int, lots: int, price: int) -> Result:
    return venue.place(account, Side(side), lots, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=price)


def test_fees_are_rounded_against_those_who_pay_them(venue: Venue) -> None:
    venue.venue(make.set_rules, 1, taker_fee=2_500, maker_fee=-1_500)
    venue.place(BOB, SELL, 5, 101)
    result = venue.place(ALICE, BUY, 3, 101)
    # 3 x 101 x 3 = 909: 2.2725 up to 3; the rebate of 1.3635 down to 1.
    trade = result.events[1]
    assert (trade["cum_lots"], trade["leaves_lots"]) == (3, -1)
    assert venue.balance(ALICE, USD) == (10_000 - 909 - 3, 0)
    assert venue.balance(BOB, USD) == (10_000 + 909 + 1, 0)
    assert venue.balance(0, USD) == (2, 0)


def test_a_buy_holds_the_fee_of_each_lot(venue: Venue) -> None:
    venue.venue(make.set_rules, 1, taker_fee=2_500)
    venue.place(ALICE, BUY, 4, 101)
    # One lot: 303 and 0.7575, which is 1.
    assert venue.balance(ALICE, USD) == (10_000 - 4 * 304, 4 * 304)
    venue.place(BOB, SELL, 3, 101)
    # A maker who pays no fee gets back what it held for one.
    assert venue.balance(ALICE, USD) == (10_000 - 909 - 304, 304)


def test_budget_ends_where_one_more_lot_is_too_dear(venue: Venue) -> None:
    venue.venue(make.set_rules, 1, taker_fee=100_000)
    venue.place(BOB, SELL, 9, 10)
    # A lot is 30 and 3: 3 lots are 99, 4 would be 132. 1 is left of 100.
    result = budget(venue, 100)
    assert verdict(result) == (EventKind.FILLED, Reason.NONE, 3, 0)
    assert result.events[0]["quantity_lots"] == 100
    assert venue.balance(ALICE, USD) == (9_901, 0)
    # 32 does not buy one.
    result = budget(venue, 32)
    assert verdict(result) == (EventKind.EXPIRED, Reason.BUDGET_SPENT, 0, 0)
    assert result.events[-1]["quantity_lots"] == 0


def test_budget_beyond_the_money_is_not_filled(venue: Venue) -> None:
    venue.place(BOB, SELL, 50, 100)
    assert verdict(budget(venue, 11_000)) == (EventKind.EXPIRED, Reason.FUNDS_EXHAUSTED, 33, 0)
    assert venue.balance(ALICE, USD) == (100, 0)


def test_iceberg_goes_back_with_each_part_it_shows(venue: Venue) -> None:
    iceberg = order_id(venue.place(ALICE, SELL, 10, 100, display_lots=4))
    plain = order_id(venue.place(BOB, SELL, 3, 100))
    assert venue.depth() == ([], [(100, 7, 2)])
    result = venue.place(CAROL, BUY, 9, 100)
    trades = [
        (int(event["counter_order_id"]), int(event["quantity_lots"]))
        for event in result.events
        if event["kind"] == EventKind.TRADE
    ]
    assert trades == [(iceberg, 4), (plain, 3), (iceberg, 2)]
    assert venue.depth() == ([], [(100, 2, 1)])
    order = venue.oracle.state.orders[iceberg]
    # Its place is that of the fill after which it showed the next part: TRADE, then the maker's fill.
    assert order.priority == int(result.events[2]["sequence"])
    assert (order.shown, order.leaves) == (2, 4)
    assert list(order.more_words()) == [(9, iceberg, 4, 2, 0)]


def test_stops_go_off_furthest_first_and_set_off_others(venue: Venue) -> None:
    for price, lots in ((100, 1), (90, 2), (80, 2), (70, 2)):
        venue.place(BOB, BUY, lots, price)
    near = order_id(stop(venue, ALICE, SELL, 1, 95))
    far = order_id(stop(venue, CAROL, SELL, 1, 99))
    later = order_id(stop(venue, CAROL, SELL, 2, 85))
    result = venue.place(ALICE, SELL, 2, 90)
    triggered = [int(event["order_id"]) for event in result.events if event["kind"] == EventKind.TRIGGERED]
    # At 90 both are due, 99 by more; the second of them trades at 80 and sets off the third.
    assert triggered == [far, near, later]
    assert venue.oracle.state.instruments[1].last_price == 70
    assert verdict(result) == (EventKind.FILLED, Reason.NONE, 2, 0)
    assert result.outcomes[0]["event_count"] == len(result.events)
    assert refused(stop(venue, ALICE, SELL, 1, 70)) is Reason.STOP_WOULD_TRIGGER


def test_stop_that_sells_holds_and_one_that_buys_does_not(venue: Venue) -> None:
    stop(venue, ALICE, SELL, 7, 50)
    stop(venue, ALICE, BUY, 500, 150)
    assert (venue.balance(ALICE, BTC), venue.balance(ALICE, USD)) == ((930, 70), (10_000, 0))
    assert venue.depth() == ([], [])


@pytest.mark.parametrize(
    ("lots", "maker", "taker"),
    [(2, (EventKind.REPLACED, 3), EventKind.EXPIRED), (5, (EventKind.CANCELLED, 5), EventKind.EXPIRED)],
)
def test_decrement_takes_the_overlap_from_both(
    venue: Venue, lots: int, maker: tuple[EventKind, int], taker: EventKind
) -> None:
    venue.place(ALICE, SELL, 5, 100)
    result = venue.place(ALICE, BUY, lots, 100, stp=Stp.DECREMENT)
    assert kinds(result) == [EventKind.NEW, maker[0], taker]
    assert result.events[1]["quantity_lots"] == maker[1]
    assert venue.balance(ALICE, BTC) == (1_000 - 10 * (5 - lots), 10 * (5 - lots))
    assert venue.balance(ALICE, USD) == (10_000, 0)


def test_dated_orders_end_by_time_then_by_age(venue: Venue) -> None:
    orders = [
        order_id(venue.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=seconds)) for seconds in (9, 5, 5)
    ]
    result = venue.send(make.command(CommandKind.TICK), 9 * SECOND)
    assert [int(event["order_id"]) for event in result.events] == [orders[1], orders[2], orders[0], 0]
    assert kinds(result)[-1] is EventKind.TICKED
    assert venue.balance(ALICE, USD) == (10_000, 0)
    late = venue.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=9)
    assert refused(late) is Reason.INVALID_EXPIRY


def test_order_remembers_the_session_that_asked_for_it(venue: Venue) -> None:
    venue.send(make.open_session(50, ALICE, SessionFlags.CANCEL_ON_DISCONNECT))
    kept = order_id(venue.place(ALICE, BUY, 1, 10))
    gone = order_id(venue.send(make.place((50, 1), ALICE, BUY, 1, 10)))
    assert list(venue.oracle.state.orders[gone].more_words()) == [(9, gone, 0, 0, 50)]
    result = venue.send(make.disconnect(50))
    assert kinds(result) == [EventKind.CANCELLED, EventKind.SESSION_DISCONNECTED]
    assert verdict(result) == (EventKind.SESSION_DISCONNECTED, Reason.NONE, 1, 0)
    assert list(venue.oracle.state.orders) == [kept]
    assert venue.send(make.place((50, 2), ALICE, BUY, 1, 10)).outcomes[0]["status"] == 1


def test_open_notional_counts_what_is_left(venue: Venue) -> None:
    venue.venue(make.set_limits, ALICE, max_open_notional=3_000)
    venue.place(ALICE, BUY, 9, 100)  # 2,700
    assert refused(venue.place(ALICE, BUY, 2, 51)) is Reason.OPEN_NOTIONAL_LIMIT  # 306
    venue.place(BOB, SELL, 1, 100)
    assert verdict(venue.place(ALICE, BUY, 2, 51))[0] is EventKind.NEW


def test_closing_cancels_by_price_then_by_age(venue: Venue) -> None:
    bids = [order_id(venue.place(BOB, BUY, 1, price)) for price in (90, 91, 90)]
    stops = [order_id(stop(venue, BOB, BUY, 1, price)) for price in (130, 120)]
    result = venue.venue(make.set_status, 1, InstrumentStatus.CLOSED)
    assert [int(event["order_id"]) for event in result.events[:-1]] == [bids[1], bids[0], bids[2], stops[1], stops[0]]
    assert verdict(result) == (EventKind.STATUS_SET, Reason.NONE, 5, 0)
    assert venue.oracle.state.orders == {}


def test_foreign_session_does_not_lose_a_request_by_a_bad_opening(venue: Venue) -> None:
    venue.send(make.command(CommandKind.OPEN_SESSION, (101, 1), account=BOB, reserved=7))
    assert venue.oracle.state.sessions[101].last_request_id == 0


def test_words_of_the_kill_switch_are_in_the_counters() -> None:
    oracle = Oracle()
    oracle.apply(make.open_session(5, 0), 0)
    oracle.apply(make.command(CommandKind.KILL, (5, 1)), 0)
    words = [(3 | 1 << 8, 0), (6, 5, 0, 1), (8 | 1 << 8, 2, 2, 0, 0)]
    assert oracle.content_hash() == sum(hash_words(record) for record in words) % (1 << 64)


def test_words_of_rules_limits_and_last_price(venue: Venue) -> None:
    before = set(venue.oracle.state.records())
    venue.venue(make.set_rules, 1, taker_fee=5, maker_fee=-5, band_bp=10_000, min_price_ticks=2, max_notional=700)
    venue.venue(make.set_limits, ALICE, max_open_orders=3, max_order_quantity=8)
    venue.place(BOB, SELL, 1, 100)
    venue.place(CAROL, BUY, 1, 100)
    added = {words for words in set(venue.oracle.state.records()) - before if words[0] & 0xFF in (10, 11, 12)}
    assert added == {
        (11 | 10_000 << 8, 1, 5 | (2**32 - 5) << 32, 2, 0, 0, 700),
        (10, ALICE | 3 << 32, 0, 0, 8),
        (12 | 1 << 32, 100),
    }


def test_new_invariants_are_able_to_fail(venue: Venue) -> None:
    venue.place(ALICE, SELL, 10, 100, display_lots=4)
    dated = order_id(venue.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=9))
    stop(venue, BOB, BUY, 1, 150)
    assert venue.oracle.check_invariants() == []
    state = venue.oracle.state
    iceberg = state.books[1].first(SELL)
    assert iceberg is not None
    iceberg.shown = 0
    state.time_ns = 9 * SECOND
    state.orders[dated].session_id = 4_711
    state.instruments[1].last_price = 150
    state.assets[USD].cap = 1
    state.instruments[1].status = InstrumentStatus.CLOSED
    broken = "\n".join(venue.oracle.check_invariants())
    for word in (
        "shows 0 of",
        "yet it waits",
        "yet it is open",
        "is closed",
        "there may be 1",
        "on a closed instrument",
    ):
        assert word in broken
