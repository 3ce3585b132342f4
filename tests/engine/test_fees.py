"""Fees, rebates, what orders hold for them, budgets, and the arithmetic under them against Python's integers."""

import random
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from numba import njit

from smrx.engine.engine import Result
from smrx.engine.kernels import fees
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.commands import add_instrument, command, place, set_rules
from tests.engine.desk import BASE, FUNDS, QUOTE, Desk, ended, fills, order_id

MOST = (1 << 62) - 1


@njit
def fee(notional: Any, rate: Any) -> Any:
    return fees.fee(notional, rate)


@njit
def lots_for(money: Any, unit: Any, rate: Any) -> Any:
    return fees.affordable_lots(money, unit, rate)


def amounts(source: random.Random) -> int:
    return source.choice([source.randrange(2_000), source.randrange(1 << 40), source.randrange(MOST), MOST])


def test_a_fee_is_rounded_up_exactly() -> None:
    source = random.Random(1)
    for _ in range(20_000):
        notional = amounts(source)
        rate = source.choice([0, 1, -1, 999_999, 1_000_000, -1_000_000, source.randint(-1_000_000, 1_000_000)])
        assert int(fee(np.int64(notional), np.int64(rate))) == ceil(Fraction(notional * rate, 1_000_000))


def test_the_most_lots_that_money_buys_are_exact() -> None:
    source = random.Random(2)
    for _ in range(20_000):
        money = amounts(source)
        unit = source.choice([1, source.randint(1, 1_000), source.randint(1, MOST)])
        rate = source.choice([0, 1, 999_999, 1_000_000, source.randint(0, 1_000_000)])
        lots = int(lots_for(np.int64(money), np.int64(unit), np.int64(rate)))

        def cost(lots: int, unit: int = unit, rate: int = rate) -> int:
            return lots * unit + ceil(Fraction(lots * unit * rate, 1_000_000))

        assert cost(lots) <= money < cost(lots + 1)
        assert lots <= floor(Fraction(money, unit))


def desk_with_fees(**more: int) -> Desk:
    """0.1 % for the taker, 0.05 % back to the maker."""
    desk = Desk()
    desk.rules(taker_fee=1_000, maker_fee=more.get("maker_fee", -500))
    return desk


def venue(desk: Desk) -> tuple[int, int]:
    return desk.money(0, QUOTE)


@pytest.mark.parametrize("taker", [Side.BUY, Side.SELL])
def test_both_sides_pay_and_the_venue_gets_it(taker: Side) -> None:
    desk = desk_with_fees()
    maker, act = (desk.sell, desk.buy) if taker == Side.BUY else (desk.buy, desk.sell)
    maker(1, 10, 1_234)
    result = act(2, 7, 1_234)
    # 8,638: the taker pays ceil(8.638), the maker gets floor(4.319).
    trade = result.events[result.events["kind"] == EventKind.TRADE][0]
    assert (int(trade["cum_lots"]), int(trade["leaves_lots"])) == (9, -4)
    paid = 8_638 if taker == Side.BUY else -8_638
    assert desk.money(2, QUOTE)[0] == -paid - 9
    assert desk.money(1, QUOTE)[0] == paid + 4
    assert venue(desk) == (5, 0)
    desk.check()


def test_fees_are_those_of_each_trade_by_itself() -> None:
    desk = desk_with_fees(maker_fee=1)
    for _ in range(3):
        desk.sell(1, 1, 10)
    result = desk.buy(2, 3, 10)
    trades = result.events[result.events["kind"] == EventKind.TRADE]
    # A hundredth of a unit is a unit.
    assert trades["cum_lots"].tolist() == trades["leaves_lots"].tolist() == [1, 1, 1]
    assert desk.money(2, QUOTE) == (-33, 0)
    assert venue(desk) == (6, 0)


