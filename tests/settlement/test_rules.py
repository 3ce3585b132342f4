"""The books follow the rules of fees, holds, stops, budgets and self-trades, in streams written by hand."""

from collections.abc import Callable

import pytest

from smrx.follower.follow_errors import FollowError, Violation
from smrx.settlement.books.posting_table import POSTINGS, Posting, posting_codes
from smrx.settlement.ledger import Ledger
from smrx.sinks.rows import STORES, Catalogue, extract, store_codes
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind, OrderType, Reason, Side
from smrx.wire.records import EVENT_LAYOUTS, pack_symbol
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


def crossed(taker_fee: int, maker_fee: int, wrong: dict[str, int] | None = None) -> Script:
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
        ({"taker_fee": 0}, "expected a taker's fee of 1 by the instrument's rules, found 0"),
        ({"maker_fee": 1}, "expected a maker's fee of 0 by the instrument's rules, found 1"),
        ({"maker_fee": -1}, "expected a maker's fee of 0"),
    ],
)
def test_wrong_fee_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(Violation, match=message):
        books(crossed(2500, -1000, wrong))


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
    stop = script.place(TAKER, side, 5, price, OrderType.STOP_LIMIT if limit else OrderType.STOP)
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
    stop = script.place(MAKER, SELL, 5, 1000, OrderType.STOP_LIMIT)
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
    script.rows[0].view(EVENT_LAYOUTS[EventKind.ASSET_ADDED])["supply_cap"] = 2 * FUNDS - 1
    with pytest.raises(Violation, match=f"asset BTC: {2 * FUNDS} units in all are more than its cap"):
        books(script)


def test_amounts_out_of_range_are_refused() -> None:
    script = Script()
    script.rows[2].view(EVENT_LAYOUTS[EventKind.INSTRUMENT_ADDED])["max_price_ticks"] = 1 << 60
    with pytest.raises(Violation, match="exceeds the largest amount"):
        books(script)


def test_assets_with_equal_symbols_get_distinct_names() -> None:
    script = Script()
    script.add(EventKind.ASSET_ADDED, asset=9, symbol=pack_symbol("USD"), decimals=6)
    script.add(EventKind.DEPOSITED, account=MAKER, asset=9, amount=5, available_after=5)
    assert books(script).supply() == {"BTC": 2 * FUNDS, "USD (2)": 2 * FUNDS, "USD (9)": 5}


def test_symbols_have_up_to_16_characters() -> None:
    script = Script()
    script.add(EventKind.ASSET_ADDED, asset=9, symbol=b"STAKED-ETHER.123", decimals=18)
    assert books(script).asset_names()[9] == "STAKED-ETHER.123"


ID, TERMS = EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS


@pytest.mark.parametrize("kinds", [[ID], [TERMS], [ID, TERMS]])
def test_events_that_belong_to_an_order_follow_it(kinds: list[EventKind]) -> None:
    script = Script()
    order = script.place(MAKER, SELL, 5, 1000, following=len(kinds))
    for number, kind in enumerate(kinds):
        ledger = Ledger()
        ledger.post(script.events)
        assert ledger.is_incomplete
        with pytest.raises(FollowError, match="only be saved between commands, and an order for events of its own"):
            ledger.save()
        with pytest.raises(Violation, match=f"{len(kinds) - number} more events must belong to the last order"):
            ledger.check_end()
        script.follow(kind, order)
    ledger = books(script)
    assert not ledger.is_incomplete
    assert ledger.order_leaves() == {order: 5}


def test_events_follow_rejected_orders_and_those_that_cannot_fill() -> None:
    script = Script()
    script.add(EventKind.REJECTED, account=MAKER, instrument=1, order_id=0, following=2)
    script.follow(ID, 0)
    script.follow(TERMS, 0)
    order = script.add(
        EventKind.EXPIRED, account=TAKER, side=BUY, instrument=1, order_id=script.command + 1, price_ticks=1000,
        quantity_lots=5, reason=Reason.FOK_UNFILLABLE, following=1,
    )  # fmt: skip
    script.follow(ID, order, TAKER)
    assert books(script).open_orders == 0


