"""Keep a node's durable meta data, and let a node that lost its log become a full member again.

Owns the meta store (identity, incarnation, term, vote, whether the node ever held state) and the rule for a rejoin. The
store is written at elections and starts, never for a command, so no file grows with orders. Called by the replica and,
to open and close it, by the node.
"""

import contextlib
import fcntl
import os
import stat
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import lmdb
import msgspec
import xxhash

from smrx.consensus.storage import REBUILD, LmdbStorage, StorageError, StorageFailed, failure, fatal_read_signal

#: Format 1 had no checksum.
_FORMAT: Final = 2
_READABLE: Final = (1, _FORMAT)
_FILE: Final = "meta.lmdb"
_LOCK: Final = "lock"
_WHAT: Final = "the meta data of a node"
_KEY: Final = b"meta"
_CHECKSUM_KEY: Final = b"checksum"
#: The record is some 50 bytes, LMDB keeps a few 4 KiB pages; the map is fixed so that the file cannot grow.
_MAP_BYTES: Final = 1 << 20


class MetaError(Exception):
    """The data directory cannot be used; the message is for the operator."""


class DamagedMeta(MetaError):
    """The meta data are damaged."""


class _Format(msgspec.Struct, array_like=True):
    """The field that every format starts with."""

    format: int


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    cluster: str
    node_id: int
    incarnation: int
    term: int
    vote: int | None
    joined: bool
    membership_index: int = 0
    membership: bytes = b""
    #: None in a record of an older version, which lacks the field.
    initialized: bool | None = None


def recreate_meta(directory: Path, *, cluster: str, node_id: int) -> None:
    """Replace lost or damaged meta data by those of a node that has joined and has lost everything.

    Its incarnation is higher than any it can have had, because peers drop messages of an earlier one: the time in
    seconds, as in every new directory. Its votes are lost; but a learner does not vote, and messages for its earlier
    incarnations do not reach this one. No process may use the directory.
    """
    path = directory / _FILE
    with hold_directory(directory):
        path.unlink(missing_ok=True)
        environment = _opened(path)
        with environment.begin(write=True) as transaction:
            record = _Record(_FORMAT, cluster, node_id, int(time.time()), 0, None, True, initialized=False)
            _put(transaction, record)
        environment.close()


class MetaStore:
    """The durable meta data of a node, for one process at a time.

    Changes are durable after sync(), which must return before any message that depends on them is sent.
    """

    def __init__(self, directory: str | Path, *, cluster: str, node_id: int) -> None:
        """Open or create the store and start a new incarnation; raises MetaError."""
        self._directory = Path(directory)
        self._lock = hold_directory(self._directory)
        try:
            self._environment = _opened(self._directory / _FILE)
            self._record = self._loaded(cluster, node_id)
            self._record.incarnation += 1
            self._dirty = True
            self.sync()
        except BaseException:
            self._lock.close()
            raise

    @property
    def incarnation(self) -> int:
        """The number of this run of the node; the first one of a directory is its creation time in seconds."""
        return self._record.incarnation

    @property
    def term(self) -> int:
        """The highest term that this node has seen."""
        return self._record.term

    @property
    def vote(self) -> int | None:
        """The node that has this node's vote in that term."""
        return self._record.vote

    @property
    def joined(self) -> bool:
        """Whether this node has acknowledged entries, so that a leader may have counted its log."""
        return self._record.joined

    def set_term(self, term: int, vote: int | None) -> None:
        """Change term and vote."""
        if (term, vote) != (self._record.term, self._record.vote):
            self._record.term, self._record.vote = term, vote
            self._dirty = True

    @property
    def membership(self) -> tuple[int, bytes]:
        """(log index, entry) of the last membership known here to be committed; (0, b"") if there is none.

        It has to survive the loss of the log: with an older one, the node could count a majority that is none. An
        uncommitted membership is kept in the log only.
        """
        return self._record.membership_index, self._record.membership

    def set_membership(self, membership: tuple[int, bytes]) -> None:
        """Set the last committed membership."""
        if membership != self.membership:
            self._record.membership_index, self._record.membership = membership
            self._dirty = True

    @property
    def initialized(self) -> bool:
        """Whether this directory has every vote and entry of its node: it was bootstrapped, or has caught up since.

        See bootstrap.py. Otherwise the node may have voted, or led, in terms that are not recorded here.
        """
        return self._record.joined if self._record.initialized is None else self._record.initialized

    def set_initialized(self) -> None:
        """Record that this directory has every vote and entry of its node."""
        if not self._record.initialized:
            self._record.initialized = True
            self._dirty = True

    def exceed_incarnation(self, known: int) -> None:
        """Take an incarnation number above one that peers know of and this directory does not."""
        if known >= self._record.incarnation:
            self._record.incarnation = known + 1
            self._dirty = True

    def set_joined(self) -> None:
        """Record that this node acknowledges entries."""
        if not self._record.joined:
            self._record.joined = True
            self._dirty = True

    def sync(self) -> None:
        """Make the changes durable; costs nothing when there are none. Raises StorageFailed."""
        if not self._dirty:
            return
        try:
            with self._environment.begin(write=True) as transaction:
                _put(transaction, self._record)
        except lmdb.Error as error:
            raise failure(self._directory / _FILE, "write term and vote", error) from None
        self._dirty = False

    def close(self) -> None:
        """Make the changes durable and release the directory."""
        if not self._lock.closed:
            # A disk that fails has raised before, and this process sends nothing more.
            with contextlib.suppress(StorageFailed):
                self.sync()
            self._environment.close()
            self._lock.close()

    def _loaded(self, cluster: str, node_id: int) -> _Record:
        try:
            with self._environment.begin() as transaction:
                raw, checksum = transaction.get(_KEY), transaction.get(_CHECKSUM_KEY)
                empty = not transaction.stat()["entries"]
        except lmdb.Error as error:
            raise _damaged(self._directory, str(error)) from None
        if raw is None:
            if not empty:
                raise _damaged(self._directory, "none, and something else")
            # Higher than in any earlier directory of this node: messages for those must not be accepted.
            return _Record(_FORMAT, cluster, node_id, int(time.time()), 0, None, False, initialized=False)
        try:
            written = msgspec.msgpack.decode(raw, type=_Format).format
            if written not in _READABLE:
                # Not damaged: a rebuild must not replace a vote that it cannot read.
                raise MetaError(
                    f"{self._directory}: expected meta data of format {_FORMAT}, found format {written}; run the "
                    "version of smrx that wrote it"
                )
            if written == _FORMAT and checksum != xxhash.xxh3_64_digest(raw):
                raise _damaged(self._directory, "other bytes than were written")
            record = msgspec.msgpack.decode(raw, type=_Record)
            record.format = _FORMAT
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(self._directory, str(error)) from None
        for what, expected, found in (
            ("cluster", cluster, record.cluster),
            ("node", node_id, record.node_id),
        ):
            if expected != found:
                raise MetaError(
                    f"{self._directory}: expected the data of {what} {expected!r}, found that of {what} {found!r}"
                )
        return record


