"""The oracle's stops, icebergs, GTD orders, budgets, fees and limits compared with hand-computed results."""

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
from smrx.wire.records import TRADE_EVENT
from tests import commands as make
from tests.oracle import Oracle, Result
from tests.oracle.oracle_market import (
    ALICE,
    BOB,
    BTC,
    BUY,
    CAROL,
    SELL,
    USD,
    OracleMarket,
    event_kinds,
    last_outcome,
    order_id,
    rejected,
)
from tests.oracle.records import hash_words

SECOND = 1_000_000_000


@pytest.fixture
def market() -> OracleMarket:
    return OracleMarket()


def budget(market: OracleMarket, amount: int) -> Result:
    return market.place(
        ALICE, BUY, amount, order_type=OrderType.MARKET, tif=TimeInForce.IOC, flags=OrderFlags.QUOTE_BUDGET
    )


def stop(market: OracleMarket, account: int, side: int, lots: int, price: int) -> Result:
    return market.place(account, Side(side), lots, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=price)


def test_fees_are_rounded_against_the_payer(market: OracleMarket) -> None:
    market.send_as_venue(make.set_rules, 1, taker_fee=2_500, maker_fee=-1_500)
    market.place(BOB, SELL, 5, 101)
    result = market.place(ALICE, BUY, 3, 101)
    # 3 x 101 x 3 = 909: 2.2725 up to 3; the rebate of 1.3635 down to 1.
    trade = result.events.view(TRADE_EVENT)[1]
    assert (trade["taker_fee"], trade["maker_fee"]) == (3, -1)
    assert market.balance(ALICE, USD) == (10_000 - 909 - 3, 0)
    assert market.balance(BOB, USD) == (10_000 + 909 + 1, 0)
    assert market.balance(0, USD) == (2, 0)


def test_buy_holds_the_fee_of_each_lot(market: OracleMarket) -> None:
    market.send_as_venue(make.set_rules, 1, taker_fee=2_500)
    market.place(ALICE, BUY, 4, 101)
    # One lot: 303 and 0.7575, which is 1.
    assert market.balance(ALICE, USD) == (10_000 - 4 * 304, 4 * 304)
    market.place(BOB, SELL, 3, 101)
    # A maker that pays no fee gets its held fee back.
    assert market.balance(ALICE, USD) == (10_000 - 909 - 304, 304)


def test_budget_ends_when_one_more_lot_is_too_expensive(market: OracleMarket) -> None:
    market.send_as_venue(make.set_rules, 1, taker_fee=100_000)
    market.place(BOB, SELL, 9, 10)
    # A lot is 30 and 3: 3 lots are 99, 4 would be 132. 1 is left of 100.
    result = budget(market, 100)
    assert last_outcome(result) == (EventKind.FILLED, Reason.NONE, 3, 0)
    assert result.events[0]["quantity_lots"] == 100
    assert market.balance(ALICE, USD) == (9_901, 0)
    # 32 does not pay for one lot.
    result = budget(market, 32)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.BUDGET_SPENT, 0, 0)
    assert result.events[-1]["quantity_lots"] == 0


def test_budget_above_the_funds_is_not_filled(market: OracleMarket) -> None:
    market.place(BOB, SELL, 50, 100)
    assert last_outcome(budget(market, 11_000)) == (EventKind.EXPIRED, Reason.FUNDS_EXHAUSTED, 33, 0)
    assert market.balance(ALICE, USD) == (100, 0)


def test_iceberg_requeues_with_each_part(market: OracleMarket) -> None:
    iceberg = order_id(market.place(ALICE, SELL, 10, 100, display_lots=4))
    plain = order_id(market.place(BOB, SELL, 3, 100))
    assert market.depth() == ([], [(100, 7, 2)])
    result = market.place(CAROL, BUY, 9, 100)
    trades = [
        (int(event["counter_order_id"]), int(event["quantity_lots"]))
        for event in result.events
        if event["kind"] == EventKind.TRADE
    ]
    assert trades == [(iceberg, 4), (plain, 3), (iceberg, 2)]
    assert market.depth() == ([], [(100, 2, 1)])
    order = market.oracle.state.orders[iceberg]
    # Its priority is the fill after which it showed the next part: TRADE, then the maker's fill.
    assert order.priority == int(result.events[2]["sequence"])
    assert (order.shown, order.leaves) == (2, 4)
    assert list(order.extra_words()) == [(9, iceberg, 2, 0), (14, iceberg, 0, 4, 0, 0, 0, 0, 0)]


