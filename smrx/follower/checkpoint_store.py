"""Keep the projection and its checkpoint in a directory. Implements Sink, so that it commits like the others.

Files: `checkpoint.json` (replaced atomically); the projection at some earlier event (`books-N.bin`); the events since
then (`journal-N.bin`), which lead from it to the checkpoint; and, if the projection started from a state image, the
image (`opening-N.bin`). Other files were being written when the process died, and are removed. A journal longer than
the projection, or than 16 MiB, is replaced by a new projection file, so a checkpoint costs what happened since the last
one, not what there is in all.

All of them carry the schema of their records, so that a version reads those of the version before. Its first checkpoint
replaces projection and journal.

Opened first and committed last: at a checkpoint every other sink durably holds everything up to it. The journal may be
synced earlier, while the other sinks commit: it has no effect before the checkpoint names it.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.follower.follow_errors import FollowError
from smrx.follower.interfaces import P, ProjectionFactory
from smrx.sinks import durable_files
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import state_image
from smrx.wire.record_schema import (
    MAX_HEAD_BYTES,
    Records,
    SchemaError,
    convert,
    describe,
    file_head,
    read_file_head,
)
from smrx.wire.records import EVENT, STORED_EVENT

FILE_NAME: Final = "checkpoint.json"
_FORMAT: Final = 2
_EVENTS: Final = "events"
#: Replaying so much takes a tenth of a second.
_MIN_JOURNAL_BYTES: Final = 16 << 20


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of checkpoint.json."""

    format: int
    checkpoint: Checkpoint
    event_digest: int  #: xxh3 of the last event, by which another history is recognised
    books_sequence: int  #: N of books-N.bin and journal-N.bin
    journal_bytes: int
    journal_digest: int


