"""Order operations: the command that each call sends, invalid arguments, and the fields of open orders."""

from datetime import UTC, datetime
from typing import Any

import pytest

from smrx.client import Client, InvalidValue, Refused
from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Side,
    Stp,
    TimeInForce,
)
from tests.client.conftest import Call
from tests.client.stub_cluster import StubCluster

#: The command of a plain limit buy order; each row below lists the fields that differ.
PLAIN = {
    "kind": CommandKind.PLACE,
    "side": Side.BUY,
    "order_type": OrderType.LIMIT,
    "tif": TimeInForce.GTC,
    "stp": Stp.CANCEL_NEWEST,
    "flags": 0,
    "account": 1,
    "instrument": 1,
    "client_order_id": "",
    "order_id": 0,
    "price_ticks": 100,
    "quantity_lots": 20_000,
}
SECOND = 1_900_000_000
#: The terms of an order, 0 where none is given.
NO_TERMS = {"stop_price_ticks": 0, "display_lots": 0, "expiry_ns": 0}
SECOND_NS = SECOND * 10**9
LONG_ID = "desk-3/2030-03-17/an order of 42 characters"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, {}),
        ({"tif": "ioc"}, {"tif": TimeInForce.IOC}),
        ({"tif": TimeInForce.FOK}, {"tif": TimeInForce.FOK}),
        ({"post_only": True}, {"flags": OrderFlags.POST_ONLY}),
        ({"stp": "cancel-both"}, {"stp": Stp.CANCEL_BOTH}),
        ({"stp": "DECREMENT"}, {"stp": Stp.DECREMENT}),
        ({"stp": Stp.NONE}, {"stp": Stp.NONE}),
        ({"display": "0.5"}, {"display_lots": 5000}),
        ({"display": "461168601842738.7903"}, {"display_lots": (1 << 62) - 1}),
        ({"expires": SECOND}, {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS}),
        ({"expires": "2030-03-17T17:46:40Z", "tif": "GTD"}, {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS}),
        ({"expires": "2030-03-17T17:46:40.000000001Z"}, {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS + 1}),
        ({"expires": "2030-03-17T18:46:40,5+01:00"}, {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS + 500_000_000}),
        ({"expires": f"{SECOND}.25"}, {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS + 250_000_000}),
        (
            {"expires": datetime.fromtimestamp(SECOND, UTC).replace(microsecond=7), "display": "0.5"},
            {"tif": TimeInForce.GTD, "expiry_ns": SECOND_NS + 7000, "display_lots": 5000},
        ),
        ({"stop": "0.95"}, {"order_type": OrderType.STOP_LIMIT, "stop_price_ticks": 95}),
        (
            {"stop": "0.95", "tif": "FOK"},
            {"order_type": OrderType.STOP_LIMIT, "stop_price_ticks": 95, "tif": TimeInForce.FOK},
        ),
        (
            {"stop": "0.95", "price": None},
            {"order_type": OrderType.STOP, "stop_price_ticks": 95, "price_ticks": 0, "tif": TimeInForce.IOC},
        ),
        (
            {"stop": "0.95", "expires": SECOND, "display": "1"},
            {
                "order_type": OrderType.STOP_LIMIT,
                "stop_price_ticks": 95,
                "tif": TimeInForce.GTD,
                "expiry_ns": SECOND_NS,
                "display_lots": 10_000,
            },
        ),
        (
            {"stop": "0.95", "price": None, "expires": SECOND},
            {
                "order_type": OrderType.STOP,
                "stop_price_ticks": 95,
                "price_ticks": 0,
                "tif": TimeInForce.GTD,
                "expiry_ns": SECOND_NS,
            },
        ),
        ({"price": None}, {"order_type": OrderType.MARKET, "price_ticks": 0, "tif": TimeInForce.IOC}),
        (
            {"price": None, "quantity": None, "budget": "10.5"},
            {
                "order_type": OrderType.MARKET,
                "price_ticks": 0,
                "tif": TimeInForce.IOC,
                "flags": OrderFlags.QUOTE_BUDGET,
                "quantity_lots": 10_500_000,
            },
        ),
        # What does not go together is for the exchange to say, as long as it can be written down.
        ({"price": None, "post_only": True, "tif": "GTC"}, {
            "order_type": OrderType.MARKET, "price_ticks": 0, "flags": OrderFlags.POST_ONLY,
        }),
        ({"client_order_id": 9, "account": 2}, {"client_order_id": "9", "account": 2}),
        ({"client_order_id": "mine"}, {"client_order_id": "mine"}),
        ({"client_order_id": "12345678"}, {"client_order_id": "12345678"}),
        ({"client_order_id": 123_456_789}, {"client_order_id": "123456789"}),
        ({"client_order_id": (1 << 64) - 1, "display": "1"}, {
            "client_order_id": "18446744073709551615", "display_lots": 10_000,
        }),
        ({"client_order_id": LONG_ID}, {"client_order_id": LONG_ID}),
        ({"client_order_id": "~" * 64}, {"client_order_id": "~" * 64}),
        ({"client_order_id": ""}, {"client_order_id": ""}),
        ({"client_order_id": 0}, {"client_order_id": ""}),
    ],
)  # fmt: skip
def test_call_sends_exactly_this_command(
    trader: Client, stub: StubCluster, named: dict[str, Any], expected: dict[str, Any]
) -> None:
    arguments = {"quantity": "2", "price": "1.00"} | named
    trader.place("BTC-USD", "buy", arguments.pop("quantity"), **arguments)
    sent = NO_TERMS | stub.exchange.sent()
    wanted = NO_TERMS | PLAIN | expected
    assert {name: sent[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("named", "size"),
    [
        ({}, 64),
        ({"client_order_id": 99_999_999, "expires": None, "display": None}, 64),
        ({"client_order_id": "nine char"}, 192),
        ({"stop": "2"}, 192),
    ],
)
def test_order_has_details_only_if_it_needs_them(
    trader: Client, stub: StubCluster, named: dict[str, Any], size: int
) -> None:
    trader.place("BTC-USD", "buy", "2", price="1", **named)
    [placed] = [piece for _, _, piece in stub.exchange.ledger if piece[0] == CommandKind.PLACE]
    assert len(placed) == size


def test_place_limit_and_place_market_equal_place(trader: Client, stub: StubCluster) -> None:
    def sent(operation: str, *arguments: object, **named: object) -> dict[str, int]:
        getattr(trader, operation)(*arguments, **named)
        return {name: value for name, value in stub.exchange.sent().items() if name != "request_id"}

    limit = {"tif": "GTD", "display": "1", "expires": SECOND, "stp": "none", "client_order_id": 5, "account": 2}
    assert sent("place_limit", "BTC-USD", "sell", "3", "2", **limit) == sent(
        "place", "BTC-USD", "sell", "2", price="3", **limit
    )
    market = {"budget": "7", "stp": "cancel-oldest", "client_order_id": 5, "account": 2}
    assert sent("place_market", "BTC-USD", "buy", **market) == sent("place", "BTC-USD", "buy", **market)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"quantity": None}, "expected either quantity or budget, found neither"),
        ({"budget": "5"}, "expected either quantity or budget, found both"),
        ({"quantity": "0"}, "quantity: expected a decimal above 0, found 0"),
        ({"quantity": None, "budget": "0.0000001"}, "USD budget: expected a multiple of the minimal unit 0.000001"),
        ({"quantity": None, "budget": str(1 << 62)}, "budget: expected at most"),
        ({"stop": "0.955"}, "BTC-USD stop price: expected a multiple of the tick 0.01, found 0.955"),
        ({"stop": 0.95}, "stop price: expected a decimal such as .*, found the float 0.95"),
        ({"stop": "-1"}, "stop price: expected a decimal above 0"),
        ({"display": "0.00001"}, "display quantity: expected a multiple of the lot 0.0001"),
        ({"display": "461168601842738.7904"}, r"display quantity: expected at most 461168601842738\.7903, found"),
        ({"display": "0"}, "display quantity: expected a decimal above 0"),
        ({"display": "1", "price": None}, "only orders with a price may have a display, found a market order"),
        (
            {"display": "1", "price": None, "stop": "2"},
            "only orders with a price may have a display, found a stop order",
        ),
        ({"expires": SECOND, "price": None}, "a market order .* may not have an expiry time"),
        ({"expires": "soon"}, "expires: expected a time with its UTC offset"),
        ({"expires": "2030-03-17T17:46:40"}, "expires: expected a time with its UTC offset"),
        ({"expires": "2030-03-17T17:46:40.0000000001Z"}, "expires: expected a time with its UTC offset"),
        ({"expires": "1900000000.0000000001"}, "expires: expected a time with its UTC offset"),
        ({"expires": "2262-01-01T00:00:01Z"}, "expires: expected a time from 1970 to 2262-01-01T00:00:00Z"),
        ({"expires": 0}, "expires: expected a time from 1970"),
        ({"expires": 1.5}, "expires: expected a time with its UTC offset"),
        ({"client_order_id": "x" * 65}, "client order id: expected 1 to 64 printable ASCII characters, found .*65"),
        ({"client_order_id": "two\nlines"}, "client order id: expected 1 to 64 printable ASCII"),
        ({"client_order_id": "caf\u00e9"}, "client order id: expected 1 to 64 printable ASCII"),
        ({"client_order_id": -1}, "client_order_id: expected an integer from 0"),
        ({"client_order_id": 1 << 64}, "client_order_id: expected an integer from 0"),
        ({"client_order_id": True}, "client_order_id: expected an integer from 0"),
        ({"expires": SECOND, "tif": "GTC"}, "an expiry time requires tif GTD, found GTC"),
        ({"tif": "GTD"}, "tif GTD requires an expiry time"),
        ({"stp": "maybe"}, "stp: expected one of NONE, CANCEL_NEWEST, .*, found 'maybe'"),
        ({"stp": 7}, "stp: expected one of"),
        ({"price": "1.005"}, "price: expected a multiple of the tick"),
    ],
)
def test_invalid_order_is_rejected_before_anything_is_sent(
    trader: Client, stub: StubCluster, named: dict[str, Any], message: str
) -> None:
    before = stub.exchange.sequence
    arguments = {"quantity": "2", "price": "1.00"} | named
    with pytest.raises(InvalidValue, match=message):
        trader.place("BTC-USD", "buy", arguments.pop("quantity"), **arguments)
    assert stub.exchange.sequence == before


