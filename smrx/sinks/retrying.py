"""Retry a sink that fails: report the error, wait, open it again, and write again what was not committed.

write() and commit() block meanwhile, so no checkpoint passes a failing sink; the wait function decides what else is
done during a pause (retry_policy.py receives the feed). Events since the last commit are kept in memory: commit often.
Called by settlement, around each sink.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import numpy as np

from smrx.sinks.contract import Checkpoint, Sink
from smrx.sinks.rows import Rows, Tables
from smrx.sinks.sink_errors import SinkError, SinkMismatch

T = TypeVar("T")

#: The first retry comes soon, so that a restart of a database costs little; the pauses double up to the longest.
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0


class SinkFailure(NamedTuple):
    """A sink failed, and will be tried again."""

    sink: str
    error: str
    attempt: int  #: 1 for the first failure
    retry_seconds: float
    uncommitted_events: int


class SinkRecovery(NamedTuple):
    """A sink works again."""

    sink: str
    attempts: int
    seconds: float


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class RetryingSink:
    """A Sink around another one; raises SinkMismatch as that does, and SinkError only when wait() ends the retries."""

    def __init__(
        self,
        sink: Sink,
        *,
        wait: Callable[[float], bool] = _sleep,
        on_failure: Callable[[SinkFailure], None] | None = None,
        on_recovery: Callable[[SinkRecovery], None] | None = None,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """Wrap a sink. wait(seconds) pauses, and returns True to stop retrying, which raises the last SinkError."""
        self.name = sink.name
        self._sink = sink
        self._wait = wait
        self._on_trouble = on_failure
        self._on_recovery = on_recovery
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._cluster = ""
        self._held: Checkpoint | None = None
        self._uncommitted: list[Rows] = []
        self._begun: tuple[Checkpoint, Tables] | None = None

    @property
    def held(self) -> Checkpoint | None:
        """What the sink durably holds."""
        return self._held

    @property
    def uncommitted_events(self) -> int:
        """The number of events kept in memory until the next commit()."""
        return sum(map(len, self._uncommitted))

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self._cluster = cluster
        self._uncommitted = []
        self._held = self._begun = None
        self._held = self._persist(lambda: self._sink.open(cluster), self._open_again)
        return self._held

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""
        self._begun = checkpoint, rows
        self._persist(lambda: self._sink.begin(checkpoint, rows), self._write_again)

    def write(self, events: Rows) -> None:
        """See Sink. The events are copied."""
        if len(events):
            # As words: NumPy copies records field by field, sixteen times slower.
            copy = np.ascontiguousarray(events).view(np.uint64).copy().view(events.dtype)
            self._uncommitted.append(copy)
            self._persist(lambda: self._sink.write(copy), self._write_again)

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink."""

        def commit_again() -> None:
            self._write_again()
            self._sink.commit(checkpoint)

        self._persist(lambda: self._sink.commit(checkpoint), commit_again)
        if self._held is None or checkpoint.event_sequence > self._held.event_sequence:
            self._held = checkpoint
        self._uncommitted = []

    def close(self) -> None:
        """See Sink."""
        self._sink.close()
        self._uncommitted = []

    def _persist(self, first: Callable[[], T], again: Callable[[], T]) -> T:
        """Return the result of first(), or, if it fails, that of the first again() that does not."""
        attempt, pause, failed_at = 0, self._first_pause, 0.0
        while True:
            try:
                result = again() if attempt else first()
            except SinkError as error:
                attempt += 1
                failed_at = failed_at or time.monotonic()
                if self._on_trouble is not None:
                    self._on_trouble(SinkFailure(self.name, str(error), attempt, pause, self.uncommitted_events))
                if self._wait(pause):
                    raise
                pause = min(2 * pause, self._longest_pause)
                continue
            if attempt and self._on_recovery is not None:
                self._on_recovery(SinkRecovery(self.name, attempt, time.monotonic() - failed_at))
            return result

    def _open_again(self) -> Checkpoint | None:
        """Close the sink and open it. Raises SinkMismatch if it lost what it had committed."""
        self._sink.close()
        found = self._sink.open(self._cluster)
        before, now = (held.event_sequence if held else 0 for held in (self._held, found))
        if now < before:
            raise SinkMismatch(f"{self.name}: committed event {before}, and now holds {now}: settled data was lost")
        return found

    def _write_again(self) -> None:
        """Write again everything that was written before the sink failed."""
        if self._open_again() is None and self._begun is not None:
            self._sink.begin(*self._begun)
        for events in self._uncommitted:
            self._sink.write(events)
