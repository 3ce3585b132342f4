"""Receive the event feed over ZeroMQ: one SUB and one retransmission DEALER socket a node, one stream of events out.

Owns the sockets; the sequencer, or the quorum, decides what to do with the frames. Blocking, one thread. A consumer
that is slow or dies never slows a node. Called by settlement and every other consumer of the feed.
"""

import contextlib
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Final, NamedTuple

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.config import Config
from smrx.feed.arrival import Arrival, ArrivalStats
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import FeedStats, Sequencer
from smrx.wire import frames, tcp_address
from smrx.wire.frames import Frame, FrameError, FrameKind

#: Frames queued for a slow consumer before ZeroMQ drops them; what is dropped is asked for again.
_RECEIVE_HIGH_WATER_MARK: Final = 4096
#: Requests queued for a node; they are repeated after a timeout, so few are enough.
_REQUEST_HIGH_WATER_MARK: Final = 16
#: Frames read from one socket in a row, so that no node starves another.
_FRAMES_IN_A_ROW: Final = 64
#: Rounds over all sockets before poll() checks the clock again.
_ROUNDS: Final = 16
#: Events that one poll() collects before it returns; it may exceed this by one round over the sockets.
_BATCH_EVENTS: Final = 1 << 16


class Endpoint(NamedTuple):
    """The addresses on which one node publishes events and answers requests."""

    node: int
    events_address: str
    retransmit_address: str


class SubscriberStats(msgspec.Struct):
    """Counts of what arrived on the sockets."""

    garbage: int = 0  #: messages that were no valid frames of the feed
    last_garbage: str = ""
    retransmitted: int = 0  #: events that came by retransmission
    heard_at: dict[int, float] = {}  #: node -> time.monotonic() of its last valid frame


