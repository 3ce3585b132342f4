"""A failing sink is retried until it works, and nothing is lost or duplicated."""

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smrx.sinks import Checkpoint, Sink
from smrx.sinks.retrying import RetryingSink, SinkFailure, SinkRecovery
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.sinks.places import Place, run
from tests.sinks.postgres import Postgres
from tests.sinks.stream import CLUSTER, Events, checkpoint, expected, stream

EVENTS = stream()
COUNT = 600
STEPS = [(end, end % 40 == 0) for end in range(10, len(EVENTS) + 1, 10)]


class Failing:
    """A sink that fails when fails() is true, before or after it has done the call."""

    def __init__(self, sink: Sink, fails: Callable[[], bool]) -> None:
        self.name = sink.name
        self._sink = sink
        self._fails = fails

    def _maybe(self) -> None:
        if self._fails():
            raise SinkError(f"{self.name}: the disk is full")

    def open(self, cluster: str) -> Checkpoint | None:
        self._maybe()
        return self._sink.open(cluster)

    def write(self, events: Events) -> None:
        self._maybe()
        self._sink.write(events)
        self._maybe()

    def commit(self, checkpoint: Checkpoint) -> None:
        self._maybe()
        self._sink.commit(checkpoint)
        self._maybe()

    def close(self) -> None:
        self._sink.close()


def no_wait(seconds: float) -> bool:
    return False


def test_failures_lose_and_duplicate_nothing(place: Place) -> None:
    choose = random.Random(1)
    failures: list[SinkFailure] = []
    recoveries: list[SinkRecovery] = []
    failing = Failing(place.sink(), lambda: choose.random() < 0.1)
    sink = RetryingSink(failing, wait=no_wait, on_failure=failures.append, on_recovery=recoveries.append)
    assert run(sink, EVENTS, STEPS) == 0
    assert sink.held == checkpoint(EVENTS, len(EVENTS))
    assert sink.uncommitted_events == 0
    sink.close()
    assert place.content() == (expected(EVENTS, len(EVENTS)), len(EVENTS))
    assert len(failures) >= len(recoveries) > 10
    assert {t.sink for t in failures} == {failing.name}
    message = {t.error.removeprefix(f"{failing.name}: ") for t in failures}
    assert "the disk is full" in message
    # A server may take a moment to notice that the connection with the lock is gone.
    assert message <= {"the disk is full", "in use by another process; stop that one"}
    assert max(t.uncommitted_events for t in failures) == 40


def test_failing_sink_stops_the_checkpoint_with_growing_pauses(tmp_path: Path) -> None:
    broken = [False]
    pauses: list[float] = []
    failures: list[SinkFailure] = []
    place = Place("csv", tmp_path)

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 9

    failing = Failing(place.sink(), lambda: broken[0])
    sink = RetryingSink(failing, wait=wait, on_failure=failures.append, first_pause=0.1, longest_pause=5.0)
    run(sink, EVENTS, [(100, True)])
    broken[0] = True
    with pytest.raises(SinkError, match="the disk is full"):
        sink.write(EVENTS[100:200])
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert [(t.attempt, t.retry_seconds) for t in failures] == list(enumerate(pauses, 1))
    assert sink.held == checkpoint(EVENTS, 100)
    assert place.content() == (expected(EVENTS, 100), 100)
    broken[0] = False
    sink.close()
    assert run(sink, EVENTS, [(200, True)]) == 100
    sink.close()
    assert place.content() == (expected(EVENTS, 200), 200)


def test_mismatch_is_not_retried(tmp_path: Path) -> None:
    sink = RetryingSink(Place("csv", tmp_path).sink(), wait=lambda _: pytest.fail("it must not wait"))
    sink.open(CLUSTER)
    with pytest.raises(SinkMismatch, match="found 5"):
        sink.write(EVENTS[4:10])
    sink.close()
    run(sink, EVENTS, [(10, True)])
    sink.close()
    with pytest.raises(SinkMismatch, match="found cluster 'test'"):
        sink.open("other")


def test_sink_that_lost_committed_data_is_not_retried(tmp_path: Path) -> None:
    fail = [False]
    place = Place("csv", tmp_path)
    sink = RetryingSink(Failing(place.sink(), lambda: fail[0]), wait=no_wait)
    run(sink, EVENTS, [(100, True)])

    def fail_once() -> bool:
        was, fail[0] = fail[0], False
        return was

    sink._sink._fails = fail_once  # type: ignore[attr-defined]
    for path in tmp_path.iterdir():
        path.unlink()
    fail[0] = True
    with pytest.raises(SinkMismatch, match="committed event 100, and now holds 0: settled data was lost"):
        sink.write(EVENTS[100:110])
    sink.close()


def test_written_events_may_be_overwritten_by_the_caller(tmp_path: Path) -> None:
    fail = [False]

    def fails() -> bool:
        was, fail[0] = fail[0], False
        return was

    place = Place("csv", tmp_path)
    sink = RetryingSink(Failing(place.sink(), fails), wait=no_wait)
    sink.open(CLUSTER)
    buffer = np.array(EVENTS[:100])
    sink.write(buffer)
    buffer["sequence"] = 0
    fail[0] = True
    sink.commit(checkpoint(EVENTS, 100))
    sink.close()
    assert place.content() == (expected(EVENTS, 100), 100)


@pytest.mark.parametrize("kind", ["csv", "csv rotated", "parquet"])
def test_full_disk_is_named_and_torn_writes_are_completed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [2000]
    real_write = os.write

    def write(file: int, data: bytes) -> int:
        data = bytes(data)[: room[0]]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(data)
        return real_write(file, data)

    def wait(seconds: float) -> bool:
        assert len(failures) < 100
        room[0] = 1000 << len(failures)  # some space becomes free, and then more
        return False

    failures: list[SinkFailure] = []
    place = Place(kind, tmp_path)
    monkeypatch.setattr(os, "write", write)
    sink = RetryingSink(place.sink(), wait=wait, on_failure=failures.append)
    run(sink, EVENTS, STEPS)
    monkeypatch.undo()
    sink.close()
    assert place.content() == (expected(EVENTS, len(EVENTS)), len(EVENTS))
    assert failures
    assert all("cannot be written: No space left on device" in t.error for t in failures)


def test_server_killed_under_load_keeps_every_trade_once(postgres: Postgres, tmp_path: Path) -> None:
    """The server is killed from another thread at any moment, with commits of one event each under way."""
    place = Place("postgresql", tmp_path, postgres.dsn)
    events = stream(COUNT, seed=2)
    failures: list[SinkFailure] = []
    progress, done = [0], threading.Event()

    def kill_and_start() -> None:
        for at in (COUNT // 6, COUNT // 2, 5 * COUNT // 6):
            while progress[0] < at and not done.wait(0.001):
                pass
            postgres.kill()
            postgres.start()

    killer = threading.Thread(target=kill_and_start)
    sink = RetryingSink(
        place.sink(), wait=lambda seconds: done.wait(0.01), on_failure=failures.append, first_pause=0.01
    )
    killer.start()
    try:
        run(
            sink,
            events,
            [(end, True) for end in range(1, COUNT + 1)],
            acknowledge=lambda end: progress.__setitem__(0, end),
        )
    finally:
        done.set()
        killer.join()
        sink.close()
    assert len([t for t in failures if t.attempt == 1]) >= 3
    assert place.content() == (expected(events, COUNT), COUNT)
