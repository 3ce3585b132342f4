"""The books follow the rules of fees, holds, stops, budgets and self-trades, in streams written by hand."""

import numpy as np
import pytest

from smrx.settlement.ledger import Ledger
from smrx.settlement.settlement_errors import Violation
from smrx.wire.codes import EventKind, OrderType, Reason, Side
from smrx.wire.records import pack_symbol
from tests.settlement.script import (
    BASE,
    FUNDS,
    MAKER,
    QUOTE,
    TAKER,
    VENUE,
    Script,
    fee,
)

BUY, SELL = Side.BUY, Side.SELL


def books(script: Script) -> Ledger:
    ledger = Ledger()
    ledger.post(script.events)
    ledger.check_sums()
    ledger.check_end()
    return ledger


def owned(ledger: Ledger, account: int, asset: int) -> tuple[int, int]:
    balance = ledger.balance(account, asset)
    return balance.total, balance.held


def crossed(taker_fee: int, maker_fee: int, **wrong: int) -> Script:
    """A maker sells 7 lots at 11, a taker buys 5 of them."""
    script = Script(taker_fee, maker_fee)
    maker = script.place(MAKER, SELL, 7, 11)
    taker = script.place(TAKER, BUY, 5, 12)
    script.trade((TAKER, taker), (MAKER, maker), BUY, 5, 11, cum=(5, 5), leaves=(0, 2), wrong=wrong)
    return script


@pytest.mark.parametrize(("taker_fee", "maker_fee"), [(0, 0), (2500, 1000), (1, 1), (2500, -1000), (1_000_000, 0)])
def test_trade_posts_four_legs_and_two_fees(taker_fee: int, maker_fee: int) -> None:
    ledger = books(crossed(taker_fee, maker_fee))
    notional = 5 * 11 * 3
    paid, got = fee(notional, taker_fee), fee(notional, maker_fee)
    assert owned(ledger, TAKER, QUOTE) == (FUNDS - notional - paid, 0)
    assert owned(ledger, TAKER, BASE) == (FUNDS + 50, 0)
    assert owned(ledger, MAKER, QUOTE) == (FUNDS + notional - got, 0)
    assert owned(ledger, MAKER, BASE) == (FUNDS - 50, 20)
    assert owned(ledger, VENUE, QUOTE) == (paid + got, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cum_lots": 0}, "expected a taker's fee of 1 by the instrument's rules, found 0"),
        ({"leaves_lots": 1}, "expected a maker's fee of 0 by the instrument's rules, found 1"),
        ({"leaves_lots": -1}, "expected a maker's fee of 0"),
    ],
)
def test_wrong_fee_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(Violation, match=message):
        books(crossed(2500, -1000, **wrong))


def test_fees_round_up_in_favour_of_the_venue() -> None:
    assert (fee(165, 2500), fee(165, -1000), fee(4_000_000, -1000), fee(1 << 61, 1_000_000)) == (1, 0, -4000, 1 << 61)


@pytest.mark.parametrize("side", [BUY, SELL])
def test_hold_of_an_open_order(side: Side) -> None:
    script = Script(2500, 1000)
    order = script.place(MAKER, side, 7, 1100)
    per_lot = 1100 * 3 + fee(1100 * 3, 2500)
    held = (QUOTE, 7 * per_lot) if side == BUY else (BASE, 70)
    assert owned(books(script), MAKER, held[0]) == (FUNDS, held[1])
    script.add(
        EventKind.REPLACED, account=MAKER, side=side, instrument=1, order_id=order, order_type=OrderType.LIMIT,
        price_ticks=1100, quantity_lots=5, leaves_lots=5,
    )  # fmt: skip
    assert owned(books(script), MAKER, held[0])[1] == held[1] // 7 * 5
    script.end(MAKER, order, side, 5, 0, 1100, EventKind.CANCELLED, Reason.REQUESTED, same=False)
    assert owned(books(script), MAKER, held[0]) == (FUNDS, 0)


