"""GTD orders and TICK: which orders expire, in which sequence, and before which command."""

import random

import pytest

from smrx.engine import Engine
from smrx.engine.state import NEVER
from smrx.wire.codes import CommandKind, Reason, Side, Stp, TimeInForce
from tests.commands import apply, command, join, place
from tests.engine.small_market import BASE, QUOTE, SECOND, SmallMarket, events_of, fills, last_outcome, order_id


def gtd(market: SmallMarket, account: int, lots: int, price: int, seconds: int, **more: int) -> int:
    """Place a GTD sell order; return its id."""
    return order_id(market.sell(account, lots, price, tif=TimeInForce.GTD, expiry_seconds=seconds, **more))


def test_orders_expire_by_time_then_id() -> None:
    market = SmallMarket()
    late, early, same = gtd(market, 1, 1, 100, 30), gtd(market, 2, 2, 100, 20), gtd(market, 1, 3, 90, 20)
    assert market.next_order_expiry() == 20 * SECOND
    assert events_of(market.tick(19)) == [("TICKED", 0)]
    assert events_of(market.tick(30)) == [("EXPIRED", early), ("EXPIRED", same), ("EXPIRED", late), ("TICKED", 0)]
    assert market.next_order_expiry() is None
    assert market.engine._state.core["next_expiry"][0] == NEVER
    assert market.balance_change(1, BASE) == (0, 0)
    market.check_state()


def test_expiry_comes_before_the_command_and_belongs_to_it() -> None:
    market = SmallMarket()
    gone, stays = gtd(market, 1, 5, 100, 10), gtd(market, 1, 5, 101, 11)
    take = place(market.sender(2), 2, Side.BUY, 6, 200)
    result = market.send(take, 10 * SECOND)
    assert events_of(result)[0] == ("EXPIRED", gone)
    assert fills(result) == [(stays, 101, 5)]
    first = result.events[0]
    assert (int(first["reason"]), int(first["session_id"]), int(first["time_ns"])) == (206, 12, 10 * SECOND)
    assert set(result.events["command_sequence"].tolist()) == {market.engine.sequence}
    assert int(result.outcomes["first_event"][0]) == int(first["sequence"])
    assert int(result.outcomes["event_count"][0]) == len(result.events) == 5
    # The outcome's cum and leaves are the taker's, not those of the expired order.
    assert last_outcome(result) == ("PARTIALLY_FILLED", "NONE", 5, 1)
    market.check_state()


def test_rejected_command_expires_orders_but_a_duplicate_does_not() -> None:
    market = SmallMarket()
    order = gtd(market, 1, 5, 100, 10)
    again = command(CommandKind.CANCEL, (11, 1), account=1, order_id=order)
    assert len(apply(market.engine, again, 99 * SECOND).events) == 0
    assert market.engine.time_ns == 1
    assert market.open_ids() == [order]
    late = command(CommandKind.CANCEL, market.sender(1), account=1, order_id=order)
    result = apply(market.engine, late, 99 * SECOND)
    assert events_of(result) == [("EXPIRED", order), ("REJECTED", order)]
    assert result.outcomes["reason"].tolist() == [Reason.UNKNOWN_ORDER]
    market.check_state()


def test_engine_time_never_goes_back() -> None:
    market = SmallMarket()
    market.tick(100)
    late = place(market.sender(1), 1, Side.SELL, 1, 100, tif=TimeInForce.GTD, expiry_seconds=100)
    assert market.rejected(late) == Reason.INVALID_EXPIRY
    assert market.rejected(place(market.sender(1), 1, Side.SELL, 1, 100, tif=TimeInForce.GTD)) == Reason.INVALID_EXPIRY
    gtd(market, 1, 1, 100, 101)
    assert market.engine.time_ns == 100 * SECOND
    market.check_state()


def test_expiry_is_exact_to_the_nanosecond() -> None:
    market = SmallMarket()
    last = NEVER - 1
    late, early = (
        order_id(market.sell(1, 1, 100, tif=TimeInForce.GTD, expiry_ns=expiry)) for expiry in (last, last - 1)
    )
    assert market.next_order_expiry() == last - 1
    tick = command(CommandKind.TICK)
    # After so long a silence the sessions end, too.
    assert {name for name, _ in events_of(market.send(tick, last - 2))} == {"SESSION_EXPIRED", "TICKED"}
    assert events_of(market.send(tick, last - 1)) == [("EXPIRED", early), ("TICKED", 0)]
    assert events_of(market.send(tick, last)) == [("EXPIRED", late), ("TICKED", 0)]


