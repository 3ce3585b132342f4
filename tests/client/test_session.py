"""ClientSession: exactly once, in order, whatever the network does."""

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
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, OUTCOME
from tests.client.simulated_network import ACCOUNT, SESSION, Network, orders, run

A, B = "tcp://node:1", "tcp://node:2"

scripts = st.lists(st.integers(0, 100_000), min_size=1, max_size=250)


def make(addresses: Sequence[str]) -> ClientSession:
    return ClientSession(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)


@given(scripts)
def test_every_request_is_applied_exactly_once_in_order_and_answered_with_its_outcome(script: list[int]) -> None:
    run(make, script)


@given(scripts)
def test_exactly_once_holds_where_the_exchange_forgets_its_answers(script: list[int]) -> None:
    run(make, script, remembers=False)


class Faulty(ClientSession):
    """A session with a fault put in; tests name the fault."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)


class RenumberingWindow(RequestWindow):
    def rewind(self) -> None:
        self._ring["request_id"] += np.uint64(self.sent - self.answered)
        super().rewind()


class Renumbering(Faulty):
    """What is sent again gets new request ids."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = RenumberingWindow(SESSION, 16)


class ForwardWindow(RequestWindow):
    def rewind(self) -> None:
        pass


class Forgetful(Faulty):
    """A new try begins behind what was sent, not behind what was answered."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._window = ForwardWindow(SESSION, 16)


class Credulous(Faulty):
    """An outcome behind a gap answers everything before it."""

    def _on_gap(self, outcome: np.void, now: float) -> None:
        self._window.accept(int(outcome["request_id"]) - self._window.answered)


class Hasty(Faulty):
    """The session is closed at the exchange while copies of its requests may be under way."""

    def close(self, now: float) -> None:
        self._abandoned = False
        super().close(now)


class NewSession(Faulty):
    """Every try is a session of its own."""

    def _begin_attempt(self, now: float) -> None:
        self._opened = False
        self.session_id += 1
        self._window._session_id = self.session_id
        self._window._ring["session_id"] = self.session_id
        super()._begin_attempt(now)


@pytest.mark.parametrize("faulty", [Renumbering, Forgetful, Credulous, NewSession])
def test_a_faulty_session_is_caught(faulty: type[Faulty]) -> None:
    def fails(script: list[int]) -> bool:
        try:
            run(faulty, script)
        except (AssertionError, LocalError):
            return True
        return False

    rng = random.Random(1)
    assert any(fails([rng.randrange(100_000) for _ in range(200)]) for _ in range(100))


def late_copies(session: ClientSession) -> Network:
    """OPEN_SESSION and a request are sent twice; the first copies arrive after the session was closed."""
    net = Network(session)
    net.elect(0)
    while session.state is not State.OPENING:
        net.flow(0)
    net.disconnect(0)
    net.carry()
    while session.state is not State.ACTIVE:
        net.flow(11)
    net.submit(0)
    net.carry()
    net.disconnect(0)
    net.heal()
    net.check()
    assert len(net.nodes[1].ghosts) >= 2
    net.close()
    return net


def test_a_session_whose_requests_were_sent_twice_stays_open_at_the_exchange() -> None:
    assert SESSION in late_copies(make([A])).exchange.sessions


def test_closing_it_anyway_is_caught() -> None:
    with pytest.raises(AssertionError, match="late copy"):
        late_copies(Hasty([A]))


# One thing at a time


class Wire:
    """A session and the messages it sends, by hand."""

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

    def answer(self, found: np.ndarray, node: str = A, tried: int | None = None) -> None:
        tried = self.session.attempts if tried is None else tried
        self.session.receive(node, frames.encode_outcomes(found, tried << 32 | 1), self.now)

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


def test_a_session_finds_the_leader_opens_and_sends_in_frames() -> None:
    wire = Wire(State.IDLE)
    wire.session.submit(orders(6, 1), wire.now)
    wire.session.start(wire.now)
    assert [(to, frame.kind) for to, frame in wire.sent()] == [(A, FrameKind.PING), (B, FrameKind.PING)]
    wire.pong(A, 2, 1)
    assert wire.session.state is State.SEEKING, "what a node says of another is not believed"
    wire.pong(B, 2, 2)
    [(to, opening)] = wire.sent()
    assert (to, opening.kind) == (B, FrameKind.COMMANDS)
    assert frames.records(opening)["kind"].tolist() == [CommandKind.OPEN_SESSION]
    assert frames.records(opening)["account"].tolist() == [ACCOUNT]
    wire.answer(wire.opened(), B)
    assert wire.requests() == [[1, 2, 3, 4], [5, 6]]
    assert wire.session.leader == B
    wire.answer(outcomes(1, 6), B)
    assert wire.answered() == [1, 2, 3, 4, 5, 6]
    assert wire.session.deadline is None


def test_ids_go_on_around_the_end_of_the_ring() -> None:
    wire = Wire()
    for start in range(1, 60, 5):
        assert wire.session.submit(orders(5, start), wire.now) == start
        assert [request for ids in wire.requests() for request in ids] == list(range(start, start + 5))
        wire.answer(outcomes(start, 5))
        assert wire.answered() == list(range(start, start + 5))


def test_not_leader_sends_everything_unanswered_to_the_new_leader() -> None:
    wire = Wire()
    wire.session.submit(orders(6, 1), wire.now)
    wire.sent()
    wire.answer(outcomes(1, 2))
    hint = frames.encode_body(FrameKind.NOT_LEADER, LeaderHint(2, B, 1, 2), wire.session.attempts << 32 | 2)
    wire.session.receive(A, hint, wire.now)
    assert wire.session.state is State.SEEKING
    wire.tick_at_deadline()
    wire.sent()
    wire.pong(B, 2, 2, term=2)
    assert wire.requests() == [[3, 4, 5, 6]]
    # The old leader's answer comes late: it is as good as any, and the new leader's is then no news.
    wire.answer(outcomes(3, 1), A, tried=1)
    assert wire.answered() == [1, 2, 3]
    wire.answer(outcomes(3, 4, status=OutcomeStatus.DUPLICATE, sequence=0), B)
    assert wire.answered() == [4, 5, 6]


def test_an_old_term_is_not_believed_where_a_newer_is_known() -> None:
    wire = Wire(State.SEEKING)
    wire.pong(B, 3, 2, term=9)
    wire.pong(A, 1, 1, term=8)
    assert wire.session.state is State.SEEKING
    wire.tick_at_deadline()
    wire.pong(A, 1, 1, term=9)
    assert wire.session.state is State.OPENING


def test_the_term_of_a_node_without_a_leader_proves_nothing() -> None:
    wire = Wire(State.SEEKING)
    wire.pong(B, None, 2, term=500)
    wire.pong(A, 1, 1, term=8)
    assert wire.session.state is State.OPENING


def test_an_answer_to_an_earlier_ping_is_not_believed() -> None:
    wire = Wire()
    wire.session.disconnected(A, wire.now)
    assert wire.session.state is State.SEEKING
    wire.pong(A, 1, 1, correlation=1)
    assert wire.session.state is State.SEEKING


def test_nodes_named_by_hints_are_asked_too_and_strange_addresses_are_not() -> None:
    wire = Wire(State.SEEKING)
    wire.sent()
    for where in ("tcp://node:3", "http://x", "tcp://" + "x" * 999, "tcp://n\x00de"):
        body = LeaderHint(3, where, 1, 1)
        wire.session.receive(A, frames.encode_body(FrameKind.PONG, body, 1), wire.now)
    wire.tick_at_deadline()
    assert [to for to, _ in wire.sent()] == [A, B, "tcp://node:3"]


def test_a_silent_leader_is_asked_and_what_it_has_is_not_sent_again_while_it_leads() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.sent()
    attempts = wire.session.attempts
    for _ in range(3):
        wire.tick_at_deadline()
        assert wire.session.state is State.SEEKING
        wire.pong(A, 1, 1)
        assert wire.session.state is State.ACTIVE
        assert wire.session.attempts == attempts
        assert wire.requests() == []
    wire.tick_at_deadline()
    wire.pong(A, 1, 1)
    assert wire.session.attempts == attempts + 1
    assert wire.requests() == [[1, 2]]


def test_a_broken_connection_sends_again_at_once() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.sent()
    wire.session.disconnected(B, wire.now)
    assert wire.session.state is State.ACTIVE
    wire.session.disconnected(A, wire.now)
    wire.tick_at_deadline()
    wire.sent()
    wire.pong(A, 1, 1)
    assert wire.requests() == [[1, 2]]


def test_after_overloaded_the_session_waits_and_then_sends_again_longer_each_time() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.sent()
    pauses = []
    for _ in range(8):
        wire.error(ErrorCode.OVERLOADED)
        assert wire.session.state is State.BACKOFF
        assert wire.session.deadline is not None
        pauses.append(wire.session.deadline - wire.now)
        wire.tick_at_deadline()
        assert wire.requests() == [[1, 2]]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.02
    assert pauses[-1] == pytest.approx(0.5)


def test_a_gap_rewinds_at_once_and_then_with_pauses() -> None:
    wire = Wire()
    wire.session.submit(orders(8, 1), wire.now)
    wire.sent()
    gap = outcomes(5, 4, status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_GAP)
    wire.answer(gap)
    assert wire.requests() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    wire.answer(gap, tried=wire.session.attempts - 1)
    assert wire.requests() == [], "the gap of an earlier try is no news"
    wire.answer(gap)
    assert wire.session.state is State.BACKOFF
    wire.tick_at_deadline()
    assert wire.requests() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert wire.answered() == []


def test_a_gap_at_the_first_request_of_a_try_means_that_the_exchange_forgot() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.answer(outcomes(1, 2))
    wire.session.submit(orders(2, 3), wire.now)
    wire.session.disconnected(A, wire.now)
    wire.tick_at_deadline()
    wire.pong(A, 1, 1)
    wire.answer(outcomes(3, 2, status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_GAP))
    assert wire.session.state is State.FAILED
    assert wire.session.failure is not None
    assert "forgotten request 2" in wire.session.failure.message


def test_a_refusal_for_malformed_bytes_counts_only_if_it_came_after_the_request_before_it() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND, sequence=50)
    wire.answer(outcomes(1, 1, sequence=60), tried=0)
    wire.answer(malformed, tried=0)
    assert wire.answered() == [1], "the refusal stands before request 1 in the log: it consumed nothing"
    malformed["sequence"] = 70
    wire.answer(malformed, tried=0)
    assert wire.answered() == [2]


def test_a_malformed_refusal_after_a_forgotten_answer_is_believed_at_the_start_of_a_try_only() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.answer(outcomes(1, 1, status=OutcomeStatus.DUPLICATE, sequence=0))
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND)
    wire.sent()
    wire.answer(malformed)
    assert wire.answered() == [1]
    assert wire.requests() == [[2]]
    wire.answer(malformed)
    assert wire.answered() == [2]


def test_a_malformed_refusal_at_the_start_of_a_try_is_believed_while_the_session_pauses_too() -> None:
    """Or a leader that takes part of each try only, and says so before it answers the rest, is asked for ever."""
    wire = Wire()
    wire.session.submit(orders(8, 1), wire.now)
    wire.answer(outcomes(1, 1, status=OutcomeStatus.DUPLICATE, sequence=0))
    wire.session.disconnected(A, wire.now)
    wire.tick_at_deadline()
    wire.pong(A, 1, 1)
    wire.sent()
    wire.error(ErrorCode.OVERLOADED)
    assert wire.session.state is State.BACKOFF
    malformed = outcomes(2, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_KIND)
    wire.answer(malformed, tried=wire.session.attempts - 1)
    assert wire.answered() == [1], "of an earlier try: nobody knows what came before it"
    wire.answer(malformed)
    assert wire.answered() == [2]
    wire.tick_at_deadline()
    assert wire.requests() == [[3, 4, 5, 6], [7, 8]]


def test_a_session_the_exchange_does_not_know_any_more_fails_with_its_requests_unknown() -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.answer(outcomes(1, 2, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_SESSION))
    assert wire.session.state is State.FAILED
    assert wire.session.unanswered == 2
    with pytest.raises(LocalError, match="open session"):
        wire.session.submit(orders(1, 3), wire.now)


@pytest.mark.parametrize(
    "kind", [CommandKind.OPEN_SESSION, CommandKind.CLOSE_SESSION, CommandKind.TICK, CommandKind.DISCONNECT]
)
def test_what_is_not_the_callers_to_say_is_the_callers_fault(kind: CommandKind) -> None:
    wire = Wire()
    commands = orders(3, 1)
    commands["kind"][1] = kind
    with pytest.raises(LocalError, match=f"expected no .*{kind.name}.*: the session or the exchange does that itself"):
        wire.session.submit(commands, wire.now)
    assert wire.session.unanswered == 0


def test_a_session_that_ends_with_its_connection_says_so_when_it_opens() -> None:
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
def test_a_refused_session_fails_with_the_reason(reason: int) -> None:
    wire = Wire(State.OPENING)
    wire.answer(outcomes(0, 1, status=OutcomeStatus.REJECTED, reason=reason))
    assert wire.session.state is State.FAILED
    assert wire.session.failure is not None
    assert wire.session.failure.reason == (None if reason == 999 else reason)


def test_a_session_in_which_another_client_has_sent_requests_is_not_ours() -> None:
    wire = Wire(State.OPENING)
    wire.answer(outcomes(0, 1, status=OutcomeStatus.DUPLICATE, sequence=0, order_id=12))
    assert wire.session.state is State.FAILED


def test_a_fenced_node_is_left() -> None:
    wire = Wire()
    wire.session.submit(orders(1, 1), wire.now)
    wire.error(ErrorCode.FENCED)
    assert wire.session.state is State.SEEKING
    assert "expected less" in wire.session.describe()


def test_a_frame_the_leader_cannot_read_is_a_failure_even_without_its_correlation() -> None:
    wire = Wire()
    wire.session.submit(orders(1, 1), wire.now)
    wire.error(ErrorCode.UNSUPPORTED_VERSION, correlation=0)
    assert wire.session.state is State.FAILED
    assert wire.session.failure is not None
    assert "expected less" in wire.session.failure.message


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
def test_a_leader_that_talks_nonsense_is_left_for_another(data: bytes) -> None:
    wire = Wire()
    wire.session.submit(orders(2, 1), wire.now)
    wire.session.receive(B, data, wire.now)
    assert wire.session.state is State.ACTIVE
    wire.session.receive(A, data, wire.now)
    assert wire.session.state is State.SEEKING
    assert wire.answered() == []


@given(st.binary(max_size=200))
def test_no_bytes_make_a_session_raise(data: bytes) -> None:
    for state in (State.SEEKING, State.OPENING, State.ACTIVE):
        wire = Wire(state)
        wire.session.receive(A, data, wire.now)
        wire.session.receive(A, frames.encode(FrameKind.OUTCOMES, data), wire.now)
        wire.session.receive(A, frames.encode(FrameKind.PONG, data, correlation=1), wire.now)
        wire.session.receive(A, frames.encode(FrameKind.ERROR, data, correlation=1 << 32), wire.now)


def test_a_polite_close_tells_the_exchange_and_waits_for_nobody_else() -> None:
    wire = Wire()
    wire.session.close(wire.now)
    assert wire.session.state is State.CLOSING
    [(_, frame)] = wire.sent()
    assert frames.records(frame)["kind"].tolist() == [CommandKind.CLOSE_SESSION]
    wire.answer(outcomes(1, 1))
    assert wire.session.state is State.CLOSED
    assert wire.answered() == [], "the caller asked nothing"


@pytest.mark.parametrize("trouble", ["silence", "overloaded", "disconnected", "unknown session"])
def test_a_close_that_meets_trouble_is_over(trouble: str) -> None:
    wire = Wire()
    wire.session.close(wire.now)
    match trouble:
        case "silence":
            wire.tick_at_deadline()
        case "overloaded":
            wire.error(ErrorCode.OVERLOADED)
        case "disconnected":
            wire.session.disconnected(A, wire.now)
        case _:
            wire.answer(outcomes(1, 1, status=OutcomeStatus.REJECTED, reason=Reason.UNKNOWN_SESSION))
    assert wire.session.state is State.CLOSED
    assert wire.session.deadline is None


def test_local_mistakes_are_the_callers() -> None:
    with pytest.raises(LocalError, match="session id"):
        ClientSession(0, 1, [A])
    with pytest.raises(LocalError, match="at least one node"):
        ClientSession(1, 1, [])
    with pytest.raises(LocalError, match="frame_commands"):
        ClientSession(1, 1, [A], frame_commands=5000)
    wire = Wire()
    for commands, message in (
        (orders(17, 1), "at most 16"),
        (orders(0, 1), "1 or more"),
        (np.zeros(1, np.uint64), "COMMAND"),
    ):
        with pytest.raises(LocalError, match=message):
            wire.session.submit(commands, wire.now)
    closing = np.zeros(1, COMMAND)
    closing["kind"] = CommandKind.CLOSE_SESSION
    with pytest.raises(LocalError, match="CLOSE_SESSION"):
        wire.session.submit(closing, wire.now)
    with pytest.raises(LocalError, match="no START in state ACTIVE"):
        wire.session.start(wire.now)


def test_every_state_can_end_and_no_event_leads_out_of_closed() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.CLOSED] == {}
    for state, table in TRANSITIONS.items():
        assert state is State.CLOSED or table[Event.END] is State.CLOSED


def test_a_new_leader_makes_the_owner_forget_what_waits_for_the_old_one() -> None:
    wire = Wire()
    wire.session.submit(orders(1, 1), wire.now)
    wire.session.disconnected(A, wire.now)
    wire.tick_at_deadline()
    wire.session.take_actions()
    wire.pong(B, 2, 2, term=2)
    assert wire.session.take_actions()[0] == DropConnection(A)


def test_network_script_helper_reaches_more_than_one_try() -> None:
    """The scripts are worth something only if the trouble they make reaches the session."""
    rng = random.Random(3)
    attempts = [run(make, [rng.randrange(100_000) for _ in range(200)]).session.attempts for _ in range(20)]
    assert max(attempts) > 3
