"""ClientSession applies each request exactly once, in order, under every fault of the network."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.client.request_window import RequestWindow
from smrx.client.session import ClientSession
from smrx.client.session_states import (
    TRANSITIONS,
    DropConnection,
    Event,
    LocalError,
    Send,
    State,
)
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, SessionFlags
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, MAX_ANSWERS, OUTCOME, SESSION_COMMAND
from tests.client.fake_exchange import FakeExchange
from tests.client.simulated_network import ACCOUNT, SESSION, Network, orders, run, with_long_ids

A, B = "tcp://node:1", "tcp://node:2"

scripts = st.lists(st.integers(0, 100_000), min_size=1, max_size=250)


def make(addresses: Sequence[str]) -> ClientSession:
    return ClientSession(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)


@given(scripts)
def test_each_request_is_applied_once_in_order_and_answered_with_its_outcome(script: list[int]) -> None:
    run(make, script)


@given(scripts)
def test_exactly_once_without_stored_outcomes(script: list[int]) -> None:
    run(make, script, stores_outcomes=False)


class Faulty(ClientSession):
    """A session with an injected fault."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)


class RenumberingWindow(RequestWindow):
    def rewind(self) -> None:
        self._ring["request_id"] += np.uint64(self.sent - self.answered)
        super().rewind()


class Renumbering(Faulty):
    """Requests that are sent again get new ids."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = RenumberingWindow(SESSION, 16)


class NoRewindWindow(RequestWindow):
    def rewind(self) -> None:
        pass


class NotResending(Faulty):
    """A new attempt starts after the last sent request instead of the last answered one."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = NoRewindWindow(SESSION, 16)


class GapIgnoring(Faulty):
    """An outcome after a gap is taken as the answer to every request before it."""

    def _on_gap(self, outcome: np.void, now: float) -> None:
        self._window.accept(int(outcome["request_id"]) - self._window.answered)


class DetailsOfAnotherWindow(RequestWindow):
    def take(self, limit: int) -> CommandList:
        found = super().take(limit)
        return CommandList(found.records, found.details[::-1])


class MixingDetails(Faulty):
    """A frame has the details of its commands in another order."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = DetailsOfAnotherWindow(SESSION, 16)


class OverwritingWindow(RequestWindow):
    def _put(self, at: int, commands: np.ndarray, first: int, details: np.ndarray) -> None:
        super()._put(at, commands, first, details)
        if len(self._details) and len(details):
            self._details[(at + len(commands)) % len(self._details)] = details[0]


class OverwritingDetails(Faulty):
    """The details of a new request replace those of another one that is unanswered."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = OverwritingWindow(SESSION, 16)


class NewSession(Faulty):
    """Every attempt opens a new session."""

    def _start_attempt(self, now: float) -> None:
        self._opened = False
        self.session_id += 1
        self._window._session_id = self.session_id
        self._window._ring["session_id"] = self.session_id
        super()._start_attempt(now)


@pytest.mark.parametrize(
    "faulty", [Renumbering, NotResending, GapIgnoring, NewSession, MixingDetails, OverwritingDetails]
)
def test_faulty_session_is_detected(faulty: type[Faulty]) -> None:
    def fails(script: list[int]) -> bool:
        try:
            run(faulty, script)
        except (AssertionError, LocalError):
            return True
        return False

    rng = random.Random(1)
    assert any(fails([rng.randrange(100_000) for _ in range(200)]) for _ in range(100))


class ForgetfulExchange(FakeExchange):
    """An exchange that forgets a session when it is closed, as if its requests were not done."""

    def _apply_one(self, piece: bytes) -> np.ndarray:
        outcome = super()._apply_one(piece)
        for session in self.closed:
            del self.sessions[session]
        self.closed.clear()
        return outcome


