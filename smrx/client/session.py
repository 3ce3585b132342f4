"""The client's side of a session, sans I/O: every request applied exactly once, in order, whoever leads.

Rules:

- Time is an argument; bytes go in with receive(), actions (what to send to whom) and outcomes come out. Nothing blocks.
- A request keeps its id for ever. Whatever goes wrong, everything from the first unanswered request on is sent again,
  in order, in a new *try*; the exchange knows the ids it has seen. The try stands in the correlation of a frame.
- Outcomes are matched by session and request id, never by frame, and taken strictly in order: an outcome counts when
  it answers the first unanswered request and proves that the exchange has consumed its id. So a late answer of an old
  leader is as good as any, and a refusal that consumed nothing (REQUEST_GAP) can never pass for an answer.
- Two kinds of fault: LocalError is the caller's; everything the other side does wrong ends in `failure` or in a search
  for another leader, never in an exception.

Called by the blocking and the asyncio client, which own sockets and clock.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.client.leader_search import Leader, LeaderSearch
from smrx.client.request_window import RequestWindow
from smrx.client.session_states import (
    TRANSITIONS,
    Action,
    DropConnection,
    Event,
    Failure,
    LocalError,
    Send,
    State,
)
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, SessionFlags
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.records import COMMAND

DEFAULT_WINDOW: Final = 32_768
#: 64 KiB a frame: a client's share of a 1 MiB entry that leaves room for others.
DEFAULT_FRAME_COMMANDS: Final = 1024

#: Without a sign of progress for this long, the leader is asked whether it still leads.
INITIAL_RESPONSE_TIMEOUT_S: Final = 1.0
MAX_RESPONSE_TIMEOUT_S: Final = 4.0
#: A leader that still leads but has answered nothing for this many patiences is sent everything again: it did not lose
#: the requests, but the connection may have.
TIMEOUTS_BEFORE_RESEND: Final = 4
#: After OVERLOADED, or a second gap without progress.
INITIAL_BACKOFF_S: Final = 0.01
MAX_BACKOFF_S: Final = 0.5

#: What opens and ends sessions, and what only a leader may say.
_NOT_TO_SUBMIT: Final = (
    CommandKind.OPEN_SESSION,
    CommandKind.CLOSE_SESSION,
    CommandKind.TICK,
    CommandKind.DISCONNECT,
)


class ClientSession:
    """One session of one account. `session_id` is the caller's random choice; its ids start at 1."""

    def __init__(
        self,
        session_id: int,
        account: int,
        addresses: Sequence[str],
        *,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
        flags: SessionFlags = SessionFlags.NONE,
    ) -> None:
        if not 0 < session_id < 1 << 64:
            raise LocalError(f"session id: expected 1 to 2^64 - 1, found {session_id}")
        if not addresses:
            raise LocalError("addresses: expected at least one node, found none")
        if not 1 <= frame_commands <= min(window, frames.MAX_COMMANDS):
            raise LocalError(
                f"frame_commands: expected 1 to {min(window, frames.MAX_COMMANDS)} "
                f"(window {window}), found {frame_commands}"
            )
        self.session_id = session_id
        self.account = account
        self.flags = flags
        self.state = State.IDLE
        self.failure: Failure | None = None
        self.search = LeaderSearch(addresses)
        #: Tries so far: 1 when nothing ever had to be sent again.
        self.attempts = 0
        self._window = RequestWindow(session_id, window)
        self._frame_commands = frame_commands
        self._leader: Leader | None = None
        self._opened = False
        self._actions: list[Action] = []
        self._outcomes: list[NDArray[np.void]] = []
        self._frame = 0
        self._attempt_first = 1
        self._attempt_broken = False
        self._progress_at = 0.0
        self._heard_at = 0.0
        self._response_timeout_s = INITIAL_RESPONSE_TIMEOUT_S
        self._backoff_s = INITIAL_BACKOFF_S
        self._back_offs = 0
        self._retry_at = 0.0
        self._consumed_at = 0
        self._abandoned = False
        self._close_request: int | None = None

    # What the caller may ask

    @property
    def leader(self) -> str | None:
        """The order address of the leader, or None while it is sought."""
        ready = self.state in (State.OPENING, State.ACTIVE, State.BACKOFF, State.CLOSING)
        return self._leader.address if ready and self._leader is not None else None

    @property
    def free_slots(self) -> int:
        """How many commands submit() takes now."""
        return self._window.free_slots

    @property
    def unanswered(self) -> int:
        """Requests submitted and not answered yet."""
        return self._window.last - self._window.answered

    @property
    def answered(self) -> int:
        """The last request whose outcome is known; every one before it is known too."""
        return self._window.answered

    @property
    def last_request(self) -> int:
        """The id of the last request submitted, 0 if there is none."""
        return self._window.last

    @property
    def deadline(self) -> float | None:
        """When tick() is needed next, if nothing arrives before; None while there is nothing to wait for."""
        if self.state is State.SEEKING:
            return self.search.next_round_at
        if self.state is State.BACKOFF:
            return self._retry_at
        return self._heard_at + self._response_timeout_s if self._waiting else None

    def take_actions(self) -> list[Action]:
        """Return what is to be done now, in order."""
        actions, self._actions = self._actions, []
        return actions

    def take_outcomes(self) -> list[NDArray[np.void]]:
        """Return the outcomes that became known, in request order, without a gap."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def describe(self) -> str:
        """What was tried, for the message of whoever gives up."""
        if self.state is State.BACKOFF and self._leader is not None:
            return f"{self._leader.address}: overloaded"
        if self._leader is not None and self.leader is not None:
            return f"{self._leader.address}: leads, but has not answered"
        return self.search.describe()

    # What happens

    def start(self, now: float) -> None:
        """Look for the leader and open the session."""
        self._move(Event.START)
        self.search.start(now)
        self._ping(now)

    def submit(self, commands: NDArray[np.void], now: float) -> int:
        """Take commands, in order, and return the request id of the first; copies are kept until they are answered.

        Session id and request id are filled in. Raises LocalError beyond `room` and on a session that has ended.
        """
        if self.state in (State.CLOSING, State.CLOSED, State.FAILED):
            raise LocalError(f"expected an open session, found one that is {self.state.name.lower()}")
        if not len(commands):
            raise LocalError("expected 1 or more commands, found 0")
        if len(commands) > self.free_slots:
            raise LocalError(
                f"expected at most {self.free_slots} commands (the room in the window), found {len(commands)}"
            )
        if commands.dtype != COMMAND:
            raise LocalError("expected an array of COMMAND records")
        if np.isin(commands["kind"], _NOT_TO_SUBMIT).any():
            names = ", ".join(kind.name for kind in _NOT_TO_SUBMIT)
            raise LocalError(f"expected no {names}: the session or the exchange does that itself")
        return self._submit(commands, now)

    def _submit(self, commands: NDArray[np.void], now: float) -> int:
        if not self._waiting:
            self._heard_at = self._progress_at = now
        first = self._window.add(commands)
        if self.state in (State.ACTIVE, State.CLOSING):
            self._flush()
        return first

    def close(self, now: float) -> None:
        """End the session: with CLOSE_SESSION where that is safe, else on this side only.

        Safe means that nothing of it was ever sent twice: a copy still under way somewhere would, once the exchange
        has forgotten the session, open it again and be applied again.
        """
        if self.state is State.ACTIVE and not self.unanswered and not self._abandoned:
            self._move(Event.CLOSE)
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            self._close_request = self._submit(command, now)
        elif self.state is not State.CLOSED:
            self._move(Event.END)

    def tick(self, now: float) -> None:
        """Do what is due. Call it at `deadline`, and only after everything that has arrived was given to receive()."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self.state is State.SEEKING:
            self._ping(now)
        elif self.state is State.BACKOFF:
            self._begin_attempt(now)
        else:
            self._lose_leader(now, f"no answer for {now - self._heard_at:.1f} s", broken=False)

    def disconnected(self, address: str, now: float) -> None:
        """The connection to `address` broke; what was on its way may be lost."""
        if address == self.leader:
            self._lose_leader(now, "connection lost", broken=True)

    def receive(self, address: str, data: bytes, now: float) -> None:
        """Take one message of the node at `address`, whatever it is."""
        if self.state in (State.IDLE, State.CLOSED, State.FAILED):
            return
        try:
            frame = frames.decode(data)
            if frame.kind is FrameKind.OUTCOMES:
                self._on_outcomes(frame, now)
            elif frame.kind is FrameKind.PONG:
                self._on_pong(address, frame, now)
            elif frame.kind is FrameKind.NOT_LEADER:
                self.search.heard(address, frames.leader_hint(frame))
                if self._is_current(frame):
                    self._lose_leader(now, None, broken=True)
            elif frame.kind is FrameKind.ERROR:
                self._on_error(address, frame, now)
            else:
                raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected an answer, found {frame.kind.name}")
        except FrameError as error:
            self.search.note(address, f"does not speak this protocol: {error}")
            if address == self.leader:
                self._lose_leader(now, f"does not speak this protocol: {error}", broken=True)

    # The leader

    @property
    def _waiting(self) -> bool:
        if self.state is State.OPENING:
            return True
        return self.state in (State.ACTIVE, State.CLOSING) and self._window.sent > self._window.answered

    def _is_current(self, frame: Frame) -> bool:
        sending = self.state in (State.OPENING, State.ACTIVE, State.CLOSING)
        return sending and frame.correlation >> 32 == self.attempts

    def _ping(self, now: float) -> None:
        correlation, addresses = self.search.next_round(now)
        ping = frames.encode(FrameKind.PING, correlation=correlation)
        self._actions += [Send(address, ping, ping=True) for address in addresses]

    def _on_pong(self, address: str, frame: Frame, now: float) -> None:
        leader = self.search.pong(address, frames.leader_hint(frame), frame.correlation)
        if leader is None or self.state is not State.SEEKING:
            return
        silent_s = now - self._progress_at
        if (
            leader == self._leader
            and not self._attempt_broken
            and silent_s < TIMEOUTS_BEFORE_RESEND * self._response_timeout_s
        ):
            # Slow, not gone: what it was sent is still on its way through the log.
            self._heard_at = now
            self._move(Event.RESUME if self._opened else Event.OPEN)
            self._flush()
            return
        if self._leader is not None:
            self._actions.append(DropConnection(self._leader.address))
        if leader == self._leader and not self._attempt_broken:
            # It may be overrun rather than cut off: more of the same must come ever more slowly.
            self._response_timeout_s = min(self._response_timeout_s * 2, MAX_RESPONSE_TIMEOUT_S)
        self._leader = leader
        self._begin_attempt(now)

    def _lose_leader(self, now: float, cause: str | None, *, broken: bool) -> None:
        self._move(Event.LEADER_LOST)
        if self.state is not State.SEEKING:
            return
        self._attempt_broken |= broken
        self.search.start(now)
        if cause is not None and self._leader is not None:
            self.search.note(self._leader.address, cause)
        if now >= self.search.next_round_at:
            self._ping(now)

    def _begin_attempt(self, now: float) -> None:
        """Send everything that is unanswered to the leader, under a new correlation."""
        self._abandoned |= self.attempts > 0 and (not self._opened or self._window.sent > self._window.answered)
        self.attempts += 1
        self._frame = 0
        self._attempt_broken = False
        self._window.rewind()
        self._attempt_first = self._window.answered + 1
        self._heard_at = self._progress_at = now
        if self.state is not State.ACTIVE:
            self._move(Event.RESUME if self._opened else Event.OPEN)
        if self._opened:
            self._flush()
        else:
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.OPEN_SESSION
            command["session_id"], command["account"] = self.session_id, self.account
            command["flags"] = self.flags
            self._send(command)

    def _flush(self) -> None:
        if self.state not in (State.ACTIVE, State.CLOSING):
            return
        while self._window.sent < self._window.last:
            self._send(self._window.take(self._frame_commands))

    def _send(self, commands: NDArray[np.void]) -> None:
        assert self._leader is not None
        self._frame += 1
        data = frames.encode_commands(commands, self.attempts << 32 | self._frame)
        self._actions.append(Send(self._leader.address, data))

    def _pause(self, now: float) -> None:
        """Leave the leader alone for a moment, longer each time without progress, then send again."""
        self._move(Event.BACK_OFF)
        self._retry_at = now + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)

    def _rewind(self, now: float) -> None:
        """The exchange missed something of this try: begin a new one, at once if it is the first time."""
        self._back_offs += 1
        if self.state is State.ACTIVE and self._back_offs == 1:
            self._begin_attempt(now)
        else:
            self._pause(now)

    def _on_error(self, address: str, frame: Frame, now: float) -> None:
        body = frames.error_body(frame)
        self.search.note(address, f"refuses: {body.message}")
        # A node that could not read a frame cannot echo its correlation; on this connection it can only be ours.
        unread = frame.correlation == 0 and address == self.leader and self._waiting
        if not unread and not self._is_current(frame):
            return
        if body.code == ErrorCode.OVERLOADED:
            self._pause(now)
        elif body.code == ErrorCode.FENCED:
            self._lose_leader(now, f"refuses: {body.message}", broken=True)
        else:
            self._fail(f"{address} refuses a frame of this client: {body.message}")

    # Outcomes

    def _on_outcomes(self, frame: Frame, now: float) -> None:
        outcomes = frames.records(frame)
        if not len(outcomes):
            raise FrameError(ErrorCode.MALFORMED_FRAME, "expected 1 or more outcomes, found 0")
        if np.any(outcomes["session_id"] != self.session_id):
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected outcomes of session {self.session_id} only")
        requests = outcomes["request_id"]
        first = int(requests[0])
        if first == 0:
            self._on_opened(outcomes[0], now)
            return
        past_end = first + len(outcomes)
        if past_end > self._window.last + 1 or np.any(requests != np.arange(first, past_end, dtype=np.uint64)):
            raise FrameError(ErrorCode.MALFORMED_FRAME, "expected outcomes of consecutive requests that were sent")
        known = self._window.answered + 1 - first
        current = self._is_current(frame)
        if known < 0:
            # Answers before these were lost, or the requests were. (Of an earlier try, neither is news.)
            if current:
                self._on_gap(outcomes[0], now)
        elif known < len(outcomes):
            fresh = outcomes[known:]
            # Also while the leader is left alone: what it took of this try before is answered by it.
            count = self._consumed(fresh, of_this_attempt=frame.correlation >> 32 == self.attempts)
            if count:
                self._accept(fresh[:count], now)
            if count < len(fresh) and current and self._is_current(frame):
                self._on_gap(fresh[count], now)

    def _consumed(self, outcomes: NDArray[np.void], *, of_this_attempt: bool) -> int:
        """Return how many outcomes, from the first, prove that the exchange has consumed their request id.

        All do but two kinds. UNKNOWN_SESSION and REQUEST_GAP consume nothing. A refusal for malformed bytes comes
        before the look at the id: it consumed the id only if the request before had been consumed by then.
        """
        doubtful = (outcomes["status"] == OutcomeStatus.REJECTED) & (outcomes["reason"] <= Reason.REQUEST_GAP)
        for i in np.flatnonzero(doubtful).tolist():
            if outcomes["reason"][i] >= Reason.UNKNOWN_SESSION:
                return int(i)
            before = int(outcomes["sequence"][i - 1]) if i else self._consumed_at
            if before:
                consumed = int(outcomes["sequence"][i]) > before
            else:
                # The sequence of the one before is not known: neighbours of one frame stand together in the log, and
                # whatever came before a try was consumed before it.
                consumed = i > 0 or (of_this_attempt and self._window.answered + 1 == self._attempt_first)
            if not consumed:
                return int(i)
        return len(outcomes)

    def _accept(self, outcomes: NDArray[np.void], now: float) -> None:
        self._window.accept(len(outcomes))
        self._consumed_at = int(outcomes["sequence"][-1])
        self._progress(now)
        if self._close_request is not None and self._window.answered >= self._close_request:
            self._move(Event.END)
            return
        self._outcomes.append(outcomes)

    def _progress(self, now: float) -> None:
        self._heard_at = self._progress_at = now
        self._response_timeout_s = INITIAL_RESPONSE_TIMEOUT_S
        self._backoff_s = INITIAL_BACKOFF_S
        self._back_offs = 0
        if self.state is State.BACKOFF:
            # What went through before the push-back is still being answered: send the rest again when that ends.
            self._retry_at = max(self._retry_at, now + INITIAL_BACKOFF_S)

    def _on_gap(self, outcome: np.void, now: float) -> None:
        """An outcome of this try that answers nothing yet."""
        request = int(outcome["request_id"])
        refused = outcome["status"] == OutcomeStatus.REJECTED
        if refused and outcome["reason"] == Reason.UNKNOWN_SESSION:
            if self.state is State.CLOSING:
                self._move(Event.END)
            else:
                self._fail(f"the exchange does not know session {self.session_id} any more")
        elif refused and outcome["reason"] == Reason.REQUEST_GAP and request == self._attempt_first:
            self._fail(f"the exchange has forgotten request {request - 1}, which it had answered")
        else:
            self._rewind(now)

    def _on_opened(self, outcome: np.void, now: float) -> None:
        if self._opened:
            return
        if outcome["status"] == OutcomeStatus.REJECTED:
            code = int(outcome["reason"])
            reason = Reason(code) if code in set(Reason) else None
            name = f"reason {code}" if reason is None else reason.name
            self._fail(f"a session for account {self.account} was refused: {name}", reason)
            return
        if outcome["status"] == OutcomeStatus.DUPLICATE and outcome["order_id"] != 0:
            self._fail(f"session {self.session_id} is in use by another client of account {self.account}")
            return
        self._opened = True
        self._consumed_at = int(outcome["sequence"])
        self._progress(now)
        if self.state is State.OPENING:
            self._move(Event.OPENED)
            self._flush()

    # States

    def _fail(self, message: str, reason: Reason | None = None) -> None:
        self._move(Event.FAIL)
        if self.state is State.FAILED:
            self.failure = Failure(message, reason)

    def _move(self, event: Event) -> None:
        state = TRANSITIONS[self.state].get(event)
        if state is None:
            raise LocalError(f"expected no {event.name} in state {self.state.name}")
        self.state = state
