"""The guard bounds the connections of each port by the descriptors of the process."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from smrx.links.listener import TOO_MANY_UNKNOWN
from smrx.node import connection_guard
from smrx.node.connection_guard import SHARES, ConnectionGuard

Guarded = tuple[ConnectionGuard, int]
DESCRIPTORS = 100
MOST = int(DESCRIPTORS * SHARES["orders"])
DEADLINE_S = 20.0


def until(condition: Callable[[], bool], guard: ConnectionGuard) -> None:
    """Run the guard until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        guard.run(time.monotonic())
        if condition():
            return
        assert time.monotonic() < deadline, f"{guard.open} open, {guard.refused} refused"


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def guarded(context: "zmq.Context[zmq.Socket[bytes]]") -> Iterator[Guarded]:
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    guard = ConnectionGuard({"orders": router}, DESCRIPTORS)
    yield guard, port
    guard.close()


def outsiders(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


def is_ended(connection: socket.socket) -> bool:
    """Return whether the other side has closed a connection; the bytes of a greeting are read first."""
    connection.settimeout(0.05)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_connections_above_the_bound_are_cut_off(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    guard, port = guarded
    with caplog.at_level(logging.WARNING):
        opened = outsiders(port, MOST + 5)
        until(lambda: guard.refused["orders"] == 5, guard)
    assert guard.open == {"orders": MOST}
    until(lambda: sum(map(is_ended, opened)) == 5, guard)
    (record,) = caplog.records
    assert f"orders port {port} has its most connections ({MOST})" in record.getMessage()
    for connection in opened:
        connection.close()
    until(lambda: guard.open == {"orders": 0}, guard)


def test_place_that_becomes_free_is_used_again(guarded: Guarded, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    guard, port = guarded
    opened = outsiders(port, MOST)
    until(lambda: guard.open["orders"] == MOST, guard)
    opened.pop().close()
    until(lambda: guard.open["orders"] == MOST - 1, guard)
    with context.socket(zmq.DEALER) as client:
        client.connect(f"tcp://127.0.0.1:{port}")
        until(lambda: guard.open["orders"] == MOST, guard)
        assert guard.refused == {"orders": 0}
    for connection in opened:
        connection.close()


def test_lost_event_is_found_by_the_check_of_what_is_open(guarded: Guarded) -> None:
    guard, _ = guarded
    (port,) = guard._ports
    # Descriptors that are no connections of this port: no socket, and a number that is not in use.
    port.open |= {0: None, 1 << 20: None}
    guard._next_check = 0.0
    until(lambda: guard.open == {"orders": 0}, guard)


def test_one_address_does_not_take_all_connections(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, port = guarded
    monkeypatch.setattr(connection_guard, "shared_address", lambda name: name[0] if name[0] != "127.0.0.1" else None)
    others = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) for _ in range(MOST)]
    until(lambda: guard.open["orders"] + guard.refused["orders"] == MOST, guard)
    assert guard.open["orders"] == MOST // 2
    # As much as is free for a second one, and all of it for this machine.
    others += [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.3", 0)) for _ in range(MOST)]
    until(lambda: guard.open["orders"] + guard.refused["orders"] == 2 * MOST, guard)
    assert guard.open["orders"] == MOST // 2 + MOST // 4
    others += outsiders(port, MOST // 4)
    until(lambda: guard.open["orders"] == MOST, guard)
    for connection in others:
        connection.close()


def test_bound_of_a_port_without_zeromq_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refused = Counter({"closed by the peer": 9})
    listener: Any = SimpleNamespace(connections={1, 2}, refused=refused, port=7003)
    guard = ConnectionGuard({}, DESCRIPTORS, {"orders_tcp": listener})
    guard.run(1.0)
    assert caplog.records == []
    refused[TOO_MANY_UNKNOWN] = 4
    for now in (2.0, 3.0):
        guard.run(now)
    (record,) = caplog.records
    assert "orders_tcp port 7003 has its most connections: 4 more were cut off" in record.getMessage()


def test_descriptor_of_something_else_is_not_cut_off() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert not connection_guard._cut_off(left.fileno(), 7000)
        left.sendall(b"still open")
        assert right.recv(16) == b"still open"