@pytest.mark.parametrize("name", [4, "four", LONG_ID])
def test_replace_sends_price_and_quantity_or_no_price(trader: Client, stub: StubCluster, name: str | int) -> None:
    order = trader.place("BTC-USD", "buy", "2", price="1", client_order_id=name)
    trader.replace("BTC-USD", "1.25", "3", client_order_id=name)
    sent = stub.exchange.sent()
    assert (sent["kind"], sent["client_order_id"], sent["order_id"]) == (CommandKind.REPLACE, str(name), 0)
    assert (sent["price_ticks"], sent["quantity_lots"]) == (125, 30_000)
    trader.replace("BTC-USD", None, "2", order_id=order.order_id)
    assert stub.exchange.sent()["price_ticks"] == 0


@pytest.mark.parametrize("name", [4, "four", LONG_ID])
def test_order_is_reduced_and_cancelled_by_its_owners_id(trader: Client, stub: StubCluster, name: str | int) -> None:
    trader.place("BTC-USD", "buy", "2", price="1", client_order_id="another")
    order = trader.place("BTC-USD", "buy", "2", price="1", client_order_id=name)
    trader.reduce("1", client_order_id=name)
    assert (stub.exchange.sent()["client_order_id"], stub.exchange.sent()["quantity_lots"]) == (str(name), 10_000)
    assert [row.client_order_id for row in trader.orders()] == ["another", str(name)]
    assert trader.cancel(client_order_id=name).order_id == order.order_id
    with pytest.raises(Refused, match=f"reduction of order {name} was refused"):
        trader.reduce("1", client_order_id=name)