def test_resting_buyer_pays_less_than_it_held() -> None:
    script = Script(2500, 1000)
    maker = script.place(MAKER, BUY, 100, 1000)
    taker = script.place(TAKER, SELL, 100, 900)
    script.trade((TAKER, taker), (MAKER, maker), SELL, 100, 1000, cum=(100, 100), leaves=(0, 0))
    ledger = books(script)
    assert owned(ledger, MAKER, QUOTE) == (FUNDS - 300_000 - 300, 0)
    assert owned(ledger, TAKER, QUOTE) == (FUNDS + 300_000 - 750, 0)
    assert owned(ledger, VENUE, QUOTE) == (1050, 0)


def test_fee_rates_do_not_change_under_open_orders() -> None:
    script = Script(2500, 1000)
    script.place(MAKER, SELL, 7, 11)
    script.rules(2500, 1000)
    books(script)
    script.rules(2500, 999)
    with pytest.raises(Violation, match="fee rates change while it has 1 open orders"):
        books(script)


@pytest.mark.parametrize(("taker_fee", "maker_fee"), [(1_000_001, 0), (10, 11), (10, -11)])
def test_invalid_fee_rates_are_refused(taker_fee: int, maker_fee: int) -> None:
    with pytest.raises(Violation, match="expected -taker <= maker <= taker"):
        books(Script(taker_fee, maker_fee))


def test_market_buy_by_budget() -> None:
    script = Script(2500, 1000)
    first, second = script.place(MAKER, SELL, 2, 1000), script.place(MAKER, SELL, 9, 1100)
    budget = 2 * 3000 + fee(6000, 2500) + 3300 + fee(3300, 2500) + 5
    taker = script.place(TAKER, BUY, budget, kind=OrderType.MARKET, budget=True)
    script.trade((TAKER, taker), (MAKER, first), BUY, 2, 1000, cum=(2, 2), leaves=(0, 0), taker_done=False)
    script.trade((TAKER, taker), (MAKER, second), BUY, 1, 1100, cum=(3, 1), leaves=(0, 8), taker_done=True)
    ledger = books(script)
    assert owned(ledger, TAKER, QUOTE) == (FUNDS - budget + 5, 0)
    assert ledger.order_leaves() == {second: 8}


def test_overspent_budget_is_refused() -> None:
    script = Script(2500, 1000)
    maker = script.place(MAKER, SELL, 2, 1000)
    taker = script.place(TAKER, BUY, 6000, kind=OrderType.MARKET, budget=True)
    script.trade((TAKER, taker), (MAKER, maker), BUY, 2, 1000, cum=(2, 2), leaves=(0, 0))
    with pytest.raises(Violation, match="costs 6015, more than the 6000 left of the taker's budget"):
        books(script)


def test_budget_that_is_not_spent() -> None:
    script = Script()
    maker = script.place(MAKER, SELL, 2, 1000)
    taker = script.place(TAKER, BUY, 50_000, kind=OrderType.MARKET, budget=True)
    script.trade((TAKER, taker), (MAKER, maker), BUY, 2, 1000, cum=(2, 2), leaves=(0, 0), taker_done=False)
    script.end(TAKER, taker, BUY, 2, 2, reason=Reason.NO_LIQUIDITY)
    ledger = books(script)
    assert ledger.open_orders == 0
    assert owned(ledger, TAKER, QUOTE) == (FUNDS - 6000, 0)


@pytest.mark.parametrize("limit", [True, False])
@pytest.mark.parametrize("side", [BUY, SELL])
def test_triggered_stop(side: Side, limit: bool) -> None:
    script = Script(2500, 1000)
    other = SELL if side == BUY else BUY
    maker = script.place(MAKER, other, 5, 1000)
    price = 1000 if limit else 0
    stop = script.place(TAKER, side, 5, price, OrderType.STOP_LIMIT if limit else OrderType.STOP, extra=1000)
    asset = QUOTE if side == BUY else BASE
    pending = owned(books(script), TAKER, asset)[1]
    assert pending == (50 if side == SELL else 5 * (3000 + fee(3000, 2500)) if limit else 0)
    becomes = OrderType.LIMIT if limit else OrderType.MARKET
    script.add(
        EventKind.TRIGGERED, account=TAKER, side=side, instrument=1, order_id=stop, order_type=becomes,
        price_ticks=price, quantity_lots=5, leaves_lots=5,
    )  # fmt: skip
    script.trade((TAKER, stop), (MAKER, maker), side, 5, 1000, cum=(5, 5), leaves=(0, 0))
    ledger = books(script)
    assert ledger.open_orders == 0
    assert owned(ledger, TAKER, asset)[1] == owned(ledger, MAKER, asset)[1] == 0


