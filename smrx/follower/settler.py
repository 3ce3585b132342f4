"""Post released events to the projection, write them to the sinks, and commit both, each event exactly once.

Order of a checkpoint: every sink durably holds the events, then the checkpoint store replaces its own checkpoint. The
store's journal is synced while the sinks commit, because each sync that waits for another adds lag. After a crash the
projection resumes at its checkpoint. A sink that is further skips what it holds, by sequence; one that is behind (a new
one) gets what the journal has, or everything from the first event on. A projection that starts from a state image keeps
the image, and writes it to a sink that is empty.

No sockets. Called by the runner, the benchmark and the tests.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Generic

import numpy as np
from numpy.typing import NDArray

from smrx.feed.anchor import Anchor
from smrx.follower.checkpoint_store import CheckpointStore, Saved
from smrx.follower.interfaces import P, ProjectionFactory
from smrx.sinks.contract import Checkpoint, Origin, Sink, describe_origin
from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import state_image
from smrx.wire.codes import EventKind
from smrx.wire.frames import Claim, FrameError
from smrx.wire.state_image import StateImage

#: A checkpoint is made at least every so many trades ...
TRADES_PER_CHECKPOINT: Final = 1000
#: ... and events, for a feed without trades.
EVENTS_PER_CHECKPOINT: Final = 1 << 14
#: Checkpoints of a quiet feed are at least so far apart: each costs a few writes that reach the disk.
CHECKPOINT_INTERVAL_S: Final = 0.005

#: Wraps a sink, to retry it (see sinks/retrying.py).
WrapSink = Callable[[Sink], Sink]


class Settler(Generic[P]):
    """One projection, and the sinks that store what it is derived from."""

    def __init__(
        self,
        cluster: str,
        directory: str | None,
        sinks: Sequence[Sink],
        factory: ProjectionFactory[P],
        wrap: WrapSink = lambda sink: sink,
    ) -> None:
        """Touch nothing before open(). Without a directory there is no checkpoint, and a run starts from event 1."""
        self.cluster = cluster
        self.projection: P = factory.empty()
        self.anchor: Anchor | None = None
        self.committed: Checkpoint | None = None
        self.origin: Origin | None = None  #: the state image the projection starts from; None for event 1
        self.is_paused = False  #: nothing is committed while this is set
        self.checkpoints = 0
        self.trades_before = 0  #: trades settled by earlier runs
        self._factory = factory
        self._sinks = [wrap(sink) for sink in sinks]
        self._store = None if directory is None else CheckpointStore(directory, factory, lambda: self.projection)
        if self._store is not None:
            # Committed last: at its checkpoint all the others hold everything.
            self._sinks.append(wrap(self._store))
        self._marks: dict[int, list[tuple[str, Checkpoint]]] = {}
        self._uncommitted_trades = 0
        self._uncommitted_since: float | None = None
        self._checked_at = 0
        self._held: list[tuple[str, Checkpoint | None]] = []

    def open(self) -> None:
        """Open everything and resume where the last run ended. Raises SinkError, SinkMismatch, Violation."""
        self._held = held = [(sink.name, sink.open(self.cluster)) for sink in reversed(self._sinks)]
        saved = None if self._store is None else self._store.saved
        self.origin = None if saved is None else saved.checkpoint.origin
        for name, checkpoint in held:
            if checkpoint is not None and checkpoint.origin != self.origin:
                own = "books begin with event 1" if self.origin is None else str(self.origin)
                raise SinkMismatch(
                    f"{name}: expected data of which {own}, found that {describe_origin(checkpoint)}; choose another "
                    "place"
                )
        if self._store is not None and self.origin is not None:
            self._open_from_image(self._store, self.origin)
        else:
            self._open_from_event_1(held)
        for name, checkpoint in held:
            if checkpoint is not None and checkpoint.event_sequence > self.projection.sequence:
                self._marks.setdefault(checkpoint.event_sequence, []).append((name, checkpoint))
        self.trades_before = self.projection.trades

    def check_empty(self) -> None:
        """Check that no sink holds events, so that the projection may start from an image. Raises SinkMismatch."""
        for name, checkpoint in self._held:
            if checkpoint is not None:
                raise SinkMismatch(
                    f"{name}: must be empty to start from the current state, and holds events up to "
                    f"{checkpoint.event_sequence}; choose another place, or run without --join"
                )

    @property
    def has_checkpoint(self) -> bool:
        """Whether an earlier run has left a checkpoint, from which this one continues."""
        return self.committed is not None

    def join(self, image: bytes, origin: Origin) -> None:
        """Start from a state image (see wire/state_image.py); everything must be open and empty.

        Raises SinkMismatch if a sink holds something, Violation if the image contradicts itself, SinkError. A process
        that dies here leaves an empty store, or one that holds the image and writes it to the sinks at the next open().
        """
        self.check_empty()
        state = _decode(image)
        projection = self._factory.from_image(state)
        if self._store is not None:
            self._store.join(origin.checkpoint(self.cluster), image, projection.save())
            self._sinks[-1].open(self.cluster)
        rows = self._factory.image_rows(state)
        self._write_image(origin, rows, self._sinks if self._store is None else self._sinks[:-1])
        self._start_at(origin, projection)
        self.trades_before = projection.trades

    def settle(self, events: NDArray[np.void], hash_after: Callable[[int], int]) -> None:
        """Post whole commands, write them, and commit as often as is due. Raises Violation, SinkError, SinkMismatch."""
        while len(events):
            count = self._count_to_checkpoint(events)
            piece, events = events[:count], events[count:]
            self.projection.post(piece)
            for sink in self._sinks:
                sink.write(piece)
            self._uncommitted_trades = self.projection.trades - (self.committed.match_id if self.committed else 0)
            if self._uncommitted_since is None:
                self._uncommitted_since = time.monotonic()
            self._check_marks()
            if len(events):
                self.commit(hash_after)

    def commit_if_due(self, hash_after: Callable[[int], int]) -> None:
        """Commit, unless too little has happened since the last checkpoint."""
        since = self._uncommitted_since
        if since is not None and (
            self._uncommitted_trades >= TRADES_PER_CHECKPOINT or time.monotonic() - since >= CHECKPOINT_INTERVAL_S
        ):
            self.commit(hash_after)

    @property
    def has_uncommitted(self) -> bool:
        """Whether events were posted that no checkpoint covers."""
        return self._uncommitted_since is not None

    def commit(self, hash_after: Callable[[int], int]) -> None:
        """Make everything posted durable, the sinks first. Raises SinkError, SinkMismatch, Violation."""
        projection = self.projection
        if self._uncommitted_since is None or self.is_paused or projection.is_incomplete:
            return
        if projection.sequence - self._checked_at >= projection.events_per_check:
            self.check_sums()
        command = projection.command_sequence
        checkpoint = Checkpoint(
            self.cluster, projection.sequence, command, projection.trades, hash_after(command), self.origin
        )
        if self._store is not None and len(self._sinks) > 1:
            self._store.sync_ahead()
        for sink in self._sinks:
            sink.commit(checkpoint)
        self.committed = checkpoint
        self.checkpoints += 1
        self._uncommitted_since = None
        self._uncommitted_trades = 0

    def check_sums(self) -> None:
        """Check the projection as a whole. Raises Violation."""
        self.projection.check_sums()
        self._checked_at = self.projection.sequence

    def close(self) -> None:
        """Close everything; what was not committed is settled again by the next run."""
        for sink in self._sinks:
            sink.close()

    def _write_image(self, origin: Origin, rows: Tables, sinks: Sequence[Sink]) -> None:
        """Write the rows of the state image to empty sinks."""
        for sink in sinks:
            sink.begin(origin.checkpoint(self.cluster), rows)
            sink.commit(origin.checkpoint(self.cluster))

    def _start_at(self, origin: Origin, projection: P) -> None:
        """Set everything to the state image the projection starts from."""
        self.projection, self.origin = projection, origin
        self.anchor = Anchor(origin.event_sequence, 0, Claim(origin.command_sequence, origin.state_hash))
        self.committed = origin.checkpoint(self.cluster)

    def _open_from_image(self, store: CheckpointStore[P], origin: Origin) -> None:
        """Resume a projection that started from a state image; an empty sink gets the image first."""
        image = store.image()
        if image is None or store.saved is None:
            raise ValueError(f"{store.name}: expected a state image")
        state = _decode(image)
        new = [sink for sink, (_, held) in zip(self._sinks, reversed(self._held), strict=True) if held is None]
        self._write_image(origin, self._factory.image_rows(state), new)
        lowest = min(checkpoint.event_sequence if checkpoint else origin.event_sequence for _, checkpoint in self._held)
        if lowest >= store.base_sequence:
            self._resume(store, store.saved)
            return
        projection = self._factory.from_image(state)
        store.join(origin.checkpoint(self.cluster), image, projection.save())
        self._sinks[-1].open(self.cluster)
        self._start_at(origin, projection)

    def _open_from_event_1(self, held: list[tuple[str, Checkpoint | None]]) -> None:
        """Resume a projection that started with event 1, or start it again if a sink holds too little."""
        lowest = min((checkpoint.event_sequence if checkpoint else 0 for _, checkpoint in held), default=0)
        if self._store is not None and self._store.saved is not None:
            if lowest >= self._store.base_sequence:
                self._resume(self._store, self._store.saved)
            else:
                self._store.restart()
                self._sinks[-1].open(self.cluster)

    def _resume(self, store: CheckpointStore[P], found: Saved) -> None:
        saved = found.checkpoint
        self.projection = store.base()
        journal = store.journal()
        self.projection.post(journal)
        reached = (self.projection.sequence, self.projection.command_sequence, self.projection.trades)
        if reached != (saved.event_sequence, saved.command_sequence, saved.match_id):
            raise SinkMismatch(
                f"{store.name}: the journal leads to event, command and trade {reached}, the checkpoint names {saved}; "
                "move the directory away and settle again from event 1"
            )
        for sink in self._sinks:
            sink.write(journal)
            sink.commit(saved)
        self.anchor = Anchor(saved.event_sequence, found.event_digest, Claim(saved.command_sequence, saved.state_hash))
        self.committed = saved

    def _count_to_checkpoint(self, events: NDArray[np.void]) -> int:
        """Return how many of the events may be posted before the next checkpoint: whole commands, at least one."""
        first = int(events["sequence"][0])
        most = min([len(events), *(mark - first + 1 for mark in self._marks if mark >= first)])
        limit = min(most, EVENTS_PER_CHECKPOINT)
        trades = np.flatnonzero(events["kind"][:limit] == EventKind.TRADE)
        room = max(1, TRADES_PER_CHECKPOINT - self._uncommitted_trades)
        if len(trades) > room:
            limit = int(trades[room])
        if limit == len(events):
            return limit
        commands = events["command_sequence"]
        # A command that the limit cuts in two is left for the next piece, unless it alone exceeds the limit.
        start = int(np.searchsorted(commands, commands[limit]))
        return start or int(np.searchsorted(commands, commands[limit], side="right"))

    def _check_marks(self) -> None:
        """Check that a sink that held more than the projection held the same."""
        for name, checkpoint in self._marks.pop(self.projection.sequence, []):
            reached = (self.projection.command_sequence, self.projection.trades)
            if reached != (checkpoint.command_sequence, checkpoint.match_id):
                raise SinkMismatch(
                    f"{name}: holds another history: at event {checkpoint.event_sequence} it has command and trade "
                    f"{(checkpoint.command_sequence, checkpoint.match_id)}, the feed has {reached}"
                )


def _decode(image: bytes) -> StateImage:
    try:
        return state_image.decode(image)
    except FrameError as error:
        raise SinkMismatch(f"{error}; another version of smrx wrote it") from None
