"""One node's side of the feed, with real sockets and no node behind it; the test decides what it publishes."""

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.feed.subscriber import Endpoint
from smrx.node.event_ring import EventRing
from smrx.node.feed_peer import FeedPeer
from smrx.node.principal import Sender
from smrx.node.publisher import Publisher
from smrx.node.replicated_state import Applied
from smrx.wire import admin, frames
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import Claim, FeedPosition, Frame, FrameKind
from smrx.wire.records import OUTCOME

#: How long a test waits for what takes milliseconds on a quiet machine.
TIMEOUT_S = 60.0
#: How often the stub reads its sockets.
_TICK_S = 0.002


class StubPublisher(Publisher):
    """A publisher that records requests, and loses events where the test asks for it."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> None:
        # No bound of frames: what a test publishes in a row is live, as far as the credit goes.
        super().__init__(context, address, queued_frames=0)
        self.requests: list[tuple[int, int]] = []
        self.answering = True
        self.added = 0

    def publish_entry(self, entry: Applied, frame_events: int) -> None:
        """Publish an entry in frames of at most `frame_events` events."""
        self._frame_events = frame_events
        self.publish([entry])

    def lose(self, first: int, last: int) -> None:
        """Let the streams that are up to date skip events first..last."""
        for peer in self._peers.values():
            if peer.next == first:
                peer.skip_to(last + 1)

    def send_all(self, *parts: bytes) -> None:
        """Send any message to every subscriber."""
        for identity in self._peers:
            with contextlib.suppress(zmq.ZMQError):  # A subscriber may be gone.
                self.socket.send_multipart((identity, *parts))

    def _process(self, sender: Sender, frame: Frame, newest: int, now: float) -> None:
        if frame.kind in (FrameKind.RETRANSMIT, FrameKind.ATTEST):
            self.requests.append((frame.correlation, frame.aux))
            if not self.answering:
                return
        super()._process(sender, frame, newest, now)

    def _add(self, sender: Sender, credential: int, now: float) -> FeedPeer:
        peer = super()._add(sender, credential, now)
        self.added += 1
        return peer


class StubNode:
    """A publisher for the test's own thread, and a thread that reads requests and answers them from a ring."""

    def __init__(self, node: int = 1, *, ring: int = 1 << 16, port: int | None = None) -> None:
        self.node = node
        self.ring = EventRing(ring)
        self.newest_command = 0
        self.hashes: dict[int, int] = {}
        #: Returns the digest of its balances for its heartbeats; None for heartbeats without one.
        self.balances: Callable[[], Digest] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._publisher = StubPublisher(self._context, f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(str(self._publisher.socket.get_string(zmq.LAST_ENDPOINT)).rsplit(":", 1)[1])
        self._admin = self._context.socket(zmq.ROUTER)
        self._admin.linger = 0
        self.admin_port = self._admin.bind_to_random_port("tcp://127.0.0.1")
        #: Its answer to a request for balances.
        self.balance_rows: tuple[admin.BalanceRow, ...] = ()
        self._subscriptions_awaited = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._answer_requests, name=f"stub-{node}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "StubNode":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.node, f"tcp://127.0.0.1:{self.port}")

    @property
    def requests(self) -> list[tuple[int, int]]:
        """The ranges that were asked for, in order."""
        return self._publisher.requests

    @property
    def answering(self) -> bool:
        """Whether requests for ranges are answered."""
        return self._publisher.answering

    @answering.setter
    def answering(self, value: bool) -> None:
        self._publisher.answering = value

    def wait_subscribed(self) -> None:
        """Return once a subscription has arrived: from here on the subscriber gets what is published."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.is_subscribed():
            assert time.monotonic() < deadline, "no subscription arrived"
            self._stopping.wait(_TICK_S)
        self._subscriptions_awaited += 1

    def is_subscribed(self) -> bool:
        """Whether a subscription has arrived that wait_subscribed() has not returned yet."""
        return self._publisher.added > self._subscriptions_awaited

    def publish(self, events: NDArray[np.void], *, lose: bool = False, frame_events: int = frames.MAX_EVENTS) -> None:
        """Publish one log entry, the commands that follow the last one, in frames of at most `frame_events`.

        `lose` keeps them off the feed, but not from retransmission. As on a node, the ring holds whole commands only,
        because what it answers with claims the state after its newest command.
        """
        assert int(events["command_sequence"][0]) != self.newest_command, "the last entry was cut inside a command"
        with self._lock:
            self.ring.append(events)
            self.newest_command = int(events["command_sequence"][-1])
            if lose:
                self._publisher.lose(int(events["sequence"][0]), int(events["sequence"][-1]))
            else:
                state_hash = self.hash_at(self.newest_command)
                entry = Applied(1, 1, np.empty(0, OUTCOME), events, self.newest_command, state_hash)
                self._publisher.publish_entry(entry, frame_events)

    def hash_at(self, command_sequence: int) -> int:
        """The state hash this node claims after a command: 7 unless the test sets another."""
        return self.hashes.get(command_sequence, 7)

    def send(self, *parts: bytes) -> None:
        """Send any message on the feed."""
        with self._lock:
            self._publisher.send_all(*parts)

    def heartbeat(self, following: int | None = None) -> None:
        """Send a heartbeat with the next event."""
        if self.balances is None:
            self.send(frames.encode(FrameKind.HEARTBEAT, correlation=following or self.ring.newest + 1))
            return
        claim = Claim(self.newest_command, self.hash_at(self.newest_command))
        self.send(frames.encode_heartbeat(FeedPosition(following or self.ring.newest + 1, claim, self.balances())))

    def forget(self, following: int | None = None) -> None:
        """Drop every event held."""
        with self._lock:
            self.ring.restart(following or self.ring.newest + 1)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        self._publisher.socket.close()
        self._admin.close()
        self._context.term()

    def _answer_admin(self) -> None:
        identity, data = self._admin.recv_multipart()
        request_id, request = admin.decode_request(data)
        reply: admin.AnyReply
        if isinstance(request, admin.HashAt):
            reply = admin.HashReply(
                node_id=self.node, sequence=self.newest_command, at=request.at, state_hash=self.hashes.get(request.at)
            )
        else:
            assert isinstance(request, admin.Balances)
            reply = admin.BalancesReply(node_id=self.node, sequence=self.newest_command, rows=self.balance_rows)
        self._admin.send_multipart([identity, admin.encode_reply(reply, request_id)])

    def _answer_requests(self) -> None:
        while not self._stopping.wait(_TICK_S):
            while self._admin.poll(0):
                self._answer_admin()
            with self._lock:
                now = time.monotonic()
                while self._publisher.receive(self.ring.newest, now):
                    pass
                self._publisher.catch_up(lambda: self.ring, self.hash_at, now)
