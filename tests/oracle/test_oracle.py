"""The oracle compared with hand-computed results, because the engine is compared with the oracle."""

from typing import Any

import numpy as np
import pytest

from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderFlags,
    OrderType,
    OutcomeStatus,
    Reason,
    TimeInForce,
)
from smrx.wire.records import CANCELS_EVENT, EVENT, OUTCOME
from tests import commands as make
from tests.oracle import Oracle
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


@pytest.fixture
def market() -> OracleMarket:
    return OracleMarket()


def test_records_have_the_types_of_the_wire(market: OracleMarket) -> None:
    result = market.place(ALICE, BUY, 1, 1)
    assert [part.dtype for part in result] == [OUTCOME, EVENT, np.dtype(np.uint64)]
    empty = market.send(make.join([]))
    assert [len(part) for part in empty] == [0, 0, 0]


def test_resting_order_holds_its_cost(market: OracleMarket) -> None:
    result = market.place(ALICE, BUY, 4, 100)
    assert last_outcome(result) == (EventKind.NEW, Reason.NONE, 0, 4)
    assert event_kinds(result) == [EventKind.NEW]
    assert market.balance(ALICE, USD) == (10_000 - 1_200, 1_200)
    market.place(BOB, SELL, 7, 120)
    assert market.balance(BOB, BTC) == (930, 70)
    assert market.depth() == ([(100, 4, 1)], [(120, 7, 1)])


def test_price_improvement_is_released(market: OracleMarket) -> None:
    sell = order_id(market.place(BOB, SELL, 3, 90))
    result = market.place(ALICE, BUY, 5, 100)
    buy = order_id(result)
    assert last_outcome(result) == (EventKind.PARTIALLY_FILLED, Reason.NONE, 3, 2)
    assert event_kinds(result) == [EventKind.NEW, EventKind.TRADE, EventKind.FILLED, EventKind.PARTIALLY_FILLED]
    trade, maker, taker = result.events[1:]
    assert (trade["order_id"], trade["counter_order_id"], trade["side"]) == (buy, sell, BUY)
    assert (trade["price_ticks"], trade["quantity_lots"], trade["match_id"]) == (90, 3, 1)
    assert (maker["order_id"], maker["cum_lots"], maker["leaves_lots"]) == (sell, 3, 0)
    assert (taker["order_id"], taker["cum_lots"], taker["leaves_lots"]) == (buy, 3, 2)
    # 3 lots at 90 x 3 units = 810 paid; 2 lots at 100 x 3 = 600 still held.
    assert market.balance(ALICE, USD) == (10_000 - 810 - 600, 600)
    assert market.balance(ALICE, BTC) == (1_030, 0)
    assert market.balance(BOB, USD) == (10_810, 0)
    assert market.balance(BOB, BTC) == (970, 0)


def test_price_time_priority(market: OracleMarket) -> None:
    late_best = [order_id(market.place(BOB, SELL, 2, price)) for price in (101, 100, 100)]
    result = market.place(ALICE, BUY, 5, 101)
    makers = [int(event["counter_order_id"]) for event in result.events if event["kind"] == EventKind.TRADE]
    assert makers == [late_best[1], late_best[2], late_best[0]]
    assert market.depth() == ([], [(101, 1, 1)])


def test_own_resting_order_stops_the_taker(market: OracleMarket) -> None:
    market.place(BOB, SELL, 2, 100)
    market.place(ALICE, SELL, 2, 101)
    market.place(BOB, SELL, 2, 102)
    result = market.place(ALICE, BUY, 6, 102)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.SELF_TRADE, 2, 0)
    assert event_kinds(result)[-1] is EventKind.EXPIRED
    assert market.depth() == ([], [(101, 2, 1), (102, 2, 1)])
    assert market.balance(ALICE, USD) == (10_000 - 600, 0)


