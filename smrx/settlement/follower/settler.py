"""From released events to durable books: post, write, commit. Exactly once, wherever the process dies.

Order of a checkpoint: every sink durably holds the events, then the books' own checkpoint is replaced; their journal
is synced beside the sinks, for each sync that waits for the one before is lag. After a crash
the books resume at their checkpoint; a sink that is further skips what it holds, by sequence; one that is behind (a new
one) is given what the journal has, or everything from the first event on. Books that begin in the middle keep the
state image they began with, and give it to a sink that has nothing.

No sockets. Called by the runner, the benchmark and the tests.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.feed.anchor import Anchor
from smrx.settlement.follower.checkpoint_store import BooksStore, Saved
from smrx.settlement.image_books import books_of, rows_of
from smrx.settlement.ledger import Ledger
from smrx.sinks.contract import Checkpoint, Origin, Sink, beginning
from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import state_image
from smrx.wire.codes import EventKind
from smrx.wire.frames import Claim, FrameError

#: A checkpoint is made at least every so many trades ...
TRADES_PER_CHECKPOINT: Final = 1000
#: ... and events: a feed without trades makes progress too.
EVENTS_PER_CHECKPOINT: Final = 1 << 14
#: A quiet feed's checkpoints are at least so far apart: each costs a few writes that reach the disk.
CHECKPOINT_SECONDS: Final = 0.005
#: The sums over all balances are checked once in so many events a balance, so that it costs a fraction of an event.
_EVENTS_PER_SUM: Final = 10
_LEAST_EVENTS_PER_SUM: Final = 100_000

#: Wraps a sink, to make it try again (see sinks/retrying.py).
Wrap = Callable[[Sink], Sink]


def _decoded(image: bytes) -> state_image.StateImage:
    try:
        return state_image.decode(image)
    except FrameError as error:
        raise SinkMismatch(f"{error}; it was kept by another version of smrx") from None


class Settling:
    """One set of books, and the sinks that follow it."""

    def __init__(
        self, cluster: str, directory: str | None, sinks: Sequence[Sink], wrap: Wrap = lambda sink: sink
    ) -> None:
        """Nothing is touched before open(). Without a directory there is no checkpoint: everything is derived anew."""
        self.cluster = cluster
        self.ledger = Ledger()
        self.anchor: Anchor | None = None
        self.committed: Checkpoint | None = None
        self.origin: Origin | None = None  #: where the books begin; None for event 1
        self.paused = False  #: nothing is committed while this is set
        self.checkpoints = 0
        self.trades_before = 0  #: trades settled by earlier runs
        self._sinks = [wrap(sink) for sink in sinks]
        self._books = None if directory is None else BooksStore(directory, lambda: self.ledger)
        if self._books is not None:
            # Committed last: at its checkpoint all the others hold everything.
            self._sinks.append(wrap(self._books))
        self._marks: dict[int, list[tuple[str, Checkpoint]]] = {}
        self._uncommitted_trades = 0
        self._uncommitted_since: float | None = None
        self._sums_at = 0
        self._held: list[tuple[str, Checkpoint | None]] = []

    def open(self) -> None:
        """Open everything and go to where the last run ended. Raises SinkError, SinkMismatch, Violation."""
        self._held = held = [(sink.name, sink.open(self.cluster)) for sink in reversed(self._sinks)]
        saved = None if self._books is None else self._books.saved
        self.origin = None if saved is None else saved.checkpoint.origin
        for name, checkpoint in held:
            if checkpoint is not None and checkpoint.origin != self.origin:
                own = "books begin with event 1" if self.origin is None else str(self.origin)
                raise SinkMismatch(
                    f"{name}: expected data of which {own}, found that {beginning(checkpoint)}; choose another place"
                )
        if self._books is not None and self.origin is not None:
            self._open_joined(self._books, self.origin)
        else:
            self._open_whole(held)
        for name, checkpoint in held:
            if checkpoint is not None and checkpoint.event_sequence > self.ledger.sequence:
                self._marks.setdefault(checkpoint.event_sequence, []).append((name, checkpoint))
        self.trades_before = self.ledger.trades

    def check_empty(self) -> None:
        """Check that no sink holds events, so that books may begin anywhere. Raises SinkMismatch."""
        for name, checkpoint in self._held:
            if checkpoint is not None:
                raise SinkMismatch(
                    f"{name}: expected nothing, to begin with a state of now, found events up to "
                    f"{checkpoint.event_sequence}; choose another place, or go on without joining"
                )

    @property
    def has_books(self) -> bool:
        """Whether the books stand somewhere: a run goes on from there."""
        return self.committed is not None

    def join(self, image: bytes, origin: Origin) -> None:
        """Begin after the state image in `image` (see wire/state_image.py), with open but empty books and sinks.

        Raises SinkMismatch if a sink holds something, Violation if the state contradicts itself, SinkError. A process
        that dies here leaves empty books, or books that know the state and give it to the sinks with the next open().
        """
        self.check_empty()
        state = _decoded(image)
        ledger = books_of(state)
        if self._books is not None:
            self._books.join(origin.checkpoint(self.cluster), image, ledger.save())
            self._sinks[-1].open(self.cluster)
        self._give(origin, rows_of(state), self._sinks if self._books is None else self._sinks[:-1])
        self._stand(origin, ledger)
        self.trades_before = ledger.trades

    def _give(self, origin: Origin, rows: Tables, sinks: Sequence[Sink]) -> None:
        """Let empty sinks begin with the rows of the state image."""
        for sink in sinks:
            sink.begin(origin.checkpoint(self.cluster), rows)
            sink.commit(origin.checkpoint(self.cluster))

    def _stand(self, origin: Origin, ledger: Ledger) -> None:
        """Be where the books begin."""
        self.ledger, self.origin = ledger, origin
        self.anchor = Anchor(origin.event_sequence, 0, Claim(origin.command_sequence, origin.state_hash))
        self.committed = origin.checkpoint(self.cluster)

    def _open_joined(self, books: BooksStore, origin: Origin) -> None:
        """Go on with books that begin in the middle; a sink that is empty begins with them."""
        image = books.opening()
        if image is None or books.saved is None:
            raise ValueError(f"{books.name}: expected a state image")
        state = _decoded(image)
        new = [sink for sink, (_, held) in zip(self._sinks, reversed(self._held), strict=True) if held is None]
        self._give(origin, rows_of(state), new)
        lowest = min(checkpoint.event_sequence if checkpoint else origin.event_sequence for _, checkpoint in self._held)
        if lowest >= books.base_sequence:
            self._resume(books, books.saved)
            return
        ledger = books_of(state)
        books.join(origin.checkpoint(self.cluster), image, ledger.save())
        self._sinks[-1].open(self.cluster)
        self._stand(origin, ledger)

    def _open_whole(self, held: list[tuple[str, Checkpoint | None]]) -> None:
        """Go on with books that begin with event 1."""
        lowest = min((checkpoint.event_sequence if checkpoint else 0 for _, checkpoint in held), default=0)
        if self._books is not None and self._books.saved is not None:
            if lowest >= self._books.base_sequence:
                self._resume(self._books, self._books.saved)
            else:
                self._books.restart()
                self._sinks[-1].open(self.cluster)

    def _resume(self, store: BooksStore, found: Saved) -> None:
        saved = found.checkpoint
        self.ledger = store.base()
        journal = store.journal()
        self.ledger.post(journal)
        stands = (self.ledger.sequence, self.ledger.command_sequence, self.ledger.trades)
        if stands != (saved.event_sequence, saved.command_sequence, saved.match_id):
            raise SinkMismatch(
                f"{store.name}: expected books at event, command and trade {stands}, found a checkpoint of "
                f"{saved}; move the directory away and settle from the beginning"
            )
        for sink in self._sinks:
            sink.write(journal)
            sink.commit(saved)
        self.anchor = Anchor(saved.event_sequence, found.event_digest, Claim(saved.command_sequence, saved.state_hash))
        self.committed = saved

    def take(self, events: NDArray[np.void], hash_after: Callable[[int], int]) -> None:
        """Post whole commands, write them, and commit as often as is due. Raises Violation, SinkError, SinkMismatch."""
        while len(events):
            count = self._until_due(events)
            piece, events = events[:count], events[count:]
            self.ledger.post(piece)
            for sink in self._sinks:
                sink.write(piece)
            self._uncommitted_trades = self.ledger.trades - (self.committed.match_id if self.committed else 0)
            if self._uncommitted_since is None:
                self._uncommitted_since = time.monotonic()
            self._check_marks()
            if len(events):
                self.commit(hash_after)

    def commit_if_due(self, hash_after: Callable[[int], int]) -> None:
        """Commit unless the last checkpoint was just now."""
        since = self._uncommitted_since
        if since is not None and (
            self._uncommitted_trades >= TRADES_PER_CHECKPOINT or time.monotonic() - since >= CHECKPOINT_SECONDS
        ):
            self.commit(hash_after)

    @property
    def uncommitted(self) -> bool:
        """Whether something was posted that no checkpoint covers."""
        return self._uncommitted_since is not None

    def commit(self, hash_after: Callable[[int], int]) -> None:
        """Make everything posted durable, the sinks first. Raises SinkError, SinkMismatch, Violation."""
        if self._uncommitted_since is None or self.paused or self.ledger.in_trade:
            return
        ledger = self.ledger
        if ledger.sequence - self._sums_at >= max(_LEAST_EVENTS_PER_SUM, _EVENTS_PER_SUM * ledger.balance_count):
            self.check_sums()
        command = ledger.command_sequence
        checkpoint = Checkpoint(self.cluster, ledger.sequence, command, ledger.trades, hash_after(command), self.origin)
        if self._books is not None and len(self._sinks) > 1:
            self._books.sync_ahead()
        for sink in self._sinks:
            sink.commit(checkpoint)
        self.committed = checkpoint
        self.checkpoints += 1
        self._uncommitted_since = None
        self._uncommitted_trades = 0

    def check_sums(self) -> None:
        """Check, per asset, that all accounts and the outside sum to zero."""
        self.ledger.check_sums()
        self._sums_at = self.ledger.sequence

    def close(self) -> None:
        """Let go of everything; what was not committed is settled again by the next run."""
        for sink in self._sinks:
            sink.close()

    def _until_due(self, events: NDArray[np.void]) -> int:
        """How many of the events may be posted before the next checkpoint; whole commands, at least one."""
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
        # The command that is cut in two waits whole for the next piece; one that is too long by itself does not.
        start = int(np.searchsorted(commands, commands[limit]))
        return start or int(np.searchsorted(commands, commands[limit], side="right"))

    def _check_marks(self) -> None:
        """Where a sink held more than the books, it must have held the same."""
        for name, checkpoint in self._marks.pop(self.ledger.sequence, []):
            stands = (self.ledger.command_sequence, self.ledger.trades)
            if stands != (checkpoint.command_sequence, checkpoint.match_id):
                raise SinkMismatch(
                    f"{name}: holds another history: at event {checkpoint.event_sequence} it has command and trade "
                    f"{(checkpoint.command_sequence, checkpoint.match_id)}, the feed {stands}"
                )
