"""Snapshots without stopping the loop: a forked child writes the state as it was, the node goes on.

Owns at most one child process. The fork costs the loop the copying of page tables, which large_pages keeps short; the
memory itself is shared until one of the two writes to it. Between the fork and its end the child reads the machine's
arrays and writes files, and nothing else: it closes every descriptor it inherited (sockets and the lock of the data
directory are the node's), looks for no garbage (finalizers are the node's), and ends without cleaning up. ZeroMQ's
threads exist in the node alone.

The alternative, copying the state on the loop, stops it for 40 ms for 200 MB; copying what changed since the last
snapshot would need a mark at every write of the engine.
"""

import contextlib
import gc
import logging
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import xxhash
from numpy.typing import NDArray

from smrx.consensus.forking import fork
from smrx.consensus.large_pages import LargePages
from smrx.consensus.snapshot_files import (
    STATE,
    Abandoned,
    Buffer,
    Position,
    SnapshotError,
    SnapshotFiles,
    Stored,
    describe,
    mapped,
    verify,
)
from smrx.consensus.snapshots import Snapshot
from smrx.consensus.storage import failure

log = logging.getLogger(__name__)

#: The child gives way to the loop.
_NICENESS: Final = 10
#: A child that takes longer than it takes to write 16 GiB to a slow disk will not come back.
_PATIENCE_SECONDS: Final = 600.0
#: After a failure, so that a full disk is not tried at every turn.
_RETRY_SECONDS: Final = 10.0

Parts = Mapping[str, Sequence[Buffer]]


class Source(Protocol):
    """The machine, as its snapshots see it."""

    def snapshot_parts(self) -> Parts:
        """The state in named parts, STATE among them; views where possible."""
        ...

    def arrays_outside_snapshots(self) -> Sequence[NDArray[Any]]:
        """Arrays that snapshot_parts() does not read: the child does without them."""
        ...

    def position(self) -> tuple[int, int]:
        """(applied command sequence, state hash after it)."""
        ...


class _Told(msgspec.Struct, array_like=True):
    """What the child says at its end."""

    path: str = ""
    checksum: bytes = b""
    kept: tuple[int, ...] = ()
    error: str = ""


class _Child(NamedTuple):
    pid: int
    pipe: int
    log_index: int
    term: int
    #: Where the state goes for a peer; None where it becomes files.
    memory: int | None
    started: float