@pytest.mark.parametrize(
    ("lots", "limit", "expected"),
    [
        (4, 101, (EventKind.FILLED, Reason.NONE, 4, 0)),
        (5, 101, (EventKind.EXPIRED, Reason.FOK_UNFILLABLE, 0, 0)),  # the third level is above the limit
        (3, 100, (EventKind.EXPIRED, Reason.FOK_UNFILLABLE, 0, 0)),
        (500, 1_000, (EventKind.EXPIRED, Reason.FOK_UNFILLABLE, 0, 0)),  # found unfillable before funds are checked
    ],
)
def test_fill_or_kill_fills_completely_or_expires(market: OracleMarket, lots: int, limit: int, expected: Any) -> None:
    for price in (100, 101, 102):
        market.place(BOB, SELL, 2, price)
    result = market.place(ALICE, BUY, lots, limit, tif=TimeInForce.FOK)
    assert last_outcome(result) == expected
    if expected[1]:
        assert event_kinds(result) == [EventKind.EXPIRED]
        assert market.balance(ALICE, USD) == (10_000, 0)


def test_fill_or_kill_search_stops_at_an_own_order(market: OracleMarket) -> None:
    market.place(BOB, SELL, 2, 100)
    market.place(ALICE, SELL, 2, 101)
    market.place(BOB, SELL, 9, 102)
    result = market.place(ALICE, BUY, 3, 102, tif=TimeInForce.FOK)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.FOK_UNFILLABLE, 0, 0)
    assert last_outcome(market.place(ALICE, BUY, 2, 102, tif=TimeInForce.FOK)) == (EventKind.FILLED, Reason.NONE, 2, 0)


def test_fill_or_kill_needs_funds_for_its_limit(market: OracleMarket) -> None:
    market.place(BOB, SELL, 50, 1)
    assert rejected(market.place(ALICE, BUY, 50, 100, tif=TimeInForce.FOK)) is Reason.INSUFFICIENT_FUNDS


def test_immediate_or_cancel_trades_then_expires(market: OracleMarket) -> None:
    market.place(BOB, BUY, 2, 100)
    result = market.place(ALICE, SELL, 5, 99, tif=TimeInForce.IOC)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.IOC_REMAINDER, 2, 0)
    last = result.events[-1]
    assert (last["quantity_lots"], last["cum_lots"], last["leaves_lots"]) == (5, 2, 0)
    assert market.balance(ALICE, BTC) == (980, 0)
    assert market.depth() == ([], [])


def test_market_buy_stops_when_funds_are_exhausted(market: OracleMarket) -> None:
    market.place(BOB, SELL, 10, 200)
    market.place(BOB, SELL, 10, 400)
    # 10 lots x 200 x 3 = 6,000; the 4,000 left buy 3 lots at 400 x 3 = 1,200 each.
    result = market.place_market(ALICE, BUY, 30)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.FUNDS_EXHAUSTED, 13, 0)
    assert market.balance(ALICE, USD) == (400, 0)
    assert market.balance(ALICE, BTC) == (1_130, 0)
    assert market.depth() == ([], [(400, 7, 1)])


def test_market_order_on_an_empty_book(market: OracleMarket) -> None:
    assert last_outcome(market.place_market(ALICE, BUY, 1)) == (EventKind.EXPIRED, Reason.NO_LIQUIDITY, 0, 0)
    assert last_outcome(market.place_market(ALICE, SELL, 1)) == (EventKind.EXPIRED, Reason.NO_LIQUIDITY, 0, 0)
    assert market.balance(ALICE, BTC) == (1_000, 0)


def test_market_buy_without_a_balance_creates_none(market: OracleMarket) -> None:
    market.send_as_venue(make.open_account, 9)
    market.send(make.open_session(109, 9))
    market.place(BOB, SELL, 1, 100)
    assert last_outcome(market.place_market(9, BUY, 1)) == (EventKind.EXPIRED, Reason.FUNDS_EXHAUSTED, 0, 0)
    assert (9, USD) not in market.oracle.state.balances


def test_self_trade_precedes_exhausted_funds(market: OracleMarket) -> None:
    market.place(BOB, SELL, 10, 200)
    market.place(ALICE, SELL, 1, 300)
    market.send_as_account(CommandKind.WITHDRAW, ALICE, asset=USD, amount=4_000, transfer_id=77)
    result = market.place_market(ALICE, BUY, 20)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.SELF_TRADE, 10, 0)
    assert market.balance(ALICE, USD) == (0, 0)