def test_a_buy_holds_what_its_lots_cost_one_by_one() -> None:
    desk = desk_with_fees()
    order = order_id(desk.buy(1, 10, 1_500))
    assert desk.money(1, QUOTE) == (0, 10 * 1_502)
    desk.sell(2, 4, 1_500)
    # 6,000 paid, 3 got back; the hold of four lots is gone.
    assert desk.money(1, QUOTE) == (-5_997, 6 * 1_502)
    desk.replace(1, order, 7, 1_500)
    assert desk.money(1, QUOTE) == (-5_997, 3 * 1_502)
    desk.cancel(1, order)
    assert desk.money(1, QUOTE) == (-5_997, 0)
    desk.check()


def test_funds_must_cover_the_fee() -> None:
    desk = desk_with_fees()
    price = FUNDS // 1_001 * 1_000 // 1_000
    assert price * 1_001 <= FUNDS
    enough = FUNDS // (price + -(-price // 1_000))
    assert desk.refused(place(desk.sender(1), 1, Side.BUY, enough + 1, price)) == Reason.INSUFFICIENT_FUNDS
    desk.buy(1, enough, price)
    desk.check()


def test_rates_change_only_while_nothing_is_open() -> None:
    desk = Desk()
    order = order_id(desk.stop(1, Side.BUY, 1, 100))

    assert desk.refused(set_rules(desk.sender(0), 1, taker_fee=1)) == Reason.INSTRUMENT_HAS_ORDERS
    desk.rules(band_bp=100)
    desk.cancel(1, order)
    desk.rules(taker_fee=1)
    desk.buy(1, 1, 1)
    desk.rules(taker_fee=1, min_quantity_lots=1)
    assert desk.refused(set_rules(desk.sender(0), 1, taker_fee=1, maker_fee=-1)) == Reason.INSTRUMENT_HAS_ORDERS
    desk.check()


def test_a_fee_of_everything() -> None:
    """The seller gets nothing, and no balance for it."""
    desk = Desk(traders=2)
    desk.venue(CommandKind.OPEN_ACCOUNT, account=9)
    desk.venue(CommandKind.DEPOSIT, account=9, instrument=BASE, order_id=900, quantity_lots=5)
    desk.send(add_instrument(desk.sender(0), 2, "B2", base_asset=BASE, quote_asset=QUOTE))
    desk.send(set_rules(desk.sender(0), 2, taker_fee=1_000_000))
    desk.buy(1, 5, 100, instrument=2)
    desk.send(place(desk.sender(0), 9, Side.SELL, 5, 100, instrument=2))
    assert desk.engine.inspect.balances(9).tolist() == [(9, BASE, 0, 0)]
    assert venue(desk) == (500, 0)
    desk.check()


# Market buys by what they may cost.


def spend(desk: Desk, budget: int, **more: Any) -> Result:
    terms = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "flags": OrderFlags.QUOTE_BUDGET, **more}
    result = desk.buy(2, budget, 0, **terms)
    desk.check()
    return result


def test_a_budget_buys_until_the_next_lot_is_too_dear() -> None:
    desk = Desk()
    desk.sell(1, 3, 100)
    desk.sell(1, 5, 110)
    result = spend(desk, 525)
    # 300 for three, 220 for two more; 5 do not buy a third.
    assert [fill[1:] for fill in fills(result)] == [(100, 3), (110, 2)]
    assert ended(result) == ("FILLED", "NONE", 5, 0)
    new, first, last = (result.events[at] for at in (0, 3, 6))
    assert [int(new[name]) for name in ("quantity_lots", "cum_lots", "leaves_lots")] == [525, 0, 0]
    assert [int(first[name]) for name in ("kind", "quantity_lots", "cum_lots", "leaves_lots")] == [2, 3, 3, 0]
    assert [int(last[name]) for name in ("kind", "quantity_lots", "cum_lots", "leaves_lots")] == [3, 2, 5, 0]
    assert desk.money(2, QUOTE) == (-520, 0)


