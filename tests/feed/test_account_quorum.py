"""The account quorum releases what a majority has sent alike, frame by frame, without sockets or a clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.feed.account_quorum import AccountQuorum
from smrx.feed.feed_errors import Disagreement, GapUnfillable
from smrx.wire import frames
from smrx.wire.frames import Frame, FrameError, FrameKind
from tests.feed.streams import numbered

#: The events of the stream that concern the accounts: every third.
LAST = 60
OWN = numbered(1, LAST)[2::3]


def updates(first: int, last: int, events: NDArray[np.void] = OWN) -> Frame:
    """Return the frame in which a node sends those of events first..last that concern the accounts."""
    part = events[(events["sequence"] >= first) & (events["sequence"] <= last)]
    return frames.decode(frames.encode_updates(part, first, last))


def heartbeat(following: int) -> Frame:
    return frames.decode(frames.encode(FrameKind.HEARTBEAT, correlation=following, aux=LAST))


def unavailable(oldest: int, newest: int) -> Frame:
    return frames.decode(frames.encode(FrameKind.UNAVAILABLE, correlation=oldest, aux=newest))


def sequences(quorum: AccountQuorum) -> list[int]:
    found: list[int] = quorum.take()["sequence"].tolist()
    return found


def forged(sequence: int) -> NDArray[np.void]:
    events = OWN.copy()
    events["price_ticks"][events["sequence"] == sequence] += 1
    return events


def test_majority_releases_and_one_node_does_not() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    quorum.receive(1, updates(1, 10))
    assert sequences(quorum) == []
    quorum.receive(2, updates(1, 5))
    assert sequences(quorum) == [3]
    quorum.receive(3, updates(1, 20))
    assert sequences(quorum) == [6, 9]
    assert quorum.released == 10
    quorum.receive(2, updates(6, 20))
    assert sequences(quorum) == [12, 15, 18]


@given(st.data())
def test_frames_may_be_cut_anywhere(data: st.DataObject) -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    ends = dict.fromkeys((1, 2, 3), 0)
    released: list[int] = []
    while min(sorted(ends.values())[1:]) < LAST:
        node = data.draw(st.sampled_from([node for node, end in ends.items() if end < LAST]))
        last = data.draw(st.integers(ends[node] + 1, LAST))
        assert not quorum.receive(node, updates(ends[node] + 1, last))
        ends[node] = last
        released += sequences(quorum)
    assert released == OWN["sequence"].tolist()
    assert not quorum.excluded


def test_node_that_differs_is_excluded() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    quorum.receive(1, updates(1, 10, forged(6)))
    quorum.receive(2, updates(1, 10))
    assert sequences(quorum) == []
    quorum.receive(3, updates(1, 10))
    assert sequences(quorum) == [3, 6, 9]
    assert list(quorum.excluded) == [1]
    quorum.receive(1, updates(11, 20))
    quorum.receive(2, updates(11, 20))
    assert sequences(quorum) == []
    quorum.receive(3, updates(11, 20))
    assert sequences(quorum) == [12, 15, 18]


def test_missing_event_differs_too() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    quorum.receive(1, updates(1, 10, OWN[OWN["sequence"] != 6]))
    for node in (2, 3):
        quorum.receive(node, updates(1, 10))
    assert sequences(quorum) == [3, 6, 9]
    assert list(quorum.excluded) == [1]


def test_nodes_without_a_majority_are_a_disagreement() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    for node in (1, 2, 3):
        quorum.receive(node, updates(1, 10, forged(3 * node)))
    with pytest.raises(Disagreement, match="events 1 to 10: no majority of nodes has sent the same"):
        quorum.take()


def test_skipped_range_is_asked_for_again() -> None:
    quorum = AccountQuorum([1, 2], 2, 1)
    quorum.receive(1, updates(1, 10))
    assert quorum.receive(1, updates(21, 30))
    assert quorum.wanted(1) == 11
    quorum.receive(1, updates(11, 30))
    quorum.receive(2, updates(1, 30))
    assert sequences(quorum) == OWN["sequence"][:10].tolist()


def test_repeated_range_is_released_once() -> None:
    quorum = AccountQuorum([1, 2], 2, 1)
    for node in (1, 2):
        quorum.receive(node, updates(1, 10))
        quorum.receive(node, updates(4, 16))
        quorum.receive(node, updates(1, 5))
    assert sequences(quorum) == [3, 6, 9, 12, 15]


def test_stream_from_now_on_begins_where_a_majority_stands() -> None:
    quorum = AccountQuorum([1, 2, 3], 3)
    assert quorum.wanted(1) == 0
    quorum.receive(3, heartbeat(13))
    assert quorum.released is None
    quorum.receive(1, heartbeat(10))
    assert quorum.released == 9
    # One that is ahead is asked for what it skipped, one that is behind sends more than is needed.
    assert quorum.receive(3, updates(13, 20))
    assert quorum.wanted(3) == 10
    quorum.receive(2, updates(5, 20))
    quorum.receive(1, updates(10, 20))
    assert sequences(quorum) == [12, 15, 18]


def test_events_that_no_majority_holds_are_a_gap() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    assert quorum.receive(1, unavailable(30, 60))
    quorum.receive(2, updates(1, 10))
    quorum.receive(3, updates(1, 10))
    assert sequences(quorum) == [3, 6, 9]
    with pytest.raises(GapUnfillable, match=r"events 11 to 29 are missing .* node 1: holds 30 to 60"):
        quorum.receive(2, unavailable(30, 60))


def test_node_that_lacks_old_events_counts_again_later() -> None:
    quorum = AccountQuorum([1, 2, 3], 3, 1)
    quorum.receive(1, unavailable(8, 60))
    for node in (2, 3):
        quorum.receive(node, updates(1, 10))
    assert sequences(quorum) == [3, 6, 9]
    assert quorum.wanted(1) == 11
    quorum.receive(1, updates(11, 20))
    quorum.receive(2, updates(11, 20))
    assert sequences(quorum) == [12, 15, 18]


def test_frames_that_contradict_themselves_are_refused() -> None:
    quorum = AccountQuorum([1], 1, 1)
    for frame in (
        frames.decode(frames.encode_updates(OWN[:2], 1, 5)),
        frames.decode(frames.encode_updates(OWN[:2], 4, 10)),
        frames.decode(frames.encode_updates(OWN[:2][::-1], 1, 10)),
        frames.decode(frames.encode_updates(OWN[:0], 5, 4)),
        frames.decode(frames.encode_events(OWN[:1], 0, 0)),
    ):
        with pytest.raises(FrameError):
            quorum.receive(1, frame)
    assert sequences(quorum) == []


def test_less_than_a_majority_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 2 of 3 nodes, found 1"):
        AccountQuorum([2], 3)