def test_market_sell_needs_its_whole_quantity(market: OracleMarket) -> None:
    market.place(BOB, BUY, 3, 100)
    assert rejected(market.place_market(ALICE, SELL, 101)) is Reason.INSUFFICIENT_FUNDS
    result = market.place_market(ALICE, SELL, 100)
    assert last_outcome(result) == (EventKind.EXPIRED, Reason.NO_LIQUIDITY, 3, 0)
    assert market.balance(ALICE, BTC) == (970, 0)
    assert market.balance(ALICE, USD) == (10_900, 0)


def test_post_only_never_takes(market: OracleMarket) -> None:
    market.place(BOB, SELL, 1, 100)
    assert rejected(market.place(ALICE, BUY, 1, 100, flags=OrderFlags.POST_ONLY)) is Reason.POST_ONLY_WOULD_TAKE
    assert last_outcome(market.place(ALICE, BUY, 1, 99, flags=OrderFlags.POST_ONLY))[0] is EventKind.NEW


def test_reduction_keeps_its_place(market: OracleMarket) -> None:
    first = order_id(market.place(ALICE, BUY, 10, 100, client_order_id=5))
    second = order_id(market.place(BOB, BUY, 10, 100))
    market.place(CAROL, SELL, 2, 100)
    assert market.balance(ALICE, USD) == (10_000 - 600 - 2_400, 2_400)
    result = market.send_as_account(CommandKind.REPLACE, ALICE, client_order_id=5, price_ticks=100, quantity_lots=6)
    assert last_outcome(result) == (EventKind.REPLACED, Reason.NONE, 2, 4)
    assert order_id(result) == first
    assert market.balance(ALICE, USD) == (10_000 - 600 - 1_200, 1_200)
    trades = market.place(CAROL, SELL, 5, 100)
    makers = [int(event["counter_order_id"]) for event in trades.events if event["kind"] == EventKind.TRADE]
    assert makers == [first, second]


@pytest.mark.parametrize(
    ("price", "lots", "reason"),
    [
        (100, 2, Reason.INVALID_QUANTITY),  # what is filled already
        (100, 0, Reason.INVALID_QUANTITY),
        (0, 5, Reason.INVALID_PRICE),
        (1_001, 5, Reason.PRICE_ABOVE_MAXIMUM),
        (100, 501, Reason.QUANTITY_ABOVE_MAXIMUM),
        (1_000, 6, Reason.INSUFFICIENT_FUNDS),  # 4 lots at 1,000 x 3 units; 9,400 are left, what it holds included
    ],
)
def test_rejected_replace_changes_nothing(market: OracleMarket, price: int, lots: int, reason: Reason) -> None:
    order = order_id(market.place(ALICE, BUY, 10, 100))
    market.place(BOB, SELL, 2, 100)
    result = market.send_as_account(CommandKind.REPLACE, ALICE, order_id=order, price_ticks=price, quantity_lots=lots)
    assert rejected(result) is reason
    assert market.depth() == ([(100, 8, 1)], [])
    assert market.balance(ALICE, USD) == (10_000 - 600 - 2_400, 2_400)


@pytest.mark.parametrize(("price", "lots"), [(100, 10), (100, 11), (101, 5)])
def test_other_changes_lose_the_place(market: OracleMarket, price: int, lots: int) -> None:
    first = order_id(market.place(ALICE, BUY, 10, 100))
    second = order_id(market.place(BOB, BUY, 10, price))
    result = market.send_as_account(CommandKind.REPLACE, ALICE, order_id=first, price_ticks=price, quantity_lots=lots)
    assert last_outcome(result) == (EventKind.REPLACED, Reason.NONE, 0, lots)
    assert market.balance(ALICE, USD) == (10_000 - lots * price * 3, lots * price * 3)
    trades = market.place(CAROL, SELL, 11, price)
    makers = [int(event["counter_order_id"]) for event in trades.events if event["kind"] == EventKind.TRADE]
    assert makers == [second, first]


