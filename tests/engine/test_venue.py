"""What the venue decides over others: suspension, status, limits, rules, the kill switch, supply caps."""

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
from tests.engine.desk import BASE, MAX_PRICE, QUOTE, Desk, ended, order_id, told


def test_a_suspended_account_may_only_cancel() -> None:
    desk = Desk()
    order, other = (order_id(desk.sell(1, 5, price)) for price in (100, 101))
    result = desk.venue(CommandKind.SUSPEND_ACCOUNT, account=1)
    assert ended(result) == ("ACCOUNT_SUSPENDED", "NONE", 0, 0)
    desk.venue(CommandKind.SUSPEND_ACCOUNT, account=1)
    assert desk.engine.inspect.accounts()["status"].tolist() == [1, 2, 1, 1]
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, 100)) == Reason.ACCOUNT_SUSPENDED
    assert desk.refused(desk.replacing(1, order, 4, 100)) == Reason.ACCOUNT_SUSPENDED
    assert desk.refused(withdraw(desk.sender(1), 1, BASE, 1, 900)) == Reason.ACCOUNT_SUSPENDED
    # Its orders trade, its deposits arrive, and it may leave.
    assert ended(desk.buy(2, 2, 100))[0] == "FILLED"
    desk.send(deposit(desk.sender(0), 1, BASE, 1, 901))
    desk.cancel(1, order)
    assert told(desk.send(command(CommandKind.MASS_CANCEL, desk.sender(1), account=1)))[0] == ("CANCELLED", other)
    assert ended(desk.venue(CommandKind.RESUME_ACCOUNT, account=1))[0] == "ACCOUNT_RESUMED"
    desk.venue(CommandKind.RESUME_ACCOUNT, account=1)
    desk.sell(1, 1, 100)
    assert desk.refused(command(CommandKind.SUSPEND_ACCOUNT, desk.sender(0), account=77)) == Reason.UNKNOWN_ACCOUNT
    assert desk.refused(command(CommandKind.SUSPEND_ACCOUNT, desk.sender(0))) == Reason.INVALID_ID
    desk.check()


@pytest.mark.parametrize("status", [InstrumentStatus.HALTED, InstrumentStatus.CANCEL_ONLY])
def test_a_halted_instrument_lets_one_cancel(status: InstrumentStatus) -> None:
    desk = Desk()
    order = order_id(desk.sell(1, 5, 100))
    result = desk.send(set_status(desk.sender(0), 1, status))
    assert ended(result) == ("STATUS_SET", "NONE", 0, 0)
    assert [int(result.events[0][name]) for name in ("instrument", "side", "quantity_lots")] == [1, status, 0]
    assert desk.refused(place(desk.sender(2), 2, Side.BUY, 0, 100)) == Reason.INSTRUMENT_NOT_TRADING
    assert desk.refused(desk.replacing(1, order, 0, 100)) == Reason.INSTRUMENT_NOT_TRADING
    desk.cancel(1, order)
    desk.send(set_status(desk.sender(0), 1, InstrumentStatus.TRADING))
    desk.sell(1, 5, 100)
    desk.check()


def test_closing_cancels_everything_in_its_order() -> None:
    desk = Desk()
    orders = {
        "ask 102": desk.sell(1, 1, 102), "bid 98": desk.buy(2, 1, 98), "buy stop 120": desk.stop(1, Side.BUY, 1, 120),
        "sell stop 80": desk.stop(2, Side.SELL, 1, 80), "ask 101": desk.sell(3, 1, 101), "bid 99": desk.buy(1, 1, 99),
        "buy stop 110": desk.stop(2, Side.BUY, 1, 110, 115), "sell stop 90": desk.stop(3, Side.SELL, 1, 90),
        "bid 99 again": desk.buy(3, 1, 99), "gtd": desk.sell(1, 1, 103, tif=TimeInForce.GTD, expiry_seconds=9),
    }  # fmt: skip
    ids = {name: order_id(result) for name, result in orders.items()}
    result = desk.send(set_status(desk.sender(0), 1, InstrumentStatus.CLOSED))
    order = (
        "bid 99", "bid 99 again", "bid 98", "ask 101", "ask 102", "gtd", "buy stop 110", "buy stop 120", "sell stop 90",
        "sell stop 80",
    )  # fmt: skip
    assert told(result) == [*(("CANCELLED", ids[name]) for name in order), ("STATUS_SET", 0)]
    assert set(result.events["reason"][:-1].tolist()) == {Reason.INSTRUMENT_CLOSED}
    assert ended(result) == ("STATUS_SET", "NONE", 10, 0)
    assert desk.engine.next_expiry_ns is None
    assert all(desk.money(account, asset) == (0, 0) for account in (1, 2, 3) for asset in (BASE, QUOTE))
    desk.check()


