"""One node's side of the feed, with real sockets and no node behind it; the test decides what it publishes."""

import threading
from collections.abc import Callable
from types import TracebackType

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.feed.retransmission import MAX_REQUEST_BYTES
from smrx.feed.subscriber import Endpoint
from smrx.node.event_ring import EventRing, answer_request, entry_frames
from smrx.wire import admin, frames
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import Claim, FeedPosition, FrameKind

#: How long a test waits for what takes milliseconds on a quiet machine.
TIMEOUT_S = 60.0


class StubNode:
    """A PUB socket for the test's own thread, and a thread that answers retransmission requests from a ring."""

    def __init__(self, node: int = 1, *, ring: int = 1 << 16, ports: tuple[int, int] | None = None) -> None:
        self.node = node
        self.ring = EventRing(ring)
        self.requests: list[tuple[int, int]] = []
        self.answering = True
        self.newest_command = 0
        self.hashes: dict[int, int] = {}
        #: Returns the digest of its balances for its heartbeats; None for heartbeats without one.
        self.balances: Callable[[], Digest] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._feed = self._context.socket(zmq.XPUB)  # A PUB that reports subscriptions.
        self._feed.xpub_verbose = True
        self._feed.linger = 0
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.maxmsgsize = MAX_REQUEST_BYTES
        self._admin = self._context.socket(zmq.ROUTER)
        self._admin.linger = 0
        self.admin_port = _bind(self._admin, None)
        #: Its answer to a request for balances.
        self.balance_rows: tuple[admin.BalanceRow, ...] = ()
        self.ports = (_bind(self._feed, ports and ports[0]), _bind(self._router, ports and ports[1]))
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
        return Endpoint(self.node, *(f"tcp://127.0.0.1:{port}" for port in self.ports))

    def wait_subscribed(self) -> None:
        """Return once a subscription has arrived: from here on the subscriber gets what is published."""
        assert self._feed.poll(int(TIMEOUT_S * 1000)), "no subscription arrived"
        assert self._feed.recv() == b"\x01"

    def is_subscribed(self) -> bool:
        """Whether a subscription has arrived that wait_subscribed() has not returned yet."""
        return bool(self._feed.poll(0))

    def publish(self, events: NDArray[np.void], *, lose: bool = False, frame_events: int = frames.MAX_EVENTS) -> None:
        """Publish one log entry, the commands that follow the last one, in frames of at most `frame_events`.

        `lose` keeps them off the feed, but not from retransmission. As on a node, the ring holds whole commands only,
        because what it answers with claims the state after its newest command.
        """
        assert int(events["command_sequence"][0]) != self.newest_command, "the last entry was cut inside a command"
        with self._lock:
            self.ring.append(events)
            self.newest_command = int(events["command_sequence"][-1])
        if not lose:
            claim = Claim(self.newest_command, self.hash_at(self.newest_command))
            for frame in entry_frames(events, claim, frame_events):
                self.send(frame)

    def hash_at(self, command_sequence: int) -> int:
        """The state hash this node claims after a command: 7 unless the test sets another."""
        return self.hashes.get(command_sequence, 7)

    def send(self, *parts: bytes) -> None:
        """Send any message on the feed."""
        self._feed.send_multipart(parts)

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
        self._feed.close()
        self._router.close()
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
        while not self._stopping.is_set():
            if self._admin.poll(0):
                self._answer_admin()
            if not self._router.poll(20):
                continue
            identity, request = self._router.recv_multipart()
            frame = frames.decode(request)
            self.requests.append((frame.correlation, frame.aux))
            if self.answering:
                with self._lock:
                    replies = answer_request(self.ring, frame, self.hash_at)
                for reply in replies:
                    self._router.send_multipart([identity, reply])


def _bind(socket: "zmq.Socket[bytes]", port: int | None) -> int:
    if port is None:
        return socket.bind_to_random_port("tcp://127.0.0.1")
    socket.bind(f"tcp://127.0.0.1:{port}")
    return port
