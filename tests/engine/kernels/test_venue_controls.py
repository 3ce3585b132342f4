"""Suspension, status, limits, rules, the kill switch and supply caps."""

from collections.abc import Callable

import numpy as np
import pytest

from smrx.engine import Engine
from smrx.wire.codes import (
    CommandKind,
    InstrumentStatus,
    OrderType,
    Reason,
    Side,
    TimeInForce,
)
from tests.commands import Commands, add_asset, command, deposit, place, set_limits, set_rules, set_status, withdraw
from tests.engine.small_market import (
    BASE,
    MAX_PRICE,
    QUOTE,
    SmallMarket,
    events_of,
    in_own_layout,
    last_outcome,
    order_id,
)


def test_suspended_account_may_only_cancel() -> None:
    market = SmallMarket()
    order, other = (order_id(market.sell(1, 5, price)) for price in (100, 101))
    result = market.send_as_venue(CommandKind.SUSPEND_ACCOUNT, account=1)
    assert last_outcome(result) == ("ACCOUNT_SUSPENDED", "NONE", 0, 0)
    market.send_as_venue(CommandKind.SUSPEND_ACCOUNT, account=1)
    assert market.engine.inspect.accounts()["status"].tolist() == [1, 2, 1, 1]
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, 100)) == Reason.ACCOUNT_SUSPENDED
    assert market.rejected(market.replace_command(1, order, 4, 100)) == Reason.ACCOUNT_SUSPENDED
    assert market.rejected(withdraw(market.sender(1), 1, BASE, 1, 900)) == Reason.ACCOUNT_SUSPENDED
    # Its orders trade, and deposits and cancels are accepted.
    assert last_outcome(market.buy(2, 2, 100))[0] == "FILLED"
    market.send(deposit(market.sender(0), 1, BASE, 1, 901))
    market.cancel(1, order)
    assert events_of(market.send(command(CommandKind.MASS_CANCEL, market.sender(1), account=1)))[0] == (
        "CANCELLED",
        other,
    )
    assert last_outcome(market.send_as_venue(CommandKind.RESUME_ACCOUNT, account=1))[0] == "ACCOUNT_RESUMED"
    market.send_as_venue(CommandKind.RESUME_ACCOUNT, account=1)
    market.sell(1, 1, 100)
    assert market.rejected(command(CommandKind.SUSPEND_ACCOUNT, market.sender(0), account=77)) == Reason.UNKNOWN_ACCOUNT
    assert market.rejected(command(CommandKind.SUSPEND_ACCOUNT, market.sender(0))) == Reason.INVALID_ID
    market.check_state()


@pytest.mark.parametrize("status", [InstrumentStatus.HALTED, InstrumentStatus.CANCEL_ONLY])
def test_halted_instrument_allows_cancels(status: InstrumentStatus) -> None:
    market = SmallMarket()
    order = order_id(market.sell(1, 5, 100))
    result = market.send(set_status(market.sender(0), 1, status))
    assert last_outcome(result) == ("STATUS_SET", "NONE", 0, 0)
    assert [int(in_own_layout(result.events[0])[name]) for name in ("instrument", "status", "cancelled")] == [
        1,
        status,
        0,
    ]
    assert market.rejected(place(market.sender(2), 2, Side.BUY, 0, 100)) == Reason.INSTRUMENT_NOT_TRADING
    assert market.rejected(market.replace_command(1, order, 0, 100)) == Reason.INSTRUMENT_NOT_TRADING
    market.cancel(1, order)
    market.send(set_status(market.sender(0), 1, InstrumentStatus.TRADING))
    market.sell(1, 5, 100)
    market.check_state()


