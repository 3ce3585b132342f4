"""Order entry over TCP: frames of many connections arrive whole and in order, their answers go back, bounds hold."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from smrx import key_files
from smrx.client_keys import ClientKeys
from smrx.consensus.keys import LinkKeys
from smrx.links import bulk_links, greeting
from smrx.links.greeting import ClientGreeting, Terms
from smrx.links.poller import Poller
from smrx.node import order_links
from smrx.node.frame_block import AnswerBlock, FrameBlock, LinkIdentities, key_of, link_number
from smrx.node.order_links import OrderLinks
from smrx.node.principal import EVERYTHING, Principal, Sender
from smrx.wire import frames
from tests.node.order_client import LinkSocket
from tests.node.test_order_socket import answers, contents

DEADLINE_S = 30.0
CLUSTER = "smrx"


class FakeAdmission:
    """Stands for Admission; a key is its own user id."""

    def user_of(self, key: str, address: str) -> str | None:
        assert address == "127.0.0.1"
        return key

    def principal_of(self, sender: Sender) -> Principal | None:
        return EVERYTHING._replace(credential=len(sender.user))


class Port:
    """An order entry port and what it has received."""

    def __init__(self, keys: LinkKeys | None = None) -> None:
        self.poller = Poller()
        self.found: list[tuple[bytes, bytes]] = []
        self.keys_seen: dict[bytes, int] = {}
        admission: Any = FakeAdmission()
        self.links = OrderLinks(
            self.poller, "tcp://127.0.0.1:0", admission, self._take, cluster=CLUSTER, keys=keys, max_connections=64
        )
        self.clients: list[Raw] = []

    def _take(self, block: FrameBlock) -> None:
        self.found += contents(block)
        self.keys_seen |= dict(zip(block.senders.identities, block.senders.keys.tolist(), strict=True))

    def turn(self) -> None:
        self.links.begin_turn()
        self.poller.run(0.0 if self.links.has_more else 0.01)
        self.links.deliver()
        self.links.tick(time.monotonic())

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{len(self.found)} frames arrived"
            self.turn()

    def connect(self, hello: bytes | None = None) -> "Raw":
        client = Raw(self)
        self.clients.append(client)
        greeted = ClientGreeting(Terms(greeting.ORDERS, greeting.ANY_CLUSTER), None, None, lambda _: True)
        client.send(greeted.first() if hello is None else hello)
        if hello is None:
            greeted.receive(client.receive())
            assert greeted.done
        return client

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()
        self.links.close()
        self.poller.close()


class Raw:
    """A socket of a client, without any code of the SDK."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.socket = socket.create_connection(("127.0.0.1", port.links.listener.port))
        self.socket.setblocking(False)
        self._bytes = b""

    def send_bytes(self, data: bytes) -> None:
        """Send all of it, while the port turns."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                self._port.turn()

    def send(self, *sent: bytes) -> None:
        self.send_bytes(b"".join(len(frame).to_bytes(4, "little") + frame for frame in sent))

    def read(self) -> bool:
        """Read what has arrived; return whether the connection is open."""
        try:
            part = self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._bytes += part
        return bool(part)

    def receive(self) -> bytes:
        """Return the next frame, while the port turns."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            size = int.from_bytes(self._bytes[:4], "little")
            if len(self._bytes) >= 4 + size:
                frame, self._bytes = self._bytes[4 : 4 + size], self._bytes[4 + size :]
                return frame
            assert time.monotonic() < deadline
            self._port.turn()
            assert self.read()


@pytest.fixture(params=["compiled", "one by one"])
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    if request.param == "one by one":
        monkeypatch.setattr(bulk_links, "is_available", lambda: False)
    made = Port()
    yield made
    made.close()


def frames_of(port: Port) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for identity, frame in port.found:
        found.setdefault(identity, []).append(frame)
    return found