def deliver_late_copies(exchange_class: type[FakeExchange]) -> Network:
    """Send OPEN_SESSION and a request twice; deliver the first copies after the session was closed."""
    session = make([A])
    net = Network(session, exchange_class=exchange_class)
    net.elect(0)
    while session.state is not State.OPENING:
        net.flow(0)
    net.disconnect(0)
    net.execute_actions()
    while session.state is not State.ACTIVE:
        net.flow(11)
    net.submit(0)
    net.execute_actions()
    net.disconnect(0)
    net.heal()
    net.check()
    assert len(net.nodes[1].stale_inbox) >= 2
    net.close()
    return net


def test_late_copies_are_not_applied_again_after_a_close() -> None:
    exchange = deliver_late_copies(FakeExchange).exchange
    # The late OPEN_SESSION has opened it again; its requests stay done.
    assert exchange.sessions == {SESSION: [ACCOUNT, 2]}
    assert exchange.closed == set()


def test_exchange_that_forgets_closed_sessions_is_detected() -> None:
    with pytest.raises(AssertionError, match="late copy"):
        deliver_late_copies(ForgetfulExchange)


# Single steps


class Harness:
    """A session that is driven step by step, with the messages it sends."""

    def __init__(self, state: State = State.ACTIVE) -> None:
        self.now = 10.0
        self.session = make([A, B])
        if state is State.IDLE:
            return
        self.session.start(self.now)
        if state is State.SEEKING:
            return
        self.sent()
        self.pong(A, 1, 1)
        if state is State.OPENING:
            return
        self.answer(self.opened())
        self.sent()

    def sent(self) -> list[tuple[str, frames.Frame]]:
        return [
            (action.address, frames.decode(action.data))
            for action in self.session.take_actions()
            if isinstance(action, Send)
        ]

    def requests(self) -> list[list[int]]:
        return [
            frames.records(frame)["request_id"].tolist() for _, frame in self.sent() if frame.kind is FrameKind.COMMANDS
        ]

    def opened(self, **fields: int) -> np.ndarray:
        return outcomes(0, 1, status=OutcomeStatus.ACCEPTED, sequence=[5], **fields)

    def pong(self, node: str, leader: int | None, own: int, term: int = 1, correlation: int = 1 << 32) -> None:
        hint = LeaderHint(leader, None, own, term)
        self.session.receive(node, frames.encode_body(FrameKind.PONG, hint, correlation), self.now)

    def answer(self, found: np.ndarray, node: str = A, attempt: int | None = None) -> None:
        attempt = self.session.attempts if attempt is None else attempt
        self.session.receive(node, frames.encode_outcomes(found, attempt << 32 | 1), self.now)

    def error(self, code: ErrorCode, correlation: int | None = None) -> None:
        correlation = self.session.attempts << 32 | 1 if correlation is None else correlation
        frame = frames.encode_body(FrameKind.ERROR, ErrorBody(int(code), "expected less"), correlation)
        self.session.receive(A, frame, self.now)

    def tick_at_deadline(self) -> None:
        assert self.session.deadline is not None
        self.now = max(self.now, self.session.deadline)
        self.session.tick(self.now)

    def answered(self) -> list[int]:
        return [int(i) for found in self.session.take_outcomes() for i in found["request_id"]]


def outcomes(first: int, count: int, **fields: object) -> np.ndarray:
    found = np.zeros(count, OUTCOME)
    found["session_id"] = SESSION
    found["request_id"] = np.arange(first, first + count)
    found["status"] = OutcomeStatus.ACCEPTED
    found["sequence"] = 100 + found["request_id"]
    for name, value in fields.items():
        found[name] = value
    return found


def test_session_finds_the_leader_opens_and_sends_frames() -> None:
    harness = Harness(State.IDLE)
    harness.session.submit(orders(6, 1), harness.now)
    harness.session.start(harness.now)
    assert [(to, frame.kind) for to, frame in harness.sent()] == [(A, FrameKind.PING), (B, FrameKind.PING)]
    harness.pong(A, 2, 1)
    assert harness.session.state is State.SEEKING, "a node's report about another node does not count"
    harness.pong(B, 2, 2)
    [(to, opening)] = harness.sent()
    assert (to, opening.kind) == (B, FrameKind.COMMANDS)
    assert frames.records(opening)["kind"].tolist() == [CommandKind.OPEN_SESSION]
    assert frames.records(opening)["account"].tolist() == [ACCOUNT]
    # Every request that may be sent again is among the answers that the exchange keeps.
    assert frames.records(opening).view(SESSION_COMMAND)["answers"].tolist() == [16]
    harness.answer(harness.opened(), B)
    assert harness.requests() == [[1, 2, 3, 4], [5, 6]]
    assert harness.session.leader == B
    harness.answer(outcomes(1, 6), B)
    assert harness.answered() == [1, 2, 3, 4, 5, 6]
    assert harness.session.deadline is None


