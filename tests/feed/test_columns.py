"""Columns hold what the records hold, contiguously, and follow a feed without holes."""

import numpy as np
import pytest

from smrx.feed.columns import FIELDS, batches, columns
from smrx.feed.subscriber import Subscriber
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT
from tests.feed.streams import numbered
from tests.feed.stub import StubNode


def mixed(count: int) -> np.ndarray:
    """Events of which every third is a trade."""
    events = numbered(1, count)
    events["kind"][::3] = EventKind.TRADE
    return events


def test_every_field_is_a_contiguous_array_of_its_type() -> None:
    events = mixed(100)
    found = columns(events)
    assert tuple(found) == FIELDS == EVENT.names
    for name, column in found.items():
        assert (column.dtype, column.shape) == (EVENT[name], (100,))
        assert column.flags.c_contiguous
        assert column.flags.owndata
        assert column.tolist() == events[name].tolist()


def test_columns_are_the_callers_own() -> None:
    events = mixed(3)
    columns(events)["sequence"][0] = 9
    assert events["sequence"].tolist() == [1, 2, 3]


def test_fields_and_kinds_are_chosen() -> None:
    found = columns(mixed(10), ["price_ticks", "sequence"], [EventKind.TRADE])
    assert list(found) == ["price_ticks", "sequence"]
    assert found["sequence"].tolist() == [1, 4, 7, 10]
    assert columns(mixed(0), ["sequence"])["sequence"].shape == (0,)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected fields of an event .*, found 'price'"):
        columns(mixed(1), ["price"])


def test_batches_follow_a_feed_across_a_gap() -> None:
    events = mixed(900)
    with StubNode() as node, Subscriber([node.endpoint]) as subscriber:
        node.wait_subscribed()
        for start in range(0, 900, 100):
            node.publish(events[start : start + 100], lose=start in (200, 500))
        found = list(batches(subscriber, fields=["sequence", "price_ticks"], timeout=1.0))
        assert subscriber.feed_stats.gaps_healed >= 1
    for name in ("sequence", "price_ticks"):
        assert np.concatenate([batch[name] for batch in found]).tolist() == events[name].tolist()


def test_a_batch_without_the_kinds_asked_for_is_left_out() -> None:
    events = mixed(300)
    events["kind"][:200] = EventKind.NEW
    with StubNode() as node, Subscriber([node.endpoint]) as subscriber:
        node.wait_subscribed()
        node.publish(events)
        found = list(batches(subscriber, kinds=[EventKind.TRADE], timeout=0.5))
    trades = events["sequence"][events["kind"] == EventKind.TRADE]
    assert np.concatenate([batch["sequence"] for batch in found]).tolist() == trades.tolist()
    assert all(len(batch["sequence"]) for batch in found)
