"""The sequencer delivers the stream as it was, whatever is lost, repeated or reordered, or raises an error."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.feed.event_window import EventWindow
from smrx.feed.feed_errors import FeedConflict, GapUnfillable
from smrx.feed.retransmission import Request
from smrx.feed.sequencer import Sequencer
from smrx.node.event_ring import EventRing
from smrx.wire import frames
from smrx.wire.codes import EventKind
from smrx.wire.frames import Frame, FrameError, FrameKind
from smrx.wire.records import EVENT, EVENT_LAYOUTS
from tests.feed.ring_answers import answer_request
from tests.feed.streams import numbered


def events_frame(events: NDArray[np.void]) -> Frame:
    return frames.decode(frames.encode_events(events, 0, 0))


def heartbeat(following: int) -> Frame:
    return frames.decode(frames.encode(FrameKind.HEARTBEAT, correlation=following))


def unavailable(oldest: int, newest: int) -> Frame:
    return frames.decode(frames.encode(FrameKind.UNAVAILABLE, correlation=oldest, aux=newest))


def sequences(sequencer: Sequencer) -> list[int]:
    taken: list[int] = sequencer.take()["sequence"].tolist()
    return taken


def test_stream_in_order_is_delivered() -> None:
    sequencer = Sequencer([1])
    pass_through(sequencer, 100)
    assert sequencer.requests(100.0) == []
    assert sequencer.deadline() is None
    assert (sequencer.stats.gaps, sequencer.stats.duplicates) == (0, 0)


def test_taken_events_belong_to_the_caller() -> None:
    sequencer = Sequencer([1], ahead=4, retained=0)
    sequencer.receive(1, events_frame(numbered(1, 4)), 0.0)
    taken = sequencer.take()
    sequencer.receive(1, events_frame(numbered(5, 8)), 0.0)
    assert taken["sequence"].tolist() == [1, 2, 3, 4]


def test_gap_is_asked_for_once_then_at_the_next_node() -> None:
    sequencer = Sequencer([1, 2, 3], request_timeout_s=0.5)
    sequencer.receive(2, events_frame(numbered(1, 5)), 0.0)
    sequencer.receive(2, events_frame(numbered(9, 12)), 1.0)
    assert sequences(sequencer) == [1, 2, 3, 4, 5]
    assert sequencer.requests(1.0) == [Request(2, 6, 8)]
    assert sequencer.deadline() == 1.5
    sequencer.receive(2, events_frame(numbered(13, 14)), 1.2)
    assert sequencer.requests(1.4) == []
    assert sequencer.requests(1.5) == [Request(3, 6, 8)]
    assert sequencer.requests(2.0) == [Request(1, 6, 8)]
    sequencer.receive(1, events_frame(numbered(6, 8)), 2.1)
    assert sequences(sequencer) == list(range(6, 15))
    assert (sequencer.stats.gaps, sequencer.stats.gaps_healed, sequencer.stats.requests) == (1, 1, 3)
    assert sequencer.requests(100.0) == []


def test_another_nodes_copy_heals_a_gap_without_request() -> None:
    sequencer = Sequencer([1, 2])
    sequencer.receive(1, events_frame(numbered(1, 5)), 0.0)
    sequencer.receive(1, events_frame(numbered(9, 12)), 0.0)
    sequencer.receive(2, events_frame(numbered(4, 12)), 0.0)
    assert sequences(sequencer) == list(range(1, 13))
    assert sequencer.requests(10.0) == []
    assert sequencer.stats.gaps_healed == 1
    assert sequencer.stats.duplicates == 2 + 4


def test_two_gaps_are_asked_for_one_after_the_other() -> None:
    sequencer = Sequencer([1, 2])
    for first, last in ((3, 4), (7, 8)):
        sequencer.receive(1, events_frame(numbered(first, last)), 0.0)
    assert sequencer.requests(0.0) == [Request(1, 1, 2)]
    sequencer.receive(1, events_frame(numbered(1, 2)), 0.1)
    assert sequencer.requests(0.1) == [Request(1, 5, 6)]
    sequencer.receive(1, events_frame(numbered(5, 6)), 0.2)
    assert sequences(sequencer) == list(range(1, 9))


def test_heartbeat_reveals_loss_at_the_end_of_the_stream() -> None:
    sequencer = Sequencer([1])
    sequencer.receive(1, events_frame(numbered(1, 5)), 0.0)
    sequencer.receive(1, heartbeat(6), 0.1)
    assert sequencer.requests(0.1) == []
    sequencer.receive(1, heartbeat(9), 0.6)
    assert sequencer.in_gap
    assert sequencer.requests(0.6) == [Request(1, 6, 8)]


def test_heartbeat_of_a_node_that_is_behind_is_no_gap() -> None:
    sequencer = Sequencer([1, 2])
    sequencer.receive(1, events_frame(numbered(1, 5)), 0.0)
    sequencer.receive(2, heartbeat(3), 0.1)
    assert not sequencer.in_gap


def test_late_join_is_no_gap() -> None:
    sequencer = Sequencer([1])
    sequencer.receive(1, heartbeat(101), 0.0)
    assert sequencer.requests(0.0) == [Request(1, 1, 100)]
    sequencer.receive(1, events_frame(numbered(1, 100)), 0.1)
    assert len(sequences(sequencer)) == 100
    assert sequencer.stats.gaps == 0


def test_events_before_the_start_are_not_delivered() -> None:
    sequencer = Sequencer([1], first=10)
    sequencer.receive(1, events_frame(numbered(1, 12)), 0.0)
    assert sequences(sequencer) == [10, 11, 12]
    sequencer.receive(1, events_frame(numbered(1, 9)), 0.0)
    assert sequences(sequencer) == []


def test_memory_is_bounded_and_dropped_events_are_asked_for() -> None:
    sequencer = Sequencer([1], ahead=10, retained=4)
    sequencer.receive(1, events_frame(numbered(3, 40)), 0.0)
    assert sequencer.stats.beyond_window == 30
    assert sequencer.requests(0.0) == [Request(1, 1, 2)]
    sequencer.receive(1, events_frame(numbered(1, 2)), 0.0)
    assert sequences(sequencer) == list(range(1, 11))
    assert sequencer.requests(0.0) == [Request(1, 11, 40)]


def test_node_that_is_not_connected_is_skipped_at_once() -> None:
    sequencer = Sequencer([1, 2], request_timeout_s=0.5)
    sequencer.receive(1, heartbeat(5), 0.0)
    (request,) = sequencer.requests(0.0)
    sequencer.mark_unsent(request, 0.0)
    deadline = sequencer.deadline()
    assert deadline is not None
    assert deadline < 0.1
    assert sequencer.requests(deadline) == [Request(2, 1, 4)]


def test_gap_that_every_node_has_lost_is_reported_with_the_ranges_held() -> None:
    sequencer = Sequencer([1, 2])
    sequencer.receive(1, events_frame(numbered(8, 12)), 0.0)
    for node, oldest in ((1, 4), (2, 6)):
        assert [request.node for request in sequencer.requests(0.0)] == [node]
        sequencer.receive(node, unavailable(oldest, 12), 0.0)
    with pytest.raises(GapUnfillable, match=r"events 1 to 7 .* node 1: holds 4 to 12; node 2: holds 6 to 12") as caught:
        sequencer.requests(0.0)
    assert (caught.value.first, caught.value.last) == (1, 7)


def test_gap_without_answers_ends_with_the_gap_timeout() -> None:
    sequencer = Sequencer([1, 2], request_timeout_s=0.5, gap_timeout_s=5.0)
    sequencer.receive(1, heartbeat(5), 0.0)
    for tenth in range(50):
        sequencer.requests(tenth / 10)
    with pytest.raises(
        GapUnfillable, match=r"events 1 to 4 .* node 1: asked 5 times, no answer; node 2: asked 5 times"
    ):
        sequencer.requests(5.0)


def test_time_in_which_nothing_was_received_extends_the_deadlines() -> None:
    sequencer = Sequencer([1], request_timeout_s=0.5, gap_timeout_s=5.0)
    sequencer.receive(1, heartbeat(5), 0.0)
    sequencer.requests(0.0)
    sequencer.extend_deadlines(60.0)
    assert sequencer.requests(64.9) == [Request(1, 1, 4)]
    with pytest.raises(GapUnfillable):
        sequencer.requests(65.0)


def test_node_that_is_behind_is_asked_again() -> None:
    sequencer = Sequencer([1], gap_timeout_s=5.0)
    sequencer.receive(1, heartbeat(5), 0.0)
    sequencer.requests(0.0)
    sequencer.receive(1, unavailable(1, 0), 0.0)
    deadline = sequencer.deadline()
    assert deadline is not None
    assert deadline < 0.1
    assert sequencer.requests(deadline) == [Request(1, 1, 4)]


def test_unavailable_answer_is_dropped_with_its_gap() -> None:
    sequencer = Sequencer([1, 2])
    sequencer.receive(1, events_frame(numbered(5, 6)), 0.0)
    sequencer.receive(1, events_frame(numbered(9, 9)), 0.0)
    sequencer.requests(0.0)
    sequencer.receive(1, unavailable(5, 9), 0.0)
    assert sequencer.requests(0.0) == [Request(2, 1, 4)]
    sequencer.receive(2, events_frame(numbered(1, 4)), 0.0)
    assert sequencer.requests(0.0) == [Request(2, 7, 8)]
    sequencer.receive(2, unavailable(9, 9), 0.0)
    assert sequencer.requests(0.0) == [Request(1, 7, 8)]


@pytest.mark.parametrize("waiting", [False, True])
def test_different_content_under_one_sequence_is_a_conflict(waiting: bool) -> None:
    sequencer = Sequencer([1, 2])
    sequencer.receive(1, events_frame(numbered(2 if waiting else 1, 9)), 0.0)
    forged = numbered(4, 6)
    forged["quantity_lots"][1] += 1
    with pytest.raises(FeedConflict, match="event 5: node 2 sent quantity_lots 2, node 1 sent 1"):
        sequencer.receive(2, events_frame(forged), 0.0)


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (EventKind.TRADE, "taker_fee", 7, "sent taker_fee 7, node 1 sent 0"),
        (EventKind.CLIENT_ORDER_ID, "client_order_id", b"another", "sent client_order_id 'another', node 1 sent ''"),
        (EventKind.RULES_SET, "collar_bp", 9, "sent collar_bp 9, node 1 sent 0"),
    ],
)
def test_conflict_names_the_field_of_its_kind(kind: EventKind, field: str, value: int | bytes, message: str) -> None:
    sequencer = Sequencer([1, 2])
    events = np.zeros(1, EVENT_LAYOUTS[kind])
    events["sequence"], events["kind"] = 1, kind
    sequencer.receive(1, events_frame(events.view(EVENT)), 0.0)
    events[field] = value
    with pytest.raises(FeedConflict, match=message) as caught:
        sequencer.receive(2, events_frame(events.view(EVENT)), 0.0)
    assert caught.value.field == field


def test_conflict_in_a_byte_without_a_name_is_reported() -> None:
    sequencer = Sequencer([1, 2])
    events = np.zeros(1, EVENT)
    events["sequence"], events["kind"] = 1, EventKind.TRADE
    sequencer.receive(1, events_frame(events), 0.0)
    events["reserved"] = 1
    with pytest.raises(FeedConflict, match="sent reserved 1, node 1 sent 0"):
        sequencer.receive(2, events_frame(events), 0.0)


def test_different_content_is_not_compared_beyond_the_retained_events() -> None:
    sequencer = Sequencer([1], ahead=8, retained=8)
    for first in (1, 9, 17):
        sequencer.receive(1, events_frame(numbered(first, first + 7)), 0.0)
    sequencer.receive(1, events_frame(numbered(1, 16, salt=1)), 0.0)
    with pytest.raises(FeedConflict, match="event 17"):
        sequencer.receive(1, events_frame(numbered(16, 17, salt=1)), 0.0)


def test_malformed_frames_change_nothing() -> None:
    sequencer = Sequencer([1])
    twice = np.concatenate((numbered(1, 3), numbered(3, 4)))
    zero = numbered(1, 2)
    zero["sequence"] = [0, 1]
    for frame in (events_frame(twice), events_frame(zero), frames.decode(frames.encode(FrameKind.PING))):
        with pytest.raises(FrameError):
            sequencer.receive(1, frame, 0.0)
    sequencer.receive(1, events_frame(numbered(1, 0)), 0.0)
    assert (sequencer.expected, sequencer.known, sequences(sequencer)) == (1, 0, [])


@given(data=st.data(), count=st.integers(1, 120), ahead=st.integers(1, 40), retained=st.integers(0, 40))
def test_any_loss_repetition_and_reordering_is_healed(
    data: st.DataObject, count: int, ahead: int, retained: int
) -> None:
    nodes, ring = (1, 2), EventRing(count)
    ring.append(numbered(1, count))
    sequencer = Sequencer(nodes, ahead=ahead, retained=retained, gap_timeout_s=1e9)
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=20)) | {count + 1, 1})
    pieces = [numbered(first, last - 1) for first, last in pairwise(cuts)]
    # Each index may come up never, once or often, in any order.
    arrivals = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=40)) if pieces else []
    out: list[bytes] = []
    now = 0.0
    for arrival in arrivals:
        node = data.draw(st.sampled_from(nodes))
        sequencer.receive(node, events_frame(pieces[arrival]), now)
        out.append(sequencer.take().tobytes())
        for request in sequencer.requests(now):
            if data.draw(st.booleans()):
                deliver(sequencer, ring, request, now)
        now += 0.01
    # The network loses nothing from here on, and a heartbeat announces the end of the stream.
    sequencer.receive(1, heartbeat(count + 1), now)
    for _ in range(10 * count):
        now = sequencer.deadline() or now
        for request in sequencer.requests(now):
            deliver(sequencer, ring, request, now)
        out.append(sequencer.take().tobytes())
        if not sequencer.in_gap:
            break
    assert b"".join(out) == numbered(1, count).tobytes()
    assert sequencer.deadline() is None
    assert sequencer.stats.delivered == count
    assert sequencer.stats.gaps == sequencer.stats.gaps_healed


def deliver(sequencer: Sequencer, ring: EventRing, request: Request, now: float) -> None:
    for reply in answer_request(ring, frames.decode(request.frame())):
        sequencer.receive(request.node, frames.decode(reply), now)


def test_property_finds_a_window_that_frees_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deliberate bug: slots of the window are never freed, so old events pass for new ones."""
    monkeypatch.setattr(EventWindow, "_free", lambda self, first, count: None)
    sequencer = Sequencer([1], ahead=4, retained=0)
    with pytest.raises((AssertionError, FeedConflict)):
        pass_through(sequencer, 30)


def pass_through(sequencer: Sequencer, count: int) -> None:
    for first in range(1, count, 3):
        sequencer.receive(1, events_frame(numbered(first, first + 2)), 0.0)
        assert sequencer.take().tobytes() == numbered(first, first + 2).tobytes()
