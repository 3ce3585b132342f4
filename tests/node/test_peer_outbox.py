"""A peer that does not read costs a bounded amount of memory, and delays no other."""

import time
from collections.abc import Iterator

import pytest
import zmq

from smrx.node import admin_service, order_socket
from smrx.node.peer_outbox import Bounds, PeerOutbox

REPLY = bytes(128 << 10)
DEADLINE_S = 30.0


class Exchange:
    """A ROUTER with an outbox, and DEALER peers."""

    def __init__(self, bounds: Bounds = admin_service.REPLY_BOUNDS) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.outbox = PeerOutbox(self.router, bounds)
        self.router.linger = 0
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")

    def connect(self) -> tuple["zmq.Socket[bytes]", bytes]:
        """Return a peer with small buffers, and its identity at the router."""
        peer = self.context.socket(zmq.DEALER)
        peer.linger = 0
        peer.rcvhwm = 1
        peer.rcvbuf = 64 << 10
        peer.connect(f"tcp://127.0.0.1:{self.port}")
        peer.send(b"hello")
        assert self.router.poll(10_000)
        return peer, self.router.recv_multipart()[0]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    yield made
    made.context.destroy(linger=0)


def block(exchange: Exchange, peer: bytes) -> int:
    """Send until the peer is blocked; return how many replies that took."""
    for count in range(1, 10_000):
        exchange.outbox.send(peer, REPLY)
        time.sleep(0.001)
        if peer in exchange.outbox.blocked:
            return count
    raise AssertionError("the peer was never blocked")


def test_reply_arrives(exchange: Exchange) -> None:
    peer, identity = exchange.connect()
    exchange.outbox.send(identity, b"reply")
    assert peer.poll(10_000)
    assert peer.recv() == b"reply"
    assert exchange.outbox.next_deadline == float("inf")


def test_peer_that_does_not_read_is_blocked_and_loses_replies(exchange: Exchange) -> None:
    _, identity = exchange.connect()
    # What ZeroMQ and the system keep, at both ends.
    assert block(exchange, identity) * len(REPLY) < 8 << 20
    assert exchange.outbox.is_behind(identity)
    for _ in range(100):
        exchange.outbox.send(identity, REPLY)
    waiting = len(exchange.outbox.blocked[identity].replies)
    assert 1 <= waiting <= 2
    assert exchange.outbox.dropped == 100 - waiting + 1
    # After its time it has lost all of them.
    exchange.outbox.blocked[identity].since -= admin_service.REPLY_BOUNDS.seconds
    exchange.outbox.retry()
    assert not exchange.outbox.blocked
    assert exchange.outbox.waiting_bytes == 0


def test_blocked_peers_have_a_bound_in_all() -> None:
    bound = 2 * len(REPLY) + 1000
    exchange = Exchange(admin_service.REPLY_BOUNDS._replace(all_bytes=bound))
    peers = [exchange.connect() for _ in range(3)]
    for _, identity in peers:
        block(exchange, identity)
        for _ in range(5):
            exchange.outbox.send(identity, REPLY)
    waiting = sum(len(reply) for peer in exchange.outbox.blocked.values() for reply in peer.replies)
    assert waiting <= 2 * len(REPLY)
    assert exchange.outbox.waiting_bytes <= bound
    assert exchange.outbox.dropped
    assert all(exchange.outbox.is_behind(identity) for _, identity in peers), "also one of which nothing could wait"
    exchange.context.destroy(linger=0)


def test_slow_reader_of_many_small_replies_gets_every_one_in_order() -> None:
    exchange = Exchange(order_socket.BOUNDS)
    peer, identity = exchange.connect()
    count = 20 * order_socket.BOUNDS.messages
    for number in range(count):
        exchange.outbox.send(identity, number.to_bytes(8, "little"))
        assert not exchange.outbox.is_behind(identity), "little waits"
    received: list[int] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(received) < count:
        exchange.outbox.retry()
        while peer.poll(0):
            received.append(int.from_bytes(peer.recv(), "little"))
        assert time.monotonic() < deadline
    assert received == list(range(count))
    assert exchange.outbox.dropped == 0
    exchange.context.destroy(linger=0)


def test_replies_to_a_peer_that_is_gone_are_dropped(exchange: Exchange) -> None:
    peer, identity = exchange.connect()
    block(exchange, identity)
    peer.close(linger=0)
    deadline = time.monotonic() + DEADLINE_S
    while exchange.outbox.blocked:
        exchange.outbox.retry()
        assert time.monotonic() < deadline
    assert exchange.outbox.waiting_bytes == 0


def test_other_peers_are_served_meanwhile(exchange: Exchange) -> None:
    _, blocked = exchange.connect()
    reader, identity = exchange.connect()
    block(exchange, blocked)
    exchange.outbox.send(identity, b"reply")
    assert reader.poll(10_000)


def test_peer_that_reads_again_gets_what_waits_in_order(exchange: Exchange) -> None:
    peer, identity = exchange.connect()
    block(exchange, identity)
    exchange.outbox.send(identity, b"last")
    deadline = time.monotonic() + 10
    received: list[bytes] = []
    while (not received or received[-1] != b"last") and time.monotonic() < deadline:
        exchange.outbox.retry()
        if peer.poll(1):
            received.append(peer.recv())
    assert received[-1] == b"last"
    assert identity not in exchange.outbox.blocked


def test_peer_that_is_gone_is_reported(exchange: Exchange) -> None:
    peer, identity = exchange.connect()
    peer.close()
    deadline = time.monotonic() + 10
    gone: list[bytes] = []
    while not gone and time.monotonic() < deadline:
        exchange.outbox.send(identity, b"reply")
        exchange.outbox.retry()
        gone = exchange.outbox.take_gone()
    assert set(gone) == {identity}
