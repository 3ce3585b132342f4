"""Compact the log, and take the snapshots that allow it.

In memory mode the log is cut at its limits: the state is in the machine, and a snapshot is taken only when a peer needs
one. In disk mode snapshots are taken on a schedule, and the log is cut below the oldest one that a restart may use.
Called at the end of each tick.
"""

from collections.abc import Sequence
from typing import Final

from smrx.consensus.context import ReplicaContext
from smrx.consensus.leader import Leader
from smrx.consensus.raft_library import now
from smrx.consensus.snapshots import Mark, Schedule, SnapshotStore

#: A quarter of a compacted log stays, so that a peer that is a little behind needs no snapshot.
_TAIL_PART: Final = 4
#: Entries of a durable log dropped in one turn, which bounds the time this takes.
_ENTRIES_PER_TICK: Final = 2048


class Compaction:
    """The part of a replica that keeps its log short."""

    def __init__(
        self,
        context: ReplicaContext,
        leader: Leader,
        store: SnapshotStore,
        *,
        peers: Sequence[int],
        snapshot_sequence: int,
    ) -> None:
        """`snapshot_sequence` is the command sequence of the newest stored snapshot; raises ValueError for settings."""
        self._raft = context.raft
        self._journal = context.journal
        self._machine = context.machine
        self._leader = leader
        self._store = store
        settings = context.settings
        self.max_entries = settings.compaction_entries
        self.max_bytes = settings.compaction_bytes
        self._is_requested = self._snapshot_is_requested = False
        # Snapshots are due at half of the limits: the other half is what follows the older of the two that are kept.
        newest = store.newest()
        # Each member takes them at another time, so that a majority never pauses at once.
        part = sum(peer < context.node_id for peer in peers) / (len(peers) + 1)
        self._schedule = Schedule(
            Mark(
                snapshot_sequence - int(part * settings.snapshot_commands),
                (0 if newest is None else newest.index) - int(part * self.max_entries / 2),
                -int(part * self.max_bytes / 2),
                now() - part * settings.snapshot_seconds,
            ),
            commands=settings.snapshot_commands,
            seconds=settings.snapshot_seconds,
            entries=self.max_entries // 2,
            size_bytes=self.max_bytes // 2,
        )

    def request(self) -> None:
        """Take a snapshot at the next tick, where the store keeps them, and compact the log whatever its length."""
        self._is_requested = self._snapshot_is_requested = True

    def run(self) -> None:
        """Drop the oldest applied entries of a log that is long enough."""
        self._store.poll()
        if self._snapshot_is_requested and self._store.pending_index is None:
            self._snapshot_is_requested = False
            self._leader.snapshots.take(for_restart=True)
        if self._store.persistent:
            self._compact_below_snapshots()
        else:
            self._compact_in_memory()

    def _compact_in_memory(self) -> None:
        journal = self._journal
        due = len(journal) > self.max_entries or journal.size_bytes > self.max_bytes
        if not due and not self._is_requested:
            return
        keep = 0 if self._is_requested else len(journal) // _TAIL_PART
        self._is_requested = False
        base = self._raft.applied_index - keep
        if journal.size_bytes < _TAIL_PART * self.max_bytes:
            # Past that, memory comes first, and a snapshot under way has to start again.
            base = min(base, self._leader.oldest_needed())
        if base > journal.first_index:
            journal.compact(base)
        self._store.release(journal.first_index)

    def _compact_below_snapshots(self) -> None:
        journal, store, schedule = self._journal, self._store, self._schedule
        if store.pending_index is None:
            newest = store.newest()
            schedule.whole(0 if newest is None else newest.index)
            mark = Mark(self._machine.position()[0], self._raft.applied_index, journal.appended_bytes, now())
            if schedule.due(mark):
                schedule.begun(mark)
                self._leader.snapshots.take(for_restart=True)
        base = min(store.oldest_index(), self._leader.oldest_needed(), journal.first_index + _ENTRIES_PER_TICK)
        if base > journal.first_index:
            journal.compact(base)


def check_settings(compaction_entries: int) -> None:
    """Raise ValueError if a compacted log would have no tail."""
    if compaction_entries < _TAIL_PART:
        raise ValueError(f"compaction_entries: expected at least {_TAIL_PART}, found {compaction_entries}")