def test_closing_cancels_all_orders_in_sequence() -> None:
    market = SmallMarket()
    orders = {
        "ask 102": market.sell(1, 1, 102),
        "bid 98": market.buy(2, 1, 98),
        "buy stop 120": market.stop(1, Side.BUY, 1, 120),
        "sell stop 80": market.stop(2, Side.SELL, 1, 80),
        "ask 101": market.sell(3, 1, 101),
        "bid 99": market.buy(1, 1, 99),
        "buy stop 110": market.stop(2, Side.BUY, 1, 110, 115),
        "sell stop 90": market.stop(3, Side.SELL, 1, 90),
        "bid 99 again": market.buy(3, 1, 99),
        "gtd": market.sell(1, 1, 103, tif=TimeInForce.GTD, expiry_seconds=9),
    }
    ids = {name: order_id(result) for name, result in orders.items()}
    result = market.send(set_status(market.sender(0), 1, InstrumentStatus.CLOSED))
    order = (
        "bid 99", "bid 99 again", "bid 98", "ask 101", "ask 102", "gtd", "buy stop 110", "buy stop 120", "sell stop 90",
        "sell stop 80",
    )  # fmt: skip
    assert events_of(result) == [*(("CANCELLED", ids[name]) for name in order), ("STATUS_SET", 0)]
    assert set(result.events["reason"][:-1].tolist()) == {Reason.INSTRUMENT_CLOSED}
    assert last_outcome(result) == ("STATUS_SET", "NONE", 10, 0)
    assert market.next_order_expiry() is None
    assert all(market.balance_change(account, asset) == (0, 0) for account in (1, 2, 3) for asset in (BASE, QUOTE))
    market.check_state()


def test_invalid_status_is_rejected() -> None:
    market = SmallMarket()
    for status in (0, 5):
        assert market.rejected(command(CommandKind.SET_STATUS, market.sender(0), instrument=1, status=status)) == (
            Reason.INVALID_STATUS
        )
    assert market.rejected(set_status(market.sender(0), 2, InstrumentStatus.HALTED)) == Reason.UNKNOWN_INSTRUMENT
    assert market.rejected(set_status(market.sender(1), 1, InstrumentStatus.HALTED)) == Reason.NOT_AUTHORISED


def test_kill_switch_blocks_new_orders() -> None:
    market = SmallMarket()
    order = order_id(market.sell(1, 5, 100))
    assert last_outcome(market.send_as_venue(CommandKind.KILL)) == ("KILLED", "NONE", 0, 0)
    market.send_as_venue(CommandKind.KILL)
    assert market.engine.killed
    # The kill switch is checked before account and instrument.
    assert market.rejected(command(CommandKind.PLACE, market.sender(0), side=1, order_type=1, tif=1, account=99)) == (
        Reason.KILLED
    )
    assert market.rejected(market.replace_command(1, 999, 4, 100)) == Reason.KILLED
    again = Engine.restore(market.engine.snapshot())
    assert again.killed
    assert again.inspect.killed
    market.cancel(1, order)
    market.send(deposit(market.sender(0), 1, BASE, 1, 901))
    assert last_outcome(market.send_as_venue(CommandKind.REVIVE)) == ("REVIVED", "NONE", 0, 0)
    market.sell(1, 5, 100)
    market.check_state()


def rejection_with_limits(**limits: int) -> Callable[[SmallMarket], Reason]:
    """Return a function that gives the reason why an order of 10 lots at 50 exceeds these limits."""

    def reason(market: SmallMarket) -> Reason:
        market.set_limits(1, **limits)
        return market.rejected(place(market.sender(1), 1, Side.SELL, 10, 50))

    return reason


@pytest.mark.parametrize(
    ("reason", "least", "limit"),
    [
        (Reason.OPEN_ORDERS_LIMIT, 3, "max_open_orders"),
        (Reason.ORDER_QUANTITY_LIMIT, 10, "max_order_quantity"),
        (Reason.ORDER_NOTIONAL_LIMIT, 500, "max_order_notional"),
        (Reason.OPEN_NOTIONAL_LIMIT, 1_500, "max_open_notional"),
    ],
)
def test_each_limit_alone(reason: Reason, least: int, limit: str) -> None:
    market = SmallMarket()
    market.sell(1, 5, 100)
    market.sell(1, 5, 100)
    assert rejection_with_limits(**{limit: least - 1})(market) == reason
    market.set_limits(1, **{limit: least})
    market.sell(1, 10, 50)
    market.check_state()


