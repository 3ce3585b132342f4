"""The quorum releases what a majority has published, frame by frame, without sockets or a clock."""

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.feed.anchor import Anchor
from smrx.feed.feed_errors import Disagreement
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.node.event_ring import EventRing
from smrx.wire import frames
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import Claim, FeedPosition, Frame, FrameKind
from tests.feed.ring_answers import answer_request
from tests.feed.streams import numbered

Events = NDArray[np.void]


def quorum(nodes: int = 3, members: int = 3, **options: object) -> Quorum:
    ids = list(range(1, nodes + 1))
    return Quorum(Sequencer(ids), ids, members, **options)  # type: ignore[arg-type]


def published(first: int, last: int, state_hash: int = 7, salt: int = 0) -> Frame:
    """One entry as a node publishes it; each event is a command of its own."""
    return frames.decode(frames.encode_events(numbered(first, last, salt), last, state_hash))


def heartbeat(last: int, state_hash: int = 7) -> Frame:
    position = FeedPosition(last + 1, Claim(last, state_hash), Digest(0, 0))
    return frames.decode(frames.encode_heartbeat(position))


def released(q: Quorum, now: float = 0.0) -> list[int]:
    sequences: list[int] = q.take(now)["sequence"].tolist()
    return sequences


class Node:
    """Answers the quorum's requests from a ring."""

    def __init__(self, events: Events, state_hash: int = 7) -> None:
        self.ring = EventRing(1 << 16)
        self.ring.append(events)
        self.state_hash = state_hash

    def answers(self, request: bytes) -> list[Frame]:
        return [
            frames.decode(reply)
            for reply in answer_request(self.ring, frames.decode(request), lambda _: self.state_hash)
        ]


def ask(q: Quorum, nodes: dict[int, Node], now: float) -> None:
    """Answer every request that is due."""
    for request in q.sequencer.requests(now):
        for frame in nodes[request.node].answers(request.frame()):
            q.receive(request.node, frame, now)
    for request in q.requests(now):
        if request.node in nodes:
            for frame in nodes[request.node].answers(request.frame()):
                q.receive(request.node, frame, now)


def test_two_of_three_nodes_release_events_and_one_does_not() -> None:
    q = quorum()
    q.receive(1, published(1, 10), 0.0)
    assert released(q) == []
    assert (q.unverified, q.attested_by) == (10, [])
    q.receive(3, published(1, 10), 0.0)
    assert released(q) == list(range(1, 11))
    assert (q.unverified, q.attested_by, q.hash_after(10)) == (0, [1, 3], 7)


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority_counts_all_members(members: int, needed: int) -> None:
    with pytest.raises(ValueError, match=f"expected at least {needed} of {members} nodes"):
        quorum(needed - 1, members)
    q = quorum(needed, members)
    for node in range(1, needed + 1):
        assert released(q) == []
        q.receive(node, published(1, 3), 0.0)
    assert released(q) == [1, 2, 3]


def test_equal_copies_without_equal_state_hashes_are_not_released() -> None:
    q = quorum()
    q.receive(1, published(1, 10, state_hash=0), 0.0)
    q.receive(2, frames.decode(frames.encode_events(numbered(1, 10), 0, 0)), 0.0)
    assert released(q) == []
    q.receive(1, heartbeat(10), 0.0)
    assert released(q) == []
    q.receive(2, heartbeat(10), 0.0)
    assert released(q) == list(range(1, 11))


def test_equal_state_hashes_without_equal_copies_are_not_released() -> None:
    q = quorum()
    q.receive(1, published(1, 10), 0.0)
    q.receive(2, heartbeat(10), 0.0)
    assert released(q) == []
    ask(q, {2: Node(numbered(1, 10))}, 0.1)
    assert released(q) == list(range(1, 11))


def test_differing_digest_is_compared_event_by_event() -> None:
    forged = numbered(1, 10)
    forged["price_ticks"][4] += 1
    q = quorum(2, 2)
    q.receive(1, published(1, 10), 0.0)
    q.receive(2, heartbeat(10), 0.0)
    node = Node(forged)
    assert released(q) == []
    ask(q, {2: node}, 0.1)
    assert released(q, 0.1) == []
    with pytest.raises(Disagreement, match="event 5: node 2 sent price_ticks"):
        ask(q, {2: node}, 0.2)
    assert [(d.node, d.sequence, d.field) for d in q.dissents] == [(2, 5, "price_ticks")]