def test_stops_trigger_farthest_first_and_cascade(market: OracleMarket) -> None:
    for price, lots in ((100, 1), (90, 2), (80, 2), (70, 2)):
        market.place(BOB, BUY, lots, price)
    near = order_id(stop(market, ALICE, SELL, 1, 95))
    far = order_id(stop(market, CAROL, SELL, 1, 99))
    later = order_id(stop(market, CAROL, SELL, 2, 85))
    result = market.place(ALICE, SELL, 2, 90)
    triggered = [int(event["order_id"]) for event in result.events if event["kind"] == EventKind.TRIGGERED]
    # At 90 both are due, 99 by more; the second one trades at 80 and triggers the third.
    assert triggered == [far, near, later]
    assert market.oracle.state.instruments[1].last_price == 70
    assert last_outcome(result) == (EventKind.FILLED, Reason.NONE, 2, 0)
    assert result.outcomes[0]["event_count"] == len(result.events)
    assert rejected(stop(market, ALICE, SELL, 1, 70)) is Reason.STOP_WOULD_TRIGGER


def test_sell_stop_holds_funds_and_buy_stop_does_not(market: OracleMarket) -> None:
    stop(market, ALICE, SELL, 7, 50)
    stop(market, ALICE, BUY, 500, 150)
    assert (market.balance(ALICE, BTC), market.balance(ALICE, USD)) == ((930, 70), (10_000, 0))
    assert market.depth() == ([], [])


@pytest.mark.parametrize(
    ("lots", "maker", "taker"),
    [(2, (EventKind.REPLACED, 3), EventKind.EXPIRED), (5, (EventKind.CANCELLED, 5), EventKind.EXPIRED)],
)
def test_decrement_reduces_both_by_the_overlap(
    market: OracleMarket, lots: int, maker: tuple[EventKind, int], taker: EventKind
) -> None:
    market.place(ALICE, SELL, 5, 100)
    result = market.place(ALICE, BUY, lots, 100, stp=Stp.DECREMENT)
    assert event_kinds(result) == [EventKind.NEW, maker[0], taker]
    assert result.events[1]["quantity_lots"] == maker[1]
    assert market.balance(ALICE, BTC) == (1_000 - 10 * (5 - lots), 10 * (5 - lots))
    assert market.balance(ALICE, USD) == (10_000, 0)


def test_gtd_orders_expire_by_time_then_id(market: OracleMarket) -> None:
    orders = [
        order_id(market.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=seconds)) for seconds in (9, 5, 5)
    ]
    result = market.send(make.command(CommandKind.TICK), 9 * SECOND)
    assert [int(event["order_id"]) for event in result.events] == [orders[1], orders[2], orders[0], 0]
    assert event_kinds(result)[-1] is EventKind.TICKED
    assert market.balance(ALICE, USD) == (10_000, 0)
    late = market.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=9)
    assert rejected(late) is Reason.INVALID_EXPIRY


def test_order_ends_with_the_session_that_placed_it(market: OracleMarket) -> None:
    market.send(make.open_session(50, ALICE, SessionFlags.CANCEL_ON_DISCONNECT))
    kept = order_id(market.place(ALICE, BUY, 1, 10))
    gone = order_id(market.send(make.place((50, 1), ALICE, BUY, 1, 10)))
    assert list(market.oracle.state.orders[gone].extra_words()) == [(9, gone, 0, 50)]
    result = market.send(make.disconnect(50))
    assert event_kinds(result) == [EventKind.CANCELLED, EventKind.SESSION_DISCONNECTED]
    assert last_outcome(result) == (EventKind.SESSION_DISCONNECTED, Reason.NONE, 1, 0)
    assert list(market.oracle.state.orders) == [kept]
    assert market.send(make.place((50, 2), ALICE, BUY, 1, 10)).outcomes[0]["status"] == 1


