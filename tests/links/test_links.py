"""Real sockets: frames in both directions, with and without keys, and every bound of a listener."""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx.links.connection import CLOSED_BY_PEER, FRAME_TOO_LARGE
from smrx.links.greeting import MAX_BYTES
from smrx.links.listener import TOO_MANY_CONNECTIONS, TOO_MANY_UNKNOWN, TOO_SLOW
from smrx.local import free_ports
from tests.links.sides import BOUNDS, Ends, Recorder, is_closed

SIZES = (0, 1, 100, 5_000, 70_000, 1 << 20)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def exchange(ends: Ends) -> None:
    """Send frames of many sizes and expect them back, in order."""
    client = Recorder()
    ends.dial(client)
    ends.run_until(lambda: client.open, "a greeting")
    (connection,) = client.open
    sent = [bytes([size % 251]) * size for size in SIZES]
    for frame in sent:
        assert connection.send(frame[: len(frame) // 2], frame[len(frame) // 2 :])
    connection.flush()
    ends.run_until(lambda: len(client.frames) == len(sent), "echoes")
    assert client.frames == sent
    assert ends.server.frames == sent


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_frames_of_all_sizes_arrive_in_order(host: str, keys: bool) -> None:
    ends = Ends(keys=keys, address=f"tcp://{host}:0")
    exchange(ends)
    ends.close()


def test_unix_socket_carries_frames(tmp_path: Path) -> None:
    for _ in range(2):  # The file of a process that has ended does not keep the next one from starting.
        ends = Ends(address=f"unix://{tmp_path}/link")
        exchange(ends)
        ends.close()


def test_dialer_connects_once_the_listener_is_there_and_again_after_a_loss(ends: Ends) -> None:
    client = Recorder()
    (port,) = free_ports(1)
    dialer = ends.dial(client, address=f"tcp://127.0.0.1:{port}")
    ends.run_until(lambda: dialer.fault, "a refused connection")
    assert dialer.usable is None
    late = Ends(address=f"tcp://127.0.0.1:{port}", poller=ends.poller)
    ends.run_until(lambda: late.server.open, "a connection")
    late.server.open[0].close("on purpose")
    ends.run_until(lambda: len(late.server.open) == 2 and dialer.usable, "another connection")
    assert client.reasons == [CLOSED_BY_PEER]
    late.listener.close()


def test_connection_without_a_greeting_ends_in_time(ends: Ends) -> None:
    raw = ends.raw()
    raw.sendall(b"\x40")
    ends.run_until(lambda: is_closed(raw), "the end of a slow greeting")
    assert ends.listener.refused == {TOO_SLOW: 1}


def test_slow_tls_handshake_ends_in_time() -> None:
    ends = Ends(keys=True)
    raw = ends.raw()
    raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
    ends.run_until(lambda: is_closed(raw), "the end of a slow handshake")
    assert ends.listener.refused == {TOO_SLOW: 1}
    ends.close()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(100_000), b"\x05\x00\x00\x00hello"]
)
@pytest.mark.parametrize("keys", [False, True])
def test_garbage_closes_only_its_connection(garbage: bytes, keys: bool) -> None:
    ends = Ends(keys=keys)
    raw = ends.raw()
    raw.sendall(garbage)
    ends.run_until(lambda: is_closed(raw), "the end of the connection")
    assert ends.listener.refused.total() == 1
    assert not ends.server.open
    exchange(ends)
    ends.close()


def test_giant_frame_is_refused_when_it_is_announced(ends: Ends) -> None:
    raw = ends.raw()
    raw.sendall(struct.pack("<I", MAX_BYTES + 1))
    ends.run_until(lambda: is_closed(raw), "the end of the connection")
    assert ends.listener.refused == {FRAME_TOO_LARGE: 1}
    client = Recorder()
    ends.dial(client)
    ends.run_until(lambda: client.open, "a greeting")
    client.open[0].send(bytes(BOUNDS.frame_bytes + 1))
    client.open[0].flush()
    ends.run_until(lambda: ends.server.reasons, "the end of the connection")
    assert ends.server.reasons == [FRAME_TOO_LARGE]


