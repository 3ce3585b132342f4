"""Capacities: what a restored engine refuses, what counts as kept, and that no table grows beyond its address space.

Which command each capacity refuses stands in tests/transcripts/capacity.txt and in the rejection table.
"""

from smrx.engine import Engine, state
from smrx.wire.codes import CommandKind, Reason, Side
from smrx.wire.records import MAX_CAPACITY, MAX_KEPT_ANSWERS
from tests.commands import apply, deposit, open_account, open_session, place, set_capacity
from tests.engine.small_market import BASE, SECOND, SmallMarket, same_bytes


def test_engine_restored_from_a_snapshot_refuses_the_same_commands() -> None:
    market = SmallMarket()
    market.send(set_capacity(market.sender(0), orders=2, sessions=4, balances=7, answers=1025))
    market.buy(1, 1, 50)
    market.send(open_account(market.sender(0), 4))
    restored = Engine.restore(market.engine.snapshot())
    commands = [
        *(place(market.sender(2), 2, Side.BUY, 1, 50) for _ in range(2)),
        *(deposit(market.sender(0), account, BASE, 5, 100 + account) for account in (4, 0)),
        open_session(99, 4, answers=1),
        open_session(98, 4, answers=1),
    ]
    reasons = []
    for sent in commands:
        first, second = apply(market.engine, sent, 1), apply(restored, sent, 1)
        assert same_bytes(first, second)
        reasons.append(Reason(int(first.outcomes["reason"][0])))
    full = Reason.CAPACITY_REACHED
    assert reasons == [Reason.NONE, full, Reason.NONE, full, full, full]
    market.check_state()


def test_sessions_that_end_give_their_answers_back() -> None:
    market = SmallMarket()
    kept = int(market.engine._state.core["kept_answers"][0])
    market.send(open_session(99, 1, answers=1000))
    assert int(market.engine._state.core["kept_answers"][0]) == kept + 1024
    market.send_as_venue(CommandKind.SET_RETENTION, session_silence_s=1, transfer_age_s=1, transfers=1)
    market.send(open_session(98, 1, answers=2), 5 * SECOND)
    market.tick(5)
    sessions = market.engine.inspect.sessions()
    assert int(market.engine._state.core["kept_answers"][0]) == int(sessions["answers"].sum())
    assert Engine.restore(market.engine.snapshot()).snapshot() == market.engine.snapshot()
    market.check_state()


def test_largest_capacities_leave_address_space() -> None:
    assert MAX_CAPACITY + 2 < state.RESERVED_RECORDS
    assert state._RESERVED["answers"] > MAX_KEPT_ANSWERS


def test_table_grows_to_its_address_space_and_not_beyond() -> None:
    sizes = [state._larger(size, 1 << 12) for size in (1 << 10, 3000, (1 << 12) - 1)]
    assert sizes == [1 << 11, 1 << 12, 1 << 12]
    # Without capacities, under version 1 of the rules, a table may be larger.
    assert state._larger(1 << 12, 1 << 12) == 1 << 13
