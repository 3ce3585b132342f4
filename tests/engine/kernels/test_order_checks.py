"""Order checks: an order with every fault at once is repaired step by step, from the first reason to the last."""

from collections.abc import Callable

import numpy as np
import pytest

from smrx.wire.client_order_ids import pack_client_order_id
from smrx.wire.codes import (
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS
from tests.commands import Commands, command, place, set_status
from tests.engine.small_market import FUNDS, MAX_PRICE, SmallMarket, last_outcome

#: A request id far ahead, which the repair of REQUEST_GAP corrects.
GAP = 1 << 40


def short_id(text: str) -> int:
    """Return a client order id as it stands in a command."""
    return pack_client_order_id(text)[0]


Repair = dict[str, int] | Callable[[SmallMarket], object]


def lift(**left: int) -> Callable[[SmallMarket], object]:
    """Return a repair that leaves account 1 only these limits."""
    return lambda market: market.set_limits(1, **left)


LIMITS = {"max_open_orders": 1, "max_order_quantity": 3, "max_order_notional": 4_000, "max_open_notional": 13_300}

#: Each reason, and the repair after which the next one is reported, in order of precedence. The market: a last trade at
#: 1,000, an ask at 1,050, and account 1 with an open order of 10 at 1,000, its client order id 7.
FAULTS: list[tuple[Reason, Repair]] = [
    (Reason.UNKNOWN_KIND, {"kind": CommandKind.PLACE}),
    (Reason.INVALID_DETAILS, {"details": 1}),
    (Reason.RESERVED_NOT_ZERO, {"order_id": 0}),
    (Reason.INVALID_SIDE, {"side": Side.BUY}),
    (Reason.INVALID_ORDER_TYPE, {"order_type": OrderType.LIMIT, "display_lots": 1 << 11}),
    (Reason.INVALID_TIME_IN_FORCE, {"tif": TimeInForce.GTD}),
    (Reason.INVALID_STP, {"stp": Stp.CANCEL_NEWEST}),
    (Reason.INVALID_FLAGS, {"flags": OrderFlags.POST_ONLY}),
    (Reason.INVALID_CLIENT_ORDER_ID, {"client_order_id": short_id("7")}),
    (Reason.UNKNOWN_SESSION, {"session_id": 12}),
    (Reason.REQUEST_GAP, {"request_id": 0}),
    (Reason.NOT_AUTHORISED, {"session_id": 1}),
    (Reason.KILLED, lambda market: market.send_as_venue(CommandKind.REVIVE)),
    (Reason.UNKNOWN_ACCOUNT, {"account": 1}),
    (Reason.ACCOUNT_SUSPENDED, lambda market: market.send_as_venue(CommandKind.RESUME_ACCOUNT, account=1)),
    (Reason.UNKNOWN_INSTRUMENT, {"instrument": 1}),
    (
        Reason.INSTRUMENT_NOT_TRADING,
        lambda market: market.send(set_status(market.sender(0), 1, InstrumentStatus.TRADING)),
    ),
    (Reason.DUPLICATE_CLIENT_ORDER_ID, {"client_order_id": short_id("8")}),
    (Reason.INVALID_PRICE, {"price_ticks": 4}),
    (Reason.PRICE_BELOW_MINIMUM, {"price_ticks": MAX_PRICE + 1}),
    (Reason.PRICE_ABOVE_MAXIMUM, {"price_ticks": 1_101}),
    (Reason.PRICE_OUTSIDE_BAND, {"price_ticks": 1_100}),
    (Reason.INVALID_QUANTITY, {"quantity_lots": 1}),
    (Reason.QUANTITY_BELOW_MINIMUM, {"quantity_lots": 1 << 12}),
    (Reason.QUANTITY_ABOVE_MAXIMUM, {"quantity_lots": 2}),
    (Reason.INVALID_DISPLAY, {"display_lots": 1}),
    (Reason.INVALID_EXPIRY, {"expiry_ns": 2}),
    (Reason.NOTIONAL_BELOW_MINIMUM, {"quantity_lots": 10}),
    (Reason.NOTIONAL_ABOVE_MAXIMUM, {"quantity_lots": 4}),
    (Reason.OPEN_ORDERS_LIMIT, lift(**LIMITS | {"max_open_orders": 2})),
    (Reason.ORDER_QUANTITY_LIMIT, lift(**LIMITS | {"max_open_orders": 2, "max_order_quantity": 4})),
    (Reason.ORDER_NOTIONAL_LIMIT, lift(max_open_notional=13_300)),
    (Reason.OPEN_NOTIONAL_LIMIT, {"tif": TimeInForce.IOC, "expiry_ns": 0}),
    (Reason.UNSUPPORTED_COMBINATION, {"tif": TimeInForce.GTC, "quantity_lots": 3}),
    (Reason.POST_ONLY_WOULD_TAKE, {"flags": 0}),
    (Reason.INSUFFICIENT_FUNDS, {"side": Side.SELL}),
]


def prepared_market() -> SmallMarket:
    """Return the market in which the orders are checked."""
    market = SmallMarket()
    market.sell(3, 1, 1_000, stp=Stp.NONE)
    market.buy(3, 1, 1_000, stp=Stp.NONE)
    market.sell(1, 10, 1_000, client_order_id=7)
    market.sell(3, 50, 1_050)
    # Account 1 has no quote units left.
    market.send(
        command(CommandKind.WITHDRAW, market.sender(1), account=1, instrument=2, order_id=999, quantity_lots=FUNDS)
    )
    market.set_rules(min_price_ticks=5, min_quantity_lots=2, min_notional=3_000, max_notional=10_000, band_bp=1_000)
    market.set_limits(1, **LIMITS)
    market.send_as_venue(CommandKind.SUSPEND_ACCOUNT, account=1)
    market.send(set_status(market.sender(0), 1, InstrumentStatus.HALTED))
    market.send_as_venue(CommandKind.KILL)
    return market


def test_first_failing_check_is_reported() -> None:
    market = prepared_market()
    fields = {
        "kind": 99, "side": 9, "order_type": 9, "tif": 9, "stp": 9, "flags": 9, "details": 2, "session_id": 999,
        "request_id": GAP, "account": 99, "instrument": 9, "client_order_id": 7, "order_id": 1, "price_ticks": -1,
        "quantity_lots": 0, "display_lots": 0, "expiry_ns": 0,
    }  # fmt: skip

    def built() -> Commands:
        sender = {1: 0, 12: 2}.get(fields["session_id"])
        records, details = np.zeros(1, COMMAND), np.zeros(1, DETAILS)
        for name, value in fields.items():
            (records if name in (COMMAND.names or ()) else details)[name] = value
        if sender is not None and fields["request_id"] == 0:
            records["session_id"], records["request_id"] = market.sender(sender)
        return CommandList(records, details)

    for reason, repair in FAULTS:
        assert market.rejected(built()) == reason
        if callable(repair):
            repair(market)
        else:
            fields.update({name: int(value) for name, value in repair.items()})
    assert last_outcome(market.send(built()))[0] == "NEW"
    market.check_state()


def test_table_has_every_rejection_reason_of_a_limit_order() -> None:
    others = {
        *(Reason.INVALID_ID, Reason.INVALID_STATUS, Reason.SESSION_IN_USE, Reason.ACCOUNT_EXISTS, Reason.UNKNOWN_ASSET),
        *(Reason.ASSET_EXISTS, Reason.INSTRUMENT_EXISTS, Reason.INVALID_INSTRUMENT, Reason.INVALID_RULES),
        *(Reason.INSTRUMENT_HAS_ORDERS, Reason.UNKNOWN_ORDER, Reason.TRANSFER_ALREADY_DONE, Reason.TRANSFER_ID_REUSED),
        # Of a session that is closed.
        Reason.SESSION_CLOSED,
        *(Reason.INVALID_LIMIT, Reason.INVALID_AMOUNT, Reason.SUPPLY_EXCEEDED, Reason.INVALID_VERSION),
        # Those of stops and of fill-or-kill.
        *(Reason.INVALID_STOP_PRICE, Reason.STOP_WOULD_TRIGGER, Reason.FOK_UNFILLABLE),
        # Those of credentials and of requests, see test_credentials.py and test_request_content.py.
        *(Reason.INVALID_PERMISSIONS, Reason.INVALID_SCOPE, Reason.INVALID_NETWORK, Reason.UNKNOWN_CREDENTIAL),
        *(Reason.CREDENTIAL_REVOKED, Reason.CREDENTIAL_EXPIRED, Reason.CREDENTIAL_EXISTS, Reason.KEY_IN_USE),
        Reason.REQUEST_MISMATCH,
        # Of a full state, see test_capacity.py.
        Reason.CAPACITY_REACHED,
    }
    listed = [reason for reason, _ in FAULTS]
    assert len(set(listed)) == len(listed)
    assert set(listed) | others == {reason for reason in Reason if Reason.NONE < reason < Reason.REQUESTED}


#: The same for a stop-limit order where it differs: a sell with a stop price.
STOP_FAULTS: list[tuple[Reason, dict[str, int]]] = [
    (Reason.INVALID_PRICE, {"price_ticks": 1}),
    (Reason.PRICE_BELOW_MINIMUM, {"price_ticks": 1_200}),
    (Reason.INVALID_STOP_PRICE, {"stop_ticks": 4}),
    (Reason.INVALID_STOP_PRICE, {"stop_ticks": MAX_PRICE + 1}),
    (Reason.INVALID_STOP_PRICE, {"stop_ticks": -1}),
    # The band is around the stop price, not around the last trade.
    (Reason.INVALID_STOP_PRICE, {"stop_ticks": 1_000}),
    (Reason.PRICE_OUTSIDE_BAND, {"price_ticks": 900}),
    (Reason.INVALID_QUANTITY, {"quantity_lots": 5}),
    (Reason.INVALID_DISPLAY, {"display_lots": 4}),
    (Reason.INVALID_EXPIRY, {"expiry_ns": 2}),
    (Reason.UNSUPPORTED_COMBINATION, {"flags": 0}),
    (Reason.STOP_WOULD_TRIGGER, {"stop_ticks": 999, "quantity_lots": 11}),
    (Reason.INSUFFICIENT_FUNDS, {"quantity_lots": 5}),
]


def test_first_failing_check_of_a_stop_is_reported() -> None:
    market = SmallMarket()
    market.sell(3, 1, 1_000, stp=Stp.NONE)
    market.buy(3, 1, 1_000, stp=Stp.NONE)
    market.set_rules(min_price_ticks=5, band_bp=1_000)
    market.send(
        command(CommandKind.WITHDRAW, market.sender(1), account=1, instrument=1, order_id=999, quantity_lots=FUNDS - 9)
    )
    fields = {
        "price_ticks": 0,
        "stop_ticks": 0,
        "quantity_lots": 0,
        "display_lots": 5,
        "expiry_ns": 1,
        "tif": int(TimeInForce.GTD),
        "flags": 1,
    }

    def built() -> Commands:
        return place(market.sender(1), 1, Side.SELL, order_type=OrderType.STOP_LIMIT, **fields)  # type: ignore[arg-type]

    for reason, repair in STOP_FAULTS:
        assert market.rejected(built()) == reason, fields
        fields.update({name: int(value) for name, value in repair.items()})
    assert last_outcome(market.send(built()))[0] == "NEW"
    market.check_state()


@pytest.mark.parametrize("order_type", OrderType)
@pytest.mark.parametrize("tif", TimeInForce)
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_supported_combinations(order_type: OrderType, tif: TimeInForce, flags: int) -> None:
    """Order types, times in force and flags, as a table."""
    offered = {
        (OrderType.LIMIT, 0): {TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD},
        (OrderType.LIMIT, 1): {TimeInForce.GTC, TimeInForce.GTD},
        (OrderType.MARKET, 0): {TimeInForce.IOC},
        (OrderType.MARKET, 2): {TimeInForce.IOC},
        (OrderType.STOP, 0): {TimeInForce.IOC, TimeInForce.GTD},
        (OrderType.STOP_LIMIT, 0): {TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD},
    }
    market = SmallMarket()
    stop = order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    sent = place(
        market.sender(1), 1, Side.BUY, 5, 100 if order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT) else 0,
        order_type=order_type, tif=tif, flags=flags, stop_ticks=110 if stop else 0,
        expiry_seconds=9 if order_type != OrderType.MARKET and tif == TimeInForce.GTD else 0,
    )  # fmt: skip
    if tif in offered.get((order_type, flags), set()):
        market.send(sent)
    else:
        assert market.rejected(sent) == Reason.UNSUPPORTED_COMBINATION
    market.check_state()


@pytest.mark.parametrize(("price", "fits"), [(899, False), (900, True), (1_101, True), (1_102, False)])
def test_price_band_is_rounded_down(price: int, fits: bool) -> None:
    """10.05 % of 1,001 is 100.6: a hundred on either side."""
    market = SmallMarket()
    market.set_rules(band_bp=1_005)
    market.buy(1, 1, MAX_PRICE >> 20)
    market.cancel(1, market.open_ids()[0])
    market.sell(3, 1, 1_001, stp=Stp.NONE)
    market.buy(3, 1, 1_001, stp=Stp.NONE)
    low = place(market.sender(1), 1, Side.BUY, 1, price + (1 if price < 1_000 else 0))
    if fits:
        market.send(low)
    else:
        assert market.rejected(low) == Reason.PRICE_OUTSIDE_BAND