def test_reduce_requires_a_smaller_quantity_and_supports_stop_orders(trader: Client, stub: StubCluster) -> None:
    limit = trader.place("BTC-USD", "buy", "2", price="1.5")
    for quantity in ("2.5", "2"):
        with pytest.raises(InvalidValue, match=r"quantity: expected less than 2\.0000, that of order"):
            trader.reduce(quantity, order_id=limit.order_id)
    trader.reduce("1", order_id=limit.order_id)
    assert stub.exchange.sent()["price_ticks"] == 150
    stop = trader.place("BTC-USD", "buy", "2", stop="3")
    trader.reduce("1", order_id=stop.order_id)
    assert (stub.exchange.sent()["price_ticks"], stub.exchange.sent()["quantity_lots"]) == (0, 10_000)


@pytest.mark.parametrize(
    ("named", "instrument", "side"),
    [((), 0, 0), (("BTC-USD",), 1, 0), (("BTC-USD", "sell"), 1, 2), ((None, Side.BUY), 0, 1)],
)
def test_mass_cancel_sends_its_scope(
    trader: Client, stub: StubCluster, named: tuple[Any, ...], instrument: int, side: int
) -> None:
    trader.mass_cancel(*named)
    sent = stub.exchange.sent()
    assert (sent["kind"], sent["account"]) == (CommandKind.MASS_CANCEL, 1)
    assert (sent["instrument"], sent["side"]) == (instrument, side)