class Subscriber:
    """Follows the feed of one or more nodes. A context manager; or call close()."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        from_sequence: int = 1,
        sequencer: Sequencer | None = None,
        quorum: Quorum | None = None,
    ) -> None:
        """Connect (in the background) to every endpoint; the first event delivered is `from_sequence`.

        `sequencer` replaces the default one, which starts at `from_sequence`. With a `quorum`, which has its own
        sequencer, only what a majority has published is delivered, and quorum.dissents lists the nodes that differ.
        """
        self.endpoints = list(endpoints)
        if not self.endpoints:
            raise ValueError("expected at least one node to subscribe to, found none")
        self.quorum = quorum
        if quorum is not None:
            sequencer = quorum.sequencer
        self.sequencer = sequencer or Sequencer([endpoint.node for endpoint in self.endpoints], first=from_sequence)
        self._receiver = quorum or self.sequencer
        self.stats = SubscriberStats()
        self.arrivals = ArrivalStats()
        self._arrivals = {endpoint.node: Arrival(self.arrivals) for endpoint in self.endpoints}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._poller = zmq.Poller()
        self._received_at = time.monotonic()
        self._feeds: dict[int, zmq.Socket[bytes]] = {}
        self._requests: dict[int, zmq.Socket[bytes]] = {}
        for endpoint in self.endpoints:
            self._feeds[endpoint.node] = self._connect_feed(endpoint.events_address)
            self._requests[endpoint.node] = self._connect_requests(endpoint.retransmit_address)

    @classmethod
    def from_config(
        cls, config: Config, node_ids: Iterable[int] | None = None, *, from_sequence: int = 1
    ) -> "Subscriber":
        """Subscribe to the given members of a cluster, or to all; raises ConfigError for an unknown id."""
        nodes = config.nodes if node_ids is None else [config.node(node_id) for node_id in node_ids]
        return cls(
            [Endpoint(node.id, node.events_address, node.retransmit_address) for node in nodes],
            from_sequence=from_sequence,
        )

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def feed_stats(self) -> FeedStats:
        """Counts of the stream itself: delivered, duplicates, gaps."""
        return self.sequencer.stats

    def poll(self, timeout: float) -> NDArray[np.void]:
        """Return the next events in order, or none after `timeout` seconds; the caller owns the array.

        Heals gaps meanwhile. Raises GapUnfillable, FeedConflict and Disagreement; only close() may follow any of them.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._receive_until(deadline)
            events = self.quorum.take(time.monotonic()) if self.quorum else self.sequencer.take()
            if len(events) or time.monotonic() >= deadline:
                return events

    def listen(self, seconds: float) -> None:
        """Receive for so many seconds, and keep the events for the next poll().

        For a consumer that cannot process events now. With a quorum the events kept are bounded; those beyond the bound
        are dropped, and asked for again later. Raises as poll() does.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._receive_until(deadline)

    def close(self) -> None:
        """Close every socket at once, without waiting for unsent messages."""
        for socket in (*self._feeds.values(), *self._requests.values()):
            socket.close(linger=0)
        self._context.term()

    def _receive_until(self, end: float) -> None:
        """Ask for what is missing, and process what arrives until `end` or the next deadline."""
        now = time.monotonic()
        # While the consumer was busy elsewhere, answers may have arrived that were not read yet.
        self._receiver.extend_deadlines(now - self._received_at)
        self._send_requests(now)
        deadlines = [self.sequencer.deadline(), self.quorum.deadline() if self.quorum else None]
        until = min([end, *(deadline for deadline in deadlines if deadline is not None)])
        # Rounded up: to wake a fraction of a millisecond before the deadline would turn the loop hot.
        ready = dict(self._poller.poll(max(0, int((until - now) * 1000) + 1) if until > now else 0))
        if ready:
            self._drain()
        self._received_at = time.monotonic()

    def _connect_feed(self, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.SUB)
        socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
        socket.subscribe(b"")
        return self._connect(socket, address)

    def _connect_requests(self, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.sndhwm = _REQUEST_HIGH_WATER_MARK
        # A request to a node that is not connected fails at once, so that another node is asked.
        socket.immediate = True
        return self._connect(socket, address)

    def _connect(self, socket: "zmq.Socket[bytes]", address: str) -> "zmq.Socket[bytes]":
        socket.linger = 0
        socket.maxmsgsize = frames.MAX_FRAME_BYTES
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 1000
        tcp_address.connect(socket, address)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _send_requests(self, now: float) -> None:
        for request in self.sequencer.requests(now):
            try:
                self._requests[request.node].send(request.frame(), zmq.DONTWAIT)
            except zmq.Again:
                self.sequencer.mark_unsent(request, now)
        for request in self.quorum.requests(now) if self.quorum else ():
            # A request that cannot be sent is repeated after its timeout.
            with contextlib.suppress(zmq.Again):
                self._requests[request.node].send(request.frame(), zmq.DONTWAIT)

    def _drain(self) -> None:
        """Process what has arrived, node by node in turn, until nothing is left or a batch is full."""
        start = self.sequencer.expected
        for _ in range(_ROUNDS):
            busy = False
            for node in self._feeds:
                # Answers first: they fill the gap before the newer events.
                busy |= self._read(node, self._requests[node], answers=True)
                busy |= self._read(node, self._feeds[node], answers=False)
            if not busy or self.sequencer.expected - start >= _BATCH_EVENTS:
                return

    def _read(self, node: int, socket: "zmq.Socket[bytes]", answers: bool) -> bool:
        """Read up to _FRAMES_IN_A_ROW messages of a socket; return whether there may be more."""
        for _ in range(_FRAMES_IN_A_ROW):
            try:
                parts = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            try:
                frame = _only_frame(parts)
                now = time.monotonic()
                self._receiver.receive(node, frame, now)
            except FrameError as error:
                self.stats.garbage += 1
                self.stats.last_garbage = f"node {node}: {error}"
                continue
            self.stats.heard_at[node] = now
            if frame.kind is not FrameKind.EVENTS or not frame.count:
                continue
            if answers:
                self.stats.retransmitted += frame.count
            else:
                first = int(frames.records(frame)["sequence"][0])
                self._arrivals[node].take(first, first + frame.count - 1)
        return True


def _only_frame(parts: list[bytes]) -> Frame:
    if len(parts) != 1:
        raise FrameError(frames.ErrorCode.MALFORMED_FRAME, f"expected one message part, found {len(parts)}")
    return frames.decode(parts[0])
