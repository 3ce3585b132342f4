"""A real node whose feed is abused: nobody who reads too slowly, or asks without end, slows it or the others."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from smrx.config import Config
from smrx.feed import subscriber as subscribing
from smrx.feed.retransmission import Request
from smrx.feed.subscriber import Subscriber
from smrx.local import LocalCluster
from smrx.node.reactor import Node
from smrx.settlement.follower.runner import quorum_for
from smrx.settlement.ledger import Ledger
from smrx.wire import frames
from smrx.wire.codes import TimeInForce
from tests.node.test_reactor import (
    answer,
    assert_accepted,
    buy,
    market,
    opened_account,
    turn_until,
)

#: Each is an entry of the log and a frame of 16 KiB on the feed: 24 MiB, more than what the buffers of the kernel
#: and both high-water marks hold.
FLOWS = 1500
ORDERS = 64


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return LocalCluster(tmp_path, nodes=1).config


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    node = Node(config, 1)
    turn_until(node, lambda: node.replica.is_leader)
    yield node
    node.close()


class Reader:
    """A subscriber that verifies: what a majority published, in order, posted to books."""

    def __init__(self, config: Config) -> None:
        node = config.node(1)
        endpoint = subscribing.Endpoint(1, node.events_address, node.retransmit_address)
        self.subscriber = Subscriber([endpoint], quorum=quorum_for(config, [1]))
        self.books = Ledger()

    def read(self) -> int:
        """Take in what is there; return the last event verified."""
        self.books.post(self.subscriber.poll(0.0))
        return self.books.sequence


class Greedy:
    """Asks for the same thousand events again and again, as fast as the socket takes it."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", config: Config) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.connect(config.node(1).retransmit_address)
        self.answered = 0

    def ask(self) -> None:
        """Ask ten times, more than one turn of a node answers, and take what has come."""
        for _ in range(10):
            try:
                self.socket.send(Request(1, 1, 1000).frame(), zmq.DONTWAIT)
            except zmq.Again:
                break
        while self.socket.poll(0):
            self.answered += frames.decode(self.socket.recv()).count


def flow(first_request: int) -> np.ndarray:
    """Orders that find nobody and expire at once: two events each."""
    rows = np.concatenate([buy(first_request)] * ORDERS)
    rows["request_id"] = np.arange(first_request, first_request + ORDERS)
    rows["tif"] = TimeInForce.IOC
    return rows


def test_who_never_reads_and_who_asks_without_end_slow_nobody(
    node: Node, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    orders = context.socket(zmq.DEALER)
    orders.connect(config.node(1).orders_address)
    healthy, greedy = Reader(config), Greedy(context, config)
    with monkeypatch.context() as patch:
        patch.setattr(subscribing, "_RECEIVE_HIGH_WATER_MARK", 4)
        stuck = Reader(config)
    try:
        # Both hear the node before anything flows: what the stuck one lacks in the end, it has lost.
        turn_until(node, lambda: all((r.read(), r.subscriber.stats.heard_at)[1] for r in (healthy, stuck)))
        assert_accepted(node, orders, opened_account(3), market())
        seen = stuck.books.sequence
        slowest = 0.0
        for i in range(FLOWS):
            greedy.ask()
            started = time.monotonic()
            outcomes = frames.records(answer(node, orders, flow(6 + i * ORDERS)))
            assert outcomes["event_count"].tolist() == [2] * ORDERS
            slowest = max(slowest, time.monotonic() - started)
            healthy.read()
        last = node.state.engine.event_sequence
        assert last >= 2 * ORDERS * FLOWS
        turn_until(node, lambda: healthy.read() == last)
        assert greedy.answered > 1000
        assert stuck.books.sequence == seen
        assert slowest < 5.0, "an order waited for a subscriber"
        greedy.socket.close(linger=0)

        turn_until(node, lambda: stuck.read() == last)
        lost = stuck.subscriber
        assert (lost.feed_stats.gaps >= 1, lost.feed_stats.gaps_healed) == (True, lost.feed_stats.gaps)
        assert lost.stats.retransmitted > 1000
        assert stuck.books.balances() == healthy.books.balances()
        assert stuck.books.balances_digest() == healthy.books.balances_digest()
    finally:
        healthy.subscriber.close()
        stuck.subscriber.close()
        context.destroy(linger=0)
