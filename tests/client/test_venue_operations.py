"""Venue operations: the command that each sends, what stays unchanged, and invalid values."""

from typing import Any

import pytest

from smrx.client import InvalidValue, Refused
from smrx.wire.codes import CommandKind, InstrumentStatus, Reason
from tests.client.conftest import Call
from tests.client.stub_cluster import StubCluster

NO_RULES = {
    "maker_fee": 0, "taker_fee": 0, "band_bp": 0, "min_price_ticks": 0, "min_quantity_lots": 0, "min_notional": 0,
    "max_notional": 0, "collar_bp": 0, "collar_reference": 0, "rule_flags": 0,
}  # fmt: skip
NO_LIMITS = {"max_open_orders": 0, "max_open_notional": 0, "max_order_notional": 0, "max_order_quantity": 0}


def part(sent: dict[str, Any], names: dict[str, int]) -> dict[str, Any]:
    return {name: sent[name] for name in names}


def test_account_is_suspended_and_resumed(market: Call, stub: StubCluster) -> None:
    assert market(0, "suspend_account", 2).status == "SUSPENDED"
    assert part(stub.exchange.sent(), {"kind": 0, "account": 0}) == {"kind": CommandKind.SUSPEND_ACCOUNT, "account": 2}
    assert market(2, "account_state").status == "SUSPENDED"
    assert market(0, "resume_account", 2).status == "ACTIVE"
    assert market(0, "account_state", 2).status == "ACTIVE"
    with pytest.raises(InvalidValue, match="account 99 does not exist; open it first"):
        market(0, "account_state", 99)


def test_none_keeps_a_limit_and_zero_removes_it(market: Call, stub: StubCluster) -> None:
    market(0, "set_limits", 2, open_orders=5, open_notional="2.5", order_quantity="0.3", asset="USD", symbol="BTC-USD")
    expected = NO_LIMITS | {"max_open_orders": 5, "max_open_notional": 2_500_000, "max_order_quantity": 3000}
    sent = stub.exchange.sent()
    assert (sent["kind"], sent["account"], part(sent, NO_LIMITS)) == (CommandKind.SET_LIMITS, 2, expected)
    answer = market(0, "set_limits", 2, order_notional=700, open_notional=0)
    expected |= {"max_open_notional": 0, "max_order_notional": 700}
    assert part(stub.exchange.sent(), NO_LIMITS) == expected
    assert {name: getattr(answer, name) for name in NO_LIMITS} == expected
    state = market(2, "account_state")
    assert {name: getattr(state, name) for name in NO_LIMITS} == expected


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"open_orders": -1}, r"open orders: expected an integer from 0 to 2\^32 - 1, found -1"),
        ({"open_orders": 1 << 32}, "open orders: expected an integer"),
        ({"open_notional": "2.5"}, "open notional: expected a multiple of the minimal unit 1, found 2.5"),
        ({"open_notional": "2.5", "asset": "EUR"}, "asset: expected one of BTC, USD, found EUR"),
        ({"order_notional": "0.0000001", "asset": "USD"}, "USD order notional: expected a multiple"),
        ({"order_notional": 1 << 62}, r"order notional: expected less than 2\^62"),
        ({"order_quantity": "0.00001", "symbol": "BTC-USD"}, "order quantity: expected a multiple of the lot"),
        ({"order_quantity": -1}, "order quantity: expected a decimal above 0"),
        ({"order_quantity": 1, "symbol": "X-Y"}, "instrument: expected one of BTC-USD"),
    ],
)
def test_invalid_limit_is_rejected(market: Call, stub: StubCluster, named: dict[str, Any], message: str) -> None:
    before = stub.exchange.sequence
    with pytest.raises(InvalidValue, match=message):
        market(0, "set_limits", 2, **named)
    # A client that only sent queries has opened no session.
    assert stub.exchange.sequence == before


