"""Keep the newest events of a node in memory, and turn events into frames for subscribers.

EventRing owns one array of fixed size and never holds a range with a gap in it. entry_frames() makes the frames of a
new log entry. No I/O, no clock. The replicated state appends, the publisher sends.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.memory import aligned_zeros, extended
from smrx.wire import frames
from smrx.wire.frames import Claim
from smrx.wire.record_words import record_words
from smrx.wire.records import EVENT

_WORDS: Final = EVENT.itemsize // 8
_WORD: Final = np.dtype("<u8")
#: The word of an event that holds the command's sequence.
_COMMAND_WORD: Final = 1


class EventRing:
    """The newest `capacity` events of a stream without gaps; older ones are overwritten."""

    def __init__(self, capacity: int, next_sequence: int = 1) -> None:
        """Create an empty ring whose first event will be `next_sequence`."""
        if capacity < 1:
            raise ValueError(f"ring capacity: expected at least 1 event, found {capacity}")
        # The memory of a large ring is taken from the system only as events fill it, a page at a time.
        words = aligned_zeros(1, _WORD, capacity * _WORDS)
        self._ring = extended(words, capacity * _WORDS, _WORD).reshape(capacity, _WORDS)
        self._oldest = self._next = next_sequence

    def __len__(self) -> int:
        return self._next - self._oldest

    @property
    def capacity(self) -> int:
        """The number of events it can hold."""
        return len(self._ring)

    @property
    def oldest(self) -> int:
        """The sequence of the oldest event held; newest + 1 if the ring is empty."""
        return self._oldest

    @property
    def newest(self) -> int:
        """The sequence of the newest event appended; 0 before the first."""
        return self._next - 1

    def restart(self, next_sequence: int) -> None:
        """Drop every event; the next event to be appended is `next_sequence`."""
        self._oldest = self._next = next_sequence

    def append(self, events: NDArray[np.void]) -> None:
        """Append the events that follow the newest one; raise ValueError, with nothing appended, for others."""
        count = len(events)
        if not count:
            return
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        if first != self._next or last - first != count - 1:
            raise ValueError(
                f"event ring: expected {count} events from sequence {self._next}, found sequences {first} to {last}"
            )
        capacity = len(self._ring)
        kept = record_words(events[-capacity:])
        start = (first + count - len(kept)) % capacity
        head = min(len(kept), capacity - start)
        self._ring[start : start + head] = kept[:head]
        self._ring[: len(kept) - head] = kept[head:]
        self._next += count
        self._oldest = max(self._oldest, self._next - capacity)

    def range(self, first: int, last: int) -> NDArray[np.void] | None:
        """Return a copy of events first..last, or None unless all of them are held."""
        if not self._oldest <= first <= last < self._next:
            return None
        capacity = len(self._ring)
        count = last - first + 1
        start = first % capacity
        head = min(count, capacity - start)
        events = np.empty((count, _WORDS), np.uint64)
        events[:head] = self._ring[start : start + head]
        events[head:] = self._ring[: count - head]
        return events.view(EVENT).reshape(-1)

    def views(self, first: int, last: int) -> list[NDArray[np.void]]:
        """Return events first..last, all held, as one view of the ring's memory or two: append() overwrites them."""
        capacity = len(self._ring)
        start, count = first % capacity, last - first + 1
        parts = (self._ring[start : start + count], self._ring[: max(0, start + count - capacity)])
        return [part.view(EVENT).reshape(-1) for part in parts if len(part)]

    def command_of(self, sequence: int) -> int:
        """Return the sequence of the command of an event that is held."""
        return int(self._ring[sequence % len(self._ring), _COMMAND_WORD])

    def outside(self, first: int, last: int) -> list[NDArray[np.uint64]]:
        """Return the parts of the ring's memory that hold none of events first..last (at most `capacity` of them)."""
        capacity = len(self._ring)
        count = last - first + 1
        start, end = first % capacity, (last + 1) % capacity
        if count > 0 and end <= start:
            return [self._ring[end:start]]
        return [self._ring[:start], self._ring[end:]] if count > 0 else [self._ring]


def claim_at(ring: EventRing, last: int, hash_at: Callable[[int], int | None]) -> Claim:
    """Return the last command that ends with event `last`, held by the ring, or before it, and its state hash.

    hash_at(command) returns the state hash after a command, None if it is no longer known; then, and if no command is
    known to end there, the claim is (0, 0).
    """
    command = ring.command_of(last)
    if last < ring.newest and ring.command_of(last + 1) == command:
        command -= 1
    state_hash = hash_at(command) if command > 0 else None
    return Claim(0, 0) if state_hash is None else Claim(command, state_hash)


def entry_frames(events: NDArray[np.void], claim: Claim, max_events: int) -> Iterator[bytes]:
    """Yield the EVENTS frames in which the events of one log entry, whole commands, are published.

    Only the last frame carries the claim: a frame before it may end inside a command, whose state does not exist yet.
    """
    for start in range(0, len(events), max_events):
        is_last = start + max_events >= len(events)
        yield frames.encode_events(events[start : start + max_events], *(claim if is_last else (0, 0)))
