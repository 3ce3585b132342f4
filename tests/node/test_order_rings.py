"""Order entry through rings: frames and answers arrive, and a process that breaks the rules ends only its own ring."""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smrx.links.poller import Poller
from smrx.node import order_rings
from smrx.node.frame_block import ANSWER_ROW_WORDS, AnswerBlock, FrameBlock
from smrx.node.order_rings import MOST_RINGS, OrderRings
from smrx.rings import ring_end, ring_kernels
from smrx.rings.ring_end import RingEnd
from smrx.wire import frames

pytestmark = pytest.mark.skipif(not ring_kernels.is_available(), reason="rings need compiled code")

MIB = 1 << 20


class Entry:
    """A node's rings, and what order entry was given."""

    def __init__(self, folder: Path) -> None:
        self.poller = Poller()
        self.path = folder / "orders.ring"
        self.blocks: list[tuple[bytes, list[bytes]]] = []
        self.rings = OrderRings(self.poller, self.path, self.take)

    def take(self, block: FrameBlock) -> None:
        self.blocks.append((block.senders.identities[0], [block.frame(row) for row in range(len(block.rows))]))

    def turn(self) -> None:
        self.poller.run(0.0 if self.rings.has_more else 0.05)
        self.rings.deliver()

    def connect(self) -> RingEnd:
        control = socket.socket(socket.AF_UNIX)
        control.connect(os.fspath(self.path))
        self.turn()
        return ring_end.accept(control)

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, found in self.blocks for frame in found]


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[Entry]:
    found = Entry(tmp_path)
    yield found
    found.rings.close()
    found.poller.close()


def send(end: RingEnd, *messages: bytes) -> None:
    data = b"".join(len(message).to_bytes(4, "little") + message for message in messages)
    assert end.send(np.frombuffer(bytearray(data), np.uint8)) == len(data)


def received(end: RingEnd) -> bytes:
    data = np.zeros(8 * MIB, np.uint8)
    return data[: end.receive(data)].tobytes()


def test_frames_of_several_processes_and_their_answers(entry: Entry) -> None:
    one, other = entry.connect(), entry.connect()
    send(one, b"first", b"second")
    send(other, b"third")
    entry.turn()
    assert sorted(entry.frames) == [b"first", b"second", b"third"]
    identity = next(identity for identity, found in entry.blocks if b"third" in found)
    assert order_rings.is_ring(identity)
    entry.rings.send(identity, b"answer")
    assert received(one) == b""
    assert received(other) == b"\6\0\0\0answer"
    one.close()
    other.close()


def test_answers_of_a_block(entry: Entry) -> None:
    client = entry.connect()
    send(client, b"order")
    blocks: list[FrameBlock] = []
    entry.rings._on_frames = blocks.append
    entry.turn()
    rows = np.zeros((2, ANSWER_ROW_WORDS), np.int64)
    rows[0, :2], rows[1, :2] = (0, 5), (8, 6)
    answers = AnswerBlock(
        np.frombuffer(bytearray(b"first\0\0\0second\0\0"), np.uint8), rows, blocks[0].senders.identities
    )
    assert order_rings.are_rings(answers)
    entry.rings.send_answers(answers)
    assert received(client) == b"\5\0\0\0first\6\0\0\0second"
    client.close()


def test_frame_in_pieces_is_put_together(entry: Entry) -> None:
    client = entry.connect()
    data = np.frombuffer(bytearray(b"\5\0\0\0order\5\0\0\0later"), np.uint8)
    for at in range(len(data)):
        client.send(data[at : at + 1].copy())
        entry.turn()
    assert entry.frames == [b"order", b"later"]
    client.close()


def test_many_small_frames_arrive_in_one_turn(entry: Entry) -> None:
    client = entry.connect()
    send(client, *[b"x"] * 10_000)
    entry.turn()
    assert len(entry.frames) == 10_000
    client.close()


def test_socket_is_for_this_user_only_and_replaces_one_that_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "orders.ring").write_text("left over", encoding="ascii")
    entry = Entry(tmp_path)
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    entry.rings.close()
    entry.poller.close()
    assert not entry.path.exists()


def test_path_longer_than_an_address_of_a_socket_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with ring_end.listen(folder / "orders.ring") as listener:
        assert stat.S_ISSOCK((folder / "orders.ring").stat().st_mode)
        assert listener.fileno() >= 0


def check_others_are_served(entry: Entry, other: RingEnd) -> None:
    entry.blocks.clear()
    send(other, b"still here")
    entry.turn()
    assert entry.frames == [b"still here"]


@pytest.mark.parametrize("fault", ["too large", "impossible position", "gone", "speaks"])
def test_fault_ends_one_ring_only(entry: Entry, fault: str) -> None:
    bad, other = entry.connect(), entry.connect()
    send(bad, b"before")
    entry.turn()
    if fault == "too large":
        send(bad, b"")
        bad.send(np.frombuffer(bytearray((frames.MAX_FRAME_BYTES + 1).to_bytes(4, "little")), np.uint8))
    elif fault == "impossible position":
        with memoryview(bad._given.memory) as memory:
            memory[:8] = struct.pack("<q", 1 << 40)
        os.eventfd_write(bad._given.bells[0], 1)
    elif fault == "gone":
        send(bad, b"the last")
        bad.control.close()
    else:
        bad.control.send(b"hello")
    for _ in range(3):
        entry.turn()
    assert len(entry.rings._rings) == 1
    if fault == "gone":
        # What it sent before it ended is accepted.
        assert entry.frames == [b"before", b"the last"]
    check_others_are_served(entry, other)
    bad.close()
    other.close()


def test_process_that_reads_no_answers_is_not_read_and_then_ended(entry: Entry) -> None:
    slow, other = entry.connect(), entry.connect()
    send(slow, b"order")
    entry.turn()
    identity = entry.blocks[0][0]
    answer = bytes(MIB // 2)
    for _ in range(3):
        entry.rings.send(identity, answer)
    # Its ring is full: it is not read, and the loop may still sleep.
    send(slow, b"ignored")
    entry.turn()
    assert entry.frames == [b"order"]
    assert not entry.rings.has_more
    # It reads, gets all in order, and is read again.
    found = b""
    for _ in range(6):
        found += received(slow)
        entry.turn()
    assert found == (len(answer).to_bytes(4, "little") + answer) * 3
    assert entry.frames == [b"order", b"ignored"]
    for _ in range(12):
        entry.rings.send(identity, answer)
    assert len(entry.rings._rings) == 1
    check_others_are_served(entry, other)
    slow.close()
    other.close()


def test_number_of_processes_is_bounded(entry: Entry) -> None:
    ends = [entry.connect() for _ in range(MOST_RINGS)]
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(os.fspath(entry.path))
        entry.turn()
        assert control.recv(1) == b""
    ends.pop().close()
    entry.turn()
    ends.append(entry.connect())
    for end in ends:
        end.close()


def test_nodes_with_keys_have_no_rings(tmp_path: Path) -> None:
    poller = Poller()
    path = tmp_path / "orders.ring"
    assert order_rings.open_rings(poller, path, lambda _: None, has_keys=True) is None
    assert order_rings.open_rings(poller, tmp_path / "nowhere" / "x", lambda _: None, has_keys=False) is None
    poller.close()
