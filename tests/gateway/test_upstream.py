"""The upstream link of a gateway without sockets: batches, resending, refusals, the search for the leader."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.client.session_states import DropConnection, Send
from smrx.gateway.native.command_block import Route
from smrx.gateway.upstream import MAX_FRAMES_UNDER_WAY, RESPONSE_TIMEOUT_S, TIMEOUTS_BEFORE_RESEND, State, Upstream
from smrx.wire import frames
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, DETAILS, OUTCOME

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

    def submit_commands(self, senders: list[tuple[int, int, int]], details: NDArray[np.void] | None = None) -> None:
        """Submit commands, of which these are session, request and account."""
        commands = np.zeros(len(senders), COMMAND)
        commands["session_id"], commands["request_id"], commands["account"] = zip(*senders, strict=True)
        data = b""
        if details is not None:
            commands["details"], data = np.arange(1, len(details) + 1), details.tobytes()
        words = commands.view(np.uint64).reshape(len(senders), -1)
        route = Route(np.arange(len(senders)), words)
        count = 0 if details is None else len(details)
        self.upstream.submit(route, commands.tobytes() + data, len(senders), self.now, count)

    def refuse(self, frame: Frame, code: ErrorCode, node: int = 1, **rate: int) -> None:
        body = ErrorBody(int(code), "no", **rate)
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


def test_a_session_over_its_rate_is_held_back_and_the_others_are_not(link: Link) -> None:
    fast, other = 7, 8
    link.submit_commands([(fast, 1, 70), (other, 1, 80), (fast, 2, 70)])
    link.submit_commands([(fast, 3, 70)])
    link.submit_commands([(other, 2, 80), (fast, 4, 70)])
    sent = link.commands()
    link.refuse(sent[0], ErrorCode.LIMITED, session=fast, wait_ms=300)
    assert [requests(frame) for frame in link.commands()] == [[(other, 1)], [(other, 2)]]
    assert link.upstream.held_back == 4
    # What comes meanwhile waits behind, that of others leaves.
    assert link.upstream.is_idle
    link.submit_commands([(fast, 5, 70)])
    link.submit_commands([(other, 3, 80)])
    assert [requests(frame) for frame in link.commands()] == [[(other, 3)]]
    link.now += 0.299
    link.upstream.tick(link.now)
    assert link.commands() == []
    link.now = link.upstream.deadline or 0.0
    link.upstream.tick(link.now)
    again = [request for frame in link.commands() for request in requests(frame)]
    assert again == [(fast, 1), (fast, 2), (fast, 3), (fast, 4), (fast, 5)]
    assert link.upstream.held_back == 0


def test_sessions_that_name_an_account_over_its_rate_are_held_back_whole(link: Link) -> None:
    link.submit_commands([(1, 1, 70), (2, 1, 80), (3, 1, 90)])
    (frame,) = link.commands()
    link.refuse(frame, ErrorCode.LIMITED, account=70, wait_ms=20)
    assert [requests(sent) for sent in link.commands()] == [[(2, 1), (3, 1)]]
    # Session 1 names another account: its commands keep their order nevertheless.
    link.submit_commands([(1, 2, 80), (2, 2, 80)])
    assert [requests(sent) for sent in link.commands()] == [[(2, 2)]]
    # A second account over its rate waits with the first.
    link.submit_commands([(3, 2, 90)])
    (frame,) = link.commands()
    link.refuse(frame, ErrorCode.LIMITED, account=90, wait_ms=40)
    link.now += 0.02
    link.upstream.tick(link.now)
    assert link.commands() == []
    link.now += 0.021
    link.upstream.tick(link.now)
    assert [requests(sent) for sent in link.commands()] == [[(1, 1)], [(1, 2)], [(3, 2)]]


def test_held_back_commands_keep_their_details_and_routes(link: Link) -> None:
    details = np.zeros(2, DETAILS)
    details["client_order_id"] = [b"held", b"sent"]
    link.submit_commands([(1, 1, 70), (2, 1, 80)], details)
    (frame,) = link.commands()
    link.refuse(frame, ErrorCode.LIMITED, session=1, wait_ms=10)
    link.now += 0.01
    link.upstream.tick(link.now)
    sent = link.commands()
    ids = [frames.command_list(frame).details["client_order_id"].tolist() for frame in sent]
    assert ids == [[b"sent"], [b"held"]]
    for frame in sent:
        link.answer(frame)
    assert [route.slots.tolist() for route in link.answered()] == [[1], [0]]
    assert link.upstream.held == 0


def test_what_is_held_back_goes_to_a_new_leader(link: Link) -> None:
    link.submit_commands([(1, 1, 70), (2, 1, 80)])
    (frame,) = link.commands()
    link.refuse(frame, ErrorCode.LIMITED, session=1, wait_ms=500)
    link.commands()
    link.upstream.disconnected(NODES[0], link.now)
    link.now += 1
    link.upstream.tick(link.now)
    link.elect(2, 8)
    link.upstream.tick(link.now)
    assert [requests(sent) for sent in link.commands()] == [[(2, 1)], [(1, 1)]]


def requests(frame: Frame) -> list[tuple[int, int]]:
    rows = frames.records(frame)
    return list(zip(rows["session_id"].tolist(), rows["request_id"].tolist(), strict=True))
