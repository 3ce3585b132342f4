"""Rendered text: aligned, complete and stable."""

import numpy as np

from smrx.engine import render
from smrx.wire.codes import InstrumentStatus, Side
from smrx.wire.records import EVENT, OUTCOME
from tests.commands import set_status
from tests.engine.small_market import SmallMarket


def small_market() -> SmallMarket:
    market = SmallMarket(traders=2)
    market.buy(1, 5, 99, client_order_id=7)
    market.sell(2, 12, 101)
    market.sell(2, 3, 1_000)
    return market


def test_book_has_bids_on_the_left() -> None:
    assert render.book(*small_market().engine.inspect.depth(1, 5)) == (
        "orders  lots  bid  |   ask  lots  orders\n"
        "     1     5   99  |   101    12       1\n"
        "                   |  1000     3       1"
    )


def test_empty_book_is_its_header() -> None:
    assert render.book([], []) == "orders  lots  bid  |  ask  lots  orders"


def test_events_show_every_field_that_is_not_zero() -> None:
    market = small_market()
    result = market.buy(1, 2, 101)
    assert render.events(result.events).split("\n") == [
        "event             sequence  command  time_ns",
        "NEW                     16       16        1  side=BUY order_type=LIMIT tif=GTC stp=CANCEL_NEWEST"
        " session_id=11 request_id=2 order_id=16 instrument=1 account=1 price_ticks=101 quantity_lots=2 leaves_lots=2",
        "TRADE                   17       16        1  side=BUY session_id=11 request_id=2 order_id=16 instrument=1"
        " account=1 price_ticks=101 quantity_lots=2 match_id=1 counter_order_id=14 counter_account=2",
        "PARTIALLY_FILLED        18       16        1  side=SELL order_type=LIMIT tif=GTC stp=CANCEL_NEWEST"
        " session_id=11 request_id=2 order_id=14 instrument=1 account=2 price_ticks=101 quantity_lots=2 cum_lots=2"
        " leaves_lots=10 match_id=1",
        "FILLED                  19       16        1  side=BUY order_type=LIMIT tif=GTC stp=CANCEL_NEWEST"
        " session_id=11 request_id=2 order_id=16 instrument=1 account=1 price_ticks=101 quantity_lots=2 cum_lots=2"
        " match_id=1",
    ]


def test_outcomes_balances_and_orders_are_tables() -> None:
    market = small_market()
    assert render.outcomes(market.buy(1, 2, 101).outcomes) == (
        "status    state   reason  session  request  sequence  order  events  cum  leaves\n"
        "ACCEPTED  FILLED               11        2        16     16       4    2       0"
    )
    first = render.balances(market.engine.inspect.balances(1)).split("\n")
    assert first[0].split() == ["account", "asset", "available", "held"]
    assert first[2].split() == ["1", "2", str((1 << 40) - 202 - 495), "495"]
    assert "SELL" in render.orders(market.engine.inspect.orders(2))
    assert "BASE/Q" in render.instruments(market.engine.inspect.instruments())
    assert "TRADING" in render.instruments(market.engine.inspect.instruments())
    assert render.accounts(market.engine.inspect.accounts()).count("ACTIVE") == 3


def test_codes_without_a_name_show_as_numbers() -> None:
    assert render.code_name(Side, 2) == "SELL"
    assert render.code_name(Side, 9) == "9"
    event = np.zeros(1, EVENT)
    event["kind"], event["command_kind"] = 200, 77
    assert render.events(event).split("\n")[1].split() == ["200", "0", "0", "0", "command_kind=77"]
    assert "0" in render.outcomes(np.zeros(1, OUTCOME))


def test_events_have_the_names_of_their_kind() -> None:
    market = small_market()
    result = market.stop(1, Side.BUY, 9, 110, 115, client_order_id="a long client order id")
    lines = render.events(result.events).split("\n")[1:]
    assert [line.split()[0] for line in lines] == ["NEW", "CLIENT_ORDER_ID", "ORDER_TERMS"]
    assert f"client_order_id=#{int(result.events['client_order_id'][0]):016x}" in lines[0]
    assert lines[1].endswith("client_order_id=a long client order id")
    assert lines[2].endswith("stop_price_ticks=110")
    assert render.client_order_id(0x6261) == "ab"
    assert "status=HALTED" in render.events(
        market.send(set_status(market.sender(0), 1, InstrumentStatus.HALTED)).events
    )
    assert "a long client order id" in render.orders(market.engine.inspect.orders(1))
