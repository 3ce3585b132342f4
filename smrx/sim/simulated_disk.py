"""Simulate a node's disk: what survives a crash, and the faults of the disk itself.

Owns the bytes of the journal and the snapshots of one node. Keeps the contract of smrx/consensus/storage.py: noted
changes are lost in a crash; those of an interrupted sync are durable together or not at all. Faults break the contract
on request: a sync is torn, a bit flips, the disk is full. The real journal runs on it.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

from smrx.consensus import MemoryJournal, MetaStore, StateMachine
from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.restart import check_term, replay_log
from smrx.consensus.snapshots import Snapshot, is_intact
from smrx.consensus.storage import StorageFull

#: As on a real node: the older snapshot serves if the newer one is damaged.
_SNAPSHOTS_KEPT: Final = 2


class Disk:
    """The content of one node's disk, and its faults."""

    def __init__(self, rng: random.Random) -> None:
        self.records: dict[bytes, bytes] = {}
        self.snapshots: list[Snapshot] = []
        #: Whether every sync fails because the disk is full.
        self.full = False
        #: Whether a crash in the next sync makes a part of it durable.
        self.tears_next_sync = False
        #: Whether the content may be damaged, so that the node may have to be rebuilt from the others.
        self.may_be_damaged = False
        self._rng = rng

    def flip_bit(self) -> None:
        """Flip one bit of the journal or of a snapshot."""
        keys = sorted(self.records)
        if self.snapshots and self._rng.random() < 0.3:
            at = self._rng.randrange(len(self.snapshots))
            intact = self.snapshots[at]
            self.snapshots[at] = Snapshot(intact.index, intact.term, self._flipped(intact.data), intact.checksum)
        elif keys:
            key = self._rng.choice(keys)
            self.records[key] = self._flipped(self.records[key])
        self.may_be_damaged = True

    def wipe(self) -> None:
        """Remove everything but the meta data, as an operator does for a node that refuses its files."""
        self.records.clear()
        self.snapshots.clear()

    def _flipped(self, data: bytes | memoryview) -> bytes:
        changed = bytearray(data)
        changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def apply_changes(self, changes: list[tuple[bytes, bytes | None, bytes]], *, partially: bool) -> None:
        """Make changes durable, or a random number of the first ones."""
        for first, value, last in changes[: self._rng.randrange(len(changes) + 1)] if partially else changes:
            if value is not None:
                self.records[first] = value
            else:
                for key in [key for key in self.records if first <= key <= last]:
                    del self.records[key]


class SimulatedStorage:
    """The Storage of one incarnation of a node; step() is called where the process may crash."""

    def __init__(self, disk: Disk, step: Callable[[], None]) -> None:
        self._disk = disk
        self._step = step
        self._changes: list[tuple[bytes, bytes | None, bytes]] = []

    def get(self, key: bytes) -> bytes | None:
        """See Storage."""
        return self._disk.records.get(key)

    def read(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See Storage."""
        for key in sorted(self._disk.records):
            if first <= key <= last:
                yield key, self._disk.records[key]

    def put(self, key: bytes, value: bytes) -> None:
        """See Storage."""
        self._changes.append((key, value, b""))

    def delete(self, first: bytes, last: bytes) -> None:
        """See Storage."""
        self._changes.append((first, None, last))

    def sync(self) -> None:
        """See Storage."""
        disk = self._disk
        try:
            self._step()
        except BaseException:
            if disk.tears_next_sync:
                disk.tears_next_sync = False
                disk.may_be_damaged = True
                disk.apply_changes(self._changes, partially=True)
            raise
        if disk.full:
            raise StorageFull("the simulated disk is full")
        disk.apply_changes(self._changes, partially=False)
        self._changes = []
        self._step()

    def close(self) -> None:
        """See Storage."""
        self._changes = []


class SimulatedSnapshots:
    """The SnapshotStore of one incarnation of a node in disk mode; a snapshot takes some turns."""

    persistent = True

    def __init__(self, disk: Disk, take: Callable[[], bytes], rng: random.Random, step: Callable[[], None]) -> None:
        self._disk = disk
        self._take = take
        self._rng = rng
        self._step = step
        self._pending: Snapshot | None = None
        self._polls = 0
        self._refused: set[int] = set()

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """See SnapshotStore."""
        if self._pending is None:
            self._pending = Snapshot.of(index, term, self._take())
            self._polls = self._rng.randrange(1, 12)

    def poll(self) -> None:
        """See SnapshotStore."""
        if self._pending is not None:
            self._polls -= 1
            if self._polls <= 0:
                ready, self._pending = self._pending, None
                if not self._disk.full:
                    self.keep(ready)

    @property
    def pending_index(self) -> int | None:
        """See SnapshotStore."""
        return None if self._pending is None else self._pending.index

    def newest(self) -> Snapshot | None:
        """See SnapshotStore."""
        usable = [snapshot for snapshot in self._disk.snapshots if snapshot.index not in self._refused]
        return usable[-1] if usable else None

    def oldest_index(self) -> int:
        """See SnapshotStore."""
        return self._disk.snapshots[0].index if len(self._disk.snapshots) > 1 else 0

    def keep(self, snapshot: Snapshot) -> None:
        """See SnapshotStore."""
        self._step()
        # The leader may have sent a newer one since this one was started.
        others = [known for known in self._disk.snapshots if known.index != snapshot.index]
        self._disk.snapshots[:] = sorted([*others, snapshot], key=lambda known: known.index)[-_SNAPSHOTS_KEPT:]
        self._refused.discard(snapshot.index)
        self._step()

    def refused(self, index: int) -> None:
        """See SnapshotStore."""
        self._refused |= {
            known.index for known in self._disk.snapshots if known.index == index and not _is_intact(known)
        }

    def release(self, index: int) -> None:
        """See SnapshotStore."""

    def close(self) -> None:
        """See SnapshotStore."""
        self._pending = None


def open_journal(
    disk: Disk, journal: type[DiskJournal], meta: MetaStore, cluster: str, node_id: int, step: Callable[[], None]
) -> DiskJournal:
    """Return the journal on a disk. Raise JournalError, or StorageFull if the disk has no space to create one."""
    return journal(
        SimulatedStorage(disk, step), cluster=cluster, node_id=node_id, joined=meta.joined or not meta.initialized
    )


def restore_state(disk: Disk, journal: MemoryJournal, meta: MetaStore, machine: StateMachine) -> None:
    """Restore the newest state that the disk holds: smrx/consensus/restart.py, for snapshots that are no files.

    Raise JournalError if no intact snapshot covers the start of the log, or if term and vote are older than the log.
    """
    disk.snapshots[:] = [known for known in disk.snapshots if _is_intact(known)]
    usable = [known for known in disk.snapshots if known.index >= journal.first_index]
    if not usable and journal.first_index > 1:
        raise JournalError(f"the log starts at entry {journal.first_index}, and no intact snapshot covers it")
    check_term(journal, meta, "disk")
    newest = usable[-1] if usable else None
    if newest is not None:
        machine.restore(bytes(newest.data))
    replay_log(machine, journal, meta, None if newest is None else (newest.index, newest.term))


def _is_intact(snapshot: Snapshot) -> bool:
    return is_intact(snapshot.data, snapshot.checksum)
