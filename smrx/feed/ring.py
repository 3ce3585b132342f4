"""The last events of one node, kept in memory so that a subscriber can be told again what it lost.

Owns one array of fixed size. Does no I/O and reads no clock; never holds a range with a hole in it. Called by the
node's state machine (append, restart) and its publisher (answer).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire import frames
from smrx.wire.frames import Claim, ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.records import EVENT

#: EVENTS frames one request is answered with at most (4 MiB): a subscriber that joins late asks for its history piece
#: by piece, and the node's loop is never held for longer than it takes to copy one piece.
MAX_ANSWER_FRAMES: Final = 4
#: The longest range one request is answered with in full.
MAX_ANSWER_EVENTS: Final = MAX_ANSWER_FRAMES * frames.MAX_EVENTS

#: What the retransmission socket accepts as one message. A request is 32 bytes; ZeroMQ measures its own handshake (41
#: bytes and an identity) by the same limit, and silently drops a peer whose handshake is longer.
MAX_REQUEST_BYTES: Final = 512

_WORDS: Final = EVENT.itemsize // 8


def words(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return records as rows of 8-byte words, without a copy where they are contiguous.

    numpy copies and compares structured records field by field; the same bytes as words are some 30 times faster.
    """
    return np.ascontiguousarray(records).view(np.uint64).reshape(len(records), records.itemsize // 8)


def _unknown(sequence: int) -> int | None:
    return None


class EventRing:
    """The newest `capacity` events of a stream without holes; older ones are overwritten."""

    def __init__(self, capacity: int, next_sequence: int = 1) -> None:
        """Hold nothing; the first event to be appended is `next_sequence`."""
        if capacity < 1:
            raise ValueError(f"ring capacity: expected at least 1 event, found {capacity}")
        # Empty, not zeroed: memory of a large ring is taken from the system only as events fill it.
        self._ring = np.empty((capacity, _WORDS), np.uint64)
        self._oldest = self._next = next_sequence

    def __len__(self) -> int:
        return self._next - self._oldest

    @property
    def capacity(self) -> int:
        """Events it can hold."""
        return len(self._ring)

    @property
    def oldest(self) -> int:
        """Sequence of the oldest event held; newest + 1 if none is."""
        return self._oldest

    @property
    def newest(self) -> int:
        """Sequence of the newest event there was; 0 before the first."""
        return self._next - 1

    def restart(self, next_sequence: int) -> None:
        """Forget everything; the next event to be appended is `next_sequence`."""
        self._oldest = self._next = next_sequence

    def append(self, events: NDArray[np.void]) -> None:
        """Add events that follow the newest one; raises ValueError, with nothing added, if they do not."""
        count = len(events)
        if not count:
            return
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        if first != self._next or last - first != count - 1:
            raise ValueError(
                f"event ring: expected {count} events from sequence {self._next}, found sequences {first} to {last}"
            )
        capacity = len(self._ring)
        kept = words(events[-capacity:])
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

    def outside(self, first: int, last: int) -> list[NDArray[np.uint64]]:
        """The memory of the ring that has no byte of events first..last, of which there are at most `capacity`."""
        capacity = len(self._ring)
        count = last - first + 1
        start, end = first % capacity, (last + 1) % capacity
        if count > 0 and end <= start:
            return [self._ring[end:start]]
        return [self._ring[:start], self._ring[end:]] if count > 0 else [self._ring]


def answer(ring: EventRing, frame: Frame, hash_at: Callable[[int], int | None] = _unknown) -> list[bytes]:
    """Return the frames that answer a request: EVENTS in order, one VOUCHED, or one UNAVAILABLE.

    A range that goes past the newest event, or is longer than MAX_ANSWER_EVENTS, is answered as far as that; the
    subscriber asks for the rest. UNAVAILABLE says what is held, when the first event asked for is not. hash_at gives
    the state hash after a command where it is still known: every answer carries that of the last command whose events
    it completes. Raises FrameError for any other frame and for a range that ends before it begins.
    """
    first, last = frame.correlation, frame.aux
    if frame.kind not in (FrameKind.RETRANSMIT, FrameKind.VOUCH):
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a RETRANSMIT or VOUCH frame, found {frame.kind.name}")
    if first < 1 or (last != 0 and last < first):
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a range of events, found {first} to {last}")
    newest = ring.newest
    last = min(last or newest, newest, first + MAX_ANSWER_EVENTS - 1)
    events = ring.range(first, last)
    if events is None:
        return [frames.encode(FrameKind.UNAVAILABLE, correlation=ring.oldest, aux=newest)]
    if frame.kind is FrameKind.VOUCH:
        return [frames.encode_vouched(events, _claim(ring, events, hash_at))]
    pieces = [events[start : start + frames.MAX_EVENTS] for start in range(0, len(events), frames.MAX_EVENTS)]
    return [frames.encode_events(piece, *_claim(ring, piece, hash_at)) for piece in pieces]


def _claim(ring: EventRing, events: NDArray[np.void], hash_at: Callable[[int], int | None]) -> Claim:
    """What is known of the state after the last command that ends within these events."""
    sequence, command = int(events["sequence"][-1]), int(events["command_sequence"][-1])
    following = ring.range(sequence + 1, sequence + 1)
    if following is not None and int(following["command_sequence"][0]) == command:
        command -= 1
    state_hash = hash_at(command) if command > 0 else None
    return Claim(0, 0) if state_hash is None else Claim(command, state_hash)
