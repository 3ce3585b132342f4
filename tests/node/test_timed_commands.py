"""Timer-driven commands of a leader: when one is due, that it is due once, and what restarts a timer."""

import numpy as np
import pytest

from smrx.node.timed_commands import TICK_SECONDS, ExpiryTimer, SessionTimeouts, disconnects, tick
from smrx.wire.codes import CommandKind, EventKind, SessionFlags
from smrx.wire.records import EVENT, MAX_CANCELS


def opened(
    *sessions: int, flags: int = SessionFlags.CANCEL_ON_DISCONNECT, kind: int = EventKind.SESSION_OPENED
) -> np.ndarray:
    events = np.zeros(len(sessions), EVENT)
    events["kind"], events["session_id"], events["flags"] = kind, sessions, flags
    return events


def test_silent_session_is_due_once() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1), 10.0)
    timeouts.applied(opened(2), 12.0)
    assert timeouts.deadline == 15.0
    assert timeouts.due(14.9) == []
    assert timeouts.due(15.0) == [1]
    assert timeouts.due(16.0) == []
    assert timeouts.deadline == 17.0
    assert timeouts.due(30.0) == [2]
    assert timeouts.deadline == float("inf")


def test_activity_restarts_the_timeout() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1, 2), 10.0)
    timeouts.active(1, 14.0)
    assert timeouts.due(15.0) == [2]
    assert timeouts.due(18.9) == []
    assert timeouts.due(19.0) == [1]


def test_session_active_again_may_time_out_again() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1), 0.0)
    assert timeouts.due(5.0) == [1]
    timeouts.active(1, 8.0)
    assert timeouts.due(12.9) == []
    assert timeouts.due(13.0) == [1]


def test_closed_sessions_and_those_without_cancel_on_disconnect_never_time_out() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1, flags=SessionFlags.NONE), 0.0)
    timeouts.applied(opened(2, 3), 0.0)
    timeouts.active(1, 1.0)
    timeouts.active(99, 1.0)
    timeouts.applied(opened(2, kind=EventKind.SESSION_CLOSED), 1.0)
    assert timeouts.due(100.0) == [3]
    timeouts.applied(opened(3, kind=EventKind.SESSION_CLOSED), 101.0)
    timeouts.active(3, 102.0)
    assert timeouts.due(200.0) == []


def test_new_leader_restarts_the_timeouts() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1), 0.0)
    assert timeouts.due(5.0) == [1]
    timeouts.restart([1, 2], 100.0)
    assert timeouts.due(104.9) == []
    assert sorted(timeouts.due(105.0)) == [1, 2]


def test_resume_restarts_the_timeouts_after_a_suspension() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1, 2), 0.0)
    assert timeouts.due(5.0) == [1, 2]
    timeouts.active(2, 6.0)
    timeouts.resume(50.0)
    assert timeouts.due(54.9) == []
    assert timeouts.due(55.0) == [2]


def test_few_sessions_are_due_at_once() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.restart(range(1, 601), 0.0)
    parts = [timeouts.due(5.0) for _ in range(4)]
    assert [len(part) for part in parts] == [256, 256, 88, 0]
    assert sorted(session for part in parts for session in part) == list(range(1, 601))


def test_sessions_with_many_orders_are_due_one_after_the_other() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.restart(range(1, 6), 0.0)
    orders = {1: MAX_CANCELS - 100, 2: 100, 3: 1, 4: MAX_CANCELS + 1, 5: 0}

    def due() -> list[int]:
        """Let what is due end, as the engine does."""
        found = timeouts.due(5.0, orders.__getitem__)
        for session in found:
            orders[session] = max(0, orders[session] - MAX_CANCELS)
        return found

    assert [due() for _ in range(6)] == [[1, 2], [3], [4], [4, 5], [], []]


def test_no_session_is_due_before_the_last_ones_have_ended() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.restart([1, 2], 0.0)
    assert timeouts.due(5.0, lambda _: MAX_CANCELS) == [1]
    timeouts.submitted(7)
    assert timeouts.deadline == float("inf")
    timeouts.entry_applied(6)
    assert timeouts.due(6.0) == []
    timeouts.entry_applied(7)
    assert timeouts.due(6.0) == [2]
    timeouts.submitted(9)
    timeouts.restart([3], 10.0)
    assert timeouts.due(15.0) == [3]


def test_tick_is_due_only_when_an_order_has_expired() -> None:
    timer = ExpiryTimer()
    assert not timer.is_due(None, 10**18, 1.0)
    assert not timer.is_due(2_000, 1_999, 1.0)
    assert timer.is_due(2_000, 2_000, 1.0)
    assert timer.deadline(None, 0, 1.0) == float("inf")
    assert timer.deadline(3_500_000_000, 2_000_000_000, 1.0) == pytest.approx(2.5)


def test_one_tick_at_a_time_and_at_a_bounded_rate() -> None:
    timer = ExpiryTimer()
    timer.submitted(7, 1.0)
    assert not timer.is_due(2_000, 9_000, 50.0)
    assert timer.deadline(2_000, 9_000, 50.0) == float("inf")
    timer.applied(6)
    assert not timer.is_due(2_000, 9_000, 50.0)
    timer.applied(7)
    assert not timer.is_due(2_000, 9_000, 1.0 + TICK_SECONDS / 2)
    assert timer.deadline(2_000, 9_000, 1.0) == 1.0 + TICK_SECONDS
    assert timer.is_due(2_000, 9_000, 1.0 + TICK_SECONDS)


def test_tick_does_not_wait_while_orders_are_late() -> None:
    """More were due than one TICK expires."""
    timer, late_ns = ExpiryTimer(), int(2e9 * TICK_SECONDS)
    timer.submitted(5, 1.0)
    assert not timer.is_due(2_000, 2_000 + late_ns, 1.0), "one in the log at a time"
    timer.applied(5)
    assert timer.is_due(2_000, 2_000 + late_ns, 1.0)
    assert timer.deadline(2_000, 2_000 + late_ns, 1.0) == 1.0


def test_restart_drops_a_lost_tick() -> None:
    timer = ExpiryTimer()
    timer.submitted(7, 1.0)
    timer.restart()
    assert timer.is_due(2_000, 9_000, 2.0)


def test_commands_have_the_documented_bytes() -> None:
    [ticked] = tick()
    assert ticked["kind"] == CommandKind.TICK
    assert ticked.tobytes()[1:] == bytes(63)
    ended = disconnects([5, 2**64 - 1])
    assert ended["kind"].tolist() == [CommandKind.DISCONNECT] * 2
    assert ended["session_id"].tolist() == [5, 2**64 - 1]
    assert ended["request_id"].tolist() == [0, 0]