def test_cancel_by_either_id_and_only_by_the_owner(market: OracleMarket) -> None:
    order = order_id(market.place(ALICE, SELL, 3, 100, client_order_id=7))
    assert rejected(market.send_as_account(CommandKind.CANCEL, BOB, order_id=order)) is Reason.UNKNOWN_ORDER
    assert rejected(market.send_as_account(CommandKind.CANCEL, BOB, client_order_id=7)) is Reason.UNKNOWN_ORDER
    assert rejected(market.place(ALICE, SELL, 1, 100, client_order_id=7)) is Reason.DUPLICATE_CLIENT_ORDER_ID
    result = market.send_as_account(CommandKind.CANCEL, ALICE, client_order_id=7)
    assert last_outcome(result) == (EventKind.CANCELLED, Reason.NONE, 0, 0)
    assert (order_id(result), result.events[0]["reason"]) == (order, Reason.REQUESTED)
    assert market.balance(ALICE, BTC) == (1_000, 0)
    assert rejected(market.send_as_account(CommandKind.CANCEL, ALICE, order_id=order)) is Reason.UNKNOWN_ORDER
    assert last_outcome(market.place(ALICE, SELL, 1, 100, client_order_id=7))[0] is EventKind.NEW


def test_mass_cancel_cancels_by_order_id(market: OracleMarket) -> None:
    orders = [order_id(market.place(ALICE, side, 1, price)) for side, price in ((BUY, 10), (SELL, 90), (BUY, 20))]
    market.place(BOB, BUY, 1, 15)
    result = market.send_as_account(CommandKind.MASS_CANCEL, ALICE, side=BUY)
    assert [int(event["order_id"]) for event in result.events] == [orders[0], orders[2], 0]
    assert event_kinds(result) == [EventKind.CANCELLED, EventKind.CANCELLED, EventKind.MASS_CANCELLED]
    assert result.events.view(CANCELS_EVENT)[2]["cancelled"] == 2
    assert last_outcome(result) == (EventKind.MASS_CANCELLED, Reason.NONE, 2, 0)
    assert market.depth() == ([(15, 1, 1)], [(90, 1, 1)])
    assert last_outcome(market.send_as_account(CommandKind.MASS_CANCEL, ALICE, instrument=1))[2] == 1
    assert rejected(market.send_as_account(CommandKind.MASS_CANCEL, ALICE, instrument=2)) is Reason.UNKNOWN_INSTRUMENT


def test_duplicate_request_is_not_applied_and_a_gap_is_rejected(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 1, 100)
    first = market.oracle.state.sessions[101].answers[1]
    before = (market.oracle.sequence, market.oracle.state_hash, market.oracle.content_hash())
    again = market.send(make.place((101, 1), ALICE, BUY, 1, 100), time_ns=99)
    garbled = market.send(make.command(200, (101, 1), details=5))
    assert again.outcomes[0].item() == first
    assert garbled.outcomes[0]["reason"] == Reason.REQUEST_MISMATCH
    for result in (again, garbled):
        assert len(result.events) == 0
        assert result.hashes.tolist() == [before[1]]
    assert (market.oracle.sequence, market.oracle.state_hash, market.oracle.content_hash()) == before
    assert market.oracle.time_ns == 0
    assert rejected(market.send(make.place((101, 3), ALICE, BUY, 1, 100))) is Reason.REQUEST_GAP
    assert market.send(make.place((101, 2), ALICE, BUY, 1, 100)).outcomes[0]["status"] == OutcomeStatus.ACCEPTED


def test_malformed_command_uses_its_request_id(market: OracleMarket) -> None:
    assert rejected(market.send(make.command(99, (101, 1)))) is Reason.UNKNOWN_KIND
    assert market.oracle.state.sessions[101].last_request_id == 1
    assert rejected(market.send(make.command(99, (555, 1)))) is Reason.UNKNOWN_KIND