def test_pending_stop_does_not_trade() -> None:
    script = Script()
    stop = script.place(MAKER, SELL, 5, 1000, OrderType.STOP_LIMIT, extra=900)
    taker = script.place(TAKER, BUY, 5, 1000)
    script.trade((TAKER, taker), (MAKER, stop), BUY, 5, 1000, cum=(5, 5), leaves=(0, 0))
    with pytest.raises(Violation, match=f"trade 1: order {stop} is not in a book"):
        books(script)


def test_only_a_pending_stop_is_triggered() -> None:
    script = Script()
    order = script.place(MAKER, SELL, 5, 1000)
    script.add(
        EventKind.TRIGGERED, account=MAKER, side=SELL, instrument=1, order_id=order, order_type=OrderType.LIMIT,
        price_ticks=1000, quantity_lots=5, leaves_lots=5,
    )  # fmt: skip
    with pytest.raises(Violation, match="expected a pending stop order"):
        books(script)


def test_self_trade_prevention_by_decrement() -> None:
    script = Script(2500, 1000)
    maker = script.place(MAKER, SELL, 7, 1000)
    taker = script.place(MAKER, BUY, 5, 1000)
    script.add(
        EventKind.REPLACED, same=True, account=MAKER, side=SELL, instrument=1, order_id=maker,
        order_type=OrderType.LIMIT, price_ticks=1000, quantity_lots=2, leaves_lots=2, reason=Reason.SELF_TRADE,
    )  # fmt: skip
    script.end(MAKER, taker, BUY, 5, 0, 1000, reason=Reason.SELF_TRADE)
    ledger = books(script)
    assert ledger.order_leaves() == {maker: 2}
    assert owned(ledger, MAKER, QUOTE) == (FUNDS, 0)
    assert owned(ledger, MAKER, BASE) == (FUNDS, 20)


def test_self_trade_pays_both_fees() -> None:
    script = Script(2500, 1000)
    maker = script.place(MAKER, SELL, 5, 1000)
    taker = script.place(MAKER, BUY, 5, 1000)
    script.trade((MAKER, taker), (MAKER, maker), BUY, 5, 1000, cum=(5, 5), leaves=(0, 0))
    ledger = books(script)
    assert owned(ledger, MAKER, QUOTE) == (FUNDS - fee(15_000, 2500) - fee(15_000, 1000), 0)
    assert owned(ledger, MAKER, BASE) == (FUNDS, 0)


def test_unfillable_order_changes_nothing() -> None:
    script = Script()
    order = script.command + 1
    script.end(TAKER, order, BUY, 5, 0, 1000, reason=Reason.FOK_UNFILLABLE, same=False)
    assert books(script).open_orders == 0


def test_supply_above_the_cap_is_refused() -> None:
    script = Script()
    script.rows[0]["price_ticks"] = 2 * FUNDS - 1
    with pytest.raises(Violation, match=f"asset BTC: {2 * FUNDS} units in all are more than its cap"):
        books(script)


def test_amounts_out_of_range_are_refused() -> None:
    script = Script()
    script.rows[2]["price_ticks"] = np.int64(1 << 60)
    with pytest.raises(Violation, match="exceeds the largest amount"):
        books(script)


def test_assets_with_equal_symbols_get_distinct_names() -> None:
    script = Script()
    script.add(EventKind.ASSET_ADDED, instrument=9, client_order_id=pack_symbol("USD"), quantity_lots=6)
    script.add(EventKind.DEPOSITED, account=MAKER, instrument=9, quantity_lots=5, cum_lots=5)
    assert books(script).supply() == {"BTC": 2 * FUNDS, "USD (2)": 2 * FUNDS, "USD (9)": 5}
