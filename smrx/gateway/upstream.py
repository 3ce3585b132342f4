"""Send the commands of many sessions to the leader over one link, each exactly once, and return the answers.

Rules:

- Sans I/O: time is an argument, messages go in through receive(), actions and answers come out.
- Commands come in *blocks*: those that arrived at the gateway in one turn, with a route that says who waits for them. A
  block is sent as one frame, in the order of submit(). A lone order is a block of its own and leaves at once.
- Batching adapts to the leader. At most MAX_FRAMES_UNDER_WAY frames have no answer. While there are so many, is_idle is
  false, and the caller goes on filling its block: a slow leader gets fewer, larger frames. A caller whose block is full
  reads no more from its clients.
- The answer to a frame is taken by the frame's correlation, which no other frame has. What the leader refused, and what
  was under way when a leader was lost, is sent again in the same order. Session and request ids are in the state
  machine, so a command that was applied is answered again and not applied again.
- After a refusal everything behind the refused frame is sent again: its requests may have been rejected only because
  earlier ones of their sessions were missing. Answers to the first copy are dropped.
- A refusal for the rate of one session or account holds back the commands of that one, and of all sessions that named
  the account; the others of the frame are sent again at once. Any other refusal stops the link for a moment.

Owns the blocks that are not answered, the search for the leader, the pauses and what is held back. Knows no client, no
socket and no clock. Called by gateway_process.py.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.client.leader_search import Leader, LeaderSearch
from smrx.client.session_states import Action, DropConnection, Send
from smrx.wire import frames
from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.frames import MAX_COMMANDS, MAX_SESSIONS, ErrorBody, ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS

#: Frames without an answer. More of them would not make a leader faster: it takes everything that has arrived at the
#: beginning of its turn, and answers at the end. Full frames are fewer commands than a node accepts of a connection.
MAX_FRAMES_UNDER_WAY: Final = 8
#: Time without an answer after which the leader is asked whether it still leads.
RESPONSE_TIMEOUT_S: Final = 1.0
#: Such timeouts without an answer, after which everything is sent again to a leader that still leads.
TIMEOUTS_BEFORE_RESEND: Final = 4
#: How long the commands of a session or account over its rate are held back at least, so that many small frames of it
#: are not refused one by one; and at most.
MIN_HOLD_S: Final = 0.01
MAX_HOLD_S: Final = 1.0
#: The pause after any other refusal; it doubles without progress.
INITIAL_BACKOFF_S: Final = 0.005
MAX_BACKOFF_S: Final = 0.25


class State(Enum):
    SEEKING = auto()  #: no leader is known: pinging every node
    READY = auto()
    BACKOFF = auto()  #: the leader is known, but nothing is sent for a moment


class Answer(NamedTuple):
    """The outcomes of a block in the order of its commands: OUTCOME records as bytes."""

    route: Any
    outcomes: memoryview


class Refusal(NamedTuple):
    """A block of which nothing was applied, and will not be: why, for the clients that sent it."""

    route: Any
    code: ErrorCode
    message: str


class _Block:
    """The commands of one frame."""

    __slots__ = ("body", "commands", "correlation", "details", "droppable", "route")

    def __init__(self, route: Any, body: bytes, commands: int, details: int, droppable: bool) -> None:
        self.route = route
        self.body = body
        self.commands = commands
        self.details = details
        #: Whether the block is given up if the leader says that it is beyond a limit.
        self.droppable = droppable
        self.correlation = 0

    def commands_and_details(self) -> CommandList:
        """Return the commands with their details."""
        details = NO_DETAILS
        if self.details:
            details = np.frombuffer(self.body, DETAILS, self.details, self.commands * COMMAND_SIZE)
        return CommandList(np.frombuffer(self.body, COMMAND, self.commands), details)

    def part(self, commands: CommandList, rows: NDArray[np.bool_]) -> "_Block":
        """Return a block of some of these commands, which are its own."""
        records, details = commands.select(rows)
        body = records.tobytes() + details.tobytes()
        return _Block(self.route.part(rows), body, len(records), len(details), self.droppable)


class _Hold:
    """The sessions and accounts that are over their rates, and the blocks that wait until the hold ends."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.until = 0.0
        self._accounts: set[int] = set()
        #: Also those that named one of the accounts: no command of a session overtakes another one.
        self._sessions: set[int] = set()

    def extend(self, session: int | None, account: int | None, until: float) -> None:
        """Hold back a session or an account, too."""
        if session is not None:
            self._sessions.add(session)
        if account is not None:
            self._accounts.add(account)
        self.until = max(self.until, until)

    def keep(self, block: _Block) -> list[_Block]:
        """Keep the commands of a block that have to wait; return a block with the others, if there are any."""
        commands = block.commands_and_details()
        records = commands.records
        if self._accounts:
            named = np.isin(records["account"], list(self._accounts))
            self._sessions.update(records["session_id"][named].tolist())
        rows: NDArray[np.bool_] = np.isin(records["session_id"], np.array(list(self._sessions), np.uint64))
        if not rows.any():
            return [block]
        if rows.all():
            self.blocks.append(block)
            return []
        self.blocks.append(block.part(commands, rows))
        return [block.part(commands, ~rows)]


