"""GTD and TICK: who ends when, in which order, and before what."""

import random

import pytest

from smrx.engine import Engine
from smrx.engine.state import NEVER
from smrx.wire.codes import CommandKind, Reason, Side, TimeInForce
from tests.commands import command, join, place
from tests.engine.desk import BASE, SECOND, Desk, ended, fills, order_id, told


def gtd(desk: Desk, account: int, lots: int, price: int, seconds: int, **more: int) -> int:
    return order_id(desk.sell(account, lots, price, tif=TimeInForce.GTD, expiry_seconds=seconds, **more))


def test_orders_end_in_order_of_expiry_then_id() -> None:
    desk = Desk()
    late, early, same = gtd(desk, 1, 1, 100, 30), gtd(desk, 2, 2, 100, 20), gtd(desk, 1, 3, 90, 20)
    assert desk.engine.next_expiry_ns == 20 * SECOND
    assert told(desk.tick(19)) == [("TICKED", 0)]
    assert told(desk.tick(30)) == [("EXPIRED", early), ("EXPIRED", same), ("EXPIRED", late), ("TICKED", 0)]
    assert desk.engine.next_expiry_ns is None
    assert desk.engine._state.core["next_expiry"][0] == NEVER
    assert desk.money(1, BASE) == (0, 0)
    desk.check()


def test_expiry_comes_before_the_command_and_belongs_to_it() -> None:
    desk = Desk()
    gone, stays = gtd(desk, 1, 5, 100, 10), gtd(desk, 1, 5, 101, 11)
    take = place(desk.sender(2), 2, Side.BUY, 6, 200)
    result = desk.send(take, 10 * SECOND)
    assert told(result)[0] == ("EXPIRED", gone)
    assert fills(result) == [(stays, 101, 5)]
    first = result.events[0]
    assert (int(first["reason"]), int(first["session_id"]), int(first["time_ns"])) == (206, 12, 10 * SECOND)
    assert set(result.events["command_sequence"].tolist()) == {desk.engine.sequence}
    assert int(result.outcomes["first_event"][0]) == int(first["sequence"])
    assert int(result.outcomes["event_count"][0]) == len(result.events) == 5
    # The order that expired made no events of its own: cum and leaves are the taker's.
    assert ended(result) == ("PARTIALLY_FILLED", "NONE", 5, 1)
    desk.check()


def test_a_refused_command_expires_orders_and_a_duplicate_does_not() -> None:
    desk = Desk()
    order = gtd(desk, 1, 5, 100, 10)
    again = command(CommandKind.CANCEL, (11, 1), account=1, order_id=order)
    assert len(desk.engine.apply(again, 99 * SECOND).events) == 0
    assert desk.engine.time_ns == 1
    assert desk.open_ids() == [order]
    late = command(CommandKind.CANCEL, desk.sender(1), account=1, order_id=order)
    result = desk.engine.apply(late, 99 * SECOND)
    assert told(result) == [("EXPIRED", order), ("REJECTED", order)]
    assert result.outcomes["reason"].tolist() == [Reason.UNKNOWN_ORDER]
    desk.check()


def test_time_never_goes_back() -> None:
    desk = Desk()
    desk.tick(100)
    late = place(desk.sender(1), 1, Side.SELL, 1, 100, tif=TimeInForce.GTD, expiry_seconds=100)
    assert desk.refused(late) == Reason.INVALID_EXPIRY
    assert desk.refused(place(desk.sender(1), 1, Side.SELL, 1, 100, tif=TimeInForce.GTD)) == Reason.INVALID_EXPIRY
    gtd(desk, 1, 1, 100, 101)
    assert desk.engine.time_ns == 100 * SECOND
    desk.check()


def test_the_last_second_that_there_is() -> None:
    desk = Desk()
    order = gtd(desk, 1, 1, 100, (1 << 32) - 1)
    assert desk.engine.next_expiry_ns == ((1 << 32) - 1) * SECOND
    assert told(desk.tick((1 << 32) - 1)) == [("EXPIRED", order), ("TICKED", 0)]


def test_a_tick_needs_no_session_and_has_no_fields() -> None:
    desk = Desk()
    result = desk.tick(5)
    assert ended(result) == ("TICKED", "NONE", 0, 0)
    assert desk.engine.time_ns == 5 * SECOND
    for fields in ({"session_id": 11}, {"request_id": 1}, {"account": 1}, {"side": 1}, {"price_ticks": 1}):
        wrong = command(CommandKind.TICK)
        for name, value in fields.items():
            wrong[name] = value
        assert desk.refused(wrong) == Reason.RESERVED_NOT_ZERO
    # It took no request of the session that it named.
    desk.buy(1, 1, 1)


def test_a_replaced_order_keeps_its_expiry_and_its_place_in_time() -> None:
    desk = Desk()
    first, second = gtd(desk, 1, 5, 100, 10), gtd(desk, 2, 5, 100, 10)
    desk.replace(1, first, 9, 120)
    desk.check()
    assert told(desk.tick(10)) == [("EXPIRED", first), ("EXPIRED", second), ("TICKED", 0)]


@pytest.mark.parametrize("seed", range(3))
def test_the_heap_is_a_sorted_list(seed: int) -> None:
    """Random expiries, cancels between them, and time in jumps: always the earliest first."""
    source = random.Random(seed)
    desk = Desk()
    waiting: dict[int, int] = {}
    now = 0
    for step in range(300):
        action = source.random()
        if action < 0.6 or not waiting:
            expiry = now + source.randint(1, 40)
            waiting[gtd(desk, 1 + step % 3, 1, 100 + step % 5, expiry)] = expiry
        elif action < 0.8:
            order = source.choice(sorted(waiting))
            owner = int(desk.engine.inspect.orders()["account"][desk.open_ids().index(order)])
            del waiting[order]
            desk.cancel(owner, order)
        else:
            now += source.randint(0, 15)
            due = sorted((expiry, order) for order, expiry in waiting.items() if expiry <= now)
            assert told(desk.tick(now)) == [*(("EXPIRED", order) for _, order in due), ("TICKED", 0)]
            waiting = {order: expiry for order, expiry in waiting.items() if expiry > now}
        first = min(waiting.values(), default=None)
        assert desk.engine.next_expiry_ns == (None if first is None else first * SECOND)
    desk.check()


def test_a_restored_engine_ends_them_too() -> None:
    desk = Desk()
    orders = [gtd(desk, 1, 1, 100, seconds) for seconds in (9, 7, 8, 7)]
    again = Engine.restore(desk.engine.snapshot())
    assert again.snapshot() == desk.engine.snapshot()
    tick = command(CommandKind.TICK)
    expected = [("EXPIRED", orders[at]) for at in (1, 3, 2, 0)]
    assert told(again.apply(join([tick]), 9 * SECOND)) == [*expected, ("TICKED", 0)]
