"""The subscriber over real sockets: loss, late join, restarts, several nodes, garbage."""

import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.config import Config, ConfigError
from smrx.feed.feed_errors import FeedConflict, GapUnfillable
from smrx.feed.sequencer import Sequencer
from smrx.feed.subscriber import Subscriber
from smrx.wire import frames
from smrx.wire.frames import FrameKind
from smrx.wire.records import EVENT
from tests.feed.streams import numbered
from tests.feed.stub import TIMEOUT_S, StubNode


def gather(subscriber: Subscriber, last: int) -> NDArray[np.void]:
    """Poll until event `last` is delivered; return everything delivered."""
    batches = [np.empty(0, EVENT)]
    wait_until(subscriber, lambda: bool(sum(map(len, batches))) and int(batches[-1]["sequence"][-1]) >= last, batches)
    return np.concatenate(batches)


def wait_until(
    subscriber: Subscriber, condition: Callable[[], bool], batches: list[NDArray[np.void]] | None = None
) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{subscriber.sequencer.stats}, {subscriber.stats}"
        events = subscriber.poll(0.05)
        if len(events) and batches is not None:
            batches.append(events)


def connected(nodes: Iterable[StubNode], from_sequence: int = 1) -> Subscriber:
    nodes = list(nodes)
    subscriber = Subscriber([node.endpoint for node in nodes], from_sequence=from_sequence)
    wait_subscribed(subscriber, nodes)
    return subscriber


def wait_subscribed(subscriber: Subscriber, nodes: Iterable[StubNode]) -> None:
    """Return once the nodes have the subscription; what they send meanwhile is kept for the next poll."""
    deadline = time.monotonic() + TIMEOUT_S
    for node in nodes:
        while not node.is_subscribed():
            assert time.monotonic() < deadline
            subscriber.listen(0.01)
        node.wait_subscribed()


def test_published_events_arrive() -> None:
    with StubNode() as node, connected([node]) as subscriber:
        for first in range(1, 301, 3):
            node.publish(numbered(first, first + 2))
        assert gather(subscriber, 300).tobytes() == numbered(1, 300).tobytes()
        assert node.requests == []
        assert 1 in subscriber.stats.heard_at


def test_poll_returns_nothing_after_its_timeout() -> None:
    with StubNode() as node, connected([node]) as subscriber:
        started = time.monotonic()
        assert len(subscriber.poll(0.1)) == 0
        assert time.monotonic() - started >= 0.1
        assert len(subscriber.poll(0)) == 0


def test_lost_frame_is_healed_by_retransmission() -> None:
    with StubNode() as node, connected([node]) as subscriber:
        node.publish(numbered(1, 10))
        node.publish(numbered(11, 20), lose=True)
        node.publish(numbered(21, 30))
        assert gather(subscriber, 30).tobytes() == numbered(1, 30).tobytes()
        assert node.requests == [(11, 20)]
        assert subscriber.feed_stats.gaps_healed == 1
        assert subscriber.stats.retransmitted == 10


def test_loss_at_the_end_is_found_by_the_heartbeat() -> None:
    with StubNode() as node, connected([node]) as subscriber:
        node.publish(numbered(1, 10))
        node.publish(numbered(11, 12), lose=True)
        assert gather(subscriber, 10)["sequence"].tolist() == list(range(1, 11))
        node.heartbeat()
        assert gather(subscriber, 12).tobytes() == numbered(11, 12).tobytes()


def test_late_join_starts_at_the_first_event() -> None:
    """The history is longer than one answer, and than the window."""
    count = 150_000
    with StubNode(ring=count) as node:
        for first in range(1, count, 5000):
            node.publish(numbered(first, first + 4999))
        with connected([node]) as subscriber:
            node.heartbeat()
            assert gather(subscriber, count).tobytes() == numbered(1, count).tobytes()
            assert subscriber.feed_stats.gaps == 0


