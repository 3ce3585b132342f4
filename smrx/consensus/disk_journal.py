"""Keep the Raft log in memory and on disk, so that it survives the end of all nodes at once.

Owns the records of the journal in a Storage. Reads it once, at the start; afterwards entries are read from memory and
written as they are appended, with one sync() a turn before anything is sent that acknowledges them. Never accepts a
record that it did not write: each has an xxh3 of its content and index, there is no gap, and the first and last index
are recorded. Called like the journal in memory.

Records, by key (integers little-endian unless said otherwise):

- `i`: identity, msgpack: format, cluster, node. Written once.
- `s`: state, checksum u64 and msgpack: index and term of the base, last index, commit index, whether the log is
  complete, and the membership in force at the base with its log index. The commit index is that of the last sync:
  entries up to it are applied at the start without waiting for a leader.
- `e` and the index (u64, big-endian): an entry: checksum u64, term u64, the command. The checksum's seed is the index.

Compaction moves the base, which is one small record; the entries below it are deleted a few at a time in the turns that
follow. Entries at or below the base are ignored, so a kill at any point is harmless.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import ClassVar, Final

import msgspec
import xxhash

from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.membership import is_membership
from smrx.consensus.messages import NO_OP
from smrx.consensus.recovery import MetaStore
from smrx.consensus.storage import REBUILD, LmdbStorage, Storage, StorageError, fatal_read_signal

FORMAT: Final = 1
FILE: Final = "journal.lmdb"

IDENTITY_KEY: Final = b"i"
STATE_KEY: Final = b"s"
#: The least number of entries deleted with one sync; at least twice as many as are appended, so that deleting keeps up.
DELETED_A_SYNC: Final = 64

_ENTRY: Final = Struct("<QQ")
_CHECKSUM: Final = Struct("<Q")
_LAST: Final = (1 << 64) - 1


class JournalError(Exception):
    """The journal cannot be used; the message is for the operator."""


class _Identity(msgspec.Struct, array_like=True):
    format: int
    cluster: str = ""
    node_id: int = 0


class _State(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    base_index: int
    base_term: int
    last_index: int
    commit_index: int
    complete: bool
    membership_index: int = 0
    membership: bytes = b""


def entry_key(index: int) -> bytes:
    """Return the key of an entry."""
    return b"e" + index.to_bytes(8, "big")


def encode_entry(command: bytes, index: int, term: int) -> bytes:
    """Return the record of an entry."""
    digest = xxhash.xxh3_64(term.to_bytes(8, "little"), seed=index)
    digest.update(command)
    return _ENTRY.pack(digest.intdigest(), term) + command


def decode_entry(value: bytes, index: int) -> LogEntry | None:
    """Return the entry of a record; None if the record was not written for this index, or is damaged."""
    if len(value) < _ENTRY.size:
        return None
    checksum, term = _ENTRY.unpack_from(value)
    if xxhash.xxh3_64_intdigest(memoryview(value)[8:], seed=index) != checksum:
        return None
    return value[_ENTRY.size :], index, term


class DiskJournal(MemoryJournal):
    """The log of a node with `durability = "disk"`."""

    persistent: ClassVar[bool] = True

    def __init__(self, storage: Storage, *, cluster: str, node_id: int, joined: bool, where: str | Path = FILE) -> None:
        """Open the log, or create one; raises JournalError, with nothing changed, for one that cannot be used.

        `joined`: this node may have acknowledged entries, so that a log created now is incomplete. `where` names it in
        errors.
        """
        super().__init__()
        self._storage = storage
        self._where = where
        self._commit = self._entries[0][1]
        self._complete = True
        #: Entries from here up to the base may still be in the storage.
        self._first_stored = 1
        self._appended = 0
        self._dirty = False
        if self._found(cluster, node_id):
            self._load()
        else:
            self._complete = not joined
            storage.put(IDENTITY_KEY, msgspec.msgpack.encode(_Identity(FORMAT, cluster, node_id)))
            self._dirty = True
            self.sync()

    @property
    def may_lack_entries(self) -> bool:
        """Whether acknowledged entries may be missing."""
        return not self._complete

    def mark_complete(self) -> None:
        """Record that every entry this node has acknowledged is here again."""
        if not self._complete:
            self._complete = True
            self._dirty = True

    def sync(self) -> None:
        """Return when every appended entry is durable; raises StorageFailed."""
        if not self._dirty:
            return
        base = self._entries[0]
        state = msgspec.msgpack.encode(
            _State(base[1], base[2], self.last_index, self.getRaftCommitIndex(), self._complete, *self._memberships[0])
        )
        self._storage.put(STATE_KEY, _CHECKSUM.pack(xxhash.xxh3_64_intdigest(state)) + state)
        self._delete_some()
        self._storage.sync()
        self._appended = 0
        self._dirty = False

    def close(self) -> None:
        """Close the storage; entries that were not synced are lost."""
        self._storage.close()

    def sync_commit_index(self) -> None:
        """Make the commit index durable, so that the next start applies up to it without waiting for a leader."""
        self._dirty = True
        self.sync()

    def set_base_membership(self, membership: tuple[int, bytes]) -> None:
        """Set the membership that is in force at the base."""
        super().set_base_membership(membership)
        self._dirty = True

    def install(self, index: int, term: int, membership: tuple[int, bytes] | None = None) -> None:
        """Replace the log by the one after a snapshot at (index, term); entries known to follow it stay."""
        cleared = self.term_at(index) != term
        super().install(index, term, membership)
        if cleared:
            self._first_stored = index + 1
        self._commit = max(self._commit, index)
        self._dirty = True

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append; raises ValueError for anything but the next index."""
        super().add(command, idx, term)
        self._storage.put(entry_key(idx), encode_entry(command, idx, term))
        self._appended += 1
        self._dirty = True

    def clear(self) -> None:
        """Remove everything."""
        super().clear()
        self._storage.delete(entry_key(0), entry_key(_LAST))
        self._dirty = True

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the entry at this position and all after it."""
        if entryFrom < len(self._entries):
            self._storage.delete(entry_key(self._entries[entryFrom][1]), entry_key(_LAST))
            self._dirty = True
        super().deleteEntriesFrom(entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Remove the entries before this position."""
        super().deleteEntriesTo(entryTo)
        self._dirty = True

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Set the commit index; written with the next entries, because it may be late but never wrong."""
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        """Return the last entry that is known to be committed."""
        return max(self._commit, self._entries[0][1])

    def _destroy(self) -> None:
        """Close; the library's name for it."""
        self.close()

    def _delete_some(self) -> None:
        """Delete some of the entries below the base."""
        base = self._entries[0][1]
        if self._first_stored > base:
            return
        last = min(base, self._first_stored + max(DELETED_A_SYNC, 2 * self._appended) - 1)
        self._storage.delete(entry_key(self._first_stored), entry_key(last))
        self._first_stored = last + 1

    def _found(self, cluster: str, node_id: int) -> bool:
        """Return whether there is a journal of this node; raises JournalError if it is another node's."""
        owner = owner_of(self._storage, self._where)
        if owner is None:
            return False
        for what, expected, found in (("cluster", cluster, owner[0]), ("node", node_id, owner[1])):
            if expected != found:
                raise JournalError(
                    f"{self._where}: expected the journal of {what} {expected!r}, found that of {what} {found!r}; each "
                    "node needs a data directory of its own"
                )
        return True

    def _load(self) -> None:
        """Load the stored entries; raises JournalError if any record is missing or damaged."""
        state = self._loaded_state()
        entries: list[LogEntry] = [(NO_OP, state.base_index, state.base_term)]
        term = state.base_term
        first = None
        for index, value in self._stored():
            first = index if first is None else first
            if index <= state.base_index:
                continue
            entry = decode_entry(value, index)
            if entry is None:
                raise self._damaged(f"log entry {index} is not what was written")
            if index != entries[-1][1] + 1:
                raise self._damaged(f"expected log entry {entries[-1][1] + 1}, found entry {index}")
            if entry[2] < term:
                raise self._damaged(f"log entry {index} is of term {entry[2]}, after one of term {term}")
            term = entry[2]
            entries.append(entry)
        if entries[-1][1] != state.last_index:
            raise self._damaged(f"expected log entries up to {state.last_index}, found them up to {entries[-1][1]}")
        if not state.base_index <= state.commit_index <= state.last_index:
            raise self._damaged(f"expected a commit index up to {state.last_index}, found {state.commit_index}")
        self._entries = entries
        self._bytes = sum(len(entry[0]) for entry in entries)
        self._commit, self._complete = state.commit_index, state.complete
        self._memberships = [(state.membership_index, state.membership)]
        self._memberships += [(index, command) for command, index, _ in entries if is_membership(command)]
        self._first_stored = state.base_index + 1 if first is None else min(first, state.base_index + 1)

    def _loaded_state(self) -> _State:
        raw = self._storage.get(STATE_KEY)
        if raw is None:
            raise self._damaged("the record of its base is missing")
        if len(raw) < _CHECKSUM.size or xxhash.xxh3_64_intdigest(raw[8:]) != _CHECKSUM.unpack_from(raw)[0]:
            raise self._damaged("the record of its base is not what was written")
        try:
            return msgspec.msgpack.decode(raw[8:], type=_State)
        except msgspec.MsgspecError as error:
            raise self._damaged(f"the record of its base has another shape: {error}") from None

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        for key, value in self._storage.read(entry_key(0), entry_key(_LAST)):
            if len(key) != 9:
                raise self._damaged(f"found a record of no kind, {key!r}")
            yield int.from_bytes(key[1:], "big"), value

    def _damaged(self, what: str) -> JournalError:
        return damaged(self._where, what)


