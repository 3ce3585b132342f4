"""A node's disk: what survives its crashes, and what goes wrong with it.

Owns the bytes of the journal and the snapshots of one node. Keeps the contract of smrx/consensus/storage.py: noted
changes are gone after a crash, those of a sync that was cut short are all there or not at all. Told to, it breaks it:
a sync is torn, a bit is another one, there is no room. The real journal works on it.
"""

import random
from collections.abc import Callable, Iterator

from smrx.consensus import MemoryJournal, MetaStore, StateMachine
from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.restart import check_term, replay_log
from smrx.consensus.snapshots import Snapshot, is_intact
from smrx.consensus.storage import StorageFull

#: Two, as the files of a real node: the older one is there if the newer one is damaged.
_KEPT: int = 2


class Disk:
    """What is on one node's disk."""

    def __init__(self, chance: random.Random) -> None:
        self.records: dict[bytes, bytes] = {}
        self.snapshots: list[Snapshot] = []
        #: There is no room: every sync fails.
        self.full = False
        #: The next sync that a crash cuts short is there in part.
        self.tears = False
        #: Its content may be damaged: the node may have to be rebuilt from the others.
        self.spoiled = False
        self._chance = chance

    def rot(self) -> None:
        """Change one bit of the journal or of a snapshot."""
        keys = sorted(self.records)
        if self.snapshots and self._chance.random() < 0.3:
            at = self._chance.randrange(len(self.snapshots))
            whole = self.snapshots[at]
            self.snapshots[at] = Snapshot(whole.index, whole.term, self._flipped(whole.data), whole.checksum)
        elif keys:
            key = self._chance.choice(keys)
            self.records[key] = self._flipped(self.records[key])
        self.spoiled = True

    def wipe(self) -> None:
        """What an operator does to a node that refuses its own files: everything but the meta data goes."""
        self.records.clear()
        self.snapshots.clear()

    def _flipped(self, data: bytes | memoryview) -> bytes:
        changed = bytearray(data)
        changed[self._chance.randrange(len(changed))] ^= 1 << self._chance.randrange(8)
        return bytes(changed)

    def perform(self, changes: list[tuple[bytes, bytes | None, bytes]], *, partly: bool) -> None:
        """Make noted changes durable."""
        for first, value, last in changes[: self._chance.randrange(len(changes) + 1)] if partly else changes:
            if value is not None:
                self.records[first] = value
            else:
                for key in [key for key in self.records if first <= key <= last]:
                    del self.records[key]


class SimulatedStorage:
    """The Storage of one life of a node; step() is called where the process may die."""

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
            if disk.tears:
                disk.tears = False
                disk.spoiled = True
                disk.perform(self._changes, partly=True)
            raise
        if disk.full:
            raise StorageFull("expected room to write, found a full disk")
        disk.perform(self._changes, partly=False)
        self._changes = []
        self._step()

    def close(self) -> None:
        """See Storage."""
        self._changes = []


class SimulatedSnapshots:
    """The SnapshotStore of one life of a node in disk mode; what is begun takes some turns."""

    persistent = True

    def __init__(self, disk: Disk, take: Callable[[], bytes], chance: random.Random, step: Callable[[], None]) -> None:
        self._disk = disk
        self._take = take
        self._chance = chance
        self._step = step
        self._pending: Snapshot | None = None
        self._polls = 0
        self._refused: set[int] = set()

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """See SnapshotStore."""
        if self._pending is None:
            self._pending = Snapshot.of(index, term, self._take())
            self._polls = self._chance.randrange(1, 12)

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
        whole = [snapshot for snapshot in self._disk.snapshots if snapshot.index not in self._refused]
        return whole[-1] if whole else None

    def oldest_index(self) -> int:
        """See SnapshotStore."""
        return self._disk.snapshots[0].index if len(self._disk.snapshots) > 1 else 0

    def keep(self, snapshot: Snapshot) -> None:
        """See SnapshotStore."""
        self._step()
        # One that was begun before a leader sent a newer one may come after it.
        others = [known for known in self._disk.snapshots if known.index != snapshot.index]
        self._disk.snapshots[:] = sorted([*others, snapshot], key=lambda known: known.index)[-_KEPT:]
        self._refused.discard(snapshot.index)
        self._step()

    def refused(self, index: int) -> None:
        """See SnapshotStore."""
        self._refused |= {known.index for known in self._disk.snapshots if known.index == index and not _whole(known)}

    def release(self, index: int) -> None:
        """See SnapshotStore."""

    def close(self) -> None:
        """See SnapshotStore."""
        self._pending = None


def opened(
    disk: Disk, journal: type[DiskJournal], meta: MetaStore, cluster: str, node_id: int, step: Callable[[], None]
) -> DiskJournal:
    """The journal on a disk. Raises JournalError, or StorageFull where there is no room to begin one."""
    return journal(
        SimulatedStorage(disk, step), cluster=cluster, node_id=node_id, joined=meta.joined or not meta.initialized
    )


def restart(disk: Disk, journal: MemoryJournal, meta: MetaStore, machine: StateMachine) -> None:
    """Bring the machine to where the disk can bring it: smrx/consensus/restart.py, for snapshots that are no files.

    Raises JournalError where nothing whole is left to begin with, and where term and vote are older than the log.
    """
    disk.snapshots[:] = [known for known in disk.snapshots if _whole(known)]
    usable = [known for known in disk.snapshots if known.index >= journal.first_index]
    if not usable and journal.first_index > 1:
        raise JournalError(f"expected a snapshot at log entry {journal.first_index} or later")
    check_term(journal, meta, "disk")
    newest = usable[-1] if usable else None
    if newest is not None:
        machine.restore(bytes(newest.data))
    replay_log(machine, journal, meta, None if newest is None else (newest.index, newest.term))


def _whole(snapshot: Snapshot) -> bool:
    return is_intact(snapshot.data, snapshot.checksum)