def hold_directory(directory: Path) -> TextIOWrapper:
    """Lock a data directory until the file is closed; raises MetaError if another process holds the lock.

    Afterwards only its owner can read it: it has the orders and balances of all accounts. Raises MetaError if another
    user owns it and others can write to it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid == os.geteuid():
            directory.chmod(stat.S_IMODE(status.st_mode) & ~0o077)
        elif status.st_mode & 0o022:
            raise MetaError(
                f"{directory}: expected a directory that only its owner can write, found mode "
                f"{stat.S_IMODE(status.st_mode):04o} and another owner than this user"
            )
        lock = (directory / _LOCK).open("a", encoding="ascii")
    except OSError as error:
        raise MetaError(f"{directory}: expected a directory this process can write, found: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise MetaError(f"{directory}: expected to be the only process here, found another that holds it") from None
    return lock


def _put(transaction: lmdb.Transaction, record: _Record) -> None:
    raw = msgspec.msgpack.encode(record)
    transaction.put(_KEY, raw)
    transaction.put(_CHECKSUM_KEY, xxhash.xxh3_64_digest(raw))


def _damaged(path: Path, found: str) -> DamagedMeta:
    return DamagedMeta(f"{path}: expected {_WHAT}, found: {found}; {REBUILD}")


def _opened(path: Path) -> lmdb.Environment:
    if path.exists():
        if not path.stat().st_size:
            # LMDB would create a new one, and the node would lose its vote.
            raise _damaged(path, "an empty file")
        number = fatal_read_signal(path)
        if number is not None:
            raise _damaged(path, f"a file that cannot be read without signal {number}")
        try:
            LmdbStorage(path, readonly=True, what=_WHAT).close()
        except StorageError as error:
            raise DamagedMeta(str(error)) from None
    try:
        # The lock file above excludes other processes, and one thread writes: LMDB's own locks have nothing to add.
        return lmdb.open(os.fspath(path), map_size=_MAP_BYTES, subdir=False, lock=False, max_dbs=0)
    except lmdb.Error as error:
        raise _damaged(path, str(error)) from None


class Rejoin:
    """Let a member that lost its log catch up before its votes and acknowledgements count.

    In its former incarnations the node acknowledged entries to leaders of terms up to its durable term. A leader that
    it accepts now has at least that term: it is either that same leader, whose log held all of those entries when the
    two met again, or a later one, elected by a majority that held every committed entry. So once this log equals that
    leader's up to the last index of the first message, nothing that this node acknowledged is missing.

    A node that lost its term, too, must learn from the others which leader is the newest: see
    Follower._has_newest_term.
    """

    def __init__(self, active: bool) -> None:
        """`active`: the node has joined before and its log is empty."""
        self.active = active
        #: The log index to reach; None before the first message of a leader.
        self.target: int | None = None
        self._term: int | None = None

    def observe_leader(self, term: int, last_index: int) -> None:
        """Take the last index of a leader as the target, the first time that a term's leader reports it."""
        if self.active and term != self._term:
            self._term, self.target = term, last_index

    def advance(self, term: int, index: int) -> None:
        """Record that the log equals that of the term's leader up to `index`."""
        if self.active and term == self._term and self.target is not None and index >= self.target:
            self.active = False