def test_late_join_from_a_sequence() -> None:
    with StubNode() as node:
        node.publish(numbered(1, 100))
        with connected([node], from_sequence=41) as subscriber:
            node.publish(numbered(101, 102))
            assert gather(subscriber, 102).tobytes() == numbered(41, 102).tobytes()
            assert node.requests == [(41, 100)]


def test_unfillable_gap_names_range_and_node() -> None:
    with StubNode(node=3) as node, connected([node]) as subscriber:
        node.publish(numbered(1, 10))
        assert len(gather(subscriber, 10)) == 10
        node.publish(numbered(11, 20), lose=True)
        node.forget()
        node.publish(numbered(21, 30))
        with pytest.raises(GapUnfillable, match=r"events 11 to 20 .* node 3: holds 21 to 30"):
            gather(subscriber, 30)


def test_nodes_that_never_answer_end_with_the_gap_timeout() -> None:
    with StubNode(node=1) as one, StubNode(node=2) as two:
        one.answering = two.answering = False
        endpoints = [one.endpoint, two.endpoint]
        sequencer = Sequencer([1, 2], request_timeout_s=0.05, gap_timeout_s=0.5)
        with Subscriber(endpoints, sequencer=sequencer) as subscriber:
            wait_subscribed(subscriber, [one, two])
            one.heartbeat(5)
            with pytest.raises(GapUnfillable, match=r"node 2: asked [0-9]+ times, no answer"):
                gather(subscriber, 4)
            assert set(one.requests) == set(two.requests) == {(1, 4)}


def test_time_of_a_busy_consumer_does_not_count_as_silence() -> None:
    with StubNode() as node:
        node.answering = False
        sequencer = Sequencer([1], request_timeout_s=0.05, gap_timeout_s=0.3)
        with Subscriber([node.endpoint], sequencer=sequencer) as subscriber:
            wait_subscribed(subscriber, [node])
            node.publish(numbered(1, 10), lose=True)
            node.publish(numbered(11, 20))
            wait_until(subscriber, lambda: bool(node.requests))
            # The consumer is busy with something else for longer than the gap timeout.
            assert not threading.Event().wait(0.5)
            node.answering = True
            assert gather(subscriber, 20).tobytes() == numbered(1, 20).tobytes()


def test_another_node_fills_the_gap() -> None:
    with StubNode(node=1) as one, StubNode(node=2) as two, connected([one, two]) as subscriber:
        for node in (one, two):
            node.publish(numbered(1, 10), lose=True)
        one.forget()
        one.publish(numbered(11, 12))
        assert gather(subscriber, 12).tobytes() == numbered(1, 12).tobytes()
        assert two.requests == [(1, 10)]


def test_copies_of_several_nodes_are_delivered_once() -> None:
    with StubNode(node=1) as one, StubNode(node=2) as two, connected([one, two]) as subscriber:
        for first in range(1, 101, 10):
            one.publish(numbered(first, first + 9), lose=first == 31)
            two.publish(numbered(first, first + 9), lose=first == 61)
        batches = [np.empty(0, EVENT)]
        wait_until(subscriber, lambda: subscriber.feed_stats.duplicates >= 80, batches)
        assert np.concatenate(batches).tobytes() == numbered(1, 100).tobytes()


def test_stream_continues_after_a_node_dies() -> None:
    with StubNode(node=2) as two:
        one = StubNode(node=1)
        with connected([one, two]) as subscriber:
            for node in (one, two):
                node.publish(numbered(1, 10))
            assert len(gather(subscriber, 10)) == 10
            one.close()
            two.publish(numbered(11, 20), lose=True)
            two.publish(numbered(21, 30))
            assert gather(subscriber, 30).tobytes() == numbered(11, 30).tobytes()