def test_frames_of_many_connections_arrive_in_order_under_their_senders(port: Port) -> None:
    clients = [port.connect() for _ in range(40)]
    sizes = (0, 1, 31, 32, 96, 5000, 70_000)
    sent = {
        mark: [bytes((mark, number)) + bytes(sizes[(mark + number) % len(sizes)]) for number in range(30)]
        for mark in range(len(clients))
    }
    for mark, client in enumerate(clients):
        client.send(*sent[mark])
    port.until(lambda: len(port.found) == 30 * len(clients))
    assert {found[0][0]: found for found in frames_of(port).values()} == sent
    assert port.keys_seen == {identity: key_of(identity) for identity in frames_of(port)}


def test_frames_arrive_whole_that_were_sent_in_pieces(port: Port) -> None:
    client, other = port.connect(), port.connect()
    sent = [bytes([number]) * size for number, size in enumerate((3, 40_000, 0, 700_000, 96, frames.MAX_FRAME_BYTES))]
    data = b"".join(len(frame).to_bytes(4, "little") + frame for frame in sent)
    step = 1
    while data:
        client.send_bytes(data[:step])
        data = data[step:]
        port.turn()
        step = step % 50_000 * 3 + 1
        if not len(data) % 5:
            other.send(b"between")
    port.until(lambda: len([frame for _, frame in port.found if frame != b"between"]) == len(sent))
    assert [frame for _, frame in port.found if frame != b"between"] == sent