def test_oldest_connection_without_a_greeting_makes_room(ends: Ends) -> None:
    held = [ends.raw() for _ in range(BOUNDS.unadmitted)]
    ends.run_until(lambda: len(ends.listener.connections) == len(held), "accepted connections")
    exchange(ends)
    assert ends.listener.refused[TOO_MANY_UNKNOWN] == 1
    assert [is_closed(raw) for raw in held] == [True, *[False] * (len(held) - 1)]


def test_connections_above_the_bound_are_closed(ends: Ends) -> None:
    clients = [Recorder() for _ in range(BOUNDS.connections)]
    for client in clients:
        ends.dial(client)
        ends.run_until(lambda client=client: client.open, "a greeting")  # type: ignore[misc]
    raw = ends.raw()
    ends.run_until(lambda: is_closed(raw), "the end of one connection too many")
    assert ends.listener.refused == {TOO_MANY_CONNECTIONS: 1}
    assert not any(client.reasons for client in clients)


def test_connections_are_accepted_at_a_bounded_rate() -> None:
    ends = Ends(bounds=BOUNDS._replace(accepts_per_second=2, greeting_seconds=60.0, unadmitted=100, connections=100))
    began = time.monotonic()
    held = [ends.raw() for _ in range(4)]
    ends.run_until(lambda: len(ends.listener.connections) == len(held), "all connections, in their turn")
    # Two at once, two more in a second.
    assert time.monotonic() - began > 0.5
    ends.close()


def test_listener_goes_on_after_a_lack_of_descriptors(ends: Ends) -> None:
    class NoDescriptors:
        def __init__(self, real: socket.socket) -> None:
            self.real, self.failures = real, 1

        def accept(self) -> object:
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            return self.real.fileno()

        def getsockname(self) -> object:
            return self.real.getsockname()

        def close(self) -> None:
            self.real.close()

    ends.listener._socket = NoDescriptors(ends.listener._socket)  # type: ignore[assignment]
    exchange(ends)
    assert ends.listener.refused == {"Too many open files": 1}


def test_reader_that_does_not_read_costs_a_bounded_queue(ends: Ends) -> None:
    client = Recorder()
    ends.dial(client)
    ends.run_until(lambda: client.open and ends.server.open, "a greeting")
    (connection,) = ends.server.open
    client.open[0].pause(reading=False)
    sent = 0
    while connection.send(bytes(100_000)):
        connection.flush()
        sent += 1
        assert sent < 1_000, "the queue has no bound"
    assert connection.queued_bytes <= BOUNDS.queue_bytes + 100_000
    client.open[0].pause(reading=True)
    ends.run_until(lambda: len(client.frames) == sent, "what was queued")


def test_an_owner_that_is_behind_lets_no_buffer_grow(ends: Ends) -> None:
    client = Recorder()
    ends.dial(client)
    ends.run_until(lambda: client.open and ends.server.open, "a greeting")
    ends.server.received = lambda connection: None  # type: ignore[method-assign, assignment]
    for _ in range(200):
        client.open[0].send(bytes(10_000))
        client.open[0].flush()
        ends.poller.run(0.0)
    assert len(ends.server.open[0].received_bytes()) <= 128 << 10


def test_end_of_a_connection_is_reported_once(ends: Ends) -> None:
    client = Recorder()
    ends.dial(client)
    ends.run_until(lambda: client.open and ends.server.open, "a greeting")
    client.open[0].close("on purpose")
    client.open[0].close("again")
    ends.run_until(lambda: ends.server.reasons, "the end")
    assert client.reasons == ["on purpose"]
    assert ends.server.reasons == [CLOSED_BY_PEER]
    assert not client.open[0].send(b"late")
