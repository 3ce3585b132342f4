"""Run the client's side of a session: each request is applied exactly once, in order, across leader changes.

Rules:

- Sans I/O: time is an argument, bytes go in through receive(), actions (what to send where) and outcomes come out.
- A request keeps its id. After an error, every request from the first unanswered one on is sent again, in order, in a
  new *attempt*; the exchange recognises the ids it has already applied. The correlation of a frame carries the attempt.
- Outcomes are matched by session and request id, not by frame, and accepted strictly in order: an outcome is accepted
  if it answers the first unanswered request and shows that the exchange has consumed its id. A late reply of a former
  leader is therefore valid, and a rejection that consumed nothing (REQUEST_GAP) is never taken for an answer.
- An outcome that cannot be that of the request (outcome_checks.py) ends the session.
- The upper half of the session's id is the number of the client's credential, which the leader reports; the lower half
  is the client's choice. Before the session is open it may have to choose again.
- LocalError is a bug of the caller. Every fault of the other side leads to `failure` or to a search for another
  leader, never to an exception.

Driven by the blocking client, the asyncio client and the simulator, which own sockets and clock.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.client import outcome_checks
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
from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.records import COMMAND, MAX_ANSWERS, SESSION_COMMAND

#: Unanswered requests of a session: the exchange keeps as many of its last answers, 64 bytes each.
DEFAULT_WINDOW: Final = 1_024
#: For a client that sends a great many commands at once.
BULK_WINDOW: Final = 32_768
#: 64 KiB a frame, so that the frames of several clients fit in a 1 MiB log entry.
DEFAULT_FRAME_COMMANDS: Final = 1024

#: Time without progress after which the leader is asked whether it still leads.
INITIAL_RESPONSE_TIMEOUT_S: Final = 1.0
MAX_RESPONSE_TIMEOUT_S: Final = 4.0
#: Response timeouts without progress after which everything is sent again to a leader that still leads: the connection
#: may have lost the requests.
TIMEOUTS_BEFORE_RESEND: Final = 4
#: Pause after OVERLOADED, or after a second gap without progress.
INITIAL_BACKOFF_S: Final = 0.01
MAX_BACKOFF_S: Final = 0.5
#: How often to choose another session id. Two clients rarely choose the same of 2^32.
MAX_SESSION_IDS: Final = 8
_HALF_BITS: Final = 32
_LOWER_HALF: Final = (1 << _HALF_BITS) - 1

#: Reasons of a malformed command, which has no place in the order of requests.
_MALFORMED: Final = tuple(takewhile(lambda reason: reason is not Reason.UNKNOWN_SESSION, Reason))
_NOT_CONSUMED: Final = (
    Reason.UNKNOWN_SESSION,
    Reason.SESSION_CLOSED,
    Reason.REQUEST_GAP,
    Reason.REQUEST_MISMATCH,
)
_DOUBTFUL: Final = np.array((*_MALFORMED, *_NOT_CONSUMED), np.uint16)

#: Reasons for which another session id may be accepted.
_ID_IN_USE: Final = (Reason.SESSION_IN_USE, Reason.SESSION_CLOSED)

#: Commands that only the session itself or the leader sends.
_RESERVED_KINDS: Final = (
    CommandKind.OPEN_SESSION,
    CommandKind.CLOSE_SESSION,
    CommandKind.TICK,
    CommandKind.DISCONNECT,
    CommandKind.SET_VERSION,
)
#: The first fields of an outcome, up to the order id; where a command has the number of its details.
_LONE_OUTCOME: Final = Struct("<BBHIQQQQ")
_DETAILS_NUMBER: Final = slice(6, 8)
_IS_RESERVED: Final = np.isin(np.arange(256), _RESERVED_KINDS)


class ClientSession:
    """One session of one account. The caller chooses a random `session_id`; request ids start at 1.

    `new_id` returns another random id, for the case that the exchange has known a session with the first.
    """

    def __init__(
        self,
        session_id: int,
        account: int,
        addresses: Sequence[str],
        *,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
        flags: SessionFlags = SessionFlags.NONE,
        new_id: Callable[[], int] | None = None,
    ) -> None:
        if not 0 < session_id < 1 << 64:
            raise LocalError(f"session id: expected 1 to 2^64 - 1, found {session_id}")
        if not addresses:
            raise LocalError("addresses: expected the address of at least one node")
        if not 1 <= window <= MAX_ANSWERS:
            raise LocalError(f"window: expected 1 to {MAX_ANSWERS} unanswered requests, found {window}")
        if not 1 <= frame_commands <= min(window, frames.MAX_COMMANDS):
            raise LocalError(
                f"frame_commands: expected 1 to {min(window, frames.MAX_COMMANDS)} with a window of {window}, "
                f"found {frame_commands}"
            )
        self.session_id = session_id
        self.account = account
        self.flags = flags
        self.state = State.IDLE
        self.failure: Failure | None = None
        self.search = LeaderSearch(addresses)
        #: Attempts so far; 1 if nothing had to be sent again.
        self.attempts = 0
        self._window = RequestWindow(session_id, window)
        # A request may be sent again while it is unanswered, so the exchange keeps the answers of all of the window.
        self._answers_kept = window
        self._frame_commands = frame_commands
        self._leader: Leader | None = None
        self._opened = False
        self._new_id = new_id
        self._ids_tried = 1
        self._credential: int | None = None
        self._actions: list[Action] = []
        self._outcomes: list[NDArray[np.void]] = []
        self._frame_number = 0
        self._attempt_first = 1  # first request of this attempt
        self._attempt_broken = False  # whether part of this attempt may be lost
        self._progress_at = 0.0
        self._last_reply_at = 0.0
        self._response_timeout_s = INITIAL_RESPONSE_TIMEOUT_S
        self._backoff_s = INITIAL_BACKOFF_S
        self._rewinds = 0  # since the last progress
        self._retry_at = 0.0
        self._consumed_sequence = 0  # of the last answered request, 0 if unknown
        self._close_request: int | None = None

    # State

    @property
    def leader(self) -> str | None:
        """The order entry address of the leader, or None during a search."""
        ready = self.state in (State.OPENING, State.ACTIVE, State.BACKOFF, State.CLOSING)
        return self._leader.address if ready and self._leader is not None else None

    @property
    def is_open(self) -> bool:
        """Whether the exchange has opened the session; from then on its id does not change."""
        return self._opened

    @property
    def free_slots(self) -> int:
        """How many commands submit() accepts now."""
        return self._window.free_slots

    @property
    def unanswered(self) -> int:
        """How many submitted requests are unanswered."""
        return self._window.last - self._window.answered

    @property
    def answered(self) -> int:
        """The id of the last answered request; all before it are answered, too."""
        return self._window.answered

    @property
    def last_request(self) -> int:
        """The id of the last submitted request, 0 if there is none."""
        return self._window.last

    @property
    def deadline(self) -> float | None:
        """When tick() must be called unless something arrives earlier; None if nothing is due."""
        if self.state is State.SEEKING:
            return self.search.next_round_at
        if self.state is State.BACKOFF:
            return self._retry_at
        return self._last_reply_at + self._response_timeout_s if self._awaits_reply else None

    def take_actions(self) -> list[Action]:
        """Return the actions to carry out now, in order, and clear them."""
        actions, self._actions = self._actions, []
        return actions

    def take_outcomes(self) -> list[NDArray[np.void]]:
        """Return the outcomes accepted since the last call, in request order without gaps."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def describe(self) -> str:
        """Return the state of the leader or of the search, for the message of a timeout."""
        if self.state is State.BACKOFF and self._leader is not None:
            return self.search.describe_one(self._leader.address)
        if self._leader is not None and self.leader is not None:
            return f"{self._leader.address}: leads but has not answered"
        return self.search.describe()

    # Inputs

    def start(self, now: float) -> None:
        """Start to search for the leader; the session is opened once it is found."""
        self._move(Event.START)
        self.search.start(now)
        self._ping(now)

    def submit(self, commands: NDArray[np.void], now: float, details: NDArray[np.void] = NO_DETAILS) -> int:
        """Send commands in order; return the request id of the first. `details` may have more than they name.

        Fills in session id and request id, in copies that are kept until they are answered. Raises LocalError for more
        than `free_slots` commands, for a command that names details beyond the last, and if the session has ended.
        """
        if self.state in (State.CLOSING, State.CLOSED, State.FAILED):
            raise LocalError(f"cannot submit commands: the session is {self.state.name.lower()}")
        if not len(commands):
            raise LocalError("cannot submit 0 commands: expected 1 or more")
        if len(commands) > self.free_slots:
            message = f"cannot submit {len(commands)} commands: the window has {self.free_slots} free slots"
            raise LocalError(message)
        self.check(commands, details)
        return self._submit(commands, now, details)

    @staticmethod
    def check(commands: NDArray[np.void], details: NDArray[np.void] = NO_DETAILS) -> None:
        """Raise LocalError for commands that submit() does not take, whatever the state of the session."""
        if commands.dtype != COMMAND:
            raise LocalError("commands: expected an array of COMMAND records")
        if len(commands) == 1:
            # A lone order: much faster than with arrays.
            row = commands.tobytes()
            is_reserved, most = row[0] in _RESERVED_KINDS, int.from_bytes(row[_DETAILS_NUMBER], "little")
        else:
            is_reserved, most = bool(_IS_RESERVED[commands["kind"]].any()), int(commands["details"].max())
        if is_reserved:
            names = ", ".join(kind.name for kind in _RESERVED_KINDS)
            raise LocalError(f"cannot submit {names}: only the session or the exchange sends these commands")
        if most > len(details):
            raise LocalError(f"commands: expected details 1 to {len(details)}, found a command with {most}")

    def _submit(self, commands: NDArray[np.void], now: float, details: NDArray[np.void] = NO_DETAILS) -> int:
        if not self._awaits_reply:
            self._last_reply_at = self._progress_at = now
        first = self._window.add(commands, details)
        if self.state in (State.ACTIVE, State.CLOSING):
            self._flush()
        return first

    def close(self, now: float) -> None:
        """End the session: with CLOSE_SESSION if nothing is unanswered, otherwise at the client only."""
        if self.state is State.ACTIVE and not self.unanswered:
            self._move(Event.CLOSE)
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            self._close_request = self._submit(command, now)
        elif self.state is not State.CLOSED:
            self._move(Event.END)

    def tick(self, now: float) -> None:
        """Do what is due. Call at `deadline`, after every message that has arrived was passed to receive()."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self.state is State.SEEKING:
            self._ping(now)
        elif self.state is State.BACKOFF:
            self._start_attempt(now)
        else:
            self._lose_leader(now, f"no answer for {now - self._last_reply_at:.1f} s", broken=False)

    def disconnected(self, address: str, now: float) -> None:
        """Handle a broken connection to `address`; messages in transit may be lost."""
        if address == self.leader:
            self._lose_leader(now, "connection lost", broken=True)

    def receive(self, address: str, data: bytes, now: float) -> None:
        """Process one message from the node at `address`; any bytes are allowed."""
        if self.state in (State.IDLE, State.CLOSED, State.FAILED):
            return
        try:
            frame = frames.decode(data)
            if frame.kind is FrameKind.OUTCOMES:
                self._on_outcomes(frame, now)
            elif frame.kind is FrameKind.PONG:
                self._on_pong(address, frame, now)
            elif frame.kind is FrameKind.NOT_LEADER:
                self.search.record_hint(address, frames.leader_hint(frame))
                if self._is_current(frame):
                    self._lose_leader(now, None, broken=True)
            elif frame.kind is FrameKind.ERROR:
                self._on_error(address, frame, now)
            else:
                raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a reply, found {frame.kind.name}")
        except FrameError as error:
            self.search.set_status(address, f"sent a malformed message: {error}")
            if address == self.leader:
                self._lose_leader(now, f"sent a malformed message: {error}", broken=True)

    # Leader and attempts

    @property
    def _awaits_reply(self) -> bool:
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
        hint = frames.leader_hint(frame)
        leader = self.search.on_pong(address, hint, frame.correlation)
        if leader is None or self.state is not State.SEEKING:
            return
        without_progress_s = now - self._progress_at
        if (
            leader == self._leader
            and not self._attempt_broken
            and without_progress_s < TIMEOUTS_BEFORE_RESEND * self._response_timeout_s
        ):
            # It is slow, not lost: the requests it received are still being replicated.
            self._last_reply_at = now
            self._move(Event.RESUME if self._opened else Event.OPEN)
            self._flush()
            return
        self._credential = hint.credential
        if self._leader is not None:
            self._actions.append(DropConnection(self._leader.address))
        if leader == self._leader and not self._attempt_broken:
            # The leader may be overloaded rather than disconnected, so send again at growing intervals.
            self._response_timeout_s = min(self._response_timeout_s * 2, MAX_RESPONSE_TIMEOUT_S)
        self._leader = leader
        self._start_attempt(now)

    def _lose_leader(self, now: float, cause: str | None, *, broken: bool) -> None:
        self._move(Event.LEADER_LOST)
        if self.state is not State.SEEKING:
            return
        self._attempt_broken |= broken
        self.search.start(now)
        if cause is not None and self._leader is not None:
            self.search.set_status(self._leader.address, cause)
        if now >= self.search.next_round_at:
            self._ping(now)

    def _start_attempt(self, now: float) -> None:
        """Send every unanswered request to the leader, under a new correlation."""
        self.attempts += 1
        self._frame_number = 0
        self._attempt_broken = False
        self._window.rewind()
        self._attempt_first = self._window.answered + 1
        self._last_reply_at = self._progress_at = now
        if self.state is not State.ACTIVE:
            self._move(Event.RESUME if self._opened else Event.OPEN)
        if self._opened:
            self._flush()
        else:
            if self._credential is not None:
                self._use_id(self._credential << _HALF_BITS | (self.session_id & _LOWER_HALF or 1))
            command = np.zeros(1, SESSION_COMMAND)
            command["kind"] = CommandKind.OPEN_SESSION
            command["session_id"], command["account"] = self.session_id, self.account
            command["flags"], command["answers"] = self.flags, self._answers_kept
            self._send(CommandList(command.view(COMMAND)))

    def _use_id(self, session_id: int) -> None:
        if session_id != self.session_id:
            self.session_id = session_id
            self._window.rename(session_id)

    def _flush(self) -> None:
        if self.state not in (State.ACTIVE, State.CLOSING):
            return
        while self._window.sent < self._window.last:
            self._send(self._window.take(self._frame_commands))

    def _send(self, commands: CommandList) -> None:
        assert self._leader is not None
        self._frame_number += 1
        data = frames.encode_commands(commands, self.attempts << 32 | self._frame_number)
        self._actions.append(Send(self._leader.address, data))

    def _back_off(self, now: float) -> None:
        """Send nothing for a moment, longer each time without progress; then start a new attempt."""
        self._move(Event.BACK_OFF)
        self._retry_at = now + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)

    def _rewind(self, now: float) -> None:
        """Start a new attempt, as the exchange missed part of this one: at once the first time, then after a pause."""
        self._rewinds += 1
        if self.state is State.ACTIVE and self._rewinds == 1:
            self._start_attempt(now)
        else:
            self._back_off(now)

    def _on_error(self, address: str, frame: Frame, now: float) -> None:
        body = frames.error_body(frame)
        self.search.set_status(address, f"returned an error: {body.message}")
        # A node that cannot decode a frame cannot echo its correlation; on this connection the frame is this session's.
        undecodable = frame.correlation == 0 and address == self.leader and self._awaits_reply
        if not undecodable and not self._is_current(frame):
            return
        if body.code in (ErrorCode.OVERLOADED, ErrorCode.LIMITED):
            self._back_off(now)
        elif body.code == ErrorCode.FENCED:
            self._lose_leader(now, f"returned an error: {body.message}", broken=True)
        else:
            self._fail(f"{address} rejected a frame of this client: {body.message}")

    # Outcomes

    def _on_outcomes(self, frame: Frame, now: float) -> None:
        if frame.count == 1 and self._took_lone(frame, now):
            return
        outcomes = frames.records(frame)
        if not len(outcomes):
            raise FrameError(ErrorCode.MALFORMED_FRAME, "OUTCOMES: expected 1 or more records, found 0")
        if np.any(outcomes["session_id"] != self.session_id):
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"OUTCOMES: expected records of session {self.session_id} only")
        requests = outcomes["request_id"]
        first = int(requests[0])
        if first == 0:
            self._on_opened(outcomes[0], now)
            return
        past_end = first + len(outcomes)
        if past_end > self._window.last + 1 or np.any(requests != np.arange(first, past_end, dtype=np.uint64)):
            raise FrameError(ErrorCode.MALFORMED_FRAME, "OUTCOMES: expected consecutive requests that were sent")
        known = self._window.answered + 1 - first
        current = self._is_current(frame)
        if known < 0:
            # Earlier outcomes or requests were lost. In a reply to an earlier attempt that is already known.
            if current:
                self._on_gap(outcomes[0], now)
        elif known < len(outcomes):
            fresh = outcomes[known:]
            # Also during a back-off: the leader answers what it accepted of this attempt before.
            count = self._consumed(fresh, of_this_attempt=frame.correlation >> 32 == self.attempts)
            if count:
                self._accept(fresh[:count], now)
            if count < len(fresh) and current and self._is_current(frame):
                self._on_gap(fresh[count], now)

    def _took_lone(self, frame: Frame, now: float) -> bool:
        """Take the outcome of a lone request if nothing is special about it; return whether it was taken.

        It answers the first unanswered request and is no rejection. The same as below, without arrays.
        """
        status, event, _, _, session, request, sequence, named = _LONE_OUTCOME.unpack_from(frame.body)
        window = self._window
        if session != self.session_id or request != window.answered + 1 or request > window.last:
            return False
        if status == OutcomeStatus.REJECTED:
            return False
        if status == OutcomeStatus.ACCEPTED and not outcome_checks.fits(*window.next_command(), event, named):
            return False
        self._accepted(frames.records(frame), sequence, now)
        return True

    def _consumed(self, outcomes: NDArray[np.void], *, of_this_attempt: bool) -> int:
        """Return how many outcomes, from the first on, show that the exchange has consumed their request id.

        All do, with two exceptions. UNKNOWN_SESSION, SESSION_CLOSED and REQUEST_GAP consume nothing. A malformed
        command is rejected before its id is checked, so it consumed the id only if the request before it had been
        consumed by then.
        """
        rejected = np.flatnonzero(outcomes["status"] == OutcomeStatus.REJECTED)
        doubtful = rejected[np.isin(outcomes["reason"][rejected], _DOUBTFUL)] if len(rejected) else rejected
        for i in doubtful.tolist():
            if outcomes["reason"][i] in _NOT_CONSUMED:
                return int(i)
            before = int(outcomes["sequence"][i - 1]) if i else self._consumed_sequence
            if before:
                consumed = int(outcomes["sequence"][i]) > before
            else:
                # The sequence of the previous request is unknown. Requests of one frame are adjacent in the log, and
                # every request before an attempt was consumed before it.
                consumed = i > 0 or (of_this_attempt and self._window.answered + 1 == self._attempt_first)
            if not consumed:
                return int(i)
        return len(outcomes)

    def _accept(self, outcomes: NDArray[np.void], now: float) -> None:
        sent = self._window.next_unanswered(len(outcomes))
        wrong = outcome_checks.first_mismatch(sent, outcomes)
        if wrong is not None:
            what = outcome_checks.describe(sent[wrong], outcomes[wrong])
            self._fail(
                f"another client uses session {self.session_id}: request {outcomes['request_id'][wrong]}, {what}"
            )
            return
        self._accepted(outcomes, int(outcomes["sequence"][-1]), now)

    def _accepted(self, outcomes: NDArray[np.void], last_sequence: int, now: float) -> None:
        self._window.accept(len(outcomes))
        self._consumed_sequence = last_sequence
        self._progress(now)
        if self._close_request is not None and self._window.answered >= self._close_request:
            self._move(Event.END)
            return
        self._outcomes.append(outcomes)

    def _progress(self, now: float) -> None:
        self._last_reply_at = self._progress_at = now
        self._response_timeout_s = INITIAL_RESPONSE_TIMEOUT_S
        self._backoff_s = INITIAL_BACKOFF_S
        self._rewinds = 0
        if self.state is State.BACKOFF:
            # Requests accepted before the back-off are still being answered; send the rest after that.
            self._retry_at = max(self._retry_at, now + INITIAL_BACKOFF_S)

    def _on_gap(self, outcome: np.void, now: float) -> None:
        """Handle an outcome of this attempt that does not answer the first unanswered request."""
        request = int(outcome["request_id"])
        refused = outcome["status"] == OutcomeStatus.REJECTED
        if refused and outcome["reason"] in (Reason.UNKNOWN_SESSION, Reason.SESSION_CLOSED):
            if self.state is State.CLOSING:
                self._move(Event.END)
            else:
                self._fail(f"the exchange no longer has session {self.session_id} open; sessions end after a silence")
        elif refused and outcome["reason"] == Reason.REQUEST_MISMATCH:
            self._fail(f"another client uses session {self.session_id}: its request {request} was applied instead")
        elif refused and outcome["reason"] == Reason.REQUEST_GAP and request == self._attempt_first:
            self._fail(f"the exchange lost request {request - 1}, which it had answered")
        else:
            self._rewind(now)

    def _on_opened(self, outcome: np.void, now: float) -> None:
        if self._opened:
            return
        rejected = outcome["status"] == OutcomeStatus.REJECTED
        # Both outcomes of a session that was used before name its last request.
        in_use = outcome["reason"] in _ID_IN_USE if rejected else outcome["order_id"] != 0
        if in_use and self._new_id is not None and self._ids_tried < MAX_SESSION_IDS:
            self._ids_tried += 1
            self._use_id(self._new_id())
            self._back_off(now)
            return
        if rejected:
            code = int(outcome["reason"])
            reason = Reason(code) if code in set(Reason) else None
            name = f"reason {code}" if reason is None else reason.name
            self._fail(f"the exchange rejected a session for account {self.account}: {name}", reason)
            return
        if in_use:
            self._fail(f"another client of account {self.account} uses session {self.session_id}")
            return
        self._opened = True
        self._consumed_sequence = int(outcome["sequence"])
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
            raise LocalError(f"event {event.name} is not allowed in state {self.state.name}")
        self.state = state
