"""The upstream link of a gateway without sockets: batches, resending, refusals, the search for the leader."""

from typing import Any

import numpy as np
import pytest

from smrx.client.session_states import DropConnection, Send
from smrx.gateway.upstream import MAX_FRAMES_UNDER_WAY, RESPONSE_TIMEOUT_S, TIMEOUTS_BEFORE_RESEND, State, Upstream
from smrx.wire import frames
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, OUTCOME

NODES = ("tcp://a:1", "tcp://b:1", "tcp://c:1")


class Link:
    """An upstream link and what it sent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.upstream = Upstream(NODES)
        self.upstream.start(self.now)

    def sent(self) -> list[tuple[str, Frame]]:
        """Return the frames sent since the last call."""
        actions = self.upstream.take_actions()
        return [(action.address, frames.decode(action.data)) for action in actions if isinstance(action, Send)]

    def commands(self) -> list[Frame]:
        return [frame for _, frame in self.sent() if frame.kind is FrameKind.COMMANDS]

    def elect(self, leader: int, term: int) -> None:
        """Answer the pings: a node leads."""
        for address, frame in self.sent():
            if frame.kind is FrameKind.PING:
                number = NODES.index(address) + 1
                hint = LeaderHint(leader, NODES[leader - 1], number, term, None, 5000, 0)
                self.receive(number, frames.encode_body(FrameKind.PONG, hint, frame.correlation))

    def receive(self, node: int, data: bytes) -> None:
        self.upstream.receive(NODES[node - 1], data, self.now)

    def submit(self, route: Any, count: int = 1, *, droppable: bool = False) -> None:
        commands = np.zeros(count, COMMAND)
        self.upstream.submit(route, commands.tobytes(), count, self.now, droppable=droppable)

    def answer(self, frame: Frame, node: int = 1) -> None:
        outcomes = np.zeros(frame.count, OUTCOME)
        self.receive(node, frames.encode_outcomes(outcomes, frame.correlation))

    def refuse(self, frame: Frame, code: ErrorCode, node: int = 1) -> None:
        body = ErrorBody(int(code), "no")
        self.receive(node, frames.encode_body(FrameKind.ERROR, body, frame.correlation))

    def answered(self) -> list[Any]:
        return [answer.route for answer in self.upstream.take_answers()]


@pytest.fixture
def link() -> Link:
    link = Link()
    link.elect(1, 7)
    assert link.upstream.leader == NODES[0]
    return link


def test_a_lone_block_leaves_at_once_and_its_answer_has_its_route(link: Link) -> None:
    assert link.upstream.is_idle
    link.submit("route", 3)
    (frame,) = link.commands()
    assert frame.count == 3
    link.answer(frame)
    assert link.answered() == ["route"]
    assert link.upstream.held == 0
    assert link.upstream.deadline is None


def test_a_slow_leader_gets_no_more_frames_than_it_may_have(link: Link) -> None:
    for number in range(MAX_FRAMES_UNDER_WAY + 3):
        link.submit(number)
    assert not link.upstream.is_idle
    sent = link.commands()
    assert len(sent) == MAX_FRAMES_UNDER_WAY
    link.answer(sent[0])
    assert len(link.commands()) == 1


def test_what_was_under_way_goes_to_the_new_leader_in_order(link: Link) -> None:
    for number in range(3):
        link.submit(number, number + 1)
    sent = link.commands()
    hint = LeaderHint(None, None, 1, 8)
    link.receive(1, frames.encode_body(FrameKind.NOT_LEADER, hint, sent[0].correlation))
    assert link.upstream.state is State.SEEKING
    link.submit(3, 4)
    link.now += 1
    link.upstream.tick(link.now)
    link.elect(2, 8)
    again = link.sent()
    assert [(address, frame.count) for address, frame in again] == [(NODES[1], count) for count in (1, 2, 3, 4)]
    # Late answers of the former leader have the old correlation and count for nothing.
    link.answer(sent[1])
    assert link.answered() == []
    for _, frame in again:
        link.answer(frame, 2)
    assert link.answered() == [0, 1, 2, 3]


def test_a_broken_connection_to_the_leader_sends_everything_again(link: Link) -> None:
    link.submit("route")
    link.commands()
    link.upstream.disconnected(NODES[1], link.now)
    assert link.upstream.state is State.READY
    link.upstream.disconnected(NODES[0], link.now)
    link.now += 1
    link.upstream.tick(link.now)
    link.elect(1, 7)
    assert len(link.commands()) == 1


@pytest.mark.parametrize("code", [ErrorCode.OVERLOADED, ErrorCode.LIMITED])
def test_a_refused_block_and_all_behind_it_are_sent_again_after_a_pause(link: Link, code: ErrorCode) -> None:
    for number in range(3):
        link.submit(number, number + 1)
    first, second, third = link.commands()
    link.refuse(second, code)
    assert link.upstream.state is State.BACKOFF
    link.answer(third)  # It may say REQUEST_GAP.
    link.answer(first)
    assert link.answered() == [0]
    assert link.upstream.deadline is not None
    link.now = link.upstream.deadline
    link.upstream.tick(link.now)
    again = link.commands()
    assert [frame.count for frame in again] == [2, 3]
    for frame in again:
        link.answer(frame)
    assert link.answered() == [1, 2]


def test_a_block_that_may_be_dropped_is_given_up_beyond_a_limit(link: Link) -> None:
    link.submit("opens", droppable=True)
    link.submit("order")
    first, second = link.commands()
    link.refuse(first, ErrorCode.LIMITED)
    link.answer(second)
    assert [(refusal.route, refusal.message) for refusal in link.upstream.take_refusals()] == [("opens", "no")]
    assert link.answered() == ["order"]


def test_a_gateway_whose_credential_is_revoked_passes_the_refusal_on(link: Link) -> None:
    link.submit("order")
    link.refuse(link.commands()[0], ErrorCode.FORBIDDEN)
    assert [refusal.code for refusal in link.upstream.take_refusals()] == [ErrorCode.FORBIDDEN]


def test_a_slow_leader_that_still_leads_gets_nothing_again_before_several_timeouts(link: Link) -> None:
    link.submit("order")
    (frame,) = link.commands()
    for _ in range(TIMEOUTS_BEFORE_RESEND - 1):
        link.now += RESPONSE_TIMEOUT_S
        link.upstream.tick(link.now)
        link.elect(1, 7)
        assert link.upstream.state is State.READY
        assert link.commands() == []
    link.answer(frame)
    assert link.answered() == ["order"]


def test_after_several_timeouts_everything_is_sent_again_over_a_new_connection(link: Link) -> None:
    link.submit("order")
    link.commands()
    for _ in range(TIMEOUTS_BEFORE_RESEND):
        link.now += RESPONSE_TIMEOUT_S
        link.upstream.tick(link.now)
        link.elect(1, 7)
    actions = link.upstream.take_actions()
    assert DropConnection(NODES[0]) in actions
    assert [type(action) for action in actions] == [DropConnection, Send]


def test_an_answer_of_the_wrong_size_is_a_fault_of_the_leader(link: Link) -> None:
    link.submit("order", 2)
    (frame,) = link.commands()
    link.receive(1, frames.encode_outcomes(np.zeros(1, OUTCOME), frame.correlation))
    assert link.upstream.state is State.SEEKING
    assert link.answered() == []


@pytest.mark.parametrize("data", [b"", b"x", frames.encode(FrameKind.HEARTBEAT), bytes(64)])
def test_bytes_of_a_node_that_does_not_lead_change_nothing(link: Link, data: bytes) -> None:
    link.receive(2, data)
    assert link.upstream.state is State.READY


def test_sessions_are_kept_alive_at_the_leader(link: Link) -> None:
    sessions = np.arange(1, frames.MAX_SESSIONS + 2, dtype=np.uint64)
    link.upstream.keep_alive(sessions)
    found = [frames.pinged_sessions(frame) for _, frame in link.sent()]
    assert [session for part in found for session in part] == sessions.tolist()
    assert [len(part) for part in found] == [frames.MAX_SESSIONS, 1]
