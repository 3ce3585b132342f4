"""The state machine's snapshots: when one is due, where they are kept, and their way to a node that needs one.

Owns what the replica asks of a store (SnapshotStore), the store that takes them in memory and at once, the sending
side's window and the receiving side's buffer. Does no I/O and reads no clock. Called by the replica, which sends what
`Outgoing` hands out and feeds `Incoming` with what arrives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import xxhash

from smrx.consensus.messages import CHUNK_BYTES, SnapshotChunk

#: Chunks under way at once. 1 MiB a round trip is 100 MB/s on a network of 10 ms, and no burden beside live orders.
WINDOW_CHUNKS: Final = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after log entry (index, term)."""

    index: int
    term: int
    data: bytes | memoryview
    checksum: bytes

    @classmethod
    def of(cls, index: int, term: int, data: bytes) -> "Snapshot":
        """Return the snapshot with its checksum."""
        return cls(index, term, data, xxhash.xxh3_128_digest(data))


class SnapshotStore(Protocol):
    """Takes snapshots of the machine and keeps the newest; never makes the loop wait, but for keep().

    A simulation puts its own in place of the files: what keep() and a finished begin() stored survives a crash, and
    newest() of the next life is the newest of it that is whole.
    """

    #: Whether snapshots survive the process.
    persistent: bool

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Begin to take one of the machine as it is now, after log entry (index, term), unless one is being taken.

        `lasting`: for restarts; otherwise only a peer needs it.
        """
        ...

    def poll(self) -> None:
        """See whether the one being taken is ready."""
        ...

    @property
    def pending_index(self) -> int | None:
        """Where the one being taken stands; None if none is."""
        ...

    def newest(self) -> Snapshot | None:
        """The newest one that is whole."""
        ...

    def oldest_index(self) -> int:
        """Where the oldest one kept for a restart stands; 0 if none or only one is. The log from there on must stay."""
        ...

    def keep(self, snapshot: Snapshot) -> None:
        """Keep one that a leader sent and the machine took over; as durable as the store is when this returns."""
        ...

    def refused(self, index: int) -> None:
        """A peer could not use the one at this index: it is not to be sent again unless it proves to be whole."""
        ...

    def release(self, index: int) -> None:
        """No peer can use one below this index any more."""
        ...

    def close(self) -> None:
        """Abandon the one being taken."""
        ...


class MemorySnapshots:
    """Takes them at once and keeps the newest in memory."""

    persistent = False
    pending_index: int | None = None

    def __init__(self, take: Callable[[], bytes]) -> None:
        """`take` returns the machine's state."""
        self._take = take
        self._newest: Snapshot | None = None

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Take one; nobody keeps it for a restart."""
        if not for_restart:
            self._newest = Snapshot.of(index, term, self._take())

    def poll(self) -> None:
        """Nothing is ever under way."""

    def newest(self) -> Snapshot | None:
        """The last one taken."""
        return self._newest

    def oldest_index(self) -> int:
        """None is kept for a restart."""
        return 0

    def keep(self, snapshot: Snapshot) -> None:
        """Memory ends with the process: nothing to keep."""

    def refused(self, index: int) -> None:
        """Take another next time."""
        self.release(index + 1)

    def release(self, index: int) -> None:
        """Free the memory."""
        if self._newest is not None and self._newest.index < index:
            self._newest = None

    def close(self) -> None:
        """Nothing is ever under way."""


class Mark(NamedTuple):
    """A place in the life of a node; `size_bytes` counts all that was ever appended to its log."""

    sequence: int
    log_index: int
    size_bytes: int
    time: float


class Schedule:
    """When a snapshot is due: so many commands or log entries after the last one, or so long."""

    def __init__(self, start: Mark, *, commands: int, seconds: float, entries: int, size_bytes: int) -> None:
        """`start`: where the snapshot stands that the node began with, or the beginning."""
        self._last = start
        self._begun: Mark | None = None
        self._commands = commands
        self._seconds = seconds
        self._entries = entries
        self._bytes = size_bytes

    def begun(self, mark: Mark) -> None:
        """One is being taken here."""
        self._begun = mark

    def whole(self, index: int) -> None:
        """The newest snapshot that is whole stands at this entry; one that failed is due again."""
        if self._begun is not None and index >= self._begun.log_index:
            self._last, self._begun = self._begun, None

    def due(self, mark: Mark) -> bool:
        """Whether it is time for the next."""
        last = self._last
        return (
            mark.sequence - last.sequence >= self._commands
            or mark.log_index - last.log_index >= self._entries
            or mark.size_bytes - last.size_bytes >= self._bytes
            or (mark.sequence > last.sequence and mark.time - last.time >= self._seconds)
        )


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
            yield offset, bytes(data[offset : self._sent])

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


def is_intact(data: bytes | memoryview, checksum: bytes) -> bool:
    """Whether these bytes are the ones the sender took the checksum of."""
    return xxhash.xxh3_128_digest(data) == checksum
