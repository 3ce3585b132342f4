"""Hold the events around the next one to deliver: delivered ones to compare late copies with, later ones after a gap.

Owns one array of fixed size, a ring indexed by sequence; memory does not grow, whatever arrives. The first copy of an
event is kept and delivered; later copies are compared with it. Sans I/O. Called by the sequencer.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.feed.feed_errors import FeedConflict
from smrx.wire.record_words import concatenate_records
from smrx.wire.records import EVENT


class EventWindow:
    """The last `retained` events delivered, and up to `ahead` events from the next one on."""

    def __init__(self, first: int, ahead: int, retained: int) -> None:
        """Start empty; event `first` is delivered first."""
        if first < 1 or ahead < 1 or retained < 0:
            raise ValueError(f"expected first and ahead of at least 1, found {first} and {ahead}")
        self.expected = first  #: the next event to deliver
        self.limit: int | None = None  #: the last event to deliver for now; None for no limit
        self.delivered = 0
        self.duplicates = 0  #: events that came again
        self.beyond_window = 0  #: events that did not fit and were dropped
        self._start = first
        self._ahead = ahead
        self._retained = retained
        self._capacity = ahead + retained
        self._store = np.empty((self._capacity, EVENT.itemsize // 8), np.uint64)
        self._present = np.zeros(self._capacity, np.bool_)
        self._source = np.zeros(self._capacity, np.int64)
        self._waiting = 0
        self._out: list[NDArray[np.void]] = []

    @property
    def last(self) -> int:
        """The last event that fits; later ones are dropped, and asked for when they fit."""
        return self.expected + self._ahead - 1

    @property
    def at_limit(self) -> bool:
        """Whether the next event lies beyond the limit, so that nothing more is delivered."""
        return self.limit is not None and self.expected > self.limit

    def take(self) -> NDArray[np.void]:
        """Return the events delivered since the last call, in order; the caller owns them."""
        out, self._out = self._out, []
        return concatenate_records(out) if out else np.empty(0, EVENT)

    def store(self, node: int, rows: NDArray[np.uint64], first: int) -> tuple[int, int] | None:
        """Store the new ones among a node's events from `first` on, and compare the others with their first copy.

        Returns the first and last event stored or compared; None if there are none. Raises FeedConflict.
        """
        last = first + len(rows) - 1
        low = max(first, self._start, self.expected - self._retained)
        high = min(last, self.last)
        self.beyond_window += last - max(high, first - 1)
        self.duplicates += max(0, min(low, last + 1) - first)
        position = low
        while position <= high:
            slot = position % self._capacity
            count = min(high - position + 1, self._capacity - slot)
            piece = rows[position - first : position - first + count]
            present = self._present[slot : slot + count]
            known = int(np.count_nonzero(present))
            if known:
                self._compare(node, piece, slot, position, present)
            if known < count:
                missing = ~present
                if not known:
                    self._store[slot : slot + count] = piece
                else:
                    self._store[slot : slot + count][missing] = piece[missing]
                self._source[slot : slot + count][missing] = node
                present[:] = True
                self._waiting += count - known
            self.duplicates += known
            position += count
        return (low, high) if low <= high else None

    def deliver(self) -> int:
        """Deliver the events that follow the last one delivered, up to the limit; return how many."""
        total = 0
        while self._waiting:
            slot = self.expected % self._capacity
            span = self._present[slot : min(slot + self._waiting, self._capacity)]
            count = len(span) if span.all() else int(span.argmin())
            if self.limit is not None:
                count = min(count, self.limit - self.expected + 1)
            if count <= 0:
                break
            self._out.append(self._store[slot : slot + count].copy().view(EVENT).reshape(-1))
            self._free(self.expected - self._retained, count)
            self.expected += count
            self._waiting -= count
            total += count
        self.delivered += total
        return total

    def rewind(self, first: int) -> None:
        """Drop event `first` and everything after it, delivered or not; it is the next event to deliver."""
        self._start = self.expected = first
        self._present[:] = False
        self._waiting = 0
        self._out = []

    def gap_end(self, newest: int) -> int:
        """Return the last event of the gap that starts at `expected`, of a stream whose newest event is `newest`."""
        if not self._waiting:
            return newest
        for start, stop in self._spans(self.expected, self.expected + self._ahead):
            present = self._present[start % self._capacity : start % self._capacity + stop - start]
            at = int(present.argmax())
            if present[at]:
                return start + at - 1
        return newest

    def _compare(self, node: int, piece: NDArray[np.uint64], slot: int, first: int, present: NDArray[np.bool_]) -> None:
        differs = self._store[slot : slot + len(piece)] != piece
        if differs.any() and (different := differs.any(axis=1) & present).any():
            at = int(different.argmax())
            source = int(self._source[slot + at])
            copy, first_copy = (rows[at].view(EVENT)[0] for rows in (piece, self._store[slot : slot + len(piece)]))
            raise FeedConflict(first + at, node, source, copy, first_copy)

    def _free(self, first: int, count: int) -> None:
        """Free the slots of `count` retained events from `first` on, which the window moves past."""
        slot = first % self._capacity
        head = min(count, self._capacity - slot)
        self._present[slot : slot + head] = False
        self._present[: count - head] = False

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Split a range of sequences where it wraps in the array."""
        wrap = start + self._capacity - start % self._capacity
        return [(start, stop)] if stop <= wrap else [(start, wrap), (wrap, stop)]
