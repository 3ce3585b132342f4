"""The verifier's own checkpoint: where it stands, and the books as they were there. A sink like the others.

Files in a directory: `checkpoint.json` (atomically replaced), the books at some event before (`books-N.bin`), and
the events since then (`journal-N.bin`), which bring the books to the checkpoint; and, of books that begin in the
middle, the state image (`opening-N.bin`). Whatever else is there was being
written when the process died, and goes. A journal longer than the books, or than 16 MiB, is replaced by new books, so a
checkpoint costs what happened since the last one, not what there is.

Opened first and committed last: at a checkpoint every other sink durably holds everything up to it. The journal may be
synced before its turn, while the other sinks commit: it counts for nothing until the checkpoint names it.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.settlement.ledger import Ledger
from smrx.settlement.settlement_errors import SettlementError
from smrx.sinks import durable_files
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import state_image as opening
from smrx.wire.records import EVENT

FILE_NAME: Final = "checkpoint.json"
_FORMAT: Final = 1
#: Replaying so much takes a tenth of a second.
_LEAST_JOURNAL_BYTES: Final = 16 << 20


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What checkpoint.json holds."""

    format: int
    checkpoint: Checkpoint
    event_digest: int  #: xxh3 of the last event: another history is known by it
    books_sequence: int  #: books-N.bin and journal-N.bin
    journal_bytes: int
    journal_digest: int