def test_none_keeps_a_rule_and_zero_removes_it(market: Call, stub: StubCluster) -> None:
    first = market(
        0, "set_rules", "BTC-USD", maker_fee="-1bp", taker_fee="0.05%", band="10%", min_price="1", min_quantity="0.01",
        min_notional="10", max_notional=5000, collar="5%", collar_reference="last-trade", notional_of_market=True,
    )  # fmt: skip
    expected = {
        "maker_fee": -100, "taker_fee": 500, "band_bp": 1000, "min_price_ticks": 100, "min_quantity_lots": 100,
        "min_notional": 10_000_000, "max_notional": 5_000_000_000, "collar_bp": 500, "collar_reference": 1,
        "rule_flags": 3,
    }  # fmt: skip
    sent = stub.exchange.sent()
    assert (sent["kind"], sent["instrument"], part(sent, NO_RULES)) == (CommandKind.SET_RULES, 1, expected)
    assert (first.maker_fee, first.taker_fee, first.band) == ("-0.01%", "0.05%", "10%")
    assert (first.min_price, first.min_quantity) == ("1.00", "0.0100")
    assert (first.min_notional, first.max_notional) == ("10.000000", "5000.000000")
    assert (first.collar, first.collar_reference, first.notional_of_market) == ("5%", "LAST_TRADE", True)
    second = market(
        0, "set_rules", "BTC-USD", band=0, min_price="0.00", min_notional="20", maker_fee="0", notional_of_market=False
    )
    expected |= {"maker_fee": 0, "band_bp": 0, "rule_flags": 0, "min_price_ticks": 0, "min_notional": 20_000_000}
    assert part(stub.exchange.sent(), NO_RULES) == expected
    assert (second.maker_fee, second.band, second.min_price) == ("0%", None, None)
    [instrument] = market(1, "instruments")
    assert {name: getattr(instrument, name) for name in NO_RULES} == expected


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"maker_fee": "0.1"}, "maker fee: expected a rate with a unit"),
        ({"maker_fee": "0.00005%"}, "maker fee: expected a multiple of 0.0001%"),
        ({"taker_fee": "-0.1%"}, "taker fee: expected 0% to 100%, found -0.1%"),
        ({"taker_fee": "100.1%"}, "taker fee: expected -100% to 100%"),
        ({"band": "-1%"}, "band: expected 0% to 100%"),
        ({"collar": "101%"}, "collar: expected 0% to 100%"),
        ({"collar_reference": "MIDDLE"}, "collar reference: expected one of BEST_PRICE, LAST_TRADE"),
        ({"min_price": "0.001"}, "minimum price: expected a multiple of the tick 0.01"),
        ({"min_quantity": "0.00001"}, "minimum quantity: expected a multiple of the lot"),
        ({"min_notional": "0.0000001"}, "USD minimum notional: expected a multiple"),
        ({"max_notional": -1}, "maximum notional: expected a decimal above 0"),
    ],
)
def test_invalid_rule_is_rejected(market: Call, named: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        market(0, "set_rules", "BTC-USD", **named)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("HALTED", InstrumentStatus.HALTED),
        ("cancel-only", InstrumentStatus.CANCEL_ONLY),
        (InstrumentStatus.CLOSED, InstrumentStatus.CLOSED),
        ("trading", InstrumentStatus.TRADING),
    ],
)
def test_status_is_set_by_name(market: Call, stub: StubCluster, status: str, code: InstrumentStatus) -> None:
    market(1, "place", "BTC-USD", "buy", "1", price="1")
    answer = market(0, "set_status", "BTC-USD", status)
    assert (answer.status, answer.cancelled) == (code.name, 1 if code is InstrumentStatus.CLOSED else 0)
    sent = stub.exchange.sent()
    assert (sent["kind"], sent["instrument"], sent["status"]) == (CommandKind.SET_STATUS, 1, code)
    assert [row.status for row in market(1, "instruments")] == [code]


def test_unknown_status_is_rejected(market: Call) -> None:
    with pytest.raises(
        InvalidValue, match="status: expected one of TRADING, HALTED, CANCEL_ONLY, CLOSED, found 'OPEN'"
    ):
        market(0, "set_status", "BTC-USD", "OPEN")


def test_kill_switch_is_set_and_reported(call: Call, stub: StubCluster) -> None:
    assert call(0, "kill").killed
    assert part(stub.exchange.sent(), {"kind": 0}) == {"kind": CommandKind.KILL}
    assert call(0, "status").killed
    assert not call(0, "revive").killed
    assert not call(0, "status").killed


def test_rules_that_are_all_removed_are_sent_as_details(market: Call, stub: StubCluster) -> None:
    market(0, "set_rules", "BTC-USD", band=0)
    assert part(stub.exchange.sent(), NO_RULES) == NO_RULES


def test_retention_is_set(call: Call, stub: StubCluster) -> None:
    named = {"session_silence_s": 3600, "transfer_age_s": 86_400, "transfers": 1 << 40}
    answer = call(0, "set_retention", **named)
    assert part(stub.exchange.sent(), {"kind": 0, **named}) == {"kind": CommandKind.SET_RETENTION, **named}
    assert {name: getattr(answer, name) for name in named} == named
    with pytest.raises(InvalidValue, match="transfers: expected 1 or more, found 0"):
        call(0, "set_retention", **(named | {"transfers": 0}))


@pytest.mark.parametrize(("operation", "size"), [("asset", 16), ("instrument", 24)])
def test_symbol_has_a_limited_length(market: Call, operation: str, size: int) -> None:
    def add(symbol: str) -> Any:
        if operation == "asset":
            return market(0, "add_asset", symbol, 2)
        return market(0, "add_instrument", symbol, "BTC", "USD", "0.01", "0.0001")

    assert add("S" * size).symbol == "S" * size
    with pytest.raises(InvalidValue, match=f"symbol: expected 1 to {size} characters"):
        add("S" * (size + 1))


def test_asset_may_have_a_maximum_supply(call: Call, stub: StubCluster) -> None:
    call(0, "add_asset", "BTC", 8, max_supply="21000000")
    assert stub.exchange.sent()["supply_cap"] == 2_100_000_000_000_000
    call(0, "add_asset", "USD", 6, max_supply=0)
    assert stub.exchange.sent()["supply_cap"] == 0
    assert [asset.supply_cap for asset in call(0, "assets")] == [2_100_000_000_000_000, 0]
    for cap, message in (("0.000000001", "maximum supply: expected a multiple"), (10**12, "expected at most")):
        with pytest.raises(InvalidValue, match=message):
            call(0, "add_asset", "ETH", 8, max_supply=cap)


def test_refused_has_the_text_and_the_name_of_the_reason(market: Call) -> None:
    with pytest.raises(
        Refused, match=r"^cancel of order 77 was refused: the account has no such open order \(UNKN"
    ) as e:
        market(1, "cancel", 77)
    assert e.value.reason is Reason.UNKNOWN_ORDER
