"""Attacks on the events port of a real node: its memory stays, and an honest client is served beside each of them.

`python -m cluster siege` runs the full attacks; these are small ones.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from smrx import Client
from smrx.client import ClientError, market_file
from smrx.feed.retransmission import Request
from smrx.feed.subscription import MAX_CREDIT, Subscription, credit_frame
from smrx.local import LocalCluster
from smrx.wire import frames
from smrx.wire.frames import FrameKind

DEMO = Path(__file__).resolve().parent.parent.parent / "configs/markets/demo.toml"
MIB = 1 << 20
#: What a node may grow by in a test besides what the attack is allowed: its ring fills with the client's events.
SLACK = 24 * MIB

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not show memory")


class Target:
    """A node as a process, and an honest client that places and cancels orders in a thread."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.address = cluster.config.node(1).events_address
        self.answered = 0
        self._stopping = threading.Event()
        self._errors: list[ClientError] = []

    def memory(self) -> int:
        """Return the resident memory of the node in bytes."""
        status = Path(f"/proc/{self.cluster.process(1).pid}/status").read_text(encoding="ascii")
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    @contextmanager
    def honest_client(self) -> Iterator[None]:
        """Place orders meanwhile; every call must succeed."""

        def work() -> None:
            try:
                with Client(self.cluster.config, account=7, timeout=60.0) as client:
                    while not self._stopping.is_set():
                        client.place_limit("BTC-USD", "buy", "100.00", "0.1", tif="IOC")
                        self.answered += 1
            except ClientError as error:
                self._errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(30.0)
        assert not self._errors, self._errors

    def served(self, orders: int) -> Callable[[], bool]:
        """Return a condition: so many further orders of the honest client were answered."""
        wanted = self.answered + orders
        return lambda: self.answered >= wanted


def wait_for(condition: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        meanwhile()
        threading.Event().wait(0.001)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("attacks"), nodes=1) as cluster:
        cluster.wait_leader()
        with Client(cluster.config) as venue:
            venue.apply_market(market_file.load(DEMO))
        # Events to ask for.
        with Client(cluster.config, account=7) as client:
            for _ in range(2000):
                client.place_limit("BTC-USD", "buy", "100.00", "0.1", tif="IOC")
        yield cluster


def term(cluster: LocalCluster) -> int:
    return cluster.wait_for(lambda: cluster.statuses().get(1), 60, "the status of the node").term


@pytest.fixture
def target(cluster: LocalCluster) -> Iterator[Target]:
    target = Target(cluster)
    before = term(cluster)
    with target.honest_client():
        wait_for(target.served(10))
        yield target
        wait_for(target.served(10))
    assert term(cluster) == before, "the node was deposed"


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def dealer(context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> "zmq.Socket[bytes]":
    found = context.socket(zmq.DEALER)
    found.linger = 0
    found.connect(address)
    return found


def zmtp(address: str, kind: bytes) -> socket.socket:
    """Return a TCP connection that has sent the handshake of a ZeroMQ socket of this kind."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    body = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    connection.sendall(bytes([4, len(body)]) + body)
    return connection


@pytest.mark.parametrize("kind", [b"SUB", b"DEALER"])
def test_message_of_a_gibibyte_is_cut_off(target: Target, kind: bytes) -> None:
    before = target.memory()
    sent = 0
    with zmtp(target.address, kind) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"\x02" + (1 << 30).to_bytes(8, "big"))
        while sent < 256 * MIB:
            connection.sendall(bytes(MIB))
            sent += MIB
    assert sent < 256 * MIB, "the node took the whole message"
    assert target.memory() - before < SLACK


def test_subscriptions_without_end_cost_no_memory(target: Target, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """16 MiB of subscriptions, each to other accounts."""
    before = target.memory()
    attacker = dealer(context, target.address)
    number = 0

    def subscribe() -> None:
        nonlocal number
        while attacker.poll(0):
            attacker.recv()
        with contextlib.suppress(zmq.Again):
            for _ in range(100):
                accounts = frozenset(range(number * 1024, number * 1024 + 1024))
                attacker.send(Subscription(0, MAX_CREDIT, accounts).frame(), zmq.DONTWAIT)
                number += 1

    wait_for(lambda: number * 4096 >= 16 * MIB, subscribe)
    wait_for(target.served(20), subscribe)
    assert target.memory() - before < SLACK


def test_requests_without_end_are_limited(target: Target, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Retransmission and digests as fast as the socket takes requests, and garbage beside them."""
    before = target.memory()
    attackers = [dealer(context, target.address) for _ in range(4)]
    for attacker in attackers:
        attacker.send(Subscription(0).frame())
    received = 0

    def attack() -> None:
        nonlocal received
        for attacker in attackers:
            with contextlib.suppress(zmq.Again):
                for request in (
                    Request(1, 1, 4000).frame(), Request(1, 1, 4000, digest=True).frame(), credit_frame(MAX_CREDIT),
                    b"garbage", frames.encode(FrameKind.PING),
                ):  # fmt: skip
                    attacker.send(request, zmq.DONTWAIT)
            while attacker.poll(0):
                received += len(attacker.recv())

    started = time.monotonic()
    wait_for(target.served(50), attack)
    seconds = time.monotonic() - started
    assert received > 0
    # The rate of all subscribers together, with what was queued before.
    assert received <= 192 * MIB * seconds + 16 * MIB
    assert target.memory() - before < SLACK


def test_readers_that_read_nothing_cost_a_few_frames(target: Target, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Four subscribers that claim to read everything, and read nothing, ask for the same events all the time."""
    before = target.memory()
    attackers = []
    for _ in range(4):
        attacker = context.socket(zmq.DEALER)
        attacker.linger = 0
        attacker.rcvhwm = 1
        attacker.rcvbuf = 4096
        attacker.connect(target.address)
        attacker.send(Subscription(1).frame())
        attackers.append(attacker)

    def attack() -> None:
        for attacker in attackers:
            with contextlib.suppress(zmq.Again):
                attacker.send(Request(1, 1, 4000).frame(), zmq.DONTWAIT)
                attacker.send(credit_frame(MAX_CREDIT), zmq.DONTWAIT)

    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > 2.0 and target.answered > 100, attack)
    assert target.memory() - before < SLACK + 4 * 2 * MIB