@pytest.mark.parametrize(
    ("budget", "reason", "cum"),
    [(99, "BUDGET_SPENT", 0), (450, "BUDGET_SPENT", 3), (5_000, "NO_LIQUIDITY", 8), (300, "NONE", 3)],
)
def test_how_a_budget_ends(budget: int, reason: str, cum: int) -> None:
    desk = Desk()
    desk.sell(1, 3, 100)
    desk.sell(1, 5, 160)
    result = spend(desk, budget)
    assert ended(result) == ("FILLED" if reason == "NONE" else "EXPIRED", reason, cum, 0)
    last = result.events[-1]
    if reason != "NONE":
        # Nothing died: the order's quantity is what it bought.
        assert (int(last["quantity_lots"]), int(last["cum_lots"]), int(last["leaves_lots"])) == (cum, cum, 0)


def test_a_budget_covers_fees_and_never_more_than_is_there() -> None:
    desk = desk_with_fees()
    desk.sell(1, 100, 1_000)
    # A lot is 1,001; ten are 10,010.
    assert ended(spend(desk, 10_009)) == ("FILLED", "NONE", 9, 0)
    assert desk.money(2, QUOTE) == (-9_009, 0)
    assert ended(spend(desk, 10_010)) == ("FILLED", "NONE", 10, 0)
    desk.venue(CommandKind.OPEN_ACCOUNT, account=9)
    desk.venue(CommandKind.DEPOSIT, account=9, instrument=QUOTE, order_id=900, quantity_lots=5_000)
    terms = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "flags": OrderFlags.QUOTE_BUDGET}
    poor = desk.send(place(desk.sender(0), 9, Side.BUY, 6_000, **terms))  # type: ignore[arg-type]
    assert ended(poor) == ("EXPIRED", "FUNDS_EXHAUSTED", 4, 0)
    assert int(desk.engine.inspect.balances(9)["available"][-1]) == 5_000 - 4_004
    desk.check()


def test_a_market_buy_by_lots_pays_its_fee_out_of_what_is_there() -> None:
    desk = desk_with_fees()
    desk.sell(1, 100, 1_000)
    desk.venue(CommandKind.OPEN_ACCOUNT, account=9)
    desk.venue(CommandKind.DEPOSIT, account=9, instrument=QUOTE, order_id=900, quantity_lots=10_009)
    poor = desk.send(place(desk.sender(0), 9, Side.BUY, 50, order_type=OrderType.MARKET, tif=TimeInForce.IOC))
    assert ended(poor) == ("EXPIRED", "FUNDS_EXHAUSTED", 9, 0)
    desk.check()


def test_a_budget_cancels_own_orders_on_its_way() -> None:
    """It meets them before it looks at its money: more events than lots that it could buy."""
    desk = Desk()
    own = [order_id(desk.sell(2, 1, 100)) for _ in range(40)]
    desk.sell(1, 1, 100)
    result = spend(desk, 99, stp=Stp.CANCEL_OLDEST)
    assert result.events["order_id"][1:-1].tolist() == own
    assert ended(result) == ("EXPIRED", "BUDGET_SPENT", 0, 0)


@pytest.mark.parametrize(
    "terms",
    [
        {"side": Side.SELL},
        {"order_type": OrderType.LIMIT, "tif": TimeInForce.GTC, "price_ticks": 1},
        {"order_type": OrderType.STOP, "order_id": 5},
        {"stp": Stp.DECREMENT},
        {"flags": 3},
    ],
)
def test_where_a_budget_has_no_meaning(terms: dict[str, int]) -> None:
    desk = Desk()
    fields: dict[str, int] = {
        "side": Side.BUY, "order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "stp": Stp.CANCEL_NEWEST,
        "flags": OrderFlags.QUOTE_BUDGET, "quantity_lots": 1 << 61, "instrument": 1, "account": 2,
    }  # fmt: skip
    wrong = command(CommandKind.PLACE, desk.sender(2), **(fields | terms))
    assert desk.refused(wrong) == Reason.UNSUPPORTED_COMBINATION
    none = command(CommandKind.PLACE, desk.sender(2), **(fields | {"quantity_lots": 0}))
    assert desk.refused(none) == Reason.INVALID_QUANTITY