class CheckpointStore(Generic[P]):
    """Keeps one projection in a directory."""

    name: str

    def __init__(self, directory: str | Path, factory: ProjectionFactory[P], current: Callable[[], P]) -> None:
        """Touch nothing before open(). current() returns the projection, which at commit() is at the checkpoint."""
        self.directory = Path(directory).expanduser()
        self.name = f"books {self.directory}"
        self.saved: Saved | None = None
        self._factory = factory
        self._current = current
        self._lock = -1
        self._journal = -1
        self._sequence = 0  #: the last event written
        self._last: NDArray[np.void] | None = None
        self._base = 0
        self._size = 0
        #: Where the journal's events begin, and their description; None if it is that of this version.
        self._start = 0
        self._older: Records | None = None
        self._projection_bytes = 0
        self._digest = xxhash.xxh3_64()
        self._syncing: Future[None] | None = None
        self._syncer: ThreadPoolExecutor | None = None

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self.close()
        try:
            with durable_files.as_sink_errors(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._lock = durable_files.lock(self.directory / "lock", self.name)
                self.saved = saved = self._read()
                if saved is None:
                    self._begin(0, b"")
                    return None
                if saved.checkpoint.cluster != cluster:
                    raise SinkMismatch(
                        f"{self.directory / FILE_NAME}: expected a checkpoint of cluster {cluster!r}, found one of "
                        f"{saved.checkpoint.cluster!r}; choose another directory"
                    )
                self._resume(saved)
        except BaseException:
            self.close()
            raise
        return saved.checkpoint

    def base(self) -> P:
        """Return the projection that the journal starts from. Raises SinkMismatch if the file is damaged."""
        if self._base == 0:
            return self._factory.empty()
        path = self._path("books", self._base)
        with durable_files.as_sink_errors(path):
            data = path.read_bytes()
        try:
            projection = self._factory.load(data)
        except (FollowError, msgspec.DecodeError) as error:
            raise SinkMismatch(
                f"{path}: {error}; move the directory away and settle again from the beginning"
            ) from None
        self._projection_bytes = len(data)
        return projection

    @property
    def base_sequence(self) -> int:
        """The last event of the projection that base() returns."""
        return self._base

    def journal(self) -> NDArray[np.void]:
        """Return the events from base() to the checkpoint."""
        with durable_files.as_sink_errors(self.directory):
            data = durable_files.read_all(self._journal, self._start, self._size)
        return self._events(data)

    def restart(self) -> None:
        """Start again before event 1, because another sink holds less than the projection starts from."""
        with durable_files.as_sink_errors(self.directory):
            (self.directory / FILE_NAME).unlink(missing_ok=True)
            durable_files.sync_directory(self.directory)
            self.saved = None
            self._begin(0, b"")

    def join(self, checkpoint: Checkpoint, image: bytes, projection: bytes) -> None:
        """Start from a state image and the saved projection of it, durably; what was here before is removed."""
        sequence = checkpoint.event_sequence
        with durable_files.as_sink_errors(self.directory):
            durable_files.replace(self._path("opening", sequence), image)
            self._begin(sequence, projection)
            self._last = None
            # 0: the last event before the image never arrived here, so its digest is unknown.
            self._save(Saved(_FORMAT, checkpoint, 0, sequence, 0, self._digest.intdigest()))
            self._remove_others()

    def image(self) -> bytes | None:
        """Return the state image the projection started from, None for event 1. Raises SinkMismatch if it differs."""
        origin = None if self.saved is None else self.saved.checkpoint.origin
        if origin is None:
            return None
        path = self._path("opening", origin.event_sequence)
        with durable_files.as_sink_errors(path):
            data = path.read_bytes()
        if state_image.digest(data) != origin.digest:
            raise SinkMismatch(f"{path}: expected the state image the checkpoint names, found another")
        return data

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink; join() has done it already."""

    def write(self, events: NDArray[np.void]) -> None:
        """See Sink."""
        if not len(events):
            return
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        if first > self._sequence + 1:
            raise SinkMismatch(f"{self.name}: expected event {self._sequence + 1} or one before it, found {first}")
        events = events[self._sequence + 1 - first :]
        if not len(events):
            return
        data = np.ascontiguousarray(events).view(np.uint8).data
        with durable_files.as_sink_errors(self.directory):
            self._finish_sync()
            durable_files.write_all(self._journal, data)
        self._digest.update(data)
        self._size += len(data)
        self._sequence = last
        self._last = events[-1:]

    def sync_ahead(self) -> None:
        """Start to sync the journal in another thread; commit() waits for it, and raises its error."""
        if self._journal == -1 or self._syncing is not None or self._size > self._max_journal_bytes:
            return
        if self._syncer is None:
            self._syncer = ThreadPoolExecutor(1, "books")
        self._syncing = self._syncer.submit(os.fsync, self._journal)

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink."""
        if self.saved is not None and checkpoint.event_sequence <= self.saved.checkpoint.event_sequence:
            return
        if checkpoint.event_sequence != self._sequence:
            raise SinkMismatch(
                f"{self.name}: expected a checkpoint at event {self._sequence}, found {checkpoint.event_sequence}"
            )
        with durable_files.as_sink_errors(self.directory):
            old = self._base
            is_synced = self._finish_sync()
            if self._size > self._max_journal_bytes or self._older is not None:
                self._begin(self._sequence, self._current().save())
            elif not is_synced:
                os.fsync(self._journal)
            digest = 0 if self._last is None else xxhash.xxh3_64_intdigest(self._last.tobytes())
            self._save(Saved(_FORMAT, checkpoint, digest, self._base, self._size, self._digest.intdigest()))
            if self._base != old:
                self._remove_others()

    def close(self) -> None:
        """See Sink."""
        if self._syncer is not None:
            self._syncer.shutdown()
        self._syncer = self._syncing = None
        for file in (self._journal, self._lock):
            if file != -1:
                os.close(file)
        self._journal = self._lock = -1

    @property
    def _max_journal_bytes(self) -> int:
        return max(_MIN_JOURNAL_BYTES, self._projection_bytes)

    def _finish_sync(self) -> bool:
        """Wait for the sync started ahead; return whether there was one. fsync reports an error once: here."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()
        return syncing is not None

    def _path(self, kind: str, sequence: int) -> Path:
        return self.directory / f"{kind}-{sequence}.bin"

    def _save(self, saved: Saved) -> None:
        durable_files.replace(self.directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
        self.saved = saved

    def _read(self) -> Saved | None:
        path = self.directory / FILE_NAME
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=Saved)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SinkMismatch(f"{path}: not a checkpoint of settlement: {error}") from None
        if saved.format != _FORMAT:
            raise SinkMismatch(
                f"{path}: expected format {_FORMAT}, found {saved.format}, of another version of smrx; move the "
                "directory away and settle again from the beginning"
            )
        return saved

    def _begin(self, sequence: int, projection: bytes) -> None:
        """Write a new projection file, unless it is empty, and start an empty journal after it."""
        if sequence:
            durable_files.replace(self._path("books", sequence), projection)
        if self._journal != -1:
            # A file that cannot be opened below must not leave the number of one that is closed.
            closed, self._journal = self._journal, -1
            os.close(closed)
        path = self._path("journal", sequence)
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        head = file_head(_EVENTS, STORED_EVENT)
        durable_files.write_all(self._journal, head)
        os.fsync(self._journal)
        durable_files.sync_directory(self.directory)
        self._start, self._older = len(head), None
        self._base = self._sequence = sequence
        self._projection_bytes = len(projection)
        self._size = 0
        self._digest = xxhash.xxh3_64()
        if not sequence:
            self._last = None

    def _resume(self, saved: Saved) -> None:
        self._base = saved.books_sequence
        path = self._path("journal", self._base)
        self._journal = os.open(path, os.O_RDWR)
        found = self._read_head(path)
        # What was written after the checkpoint was not committed.
        os.ftruncate(self._journal, self._start + saved.journal_bytes)
        self._size = os.lseek(self._journal, 0, os.SEEK_END) - self._start
        data = durable_files.read_all(self._journal, self._start, self._size)
        self._digest = xxhash.xxh3_64()
        self._digest.update(data)
        self._sequence = saved.checkpoint.event_sequence
        events = self._size // found.itemsize
        if (self._digest.intdigest(), events) != (saved.journal_digest, self._sequence - self._base):
            raise SinkMismatch(
                f"{path}: does not hold the {self._sequence - self._base} events that the checkpoint names; move the "
                "directory away and settle again from the beginning"
            )
        self._last = self._events(data[-found.itemsize :]) if events else None
        if self._older is not None:
            # The nodes' digest of this event is of the event as they hold it now; 0 is an unknown one.
            digest = 0 if self._last is None else xxhash.xxh3_64_intdigest(self._last.tobytes())
            self.saved = msgspec.structs.replace(saved, event_digest=digest)
        self._remove_others()

    def _read_head(self, path: Path) -> Records:
        """Return the description of the journal's events; raises SinkMismatch."""
        try:
            self._start, found = read_file_head(durable_files.read_all(self._journal, 0, MAX_HEAD_BYTES), _EVENTS)
        except SchemaError as error:
            raise SinkMismatch(
                f"{path}: {error}; move the directory away and settle again from the beginning"
            ) from None
        self._older = None if found == describe(_EVENTS, STORED_EVENT) else found
        return found

    def _events(self, data: bytes) -> NDArray[np.void]:
        """Return events of the journal as events of this version. Raises SinkMismatch."""
        if self._older is None:
            return np.frombuffer(data, EVENT)
        try:
            wanted = describe(_EVENTS, STORED_EVENT)
            return convert(np.frombuffer(data, self._older.dtype), self._older, wanted).view(EVENT)
        except SchemaError as error:
            raise SinkMismatch(f"{self.name}: the journal cannot be read: {error}") from None

    def _remove_others(self) -> None:
        """Remove projection and journal files that the checkpoint does not name."""
        kept = {self._path("books", self._base), self._path("journal", self._base)}
        for path in (*self.directory.glob("books-*"), *self.directory.glob("journal-*")):
            if path not in kept:
                path.unlink(missing_ok=True)
