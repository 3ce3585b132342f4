"""A node under abuse of its feed: a subscriber that reads too slowly or requests without end slows no other client."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from smrx.config import Config
from smrx.feed import subscriber as subscribing
from smrx.feed.retransmission import Request
from smrx.feed.subscriber import Subscriber
from smrx.feed.subscription import MAX_CREDIT, Subscription, credit_frame
from smrx.follower.runner import quorum_for
from smrx.local import LocalCluster
from smrx.node.reactor import Node
from smrx.settlement.ledger import Ledger
from smrx.wire import frames
from smrx.wire.codes import TimeInForce
from smrx.wire.command_list import CommandList
from tests.node.test_reactor import (
    answer,
    assert_accepted,
    buy,
    market,
    opened_account,
    turn_until,
)

#: Batches of orders. Each is a log entry and a frame of 16 KiB: 24 MiB together, more than the credit of a subscriber.
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
    """A subscriber that posts attested events to books."""

    def __init__(self, config: Config) -> None:
        node = config.node(1)
        endpoint = subscribing.Endpoint(1, node.events_address)
        self.subscriber = Subscriber([endpoint], quorum=quorum_for(config, [1]))
        self.books = Ledger()

    def read(self) -> int:
        """Read the waiting events; return the last one attested."""
        self.books.post(self.subscriber.poll(0.0))
        return self.books.sequence


class Greedy:
    """Requests the same events repeatedly, as fast as the socket accepts it, with all the credit it can get."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", config: Config) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.connect(config.node(1).events_address)
        self.socket.send(Subscription(0).frame())
        self.answered = 0

    def ask(self) -> None:
        """Send requests, more than a turn of the node answers, and read the answers that have arrived."""
        for _ in range(10):
            try:
                self.socket.send(Request(1, 1, 1000).frame(), zmq.DONTWAIT)
                self.socket.send(credit_frame(MAX_CREDIT), zmq.DONTWAIT)
            except zmq.Again:
                break
        while self.socket.poll(0):
            self.answered += frames.decode(self.socket.recv()).count


def flow(first_request: int) -> CommandList:
    """Return orders that match nothing and are cancelled at once: two events each."""
    rows = np.concatenate([buy(first_request).records] * ORDERS)
    rows["request_id"] = np.arange(first_request, first_request + ORDERS)
    rows["tif"] = TimeInForce.IOC
    return CommandList(rows)


def test_silent_and_greedy_subscribers_do_not_slow_orders(node: Node, config: Config) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    orders = context.socket(zmq.DEALER)
    orders.connect(config.node(1).orders_address)
    healthy, greedy, stuck = Reader(config), Greedy(context, config), Reader(config)
    try:
        # Both are subscribed before any order is sent.
        turn_until(node, lambda: all((r.read(), r.subscriber.stats.heard_at)[1] for r in (healthy, stuck)))
        assert_accepted(node, orders, opened_account(3), market())
        seen = stuck.books.sequence
        for i in range(FLOWS):
            greedy.ask()
            outcomes = frames.records(answer(node, orders, flow(6 + i * ORDERS)))
            assert outcomes["event_count"].tolist() == [2] * ORDERS
            healthy.read()
        last = node.state.engine.event_sequence
        assert last >= 2 * ORDERS * FLOWS
        turn_until(node, lambda: healthy.read() == last)
        assert greedy.answered > 1000
        assert stuck.books.sequence == seen
        greedy.socket.close(linger=0)

        turn_until(node, lambda: stuck.read() == last)
        # What it did not read stayed in the ring of the node.
        assert stuck.subscriber.feed_stats.gaps == stuck.subscriber.feed_stats.gaps_healed
        assert stuck.books.balances() == healthy.books.balances()
        assert stuck.books.balances_digest() == healthy.books.balances_digest()
    finally:
        healthy.subscriber.close()
        stuck.subscriber.close()
        context.destroy(linger=0)
