"""Model a disk in memory that can lose power at any step, and journals with bugs that lose data.

What was noted and not synced is gone after a crash; a sync that is cut short is there as a whole or not at all, unless
the disk is told to tear it.
"""

from collections.abc import Iterator

from smrx.consensus.snapshots import Snapshot
from smrx.consensus.storage import StorageFull


class Crash(BaseException):
    """The power has failed."""


class Platter:
    """What survives a crash."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        #: Steps until the power fails: buffering a change is one, a sync is two (before and after it is durable).
        self.steps_left: int | None = None
        #: How many changes of an interrupted sync reach the disk; None for all or none of them.
        self.torn_after: int | None = None
        self.full = False

    def step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise Crash


class ModelStorage:
    """The Storage on a Platter."""

    def __init__(self, platter: Platter) -> None:
        self._platter = platter
        self._changes: list[tuple[bytes, bytes | None, bytes]] = []

    def get(self, key: bytes) -> bytes | None:
        return self._platter.records.get(key)

    def read(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self._platter.records):
            if first <= key <= last:
                yield key, self._platter.records[key]

    def put(self, key: bytes, value: bytes) -> None:
        self._platter.step()
        self._changes.append((key, value, b""))

    def delete(self, first: bytes, last: bytes) -> None:
        self._platter.step()
        self._changes.append((first, None, last))

    def sync(self) -> None:
        platter = self._platter
        try:
            platter.step()
        except Crash:
            if platter.torn_after is not None:
                self._perform(platter.torn_after)
            raise
        if platter.full:
            raise StorageFull("no room")
        self._perform(len(self._changes))
        self._changes = []
        platter.step()

    def close(self) -> None:
        self._changes = []

    def _perform(self, count: int) -> None:
        for first, value, last in self._changes[:count]:
            if value is not None:
                self._platter.records[first] = value
            else:
                for key in [key for key in self._platter.records if first <= key <= last]:
                    del self._platter.records[key]


class ModelSnapshots:
    """A SnapshotStore whose content survives a crash; a snapshot is complete at the next poll."""

    persistent = True

    def __init__(self, kept: list[Snapshot]) -> None:
        self._kept = kept
        self._pending: Snapshot | None = None
        self.take = lambda: b""

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        if self._pending is None:
            self._pending = Snapshot.of(index, term, self.take())

    def poll(self) -> None:
        if self._pending is not None:
            self.keep(self._pending)
            self._pending = None

    @property
    def pending_index(self) -> int | None:
        return None if self._pending is None else self._pending.index

    def newest(self) -> Snapshot | None:
        return self._kept[-1] if self._kept else None

    def oldest_index(self) -> int:
        return self._kept[0].index if len(self._kept) > 1 else 0

    def keep(self, snapshot: Snapshot) -> None:
        self._kept.append(snapshot)
        del self._kept[:-2]

    def refused(self, index: int) -> None:
        pass

    def release(self, index: int) -> None:
        pass

    def close(self) -> None:
        self._pending = None
