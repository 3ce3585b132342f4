"""Fees, rebates, holds for fees and budgets, and their arithmetic compared with Python's integers."""

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
from tests.engine.small_market import BASE, FUNDS, QUOTE, SmallMarket, fills, last_outcome, order_id

MOST = (1 << 62) - 1


@njit
def fee(notional: Any, rate: Any) -> Any:
    return fees.fee(notional, rate)


@njit
def lots_for(money: Any, unit: Any, rate: Any) -> Any:
    return fees.affordable_lots(money, unit, rate)


def amounts(source: random.Random) -> int:
    return source.choice([source.randrange(2_000), source.randrange(1 << 40), source.randrange(MOST), MOST])


def test_fee_is_rounded_up_exactly() -> None:
    source = random.Random(1)
    for _ in range(20_000):
        notional = amounts(source)
        rate = source.choice([0, 1, -1, 999_999, 1_000_000, -1_000_000, source.randint(-1_000_000, 1_000_000)])
        assert int(fee(np.int64(notional), np.int64(rate))) == ceil(Fraction(notional * rate, 1_000_000))


def test_affordable_lots_are_exact() -> None:
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


def market_with_fees(**more: int) -> SmallMarket:
    """Return a market where the taker pays 0.1 % and the maker gets 0.05 %."""
    market = SmallMarket()
    market.set_rules(taker_fee=1_000, maker_fee=more.get("maker_fee", -500))
    return market


def venue(market: SmallMarket) -> tuple[int, int]:
    return market.balance_change(0, QUOTE)


@pytest.mark.parametrize("taker", [Side.BUY, Side.SELL])
def test_venue_receives_the_fees_of_both_sides(taker: Side) -> None:
    market = market_with_fees()
    maker, act = (market.sell, market.buy) if taker == Side.BUY else (market.buy, market.sell)
    maker(1, 10, 1_234)
    result = act(2, 7, 1_234)
    # Of 8,638 the taker pays ceil(8.638), the maker gets floor(4.319).
    trade = result.events[result.events["kind"] == EventKind.TRADE][0]
    assert (int(trade["cum_lots"]), int(trade["leaves_lots"])) == (9, -4)
    paid = 8_638 if taker == Side.BUY else -8_638
    assert market.balance_change(2, QUOTE)[0] == -paid - 9
    assert market.balance_change(1, QUOTE)[0] == paid + 4
    assert venue(market) == (5, 0)
    market.check_state()


def test_fees_are_rounded_for_each_trade() -> None:
    market = market_with_fees(maker_fee=1)
    for _ in range(3):
        market.sell(1, 1, 10)
    result = market.buy(2, 3, 10)
    trades = result.events[result.events["kind"] == EventKind.TRADE]
    # A hundredth of a unit is rounded up to a unit.
    assert trades["cum_lots"].tolist() == trades["leaves_lots"].tolist() == [1, 1, 1]
    assert market.balance_change(2, QUOTE) == (-33, 0)
    assert venue(market) == (6, 0)


def test_buy_holds_price_and_fee_of_each_lot() -> None:
    market = market_with_fees()
    order = order_id(market.buy(1, 10, 1_500))
    assert market.balance_change(1, QUOTE) == (0, 10 * 1_502)
    market.sell(2, 4, 1_500)
    # 6,000 paid, 3 received as rebate; the hold of four lots is released.
    assert market.balance_change(1, QUOTE) == (-5_997, 6 * 1_502)
    market.replace(1, order, 7, 1_500)
    assert market.balance_change(1, QUOTE) == (-5_997, 3 * 1_502)
    market.cancel(1, order)
    assert market.balance_change(1, QUOTE) == (-5_997, 0)
    market.check_state()


def test_funds_must_cover_the_fee() -> None:
    market = market_with_fees()
    price = FUNDS // 1_001 * 1_000 // 1_000
    assert price * 1_001 <= FUNDS
    enough = FUNDS // (price + -(-price // 1_000))
    assert market.rejected(place(market.sender(1), 1, Side.BUY, enough + 1, price)) == Reason.INSUFFICIENT_FUNDS
    market.buy(1, enough, price)
    market.check_state()


def test_fee_rates_change_only_without_open_orders() -> None:
    market = SmallMarket()
    order = order_id(market.stop(1, Side.BUY, 1, 100))

    assert market.rejected(set_rules(market.sender(0), 1, taker_fee=1)) == Reason.INSTRUMENT_HAS_ORDERS
    market.set_rules(band_bp=100)
    market.cancel(1, order)
    market.set_rules(taker_fee=1)
    market.buy(1, 1, 1)
    market.set_rules(taker_fee=1, min_quantity_lots=1)
    assert market.rejected(set_rules(market.sender(0), 1, taker_fee=1, maker_fee=-1)) == Reason.INSTRUMENT_HAS_ORDERS
    market.check_state()


def test_fee_of_the_whole_notional() -> None:
    """The seller receives nothing, and gets no balance."""
    market = SmallMarket(traders=2)
    market.send_as_venue(CommandKind.OPEN_ACCOUNT, account=9)
    market.send_as_venue(CommandKind.DEPOSIT, account=9, instrument=BASE, order_id=900, quantity_lots=5)
    market.send(add_instrument(market.sender(0), 2, "B2", base_asset=BASE, quote_asset=QUOTE))
    market.send(set_rules(market.sender(0), 2, taker_fee=1_000_000))
    market.buy(1, 5, 100, instrument=2)
    market.send(place(market.sender(0), 9, Side.SELL, 5, 100, instrument=2))
    assert market.engine.inspect.balances(9).tolist() == [(9, BASE, 0, 0)]
    assert venue(market) == (500, 0)
    market.check_state()


