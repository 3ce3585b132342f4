"""Accept the command frames of clients, batch them for the log and route the outcomes back.

Owns the commands that were received and not yet answered. Sans I/O: never applies a command and never touches a socket;
the reactor moves the bytes. On a leader, everything that arrived in a turn becomes one Raft entry, or several if it
does not fit one. On any other node, each frame is answered at once with the leader's address. An outcome leaves only
after its entry was committed and applied here. TICK, DISCONNECT and SET_VERSION, which only a leader submits, are
refused: a client ends its session with CLOSE_SESSION. So is a frame in which a command names details that the frame
does not have: in an entry it would get those of another client. So is, on a node with keys, a frame or a PING that
names a session of another credential than the sender's, and everywhere what exceeds a limit (client_limits.py).
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.node import compiled_entry
from smrx.node.client_limits import ClientLimits, Excess
from smrx.node.entry_kernels import (
    ACCOUNT,
    ADMISSION_NUMBERS,
    BY_COMMAND,
    COMMANDS,
    CREDENTIAL,
    FULL,
    GATHERED,
    HAS_KEYS,
    MAX_PENDING,
    NOT_PLAIN,
    NOW_NS,
    PENDING,
    SENDER_WORDS,
    STOPPED,
)
from smrx.node.frame_block import (
    ANSWER_ROW_WORDS,
    CORRELATION,
    COUNT,
    SENDER,
    SESSION,
    START,
    AnswerBlock,
    FrameBlock,
    Senders,
)
from smrx.node.keyed_table import KeyedTable
from smrx.node.principal import EVERYTHING, NOT_ADMITTED, Principal
from smrx.node.replicated_state import Applied
from smrx.wire import batches, frames
from smrx.wire.codes import COMMAND_TRAITS, CommandTraits, Scope
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, COMMAND_SIZE

_SESSION: Final = slice(8, 16)
#: The upper half of a session's id is the number of its credential.
_CREDENTIAL: Final = slice(12, 16)
_CREDENTIAL_SHIFT: Final = 32
_CREDENTIAL_WORD: Final = 3
_HALF_WORDS_PER_COMMAND: Final = COMMAND_SIZE // 4
_WORDS_PER_COMMAND: Final = COMMAND_SIZE // 8
_DETAILS_SHIFT: Final = 48
#: The commands that only a leader submits.
_LEADERS_ONLY: Final = tuple(kind for kind, traits in COMMAND_TRAITS.items() if CommandTraits.LEADER in traits)
_MAX_BATCH_BYTES: Final = batches.MAX_ENTRY_BYTES - batches.HEADER_SIZE
#: Commands of a run of frames: at least those of the largest frame, and several runs fit into an entry.
_MAX_RUN_BYTES: Final = frames.MAX_COMMANDS * COMMAND_SIZE
#: Of the senders on a node without keys.
_NOTHING_KNOWN: Final = np.zeros((0, SENDER_WORDS), np.int64)


class Route(NamedTuple):
    """The client that waits for the outcomes of a frame, the frame's correlation and its number of commands."""

    identity: bytes
    correlation: int
    commands: int
    #: The bytes of the frame, and the sessions that it opens by account: what counts against the limits.
    size: int = 0
    opened: "Counter[int] | None" = None
    #: The credential that sent it, 0 without one.
    credential: int = 0


class RouteRun(NamedTuple):
    """The routes of frames that were accepted together: rows of a FrameBlock, with the senders that they name."""

    rows: NDArray[np.int64]
    senders: Senders
    #: What was known of the senders, see entry_kernels.py.
    known: NDArray[np.int64]
    commands: int

    def routes(self) -> Iterator[Route]:
        """Yield the route of each frame."""
        columns = [SENDER, CORRELATION, COUNT]
        for sender, correlation, count in self.rows[:, columns].tolist():
            yield Route(self.senders.identities[sender], correlation % (1 << 64), count, count * COMMAND_SIZE)


def each_route(routes: "Iterable[Route | RouteRun]") -> Iterator[Route]:
    """Yield the route of each frame."""
    for route in routes:
        if isinstance(route, RouteRun):
            yield from route.routes()
        else:
            yield route


