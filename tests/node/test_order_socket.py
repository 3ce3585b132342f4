"""The order entry port: frames of many connections arrive whole and in order, and their answers go back."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from smrx.client.session import DEFAULT_WINDOW
from smrx.node import libzmq, order_socket
from smrx.node.frame_block import ANSWER_ROW_WORDS, AnswerBlock, FrameBlock
from smrx.node.order_socket import OrderSocket
from smrx.node.principal import EVERYTHING, Principal, Sender
from smrx.wire import frames
from smrx.wire.codes import ALL_PERMISSIONS, Scope

DEADLINE_S = 30.0


class FakeAdmission:
    """Stands for Admission; with keys, the user id says who sends."""

    has_keys = False

    def prepare(self, socket: "zmq.Socket[bytes]", max_message_bytes: int) -> None:
        socket.linger = 0
        socket.maxmsgsize = max_message_bytes

    def principal(self, route: bytes, received: zmq.Frame) -> Principal | None:
        return EVERYTHING

    def principal_of(self, sender: Sender) -> Principal | None:
        assert sender.address == "127.0.0.1"
        return Principal(len(sender.user), ALL_PERMISSIONS, Scope.ALL, 0)


class Port:
    """An order socket, and its clients."""

    def __init__(self, admission: Any) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.orders = OrderSocket(self.context, "tcp://127.0.0.1:*", admission)
        self.address = self.orders.socket.last_endpoint.decode()

    def connect(self, name: bytes = b"") -> "zmq.Socket[bytes]":
        client = self.context.socket(zmq.DEALER)
        client.linger = 0
        if name:
            client.routing_id = name
        client.connect(self.address)
        return client

    def receive(self, count: int) -> list[tuple[bytes, bytes]]:
        """Return the next frames with their identities."""
        found: list[tuple[bytes, bytes]] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < count:
            assert time.monotonic() < deadline, f"only {len(found)} of {count} frames arrived"
            if self.orders.has_more or self.orders.socket.poll(100):
                found += contents(self.orders.receive())
        return found


def contents(block: FrameBlock | None) -> list[tuple[bytes, bytes]]:
    if block is None:
        return []
    return [(block.senders.identities[row[2]], block.frame(at)) for at, row in enumerate(block.rows.tolist())]


def answers(frames_of: list[tuple[bytes, list[bytes]]]) -> AnswerBlock:
    rows, data = [], b""
    for sender, (_, sent) in enumerate(frames_of):
        for frame in sent:
            rows.append((len(data), len(frame), sender))
            data += frame
    return AnswerBlock(
        np.frombuffer(bytearray(data), np.uint8),
        np.array(rows, np.int64).reshape(-1, ANSWER_ROW_WORDS),
        [identity for identity, _ in frames_of],
    )


@pytest.fixture(params=["compiled", "one by one"])
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    if request.param == "one by one":
        monkeypatch.setattr(libzmq, "functions", lambda: None)
    made = Port(FakeAdmission())
    yield made
    made.context.destroy(linger=0)


def test_frames_of_many_connections_arrive_in_order_under_their_senders(port: Port) -> None:
    clients = {
        bytes((65 + number,)) * 3: port.connect(b"" if number % 2 else b"name %d" % number) for number in range(40)
    }
    sizes = (0, 1, 31, 32, 96, 5000)
    for number in range(60):
        for mark, client in clients.items():
            client.send(mark + number.to_bytes(2, "little") + bytes(sizes[number % len(sizes)]))
    received: dict[bytes, list[bytes]] = {}
    for identity, frame in port.receive(60 * len(clients)):
        received.setdefault(identity, []).append(frame)
    assert len(received) == len(clients)
    for sent in received.values():
        mark = sent[0][:3]
        assert sent == [mark + n.to_bytes(2, "little") + bytes(sizes[n % len(sizes)]) for n in range(60)]
    assert {b"name %d" % number for number in range(0, 40, 2)} <= received.keys()


def test_large_frames_arrive_whole_over_several_turns(port: Port) -> None:
    client = port.connect()
    sent = [bytes([number]) * (frames.MAX_FRAME_BYTES - number) for number in range(12)]
    received = []
    for frame in sent:
        client.send(frame)
    received = [frame for _, frame in port.receive(len(sent))]
    assert received == sent


def test_message_of_several_parts_is_a_malformed_frame(port: Port) -> None:
    client = port.connect()
    client.send_multipart([b"", b"request"])
    client.send_multipart([b"one", b"two", b"three"])
    client.send(b"plain")
    assert [frame for _, frame in port.receive(3)] == [b"", b"", b"plain"]


def test_answers_reach_their_clients_in_order(port: Port) -> None:
    clients = [port.connect(), port.connect(b"a name")]
    for client in clients:
        client.send(b"hello")
    identities = dict.fromkeys(identity for identity, _ in port.receive(2))
    sent = [(identity, [b"%d of " % number + identity for number in range(5)]) for identity in identities]
    gone = (b"\0gone", [b"no client reads this"])
    port.orders.send_answers(answers([sent[0], gone, sent[1]]))
    port.orders.send(sent[0][0], b"last")
    received = []
    for client in clients:
        for _ in range(5):
            assert client.poll(10_000)
            received.append(client.recv())
    assert sorted(received) == sorted(frame for _, part in sent for frame in part)
    assert [frame[:1] for frame in received] == 2 * [b"0", b"1", b"2", b"3", b"4"]


def test_answers_beyond_what_a_connection_takes_wait_and_arrive(port: Port) -> None:
    client = port.connect()
    client.send(b"hello")
    ((identity, _),) = port.receive(1)
    count = 10 * order_socket.BOUNDS.messages
    port.orders.send_answers(answers([(identity, [number.to_bytes(4, "little") for number in range(count)])]))
    port.orders.send(identity, b"last")
    received: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_S
    while not received or received[-1] != b"last":
        assert time.monotonic() < deadline
        port.orders.flush()
        while client.poll(0):
            received.append(client.recv())
    assert received == [*(number.to_bytes(4, "little") for number in range(count)), b"last"]


def test_frames_of_a_client_that_does_not_read_are_dropped(port: Port) -> None:
    stuck, other = port.connect(b"stuck"), port.connect(b"other")
    stuck.send(b"hello")
    port.receive(1)
    deadline = time.monotonic() + DEADLINE_S
    while not port.orders.outbox.is_behind(b"stuck"):
        assert time.monotonic() < deadline
        port.orders.send_answers(answers([(b"stuck", [bytes(64 << 10)] * 8)]))
    stuck.send(b"dropped")
    other.send(b"arrives")
    assert port.receive(1) == [(b"other", b"arrives")]
    # It reads, and is served again.
    while port.orders.outbox.is_behind(b"stuck"):
        assert time.monotonic() < deadline
        port.orders.flush()
        while stuck.poll(0):
            stuck.recv()
    stuck.send(b"served again")
    assert port.receive(1)[-1] == (b"stuck", b"served again")


def test_senders_are_told_apart_by_their_keys() -> None:
    admission = FakeAdmission()
    admission.has_keys = True
    port = Port(admission)
    context = port.context
    # NULL connections have no user id: the handler of the domain gives them one.
    zap = context.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    port.orders.socket.close()
    port.orders.socket = context.socket(zmq.ROUTER)
    port.orders.socket.zap_domain = b"clients"
    port.address = f"tcp://127.0.0.1:{port.orders.socket.bind_to_random_port('tcp://127.0.0.1')}"
    port.orders._prepare_buffers(libzmq.functions() or {})
    clients = [port.connect(b"one"), port.connect(b"two")]
    for number, client in enumerate(clients):
        client.send(b"from %d" % number)
        request = zap.recv_multipart()
        zap.send_multipart([b"1.0", request[1], b"200", b"OK", b"user" * (number + 1), b""])
    found: dict[bytes, Principal | None] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < 2:
        assert time.monotonic() < deadline
        if port.orders.socket.poll(100):
            block = port.orders.receive()
            assert block is not None
            found |= dict(zip(block.senders.identities, block.senders.principals, strict=True))
    assert {name: principal.credential for name, principal in found.items() if principal} == {b"one": 4, b"two": 8}
    context.destroy(linger=0)


def test_window_of_lone_orders_that_is_answered_at_once_leaves_its_client_served(port: Port) -> None:
    client = port.connect()
    client.send(b"hello")
    ((identity, _),) = port.receive(1)
    window = 4 * DEFAULT_WINDOW
    port.orders.send_answers(answers([(identity, [bytes(96)] * window)]))
    client.send(b"the next order")
    assert port.receive(1) == [(identity, b"the next order")]
