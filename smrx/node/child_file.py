"""Let a forked child write a file in memory from the state as it is now, while the node continues.

Owns one child process and the file. The child reads the node's arrays, as they were at the fork; it has no memory that
the caller excludes, and touches nothing else of the node: it closes every inherited descriptor, collects no garbage and
exits without cleanup, as the child of a snapshot does (consensus/snapshot_taker.py). Called by views.py and
state_images.py.
"""

import contextlib
import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

from numpy.typing import NDArray

from smrx.consensus.forking import close_all_but, fork, memory_file
from smrx.consensus.large_pages import LargePages

#: The child has a lower priority than the loop.
_NICENESS: Final = 10
#: Bytes of an error that the child reports.
_ERROR_BYTES: Final = 500

#: A larger file is closed by a thread.
_LARGE_BYTES: Final = 16 << 20

#: Writes bytes to the file.
Write = Callable[[Any], None]


class TooLargeError(Exception):
    """The file would be larger than it may be."""


class ChildFile:
    """A file that a child is writing, or has written."""

    def __init__(
        self,
        produce: Callable[[Write], None],
        excluded: Iterable[NDArray[Any]],
        *,
        max_bytes: int,
        seconds: float,
        pages: LargePages | None = None,
    ) -> None:
        """Fork. The child runs `produce`; it is killed after so many seconds. Raises OSError if there is no process."""
        #: Seconds that the fork blocked the loop.
        self.pause_s = 0.0
        #: Why there is no file, or None.
        self.error: str | None = None
        self.complete = False
        #: Waits for the end of a child that was killed; None before, and if the system allowed no thread.
        self.reaper: threading.Thread | None = None
        self._file = memory_file()
        reading = writing = -1
        try:
            reading, writing = os.pipe()
            if pages is not None:
                pages.forks()
            started = time.perf_counter()
            with warnings.catch_warnings():
                # Python warns of locks held by other threads; the child takes none.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = fork(excluded)
        except OSError:
            for descriptor in (self._file, reading, writing):
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        if self._pid == 0:
            _run(produce, self._file, writing, max_bytes)
        self.pause_s = time.perf_counter() - started
        if pages is not None:
            pages.forked(self._pid, time.monotonic())
        os.close(writing)
        self._report = reading
        self._deadline = time.monotonic() + seconds

    def poll(self) -> bool:
        """Return whether the child has ended; then `complete` or `error` is set."""
        if self.complete or self.error is not None:
            return True
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if not ended:
            if time.monotonic() > self._deadline:
                self._kill()
                self.error = "it took too long"
            return self.error is not None
        said = os.read(self._report, _ERROR_BYTES).decode("utf-8", "replace")
        os.close(self._report)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self.complete = True
        else:
            self.error = said or f"the process that wrote it ended with {code}"
        return True

    @property
    def size(self) -> int:
        """Bytes written so far: they do not change any more."""
        return os.fstat(self._file).st_size if self._file >= 0 else 0

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that are written."""
        return os.pread(self._file, size, offset)

    def close(self) -> None:
        """End the child and free the file."""
        if not self.complete and self.error is None:
            self._kill()
            self.error = "it was closed"
        if self._file >= 0:
            # Freeing a gigabyte takes the system 30 ms.
            if self.size > _LARGE_BYTES:
                _in_thread(os.close, self._file)
            else:
                os.close(self._file)
            self._file = -1

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        # The end of a process with gigabytes takes as long.
        self.reaper = _in_thread(os.waitpid, self._pid, 0)
        os.close(self._report)


def _in_thread(function: Callable[..., Any], *arguments: Any) -> threading.Thread | None:
    """Call a function in a thread, or here and now if the system allows no more threads."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        function(*arguments)
        return None
    return thread


def _run(produce: Callable[[Write], None], file: int, report: int, max_bytes: int) -> None:
    """Run the child; never returns."""
    code = 1
    try:
        gc.disable()
        parent = os.getppid()
        close_all_but(file, report)
        os.nice(_NICENESS)
        written = 0

        def write(data: Any) -> None:
            nonlocal written
            view = memoryview(data).cast("B")
            written += len(view)
            if written > max_bytes:
                raise TooLargeError(f"it has more than {max_bytes >> 20} MiB")
            if os.getppid() != parent:
                raise TooLargeError("the node has ended")
            while len(view):
                view = view[os.write(file, view) :]

        try:
            produce(write)
            code = 0
        except (OSError, MemoryError, TooLargeError) as error:
            os.write(report, (str(error) or type(error).__name__).encode()[:_ERROR_BYTES])
    finally:
        os._exit(code)
