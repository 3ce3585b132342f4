"""Where a journal's records lie: an ordered map of bytes whose changes become durable together or not at all.

Storage is the whole of what the journal asks of a disk. LmdbStorage is the real one; a simulation puts a modelled disk
in its place. The contract, and what a crash may do to each step:

- put() and delete() only note a change. A crash forgets it.
- sync() makes all noted changes durable, in the order they were noted, and returns only then. A crash during sync()
  leaves either all of them or none. A disk that tears or loses writes breaks this: the journal must notice it at the
  next open, because every record has a checksum, indexes have no holes, and the first and the last one are named.
- get() and read() show what was durable at the last sync(), and are asked only while the journal opens.
- StorageFailed, from sync(), ends the process: nothing is tried again, because what the system did with a failed
  write is unknown. StorageFull says that there was no room. Either way nothing of that batch was promised to anybody.

A file is this process's alone: its owner holds the lock of the data directory.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import lmdb

#: What is reserved of the address space at first, not of the disk; doubled whenever it is full.
_FIRST_MAP_BYTES: Final = 1 << 30
#: Less than an entry of the largest size needs.
_LEAST_FREE_BYTES: Final = 2 << 20
#: What to do about a file that is not as it was written.
REBUILD: Final = "nothing was changed: rebuild this node from the others with `smrx node --id N --rebuild`"
#: LMDB's errors that mean so; others are of the system.
_DAMAGE: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(Exception):
    """The disk did not do what was asked; the message is one sentence for the operator."""


class StorageFailed(StorageError):
    """The disk failed a running node; what was acknowledged before is safe."""


class StorageFull(StorageFailed):
    """There is no room on the disk."""


class Storage(Protocol):
    """An ordered map of bytes; see the module's contract."""

    def get(self, key: bytes) -> bytes | None:
        """The durable value of a key."""
        ...

    def read(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the durable records of keys first..last, both included, in the order of their keys."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Note a record to be written."""
        ...

    def delete(self, first: bytes, last: bytes) -> None:
        """Note that all records of keys first..last, both included, are to go."""
        ...

    def sync(self) -> None:
        """Make what was noted durable, all or nothing; raises StorageFailed."""
        ...

    def close(self) -> None:
        """Let the disk go; what was noted and not synced is forgotten."""
        ...


def failure(where: str | os.PathLike[str], doing: str, error: OSError | lmdb.Error) -> StorageFailed:
    """The error to raise for a write that failed."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    # LMDB names the errors of the system by their text only, and a write that was cut short by a full disk EIO.
    full = isinstance(error, lmdb.DiskError) or any(os.strerror(number) in text for number in _FULL)
    kind = StorageFull if full or _free_bytes(where) < _LEAST_FREE_BYTES else StorageFailed
    return kind(
        f"{os.fspath(where)}: expected to {doing}, found: {text}; nothing acknowledged is lost: make room or repair "
        "the disk, and start the node again"
    )


def _free_bytes(where: str | os.PathLike[str]) -> int:
    try:
        system = os.statvfs(where)
    except OSError:
        return _LEAST_FREE_BYTES
    return system.f_bavail * system.f_frsize


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fatal_read_signal(path: Path) -> int | None:
    """The signal by which reading an LMDB file would kill the process, None if it would not.

    LMDB follows what a damaged page says: a forked child reads all of it first.
    """
    with warnings.catch_warnings():
        # Python warns of threads that hold locks; the child takes none.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 2)
            storage = LmdbStorage(path, readonly=True)
            for _ in storage.read(b"", b"\xff" * 16):
                pass
        except StorageError:
            pass  # An error and no signal: the parent will meet it, too, and say it.
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


class LmdbStorage:
    """Records in one LMDB file.

    Never mapped for writing: a full disk is then an error of a system call and not a signal that kills the process.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        map_bytes: int = _FIRST_MAP_BYTES,
        what: str = "the file of a journal",
    ) -> None:
        """Open or create the file; raises StorageError, which says `what` it is, if it is not LMDB's or was cut off."""
        self._path = Path(path)
        self._changes: list[tuple[bytes, bytes | None, bytes]] = []
        self._failed: StorageFailed | None = None
        new = not self._path.exists()
        if readonly and new:
            raise StorageError(f"{self._path}: expected a journal, found none")
        try:
            # The lock of the data directory excludes other processes, and one thread writes.
            self._environment = lmdb.open(
                os.fspath(self._path), map_size=map_bytes, subdir=False, lock=False, max_dbs=0, readonly=readonly
            )
            if new:
                sync_directory(self._path.parent)
        except (lmdb.Error, OSError) as error:
            remedy = f"; {REBUILD}" if isinstance(error, _DAMAGE) else ""
            raise StorageError(f"{self._path}: expected {what}, found: {error}{remedy}") from None
        self._check_length()

    def get(self, key: bytes) -> bytes | None:
        """The durable value of a key."""
        try:
            with self._environment.begin() as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            raise self._unreadable(error) from None
        return value

    def read(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the durable records of keys first..last, both included, in order."""
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                if not cursor.set_range(first):
                    return
                for key, value in cursor:
                    if key > last:
                        return
                    yield key, value
        except lmdb.Error as error:
            raise self._unreadable(error) from None

    def put(self, key: bytes, value: bytes) -> None:
        """Note a record to be written."""
        self._changes.append((key, value, b""))

    def delete(self, first: bytes, last: bytes) -> None:
        """Note that all records of keys first..last are to go."""
        self._changes.append((first, None, last))

    def sync(self) -> None:
        """One transaction for all that was noted; raises StorageFailed, then and ever after."""
        if self._failed is not None:
            raise self._failed
        if not self._changes:
            return
        try:
            while not self._written():
                # A size of its own making is nobody's limit: the disk's end is the only one.
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        except (lmdb.Error, MemoryError, OSError) as error:
            cause = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) if isinstance(error, MemoryError) else error
            self._failed = failure(self._path, "write the journal", cause)
            raise self._failed from None
        self._changes = []

    def close(self) -> None:
        """Close the file; what was noted and not synced is forgotten."""
        self._environment.close()

    def _written(self) -> bool:
        """Write what was noted, durably; False, with nothing changed, if the map is too small for it."""
        try:
            with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                for first, value, last in self._changes:
                    if value is not None:
                        # LMDB fills pages to the end where it is told that nothing follows, and to the half elsewhere.
                        cursor.put(first, value, append=not cursor.last() or cursor.key() < first)
                        continue
                    there = cursor.set_range(first)
                    while there and cursor.key() <= last:
                        there = cursor.delete() and bool(cursor.key())
        except lmdb.MapFullError:
            return False
        return True

    def _check_length(self) -> None:
        """Whether the file is as long as it says: a read beyond its end would be a signal, not an error."""
        info = self._environment.info()
        page = self._environment.stat()["psize"]
        expected, found = (info["last_pgno"] + 1) * page, self._path.stat().st_size
        if found < expected and info["last_pgno"] > 1:
            self._environment.close()
            raise StorageError(
                f"{self._path}: expected {expected} bytes, found {found}: the file was cut off; {REBUILD}"
            )

    def _unreadable(self, error: lmdb.Error) -> StorageError:
        return StorageError(f"{self._path}: expected records that can be read, found: {error}; {REBUILD}")