class Upstream:
    """The link of one gateway to the leader of a cluster."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """`addresses`: the order entry addresses of the nodes."""
        self.search = LeaderSearch(addresses)
        self.state = State.SEEKING
        #: The number of this gateway's credential, as the leader says; None until it is known, 0 without keys.
        self.credential: int | None = None
        #: Silence after which a session with cancel-on-disconnect counts as disconnected, None until it is known.
        self.disconnect_s: float | None = None
        #: Frames that were sent again, and searches for a leader, since the start.
        self.resent = 0
        self.searches = 0
        self._leader: Leader | None = None
        self._waiting: deque[_Block] = deque()
        self._under_way: dict[int, _Block] = {}
        self._hold: _Hold | None = None
        self._correlation = 0
        self._commands = 0
        self._actions: list[Action] = []
        self._answers: list[Answer] = []
        self._refusals: list[Refusal] = []
        self._heard_at = 0.0  # the last answer, or when the leader said that it still leads
        self._progress_at = 0.0
        self._backoff_s = INITIAL_BACKOFF_S
        self._retry_at = 0.0

    # What the caller asks.

    @property
    def leader(self) -> str | None:
        """The order entry address of the leader, None during a search."""
        return None if self.state is State.SEEKING or self._leader is None else self._leader.address

    @property
    def is_idle(self) -> bool:
        """Whether a block that is submitted now is sent at once."""
        return self.state is State.READY and not self._waiting and len(self._under_way) < MAX_FRAMES_UNDER_WAY

    @property
    def held(self) -> int:
        """The number of commands without an answer."""
        return self._commands

    @property
    def held_back(self) -> int:
        """The number of commands that wait for the rate of their session or account."""
        return 0 if self._hold is None else sum(block.commands for block in self._hold.blocks)

    @property
    def deadline(self) -> float | None:
        """When tick() must be called unless something arrives before; None if nothing is due."""
        if self.state is State.SEEKING:
            return self.search.next_round_at
        if self.state is State.BACKOFF:
            return self._retry_at
        times = [] if self._hold is None else [self._hold.until]
        if self._under_way:
            times.append(self._heard_at + RESPONSE_TIMEOUT_S)
        return min(times, default=None)

    def take_actions(self) -> list[Action]:
        """Return what to send where, in order, and clear it."""
        actions, self._actions = self._actions, []
        return actions

    def take_answers(self) -> list[Answer]:
        """Return the blocks that were answered since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def take_refusals(self) -> list[Refusal]:
        """Return the blocks that were given up since the last call."""
        refusals, self._refusals = self._refusals, []
        return refusals

    # Inputs.

    def start(self, now: float) -> None:
        """Begin to search for the leader."""
        self._seek(now)

    def submit(
        self, route: Any, body: bytes, commands: int, now: float, details: int = 0, *, droppable: bool = False
    ) -> None:
        """Send a block: `commands` COMMAND records and then the `details` that they name, as bytes.

        `droppable`: give it up, as a Refusal, if the leader answers LIMITED; others are sent again after a pause. Only
        for a block whose commands no later one of their sessions depends on.
        """
        if not 0 < commands <= MAX_COMMANDS:
            raise ValueError(f"expected a block of 1 to {MAX_COMMANDS} commands, found {commands}")
        self._commands += commands
        block = _Block(route, body, commands, details, droppable)
        self._waiting += (block,) if self._hold is None else self._hold.keep(block)
        self._send_waiting(now)

    def keep_alive(self, sessions: NDArray[np.uint64]) -> None:
        """Tell the leader that these sessions are connected. Without a leader do nothing: a new one waits anew."""
        leader = self.leader
        if leader is None:
            return
        for at in range(0, len(sessions), MAX_SESSIONS):
            self._actions.append(Send(leader, frames.encode_session_ping(sessions[at : at + MAX_SESSIONS])))

    def tick(self, now: float) -> None:
        """Do what is due. Call after every message that has arrived was passed to receive()."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self.state is State.SEEKING:
            self._ping(now)
        elif self.state is State.BACKOFF:
            self.state = State.READY
            self._send_waiting(now)
        elif self._release(now):
            self._send_waiting(now)
        else:
            # The leader may be slow. What it has is sent again only if it lost the leadership, or after some time.
            self._seek(now, f"no answer for {now - self._heard_at:.1f} s")

    def disconnected(self, address: str, now: float) -> None:
        """Handle a broken connection: what was under way on it may be lost."""
        if self._leader is not None and address == self._leader.address:
            self._rewind(self._under_way.values())
            if self.state is not State.SEEKING:
                self._seek(now, "connection lost")

    def receive(self, address: str, data: bytes | memoryview, now: float) -> None:
        """Process one message of the node at `address`; any bytes are allowed."""
        try:
            frame = frames.decode(data)
            if frame.kind is FrameKind.OUTCOMES:
                self._on_outcomes(frame, now)
            elif frame.kind is FrameKind.PONG:
                self._on_pong(address, frame, now)
            elif frame.kind is FrameKind.NOT_LEADER:
                self.search.record_hint(address, frames.leader_hint(frame))
                if frame.correlation in self._under_way:
                    self._lose_leader(now, None)
            elif frame.kind is FrameKind.ERROR:
                self._on_error(address, frame, now)
            else:
                raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a reply, found {frame.kind.name}")
        except FrameError as error:
            self.search.set_status(address, f"sent a malformed message: {error}")
            if address == self.leader:
                self._lose_leader(now, f"sent a malformed message: {error}")

    # Blocks.

    def _send_waiting(self, now: float) -> None:
        if self.state is not State.READY or self._leader is None:
            return
        while self._waiting and len(self._under_way) < MAX_FRAMES_UNDER_WAY:
            if not self._under_way:
                self._heard_at = self._progress_at = now
            block = self._waiting.popleft()
            self._correlation += 1
            block.correlation = self._correlation
            self._under_way[block.correlation] = block
            data = frames.encode(
                FrameKind.COMMANDS, block.body, block.commands, block.correlation, details=block.details
            )
            self._actions.append(Send(self._leader.address, data))

    def _rewind(self, blocks: Iterable[_Block]) -> None:
        """Let blocks that are under way wait again, before all others; they will be sent with another correlation."""
        again = sorted(blocks, key=lambda block: block.correlation)
        for block in reversed(again):
            del self._under_way[block.correlation]
            self._waiting.appendleft(block)
        self.resent += len(again)

    def _on_outcomes(self, frame: Frame, now: float) -> None:
        block = self._under_way.get(frame.correlation)
        if block is None:
            return  # An answer to the first copy of a frame that was sent again.
        if frame.count != block.commands:
            raise FrameError(
                ErrorCode.MALFORMED_FRAME, f"OUTCOMES: expected {block.commands} records, found {frame.count}"
            )
        self._answers.append(Answer(block.route, frame.body))
        self._done(block, now)

    def _done(self, block: _Block, now: float) -> None:
        del self._under_way[block.correlation]
        self._commands -= block.commands
        self._heard_at = self._progress_at = now
        self._backoff_s = INITIAL_BACKOFF_S
        if self._waiting:
            self._send_waiting(now)

    def _on_error(self, address: str, frame: Frame, now: float) -> None:
        body = frames.error_body(frame)
        self.search.set_status(address, f"returned an error: {body.message}")
        block = self._under_way.get(frame.correlation)
        if block is None:
            return
        if body.code == ErrorCode.FENCED:
            self._lose_leader(now, f"returned an error: {body.message}")
        elif body.code == ErrorCode.OVERLOADED or (body.code == ErrorCode.LIMITED and not block.droppable):
            self._rewind([other for other in self._under_way.values() if other.correlation >= block.correlation])
            if body.session is not None or body.account is not None:
                self._hold_back(body, now)
                self._send_waiting(now)
                return
            if self.state is State.READY:
                self.state = State.BACKOFF
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)
        else:
            known = {int(code): code for code in ErrorCode}
            self._refusals.append(Refusal(block.route, known.get(body.code, ErrorCode.MALFORMED_FRAME), body.message))
            self._done(block, now)

    # What is held back.

    def _hold_back(self, body: ErrorBody, now: float) -> None:
        """Hold back the commands of a session or an account, those that wait and those that come."""
        hold = self._hold = self._hold or _Hold()
        hold.extend(body.session, body.account, now + min(max((body.wait_ms or 0) / 1000, MIN_HOLD_S), MAX_HOLD_S))
        waiting, self._waiting = self._waiting, deque()
        for block in waiting:
            self._waiting += hold.keep(block)

    def _release(self, now: float) -> bool:
        """End the hold if it is over: what it kept is sent before all other commands. Return whether it was."""
        hold = self._hold
        if hold is None or now < hold.until:
            return False
        self._hold = None
        self._waiting.extendleft(reversed(hold.blocks))
        return True

    # The leader.

    def _seek(self, now: float, cause: str | None = None) -> None:
        if cause is not None and self._leader is not None:
            self.search.set_status(self._leader.address, cause)
        self.state = State.SEEKING
        self.searches += 1
        self.search.start(now)
        if now >= self.search.next_round_at:
            self._ping(now)

    def _lose_leader(self, now: float, cause: str | None) -> None:
        self._rewind(self._under_way.values())
        self._seek(now, cause)

    def _ping(self, now: float) -> None:
        correlation, addresses = self.search.next_round(now)
        ping = frames.encode(FrameKind.PING, correlation=correlation)
        self._actions += [Send(address, ping, ping=True) for address in addresses]

    def _on_pong(self, address: str, frame: Frame, now: float) -> None:
        hint = frames.leader_hint(frame)
        if not frame.correlation:
            return  # The answer to keep_alive().
        leader = self.search.on_pong(address, hint, frame.correlation)
        if leader is None or self.state is not State.SEEKING:
            return
        self.credential = hint.credential or 0
        if hint.disconnect_ms is not None:
            self.disconnect_s = hint.disconnect_ms / 1000
        silent = now - self._progress_at >= TIMEOUTS_BEFORE_RESEND * RESPONSE_TIMEOUT_S
        if leader != self._leader or silent:
            self._rewind(self._under_way.values())
            if self._leader is not None:
                # Answers of another leader, or late ones, are not needed; nor is what is queued for it.
                self._actions.append(DropConnection(self._leader.address))
        self._leader = leader
        self._heard_at = now
        if silent:
            self._progress_at = now
        self.state = State.READY
        self._send_waiting(now)