class CommandBatch(NamedTuple):
    """The commands of one log entry as bytes, the details they name, and who waits for the outcomes."""

    bodies: list[memoryview]
    details: bytes
    routes: list[Route | RouteRun]


class _Accepted(NamedTuple):
    """What was accepted: a frame, its commands followed by their details; or a run of frames without details."""

    route: Route | RouteRun
    body: memoryview
    details: int


class Reply(NamedTuple):
    """A frame for one client."""

    identity: bytes
    frame: bytes


class OrderEntry:
    """The open batch, the routes of the entries in the log, and the replies to send this turn."""

    def __init__(
        self,
        node_id: int,
        max_pending_commands: int,
        *,
        limits: ClientLimits | None = None,
        has_keys: bool = False,
    ) -> None:
        """Without `limits` a client may send what fits; `has_keys`: senders are known by their keys."""
        self._node_id = node_id
        self._max_pending = max_pending_commands
        self._limits = limits
        self._has_keys = has_keys
        self._batch: deque[_Accepted] = deque()
        self._pending: dict[int, tuple[int, list[Route | RouteRun]]] = {}
        self._pending_commands = 0
        #: The commands of each credential among them.
        self._waiting_of = KeyedTable()
        self._replies: list[Reply | AnswerBlock] = []
        self._active_sessions: set[int] = set()
        self._numbers = np.zeros(ADMISSION_NUMBERS, np.int64)
        self._numbers[HAS_KEYS], self._numbers[MAX_PENDING] = has_keys, max_pending_commands
        #: What each connection has waiting; not counted without limits.
        self._uses = KeyedTable(1) if limits is None else limits.use.table
        if limits is not None:
            limits.set_limits(self._numbers)

    def receive_block(self, block: FrameBlock, hint: LeaderHint, fenced: str | None, now_ns: int = 0) -> None:
        """Accept the frames of a turn in their order, or queue replies that refuse them; see receive().

        Nearly all of them are accepted in compiled code, many at once; the others go through receive() one by one.
        """
        is_accepting = fenced is None and hint.leader_id == self._node_id
        rows, senders = block.rows, block.senders
        at, count = 0, len(rows)
        known = self._known(senders) if self._has_keys and is_accepting else _NOTHING_KNOWN
        while at < count:
            if is_accepting:
                at = self._accept_run(block, at, known, now_ns)
                if at == count or self._numbers[STOPPED] == FULL:
                    continue
            sender = rows[at, SENDER]
            principal = senders.principals[sender]
            self.receive(senders.identities[sender], block.frame(at), hint, fenced, principal, now_ns)
            at += 1

    def _known(self, senders: Senders) -> NDArray[np.int64]:
        """Return what entry_kernels.admit_frames needs to know of the senders on a node with keys."""
        self._make_space_for(len(senders.keys))
        known = np.full((len(senders.keys), SENDER_WORDS), BY_COMMAND, np.int64)
        for row, principal in enumerate(senders.principals):
            if principal is None or principal.scope is Scope.FIRM:
                known[row, CREDENTIAL] = NOT_PLAIN
            else:
                known[row, CREDENTIAL] = principal.credential
                if principal.scope is Scope.ACCOUNT:
                    known[row, ACCOUNT] = principal.subject
        return known

    def _accept_run(self, block: FrameBlock, at: int, known: NDArray[np.int64], now_ns: int) -> int:
        """Accept frames from row `at` on; return the first row that was not accepted."""
        numbers, data, rows, keys = self._numbers, block.data, block.rows, block.senders.keys
        end: int
        words = data.view(np.int64)
        size = len(data) - int(rows[at, START]) if at else len(data)
        gathered = np.empty(min(size, _MAX_RUN_BYTES) // 8, np.int64)
        numbers[NOW_NS], numbers[PENDING], numbers[GATHERED] = now_ns, self._pending_commands, 0
        admit = self._admit_unlimited if self._limits is None else self._limits.admit_block
        end = admit(words, rows, at, keys, known, self._waiting_of, numbers, gathered)
        if end > at:
            accepted = rows[at:end].copy()
            self._active_sessions.update(accepted[:, SESSION].view(np.uint64).tolist())
            pending = int(numbers[PENDING])
            run = RouteRun(accepted, block.senders, known, pending - self._pending_commands)
            self._pending_commands = pending
            self._batch.append(_Accepted(run, gathered[: numbers[GATHERED]].view(np.uint8).data, 0))
        return end

    def _admit_unlimited(
        self,
        words: NDArray[np.int64],
        rows: NDArray[np.int64],
        at: int,
        keys: NDArray[np.int64],
        known: NDArray[np.int64],
        waiting: KeyedTable,
        numbers: NDArray[np.int64],
        gathered: NDArray[np.int64],
    ) -> int:
        unused, counts = self._uses.cells, self._uses.numbers
        end: int = compiled_entry.admit_frames(
            words, rows, at, keys, known, waiting.cells, waiting.numbers, unused, counts, unused, counts, unused,
            counts, numbers, gathered,
        )  # fmt: skip
        return end

    def _make_space_for(self, credentials: int) -> None:
        """Make sure that the commands of so many more credentials can be counted."""
        if not self._waiting_of.has_space(credentials):
            self._waiting_of.make_space(credentials, lambda rows: rows[:, COMMANDS] == 0)

    def receive(
        self,
        identity: bytes,
        data: bytes | memoryview,
        hint: LeaderHint,
        fenced: str | None,
        principal: Principal | None = EVERYTHING,
        now_ns: int = 0,
    ) -> None:
        """Accept one message of a client, or queue a reply that refuses it.

        `hint` names the leader; commands are accepted only if that is this node. `fenced`: why this node may not serve.
        `principal`: who sends it, None for a sender that may not be served. `now_ns`: of any steady clock.
        """
        try:
            frame = frames.decode(data)
        except FrameError as error:
            self._refuse(identity, 0, error.code, str(error))
            return
        if principal is None:
            self._refuse(identity, frame.correlation, ErrorCode.FORBIDDEN, NOT_ADMITTED)
        elif frame.kind is FrameKind.PING:
            self._pong(identity, frame, hint, principal)
        elif frame.kind is not FrameKind.COMMANDS:
            message = f"expected COMMANDS or PING, found {frame.kind.name}"
            self._refuse(identity, frame.correlation, ErrorCode.MALFORMED_FRAME, message)
        elif fenced is not None:
            self._refuse(identity, frame.correlation, ErrorCode.FENCED, fenced)
        elif hint.leader_id != self._node_id:
            self._replies.append(Reply(identity, frames.encode_body(FrameKind.NOT_LEADER, hint, frame.correlation)))
        else:
            self._accept(identity, frame, principal, now_ns)

    def _pong(self, identity: bytes, frame: Frame, hint: LeaderHint, principal: Principal) -> None:
        sessions = frames.pinged_sessions(frame) if frame.aux or frame.count else ()
        if self._has_keys:
            for session in sessions:
                if session >> _CREDENTIAL_SHIFT != principal.credential:
                    message = f"session {session} belongs to another credential than this connection's"
                    self._refuse(identity, frame.correlation, ErrorCode.FORBIDDEN, message)
                    return
        self._active_sessions.update(sessions)
        if self._has_keys:
            hint = msgspec.structs.replace(hint, credential=principal.credential)
        self._replies.append(Reply(identity, frames.encode_body(FrameKind.PONG, hint, frame.correlation)))

    def _accept(self, identity: bytes, frame: Frame, principal: Principal, now_ns: int) -> None:
        if frame.count == 0:
            self._refuse(identity, frame.correlation, ErrorCode.MALFORMED_FRAME, "expected 1 or more commands, found 0")
            return
        fault = _fault(frame)
        if fault is None and self._has_keys and not _sessions_belong_to(frame, principal.credential):
            fault = ErrorCode.FORBIDDEN, "a command names a session of another credential than this connection's"
        if fault is not None:
            self._refuse(identity, frame.correlation, *fault)
            return
        self._active_sessions.add(int.from_bytes(frame.body[_SESSION], "little"))
        credential = principal.credential
        free = self._max_pending - self._pending_commands
        if frame.count > free:
            message = f"{self._pending_commands} commands are waiting for a majority; send this frame again later"
            self._refuse(identity, frame.correlation, ErrorCode.OVERLOADED, message)
            return
        # A credential may have as many waiting as there is room left: one takes half of it, and n leave an (n + 1)th.
        waiting = 0
        if credential:
            self._make_space_for(1)
            waiting = int(self._waiting_of.row(credential)[COMMANDS])
        if credential and waiting + frame.count > free:
            message = (
                f"{waiting} commands of credential {credential} are waiting for a majority, and "
                f"there is room for {free} of all; send this frame again later"
            )
            self._refuse(identity, frame.correlation, ErrorCode.OVERLOADED, message)
            return
        route = Route(identity, frame.correlation, frame.count, len(frame.body), None, credential)
        if self._limits is not None:
            admitted = self._limits.admit(identity, principal, frame, now_ns)
            if isinstance(admitted, Excess):
                body = ErrorBody(int(ErrorCode.LIMITED), *admitted)
                self._replies.append(Reply(identity, frames.encode_body(FrameKind.ERROR, body, frame.correlation)))
                return
            if admitted:
                route = route._replace(opened=admitted)
        self._pending_commands += frame.count
        if credential:
            self._waiting_of.row(credential)[COMMANDS] += frame.count
        self._batch.append(_Accepted(route, frame.body, frame.details))

    def _answered(self, route: Route | RouteRun) -> None:
        """Count the commands of frames as no longer waiting here."""
        self._pending_commands -= route.commands
        if isinstance(route, RouteRun):
            if self._has_keys or self._limits is not None:
                uses, waiting = self._uses, self._waiting_of
                compiled_entry.release_frames(
                    route.rows,
                    route.senders.keys,
                    route.known,
                    uses.cells,
                    uses.numbers,
                    waiting.cells,
                    waiting.numbers,
                )
            return
        if route.credential:
            self._waiting_of.row(route.credential)[COMMANDS] -= route.commands
        if self._limits is not None:
            self._limits.answered(route.identity, route.commands, route.size, route.opened)

    def _refuse(self, identity: bytes, correlation: int, code: ErrorCode, message: str) -> None:
        body = ErrorBody(int(code), message)
        self._replies.append(Reply(identity, frames.encode_body(FrameKind.ERROR, body, correlation)))

    def take_batches(self) -> Iterator[CommandBatch]:
        """Empty the open batch and yield it in parts, each small enough for one Raft entry.

        Details are numbered anew: after those of the frames before.
        """
        while self._batch:
            routes: list[Route | RouteRun] = []
            bodies: list[memoryview] = []
            details: list[memoryview] = []
            size = numbered = 0
            while self._batch and size + len(self._batch[0].body) <= _MAX_BATCH_BYTES:
                route, body, count = self._batch.popleft()
                size += len(body)
                if count:
                    assert isinstance(route, Route)
                    end = route.commands * COMMAND_SIZE
                    details.append(body[end:])
                    body = _renumbered(body[:end], numbered) if numbered else body[:end]
                    numbered += count
                routes.append(route)
                bodies.append(body)
            yield CommandBatch(bodies, b"".join(details), routes)

    def submitted(self, log_index: int, term: int, routes: list[Route | RouteRun]) -> None:
        """The batch with these routes is in the log at (log_index, term)."""
        self._pending[log_index] = (term, routes)

    def applied(self, entry: Applied) -> None:
        """Queue the outcomes of an applied entry for the clients that sent it, if this node submitted it."""
        pending = self._pending.pop(entry.log_index, None)
        if pending is None:
            return
        term, routes = pending
        if term != entry.term:
            # Another leader's entry was committed at this index: its outcomes do not belong to these routes.
            self._pending[entry.log_index] = pending
            return
        at = 0
        for route in routes:
            self._answered(route)
            if isinstance(route, RouteRun):
                self._replies.append(_answers(entry.outcomes[at : at + route.commands], route))
                at += route.commands
                continue
            part = entry.outcomes[at : at + route.commands]
            at += route.commands
            self._replies.append(Reply(route.identity, frames.encode_outcomes(part, route.correlation)))

    def lost_leadership(self, hint: LeaderHint) -> None:
        """Redirect every waiting client to the leader: whether its commands will be applied is unknown."""
        waiting = [route for _, routes in self._pending.values() for route in routes]
        waiting += [accepted.route for accepted in self._batch]
        self._pending.clear()
        self._batch.clear()
        self.redirect(waiting, hint)
        self._pending_commands = 0

    def redirect(self, routes: Iterable[Route | RouteRun], hint: LeaderHint) -> None:
        """Send the clients of these routes to the leader."""
        routes = list(routes)
        for route in routes:
            self._answered(route)
        for route in each_route(routes):
            frame = frames.encode_body(FrameKind.NOT_LEADER, hint, route.correlation)
            self._replies.append(Reply(route.identity, frame))

    def take_active_sessions(self) -> set[int]:
        """Return the sessions that were active since the last call: named in a PING or in a frame's first command."""
        active, self._active_sessions = self._active_sessions, set()
        return active

    def take_replies(self) -> list[Reply | AnswerBlock]:
        """Return the queued replies and empty the queue."""
        replies, self._replies = self._replies, []
        return replies

    @property
    def waiting_commands(self) -> int:
        """The number of commands that were accepted and not yet answered."""
        return self._pending_commands


def _answers(outcomes: NDArray[np.void], run: RouteRun) -> AnswerBlock:
    """Return the answers to a run of frames."""
    count = len(run.rows)
    answers = np.empty((count * frames.HEADER_SIZE + outcomes.nbytes) // 8, np.int64)
    rows = np.empty((count, ANSWER_ROW_WORDS), np.int64)
    compiled_entry.write_answers(outcomes.view(np.int64), run.rows, len(run.senders.identities), answers, rows)
    return AnswerBlock(answers.view(np.uint8), rows, run.senders.identities)


def _fault(frame: Frame) -> tuple[ErrorCode, str] | None:
    """Return why the commands of a frame are refused, or None."""
    if frame.count == 1:
        # A lone order: much faster than with NumPy.
        kinds = frame.body[:1].tobytes()
        most = int.from_bytes(frame.body[6:8], "little")
    else:
        # The first eight bytes of each command: the kind is the first, the number of the details the last two.
        words = np.frombuffer(frame.body, np.uint64, frame.count * _WORDS_PER_COMMAND)[::_WORDS_PER_COMMAND]
        starts = words.tobytes()
        kinds, zeros = starts[::8], bytes(frame.count)
        # Nearly always all numbers are 0, which is much faster to see than to find the greatest.
        no_details = starts[6::8] == zeros and starts[7::8] == zeros
        most = 0 if no_details else int(words.max()) >> _DETAILS_SHIFT
    for kind in _LEADERS_ONLY:
        if kind in kinds:
            return ErrorCode.FORBIDDEN, f"{kind.name} is submitted by leaders only; expected commands of a client"
    if most > frame.details:
        return ErrorCode.MALFORMED_FRAME, f"a command names details {most}; the frame has {frame.details}"
    return None


def _sessions_belong_to(frame: Frame, credential: int) -> bool:
    """Return whether every command of a frame names a session of the credential."""
    if frame.count == 1:
        return int.from_bytes(frame.body[_CREDENTIAL], "little") == credential
    words = np.frombuffer(frame.body, np.uint32, frame.count * _HALF_WORDS_PER_COMMAND)
    return bool((words[_CREDENTIAL_WORD::_HALF_WORDS_PER_COMMAND] == credential).all())


def _renumbered(commands: memoryview, before: int) -> memoryview:
    """Return commands with the numbers of their details counted after `before` others."""
    records = np.frombuffer(commands, COMMAND).copy()
    numbers = records["details"]
    numbers[numbers > 0] += np.uint16(before)
    return records.view(np.uint8).data
