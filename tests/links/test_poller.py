"""Waiting for sockets: with and without a time in which the poller asks again and again."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from smrx.links.poller import Poller


@pytest.fixture(params=[0.0, 0.002, 30.0], ids=["sleeps", "spins-a-while", "spins"])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    poller = Poller(spin_seconds=request.param)
    yield poller
    poller.close()


def test_bytes_that_arrive_during_the_wait_end_it(poller: Poller) -> None:
    here, there = socket.socketpair()
    with here, there:
        received: list[bytes] = []
        poller.add(here.fileno(), lambda events: received.append(here.recv(1)))
        sender = threading.Thread(target=lambda: there.send(b"x"))
        sender.start()
        assert poller.run(30.0)
        sender.join()
        assert received == [b"x"]


def test_wait_without_bytes_lasts_its_whole_time(poller: Poller) -> None:
    here, there = socket.socketpair()
    with here, there:
        poller.add(here.fileno(), lambda events: pytest.fail("nothing has arrived"))
        started = time.monotonic()
        assert not poller.run(0.02)
        assert time.monotonic() - started >= 0.02


def test_paused_zmq_socket_is_not_asked_and_ends_no_wait(poller: Poller) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    here, there = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    port = here.bind_to_random_port("tcp://127.0.0.1")
    there.connect(f"tcp://127.0.0.1:{port}")
    received: list[bytes] = []
    watched = poller.add_zmq(here, lambda events: received.append(here.recv()))
    watched.is_paused = True
    there.send(b"x")
    deadline = time.monotonic() + 30.0
    while not watched.has_message:
        # The first runs end with the signal of the message, which is not read.
        poller.run(0.01)
        assert time.monotonic() < deadline
    started = time.monotonic()
    assert not poller.run(0.02)
    assert time.monotonic() - started >= 0.02
    assert received == []
    watched.is_paused = False
    assert poller.run(30.0)
    assert received == [b"x"]
    context.destroy(linger=0)
