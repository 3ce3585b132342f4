"""One node's side of the feed with real sockets and no node behind it: it publishes and loses what the test says."""

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

#: Nothing in these tests takes long; a machine under load gets this many seconds before a test fails.
PATIENCE = 20.0


class StubNode:
    """A PUB socket for the test's own thread, and a thread that answers retransmission requests from a ring."""

    def __init__(self, node: int = 1, *, ring: int = 1 << 16, ports: tuple[int, int] | None = None) -> None:
        self.node = node
        self.ring = EventRing(ring)
        self.requests: list[tuple[int, int]] = []
        self.answering = True
        self.newest_command = 0
        self.hashes: dict[int, int] = {}
        #: What its balances digest to, for its heartbeats; none says nothing of them.
        self.balances: Callable[[], Digest] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._feed = self._context.socket(zmq.XPUB)  # A PUB that tells when somebody subscribes.
        self._feed.xpub_verbose = True
        self._feed.linger = 0
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.maxmsgsize = MAX_REQUEST_BYTES
        self._admin = self._context.socket(zmq.ROUTER)
        self._admin.linger = 0
        self.admin_port = _bind(self._admin, None)
        #: What it answers to whoever asks for its balances.
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
        """Return once a subscriber's subscription has arrived: from here on it gets what is published."""
        assert self._feed.poll(int(PATIENCE * 1000)), "nobody subscribed"
        assert self._feed.recv() == b"\x01"

    def is_subscribed(self) -> bool:
        """Whether a subscription is waiting to be taken note of."""
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
        """The state hash this node believes in after a command: 7 unless a test says otherwise."""
        return self.hashes.get(command_sequence, 7)

    def send(self, *parts: bytes) -> None:
        """Put anything on the feed."""
        self._feed.send_multipart(parts)

    def heartbeat(self, following: int | None = None) -> None:
        """Say which event comes next."""
        if self.balances is None:
            self.send(frames.encode(FrameKind.HEARTBEAT, correlation=following or self.ring.newest + 1))
            return
        claim = Claim(self.newest_command, self.hash_at(self.newest_command))
        self.send(frames.encode_heartbeat(FeedPosition(following or self.ring.newest + 1, claim, self.balances())))

    def forget(self, following: int | None = None) -> None:
        """Lose every event held."""
        with self._lock:
            self.ring.restart(following or self.ring.newest + 1)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE)
        self._feed.close()
        self._router.close()
        self._admin.close()
        self._context.term()

    def _answer_admin(self) -> None:
        identity, data = self._admin.recv_multipart()
        request_id, request = admin.decode_request(data)
        if isinstance(request, admin.HashAt):
            said = admin.HashReply(
                node_id=self.node, sequence=self.newest_command, at=request.at, state_hash=self.hashes.get(request.at)
            )
            self._admin.send_multipart([identity, admin.encode_reply(said, request_id)])
            return
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