# Market buys by budget.


def spend(market: SmallMarket, budget: int, **more: Any) -> Result:
    terms = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "flags": OrderFlags.QUOTE_BUDGET, **more}
    result = market.buy(2, budget, 0, **terms)
    market.check_state()
    return result


def test_budget_buys_until_the_next_lot_is_too_expensive() -> None:
    market = SmallMarket()
    market.sell(1, 3, 100)
    market.sell(1, 5, 110)
    result = spend(market, 525)
    # 300 for three, 220 for two more; the remaining 5 do not buy another lot.
    assert [fill[1:] for fill in fills(result)] == [(100, 3), (110, 2)]
    assert last_outcome(result) == ("FILLED", "NONE", 5, 0)
    new, first, last = (result.events[at] for at in (0, 3, 6))
    assert [int(new[name]) for name in ("quantity_lots", "cum_lots", "leaves_lots")] == [525, 0, 0]
    assert [int(first[name]) for name in ("kind", "quantity_lots", "cum_lots", "leaves_lots")] == [2, 3, 3, 0]
    assert [int(last[name]) for name in ("kind", "quantity_lots", "cum_lots", "leaves_lots")] == [3, 2, 5, 0]
    assert market.balance_change(2, QUOTE) == (-520, 0)


@pytest.mark.parametrize(
    ("budget", "reason", "cum"),
    [(99, "BUDGET_SPENT", 0), (450, "BUDGET_SPENT", 3), (5_000, "NO_LIQUIDITY", 8), (300, "NONE", 3)],
)
def test_budget_outcomes(budget: int, reason: str, cum: int) -> None:
    market = SmallMarket()
    market.sell(1, 3, 100)
    market.sell(1, 5, 160)
    result = spend(market, budget)
    assert last_outcome(result) == ("FILLED" if reason == "NONE" else "EXPIRED", reason, cum, 0)
    last = result.events[-1]
    if reason != "NONE":
        # The order's quantity is what it bought.
        assert (int(last["quantity_lots"]), int(last["cum_lots"]), int(last["leaves_lots"])) == (cum, cum, 0)


def test_budget_covers_fees_within_the_available_balance() -> None:
    market = market_with_fees()
    market.sell(1, 100, 1_000)
    # A lot is 1,001; ten are 10,010.
    assert last_outcome(spend(market, 10_009)) == ("FILLED", "NONE", 9, 0)
    assert market.balance_change(2, QUOTE) == (-9_009, 0)
    assert last_outcome(spend(market, 10_010)) == ("FILLED", "NONE", 10, 0)
    market.send_as_venue(CommandKind.OPEN_ACCOUNT, account=9)
    market.send_as_venue(CommandKind.DEPOSIT, account=9, instrument=QUOTE, order_id=900, quantity_lots=5_000)
    terms = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "flags": OrderFlags.QUOTE_BUDGET}
    poor = market.send(place(market.sender(0), 9, Side.BUY, 6_000, **terms))  # type: ignore[arg-type]
    assert last_outcome(poor) == ("EXPIRED", "FUNDS_EXHAUSTED", 4, 0)
    assert int(market.engine.inspect.balances(9)["available"][-1]) == 5_000 - 4_004
    market.check_state()


def test_market_buy_by_lots_pays_its_fee_from_the_available_balance() -> None:
    market = market_with_fees()
    market.sell(1, 100, 1_000)
    market.send_as_venue(CommandKind.OPEN_ACCOUNT, account=9)
    market.send_as_venue(CommandKind.DEPOSIT, account=9, instrument=QUOTE, order_id=900, quantity_lots=10_009)
    poor = market.send(place(market.sender(0), 9, Side.BUY, 50, order_type=OrderType.MARKET, tif=TimeInForce.IOC))
    assert last_outcome(poor) == ("EXPIRED", "FUNDS_EXHAUSTED", 9, 0)
    market.check_state()


def test_budget_order_cancels_own_makers() -> None:
    """It meets them before its funds are checked: more events than lots that it could buy."""
    market = SmallMarket()
    own = [order_id(market.sell(2, 1, 100)) for _ in range(40)]
    market.sell(1, 1, 100)
    result = spend(market, 99, stp=Stp.CANCEL_OLDEST)
    assert result.events["order_id"][1:-1].tolist() == own
    assert last_outcome(result) == ("EXPIRED", "BUDGET_SPENT", 0, 0)


@pytest.mark.parametrize(
    "terms",
    [
        {"side": Side.SELL},
        {"order_type": OrderType.LIMIT, "tif": TimeInForce.GTC, "price_ticks": 1},
        {"order_type": OrderType.STOP, "stop_price_ticks": 5},
        {"stp": Stp.DECREMENT},
        {"flags": 3},
    ],
)
def test_budget_is_rejected_for_other_orders(terms: dict[str, int]) -> None:
    market = SmallMarket()
    fields: dict[str, int] = {
        "side": Side.BUY, "order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "stp": Stp.CANCEL_NEWEST,
        "flags": OrderFlags.QUOTE_BUDGET, "quantity_lots": 1 << 61, "instrument": 1, "account": 2,
    }  # fmt: skip
    wrong = command(CommandKind.PLACE, market.sender(2), **(fields | terms))
    assert market.rejected(wrong) == Reason.UNSUPPORTED_COMBINATION
    none = command(CommandKind.PLACE, market.sender(2), **(fields | {"quantity_lots": 0}))
    assert market.rejected(none) == Reason.INVALID_QUANTITY