def test_statuses_that_are_none() -> None:
    desk = Desk()
    for status in (0, 5):
        assert desk.refused(command(CommandKind.SET_STATUS, desk.sender(0), instrument=1, side=status)) == (
            Reason.INVALID_STATUS
        )
    assert desk.refused(set_status(desk.sender(0), 2, InstrumentStatus.HALTED)) == Reason.UNKNOWN_INSTRUMENT
    assert desk.refused(set_status(desk.sender(1), 1, InstrumentStatus.HALTED)) == Reason.NOT_AUTHORISED


def test_the_kill_switch_stops_what_is_new() -> None:
    desk = Desk()
    order = order_id(desk.sell(1, 5, 100))
    assert ended(desk.venue(CommandKind.KILL)) == ("KILLED", "NONE", 0, 0)
    desk.venue(CommandKind.KILL)
    assert desk.engine.killed
    # Before anything else about the order: it names neither account nor instrument.
    assert desk.refused(command(CommandKind.PLACE, desk.sender(0), side=1, order_type=1, tif=1, account=99)) == (
        Reason.KILLED
    )
    assert desk.refused(desk.replacing(1, 999, 4, 100)) == Reason.KILLED
    again = Engine.restore(desk.engine.snapshot())
    assert again.killed
    assert again.inspect.killed
    desk.cancel(1, order)
    desk.send(deposit(desk.sender(0), 1, BASE, 1, 901))
    assert ended(desk.venue(CommandKind.REVIVE)) == ("REVIVED", "NONE", 0, 0)
    desk.sell(1, 5, 100)
    desk.check()


def limited(**limits: int) -> Callable[[Desk], Reason]:
    """Why an order of 10 lots at 50 is refused to an account with two open orders of 5 lots at 100."""

    def reason(desk: Desk) -> Reason:
        desk.limits(1, **limits)
        return desk.refused(place(desk.sender(1), 1, Side.SELL, 10, 50))

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
def test_each_limit_by_itself(reason: Reason, least: int, limit: str) -> None:
    desk = Desk()
    desk.sell(1, 5, 100)
    desk.sell(1, 5, 100)
    assert limited(**{limit: least - 1})(desk) == reason
    desk.limits(1, **{limit: least})
    desk.sell(1, 10, 50)
    desk.check()


def test_which_limits_count_for_which_orders() -> None:
    desk = Desk()
    desk.buy(2, 100, 40)
    desk.sell(1, 1, 100)
    desk.limits(1, max_open_orders=1, max_open_notional=100)
    # What cannot stay is not limited in what may be open.
    desk.sell(1, 10, 40, tif=TimeInForce.IOC)
    desk.sell(1, 10, 40, tif=TimeInForce.FOK)
    desk.sell(1, 10, 0, order_type=OrderType.MARKET, tif=TimeInForce.IOC)
    stop = {"order_type": OrderType.STOP, "tif": TimeInForce.IOC, "stop_ticks": 30}
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, **stop)) == Reason.OPEN_ORDERS_LIMIT  # type: ignore[arg-type]
    desk.limits(1, max_open_notional=100)
    desk.stop(1, Side.SELL, 1, 30)
    limit = {"order_type": OrderType.STOP_LIMIT, "tif": TimeInForce.IOC, "stop_ticks": 30}
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, 1, **limit)) == Reason.OPEN_NOTIONAL_LIMIT  # type: ignore[arg-type]
    desk.check()


def test_open_notional_goes_with_the_orders() -> None:
    desk = Desk()
    desk.limits(1, max_open_notional=1_000)
    order = order_id(desk.sell(1, 10, 100))
    over = desk.refused(place(desk.sender(1), 1, Side.BUY, 1, 1))
    assert over == Reason.OPEN_NOTIONAL_LIMIT
    desk.buy(2, 4, 100)
    desk.buy(1, 4, 99)
    desk.replace(1, order, 9, 100)
    desk.buy(1, 1, 99)
    assert desk.refused(place(desk.sender(1), 1, Side.BUY, 1, 6)) == Reason.OPEN_NOTIONAL_LIMIT
    desk.buy(1, 1, 5)
    desk.cancel(1, order)
    desk.buy(1, 5, 99)
    desk.check()


