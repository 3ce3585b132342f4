"""What a leader submits by itself: when it is due, that it is due once, and what counts anew."""

import numpy as np
import pytest

from smrx.node.timed_commands import TICK_SECONDS, ExpiryTimer, SessionTimeouts, disconnects, tick
from smrx.wire.codes import CommandKind, EventKind, SessionFlags
from smrx.wire.records import EVENT


def opened(
    *sessions: int, flags: int = SessionFlags.CANCEL_ON_DISCONNECT, kind: int = EventKind.SESSION_OPENED
) -> np.ndarray:
    events = np.zeros(len(sessions), EVENT)
    events["kind"], events["session_id"], events["flags"] = kind, sessions, flags
    return events


def test_a_session_that_is_silent_for_too_long_is_due_once() -> None:
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


def test_who_is_heard_of_has_all_the_time_again() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1, 2), 10.0)
    timeouts.active(1, 14.0)
    assert timeouts.due(15.0) == [2]
    assert timeouts.due(18.9) == []
    assert timeouts.due(19.0) == [1]


def test_a_session_that_comes_back_may_end_again() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1), 0.0)
    assert timeouts.due(5.0) == [1]
    timeouts.active(1, 8.0)
    assert timeouts.due(12.9) == []
    assert timeouts.due(13.0) == [1]


def test_sessions_that_did_not_ask_and_sessions_that_closed_never_end() -> None:
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


def test_a_new_leader_counts_anew() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1), 0.0)
    assert timeouts.due(5.0) == [1]
    timeouts.restart([1, 2], 100.0)
    assert timeouts.due(104.9) == []
    assert sorted(timeouts.due(105.0)) == [1, 2]


def test_a_node_that_stood_still_heard_nobody_and_blames_nobody() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.applied(opened(1, 2), 0.0)
    assert timeouts.due(5.0) == [1, 2]
    timeouts.active(2, 6.0)
    timeouts.resume(50.0)
    assert timeouts.due(54.9) == []
    assert timeouts.due(55.0) == [2]


def test_no_more_are_due_at_once_than_fit_an_entry() -> None:
    timeouts = SessionTimeouts(5.0)
    timeouts.restart(range(1, 3001), 0.0)
    parts = [timeouts.due(5.0) for _ in range(4)]
    assert [len(part) for part in parts] == [1024, 1024, 952, 0]
    assert sorted(session for part in parts for session in part) == list(range(1, 3001))


def test_a_tick_is_due_when_an_order_has_expired_and_only_then() -> None:
    timer = ExpiryTimer()
    assert not timer.is_due(None, 10**18, 1.0)
    assert not timer.is_due(2_000, 1_999, 1.0)
    assert timer.is_due(2_000, 2_000, 1.0)
    assert timer.deadline(None, 0, 1.0) == float("inf")
    assert timer.deadline(3_500_000_000, 2_000_000_000, 1.0) == pytest.approx(2.5)


def test_one_tick_is_under_way_at_a_time_and_not_many_a_second() -> None:
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


def test_a_tick_that_was_lost_with_its_leader_is_not_waited_for() -> None:
    timer = ExpiryTimer()
    timer.submitted(7, 1.0)
    timer.restart()
    assert timer.is_due(2_000, 9_000, 2.0)


def test_the_commands_are_those_of_the_contract() -> None:
    [ticked] = tick()
    assert ticked["kind"] == CommandKind.TICK
    assert ticked.tobytes()[1:] == bytes(63)
    ended = disconnects([5, 2**64 - 1])
    assert ended["kind"].tolist() == [CommandKind.DISCONNECT] * 2
    assert ended["session_id"].tolist() == [5, 2**64 - 1]
    assert ended["request_id"].tolist() == [0, 0]