def test_ids_continue_past_the_end_of_the_ring() -> None:
    harness = Harness()
    for start in range(1, 60, 5):
        assert harness.session.submit(orders(5, start), harness.now) == start
        assert [request for ids in harness.requests() for request in ids] == list(range(start, start + 5))
        harness.answer(outcomes(start, 5))
        assert harness.answered() == list(range(start, start + 5))


def test_not_leader_resends_unanswered_requests_to_the_new_leader() -> None:
    harness = Harness()
    harness.session.submit(orders(6, 1), harness.now)
    harness.sent()
    harness.answer(outcomes(1, 2))
    hint = frames.encode_body(FrameKind.NOT_LEADER, LeaderHint(2, B, 1, 2), harness.session.attempts << 32 | 2)
    harness.session.receive(A, hint, harness.now)
    assert harness.session.state is State.SEEKING
    harness.tick_at_deadline()
    harness.sent()
    harness.pong(B, 2, 2, term=2)
    assert harness.requests() == [[3, 4, 5, 6]]
    # A late reply of the old leader is valid; the new leader's reply then repeats it.
    harness.answer(outcomes(3, 1), A, attempt=1)
    assert harness.answered() == [1, 2, 3]
    harness.answer(outcomes(3, 4, status=OutcomeStatus.DUPLICATE, sequence=0), B)
    assert harness.answered() == [4, 5, 6]


def test_leader_of_an_old_term_is_ignored_if_a_newer_term_is_known() -> None:
    harness = Harness(State.SEEKING)
    harness.pong(B, 3, 2, term=9)
    harness.pong(A, 1, 1, term=8)
    assert harness.session.state is State.SEEKING
    harness.tick_at_deadline()
    harness.pong(A, 1, 1, term=9)
    assert harness.session.state is State.OPENING


def test_term_of_a_node_without_a_leader_does_not_count() -> None:
    harness = Harness(State.SEEKING)
    harness.pong(B, None, 2, term=500)
    harness.pong(A, 1, 1, term=8)
    assert harness.session.state is State.OPENING


def test_reply_to_a_ping_of_an_earlier_search_is_ignored() -> None:
    harness = Harness()
    harness.session.disconnected(A, harness.now)
    assert harness.session.state is State.SEEKING
    harness.pong(A, 1, 1, correlation=1)
    assert harness.session.state is State.SEEKING


def test_addresses_in_hints_are_pinged_if_valid() -> None:
    harness = Harness(State.SEEKING)
    harness.sent()
    for where in ("tcp://node:3", "http://x", "tcp://" + "x" * 999, "tcp://n\x00de"):
        body = LeaderHint(3, where, 1, 1)
        harness.session.receive(A, frames.encode_body(FrameKind.PONG, body, 1), harness.now)
    harness.tick_at_deadline()
    assert [to for to, _ in harness.sent()] == [A, B, "tcp://node:3"]


def test_silent_leader_is_pinged_and_resent_to_only_after_four_timeouts() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.sent()
    attempts = harness.session.attempts
    for _ in range(3):
        harness.tick_at_deadline()
        assert harness.session.state is State.SEEKING
        harness.pong(A, 1, 1)
        assert harness.session.state is State.ACTIVE
        assert harness.session.attempts == attempts
        assert harness.requests() == []
    harness.tick_at_deadline()
    harness.pong(A, 1, 1)
    assert harness.session.attempts == attempts + 1
    assert harness.requests() == [[1, 2]]