class ForkedSnapshots:
    """A SnapshotStore of files, and of memory for peers where no file is wanted."""

    def __init__(
        self, source: Source, files: SnapshotFiles, *, persistent: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`persistent`: a restart begins with the newest one, so that peers get that one, too."""
        self.persistent = persistent
        self.files = files
        #: Seconds the loop stood still for the last fork, and seconds until its snapshot was whole.
        self.last_pause_s = 0.0
        self.last_work_s = 0.0
        self._source = source
        self._clock = clock
        self._child: _Child | None = None
        self._newest: Snapshot | None = None
        self._stored: Stored | None = None
        self._kept: tuple[int, ...] = ()
        self._not_before = 0.0
        self._pages = LargePages(clock())

    @property
    def settled(self) -> bool:
        """Whether memory is again as it is best for a fork, as far as poll() can see to it."""
        return self._child is None and not self._pages.at_work

    @property
    def pending_index(self) -> int | None:
        """Where the one being taken stands; None if none is."""
        return None if self._child is None else self._child.log_index

    @property
    def stored(self) -> Stored | None:
        """The newest one on the disk that this process knows to be whole."""
        return self._stored

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Fork a child that writes the state as it is now, unless one is at it or has just failed."""
        if self._child is not None or self._clock() < self._not_before:
            return
        opened: list[int] = []
        try:
            memory = None if for_restart or self.persistent else _memory_file()
            opened += [] if memory is None else [memory]
            reading, writing = os.pipe()
            opened += [reading, writing]
            started = time.perf_counter()
            with warnings.catch_warnings():
                # Python warns of threads that hold locks; the child takes none.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = fork(self._source.arrays_outside_snapshots())
        except OSError as error:
            # Too many processes or files, or no promise of memory for a second one of this size.
            log.error("snapshot after log entry %d: no process to write it: %s", index, error.strerror)
            self._not_before = self._clock() + _RETRY_SECONDS
            for descriptor in opened:
                os.close(descriptor)
            return
        if pid == 0:
            self._be_the_child(writing, index, term, memory)
        self.last_pause_s = time.perf_counter() - started
        os.close(writing)
        os.set_blocking(reading, False)
        self._child = _Child(pid, reading, index, term, memory, self._clock())
        log.info(
            "snapshot after log entry %d: process %d writes it, the loop stood for %.2f ms",
            *(index, pid, 1000 * self.last_pause_s),
        )

    def poll(self) -> None:
        """Take over what the child has finished; prepare, a little at each call, for the next one."""
        child = self._child
        if child is None:
            # In memory mode hardly ever is there a fork: nothing is done for the first one.
            if self.persistent or self._pages.at_work:
                self._pages.step(self._clock())
            return
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if not ended:
            if self._clock() - child.started > _PATIENCE_SECONDS:
                log.error("snapshot after log entry %d: given up after %.0f s", child.log_index, _PATIENCE_SECONDS)
                self.close()
            return
        self._child = None
        self.last_work_s = self._clock() - child.started
        self._pages.begin(self._clock())
        told = _heard(child.pipe, status)
        try:
            if told.error:
                log.error("snapshot after log entry %d: %s; the log stays as it is", child.log_index, told.error)
                self._not_before = self._clock() + _RETRY_SECONDS
            elif child.memory is not None:
                self._newest = Snapshot(child.log_index, child.term, mapped(child.memory), told.checksum)
            else:
                self._have(describe(Path(told.path)), told.kept)
        except (OSError, SnapshotError) as error:
            # Somebody made room by hand. The log still has everything.
            log.error("snapshot after log entry %d: gone again: %s", child.log_index, error)
            self._not_before = self._clock() + _RETRY_SECONDS
        finally:
            if child.memory is not None:
                os.close(child.memory)

    def newest(self) -> Snapshot | None:
        """The newest one for a peer."""
        return self._newest

    def oldest_index(self) -> int:
        """Where the older one on the disk stands that is known to be whole; 0 while there is no second one.

        A single snapshot that rots would take everything with it: until there are two, the log can replace it.
        """
        return min(self._kept) if len(self._kept) > 1 else 0

    def use_stored(self, stored: Sequence[Stored]) -> None:
        """Begin with these, oldest first, which were verified."""
        if stored:
            self._have(stored[-1], tuple(one.log_index for one in stored))

    def keep(self, snapshot: Snapshot) -> None:
        """Write one that a leader sent; durable when this returns. Raises StorageFailed."""
        if not self.persistent:
            return
        self.close()
        sequence, state_hash = self._source.position()
        try:
            stored = self.files.write(
                Position(snapshot.index, snapshot.term, sequence, state_hash), {STATE: [memoryview(snapshot.data)]}
            )
        except OSError as error:
            raise failure(self.files.folder, "write a snapshot", error) from None
        self._have(stored, (stored.log_index,))

    def refused(self, index: int) -> None:
        """A peer could not use it: a file that is not what was written is not sent again."""
        if self._newest is None or self._newest.index != index:
            return
        if self.persistent and self._stored is not None and self._stored.log_index == index:
            try:
                verify(self._stored)
            except SnapshotError as error:
                log.error("%s", error)
            else:
                return
        self._newest = None

    def release(self, index: int) -> None:
        """Let go of the memory of one that no peer can use."""
        if self._newest is not None and self._newest.index < index:
            self._newest = None

    def close(self) -> None:
        """Abandon the one being taken."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.pipe)
        if child.memory is not None:
            os.close(child.memory)
        self.files.clean()

    def _have(self, stored: Stored, kept: tuple[int, ...]) -> None:
        self._stored, self._kept = stored, kept
        if self.persistent:
            self._newest = stored.snapshot()

    def _be_the_child(self, writing: int, index: int, term: int, memory: int | None) -> None:
        """Write the snapshot, say how it went, end. Never returns."""
        code = 1
        try:
            gc.disable()
            parent = os.getppid()
            _close_all_but(writing, memory)
            os.nice(_NICENESS)
            os.write(
                writing, msgspec.msgpack.encode(self._written(index, term, memory, lambda: os.getppid() != parent))
            )
            code = 0
        finally:
            os._exit(code)

    def _written(self, index: int, term: int, memory: int | None, abandoned: Callable[[], bool]) -> _Told:
        try:
            parts = self._source.snapshot_parts()
            if memory is not None:
                return _Told(checksum=_write_state(memory, parts[STATE], abandoned))
            self.files.clean()
            stored = self.files.write(Position(index, term, *self._source.position()), parts, abandoned=abandoned)
            found, _ = self.files.readable()
            return _Told(
                str(stored.path), kept=tuple(one.log_index for one in found if one.log_index in {*self._kept, index})
            )
        except (OSError, MemoryError, OverflowError, Abandoned, SnapshotError) as error:
            return _Told(error=f"{type(error).__name__}: {error}")


def _heard(pipe: int, status: int) -> _Told:
    with os.fdopen(pipe, "rb") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(status)
    if code or not said:
        return _Told(error=f"the process that wrote it ended with {code}")
    return msgspec.msgpack.decode(said, type=_Told)


def _write_state(descriptor: int, pieces: Sequence[Buffer], abandoned: Callable[[], bool]) -> bytes:
    digest = xxhash.xxh3_128()
    for piece in pieces:
        if abandoned():
            raise Abandoned
        view = memoryview(piece)
        digest.update(view)
        while len(view):
            view = view[os.write(descriptor, view) :]
    return digest.digest()


def _memory_file() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("smrx-snapshot")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _close_all_but(*kept: int | None) -> None:
    """Close what the child inherited; standard error stays, for a fault of the interpreter itself."""
    first = 3
    for descriptor in sorted(number for number in kept if number is not None):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