def test_stream_continues_after_the_publisher_restarts() -> None:
    first = StubNode()
    with connected([first]) as subscriber:
        first.publish(numbered(1, 10))
        assert len(gather(subscriber, 10)) == 10
        first.close()
        with StubNode(port=first.port) as second:
            # The socket subscribes again when it is polled.
            wait_until(subscriber, second.is_subscribed)
            # A node that restarts applies and publishes its log again.
            second.publish(numbered(1, 15))
            second.publish(numbered(16, 18), lose=True)
            second.publish(numbered(19, 20))
            assert gather(subscriber, 20).tobytes() == numbered(11, 20).tobytes()
            assert second.requests == [(16, 18)]


def test_duplicates_and_reordering_are_repaired() -> None:
    with StubNode() as node, connected([node]) as subscriber:
        node.publish(numbered(1, 30), lose=True)
        for first in (1, 21, 1, 11, 11, 21):
            node.send(frames.encode_events(numbered(first, first + 9), 0, 0))
        node.heartbeat()
        assert gather(subscriber, 30).tobytes() == numbered(1, 30).tobytes()
        wait_until(subscriber, lambda: subscriber.feed_stats.duplicates >= 30)


def test_garbage_is_counted_and_ignored() -> None:
    good = frames.encode_events(numbered(1, 2), 0, 0)
    garbage = [
        (b"",),
        (b"hello",),
        (good[:-1],),
        (good + b"\0",),
        (b"X" + good[1:],),
        (good, good),
        (frames.encode(FrameKind.PING),),
        (frames.encode_events(numbered(2, 3)[::-1], 0, 0),),
        (b"\xff" * 500,),
    ]
    with StubNode() as node, connected([node]) as subscriber:
        for parts in garbage:
            node.send(*parts)
        node.publish(numbered(1, 10))
        assert gather(subscriber, 10).tobytes() == numbered(1, 10).tobytes()
        assert subscriber.stats.garbage == len(garbage)
        assert "node 1: expected magic" in subscriber.stats.last_garbage


def test_slow_subscriber_heals_what_was_dropped() -> None:
    """What its sockets cannot hold is dropped, noticed by sequence, and retransmitted."""
    # 12,000 frames, some 40 MB: ZeroMQ holds 5,096 on both sides of a connection, a kernel up to 10 MB of them.
    count, at_once = 300_000, 25
    with StubNode(ring=1 << 19) as node, connected([node]) as subscriber:
        node.publish(numbered(1, 10))
        assert len(gather(subscriber, 10)) == 10
        started = time.monotonic()
        for first in range(11, count, at_once):
            node.publish(numbered(first, first + at_once - 1))
        assert time.monotonic() - started < TIMEOUT_S
        last, batches = node.ring.newest, [np.empty(0, EVENT)]

        def healed() -> bool:
            node.heartbeat()
            return subscriber.sequencer.expected > last

        wait_until(subscriber, healed, batches)
        assert np.concatenate(batches).tobytes() == numbered(11, last).tobytes()
        assert subscriber.feed_stats.gaps == subscriber.feed_stats.gaps_healed >= 1
        assert subscriber.stats.retransmitted > 1000


def test_conflicting_copies_raise() -> None:
    with StubNode(node=1) as one, StubNode(node=2) as two, connected([one, two]) as subscriber:
        one.publish(numbered(1, 10))
        assert len(gather(subscriber, 10)) == 10
        forged = numbered(1, 10)
        forged["price_ticks"][6] += 1
        two.publish(forged)
        with pytest.raises(FeedConflict, match="event 7: node 2 sent price_ticks 101, node 1 sent 100"):
            gather(subscriber, 11)


def test_members_are_selected_by_id() -> None:
    config = Config()
    with Subscriber.from_config(config, [3, 1]) as subscriber:
        assert [endpoint.node for endpoint in subscriber.endpoints] == [3, 1]
        assert subscriber.endpoints[0].events_address == config.node(3).events_address
    with pytest.raises(ConfigError, match="its nodes are 1, 2, 3"):
        Subscriber.from_config(config, [4])