def test_limits_by_order_type() -> None:
    market = SmallMarket()
    market.buy(2, 100, 40)
    market.sell(1, 1, 100)
    market.set_limits(1, max_open_orders=1, max_open_notional=100)
    # An order that cannot rest is not subject to limits of open orders.
    market.sell(1, 10, 40, tif=TimeInForce.IOC)
    market.sell(1, 10, 40, tif=TimeInForce.FOK)
    market.sell(1, 10, 0, order_type=OrderType.MARKET, tif=TimeInForce.IOC)
    stop = {"order_type": OrderType.STOP, "tif": TimeInForce.IOC, "stop_ticks": 30}
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, **stop)) == Reason.OPEN_ORDERS_LIMIT  # type: ignore[arg-type]
    market.set_limits(1, max_open_notional=100)
    market.stop(1, Side.SELL, 1, 30)
    limit = {"order_type": OrderType.STOP_LIMIT, "tif": TimeInForce.IOC, "stop_ticks": 30}
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, 1, **limit)) == Reason.OPEN_NOTIONAL_LIMIT  # type: ignore[arg-type]
    market.check_state()


def test_open_notional_follows_the_orders() -> None:
    market = SmallMarket()
    market.set_limits(1, max_open_notional=1_000)
    order = order_id(market.sell(1, 10, 100))
    over = market.rejected(place(market.sender(1), 1, Side.BUY, 1, 1))
    assert over == Reason.OPEN_NOTIONAL_LIMIT
    market.buy(2, 4, 100)
    market.buy(1, 4, 99)
    market.replace(1, order, 9, 100)
    market.buy(1, 1, 99)
    assert market.rejected(place(market.sender(1), 1, Side.BUY, 1, 6)) == Reason.OPEN_NOTIONAL_LIMIT
    market.buy(1, 1, 5)
    market.cancel(1, order)
    market.buy(1, 5, 99)
    market.check_state()


def test_open_notional_above_64_bits_is_exact() -> None:
    """Sells need no quote units, so their notional may pass 2^62 many times."""
    market = SmallMarket()
    ids = [order_id(market.sell(1, 2_000, MAX_PRICE)) for _ in range(9)]
    market.check_state()
    market.set_limits(1, max_open_notional=(1 << 62) - 1)
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, 1)) == Reason.OPEN_NOTIONAL_LIMIT
    for one in ids[2:]:
        market.cancel(1, one)
    market.check_state()
    # 4,096 lots at the highest price are 2^62.
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 96, MAX_PRICE)) == Reason.OPEN_NOTIONAL_LIMIT
    market.sell(1, 95, MAX_PRICE)
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, MAX_PRICE)) == Reason.OPEN_NOTIONAL_LIMIT
    market.sell(1, 1, MAX_PRICE - 1)
    market.check_state()


def test_invalid_limits_are_rejected() -> None:
    market = SmallMarket()
    names = ("max_open_notional", "max_order_notional", "max_order_quantity")
    for name in names:
        for value in (-1, 1 << 62):
            assert market.rejected(set_limits(market.sender(0), 1, **{name: value})) == Reason.INVALID_LIMIT
    assert market.rejected(set_limits(market.sender(0), 77, max_order_quantity=-1)) == Reason.UNKNOWN_ACCOUNT
    result = market.set_limits(1, max_open_orders=4, max_open_notional=5, max_order_notional=6, max_order_quantity=7)
    shown = ["max_open_orders", *names]
    assert in_own_layout(result.events[0])[["account", *shown]].item() == (1, 4, 5, 6, 7)
    assert market.engine.inspect.accounts()[shown].tolist()[1] == (4, 5, 6, 7)
    market.set_limits(1)
    assert market.engine.inspect.accounts()[shown].tolist()[1] == (0, 0, 0, 0)
    market.check_state()


