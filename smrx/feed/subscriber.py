"""Receive the event feed over ZeroMQ: one DEALER socket a node, one stream of events out.

Owns the sockets; the sequencer, or the quorum, decides what to do with the frames. At each node it subscribes to the
events that are new there, gives credit for what it has consumed, and asks one of the nodes for what is missing.
Blocking, one thread. A consumer that is slow or dies never slows a node. Called by settlement and every other consumer
of the whole feed.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from smrx import client_keys
from smrx.client_keys import ClientKeys
from smrx.config import Config
from smrx.feed.arrival import Arrival, ArrivalStats
from smrx.feed.quorum import Quorum
from smrx.feed.retransmission import Request
from smrx.feed.sequencer import FeedStats, Sequencer
from smrx.feed.subscription import Subscription
from smrx.feed.subscription_state import SubscriptionState
from smrx.wire import frames, tcp_address
from smrx.wire.frames import Frame, FrameError, FrameKind

#: Requests queued for a node; they are repeated after a timeout, so few are enough.
_REQUEST_HIGH_WATER_MARK: Final = 16
#: Frames received from a node and not read yet; the credit of the subscription bounds their bytes.
_RECEIVE_HIGH_WATER_MARK: Final = 256
#: Frames read from one socket in a row, so that no node starves another.
_FRAMES_IN_A_ROW: Final = 64
#: Rounds over all sockets before poll() checks the clock again.
_ROUNDS: Final = 16
#: Events that one poll() collects before it returns; it may exceed this by one round over the sockets.
_BATCH_EVENTS: Final = 1 << 16


class Endpoint(NamedTuple):
    """The address on which one node publishes events."""

    node: int
    events_address: str


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
        keys: ClientKeys | None = None,
    ) -> None:
        """Connect (in the background) to every endpoint; the first event delivered is `from_sequence`.

        `sequencer` replaces the default one, which starts at `from_sequence`. With a `quorum`, which has its own
        sequencer, only what a majority has published is delivered, and quorum.dissents lists the nodes that differ.
        `keys`: for a cluster whose nodes have keys; raises KeysError for an endpoint whose key is not known.
        """
        self.endpoints = list(endpoints)
        if not self.endpoints:
            raise ValueError("expected at least one node to subscribe to, found none")
        self.quorum = quorum
        self._keys = keys
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
        self._addresses = {endpoint.node: endpoint.events_address for endpoint in self.endpoints}
        self._sockets = {node: self._connect(address) for node, address in self._addresses.items()}
        self._subscriptions = {endpoint.node: SubscriptionState(lambda: Subscription(0)) for endpoint in self.endpoints}
        #: The range that each node was asked for last.
        self._asked: dict[int, Request] = {}

    @classmethod
    def from_config(
        cls,
        config: Config,
        node_ids: Iterable[int] | None = None,
        *,
        from_sequence: int = 1,
        key: str | Path | None = None,
    ) -> "Subscriber":
        """Subscribe to the given members of a cluster, or to all; raises ConfigError for an unknown id.

        `key`: a key file, for a cluster with keys; see Client. Raises KeysError.
        """
        nodes = config.nodes if node_ids is None else [config.node(node_id) for node_id in node_ids]
        return cls(
            [Endpoint(node.id, node.events_address) for node in nodes],
            from_sequence=from_sequence,
            keys=client_keys.of_client(config, key),
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

    @property
    def refusals(self) -> dict[int, str]:
        """Why nodes refuse this subscriber, by node; without those that do not."""
        found = {node: subscription.refusal for node, subscription in self._subscriptions.items()}
        return {node: refusal for node, refusal in found.items() if refusal is not None}

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
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._context.term()

    def _receive_until(self, end: float) -> None:
        """Ask for what is missing, and process what arrives until `end` or the next deadline."""
        now = time.monotonic()
        # While the consumer was busy elsewhere, answers may have arrived that were not read yet.
        self._extend_deadlines(now - self._received_at)
        self._send_due(now)
        deadlines = [self.sequencer.deadline(), self.quorum.deadline() if self.quorum else None]
        deadlines += [subscription.deadline() for subscription in self._subscriptions.values()]
        until = min([end, *(deadline for deadline in deadlines if deadline is not None)])
        # Rounded up: to wake a fraction of a millisecond before the deadline would turn the loop hot.
        ready = dict(self._poller.poll(max(0, int((until - now) * 1000) + 1) if until > now else 0))
        if ready:
            self._drain()
        self._received_at = time.monotonic()

    def _extend_deadlines(self, seconds: float) -> None:
        self._receiver.extend_deadlines(seconds)
        for subscription in self._subscriptions.values():
            subscription.extend_deadlines(seconds)

    def _connect(self, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = _REQUEST_HIGH_WATER_MARK
        socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
        # A request to a node that is not connected fails at once, so that another node is asked.
        socket.immediate = True
        socket.maxmsgsize = frames.MAX_FRAME_BYTES
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 1000
        if self._keys is not None:
            self._keys.secure(socket, address)
        tcp_address.connect(socket, address)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _send_due(self, now: float) -> None:
        """Subscribe where that is due, give credit, and ask for what is missing."""
        for node, subscription in self._subscriptions.items():
            frame = subscription.due(now)
            if frame is not None:
                if self._send(node, frame):
                    subscription.sent(now)
                elif (attempt := subscription.unsent(now)) and self._keys is not None:
                    self._keys.connect_again(self._sockets[node], self._addresses[node], attempt)
        for request in self.sequencer.requests(now):
            if self._subscriptions[request.node].is_made and self._send(request.node, request.frame()):
                self._asked[request.node] = request
            else:
                self.sequencer.mark_unsent(request, now)
        for request in self.quorum.requests(now) if self.quorum else ():
            # A request that cannot be sent is repeated after its timeout.
            is_sent = self._subscriptions[request.node].is_made and self._send(request.node, request.frame())
            if is_sent and not request.digest:
                self._asked[request.node] = request

    def _send(self, node: int, frame: bytes) -> bool:
        """Send a frame; return whether the node is connected."""
        try:
            self._sockets[node].send(frame, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _drain(self) -> None:
        """Process what has arrived, node by node in turn, until nothing is left or a batch is full."""
        start = self.sequencer.expected
        for _ in range(_ROUNDS):
            busy = False
            for node, socket in self._sockets.items():
                busy |= self._read(node, socket)
            if not busy or self.sequencer.expected - start >= _BATCH_EVENTS:
                return
            self._give_credit()

    def _give_credit(self) -> None:
        """Give credit for what was consumed, so that a node does not wait for it."""
        now = time.monotonic()
        for node, subscription in self._subscriptions.items():
            frame = subscription.due(now) if subscription.is_made else None
            if frame is not None and self._send(node, frame):
                subscription.sent(now)

    def _read(self, node: int, socket: "zmq.Socket[bytes]") -> bool:
        """Read up to _FRAMES_IN_A_ROW messages of a socket; return whether there may be more."""
        for _ in range(_FRAMES_IN_A_ROW):
            try:
                parts = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            now = time.monotonic()
            try:
                frame = _only_frame(parts)
                self._subscriptions[node].received(frame, len(parts[0]), now)
                if frame.kind is FrameKind.ERROR:
                    continue
                self._receiver.receive(node, frame, now)
            except FrameError as error:
                self.stats.garbage += 1
                self.stats.last_garbage = f"node {node}: {error}"
                continue
            self.stats.heard_at[node] = now
            if frame.kind is FrameKind.EVENTS and frame.count:
                self._count(node, frame)
        return True

    def _count(self, node: int, frame: Frame) -> None:
        """Count the events of a frame: as an answer if its first event was asked for, else as published."""
        first = int(frames.records(frame)["sequence"][0])
        asked = self._asked.get(node)
        if asked is not None and asked.first <= first <= asked.last:
            self.stats.retransmitted += frame.count
        else:
            self._arrivals[node].take(first, first + frame.count - 1)


def _only_frame(parts: list[bytes]) -> Frame:
    if len(parts) != 1:
        raise FrameError(frames.ErrorCode.MALFORMED_FRAME, f"expected one message part, found {len(parts)}")
    return frames.decode(parts[0])