def test_first_copy_is_replaced_by_the_majoritys() -> None:
    q = quorum()
    q.receive(1, published(1, 10, salt=1), 0.0)
    q.receive(2, published(1, 10), 0.0)
    assert released(q) == []
    q.receive(3, published(1, 10), 0.0)
    assert q.excluded == [1]
    nodes = {2: Node(numbered(1, 10)), 3: Node(numbered(1, 10))}
    out: list[int] = []
    for turn in range(1, 6):
        ask(q, nodes, float(turn))
        events = q.take(float(turn))
        out += events["sequence"].tolist()
        assert not len(events) or events["quantity_lots"].tolist() == [1] * len(events)
    assert out == list(range(1, 11))
    assert [d.node for d in q.dissents] == [2, 3, 1]


def test_three_different_copies_are_a_disagreement() -> None:
    q = quorum()
    q.receive(1, published(1, 10, salt=1), 0.0)
    q.receive(2, published(1, 10, salt=2), 0.0)
    q.receive(3, published(1, 10, salt=3), 0.0)
    q.receive(2, published(1, 10, salt=2), 0.0)
    with pytest.raises(Disagreement):
        q.receive(3, published(1, 10, salt=3), 0.0)


def test_late_dissent_does_not_stop_the_release() -> None:
    q = quorum()
    for node in (1, 2):
        q.receive(node, published(1, 10), 0.0)
    assert len(released(q)) == 10
    q.receive(3, published(1, 10, salt=1), 0.0)
    assert q.excluded == [3]
    for node in (1, 2, 3):
        q.receive(node, published(11, 20), 0.0)
    assert len(released(q)) == 10


def test_command_is_released_whole() -> None:
    events = numbered(1, 9)
    events["command_sequence"] = [1, 2, 2, 2, 2, 2, 2, 3, 3]
    q = quorum(2, 2)
    out: list[list[int]] = []
    for first, last, claim in ((1, 4, (0, 0)), (5, 6, (0, 0)), (7, 9, (3, 7))):
        for node in (1, 2):
            q.receive(node, frames.decode(frames.encode_events(events[first - 1 : last], *claim)), 0.0)
        if first == 1:
            for node in (1, 2):
                q.receive(node, heartbeat(3), 0.0)
        out.append(released(q))
    assert out == [[1], [], [2, 3, 4, 5, 6, 7, 8, 9]]


def test_pending_events_are_bounded_and_released_later() -> None:
    q = quorum(pending=16)
    events = numbered(1, 100)
    nodes = {1: Node(events), 2: Node(events)}
    for first in range(1, 101, 10):
        q.receive(1, published(first, first + 9), 0.0)
    assert released(q) == []
    assert q.unverified == 16
    assert q.sequencer.requests(0.0) == []
    q.receive(2, heartbeat(100), 0.0)
    q.receive(1, heartbeat(100), 0.0)
    out: list[int] = []
    for turn in range(100):
        ask(q, nodes, float(turn))
        out += released(q, float(turn))
    assert out == list(range(1, 101))


def test_silent_node_counts_again_when_it_sends() -> None:
    """Node 3 is gone for a while; then it is one of the two that are left."""
    events = numbered(1, 40)
    q = quorum()
    for node in (1, 2, 3):
        q.receive(node, published(1, 10), 0.0)
    for node in (1, 2):
        q.receive(node, published(11, 20), 60.0)
    assert (released(q, 60.0), q.attested_by) == (list(range(1, 21)), [1, 2])
    for node in (2, 3):
        q.receive(node, published(21, 30), 120.0)
    assert (released(q, 120.0), q.attested_by) == (list(range(21, 31)), [2, 3])
    # A node that returns in the middle of what another has published sends a digest of what came before.
    q.receive(2, published(31, 35), 180.0)
    q.receive(2, published(36, 40), 180.0)
    q.receive(1, published(36, 40), 240.0)
    assert released(q, 240.0) == []
    ask(q, {1: Node(events)}, 241.0)
    assert (released(q, 241.0), q.attested_by, q.excluded) == (list(range(31, 41)), [1, 2], [])