def test_reopened_session_resumes(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 1, 100)
    market.place(ALICE, BUY, 1, 100)
    result = market.send(make.open_session(101, ALICE))
    assert result.outcomes[0].item() == (OutcomeStatus.DUPLICATE, 0, 0, 0, 101, 0, 0, 2, 0, 0, 0)
    assert rejected(market.send(make.open_session(101, BOB))) is Reason.SESSION_IN_USE


def test_closed_session_and_its_orders_stay(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 1, 100)
    result = market.send(make.command(CommandKind.CLOSE_SESSION, market.sender(101)))
    assert (event_kinds(result), result.events[0]["account"]) == ([EventKind.SESSION_CLOSED], ALICE)
    assert rejected(market.place(ALICE, BUY, 1, 100)) is Reason.SESSION_CLOSED
    assert market.depth() == ([(100, 1, 1)], [])


def test_session_may_not_act_for_another_account(market: OracleMarket) -> None:
    assert rejected(market.send(make.place(market.sender(101), BOB, BUY, 1, 1))) is Reason.NOT_AUTHORISED
    assert rejected(market.send(make.deposit(market.sender(101), ALICE, USD, 1, 55))) is Reason.NOT_AUTHORISED
    assert rejected(market.send(make.open_account(market.sender(101), 50))) is Reason.NOT_AUTHORISED
    assert last_outcome(market.send_as_venue(make.place, BOB, BUY, 1, 1))[0] is EventKind.NEW


def test_transfer_is_applied_once(market: OracleMarket) -> None:
    result = market.send_as_venue(make.deposit, ALICE, USD, 500, 900)
    assert result.outcomes[0]["order_id"] == 900
    assert result.outcomes[0]["cum_lots"] == 10_500
    assert rejected(market.send_as_venue(make.deposit, ALICE, USD, 500, 900)) is Reason.TRANSFER_ALREADY_DONE
    assert rejected(market.send_as_venue(make.deposit, ALICE, USD, 501, 900)) is Reason.TRANSFER_ID_REUSED
    assert rejected(market.send_as_venue(make.deposit, BOB, USD, 500, 900)) is Reason.TRANSFER_ID_REUSED
    assert rejected(market.send_as_venue(make.withdraw, ALICE, USD, 500, 900)) is Reason.TRANSFER_ID_REUSED
    assert rejected(market.send_as_venue(make.deposit, ALICE, USD, 0, 900)) is Reason.INVALID_AMOUNT
    assert market.balance(ALICE, USD) == (10_500, 0)


def test_withdrawal_is_limited_to_the_available_balance(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 10, 100)
    assert rejected(market.send_as_venue(make.withdraw, ALICE, USD, 7_001, 900)) is Reason.INSUFFICIENT_FUNDS
    assert market.send_as_venue(make.withdraw, ALICE, USD, 7_000, 900).outcomes[0]["cum_lots"] == 0
    assert market.oracle.state.assets[USD].supply == 23_000


def test_supply_stays_below_its_limit(market: OracleMarket) -> None:
    capacity = (1 << 62) - 1 - market.oracle.state.assets[USD].supply
    assert rejected(market.deposit(ALICE, USD, capacity + 1)) is Reason.SUPPLY_EXCEEDED
    assert event_kinds(market.deposit(ALICE, USD, capacity)) == [EventKind.DEPOSITED]
    assert rejected(market.deposit(ALICE, USD, 1)) is Reason.SUPPLY_EXCEEDED
    assert rejected(market.deposit(ALICE, USD, 1 << 62)) is Reason.INVALID_AMOUNT