@pytest.mark.parametrize("price", [0, 115])
def test_pending_stop_expires(price: int) -> None:
    """A stop order, also one that will be a market order, waits no longer than its expiry."""
    market = SmallMarket()
    stop = order_id(market.stop(1, Side.BUY, 5, 110, price, tif=TimeInForce.GTD, expiry_seconds=9))
    kept = order_id(market.stop(2, Side.BUY, 5, 110, price, tif=TimeInForce.GTD, expiry_seconds=11))
    assert events_of(market.tick(10)) == [("EXPIRED", stop), ("TICKED", 0)]
    assert market.open_ids() == [kept]
    assert market.balance_change(1, QUOTE) == (0, 0)
    market.check_state()


def test_triggered_stop_limit_keeps_its_expiry_and_a_stop_leaves_nothing() -> None:
    market = SmallMarket()
    limit = order_id(market.stop(1, Side.BUY, 5, 110, 115, tif=TimeInForce.GTD, expiry_seconds=9, display_lots=2))
    order_id(market.stop(2, Side.BUY, 5, 110, tif=TimeInForce.GTD, expiry_seconds=8))
    market.sell(3, 1, 110)
    market.buy(3, 1, 110, stp=Stp.NONE)
    assert market.open_ids() == [limit]
    row = market.engine.inspect.orders()[0]
    assert row[["stop_price_ticks", "display_lots", "shown_lots", "expiry_ns"]].item() == (0, 2, 2, 9 * SECOND)
    assert market.next_order_expiry() == 9 * SECOND
    market.check_state()
    assert events_of(market.tick(9)) == [("EXPIRED", limit), ("TICKED", 0)]
    market.check_state()


def test_tick_needs_no_session_and_has_no_fields() -> None:
    market = SmallMarket()
    result = market.tick(5)
    assert last_outcome(result) == ("TICKED", "NONE", 0, 0)
    assert market.engine.time_ns == 5 * SECOND
    for fields in ({"session_id": 11}, {"request_id": 1}, {"account": 1}, {"side": 1}, {"price_ticks": 1}):
        wrong = command(CommandKind.TICK)
        for name, value in fields.items():
            wrong.records[name] = value
        assert market.rejected(wrong) == Reason.RESERVED_NOT_ZERO
    # The rejected commands used no request id of the session.
    market.buy(1, 1, 1)


def test_replaced_order_keeps_its_expiry() -> None:
    market = SmallMarket()
    first, second = gtd(market, 1, 5, 100, 10), gtd(market, 2, 5, 100, 10)
    market.replace(1, first, 9, 120)
    market.check_state()
    assert events_of(market.tick(10)) == [("EXPIRED", first), ("EXPIRED", second), ("TICKED", 0)]


@pytest.mark.parametrize("seed", range(3))
def test_heap_equals_a_sorted_list(seed: int) -> None:
    """Random expiries and cancels, and time in jumps: the earliest orders always expire first."""
    source = random.Random(seed)
    market = SmallMarket()
    waiting: dict[int, int] = {}
    now = 0
    for step in range(300):
        action = source.random()
        if action < 0.6 or not waiting:
            expiry = now + source.randint(1, 40)
            waiting[gtd(market, 1 + step % 3, 1, 100 + step % 5, expiry)] = expiry
        elif action < 0.8:
            order = source.choice(sorted(waiting))
            owner = int(market.engine.inspect.orders()["account"][market.open_ids().index(order)])
            del waiting[order]
            market.cancel(owner, order)
        else:
            now += source.randint(0, 15)
            due = sorted((expiry, order) for order, expiry in waiting.items() if expiry <= now)
            assert events_of(market.tick(now)) == [*(("EXPIRED", order) for _, order in due), ("TICKED", 0)]
            waiting = {order: expiry for order, expiry in waiting.items() if expiry > now}
        first = min(waiting.values(), default=None)
        assert market.next_order_expiry() == (None if first is None else first * SECOND)
    market.check_state()


def test_restored_engine_expires_orders() -> None:
    market = SmallMarket()
    orders = [gtd(market, 1, 1, 100, seconds) for seconds in (9, 7, 8, 7)]
    again = Engine.restore(market.engine.snapshot())
    assert again.snapshot() == market.engine.snapshot()
    tick = command(CommandKind.TICK)
    expected = [("EXPIRED", orders[at]) for at in (1, 3, 2, 0)]
    assert events_of(apply(again, join([tick]), 9 * SECOND)) == [*expected, ("TICKED", 0)]
