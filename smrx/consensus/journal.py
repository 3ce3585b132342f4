"""Keep the Raft log in memory.

Owns the entries since the last compaction. Makes no decisions: it refuses a gap, and removes only what its caller asks
for. Called by PySyncObj, through the interface of its own journals, and by the replica.

An entry is (bytes, index, term). The first one kept is the base, into which everything before it was compacted; in a
new log an empty one at index 1, as PySyncObj starts every log.
"""

from typing import ClassVar, Final, overload

from pysyncobj.journal import Journal

from smrx.consensus.membership import is_membership
from smrx.consensus.messages import NO_OP
from smrx.consensus.recovery import MetaStore

LogEntry = tuple[bytes, int, int]

_GENESIS: Final[LogEntry] = (NO_OP, 1, 0)


class MemoryJournal(Journal):  # type: ignore[misc]  # pysyncobj has no types
    """Entries in a list; term and vote in the attached meta store."""

    #: Whether the entries survive the process. A persistent journal needs a persistent snapshot store.
    persistent: ClassVar[bool] = False
    #: The last entry that the state machine has applied when the replica starts; the base by default.
    applied_index: int = _GENESIS[1]

    def __init__(self) -> None:
        """Start an empty log; attach() must follow before the first use."""
        self._entries: list[LogEntry] = [_GENESIS]
        self._bytes = len(NO_OP)
        #: The total bytes of all commands appended.
        self.appended_bytes = 0
        #: (index, entry) of every membership: the one in force at the base, then those of the log.
        self._memberships: list[tuple[int, bytes]] = [(0, b"")]
        self._meta: MetaStore | None = None

    def attach(self, meta: MetaStore) -> None:
        """Keep term and vote in `meta`."""
        self._meta = meta

    @property
    def may_lack_entries(self) -> bool:
        """Whether acknowledged entries may be missing: in memory, until something is appended."""
        return self._entries == [_GENESIS]

    def mark_complete(self) -> None:
        """Record that every entry this node has acknowledged is here again."""

    @property
    def first_index(self) -> int:
        """The index of the base."""
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        """The index of the newest entry."""
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        """The term of the newest entry."""
        return self._entries[-1][2]

    @property
    def size_bytes(self) -> int:
        """The bytes of all kept commands."""
        return self._bytes

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry, None if it is not here."""
        at = index - self._entries[0][1]
        return self._entries[at][2] if 0 <= at < len(self._entries) else None

    def between(self, first: int, last: int) -> list[LogEntry]:
        """Return the kept entries of first..last."""
        base = self._entries[0][1]
        return self._entries[max(0, first - base) : max(0, last + 1 - base)]

    def batch(self, first: int, max_bytes: int, max_entries: int) -> list[LogEntry]:
        """Return entries from `first` on: at least one, then as many as start within max_bytes."""
        start = first - self._entries[0][1]
        size = 0
        for end in range(start, min(start + max_entries, len(self._entries))):
            size += len(self._entries[end][0])
            if size >= max_bytes:
                return self._entries[start : end + 1]
        return self._entries[start : start + max_entries]

    @property
    def membership(self) -> tuple[int, bytes]:
        """(index, entry) of the newest membership of this log; (0, b"") if there is none."""
        return self._memberships[-1]

    @property
    def memberships(self) -> tuple[tuple[int, bytes], ...]:
        """(index, entry) of every membership: the one in force at the base, then those of the log."""
        return tuple(self._memberships)

    def membership_at(self, index: int) -> tuple[int, bytes]:
        """Return the (index, entry) of the membership in force after an entry, from the base on."""
        found, membership = next(
            found for found in reversed(self._memberships) if found[0] <= index or found is self._memberships[0]
        )
        # The base's may be from an earlier incarnation, at a higher index than the given one.
        return min(found, index), membership

    def set_base_membership(self, membership: tuple[int, bytes]) -> None:
        """Set the membership that is in force at the base."""
        self._memberships[0] = membership

    def install(self, index: int, term: int, membership: tuple[int, bytes] | None = None) -> None:
        """Replace the log by the one after a snapshot at (index, term); entries known to follow it stay.

        `membership` is the one in force there; by default the newest of this log.
        """
        if self.term_at(index) == term:
            self.compact(index)
        else:
            if membership is None:
                membership = self.membership
            self.clear()
            self.set_base_membership(membership)
            self._entries.append((NO_OP, index, term))
            self._bytes = len(NO_OP)

    def compact(self, index: int) -> None:
        """Remove the entries before `index`, which becomes the base."""
        self.deleteEntriesTo(index - self._entries[0][1])

    def sync(self) -> None:
        """Make the appended entries as durable as this journal does: not at all."""

    # PySyncObj's interface; positions are offsets from the base.

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append; raises ValueError for anything but the next index."""
        if self._entries and idx != self._entries[-1][1] + 1:
            raise ValueError(f"log: expected the entry {self._entries[-1][1] + 1}, found {idx}")
        self._entries.append((command, idx, term))
        self._bytes += len(command)
        self.appended_bytes += len(command)
        if is_membership(command):
            self._memberships.append((idx, command))

    def clear(self) -> None:
        """Remove everything."""
        self._entries = []
        self._bytes = 0
        del self._memberships[1:]

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the entry at this position and all after it."""
        if entryFrom < len(self._entries):
            first = self._entries[entryFrom][1]
            while len(self._memberships) > 1 and self._memberships[-1][0] >= first:
                del self._memberships[-1]
        self._bytes -= sum(len(entry[0]) for entry in self._entries[entryFrom:])
        del self._entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Remove the entries before this position."""
        self._bytes -= sum(len(entry[0]) for entry in self._entries[:entryTo])
        del self._entries[:entryTo]
        while self._entries and len(self._memberships) > 1 and self._memberships[1][0] <= self._entries[0][1]:
            del self._memberships[0]

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        """Nothing to close."""

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Ignore it: this log does not survive the process."""

    def getRaftCommitIndex(self) -> int:
        """Return the base, the only entry that is known to be committed."""
        return self._entries[0][1]

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:
        """Store term and vote; durable before the next message is sent."""
        if self._meta is not None:
            self._meta.set_term(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        """Return the highest term seen, by this incarnation or an earlier one."""
        return 0 if self._meta is None else self._meta.term

    def getVotedForNodeId(self) -> int | None:
        """Return the node that has the vote of that term."""
        return None if self._meta is None else self._meta.vote

    def onOneSecondTimer(self) -> None:
        """Nothing to do."""