def test_broken_connection_to_the_leader_resends_at_once() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.sent()
    harness.session.disconnected(B, harness.now)
    assert harness.session.state is State.ACTIVE
    harness.session.disconnected(A, harness.now)
    harness.tick_at_deadline()
    harness.sent()
    harness.pong(A, 1, 1)
    assert harness.requests() == [[1, 2]]


def test_overloaded_backs_off_with_growing_pauses() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.sent()
    pauses = []
    for _ in range(8):
        harness.error(ErrorCode.OVERLOADED)
        assert harness.session.state is State.BACKOFF
        assert harness.session.deadline is not None
        pauses.append(harness.session.deadline - harness.now)
        harness.tick_at_deadline()
        assert harness.requests() == [[1, 2]]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.02
    assert pauses[-1] == pytest.approx(0.5)


def test_gap_resends_at_once_and_then_after_pauses() -> None:
    harness = Harness()
    harness.session.submit(orders(8, 1), harness.now)
    harness.sent()
    gap = outcomes(5, 4, status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_GAP)
    harness.answer(gap)
    assert harness.requests() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    harness.answer(gap, attempt=harness.session.attempts - 1)
    assert harness.requests() == [], "a gap of an earlier attempt is ignored"
    harness.answer(gap)
    assert harness.session.state is State.BACKOFF
    harness.tick_at_deadline()
    assert harness.requests() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert harness.answered() == []


def test_gap_at_the_first_request_of_an_attempt_fails_the_session() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.answer(outcomes(1, 2))
    harness.session.submit(orders(2, 3), harness.now)
    harness.session.disconnected(A, harness.now)
    harness.tick_at_deadline()
    harness.pong(A, 1, 1)
    harness.answer(outcomes(3, 2, status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_GAP))
    assert harness.session.state is State.FAILED
    assert harness.session.failure is not None
    assert "lost request 2" in harness.session.failure.message


def test_malformed_rejection_counts_only_if_applied_after_the_previous_request() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND, sequence=50)
    harness.answer(outcomes(1, 1, sequence=60), attempt=0)
    harness.answer(malformed, attempt=0)
    assert harness.answered() == [1], "the rejection precedes request 1 in the log, so it consumed nothing"
    malformed["sequence"] = 70
    harness.answer(malformed, attempt=0)
    assert harness.answered() == [2]


def test_malformed_rejection_after_an_unknown_sequence_counts_only_at_the_start_of_an_attempt() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.answer(outcomes(1, 1, status=OutcomeStatus.DUPLICATE, sequence=0))
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND)
    harness.sent()
    harness.answer(malformed)
    assert harness.answered() == [1]
    assert harness.requests() == [[2]]
    harness.answer(malformed)
    assert harness.answered() == [2]


def test_malformed_rejection_at_the_start_of_an_attempt_counts_during_a_back_off() -> None:
    """Otherwise a leader that accepts part of each attempt and reports that first would be retried forever."""
    harness = Harness()
    harness.session.submit(orders(8, 1), harness.now)
    harness.answer(outcomes(1, 1, status=OutcomeStatus.DUPLICATE, sequence=0))
    harness.session.disconnected(A, harness.now)
    harness.tick_at_deadline()
    harness.pong(A, 1, 1)
    harness.sent()
    harness.error(ErrorCode.OVERLOADED)
    assert harness.session.state is State.BACKOFF
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND)
    harness.answer(malformed, attempt=harness.session.attempts - 1)
    assert harness.answered() == [1], "in an earlier attempt the previous request is unknown"
    harness.answer(malformed)
    assert harness.answered() == [2]
    harness.tick_at_deadline()
    assert harness.requests() == [[3, 4, 5, 6], [7, 8]]


def test_unknown_session_fails_with_requests_unanswered() -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.answer(outcomes(1, 2, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_SESSION))
    assert harness.session.state is State.FAILED
    assert harness.session.unanswered == 2
    with pytest.raises(LocalError, match="the session is failed"):
        harness.session.submit(orders(1, 3), harness.now)


