"""Open the connections of the load generator, and the session of each; open them again at another leader.

Owns the sockets and their epoll; load_kernel.py moves the bytes after that. A protocol says how a connection begins.
Blocking, with deadlines. Called by load_generator.py.
"""

import resource
import select
import socket
import time
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from smrx.bench.bench_error import BenchError
from smrx.bench.load_flow import Commands
from smrx.bench.load_kernel import MAX_HEAD, Connections
from smrx.bench.load_protocols import Protocol, RingLink
from smrx.rings import ring_end
from smrx.rings.ring_kernels import WORDS
from smrx.rings.ring_memory import RingError
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.records import COMMAND, COMMAND_SIZE, MAX_ANSWERS, SESSION_COMMAND

_TIMEOUT_S: Final = 10.0
#: Frames other than OUTCOMES have a body of text.
SMALLEST_INBOX: Final = 4096
#: Descriptors for everything but the connections.
_SPARE_DESCRIPTORS: Final = 64
#: Connections that are being opened at a time: fewer than a listening socket queues.
_OPENED_AT_ONCE: Final = 64


class Links:
    """The sockets of all connections."""

    def __init__(
        self,
        accounts: NDArray[np.uint32],
        protocol: Protocol,
        *,
        first_session: int,
        frame_commands: int,
        window: int,
    ) -> None:
        """Reserve the memory of one connection for each account, with `window` frames of it under way.

        Their sessions have the ids from `first_session` on. Raises BenchError if the system
        does not allow so many connections.
        """
        count = len(accounts)
        _allow_descriptors(count + _SPARE_DESCRIPTORS)
        size = MAX_HEAD + frames.HEADER_SIZE + frame_commands * COMMAND_SIZE
        self._poll = select.epoll()
        self._protocol = protocol
        self._sockets: list[socket.socket | RingLink] = []
        # What is unanswered may be sent again, so the exchange keeps the answers of as many commands.
        self._answers = min(MAX_ANSWERS, window * frame_commands)
        self.state = Connections(
            sockets=np.zeros(count, np.int64),
            ring_in=np.zeros((count, WORDS), np.int64),
            ring_out=np.zeros((count, WORDS), np.int64),
            inbox=np.zeros((count, _aligned(max(SMALLEST_INBOX, min(window, 64) * size))), np.uint8),
            received=np.zeros(count, np.int64),
            outbox=np.zeros((count, (window + 1) * size), np.uint8),
            built=np.zeros(count, np.int64),
            sent=np.zeros(count, np.int64),
            next_frame=np.zeros(count, np.int64),
            made=np.zeros(count, np.int64),
            answered=np.zeros(count, np.int64),
            due_ns=np.zeros((count, window), np.int64),
            # Without keys the upper half of a session's id is 0.
            session=np.arange(first_session, first_session + count, dtype=np.uint64),
            account=accounts.astype(np.uint64),
            first_request=np.ones(count, np.uint64),
        )
        self.connection_of = np.zeros(1, np.int64)

    @property
    def epoll(self) -> int:
        """The descriptor of the epoll that watches all connections."""
        return self._poll.fileno()

    def connect(self, address: str) -> None:
        """Connect all to the order entry of a node, anew if they are connected; nothing is received or sent yet."""
        self._disconnect()
        count = len(self.state.sockets)
        for first in range(0, count, _OPENED_AT_ONCE):
            part = [_connected(address) for _ in range(first, min(count, first + _OPENED_AT_ONCE))]
            self._sockets += part
            for link in part:
                self._protocol.greet(link)
            for link in part:
                self._protocol.wait_ready(link)
        descriptors = [link.fileno() for link in self._sockets]
        self.state.sockets[:] = descriptors
        self.connection_of = np.zeros(1 + max(own for link in self._sockets for own in _watched(link)), np.int64)
        for number, link in enumerate(self._sockets):
            self.connection_of[_watched(link)] = number
        self.state.received[:] = self.state.built[:] = self.state.sent[:] = 0

    def open_sessions(self, before: Commands) -> None:
        """Open the session of each connection, and send `before` for its account. Raises BenchError."""
        state = self.state
        for first in range(0, len(self._sockets), _OPENED_AT_ONCE):
            part = range(first, min(len(self._sockets), first + _OPENED_AT_ONCE))
            for c in part:
                rows = np.concatenate([_opening(self._answers), before])
                rows["session_id"], rows["account"] = state.session[c], state.account[c]
                rows["request_id"] = np.arange(len(rows))
                self._protocol.send(self._sockets[c], rows)
            for c in part:
                outcomes = self._protocol.outcomes(self._sockets[c], 1 + len(before))
                refused = outcomes[outcomes["status"] == OutcomeStatus.REJECTED]
                if len(refused):
                    raise BenchError(f"the cluster refused to open a session or its first orders: {refused[0]}")
        state.first_request[:] = len(before) + 1

    def start(self) -> None:
        """Let the kernel have the sockets: no call on them blocks from here on."""
        for number, link in enumerate(self._sockets):
            if isinstance(link, RingLink):
                # What the kernel changes in its copy the other does not see: only one of them is used from here on.
                self.state.ring_in[number], self.state.ring_out[number] = link.end.words
            else:
                link.setblocking(False)
            for descriptor in _watched(link):
                self._poll.register(descriptor, select.EPOLLIN)

    def _disconnect(self) -> None:
        for link in self._sockets:
            link.close()
        self._sockets.clear()

    def close(self) -> None:
        """Close all sockets."""
        self._disconnect()
        self._poll.close()


def _watched(link: socket.socket | RingLink) -> list[int]:
    return [link.fileno(), link.end.control.fileno()] if isinstance(link, RingLink) else [link.fileno()]


def _connected(address: str) -> socket.socket | RingLink:
    url = urlsplit(address)
    if url.scheme == "ring":
        try:
            return RingLink(ring_end.connect(url.path, _TIMEOUT_S))
        except RingError as error:
            raise BenchError(f"cannot connect to {error}") from None
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            link = socket.create_connection((url.hostname, url.port), _TIMEOUT_S)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise BenchError(f"cannot connect to {address}: {error.strerror}") from None
            continue
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link


def _opening(answers: int) -> Commands:
    row = np.zeros(1, SESSION_COMMAND)
    row["kind"], row["answers"] = CommandKind.OPEN_SESSION, answers
    return row.view(COMMAND)


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


def _allow_descriptors(wanted: int) -> None:
    """Raise the limit of this process, as far as the system grants. Raises BenchError if that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    if hard < wanted:
        raise BenchError(f"{wanted} open files are needed, and the system allows {hard}; raise `ulimit -n`")