@pytest.mark.parametrize(
    "rules",
    [
        {"min_price_ticks": -1},
        {"min_price_ticks": MAX_PRICE + 1},
        {"min_quantity_lots": -1},
        {"min_quantity_lots": (1 << 11) + 1},
        {"min_notional": -1},
        {"max_notional": -1},
        {"max_notional": 1 << 62},
        {"min_notional": 1 << 62},
        {"min_notional": 5, "max_notional": 4},
        {"taker_fee": 1_000_001},
        {"taker_fee": 5, "maker_fee": 6},
        {"taker_fee": 5, "maker_fee": -6},
        {"band_bp": 10_001},
        # With a fee as large as the notional, the cost of one order would reach 2^62.
        {"taker_fee": 1_000_000},
    ],
    ids=str,
)
def test_invalid_rules_are_rejected(rules: dict[str, int]) -> None:
    market = SmallMarket()
    assert market.rejected(set_rules(market.sender(0), 1, **rules)) == Reason.INVALID_RULES
    assert market.rejected(set_rules(market.sender(0), 2, **rules)) == Reason.UNKNOWN_INSTRUMENT


def test_rules_are_reported_and_restored() -> None:
    market = SmallMarket()
    given = {
        "band_bp": 10_000, "taker_fee": 999_999, "maker_fee": -999_999, "min_price_ticks": 2, "min_quantity_lots": 3,
        "min_notional": 4, "max_notional": 5,
    }  # fmt: skip
    event = in_own_layout(market.set_rules(**given).events[0])
    assert {name: int(event[name]) for name in given} == given
    row = market.engine.inspect.instruments()[0]
    assert {name: int(row[name]) for name in given} == given
    again = Engine.restore(market.engine.snapshot())
    assert again.inspect.instruments().tobytes() == market.engine.inspect.instruments().tobytes()
    market.check_state()
    market.set_rules()
    market.check_state()


def test_supply_cap() -> None:
    market = SmallMarket()
    for cap in (-1, 1 << 62):
        assert market.rejected(add_asset(market.sender(0), 7, "CAP", cap=cap)) == Reason.INVALID_AMOUNT
    wrong: Commands = add_asset(market.sender(0), 7, "CAP", decimals=19, cap=-1)
    assert market.rejected(wrong) == Reason.INVALID_QUANTITY
    event = in_own_layout(market.send(add_asset(market.sender(0), 7, "CAP", cap=100)).events[0])
    assert int(event["supply_cap"]) == 100
    market.send(deposit(market.sender(0), 1, 7, 60, 901))
    assert market.rejected(deposit(market.sender(0), 2, 7, 41, 902)) == Reason.SUPPLY_EXCEEDED
    market.send(deposit(market.sender(0), 2, 7, 40, 902))
    market.send(withdraw(market.sender(1), 1, 7, 10, 903))
    market.send(deposit(market.sender(0), 2, 7, 10, 904))
    assert market.engine.inspect.assets()[["cap", "supply"]].tolist()[-1] == (100, 100)
    market.check_state()


@pytest.mark.parametrize(
    "kind",
    [
        CommandKind.SUSPEND_ACCOUNT,
        CommandKind.RESUME_ACCOUNT,
        CommandKind.SET_STATUS,
        CommandKind.SET_LIMITS,
        CommandKind.SET_RULES,
        CommandKind.KILL,
        CommandKind.REVIVE,
    ],
)
def test_venue_commands_are_rejected_for_others(kind: CommandKind) -> None:
    market = SmallMarket()
    fields: dict[CommandKind, dict[str, int]] = {
        CommandKind.KILL: {},
        CommandKind.REVIVE: {},
        CommandKind.SET_STATUS: {"instrument": 1, "status": 2},
        CommandKind.SET_RULES: {"instrument": 1},
    }
    assert market.rejected(command(kind, market.sender(1), **fields.get(kind, {"account": 1}))) == Reason.NOT_AUTHORISED
    assert np.array_equal(market.engine.inspect.accounts()["status"], [1, 1, 1, 1])