def owner_of(storage: Storage, where: str | Path) -> tuple[str, int] | None:
    """Return the (cluster, node) whose journal this is, None if it is empty; raises JournalError."""
    raw = storage.get(IDENTITY_KEY)
    if raw is None:
        if next(storage.read(b"", b"\xff"), None) is not None:
            raise damaged(where, "expected to find whose journal this is, found records without it")
        return None
    try:
        identity = msgspec.msgpack.decode(raw, type=_Identity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(where, f"expected to find whose journal this is, found: {error}") from None
    if identity.format != FORMAT:
        raise JournalError(
            f"{where}: expected a journal of format {FORMAT}, found format {identity.format}; run the version of smrx "
            "that wrote it"
        )
    return identity.cluster, identity.node_id


def damaged(where: str | Path, what: str) -> JournalError:
    """Return the error for a damaged journal."""
    return JournalError(f"{where}: the journal is damaged: {what}; {REBUILD}")


def check_readable(path: Path) -> None:
    """Raise JournalError if reading the file would kill the process."""
    number = fatal_read_signal(path)
    if number is not None:
        raise damaged(path, f"reading it ends with signal {number}")


def extent(path: Path) -> tuple[int, int] | None:
    """Return the first and the last log index that a journal records; None if it is damaged or records none."""
    try:
        check_readable(path)
        storage = LmdbStorage(path, readonly=True)
        try:
            raw = storage.get(STATE_KEY)
        finally:
            storage.close()
        if raw is None or xxhash.xxh3_64_intdigest(raw[8:]) != int.from_bytes(raw[:8], "little"):
            return None
        state = msgspec.msgpack.decode(raw[8:], type=_State)
    except (JournalError, StorageError, msgspec.MsgspecError):
        return None
    return state.base_index + 1, state.last_index


def open_journal(directory: Path, meta: MetaStore, *, cluster: str, node_id: int) -> DiskJournal:
    """Open the journal in a node's data directory; raises StorageError or JournalError."""
    path = directory / FILE
    if path.exists():
        check_readable(path)
    storage = LmdbStorage(path)
    try:
        return DiskJournal(
            storage, cluster=cluster, node_id=node_id, joined=meta.joined or not meta.initialized, where=path
        )
    except BaseException:
        storage.close()
        raise