def test_open_orders_have_the_fields_of_their_type(market: Call) -> None:
    market(1, "place", "BTC-USD", "buy", "2", price="1", display="0.5", expires=SECOND, stp="none", post_only=True)
    market(1, "place", "BTC-USD", "sell", "2", stop="0.9", price="0.8")
    market(1, "place", "BTC-USD", "sell", "2", stop="0.9")
    market(1, "place", "BTC-USD", "sell", "2", price="5")
    iceberg, stop_limit, stop, plain = market(1, "orders")
    assert (iceberg.order_type, iceberg.tif, iceberg.stp, iceberg.post_only) == ("LIMIT", "GTD", "NONE", True)
    assert (iceberg.shown, iceberg.hidden, iceberg.expires) == ("0.5000", "1.5000", "2030-03-17T17:46:40Z")
    assert (iceberg.stop, iceberg.session) == (None, None)
    assert (stop_limit.order_type, stop_limit.stop, stop_limit.price) == ("STOP_LIMIT", "0.90", "0.80")
    assert (stop_limit.shown, stop_limit.hidden, stop_limit.expires) == ("0.0000", "2.0000", None)
    assert (stop.order_type, stop.stop, stop.price, stop.tif) == ("STOP", "0.90", None, "IOC")
    assert (plain.shown, plain.hidden, plain.stop, plain.post_only) == ("2.0000", "0.0000", None, False)


def test_open_orders_show_the_text_of_their_id_and_a_time_within_a_second(market: Call) -> None:
    for name in ("", "7", LONG_ID):
        market(1, "place", "BTC-USD", "buy", "2", price="1", expires=f"{SECOND}.125", client_order_id=name)
    found = market(1, "orders")
    assert [row.client_order_id for row in found] == ["", "7", LONG_ID]
    assert {row.expires for row in found} == {"2030-03-17T17:46:40.125Z"}
