"""Take snapshots without blocking the loop: a forked child writes the state while the node continues.

Owns at most one child process. The fork costs the loop the copying of page tables, which large_pages keeps short; the
memory itself is shared until one of the two writes to it. The child only reads the machine's arrays and writes files.
It closes every inherited descriptor (sockets and the lock of the data directory belong to the node), collects no
garbage (finalizers belong to the node), and exits without cleanup. ZeroMQ's threads exist in the node only.

Copying the state on the loop instead blocks it for 40 ms for 200 MB; copying only what changed since the last snapshot
would need a mark at every write of the engine.
"""

import contextlib
import gc
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import xxhash
from numpy.typing import NDArray

from smrx.consensus.forking import close_all_but, fork, memory_file
from smrx.consensus.large_pages import Growing, LargePages
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

#: The child has a lower priority than the loop.
_NICENESS: Final = 10
#: A child is killed after this time; 16 GiB to a slow disk take less.
_CHILD_TIMEOUT_SECONDS: Final = 600.0
#: The pause after a failure, so that a full disk is not tried at every turn.
_RETRY_SECONDS: Final = 10.0

Parts = Mapping[str, Sequence[Buffer]]


class Source(Protocol):
    """What a snapshot needs of the machine."""

    def snapshot_parts(self) -> Parts:
        """Return the state in named parts, STATE among them; views where possible."""
        ...

    def arrays_outside_snapshots(self) -> Sequence[NDArray[Any]]:
        """Return arrays that snapshot_parts() does not read: they are not shared with the child."""
        ...

    def position(self) -> tuple[int, int]:
        """Return (applied command sequence, state hash after it)."""
        ...


class _Result(msgspec.Struct, array_like=True):
    """What the child reports when it ends."""

    path: str = ""
    checksum: bytes = b""
    kept: tuple[int, ...] = ()
    error: str = ""


class _Child(NamedTuple):
    pid: int
    pipe: int
    log_index: int
    term: int
    #: The memory file for a peer's state; None if files are written.
    memory: int | None
    started: float