#: Wrong fields in an order that would be accepted otherwise, and the reason.
BAD_PLACES: list[tuple[dict[str, Any], Reason]] = [
    ({"kind": 0}, Reason.UNKNOWN_KIND),
    ({"kind": 99}, Reason.UNKNOWN_KIND),
    ({"details": 1}, Reason.INVALID_DETAILS),
    ({"order_id": 1, "side": 9}, Reason.RESERVED_NOT_ZERO),
    ({"expiry_ns": 1, "side": 9}, Reason.RESERVED_NOT_ZERO),
    ({"display_lots": 1, "order_type": OrderType.MARKET, "side": 9}, Reason.RESERVED_NOT_ZERO),
    ({"stop_price_ticks": 1, "side": 9}, Reason.RESERVED_NOT_ZERO),
    ({"peg_reference": 1, "side": 9}, Reason.RESERVED_NOT_ZERO),
    ({"side": 0, "order_type": 0}, Reason.INVALID_SIDE),
    ({"side": 3}, Reason.INVALID_SIDE),
    ({"order_type": 5, "tif": 0}, Reason.INVALID_ORDER_TYPE),
    ({"tif": 5, "stp": 5}, Reason.INVALID_TIME_IN_FORCE),
    ({"stp": 5, "flags": 4}, Reason.INVALID_STP),
    ({"flags": 4, "account": 99}, Reason.INVALID_FLAGS),
    ({"client_order_id": 0x7F, "session_id": 9}, Reason.INVALID_CLIENT_ORDER_ID),
    ({"client_order_id_text": b"12345678", "session_id": 9}, Reason.INVALID_CLIENT_ORDER_ID),
    ({"client_order_id": 0x31, "client_order_id_text": b"123456789"}, Reason.INVALID_CLIENT_ORDER_ID),
    ({"session_id": 9, "request_id": 9}, Reason.UNKNOWN_SESSION),
    ({"session_id": 0}, Reason.UNKNOWN_SESSION),
    ({"request_id": 2, "account": 2}, Reason.REQUEST_GAP),
    ({"account": 2, "instrument": 9}, Reason.NOT_AUTHORISED),
    ({"instrument": 9, "price_ticks": 0}, Reason.UNKNOWN_INSTRUMENT),
    ({"instrument": 0}, Reason.UNKNOWN_INSTRUMENT),
    ({"price_ticks": 0, "quantity_lots": 0}, Reason.INVALID_PRICE),
    ({"price_ticks": -1}, Reason.INVALID_PRICE),
    ({"price_ticks": 1_001, "quantity_lots": 0}, Reason.PRICE_ABOVE_MAXIMUM),
    ({"quantity_lots": 0, "flags": 2}, Reason.INVALID_QUANTITY),
    ({"quantity_lots": 501}, Reason.QUANTITY_ABOVE_MAXIMUM),
    ({"quantity_lots": 501, "flags": 2}, Reason.UNSUPPORTED_COMBINATION),
    ({"display_lots": 33}, Reason.INVALID_DISPLAY),
    ({"display_lots": -1}, Reason.INVALID_DISPLAY),
    ({"tif": TimeInForce.GTD}, Reason.INVALID_EXPIRY),
    ({"order_type": OrderType.MARKET, "price_ticks": 0}, Reason.UNSUPPORTED_COMBINATION),
    ({"order_type": OrderType.MARKET}, Reason.INVALID_PRICE),
    ({"flags": OrderFlags.POST_ONLY, "tif": TimeInForce.IOC}, Reason.UNSUPPORTED_COMBINATION),
    ({"quantity_lots": 34}, Reason.INSUFFICIENT_FUNDS),
]


def wrong_place(wrong: dict[str, Any]) -> make.Commands:
    """Return an order of 33 at 100 with other values, which may be malformed."""
    good = {
        "account": ALICE, "side": BUY, "quantity_lots": 33, "price_ticks": 100, "instrument": 1, "stp": 1,
        "order_type": OrderType.LIMIT, "tif": TimeInForce.GTC,
    }  # fmt: skip
    fields = {**good, **wrong}
    sender = fields.pop("session_id", 101), fields.pop("request_id", 1)
    return make.raw(fields.pop("kind", CommandKind.PLACE), sender, **fields)