def test_open_notional_counts_what_is_left(market: OracleMarket) -> None:
    market.send_as_venue(make.set_limits, ALICE, max_open_notional=3_000)
    market.place(ALICE, BUY, 9, 100)  # 2,700
    assert rejected(market.place(ALICE, BUY, 2, 51)) is Reason.OPEN_NOTIONAL_LIMIT  # 306
    market.place(BOB, SELL, 1, 100)
    assert last_outcome(market.place(ALICE, BUY, 2, 51))[0] is EventKind.NEW


def test_closing_cancels_by_price_then_id(market: OracleMarket) -> None:
    bids = [order_id(market.place(BOB, BUY, 1, price)) for price in (90, 91, 90)]
    stops = [order_id(stop(market, BOB, BUY, 1, price)) for price in (130, 120)]
    result = market.send_as_venue(make.set_status, 1, InstrumentStatus.CLOSED)
    assert [int(event["order_id"]) for event in result.events[:-1]] == [bids[1], bids[0], bids[2], stops[1], stops[0]]
    assert last_outcome(result) == (EventKind.STATUS_SET, Reason.NONE, 5, 0)
    assert market.oracle.state.orders == {}


def test_malformed_open_session_uses_no_request_id(market: OracleMarket) -> None:
    market.send(make.command(CommandKind.OPEN_SESSION, (101, 1), account=BOB, side=7))
    assert market.oracle.state.sessions[101].last_request_id == 0


def test_kill_switch_is_hashed_with_the_counters() -> None:
    oracle = Oracle(1)
    make.apply(oracle, make.open_session(5, 0), 0)
    make.apply(oracle, make.command(CommandKind.KILL, (5, 1)), 0)
    words = [(3 | 1 << 8, 0), (6 | 8 << 24, 5, 0, 1), (15, 86_400 | 604_800 << 32, 1_000_000), (8 | 1 << 8, 2, 2, 0, 0)]
    # The chain of the session's only answer: KILLED, one event, request 1, command 2, event 2.
    words.append((16 + 1 | EventKind.KILLED << 8 | 1 << 32, 0 ^ 5, 1, 2, 0, 2, 0, 0))
    assert oracle.content_hash() == sum(hash_words(record) for record in words) % (1 << 64)


def test_hashed_words_of_rules_limits_and_last_price(market: OracleMarket) -> None:
    before = set(market.oracle.state.records())
    market.send_as_venue(
        make.set_rules, 1, taker_fee=5, maker_fee=-5, band_bp=10_000, min_price_ticks=2, max_notional=700,
        collar_bp=77, collar_reference=1, rule_flags=3,
    )  # fmt: skip
    market.send_as_venue(make.set_limits, ALICE, max_open_orders=3, max_order_quantity=8)
    market.place(BOB, SELL, 1, 100)
    market.place(CAROL, BUY, 1, 100)
    added = {words for words in set(market.oracle.state.records()) - before if words[0] & 0xFF in (10, 11, 12)}
    assert added == {
        (11 | 10_000 << 8 | 77 << 24 | 1 << 40 | 3 << 48, 1, 5 | (2**32 - 5) << 32, 2, 0, 0, 700),
        (10, ALICE | 3 << 32, 0, 0, 8),
        (12 | 1 << 32, 100),
    }


def test_feature_invariants_detect_violations(market: OracleMarket) -> None:
    market.place(ALICE, SELL, 10, 100, display_lots=4)
    dated = order_id(market.place(ALICE, BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=9))
    stop(market, BOB, BUY, 1, 150)
    assert market.oracle.check_invariants() == []
    state = market.oracle.state
    iceberg = state.books[1].first(SELL)
    assert iceberg is not None
    iceberg.shown = 0
    state.time_ns = 9 * SECOND
    state.orders[dated].session_id = 4_711
    state.instruments[1].last_price = 150
    state.assets[USD].cap = 1
    state.instruments[1].status = InstrumentStatus.CLOSED
    broken = "\n".join(market.oracle.check_invariants())
    for word in (
        "shows 0 of",
        "but it is pending",
        "but it is open",
        "is closed",
        "above its cap 1",
        "on a closed instrument",
    ):
        assert word in broken