def _credential(script: Script, kind: EventKind = EventKind.CREDENTIAL_ADDED, following: int = 0) -> None:
    """Write the event of credential 7, whose bytes are set wherever an order would have others."""
    script.add(
        kind, number=7, account=MAKER, key=b"\xff" * 32, permissions=0x7F, scope=1, expires_ns=1 << 62, subject=MAKER,
        following=following, credential=9,
    )  # fmt: skip


def _networks(script: Script, number: int = 7, *, same: bool = True) -> None:
    script.add(
        EventKind.CREDENTIAL_NETWORKS, same=same, number=number, account=MAKER, networks=b"\xff" * 64,
        prefixes=b"\x80" * 4,
    )  # fmt: skip


def test_credentials_move_no_money_and_stop_nothing() -> None:
    """Nor does a credential in the events of orders and trades."""
    script = Script()
    before = books(script)
    _credential(script)
    _credential(script, EventKind.CREDENTIAL_ADDED, following=1)
    _networks(script)
    _credential(script, EventKind.CREDENTIAL_SET, following=1)
    _networks(script)
    _credential(script, EventKind.CREDENTIAL_REVOKED)
    script.add(EventKind.ACCOUNT_OPENED, account=44, firm=(1 << 32) - 1, credential=9)
    after = books(script)
    assert (after.order_leaves(), after.balances()) == (before.order_leaves(), before.balances())
    resting = script.place(MAKER, SELL, 5, 1000, following=1)
    script.add(TERMS, same=True, order_id=resting, account=MAKER, instrument=1, credential=9)
    assert books(script).order_leaves() == {resting: 5}


def _without_networks(script: Script) -> None:
    _credential(script, following=1)
    script.place(MAKER, SELL, 5, 1000)


def _two_networks(script: Script) -> None:
    _credential(script, following=2)


def _networks_alone(script: Script) -> None:
    _credential(script)
    _networks(script)


def _networks_of_another(script: Script) -> None:
    _credential(script, following=1)
    _networks(script, 8)


def _networks_in_the_next_command(script: Script) -> None:
    _credential(script, following=1)
    _networks(script, same=False)


def _networks_of_an_order(script: Script) -> None:
    script.place(MAKER, SELL, 5, 1000, following=1)
    _networks(script)


def _terms_of_a_credential(script: Script) -> None:
    _credential(script, following=1)
    script.follow(TERMS, 0)


def _without_followers(script: Script) -> None:
    script.place(MAKER, SELL, 5, 1000, following=1)
    script.place(MAKER, SELL, 5, 1000)


def _one_of_two(script: Script) -> None:
    script.follow(ID, script.place(MAKER, SELL, 5, 1000, following=2))
    script.place(MAKER, SELL, 5, 1000)


def _terms_first(script: Script) -> None:
    order = script.place(MAKER, SELL, 5, 1000, following=2)
    script.follow(TERMS, order)


def _id_twice(script: Script) -> None:
    order = script.place(MAKER, SELL, 5, 1000, following=2)
    script.follow(ID, order)
    script.follow(ID, order)


def _three(script: Script) -> None:
    script.place(MAKER, SELL, 5, 1000, following=3)


def _alone(script: Script) -> None:
    script.follow(TERMS, script.place(MAKER, SELL, 5, 1000))


def _another_order(script: Script) -> None:
    script.follow(ID, script.place(MAKER, SELL, 5, 1000, following=1) + 1)


def _another_account(script: Script) -> None:
    script.follow(ID, script.place(MAKER, SELL, 5, 1000, following=1), TAKER)


def _another_instrument(script: Script) -> None:
    script.follow(ID, script.place(MAKER, SELL, 5, 1000, following=1), instrument=2)


def _in_the_next_command(script: Script) -> None:
    order = script.place(MAKER, SELL, 5, 1000, following=1)
    script.add(ID, order_id=order, account=MAKER, instrument=1)


def _after_a_cancel(script: Script) -> None:
    order = script.place(MAKER, SELL, 5, 1000)
    script.add(
        EventKind.CANCELLED, account=MAKER, side=SELL, instrument=1, order_id=order, price_ticks=1000,
        quantity_lots=5, following=1,
    )  # fmt: skip


