"""Move the frames of order entry over TCP: connections that the node's own loop drives, many frames at a time.

Owns the listener, the connections, and what they may leave unread. Without keys the bytes of all connections are read,
cut and sent in compiled code (smrx/links/bulk_links.py, link_frames.py); under TLS, and where nothing is compiled, each
connection by itself. A connection greets first; with keys, TLS 1.3 and a proof of both keys come before any frame. A
connection that does not read its answers is not read either, and what it sends waits with it. Called by the reactor;
decides nothing about a frame.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.consensus.keys import LinkKeys
from smrx.links import bulk_kernels, bulk_links, greeting, tls
from smrx.links.bulk_links import BulkLinks
from smrx.links.connection import FRAME_TOO_LARGE, Connection
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ServerGreeting, Terms
from smrx.links.listener import Bounds, Listener
from smrx.links.poller import Poller
from smrx.node import compiled_entry, link_frames
from smrx.node.admission import Admission
from smrx.node.frame_block import (
    ROW_WORDS,
    AnswerBlock,
    FrameBlock,
    LinkIdentities,
    Senders,
    block_of,
    link_identity,
    link_number,
)
from smrx.node.principal import EVERYTHING, Sender
from smrx.wire import frames

#: What a turn takes: as of ZeroMQ, see order_socket.py.
_FRAMES_PER_TURN: Final = 4096
_BYTES_PER_TURN: Final = 4 << 20
#: Frames of one connection that are taken in a turn where each is read by itself.
_FRAMES_AT_ONCE: Final = 256
#: Connections that may be without a greeting, and for how long. With keys one costs the loop up to a millisecond.
_UNADMITTED: Final = 256
_GREETING_SECONDS: Final = 3.0
#: A connection with more unsent bytes is behind, and is not read. Above the answers to the window of a client
#: (65,536 requests: 6 MiB of lone frames) one reply still goes out; of all connections so much may wait.
_BEHIND_BYTES: Final = 256 << 10
_ALL_BYTES: Final = 64 << 20
#: A connection that leaves what was sent to it unread for so long is closed, as over ZeroMQ (wire/tcp_keepalive.py).
_UNREAD_MS: Final = 10_000
_UNREAD_ANSWERS: Final = "too many unread answers"


class _Client:
    """What a connection's context is: its number, and with keys who it is."""

    __slots__ = ("is_paused", "number", "sender")

    def __init__(self, number: int, sender: Sender | None) -> None:
        self.number = number
        self.sender = sender
        self.is_paused = False


