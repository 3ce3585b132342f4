"""The event ring holds the newest events without gaps."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.node.event_ring import EventRing, claim_at
from tests.feed.streams import numbered


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
    held = ring.range(100, 101)
    assert held is not None
    assert held["sequence"].tolist() == [100, 101]


def test_appending_keeps_up_with_any_batch_size() -> None:
    ring = EventRing(10)
    ring.append(numbered(1, 35))
    held = ring.range(26, 35)
    assert held is not None
    assert np.array_equal(held, numbered(26, 35))


def test_claim_is_of_the_last_command_that_ends_there() -> None:
    events = numbered(1, 10)
    events["command_sequence"] = [1, 1, 2, 2, 3, 3, 3, 4, 4, 5]
    ring = EventRing(100)
    ring.append(events)
    for last, claimed in ((10, 5), (4, 2), (6, 2), (9, 4), (1, 0), (2, 1)):
        assert claim_at(ring, last, lambda command: 100 + command) == ((claimed, 100 + claimed) if claimed else (0, 0))
    assert claim_at(ring, 10, lambda command: None) == (0, 0)


@given(st.integers(1, 20), st.integers(0, 60), st.data())
def test_views_are_the_range(capacity: int, count: int, data: st.DataObject) -> None:
    ring = EventRing(capacity)
    ring.append(numbered(1, count))
    if not len(ring):
        return
    first = data.draw(st.integers(ring.oldest, ring.newest))
    last = data.draw(st.integers(first, ring.newest))
    held = ring.range(first, last)
    assert held is not None
    assert b"".join(part.tobytes() for part in ring.views(first, last)) == held.tobytes()
    assert [ring.command_of(sequence) for sequence in range(first, last + 1)] == held["command_sequence"].tolist()


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