class ForkedSnapshots:
    """A SnapshotStore in files; in memory for peers if it is not persistent."""

    def __init__(
        self,
        source: Source,
        files: SnapshotFiles,
        *,
        persistent: bool,
        clock: Callable[[], float] = time.monotonic,
        growing: Callable[[], Iterable[Growing]] = tuple,
    ) -> None:
        """`persistent`: a restart uses the newest snapshot, and peers get the same one.

        `growing` returns the memory for which large pages are provided.
        """
        self.persistent = persistent
        self.files = files
        #: Seconds that the last fork blocked the loop, and seconds until its snapshot was complete.
        self.last_pause_s = 0.0
        self.last_work_s = 0.0
        self._source = source
        self._clock = clock
        self._child: _Child | None = None
        self._newest: Snapshot | None = None
        self._stored: Stored | None = None
        self._kept: tuple[int, ...] = ()
        self._not_before = 0.0
        #: The large pages of this process.
        self.pages = LargePages(clock(), growing)

    @property
    def is_idle(self) -> bool:
        """Whether no child runs and poll() has nothing left to prepare for the next fork."""
        return self._child is None and not self.pages.is_busy and self.pages.is_ready(self._clock())

    @property
    def pending_index(self) -> int | None:
        """The log index of the snapshot being taken, None if there is none."""
        return None if self._child is None else self._child.log_index

    @property
    def stored(self) -> Stored | None:
        """The newest snapshot on disk that is known to be complete."""
        return self._stored

    def begin(self, index: int, term: int, *, for_restart: bool = True) -> None:
        """Fork a child that writes the present state, unless one runs, has just failed, or a fork would be long."""
        now = self._clock()
        if self._child is not None or now < self._not_before or not self.pages.is_ready(now):
            return
        opened: list[int] = []
        try:
            memory = None if for_restart or self.persistent else memory_file()
            opened += [] if memory is None else [memory]
            reading, writing = os.pipe()
            opened += [reading, writing]
            self.pages.forks()
            started = time.perf_counter()
            with warnings.catch_warnings():
                # Python warns of locks held by other threads; the child takes none.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = fork(self._source.arrays_outside_snapshots())
        except OSError as error:
            # Too many processes or files, or the system does not commit memory for a second process of this size.
            log.error("snapshot after log entry %d: cannot fork a process: %s", index, error.strerror)
            self._not_before = self._clock() + _RETRY_SECONDS
            for descriptor in opened:
                os.close(descriptor)
            return
        if pid == 0:
            self._run_child(writing, index, term, memory)
        self.last_pause_s = time.perf_counter() - started
        self.pages.forked(pid, now)
        os.close(writing)
        os.set_blocking(reading, False)
        self._child = _Child(pid, reading, index, term, memory, self._clock())
        log.info(
            "snapshot after log entry %d: process %d writes it, the fork blocked the loop for %.2f ms",
            *(index, pid, 1000 * self.last_pause_s),
        )

    def poll(self) -> None:
        """Use what the child has finished, and prepare memory for the next fork. Call it in every turn."""
        self.pages.step(self._clock())
        child = self._child
        if child is None:
            return
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if not ended:
            if self._clock() - child.started > _CHILD_TIMEOUT_SECONDS:
                log.error(
                    "snapshot after log entry %d: abandoned after %.0f s", child.log_index, _CHILD_TIMEOUT_SECONDS
                )
                self.close()
            return
        self._child = None
        self.last_work_s = self._clock() - child.started
        result = _read_result(child.pipe, status)
        try:
            if result.error:
                log.error("snapshot after log entry %d: %s; the log is not compacted", child.log_index, result.error)
                self._not_before = self._clock() + _RETRY_SECONDS
            elif child.memory is not None:
                self._newest = Snapshot(child.log_index, child.term, mapped(child.memory), result.checksum)
            else:
                self._have(describe(Path(result.path)), result.kept)
        except (OSError, SnapshotError) as error:
            # Files were removed by hand. The log still has everything.
            log.error("snapshot after log entry %d: it is gone: %s", child.log_index, error)
            self._not_before = self._clock() + _RETRY_SECONDS
        finally:
            if child.memory is not None:
                os.close(child.memory)

    def newest(self) -> Snapshot | None:
        """Return the newest snapshot for a peer."""
        return self._newest

    def oldest_index(self) -> int:
        """Return the log index of the older complete snapshot on disk, 0 unless there are two.

        While there is only one, the log before it must stay: if the snapshot is damaged, the log replaces it.
        """
        return min(self._kept) if len(self._kept) > 1 else 0

    def use_stored(self, stored: Sequence[Stored]) -> None:
        """Set the verified snapshots of a restart, oldest first."""
        if stored:
            self._have(stored[-1], tuple(one.log_index for one in stored))

    def keep(self, snapshot: Snapshot) -> None:
        """Write a snapshot that a leader sent; durable on return. Raises StorageFailed."""
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
        """Note that a peer refused a snapshot: a damaged file is not sent again."""
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
        """Free the snapshot if it is below this index."""
        if self._newest is not None and self._newest.index < index:
            self._newest = None

    def close(self) -> None:
        """Abandon the snapshot being taken."""
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

    def _run_child(self, writing: int, index: int, term: int, memory: int | None) -> None:
        """Write the snapshot, report the result, exit. Never returns."""
        code = 1
        try:
            gc.disable()
            parent = os.getppid()
            close_all_but(writing, memory)
            os.nice(_NICENESS)
            os.write(
                writing, msgspec.msgpack.encode(self._written(index, term, memory, lambda: os.getppid() != parent))
            )
            code = 0
        finally:
            os._exit(code)

    def _written(self, index: int, term: int, memory: int | None, abandoned: Callable[[], bool]) -> _Result:
        try:
            parts = self._source.snapshot_parts()
            if memory is not None:
                return _Result(checksum=_write_state(memory, parts[STATE], abandoned))
            self.files.clean()
            stored = self.files.write(Position(index, term, *self._source.position()), parts, abandoned=abandoned)
            found, _ = self.files.readable()
            return _Result(
                str(stored.path), kept=tuple(one.log_index for one in found if one.log_index in {*self._kept, index})
            )
        except (OSError, MemoryError, OverflowError, Abandoned, SnapshotError) as error:
            return _Result(error=f"{type(error).__name__}: {error}")


def _read_result(pipe: int, status: int) -> _Result:
    with os.fdopen(pipe, "rb") as file:
        report = file.read()
    code = os.waitstatus_to_exitcode(status)
    if code or not report:
        return _Result(error=f"the process that wrote it ended with {code}")
    return msgspec.msgpack.decode(report, type=_Result)


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
