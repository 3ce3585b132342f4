"""The state machine's snapshots on their way to a node whose missing entries are no longer in the log.

Owns the snapshot in memory, the sending side's window and the receiving side's buffer. Does no I/O and reads no clock.
Called by the replica, which sends what `Outgoing` hands out and feeds `Incoming` with what arrives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import xxhash

from smrx.consensus.messages import CHUNK_BYTES, SnapshotChunk

#: Chunks under way at once. 1 MiB a round trip is 100 MB/s on a network of 10 ms, and no burden beside live orders.
WINDOW_CHUNKS: Final = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after log entry (index, term)."""

    index: int
    term: int
    data: bytes
    checksum: bytes

    @classmethod
    def of(cls, index: int, term: int, data: bytes) -> "Snapshot":
        """Return the snapshot with its checksum."""
        return cls(index, term, data, xxhash.xxh3_128_digest(data))


class Outgoing:
    """One snapshot on its way to one peer: at most a window of chunks is under way."""

    def __init__(self, snapshot: Snapshot, now: float, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Begin at the first byte."""
        self.snapshot = snapshot
        self._chunk_bytes = chunk_bytes
        self._acknowledged = 0
        self._sent = 0
        self._started = False
        self._moved_at = now

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, data) of what may be sent now."""
        data = self.snapshot.data
        while not self._started or (
            self._sent < len(data) and self._sent - self._acknowledged < WINDOW_CHUNKS * self._chunk_bytes
        ):
            self._started = True
            offset, self._sent = self._sent, min(self._sent + self._chunk_bytes, len(data))
            yield offset, data[offset : self._sent]

    def acknowledge(self, offset: int, now: float) -> None:
        """The peer has the first `offset` bytes; fewer than it had before if it began anew."""
        if offset > len(self.snapshot.data) or offset == self._acknowledged:
            return
        self._sent = max(self._sent, offset) if offset > self._acknowledged else offset
        self._acknowledged = offset
        self._moved_at = now

    def stalled_since(self) -> float:
        """When the peer last got ahead."""
        return self._moved_at

    def rewind(self, now: float) -> None:
        """Send again what was not acknowledged: it, or the word of it, was lost."""
        self._sent = self._acknowledged
        self._started = False
        self._moved_at = now


class Incoming:
    """The snapshot being received. Chunks are taken in order; anything else asks for the right place again."""

    def __init__(self) -> None:
        """Expect nothing yet."""
        self._identity: tuple[int, int, int, bytes] | None = None
        self._buffer = bytearray()

    def take(self, chunk: SnapshotChunk) -> int:
        """Add a chunk if it is the next one; return how many bytes are here now."""
        identity = (chunk.index, chunk.of_term, chunk.total, chunk.checksum)
        if identity != self._identity:
            self.drop()
            self._identity = identity
        if chunk.offset == len(self._buffer):
            self._buffer += chunk.data
        return len(self._buffer)

    def complete(self, chunk: SnapshotChunk) -> bytes | None:
        """Return the whole snapshot of this chunk, None while it is not all here."""
        return bytes(self._buffer) if len(self._buffer) == chunk.total else None

    def drop(self) -> None:
        """Forget what was received."""
        self._identity = None
        self._buffer = bytearray()


def is_intact(data: bytes, checksum: bytes) -> bool:
    """Whether these bytes are the ones the sender took the checksum of."""
    return xxhash.xxh3_128_digest(data) == checksum