def test_node_without_old_events_counts_for_later_ones() -> None:
    """It holds nothing before event 15: the other nodes attest that, and this one counts for what follows."""
    q = quorum()
    late = Node(numbered(1, 20))
    late.ring.restart(15)
    late.ring.append(numbered(15, 20))
    q.receive(1, published(1, 20), 0.0)
    q.receive(3, published(15, 20), 0.0)
    for turn in range(3):
        ask(q, {3: late}, float(turn))
        assert released(q, float(turn)) == []
    q.receive(2, published(1, 14), 10.0)
    q.receive(2, heartbeat(14), 10.0)
    assert released(q, 10.0) == list(range(1, 15))
    ask(q, {3: late}, 11.0)
    assert (released(q, 11.0), q.attested_by) == (list(range(15, 21)), [1, 3])


def test_node_that_contradicted_stays_excluded() -> None:
    q = quorum()
    for node, state_hash in ((1, 7), (2, 7), (3, 8)):
        q.receive(node, published(1, 10, state_hash=state_hash), 0.0)
    assert (released(q), q.excluded) == (list(range(1, 11)), [3])
    for node in (2, 3):
        q.receive(node, published(11, 20), 60.0)
    assert (released(q, 60.0), q.excluded) == ([], [3])


def test_known_ends_of_dropped_events_are_bounded() -> None:
    q = Quorum(Sequencer([1, 2, 3], ahead=8), [1, 2, 3], 3, pending=16)
    for last in range(1, 10_001):
        q.receive(1, published(last, last), 0.0)
        released(q)
    assert len(q._pending._ends) <= 16 + 8


def test_feed_continues_after_the_anchor() -> None:
    events = numbered(1, 20)
    anchor = Anchor(10, frames.records_digest(events[9:10]), Claim(10, 7))
    for node in (Node(events), Node(events, state_hash=8), Node(numbered(1, 20, salt=1))):
        q = Quorum(Sequencer([1], first=11), [1], 1, anchor=anchor)
        q.receive(1, published(11, 20, state_hash=node.state_hash), 0.0)
        assert released(q) == []
        if node.state_hash == 7 and node.ring.range(10, 10)["quantity_lots"][0] == 1:  # type: ignore[index]
            ask(q, {1: node}, 0.1)
            assert released(q) == list(range(11, 21))
        else:
            with pytest.raises(Disagreement, match="another history"):
                ask(q, {1: node}, 0.1)


def test_feed_that_ends_before_the_anchor_is_refused() -> None:
    q = Quorum(Sequencer([1], first=11), [1], 1, anchor=Anchor(10, 0, Claim(10, 7)), old_feed_timeout_s=1.0)
    q.receive(1, heartbeat(5), 0.0)
    released(q, 0.0)
    q.extend_deadlines(60.0)  # The consumer was busy and received nothing.
    assert released(q, 60.9) == []
    with pytest.raises(Disagreement, match=r"older than what is settled, up to event 10: node 1 ends at event 5"):
        released(q, 61.0)


@pytest.mark.parametrize("seed", range(12))
def test_every_event_is_released_once_whatever_is_lost_or_late(seed: int) -> None:
    chance = random.Random(seed)
    events = numbered(1, 600)
    nodes = {node: Node(events) for node in (1, 2, 3)}
    sent = [(node, first) for node in nodes for first in range(1, 601, 20) if chance.random() < 0.7]
    # Each node's frames stay in order, as on a connection; the nodes are mixed.
    order = sorted(sent, key=lambda frame: frame[1] + chance.uniform(0, 200) * frame[0])
    q = quorum(pending=chance.choice((50, 400, 1 << 17)))
    out: list[int] = []
    now = 0.0
    for node, first in order:
        q.receive(node, published(first, first + 19), now)
        out += released(q, now)
        if chance.random() < 0.2:
            now += 0.1
            ask(q, nodes, now)
    for node in nodes:
        q.receive(node, heartbeat(600), now)
    for _ in range(200):
        now += 0.6
        ask(q, nodes, now)
        out += released(q, now)
    assert out == list(range(1, 601)), f"repeat with seed {seed}"
    assert q.dissents == []


def test_malformed_digest_and_heartbeat_frames_are_refused() -> None:
    q = quorum()
    with pytest.raises(frames.FrameError, match="ATTESTATION: expected a body of 16 bytes, found 0"):
        q.receive(1, frames.decode(frames.encode(FrameKind.ATTESTATION, correlation=1)), 0.0)
    with pytest.raises(frames.FrameError, match="HEARTBEAT: expected a body of 24 bytes, found 3"):
        q.receive(1, frames.decode(frames.encode(FrameKind.HEARTBEAT, b"abc", correlation=1)), 0.0)
