"""The event ring holds the newest events without gaps and answers requests for exactly these."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.feed.retransmission import MAX_ANSWER_EVENTS
from smrx.node.event_ring import EventRing, answer_request
from smrx.wire import frames
from smrx.wire.frames import FrameError, FrameKind
from tests.feed.streams import numbered


def ask(first: int, last: int) -> frames.Frame:
    return frames.decode(frames.encode(FrameKind.RETRANSMIT, correlation=first, aux=last))


def event_sequences(replies: list[bytes]) -> list[int]:
    """Return the sequences in the EVENTS frames of an answer."""
    sequences: list[int] = []
    for reply in replies:
        frame = frames.decode(reply)
        assert frame.kind is FrameKind.EVENTS
        assert (frame.correlation, frame.aux) == (0, 0)
        sequences += frames.records(frame)["sequence"].tolist()
    return sequences


@given(st.integers(1, 20), st.lists(st.integers(0, 30), max_size=12), st.integers(1, 5))
def test_ring_holds_the_newest_events(capacity: int, batches: list[int], first: int) -> None:
    ring, model = EventRing(capacity, first), deque[int](maxlen=capacity)
    following = first
    for size in batches:
        ring.append(numbered(following, following + size - 1))
        model.extend(range(following, following + size))
        following += size
        assert ring.newest == following - 1
        assert len(ring) == len(model)
        assert ring.oldest == (model[0] if model else following)
        if model:
            held = ring.range(model[0], model[-1])
            assert held is not None
            assert held.tobytes() == numbered(model[0], model[-1]).tobytes()
        assert ring.range(ring.oldest - 1, ring.newest) is None
        assert ring.range(ring.oldest, ring.newest + 1) is None


def test_range_is_a_copy() -> None:
    ring = EventRing(4)
    ring.append(numbered(1, 4))
    held = ring.range(1, 4)
    assert held is not None
    ring.append(numbered(5, 8))
    assert held["sequence"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("first", [1, 3, 4, 6])
def test_gap_or_repeat_is_refused_and_nothing_is_added(first: int) -> None:
    ring = EventRing(8)
    ring.append(numbered(1, 4))
    with pytest.raises(ValueError, match="expected 2 events from sequence 5"):
        ring.append(numbered(first, first + 1))
    assert (ring.oldest, ring.newest) == (1, 4)


def test_slice_of_a_larger_array_is_stored_unchanged() -> None:
    ring = EventRing(8)
    ring.append(numbered(1, 12)[:3])
    ring.append(np.repeat(numbered(4, 9), 2)[::2][:2])
    held = ring.range(1, 5)
    assert held is not None
    assert held.tobytes() == numbered(1, 5).tobytes()


def test_restart_drops_all_events() -> None:
    ring = EventRing(8)
    ring.append(numbered(1, 4))
    ring.restart(100)
    assert (ring.oldest, ring.newest, len(ring)) == (100, 99, 0)
    assert ring.range(1, 4) is None
    ring.append(numbered(100, 101))
    assert event_sequences(answer_request(ring, ask(100, 0))) == [100, 101]


def test_answer_covers_the_range_in_order() -> None:
    ring = EventRing(1 << 15)
    ring.append(numbered(1, 20_000))
    replies = answer_request(ring, ask(2, 19_999))
    assert len(replies) == 3
    assert event_sequences(replies) == list(range(2, 20_000))
    assert event_sequences(answer_request(ring, ask(7, 7))) == [7]
    assert event_sequences(answer_request(ring, ask(19_990, 0))) == list(range(19_990, 20_001))
    assert event_sequences(answer_request(ring, ask(19_990, 30_000))) == list(range(19_990, 20_001))


def test_answer_is_bounded() -> None:
    ring = EventRing(MAX_ANSWER_EVENTS + 100)
    ring.append(numbered(1, MAX_ANSWER_EVENTS + 100))
    assert event_sequences(answer_request(ring, ask(1, 0))) == list(range(1, MAX_ANSWER_EVENTS + 1))


@pytest.mark.parametrize(("first", "last"), [(1, 3), (1, 0), (4, 4), (11, 11), (11, 0)])
def test_range_that_is_not_held_is_unavailable(first: int, last: int) -> None:
    ring = EventRing(6)
    ring.append(numbered(1, 10))
    (reply,) = answer_request(ring, ask(first, last))
    frame = frames.decode(reply)
    assert (frame.kind, frame.correlation, frame.aux) == (FrameKind.UNAVAILABLE, 5, 10)


def test_empty_ring_reports_the_next_event() -> None:
    frame = frames.decode(answer_request(EventRing(6), ask(1, 0))[0])
    assert (frame.kind, frame.correlation, frame.aux) == (FrameKind.UNAVAILABLE, 1, 0)


def test_other_frames_and_impossible_ranges_are_refused() -> None:
    ring = EventRing(6)
    with pytest.raises(FrameError, match="RETRANSMIT"):
        answer_request(ring, frames.decode(frames.encode(FrameKind.PING)))
    for first, last in ((0, 5), (5, 4)):
        with pytest.raises(FrameError, match="range"):
            answer_request(ring, ask(first, last))


def test_appending_keeps_up_with_any_batch_size() -> None:
    ring = EventRing(10)
    ring.append(numbered(1, 35))
    held = ring.range(26, 35)
    assert held is not None
    assert np.array_equal(held, numbered(26, 35))


def test_node_attests_a_range_by_digest_and_state() -> None:
    events = numbered(1, 10)
    events["command_sequence"] = [1, 1, 2, 2, 3, 3, 3, 4, 4, 5]
    ring = EventRing(100)
    ring.append(events)
    for first, last, claimed in ((1, 10, 5), (1, 4, 2), (1, 6, 2), (3, 9, 4), (10, 0, 5), (5, 6, 2), (1, 1, 0)):
        request = frames.decode(frames.encode(FrameKind.ATTEST, correlation=first, aux=last))
        (reply,) = answer_request(ring, request, lambda command: 100 + command)
        frame = frames.decode(reply)
        part = events[first - 1 : last or 10]
        assert (frame.kind, frame.correlation, frame.count) == (FrameKind.ATTESTATION, first, len(part))
        assert frame.aux == frames.records_digest(part) == frames.records_digest(part[:1], part[1:])
        assert frames.claim(frame) == ((claimed, 100 + claimed) if claimed else (0, 0))


def test_retransmitted_events_carry_the_state_hash_if_kept() -> None:
    ring = EventRing(100)
    ring.append(numbered(1, 10))
    request = frames.decode(frames.encode(FrameKind.RETRANSMIT, correlation=3, aux=7))
    assert frames.claim(frames.decode(answer_request(ring, request, lambda command: 9)[0])) == (7, 9)
    assert frames.claim(frames.decode(answer_request(ring, request, lambda command: None)[0])) == (0, 0)
    assert frames.claim(frames.decode(answer_request(ring, request)[0])) == (0, 0)


@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 20), st.integers(1, 5))
def test_outside_of_a_range_is_the_rest_of_the_ring(capacity: int, count: int, wanted: int, first: int) -> None:
    ring = EventRing(capacity, first)
    ring.append(numbered(first, first + count - 1))
    begin = max(ring.oldest, ring.newest - wanted + 1)
    before = ring.range(begin, ring.newest)
    outside = ring.outside(begin, ring.newest)
    for part in outside:
        part[:] = 0
    held = ring.newest - begin + 1
    assert sum(map(len, outside)) == capacity - held
    if before is not None:
        np.testing.assert_array_equal(ring.range(begin, ring.newest), before)
        assert before["sequence"].tolist() == list(range(begin, ring.newest + 1))