class OrderLinks:
    """The order entry port of a node over TCP; an Owner of its connections."""

    def __init__(
        self,
        poller: Poller,
        address: str,
        admission: Admission,
        on_frames: Callable[[FrameBlock], None],
        *,
        cluster: str,
        keys: LinkKeys | None,
        max_connections: int,
    ) -> None:
        """Listen; raises OSError. `on_frames` gets the frames that have arrived; they are valid during the call."""
        self._admission = admission
        self._on_frames = on_frames
        self._links: dict[int, Connection] = {}
        self._number = 0
        #: Frames of connections that are read by themselves, and connections that have more of them.
        self._received: list[tuple[Connection, bytes]] = []
        self._received_bytes = 0
        self._unread: dict[Connection, None] = {}
        #: Connections with unsent bytes. Those bytes now, and at most so far.
        self._unsent: set[Connection] = set()
        self.waiting_bytes = self.most_waiting_bytes = 0
        self._bulk: BulkLinks | None = None
        if keys is None and bulk_links.is_available():
            self._prepare_bulk(poller)
        bounds = Bounds(
            connections=max_connections,
            unadmitted=_UNADMITTED,
            greeting_seconds=_GREETING_SECONDS,
            greeting_bytes=greeting.MAX_BYTES,
            frame_bytes=frames.MAX_FRAME_BYTES,
            queue_bytes=_ALL_BYTES,
            unread_ms=_UNREAD_MS,
        )
        terms = Terms(greeting.ORDERS, greeting.cluster_number(cluster))
        server = None if keys is None else tls.server()
        own = None if keys is None else keys.own
        certificate = None if server is None else server.certificate

        def greet(connection: Connection) -> ServerGreeting:
            def allows(key: str) -> bool:
                return admission.user_of(key, connection.peer_address) is not None

            return ServerGreeting(terms, own, certificate, allows)

        greeted = GreetedLinks(self, greet)
        self.listener = greeted.listener = Listener(
            address, poller, greeted, bounds, tls=None if server is None else server.context
        )

    def _prepare_bulk(self, poller: Poller) -> None:
        self._bulk = BulkLinks(
            poller, self._receive_bulk, arena_bytes=_BYTES_PER_TURN, largest_bytes=frames.MAX_FRAME_BYTES
        )
        self._spans: NDArray[np.int64] = np.zeros((0, bulk_kernels.SPAN_WORDS), np.int64)
        self._numbers: NDArray[np.int64] = np.zeros(link_frames.NUMBERS, np.int64)
        self._data: NDArray[np.uint8] = np.empty(_BYTES_PER_TURN, np.uint8)
        self._rows: NDArray[np.int64] = np.zeros((_FRAMES_PER_TURN, ROW_WORDS), np.int64)

    # What the connections call.

    def opened(self, connection: Connection) -> None:
        """Take a connection that has greeted."""
        self._number += 1
        sender = None
        if connection.peer_key is not None:
            user = self._admission.user_of(connection.peer_key, connection.peer_address) or ""
            sender = Sender(link_identity(self._number), user, connection.peer_address)
        connection.context = _Client(self._number, sender)
        self._links[self._number] = connection
        if sender is not None and not sender.user:
            connection.close("the key may not connect any more")

    def received(self, connection: Connection) -> None:
        """Take the frames that have arrived, and let compiled code read the connection once it has none left."""
        if len(self._received) < _FRAMES_PER_TURN and self._received_bytes < _BYTES_PER_TURN:
            for frame in connection.frames(_FRAMES_AT_ONCE):
                self._received.append((connection, bytes(frame)))
                self._received_bytes += len(frame)
        if connection.reason is not None:
            return
        if connection.has_frames:
            self._unread[connection] = None
        elif self._bulk is not None and not connection.received_bytes():
            self._bulk.adopt(connection, connection.context.number)

    def closed(self, connection: Connection) -> None:
        """Forget a connection; what it sent before is still accepted."""
        self._links.pop(connection.context.number, None)
        self._unread.pop(connection, None)
        self._unsent.discard(connection)

    # What the loop calls.

    def begin_turn(self) -> None:
        """Take what the last turn left."""
        if self._bulk is not None and self._has_spans:
            self._cut_spans(self._bulk)
        unread, self._unread = self._unread, {}
        for connection in unread:
            if connection.reason is None:
                self.received(connection)

    @property
    def has_more(self) -> bool:
        """Whether frames wait that the poller does not report."""
        return bool(self._unread) or (self._bulk is not None and self._has_spans)

    def deliver(self) -> None:
        """Hand on the frames of connections that are read by themselves; call after the poller has run."""
        if not self._received:
            return
        received, self._received, self._received_bytes = self._received, [], 0
        principals = {
            connection: EVERYTHING
            if connection.context.sender is None
            else self._admission.principal_of(connection.context.sender)
            for connection, _ in received
        }
        block = block_of([(link_identity(link.context.number), data, principals[link]) for link, data in received])
        numbers = np.array([link_number(identity) for identity in block.senders.identities], np.int64)
        identities = LinkIdentities(np.full(len(numbers), -1, np.int64), numbers)
        self._on_frames(block._replace(senders=block.senders._replace(identities=identities)))

    def tick(self, now: float) -> None:
        """Hold the bounds of what is unsent, and end connections that do not greet in time."""
        self.listener.tick(now)
        if not self._unsent:
            return
        waiting = {connection: connection.queued_bytes for connection in self._unsent}
        total = sum(waiting.values())
        while total > _ALL_BYTES:
            largest = max(waiting, key=lambda connection: waiting[connection])
            total -= waiting.pop(largest)
            self.listener.refuse(largest, _UNREAD_ANSWERS)
        for connection, size in waiting.items():
            client = connection.context
            if client.is_paused != (size > (_BEHIND_BYTES // 2 if client.is_paused else _BEHIND_BYTES)):
                client.is_paused = not client.is_paused
                connection.pause(reading=not client.is_paused)
            if not size:
                self._unsent.discard(connection)
        self.waiting_bytes = total
        self.most_waiting_bytes = max(self.most_waiting_bytes, total)

    @property
    def next_deadline(self) -> float:
        """When tick() has something to do; also, after a connection took what waited, in the same turn."""
        return self.listener.next_deadline

    # Frames in bulk.

    @property
    def _has_spans(self) -> bool:
        return int(self._numbers[link_frames.NEXT]) < len(self._spans)

    def _receive_bulk(self, events: int) -> None:
        """Read, unless spans of the last turn are left."""
        assert self._bulk is not None
        if self._has_spans:
            return
        self._numbers[link_frames.NEXT] = 0
        self._spans = self._bulk.receive()
        self._cut_spans(self._bulk)

    def _cut_spans(self, bulk: BulkLinks) -> None:
        """Cut the spans that are left into frames and hand them on."""
        numbers, spans = self._numbers, self._spans
        first = numbers[link_frames.FIRST] = numbers[link_frames.NEXT]
        count = compiled_entry.cut_frames(numbers, bulk.arena, spans, self._data, self._rows, frames.MAX_FRAME_BYTES)
        last = int(numbers[link_frames.NEXT])
        bulk.keep(spans[first:last], _bytes_of_frame)
        if count:
            # The span at `last` may be cut in part.
            part = spans[first : last + 1]
            identities = LinkIdentities(part[:, bulk_kernels.DESCRIPTOR].copy(), part[:, bulk_kernels.NUMBER].copy())
            senders = Senders(identities, identities.keys, [EVERYTHING] * len(part))
            self._on_frames(FrameBlock(self._data, self._rows[:count], senders))
        if numbers[link_frames.TOO_LARGE] >= 0:
            connection = self._links.get(int(spans[numbers[link_frames.TOO_LARGE], bulk_kernels.NUMBER]))
            if connection is not None:
                self.listener.refuse(connection, FRAME_TOO_LARGE)

    # Answers.

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send a reply; what a connection does not take now waits."""
        connection = self._links.get(link_number(identity) or 0)
        if connection is not None:
            self._send_packed(connection, len(frame).to_bytes(link_frames.LENGTH_BYTES, "little") + frame)

    def send_answers(self, answers: AnswerBlock) -> None:
        """Send all answers of a block as send() does, those of a connection in one call."""
        identities = answers.identities
        assert isinstance(identities, LinkIdentities)
        packed = np.empty(len(answers.data) + link_frames.LENGTH_BYTES * len(answers.rows), np.uint8)
        ends = np.empty(len(identities), np.int64)
        compiled_entry.pack_answers(answers.data, answers.rows, packed, ends)
        starts = np.concatenate([[0], ends[:-1]])
        if self._bulk is not None:
            starts += self._bulk.send(identities.descriptors, identities.numbers, packed, ends)
        for place in np.flatnonzero(starts < ends).tolist():
            connection = self._links.get(int(identities.numbers[place]))
            if connection is not None:
                self._send_packed(connection, packed[starts[place] : ends[place]].data)

    def _send_packed(self, connection: Connection, data: bytes | memoryview) -> None:
        connection.send_packed(data)
        if connection.queued_bytes and connection.reason is None:
            self._unsent.add(connection)

    def close(self) -> None:
        """Close the listener and every connection."""
        self.listener.close()
        if self._bulk is not None:
            self._bulk.close()


def _bytes_of_frame(data: NDArray[np.uint8]) -> int:
    """Return the bytes of the frame that begins here, with its length."""
    if len(data) < link_frames.LENGTH_BYTES:
        return link_frames.LENGTH_BYTES
    return link_frames.LENGTH_BYTES + int.from_bytes(data[: link_frames.LENGTH_BYTES].tobytes(), "little")
