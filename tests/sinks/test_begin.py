"""Every sink starts from a state image in the same way: with its rows, and the events after it."""

from contextlib import closing

import msgspec
import numpy as np
import pytest

from smrx.sinks import Checkpoint, Sink
from smrx.sinks.contract import Origin
from smrx.sinks.retrying import RetryingSink
from smrx.sinks.rows import (
    MOVEMENT_ROW,
    OPENING,
    TRADE_ROW,
    Catalogue,
    Tables,
    extract,
)
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.sinks.places import Place
from tests.sinks.stream import CLUSTER, checkpoint, expected, stream

EVENTS = stream()
MIDDLE, END = 300, len(EVENTS)


def origin(digest: str = "0" * 32) -> Origin:
    at = checkpoint(EVENTS, MIDDLE)
    return Origin(at.event_sequence, at.command_sequence, at.match_id, at.state_hash, digest, (1, 3), 3)


def image_rows() -> Tables:
    """Return all definitions so far, at the event of the image, and two balances."""
    definitions = extract(np.array(EVENTS[:MIDDLE]), Catalogue()).definitions
    _, newest = np.unique(np.stack([definitions["kind"], definitions["id"]])[:, ::-1], axis=1, return_index=True)
    definitions = definitions[::-1][np.sort(newest)][::-1].copy()
    movements = np.zeros(2, MOVEMENT_ROW)
    movements["kind"], movements["account"], movements["asset"] = OPENING, (1, 2), (1, 2)
    movements["amount"], movements["available_after"] = (5, 1 << 61), (4, 0)
    for rows in (definitions, movements):
        rows["event_sequence"], rows["time_ns"] = MIDDLE, int(EVENTS["time_ns"][MIDDLE - 1])
    return Tables(np.empty(0, TRADE_ROW), movements, definitions)


def at(sequence: int, begins: Origin) -> Checkpoint:
    return msgspec.structs.replace(checkpoint(EVENTS, sequence), origin=begins)


def begin(sink: Sink, begins: Origin) -> None:
    assert sink.open(CLUSTER) is None
    sink.begin(begins.checkpoint(CLUSTER), image_rows())
    sink.commit(begins.checkpoint(CLUSTER))


def test_rows_of_the_image_and_later_ones_are_read_back(place: Place) -> None:
    sink = place.sink()
    begin(sink, origin())
    sink.write(np.array(EVENTS[MIDDLE:450]))
    sink.commit(at(450, origin()))
    sink.close()
    sink = place.sink()
    assert sink.open(CLUSTER) == at(450, origin())
    # Events it holds already are skipped.
    sink.write(np.array(EVENTS[400:]))
    sink.commit(at(END, origin()))
    sink.close()
    content, held = place.content()
    assert held == END
    whole, before = expected(EVENTS, END), expected(EVENTS, MIDDLE)
    assert content.trades == whole.trades[len(before.trades) :]
    opening = image_rows()
    assert content.movements == opening.movements.tolist() + whole.movements[len(before.movements) :]
    assert len(content.definitions) == len(opening.definitions) + len(whole.definitions) - len(before.definitions)
    with closing(place.reader()) as reader:
        assert reader.checkpoint is not None
        assert reader.checkpoint.origin == origin()


def test_sink_with_another_origin_is_refused(place: Place) -> None:
    sink = place.sink()
    begin(sink, origin())
    with pytest.raises(SinkMismatch, match="expected event 301 or one before it, found 302"):
        sink.write(np.array(EVENTS[MIDDLE + 1 :]))
    sink.write(np.array(EVENTS[MIDDLE:]))
    for begins in (None, origin("1" * 32)):
        with pytest.raises(SinkMismatch, match="expected data of which books begin"):
            sink.commit(msgspec.structs.replace(checkpoint(EVENTS, END), origin=begins))
    with pytest.raises(SinkMismatch, match="must be empty to start after event 300, and holds events up to 300"):
        sink.begin(origin().checkpoint(CLUSTER), image_rows())
    sink.close()


def test_start_from_an_image_is_retried() -> None:
    class Failing:
        """Fails at its first commit, and drops what it was given."""

        name = "failing"

        def __init__(self) -> None:
            self.begun: list[int] = []
            self.failures = 1

        def open(self, cluster: str) -> Checkpoint | None:
            self.begun = []
            return None

        def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
            self.begun = [checkpoint.event_sequence, int(np.count_nonzero(rows.movements["kind"] == OPENING))]

        def write(self, events: object) -> None:
            """Do nothing."""

        def commit(self, checkpoint: Checkpoint) -> None:
            if self.failures:
                self.failures -= 1
                raise SinkError("the disk is full")

        def close(self) -> None:
            """Do nothing."""

    failing = Failing()
    begin(RetryingSink(failing, wait=lambda seconds: False), origin())
    assert failing.begun == [MIDDLE, 2]
