"""Rings in shared memory: bytes arrive in order, nothing that the other side writes or does harms this one."""

import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.rings import ring_end, ring_kernels, ring_memory
from smrx.rings.ring_end import RingEnd
from smrx.rings.ring_kernels import HEADER_BYTES, READ, WRITTEN
from smrx.rings.ring_memory import LEAST_CAPACITY, RingError

pytestmark = pytest.mark.skipif(not ring_kernels.is_available(), reason="rings need compiled code")

CAPACITY = LEAST_CAPACITY


@pytest.fixture
def ends() -> Iterator[tuple[RingEnd, RingEnd]]:
    """A server's and a client's end in this process."""
    one, other = socket.socketpair(socket.AF_UNIX)
    server = ring_end.offer(one, CAPACITY)
    client = ring_end.accept(other)
    yield server, client
    server.close()
    client.close()


def received(end: RingEnd, room: int = 4 * CAPACITY) -> bytes:
    data = np.zeros(room, np.uint8)
    return data[: end.receive(data)].tobytes()


def bytes_of(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)


def test_both_directions(ends: tuple[RingEnd, RingEnd]) -> None:
    server, client = ends
    assert client.send(bytes_of(b"order")) == 5
    assert server.send(bytes_of(b"answer")) == 6
    assert received(server) == b"order"
    assert received(client) == b"answer"
    assert received(server) == b""