@pytest.mark.parametrize(
    "kind",
    [
        CommandKind.OPEN_SESSION,
        CommandKind.CLOSE_SESSION,
        CommandKind.TICK,
        CommandKind.DISCONNECT,
        CommandKind.SET_VERSION,
    ],
)
def test_reserved_command_kind_is_a_local_error(kind: CommandKind) -> None:
    harness = Harness()
    commands = orders(3, 1)
    commands["kind"][1] = kind
    with pytest.raises(LocalError, match=f"cannot submit .*{kind.name}.*: only the session"):
        harness.session.submit(commands, harness.now)
    assert harness.session.unanswered == 0


def test_cancel_on_disconnect_is_sent_with_open_session() -> None:
    session = ClientSession(SESSION, ACCOUNT, [A], flags=SessionFlags.CANCEL_ON_DISCONNECT)
    session.start(0.0)
    [ping] = session.take_actions()
    assert isinstance(ping, Send)
    hint = LeaderHint(1, None, 1, 1)
    session.receive(A, frames.encode_body(FrameKind.PONG, hint, frames.decode(ping.data).correlation), 0.0)
    [opening] = session.take_actions()
    assert isinstance(opening, Send)
    [command] = frames.records(frames.decode(opening.data))
    assert (command["kind"], command["flags"]) == (CommandKind.OPEN_SESSION, SessionFlags.CANCEL_ON_DISCONNECT)


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_ACCOUNT, Reason.SESSION_IN_USE, 999])
def test_rejected_session_fails_with_the_reason(reason: int) -> None:
    harness = Harness(State.OPENING)
    harness.answer(outcomes(0, 1, status=OutcomeStatus.REJECTED, reason=reason))
    assert harness.session.state is State.FAILED
    assert harness.session.failure is not None
    assert harness.session.failure.reason == (None if reason == 999 else reason)


def test_session_used_by_another_client_fails() -> None:
    harness = Harness(State.OPENING)
    harness.answer(outcomes(0, 1, status=OutcomeStatus.DUPLICATE, sequence=0, order_id=12))
    assert harness.session.state is State.FAILED


def test_fenced_node_is_left() -> None:
    harness = Harness()
    harness.session.submit(orders(1, 1), harness.now)
    harness.error(ErrorCode.FENCED)
    assert harness.session.state is State.SEEKING
    assert "expected less" in harness.session.describe()


def test_undecodable_frame_fails_the_session_even_without_a_correlation() -> None:
    harness = Harness()
    harness.session.submit(orders(1, 1), harness.now)
    harness.error(ErrorCode.UNSUPPORTED_VERSION, correlation=0)
    assert harness.session.state is State.FAILED
    assert harness.session.failure is not None
    assert "expected less" in harness.session.failure.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage" * 20,
        frames.encode(FrameKind.HEARTBEAT),
        frames.encode_outcomes(np.zeros(0, OUTCOME), 1 << 32),
        frames.encode_outcomes(np.zeros(2, OUTCOME), 1 << 32),
        frames.encode_outcomes(outcomes(1, 3), 1 << 32 | 1),
        frames.encode_outcomes(outcomes(1, 2, request_id=[1, 1]), 1 << 32 | 1),
        frames.encode(FrameKind.NOT_LEADER, b"\xff"),
        frames.encode(FrameKind.ERROR, b"\x91" * 100),
        frames.encode(FrameKind.PONG, b"\x84\xa9leader_id\x01"),
    ],
)
def test_leader_that_sends_malformed_frames_is_left(data: bytes) -> None:
    harness = Harness()
    harness.session.submit(orders(2, 1), harness.now)
    harness.session.receive(B, data, harness.now)
    assert harness.session.state is State.ACTIVE
    harness.session.receive(A, data, harness.now)
    assert harness.session.state is State.SEEKING
    assert harness.answered() == []