def _after_the_expiry_of_an_open_order(script: Script) -> None:
    order = script.place(MAKER, SELL, 5, 1000)
    script.add(
        EventKind.EXPIRED, account=MAKER, side=SELL, instrument=1, order_id=order, price_ticks=1000,
        quantity_lots=5, following=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_without_followers, "1 more events must belong to it, found kind 1 .NEW."),
        (_one_of_two, "1 more events must belong to it, found kind 1 .NEW."),
        (_terms_first, "expected CLIENT_ORDER_ID, then ORDER_TERMS, with 2 to come, found 29 .ORDER_TERMS."),
        (_id_twice, "expected CLIENT_ORDER_ID, then ORDER_TERMS, with 1 to come, found 28 .CLIENT_ORDER_ID."),
        (_three, "expected at most 2 events that belong to it, found 3"),
        (_alone, "found kind 29 .ORDER_TERMS., and the event before it has nothing that follows"),
        (_another_order, r"expected order \d+, account 1, instrument 1, as event \d+ has, found \d+, 1, 1"),
        (_another_account, r"found \d+, 2, 1"),
        (_another_instrument, r"found \d+, 1, 2"),
        (_in_the_next_command, r"expected order \d+, account 1, instrument 1, as event"),
        (_after_a_cancel, "expected at most 0 events that belong to it, found 1"),
        (_without_networks, "1 more events must belong to it, found kind 1 .NEW."),
        (_two_networks, "credential 7: expected at most 1 event that belongs to it, found 2"),
        (_networks_alone, "found kind 35 .CREDENTIAL_NETWORKS., and the event before it has nothing that follows"),
        (_networks_of_another, r"expected the networks of credential 7, as event \d+ has, found those of 8"),
        (_networks_in_the_next_command, r"expected the networks of credential 7, as event \d+ has"),
        (_networks_of_an_order, r"event \d+: expected what belongs to it, found 35 .CREDENTIAL_NETWORKS."),
        (_terms_of_a_credential, r"event \d+: expected what belongs to it, found 29 .ORDER_TERMS."),
        (_after_the_expiry_of_an_open_order, "expected at most 0 events that belong to it, found 1"),
    ],
)
def test_events_in_the_wrong_place_are_refused(write: Callable[[Script], None], message: str) -> None:
    script = Script()
    write(script)
    with pytest.raises(Violation, match=message):
        books(script)


MOVES_NO_MONEY = sorted(kind for kind, posting in POSTINGS.items() if posting is Posting.NOTHING)


@pytest.mark.parametrize("kind", MOVES_NO_MONEY)
def test_other_events_change_nothing(kind: EventKind) -> None:
    script = Script()
    script.place(MAKER, SELL, 5, 1000)
    before = books(script)
    script.add(kind, account=MAKER)
    after = books(script)
    assert (after.balances(), after.order_leaves()) == (before.balances(), before.order_leaves())


def test_every_kind_is_in_the_tables() -> None:
    """A kind that is missing is refused; this test says so before a run does."""
    assert set(POSTINGS) == set(STORES) == set(EventKind)
    assert Posting.REFUSED not in POSTINGS.values()
    for kind in EventKind:
        # What becomes a row also changes the books; of what changes them, orders and accounts become none.
        assert (STORES[kind] is None) or POSTINGS[kind] is not Posting.NOTHING


def test_kind_that_is_in_no_table_is_refused() -> None:
    codes = posting_codes({kind: posting for kind, posting in POSTINGS.items() if kind != EventKind.KILLED})
    assert codes[EventKind.KILLED] == codes[99] == Posting.REFUSED
    stores = store_codes({kind: store for kind, store in STORES.items() if kind != EventKind.KILLED})
    assert stores[EventKind.KILLED] == 0
    assert 256 - stores.count(0) == len(EventKind) - 1
    script = Script()
    script.add(EventKind.KILLED)
    script.rows[-1]["kind"] = 99
    with pytest.raises(Violation, match="expected a known kind, found 99"):
        books(script)
    with pytest.raises(SinkMismatch, match="has kind 99, which this version of smrx does not know"):
        extract(script.events, Catalogue())