def test_full_ring_takes_nothing_until_it_is_read(ends: tuple[RingEnd, RingEnd]) -> None:
    server, client = ends
    data = bytes_of(bytes(range(256)) * (CAPACITY // 128))
    assert client.send(data) == CAPACITY
    assert client.send(data, CAPACITY) == 0
    assert client.may_sleep(until_room=True)
    assert received(server, 100) == data[:100].tobytes()
    assert not client.may_sleep(until_room=True)
    assert client.send(data, CAPACITY) == 100
    assert received(server) == data[100 : CAPACITY + 100].tobytes()


def test_random_pieces_arrive_in_order(ends: tuple[RingEnd, RingEnd]) -> None:
    """Sizes around the end of the ring included: what is read is what was written."""
    server, client = ends
    random = np.random.default_rng(5)
    stream = random.integers(0, 256, 50 * CAPACITY, np.uint8)
    sent, found = 0, bytearray()
    while len(found) < len(stream):
        piece = stream[sent : sent + int(random.integers(0, CAPACITY + 10))]
        sent += client.send(np.ascontiguousarray(piece)) if len(piece) else 0
        found += received(server, int(random.integers(1, CAPACITY + 10)))
    assert bytes(found) == stream.tobytes()


def test_reader_is_woken_only_if_it_sleeps(ends: tuple[RingEnd, RingEnd]) -> None:
    server, client = ends
    client.send(bytes_of(b"1"))
    assert not server.may_sleep()
    received(server)
    assert not server.wait(0.0)
    client.send(bytes_of(b"2"))
    assert server.wait(30.0)
    assert received(server) == b"2"


def header_of(end: RingEnd, ring: int) -> memoryview:
    start = ring * (HEADER_BYTES + CAPACITY)
    return memoryview(end._given.memory)[start : start + HEADER_BYTES]


@pytest.mark.parametrize("position", [-1, CAPACITY + 1, 1 << 62, -(1 << 63), (1 << 63) - 1])
def test_impossible_position_breaks_the_ring_and_nothing_else(ends: tuple[RingEnd, RingEnd], position: int) -> None:
    """The client writes a false cursor: the server reads nothing, and says so each time."""
    server, client = ends
    with header_of(client, 0) as header:
        header[WRITTEN : WRITTEN + 8] = struct.pack("<q", position)
    for _ in range(2):
        with pytest.raises(RingError, match="impossible position"):
            received(server)


@pytest.mark.parametrize("position", [-1, CAPACITY + 1, -CAPACITY - 1, 1 << 62, -(1 << 63)])
def test_impossible_position_of_a_reader_stops_the_writer(ends: tuple[RingEnd, RingEnd], position: int) -> None:
    server, client = ends
    server.send(bytes_of(bytes(CAPACITY)))
    with header_of(client, 1) as header:
        header[READ : READ + 8] = struct.pack("<q", position)
    for _ in range(2):
        with pytest.raises(RingError, match="impossible position"):
            server.send(bytes_of(b"x"))


def test_position_that_goes_back_breaks_the_ring(ends: tuple[RingEnd, RingEnd]) -> None:
    server, client = ends
    client.send(bytes_of(bytes(100)))
    assert len(received(server)) == 100
    with header_of(client, 0) as header:
        header[WRITTEN : WRITTEN + 8] = struct.pack("<q", 50)
    with pytest.raises(RingError, match="impossible position"):
        received(server)


def test_own_position_is_never_read_back(ends: tuple[RingEnd, RingEnd]) -> None:
    """The client overwrites the cursor of the server: the server goes on from where it is."""
    server, client = ends
    server.send(bytes_of(b"first"))
    with header_of(client, 1) as header:
        header[WRITTEN : WRITTEN + 8] = struct.pack("<q", 1 << 40)
    assert server.send(bytes_of(b"second")) == 6
    assert received(client) == b"firstsecond"


def test_random_memory_harms_nothing(ends: tuple[RingEnd, RingEnd]) -> None:
    """Whatever is in the shared memory, calls return within the bounds of the ring or raise RingError."""
    random = np.random.default_rng(9)
    for _ in range(200):
        one, other = socket.socketpair(socket.AF_UNIX)
        server, client = ring_end.offer(one, CAPACITY), ring_end.accept(other)
        with memoryview(client._given.memory) as memory:
            memory[:] = random.integers(0, 256, len(memory), np.uint8).tobytes()
        for _ in range(4):
            try:
                assert len(received(server)) <= CAPACITY
                assert server.send(bytes_of(bytes(3 * CAPACITY))) <= CAPACITY
                server.may_sleep(until_room=True)
            except RingError:
                break
        server.close()
        client.close()


def test_closed_end_is_noticed(ends: tuple[RingEnd, RingEnd]) -> None:
    server, client = ends
    client.send(bytes_of(b"the last"))
    assert not server.is_other_gone()
    client.control.close()
    assert server.is_other_gone()
    assert received(server) == b"the last"
    assert server.wait(0.0)


def test_size_of_the_memory_cannot_change(ends: tuple[RingEnd, RingEnd]) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        given = ring_memory.offer(one, CAPACITY)
        _, descriptors, _, _ = socket.recv_fds(other, 100, 3)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptors[0], 0)
        for descriptor in (*descriptors, *given.bells):
            os.close(descriptor)


def offered(message: bytes, size: int, seals: int, count: int = 3) -> socket.socket:
    """Return a socket on which a server has offered something."""
    one, other = socket.socketpair(socket.AF_UNIX)
    memory = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    descriptors = [memory, os.eventfd(0), os.eventfd(0)]
    socket.send_fds(one, [message], descriptors[:count])
    for descriptor in descriptors:
        os.close(descriptor)
    one.close()
    return other


SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
GOOD = struct.pack("<8sII", b"SMRXRING", 1, CAPACITY)


@pytest.mark.parametrize(
    ("message", "size", "seals", "count", "reason"),
    [
        (GOOD, ring_memory.size_of(CAPACITY), 0, 3, "not sealed"),
        (GOOD, ring_memory.size_of(CAPACITY) - 1, SEALED, 3, "expected memory of"),
        (GOOD, ring_memory.size_of(CAPACITY), SEALED, 2, "with 2"),
        (GOOD[:-1], ring_memory.size_of(CAPACITY), SEALED, 3, "found 15 bytes"),
        (GOOD.replace(b"RING", b"RUNG"), ring_memory.size_of(CAPACITY), SEALED, 3, "expected a ring of version"),
        (GOOD[:12] + struct.pack("<I", 3), ring_memory.size_of(CAPACITY), SEALED, 3, "power of two"),
    ],
)
def test_offer_that_is_not_as_promised_is_refused(
    message: bytes, size: int, seals: int, count: int, reason: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with offered(message, size, seals, count) as control, pytest.raises(RingError, match=reason):
        ring_end.accept(control)
    assert len(os.listdir("/proc/self/fd")) == before


def test_process_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with one, other, pytest.raises(RingError, match="found one of user"):
        ring_end.offer(one)
    with pytest.raises(RingError, match="nowhere"):
        ring_end.connect("nowhere")


_ECHO = """
import sys, numpy as np
from smrx.rings import ring_end
end = ring_end.connect(sys.argv[1])
data = np.zeros(1 << 16, np.uint8)
print("connected", flush=True)
while not end.is_other_gone():
    count = end.receive(data)
    sent = 0
    while sent < count:
        sent += end.send(data[:count], sent)
        if sent < count and not end.wait(30.0, until_room=True):
            sys.exit("the server reads nothing")
    if not count:
        end.wait(30.0)
"""


def test_two_processes_exchange_more_than_a_ring_and_a_killed_one_is_noticed(tmp_path: Path) -> None:
    """Both sleep and wake each other; then the client is killed, and the server notices without harm."""
    path = tmp_path / "rings.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        client = subprocess.Popen([sys.executable, "-c", _ECHO, str(path)], stdout=subprocess.PIPE)
        listener.settimeout(60.0)
        control, _ = listener.accept()
    server = ring_end.offer(control, CAPACITY)
    try:
        stream = np.random.default_rng(3).integers(0, 256, 100 * CAPACITY, np.uint8)
        found = np.zeros(len(stream), np.uint8)
        sent = got = 0
        deadline = time.monotonic() + 60.0
        while got < len(stream) and time.monotonic() < deadline:
            moved = server.receive(found, got)
            got += moved
            if sent < len(stream) and sent - got < CAPACITY:
                pushed = server.send(stream, sent)
                sent, moved = sent + pushed, moved + pushed
            if not moved:
                assert server.wait(30.0, until_room=False)
        assert got == len(stream)
        assert found.tobytes() == stream.tobytes()
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        assert server.wait(30.0)
        assert server.is_other_gone()
        assert server.receive(found) == 0
    finally:
        client.kill()
        client.wait()
        if client.stdout is not None:
            client.stdout.close()
        server.close()


def test_calls_after_the_end_are_errors(ends: tuple[RingEnd, RingEnd]) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    server, client = ring_end.offer(one, CAPACITY), ring_end.accept(other)
    server.close()
    client.close()
    with pytest.raises(RingError):
        server.send(bytes_of(b"late"))
    assert not client.may_sleep()


def test_capacity_is_bounded() -> None:
    for capacity in (0, 1, LEAST_CAPACITY - 1, LEAST_CAPACITY + 1, 1 << 27, mmap.PAGESIZE + 8):
        with pytest.raises(RingError, match="power of two"):
            ring_memory.check_capacity(capacity)