def test_more_frames_than_a_turn_takes_arrive_over_several(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    client = port.connect()
    most = 0
    count = 3 * order_links._FRAMES_PER_TURN
    client.send(*(number.to_bytes(4, "little") for number in range(count)))
    while len(port.found) < count:
        before = len(port.found)
        port.turn()
        most = max(most, len(port.found) - before)
    # What was left, and what is new.
    assert most <= 2 * order_links._FRAMES_PER_TURN
    assert [frame for _, frame in port.found] == [number.to_bytes(4, "little") for number in range(count)]


def test_frame_behind_the_greeting_is_not_lost(port: Port) -> None:
    client = Raw(port)
    port.clients.append(client)
    first = ClientGreeting(Terms(greeting.ORDERS, greeting.ANY_CLUSTER), None, None, lambda _: True).first()
    client.send_bytes(b"".join(len(f).to_bytes(4, "little") + f for f in (first, b"one", b"two")) + b"\5\0\0\0th")
    port.until(lambda: len(port.found) == 2)
    client.send_bytes(b"ree")
    client.send(b"four")
    port.until(lambda: len(port.found) == 4)
    assert [frame for _, frame in port.found] == [b"one", b"two", b"three", b"four"]


def test_answers_reach_their_clients_in_order_and_none_that_is_gone(port: Port) -> None:
    clients = [port.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    port.until(lambda: len(port.found) == 3)
    identities = {int(frame): identity for identity, frame in port.found}
    clients[1].socket.close()
    port.until(lambda: len(port.links._links) == 2)
    sent = [(identities[at], [b"%d of %d" % (number, at) for number in range(5)]) for at in (2, 1, 0)]
    port.links.send_answers(linked(port, sent))
    port.links.send(identities[0], b"last")
    port.links.send(identities[1], b"dropped")
    assert [clients[2].receive() for _ in range(5)] == sent[0][1]
    assert [clients[0].receive() for _ in range(6)] == [*sent[2][1], b"last"]


def linked(port: Port, sent: list[tuple[bytes, list[bytes]]]) -> AnswerBlock:
    """Return a block of answers, with the descriptors of the connections."""
    numbers = [link_number(identity) or 0 for identity, _ in sent]
    links = [port.links._links.get(number) for number in numbers]
    descriptors = [-1 if link is None else link._socket.fileno() for link in links]
    return answers(sent)._replace(
        identities=LinkIdentities(np.array(descriptors, np.int64), np.array(numbers, np.int64))
    )


def test_connection_that_does_not_read_is_not_read_until_it_does(port: Port) -> None:
    stuck, other = port.connect(), port.connect()
    stuck.send(b"hello")
    port.until(lambda: len(port.found) == 1)
    ((identity, _),) = port.found
    count = 0
    while port.links.waiting_bytes <= order_links._BEHIND_BYTES:
        port.links.send_answers(linked(port, [(identity, [count.to_bytes(4, "little") + bytes(64 << 10)])]))
        port.links.send(identity, b"and a reply")
        count += 1
        port.turn()
    stuck.send(b"not read")
    other.send(b"arrives")
    port.until(lambda: len(port.found) == 2)
    for _ in range(20):
        port.turn()
    assert [frame for _, frame in port.found] == [b"hello", b"arrives"]
    for number in range(count):
        assert stuck.receive()[:4] == number.to_bytes(4, "little")
        assert stuck.receive() == b"and a reply"
    port.until(lambda: len(port.found) == 3)
    assert port.found[-1] == (identity, b"not read")
    assert port.links.waiting_bytes == 0
    assert port.links.most_waiting_bytes > order_links._BEHIND_BYTES


def test_connection_with_the_most_unread_answers_is_closed(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_links, "_ALL_BYTES", 1 << 20)
    stuck, other = port.connect(), port.connect()
    stuck.send(b"hello")
    port.until(lambda: len(port.found) == 1)
    other.send(b"hello")
    port.until(lambda: len(port.found) == 2)
    (identity, _), (another, _) = port.found
    while stuck.socket.fileno() >= 0 and link_number(identity) in port.links._links:
        port.links.send(identity, bytes(256 << 10))
        port.links.send(another, b"small")
        port.turn()
    assert port.links.listener.refused[order_links._UNREAD_ANSWERS] == 1
    assert other.receive() == b"small"


@pytest.mark.parametrize("announced", [frames.MAX_FRAME_BYTES + 1, 1 << 31, (1 << 32) - 1])
def test_announced_frame_that_is_too_large_ends_the_connection(port: Port, announced: int) -> None:
    client, other = port.connect(), port.connect()
    client.send(b"first")
    client.send_bytes(announced.to_bytes(4, "little"))
    port.until(lambda: not client.read())
    other.send(b"second")
    port.until(lambda: len(port.found) == 2)
    assert sorted(frame for _, frame in port.found) == [b"first", b"second"]


@pytest.mark.parametrize(
    "hello",
    [
        b"garbage",
        ClientGreeting(Terms(greeting.PEER, greeting.ANY_CLUSTER), None, None, lambda _: True).first(),
        ClientGreeting(Terms(greeting.ORDERS, 1), None, None, lambda _: True).first(),
    ],
    ids=["no greeting", "for another port", "from another cluster"],
)
def test_connection_without_a_valid_greeting_is_closed(port: Port, hello: bytes) -> None:
    client = port.connect(hello)
    client.send(b"a frame")
    port.until(lambda: not client.read())
    assert not port.found


def test_new_connection_gets_no_answer_of_one_that_had_its_descriptor(port: Port) -> None:
    first = port.connect()
    first.send(b"hello")
    port.until(lambda: len(port.found) == 1)
    ((identity, _),) = port.found
    block = linked(port, [(identity, [b"for the first"])])
    first.socket.close()
    port.until(lambda: not port.links._links)
    second = port.connect()
    (link,) = port.links._links.values()
    identities = block.identities
    assert isinstance(identities, LinkIdentities)
    # The system nearly always gives it the same descriptor.
    identities.descriptors[0] = link._socket.fileno()
    port.links.send_answers(block)
    second.send(b"hello")
    port.until(lambda: len(port.found) == 2)
    port.links.send(port.found[1][0], b"for the second")
    assert second.receive() == b"for the second"


def test_keys_are_proven_and_name_the_sender() -> None:
    server, desk = key_files.generate(), key_files.generate()
    port = Port(LinkKeys(server, {}))
    address = f"smrx://127.0.0.1:{port.links.listener.port}"
    client = LinkSocket(address, ClientKeys(desk, {address: (server.public,)}))
    client.send(b"hello")
    port.until(lambda: not client.poll(0) and bool(port.found))
    port.links.send(port.found[0][0], b"answer")
    port.until(lambda: client.poll(0))
    assert client.recv() == b"answer"
    client.close()
    # A node with another key than the expected one is not believed.
    wary = LinkSocket(address, ClientKeys(desk, {address: (desk.public,)}))
    wary.send(b"secret")
    port.until(lambda: wary.poll(0) or wary.was_turned_away)
    assert [frame for _, frame in port.found] == [b"hello"]
    wary.close()
    port.close()