@given(st.binary(max_size=200))
def test_receive_never_raises(data: bytes) -> None:
    for state in (State.SEEKING, State.OPENING, State.ACTIVE):
        harness = Harness(state)
        harness.session.receive(A, data, harness.now)
        harness.session.receive(A, frames.encode(FrameKind.OUTCOMES, data), harness.now)
        harness.session.receive(A, frames.encode(FrameKind.PONG, data, correlation=1), harness.now)
        harness.session.receive(A, frames.encode(FrameKind.ERROR, data, correlation=1 << 32), harness.now)


def test_close_sends_close_session() -> None:
    harness = Harness()
    harness.session.close(harness.now)
    assert harness.session.state is State.CLOSING
    [(_, frame)] = harness.sent()
    assert frames.records(frame)["kind"].tolist() == [CommandKind.CLOSE_SESSION]
    harness.answer(outcomes(1, 1))
    assert harness.session.state is State.CLOSED
    assert harness.answered() == [], "CLOSE_SESSION is not a request of the caller"


@pytest.mark.parametrize("fault", ["silence", "overloaded", "disconnected", "unknown session"])
def test_close_is_sent_once(fault: str) -> None:
    harness = Harness()
    harness.session.close(harness.now)
    match fault:
        case "silence":
            harness.tick_at_deadline()
        case "overloaded":
            harness.error(ErrorCode.OVERLOADED)
        case "disconnected":
            harness.session.disconnected(A, harness.now)
        case _:
            harness.answer(outcomes(1, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_SESSION))
    assert harness.session.state is State.CLOSED
    assert harness.session.deadline is None


def test_invalid_arguments_are_local_errors() -> None:
    with pytest.raises(LocalError, match="session id"):
        ClientSession(0, 1, [A])
    with pytest.raises(LocalError, match="at least one node"):
        ClientSession(1, 1, [])
    with pytest.raises(LocalError, match="frame_commands"):
        ClientSession(1, 1, [A], frame_commands=5000)
    harness = Harness()
    for commands, message in (
        (orders(17, 1), "16 free slots"),
        (orders(0, 1), "1 or more"),
        (np.zeros(1, np.uint64), "COMMAND"),
    ):
        with pytest.raises(LocalError, match=message):
            harness.session.submit(commands, harness.now)
    closing = np.zeros(1, COMMAND)
    closing["kind"] = CommandKind.CLOSE_SESSION
    with pytest.raises(LocalError, match="CLOSE_SESSION"):
        harness.session.submit(closing, harness.now)
    with pytest.raises(LocalError, match="event START is not allowed in state ACTIVE"):
        harness.session.start(harness.now)


def test_every_state_can_end_and_closed_is_final() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.CLOSED] == {}
    for state, table in TRANSITIONS.items():
        assert state is State.CLOSED or table[Event.END] is State.CLOSED


def test_new_leader_drops_the_connection_to_the_old_one() -> None:
    harness = Harness()
    harness.session.submit(orders(1, 1), harness.now)
    harness.session.disconnected(A, harness.now)
    harness.tick_at_deadline()
    harness.session.take_actions()
    harness.pong(B, 2, 2, term=2)
    assert harness.session.take_actions()[0] == DropConnection(A)


def test_random_scripts_cause_several_attempts() -> None:
    """The scripts test something only if their faults reach the session."""
    rng = random.Random(3)
    attempts = [run(make, [rng.randrange(100_000) for _ in range(200)]).session.attempts for _ in range(20)]
    assert max(attempts) > 3


def test_window_is_at_most_what_the_exchange_keeps() -> None:
    for window in (0, MAX_ANSWERS + 1):
        with pytest.raises(LocalError, match=f"window: expected 1 to {MAX_ANSWERS} unanswered requests"):
            ClientSession(SESSION, ACCOUNT, [A], window=window, frame_commands=1)


def test_command_that_names_details_beyond_the_last_is_a_local_error() -> None:
    harness = Harness()
    commands, details = with_long_ids(orders(3, 1), every=2)
    commands["details"][1] = 3
    with pytest.raises(LocalError, match="expected details 1 to 2, found a command with 3"):
        harness.session.submit(commands, harness.now, details)
    assert harness.session.unanswered == 0
