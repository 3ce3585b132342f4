"""Replies to peers that do not read: bounded for each and for all, and nothing is lost for a peer that reads."""

import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from smrx.node import reply_sender
from smrx.node.reply_sender import ReplySender

DEADLINE_S = 30.0
FRAME = 64 << 10


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def router(context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    return router


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]", port: int, *, reads: bool
) -> "tuple[bytes, zmq.Socket[bytes]]":
    """Return the identity of a new peer, and its socket."""
    peer = context.socket(zmq.DEALER)
    if not reads:
        peer.rcvhwm, peer.rcvbuf = 1, 4096
    peer.connect(f"tcp://127.0.0.1:{port}")
    peer.send(b"hello")
    identity, _ = router.recv_multipart()
    return identity, peer


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached"
        time.sleep(0.001)


def test_peer_that_does_not_read_is_behind_and_costs_no_more_than_its_budget(
    context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]"
) -> None:
    sender = ReplySender(router, peer_bytes=10 * FRAME, all_bytes=15 * FRAME)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    stuck, stuck_peer = connect(context, router, port, reads=False)
    other, other_peer = connect(context, router, port, reads=False)
    reading, reader = connect(context, router, port, reads=True)
    for identity in (stuck, other):
        deadline = time.monotonic() + DEADLINE_S
        before = sender.dropped
        while sender.dropped < before + 100:
            sender.send(identity, bytes(FRAME))
            assert time.monotonic() < deadline
    assert sender.is_behind(stuck)
    assert sender.is_behind(other)
    assert sender.waiting_bytes == 15 * FRAME, "ten of one peer, and what is left for all"
    # A peer that reads gets its replies meanwhile.
    sender.send(reading, b"reply")
    assert not sender.is_behind(reading)
    assert reader.recv() == b"reply"
    # What waits is sent when the peer reads, and then it is no longer behind.
    received = 0

    def has_caught_up() -> bool:
        nonlocal received
        sender.flush()
        for peer in (stuck_peer, other_peer):
            while peer.poll(0):
                received += len(peer.recv())
        return not sender.has_waiting and received >= 15 * FRAME

    wait_for(has_caught_up)
    assert sender.waiting_bytes == 0
    assert not sender.is_behind(stuck)
    sender.send(stuck, b"last")
    replies: list[bytes] = []
    wait_for(lambda: replies.append(stuck_peer.recv()) or replies[-1] == b"last")  # type: ignore[func-returns-value]


def test_slow_reader_gets_every_reply_in_order(
    context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]"
) -> None:
    sender = ReplySender(router)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    identity, peer = connect(context, router, port, reads=True)
    count = 20 * reply_sender.HIGH_WATER_MARK
    for number in range(count):
        sender.send(identity, number.to_bytes(8, "little") * 100)
    received = []
    deadline = time.monotonic() + DEADLINE_S
    while len(received) < count:
        sender.flush()
        while peer.poll(0):
            received.append(int.from_bytes(peer.recv()[:8], "little"))
        assert time.monotonic() < deadline
    assert received == list(range(count))
    assert sender.dropped == 0


def test_replies_to_a_peer_that_is_gone_are_dropped(
    context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]"
) -> None:
    sender = ReplySender(router, peer_bytes=4 * FRAME)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    identity, peer = connect(context, router, port, reads=False)
    while not sender.dropped:
        sender.send(identity, bytes(FRAME))
    peer.close(linger=0)

    def is_forgotten() -> bool:
        sender.flush()
        return not sender.has_waiting

    wait_for(is_forgotten)
    assert sender.waiting_bytes == 0