@pytest.mark.parametrize(("wrong", "reason"), BAD_PLACES)
def test_first_failed_check_is_the_reason(market: OracleMarket, wrong: dict[str, Any], reason: Reason) -> None:
    command = wrong_place(wrong)
    record = command.records
    records_before = {words for words in market.oracle.state.records() if words[0] & 0xFF != 6}
    result = market.send(command)
    assert rejected(result) is reason
    event = result.events[0]
    for field in ("side", "order_type", "tif", "stp", "flags", "account", "instrument", "price_ticks", "quantity_lots"):
        assert event[field] == record[field][0], field
    assert event["command_kind"] == record["kind"][0]
    assert {words for words in market.oracle.state.records() if words[0] & 0xFF != 6} == records_before
    assert last_outcome(market.place(CAROL, BUY, 33, 100))[0] is EventKind.NEW


INSTRUMENT = {"base_asset": BTC, "quote_asset": USD}
BAD_LISTINGS: list[tuple[int, dict[str, int], Reason]] = [
    (0, INSTRUMENT, Reason.INVALID_ID),
    (1, INSTRUMENT, Reason.INSTRUMENT_EXISTS),
    (2, {"base_asset": 7, "quote_asset": USD}, Reason.UNKNOWN_ASSET),
    (2, {"base_asset": BTC, "quote_asset": 7}, Reason.UNKNOWN_ASSET),
    (2, {"base_asset": BTC, "quote_asset": BTC}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "lot_units": 0}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "scale_units": 0}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "max_price_ticks": 0}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "max_quantity_lots": -1}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "max_price_ticks": 1 << 31, "max_quantity_lots": 1 << 31}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "max_price_ticks": (1 << 63) - 1, "scale_units": 2}, Reason.INVALID_INSTRUMENT),
    (2, {**INSTRUMENT, "max_price_ticks": 1, "max_quantity_lots": 1 << 61, "lot_units": 2}, Reason.INVALID_INSTRUMENT),
]


@pytest.mark.parametrize(("instrument", "wrong", "reason"), BAD_LISTINGS)
def test_invalid_instrument_is_rejected(
    market: OracleMarket, instrument: int, wrong: dict[str, int], reason: Reason
) -> None:
    assert rejected(market.send_as_venue(make.add_instrument, instrument, "X", **wrong)) is reason


def test_largest_instrument_is_accepted(market: OracleMarket) -> None:
    limits = {"max_price_ticks": (1 << 31) - 1, "max_quantity_lots": 1 << 31}
    assert event_kinds(market.send_as_venue(make.add_instrument, 2, "X", **INSTRUMENT, **limits)) == [
        EventKind.INSTRUMENT_ADDED
    ]


def test_first_state_hash_follows_the_formula() -> None:
    """One command computed from the formula alone: account 0, one session, the counters."""
    oracle = Oracle(1)
    assert oracle.state_hash == 0
    result = make.apply(oracle, make.open_session(5, 0), 42)
    # The account, the session, what is retained, the counters.
    words = [(3 | 1 << 8, 0), (6 | 8 << 24, 5, 42, 1), (15, 86_400 | 604_800 << 32, 1_000_000), (8, 1, 1, 0, 42)]
    content = sum(hash_words(record) for record in words) % (1 << 64)
    assert oracle.content_hash() == content
    event = int.from_bytes(result.events.tobytes()[:8], "little")
    assert event == 1
    blocks = np.frombuffer(result.events.tobytes(), dtype="<u8").tolist()
    assert result.hashes.tolist() == [hash_words((0, content, hash_words(tuple(blocks))))]


def test_engine_time_never_goes_back(market: OracleMarket) -> None:
    market.send(make.place(market.sender(101), ALICE, BUY, 1, 1), time_ns=50)
    result = market.send(make.place(market.sender(101), ALICE, BUY, 1, 1), time_ns=49)
    assert result.events["time_ns"].tolist() == [50]


def test_invariants_detect_violations(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 1, 100)
    assert market.oracle.check_invariants() == []
    market.oracle.state.balances[ALICE, USD].held += 1
    resting = market.oracle.state.books[1].first(BUY)
    assert resting is not None
    market.oracle.state.books[1].remove(resting)
    broken = "\n".join(market.oracle.check_invariants())
    for word in ("its orders need", "supply", "not in a book"):
        assert word in broken
