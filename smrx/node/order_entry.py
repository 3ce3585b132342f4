"""Order entry of one node, sans I/O: client frames in, one open batch and reply frames out.

Owns what was received but not yet answered. Never applies anything and never touches a socket: the reactor moves the
bytes. On a leader, everything that arrived in a turn becomes one Raft entry (more than one where it would not fit); on
any other node, each frame is answered at once with the leader's address. An outcome leaves only after its entry was
committed and applied here. What only a leader may say, TICK and DISCONNECT, is never accepted from a client: a session
ends itself with CLOSE_SESSION.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.node.replicated_state import Applied
from smrx.wire import batches, frames
from smrx.wire.codes import CommandKind
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint
from smrx.wire.records import COMMAND_SIZE

_SESSION: Final = slice(8, 16)
#: Kinds that the leader's own timers submit.
_LEADERS_OWN: Final = (CommandKind.TICK, CommandKind.DISCONNECT)
_MAX_BATCH_COMMANDS: Final = (batches.MAX_ENTRY_BYTES - batches.HEADER_SIZE) // COMMAND_SIZE


class Route(NamedTuple):
    """Who waits for how many outcomes, and under which correlation."""

    identity: bytes
    correlation: int
    commands: int


class Reply(NamedTuple):
    """A frame for one client."""

    identity: bytes
    frame: bytes


class OrderEntry:
    """The open batch, the routes of what is in the log, and the replies that may leave this turn."""

    def __init__(self, node_id: int, max_pending_commands: int) -> None:
        self._node_id = node_id
        self._max_pending = max_pending_commands
        self._batch: deque[tuple[Route, memoryview]] = deque()
        self._pending: dict[int, tuple[int, list[Route]]] = {}
        self._pending_commands = 0
        self._replies: list[Reply] = []
        self._heard: set[int] = set()

    def receive(self, identity: bytes, data: bytes, hint: LeaderHint, fenced: str | None) -> None:
        """Take one message of a client; a reply to what cannot be accepted is queued at once.

        `hint` says who leads; only a node that leads itself (hint.leader_id == its own id) accepts commands.
        """
        try:
            frame = frames.decode(data)
        except FrameError as error:
            self._refuse(identity, 0, error.code, str(error))
            return
        if frame.kind is FrameKind.PING:
            if frame.aux:
                self._heard.add(frame.aux)
            self._replies.append(Reply(identity, frames.encode_body(FrameKind.PONG, hint, frame.correlation)))
        elif frame.kind is not FrameKind.COMMANDS:
            message = f"expected COMMANDS or PING, found {frame.kind.name}"
            self._refuse(identity, frame.correlation, ErrorCode.MALFORMED_FRAME, message)
        elif fenced is not None:
            self._refuse(identity, frame.correlation, ErrorCode.FENCED, fenced)
        elif hint.leader_id != self._node_id:
            self._replies.append(Reply(identity, frames.encode_body(FrameKind.NOT_LEADER, hint, frame.correlation)))
        else:
            self._accept(identity, frame)

    def _accept(self, identity: bytes, frame: Frame) -> None:
        if frame.count == 0:
            self._refuse(identity, frame.correlation, ErrorCode.MALFORMED_FRAME, "expected 1 or more commands, found 0")
            return
        kinds = np.frombuffer(frame.body, np.uint8)[::COMMAND_SIZE].tobytes()
        for kind in _LEADERS_OWN:
            if kind in kinds:
                message = f"expected commands of a client, found {kind.name}, which only a leader submits"
                self._refuse(identity, frame.correlation, ErrorCode.FORBIDDEN, message)
                return
        self._heard.add(int.from_bytes(frame.body[_SESSION], "little"))
        if self._pending_commands + frame.count > self._max_pending:
            message = f"{self._pending_commands} commands wait for a majority already; send this frame again later"
            self._refuse(identity, frame.correlation, ErrorCode.OVERLOADED, message)
            return
        self._pending_commands += frame.count
        self._batch.append((Route(identity, frame.correlation, frame.count), frame.body))

    def _refuse(self, identity: bytes, correlation: int, code: ErrorCode, message: str) -> None:
        body = ErrorBody(int(code), message)
        self._replies.append(Reply(identity, frames.encode_body(FrameKind.ERROR, body, correlation)))

    def take_batches(self) -> Iterator[tuple[list[memoryview], list[Route]]]:
        """Empty the open batch: yield (command bytes, routes), each small enough for one Raft entry."""
        while self._batch:
            routes: list[Route] = []
            bodies: list[memoryview] = []
            commands = 0
            while self._batch and commands + self._batch[0][0].commands <= _MAX_BATCH_COMMANDS:
                route, body = self._batch.popleft()
                commands += route.commands
                routes.append(route)
                bodies.append(body)
            yield bodies, routes

    def submitted(self, log_index: int, term: int, routes: list[Route]) -> None:
        """The batch with these routes stands in the log at (log_index, term)."""
        self._pending[log_index] = (term, routes)

    def applied(self, entry: Applied, outcomes_of: Callable[[Applied], NDArray[np.void]]) -> None:
        """Queue the outcomes of an applied entry for those who sent it, if it is the one that was submitted here."""
        pending = self._pending.pop(entry.log_index, None)
        if pending is None:
            return
        term, routes = pending
        if term != entry.term:
            # Another leader's entry stands where ours was to be: it may not be told as ours.
            self._pending[entry.log_index] = pending
            return
        outcomes = outcomes_of(entry)
        at = 0
        for route in routes:
            self._pending_commands -= route.commands
            part = outcomes[at : at + route.commands]
            at += route.commands
            self._replies.append(Reply(route.identity, frames.encode_outcomes(part, route.correlation)))

    def lost_leadership(self, hint: LeaderHint) -> None:
        """Tell everybody who still waits here to go to the leader and ask again; their outcome is unknown."""
        waiting = [route for _, routes in self._pending.values() for route in routes]
        waiting += [route for route, _ in self._batch]
        self._pending.clear()
        self._batch.clear()
        self.redirect(waiting, hint)
        self._pending_commands = 0

    def redirect(self, routes: Iterable[Route], hint: LeaderHint) -> None:
        """Send whoever waits on these routes to the leader."""
        for route in routes:
            self._pending_commands -= route.commands
            frame = frames.encode_body(FrameKind.NOT_LEADER, hint, route.correlation)
            self._replies.append(Reply(route.identity, frame))

    def take_heard(self) -> set[int]:
        """Return the sessions heard of since the last call: by a ping, or by the first command of a frame."""
        heard, self._heard = self._heard, set()
        return heard

    def take_replies(self) -> list[Reply]:
        """Return the replies that may be sent now."""
        replies, self._replies = self._replies, []
        return replies

    @property
    def waiting_commands(self) -> int:
        """Commands accepted and not yet answered."""
        return self._pending_commands
