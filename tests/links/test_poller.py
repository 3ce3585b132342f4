"""Waiting for sockets: with and without a time in which the poller asks again and again."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

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