class BooksStore:
    """Keeps the books of one settlement in a directory."""

    name: str

    def __init__(self, directory: str | Path, books: Callable[[], Ledger]) -> None:
        """Nothing is touched before open(). `books` gives the ledger, which at commit() stands at the checkpoint."""
        self.directory = Path(directory).expanduser()
        self.name = f"books {self.directory}"
        self.saved: Saved | None = None
        self._books = books
        self._lock = -1
        self._journal = -1
        self._sequence = 0  #: the last event written
        self._last: NDArray[np.void] | None = None
        self._base = 0
        self._size = 0
        self._books_size = 0
        self._digest = xxhash.xxh3_64()
        self._syncing: Future[None] | None = None
        self._syncer: ThreadPoolExecutor | None = None

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self.close()
        try:
            with durable_files.telling(self.directory):
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

    def base(self) -> Ledger:
        """The books that the journal starts from. Raises SettlementError if the file is damaged."""
        if self._base == 0:
            return Ledger()
        path = self._path("books", self._base)
        with durable_files.telling(path):
            data = path.read_bytes()
        try:
            ledger = Ledger.load(data)
        except (SettlementError, msgspec.DecodeError) as error:
            raise SinkMismatch(f"{path}: {error}; move the directory away and settle from the beginning") from None
        self._books_size = len(data)
        return ledger

    @property
    def base_sequence(self) -> int:
        """The event the books of base() stand at."""
        return self._base

    def journal(self) -> NDArray[np.void]:
        """The events from base() to the checkpoint."""
        with durable_files.telling(self.directory):
            data = durable_files.read_all(self._journal, 0, self._size)
        return np.frombuffer(data, EVENT)

    def restart(self) -> None:
        """Begin again before the first event: another sink holds less than the books start from."""
        with durable_files.telling(self.directory):
            (self.directory / FILE_NAME).unlink(missing_ok=True)
            durable_files.sync_directory(self.directory)
            self.saved = None
            self._begin(0, b"")

    def join(self, checkpoint: Checkpoint, image: bytes, books: bytes) -> None:
        """Begin after the state image in `image`, with the books of it, at once durably; what there was goes."""
        sequence = checkpoint.event_sequence
        with durable_files.telling(self.directory):
            durable_files.replace(self._path("opening", sequence), image)
            self._begin(sequence, books)
            self._last = None
            # 0: the digest of an event that was never here is not known.
            self.saved = Saved(_FORMAT, checkpoint, 0, sequence, 0, self._digest.intdigest())
            durable_files.replace(
                self.directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(self.saved)) + b"\n"
            )
            self._sweep()

    def opening(self) -> bytes | None:
        """The state image the books begin with; None if they begin with event 1. Raises SinkMismatch for another."""
        origin = None if self.saved is None else self.saved.checkpoint.origin
        if origin is None:
            return None
        path = self._path("opening", origin.event_sequence)
        with durable_files.telling(path):
            data = path.read_bytes()
        if opening.digest(data) != origin.digest:
            raise SinkMismatch(f"{path}: expected the state image the checkpoint names, found another")
        return data

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink; join() has done it."""

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
        with durable_files.telling(self.directory):
            self._synced()
            durable_files.write_all(self._journal, data)
        self._digest.update(data)
        self._size += len(data)
        self._sequence = last
        self._last = events[-1:]

    def sync_ahead(self) -> None:
        """Begin to make the journal durable, beside the caller; commit() waits for it, and raises what it met."""
        if self._journal == -1 or self._syncing is not None or self._size > self._most_journal:
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
        with durable_files.telling(self.directory):
            old = self._base
            synced = self._synced()
            if self._size > self._most_journal:
                self._begin(self._sequence, self._books().save())
            elif not synced:
                os.fsync(self._journal)
            digest = 0 if self._last is None else xxhash.xxh3_64_intdigest(self._last.tobytes())
            saved = Saved(_FORMAT, checkpoint, digest, self._base, self._size, self._digest.intdigest())
            durable_files.replace(self.directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
            self.saved = saved
            if self._base != old:
                self._sweep()

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
    def _most_journal(self) -> int:
        return max(_LEAST_JOURNAL_BYTES, self._books_size)

    def _synced(self) -> bool:
        """Whether the journal was synced ahead, once that is done. An error is told by one fsync only: by this one."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()
        return syncing is not None

    def _path(self, kind: str, sequence: int) -> Path:
        return self.directory / f"{kind}-{sequence}.bin"

    def _read(self) -> Saved | None:
        path = self.directory / FILE_NAME
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=Saved)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SinkMismatch(f"{path}: expected a checkpoint of settlement, found: {error}") from None
        if saved.format != _FORMAT:
            raise SinkMismatch(f"{path}: expected format {_FORMAT}, found {saved.format}")
        return saved

    def _begin(self, sequence: int, books: bytes) -> None:
        """New books, if there are any, and an empty journal after them."""
        if sequence:
            durable_files.replace(self._path("books", sequence), books)
        if self._journal != -1:
            os.close(self._journal)
        path = self._path("journal", sequence)
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        durable_files.sync_directory(self.directory)
        self._base = self._sequence = sequence
        self._books_size = len(books)
        self._size = 0
        self._digest = xxhash.xxh3_64()
        if not sequence:
            self._last = None

    def _resume(self, saved: Saved) -> None:
        self._base = saved.books_sequence
        path = self._path("journal", self._base)
        self._journal = os.open(path, os.O_RDWR)
        # What was written after the checkpoint was not committed.
        os.ftruncate(self._journal, saved.journal_bytes)
        self._size = os.lseek(self._journal, 0, os.SEEK_END)
        self._digest = xxhash.xxh3_64()
        self._digest.update(durable_files.read_all(self._journal, 0, self._size))
        self._sequence = saved.checkpoint.event_sequence
        events = self._size // EVENT.itemsize
        if (self._digest.intdigest(), events) != (saved.journal_digest, self._sequence - self._base):
            raise SinkMismatch(
                f"{path}: expected the {self._sequence - self._base} events the checkpoint names, found others; move "
                "the directory away and settle from the beginning"
            )
        self._last = None
        if events:
            self._last = np.frombuffer(
                durable_files.read_all(self._journal, self._size - EVENT.itemsize, EVENT.itemsize), EVENT
            )
        self._sweep()

    def _sweep(self) -> None:
        """Remove books and journals that the checkpoint does not name."""
        kept = {self._path("books", self._base), self._path("journal", self._base)}
        for path in (*self.directory.glob("books-*"), *self.directory.glob("journal-*")):
            if path not in kept:
                path.unlink(missing_ok=True)
