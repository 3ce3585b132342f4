"""Store a journal's records: an ordered map of bytes whose changes become durable together or not at all.

Storage is everything that the journal needs of a disk. LmdbStorage is the real one; a simulation replaces it by a model
of a disk. The contract, and what a crash may do to each step:

- put() and delete() only buffer a change. A crash loses it.
- sync() makes all buffered changes durable, in order, and returns only then. A crash during sync() leaves either all of
  them or none. A disk that tears or loses writes breaks this: the journal must detect it at the next open, because
  every record has a checksum, indexes have no gap, and the first and the last one are recorded.
- get() and read() return what was durable at the last sync(), and are called only while the journal opens.
- StorageFailed, from sync(), ends the process: nothing is retried, because what the system did with a failed write is
  unknown. StorageFull means that there was no space. Either way nothing of that batch was acknowledged.

Only one process uses a file: its owner holds the lock of the data directory.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import lmdb

#: The initial size of the map in address space, not on disk; doubled whenever it is full.
_FIRST_MAP_BYTES: Final = 1 << 30
#: Less space than an entry of the largest size needs.
_LEAST_FREE_BYTES: Final = 2 << 20
#: The remedy for a damaged file.
NOTHING_CHANGED: Final = "nothing was changed: "
REBUILD: Final = f"{NOTHING_CHANGED}rebuild this node from the others with `smrx node --id N --rebuild`"
#: LMDB's errors that mean damage; others come from the system.
_DAMAGE: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(Exception):
    """A file cannot be read or written; the message is for the operator."""


class StorageFailed(StorageError):
    """A write of a running node failed; what was acknowledged before is safe."""


class StorageFull(StorageFailed):
    """There is no space on the disk."""


class Storage(Protocol):
    """An ordered map of bytes; see the module's contract."""

    def get(self, key: bytes) -> bytes | None:
        """Return the durable value of a key, None if there is none."""
        ...

    def read(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the durable records of keys first..last, both included, in the order of their keys."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Buffer a record to write."""
        ...

    def delete(self, first: bytes, last: bytes) -> None:
        """Buffer the deletion of all records of keys first..last, both included."""
        ...

    def sync(self) -> None:
        """Make the buffered changes durable, all or none; raises StorageFailed."""
        ...

    def close(self) -> None:
        """Close; changes that were not synced are lost."""
        ...


def failure(where: str | os.PathLike[str], doing: str, error: OSError | lmdb.Error) -> StorageFailed:
    """Return the error to raise for a write that failed."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    # LMDB reports system errors as text only, and a write that a full disk cut short as EIO.
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
    """Return the signal that kills a process which reads this LMDB file, None if none does.

    LMDB follows the pointers of a damaged page, so a forked child reads the whole file first.
    """
    with warnings.catch_warnings():
        # Python warns of locks held by other threads; the child takes none.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            storage = LmdbStorage(path, readonly=True)
            for _ in storage.read(b"", b"\xff" * 16):
                pass
        except StorageError:
            pass  # An error, not a signal: the parent gets the same error and reports it.
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


class LmdbStorage:
    """Records in one LMDB file.

    It is never mapped for writing, so that a full disk is an error of a system call and not a fatal signal.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        map_bytes: int = _FIRST_MAP_BYTES,
        what: str = "the file of a journal",
    ) -> None:
        """Open or create the file; raises StorageError, which names it as `what`, if it is damaged or truncated."""
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
        """Return the durable value of a key, None if there is none."""
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
        """Buffer a record to write."""
        self._changes.append((key, value, b""))

    def delete(self, first: bytes, last: bytes) -> None:
        """Buffer the deletion of all records of keys first..last."""
        self._changes.append((first, None, last))

    def sync(self) -> None:
        """Write the buffered changes in one transaction; raises StorageFailed, also at every later call."""
        if self._failed is not None:
            raise self._failed
        if not self._changes:
            return
        try:
            while not self._written():
                # The map's size is an implementation detail; only the disk limits the journal.
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        except (lmdb.Error, MemoryError, OSError) as error:
            cause = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) if isinstance(error, MemoryError) else error
            self._failed = failure(self._path, "write the journal", cause)
            raise self._failed from None
        self._changes = []

    def close(self) -> None:
        """Close the file; changes that were not synced are lost."""
        self._environment.close()

    def _written(self) -> bool:
        """Write the buffered changes durably; return False, with nothing changed, if the map is too small."""
        try:
            with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                for first, value, last in self._changes:
                    if value is not None:
                        # With append=True LMDB fills pages completely, otherwise only by half.
                        cursor.put(first, value, append=not cursor.last() or cursor.key() < first)
                        continue
                    there = cursor.set_range(first)
                    while there and cursor.key() <= last:
                        there = cursor.delete() and bool(cursor.key())
        except lmdb.MapFullError:
            return False
        return True

    def _check_length(self) -> None:
        """Raise StorageError if the file is shorter than it records: a read beyond its end would be a fatal signal."""
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
