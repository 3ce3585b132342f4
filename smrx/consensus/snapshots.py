"""Define snapshots of the state machine: when one is due, where they are stored, how they are transferred.

Owns the interface of a store (SnapshotStore), the store in memory, the sender's window and the receiver's buffer. Does
no I/O and reads no clock. Called by the replica, which sends the chunks of `Outgoing` and passes those it receives to
`Incoming`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import xxhash

from smrx.consensus.messages import CHUNK_BYTES, SnapshotChunk

#: Chunks under way at once: 1 MiB a round trip, 100 MB/s with a round trip of 10 ms, which leaves room for orders.
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
    """Takes snapshots of the machine and stores the newest; only keep() blocks the loop.

    A simulation replaces the files by its own store: what keep() and a finished begin() stored survives a crash, and
    newest() of the next incarnation is the newest complete one.
    """

    #: Whether snapshots survive the process.
    persistent: bool

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Start to take a snapshot of the present state, after log entry (index, term), unless one is being taken.

        `for_restart`: a restart uses it; otherwise only a peer needs it.
        """
        ...

    def poll(self) -> None:
        """Check whether the snapshot being taken is complete."""
        ...

    @property
    def pending_index(self) -> int | None:
        """The log index of the snapshot being taken, None if there is none."""
        ...

    def newest(self) -> Snapshot | None:
        """Return the newest complete snapshot."""
        ...

    def oldest_index(self) -> int:
        """Return the log index of the oldest snapshot for a restart, 0 unless there are two; the log after it stays."""
        ...

    def keep(self, snapshot: Snapshot) -> None:
        """Store a snapshot that a leader sent and the machine has restored; durable, if the store is, on return."""
        ...

    def refused(self, index: int) -> None:
        """Note that a peer refused the snapshot at this index; it is sent again only if it is verified to be valid."""
        ...

    def release(self, index: int) -> None:
        """Free snapshots below this index: the log no longer continues them."""
        ...

    def close(self) -> None:
        """Abandon the snapshot being taken."""
        ...


class MemorySnapshots:
    """Takes snapshots synchronously and keeps the newest in memory."""

    persistent = False
    pending_index: int | None = None

    def __init__(self, take: Callable[[], bytes]) -> None:
        """`take` returns the machine's state as bytes."""
        self._take = take
        self._newest: Snapshot | None = None

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Take a snapshot for a peer; none is kept for restarts."""
        if not for_restart:
            self._newest = Snapshot.of(index, term, self._take())

    def poll(self) -> None:
        """Do nothing: snapshots are taken at once."""

    def newest(self) -> Snapshot | None:
        """Return the last one taken."""
        return self._newest

    def oldest_index(self) -> int:
        """Return 0: none is kept for restarts."""
        return 0

    def keep(self, snapshot: Snapshot) -> None:
        """Do nothing: memory does not survive the process."""

    def refused(self, index: int) -> None:
        """Free it, so that the next request takes another."""
        self.release(index + 1)

    def release(self, index: int) -> None:
        """Free the snapshot if it is below this index."""
        if self._newest is not None and self._newest.index < index:
            self._newest = None

    def close(self) -> None:
        """Do nothing: snapshots are taken at once."""


class Mark(NamedTuple):
    """A point in the history of a node; `size_bytes` counts everything that was appended to its log."""

    sequence: int
    log_index: int
    size_bytes: int
    time: float


class Schedule:
    """Decides when a snapshot is due: by commands, log entries, bytes or time since the last one."""

    def __init__(self, start: Mark, *, commands: int, seconds: float, entries: int, size_bytes: int) -> None:
        """`start`: the position of the snapshot that the node started with, or zero."""
        self._last = start
        self._begun: Mark | None = None
        self._commands = commands
        self._seconds = seconds
        self._entries = entries
        self._bytes = size_bytes

    def begun(self, mark: Mark) -> None:
        """Record that a snapshot is being taken at this mark."""
        self._begun = mark

    def whole(self, index: int) -> None:
        """Set the log index of the newest complete snapshot; one that failed is due again."""
        if self._begun is not None and index >= self._begun.log_index:
            self._last, self._begun = self._begun, None

    def due(self, mark: Mark) -> bool:
        """Return whether the next snapshot is due."""
        last = self._last
        return (
            mark.sequence - last.sequence >= self._commands
            or mark.log_index - last.log_index >= self._entries
            or mark.size_bytes - last.size_bytes >= self._bytes
            or (mark.sequence > last.sequence and mark.time - last.time >= self._seconds)
        )


class Outgoing:
    """One snapshot that is being sent to one peer, with at most a window of chunks under way."""

    def __init__(self, snapshot: Snapshot, now: float, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Start at the first byte."""
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
        """Record that the peer has the first `offset` bytes, which are fewer than before if it started again."""
        if offset > len(self.snapshot.data) or offset == self._acknowledged:
            return
        self._sent = max(self._sent, offset) if offset > self._acknowledged else offset
        self._acknowledged = offset
        self._moved_at = now

    def stalled_since(self) -> float:
        """Return when the peer last acknowledged more."""
        return self._moved_at

    def rewind(self, now: float) -> None:
        """Send again what was not acknowledged: chunks or replies were lost."""
        self._sent = self._acknowledged
        self._started = False
        self._moved_at = now


class Incoming:
    """The snapshot being received. Chunks are taken in order; after any other, the reply names the right offset."""

    def __init__(self) -> None:
        """Start empty."""
        self._identity: tuple[int, int, int, bytes] | None = None
        self._buffer = bytearray()

    def take(self, chunk: SnapshotChunk) -> int:
        """Add a chunk if it is the next one; return how many bytes were received."""
        identity = (chunk.index, chunk.of_term, chunk.total, chunk.checksum)
        if identity != self._identity:
            self.drop()
            self._identity = identity
        if chunk.offset == len(self._buffer):
            self._buffer += chunk.data
        return len(self._buffer)

    def complete(self, chunk: SnapshotChunk) -> bytes | None:
        """Return the whole state of this chunk's snapshot, None while it is incomplete."""
        return bytes(self._buffer) if len(self._buffer) == chunk.total else None

    def drop(self) -> None:
        """Discard what was received."""
        self._identity = None
        self._buffer = bytearray()


def is_intact(data: bytes | memoryview, checksum: bytes) -> bool:
    """Return whether the bytes match the sender's checksum."""
    return xxhash.xxh3_128_digest(data) == checksum