def test_open_notional_above_any_word_is_counted_exactly() -> None:
    """Sells need no quote units: their notional may pass 2^62 many times over."""
    desk = Desk()
    ids = [order_id(desk.sell(1, 2_000, MAX_PRICE)) for _ in range(9)]
    desk.check()
    desk.limits(1, max_open_notional=(1 << 62) - 1)
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, 1)) == Reason.OPEN_NOTIONAL_LIMIT
    for one in ids[2:]:
        desk.cancel(1, one)
    desk.check()
    # 4,096 lots at the highest price are 2^62.
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 96, MAX_PRICE)) == Reason.OPEN_NOTIONAL_LIMIT
    desk.sell(1, 95, MAX_PRICE)
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, MAX_PRICE)) == Reason.OPEN_NOTIONAL_LIMIT
    desk.sell(1, 1, MAX_PRICE - 1)
    desk.check()


def test_limits_that_are_none() -> None:
    desk = Desk()
    names = ("max_open_notional", "max_order_notional", "max_order_quantity")
    for name in names:
        for value in (-1, 1 << 62):
            assert desk.refused(set_limits(desk.sender(0), 1, **{name: value})) == Reason.INVALID_LIMIT
    assert desk.refused(set_limits(desk.sender(0), 77, max_order_quantity=-1)) == Reason.UNKNOWN_ACCOUNT
    result = desk.limits(1, max_open_orders=4, max_open_notional=5, max_order_notional=6, max_order_quantity=7)
    fields = ("account", "instrument", "order_id", "price_ticks", "quantity_lots")
    assert [int(result.events[0][name]) for name in fields] == [1, 4, 5, 6, 7]
    shown = ["max_open_orders", *names]
    assert desk.engine.inspect.accounts()[shown].tolist()[1] == (4, 5, 6, 7)
    desk.limits(1)
    assert desk.engine.inspect.accounts()[shown].tolist()[1] == (0, 0, 0, 0)
    desk.check()


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
        # With a fee as large as the notional, what one order costs would reach 2^62.
        {"taker_fee": 1_000_000},
    ],
    ids=str,
)
def test_rules_that_are_none(rules: dict[str, int]) -> None:
    desk = Desk()
    assert desk.refused(set_rules(desk.sender(0), 1, **rules)) == Reason.INVALID_RULES
    assert desk.refused(set_rules(desk.sender(0), 2, **rules)) == Reason.UNKNOWN_INSTRUMENT


def test_rules_are_told_and_kept() -> None:
    desk = Desk()
    given = {
        "band_bp": 10_000, "taker_fee": 999_999, "maker_fee": -999_999, "min_price_ticks": 2, "min_quantity_lots": 3,
        "min_notional": 4, "max_notional": 5,
    }  # fmt: skip
    event = desk.rules(**given).events[0]
    names = ("cum_lots", "account", "counter_account", "client_order_id", "quantity_lots", "order_id", "price_ticks")
    assert [int(event[name]) for name in names] == [10_000, 999_999, (1 << 32) - 999_999, 2, 3, 4, 5]
    row = desk.engine.inspect.instruments()[0]
    assert {name: int(row[name]) for name in given} == given
    again = Engine.restore(desk.engine.snapshot())
    assert again.inspect.instruments().tobytes() == desk.engine.inspect.instruments().tobytes()
    desk.check()
    desk.rules()
    desk.check()


def test_a_supply_cap() -> None:
    desk = Desk()
    for cap in (-1, 1 << 62):
        assert desk.refused(add_asset(desk.sender(0), 7, "CAP", cap=cap)) == Reason.INVALID_AMOUNT
    wrong: Commands = add_asset(desk.sender(0), 7, "CAP", decimals=19, cap=-1)
    assert desk.refused(wrong) == Reason.INVALID_QUANTITY
    event = desk.send(add_asset(desk.sender(0), 7, "CAP", cap=100)).events[0]
    assert int(event["price_ticks"]) == 100
    desk.send(deposit(desk.sender(0), 1, 7, 60, 901))
    assert desk.refused(deposit(desk.sender(0), 2, 7, 41, 902)) == Reason.SUPPLY_EXCEEDED
    desk.send(deposit(desk.sender(0), 2, 7, 40, 902))
    desk.send(withdraw(desk.sender(1), 1, 7, 10, 903))
    desk.send(deposit(desk.sender(0), 2, 7, 10, 904))
    assert desk.engine.inspect.assets()[["cap", "supply"]].tolist()[-1] == (100, 100)
    desk.check()


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
def test_only_the_venue_may(kind: CommandKind) -> None:
    desk = Desk()
    fields = {CommandKind.KILL: {}, CommandKind.REVIVE: {}, CommandKind.SET_STATUS: {"instrument": 1, "side": 2}}
    wanted: dict[str, int] = fields.get(kind, {"account": 1})
    assert desk.refused(command(kind, desk.sender(1), **wanted)) == Reason.NOT_AUTHORISED
    assert np.array_equal(desk.engine.inspect.accounts()["status"], [1, 1, 1, 1])
