"""Keep this process's memory in large pages, so that a fork is short: it copies an entry for each page, small or large.

Two things make small pages of it: growth, and a forked child, while which each large page that the node writes to is
split. Against the first, a thread provides large pages for what grows, some MiB ahead of it: the loop then finds the
memory there. Against the second, a thread walks through all memory after the last child has ended, and requests that
what consists of small pages is collapsed. Both change no byte, and the loop waits for neither: a request takes 0.1 to
0.4 ms, and many milliseconds if the system has to move other memory first. If the system does not support a request
(before Linux 6.1, and elsewhere) nothing happens.

Owned by the snapshot store. The views and the state images, which fork as well, ask whether it is ready and say that
they fork.
"""

import contextlib
import ctypes
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from smrx.consensus.memory_advice import PAGE_BYTES as SMALL_BYTES
from smrx.consensus.memory_advice import Advise, madvise

PAGE_BYTES: Final = 2 << 20
#: Of <sys/mman.h>; neither mmap nor ctypes names the last two.
_MADV_HUGEPAGE: Final = 14
_MADV_POPULATE_WRITE: Final = 23
_MADV_COLLAPSE: Final = 25

#: Of <linux/fs.h>: the request that finds pages of /proc/self/pagemap, its argument, and categories of pages.
_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN: Final = struct.Struct("=12Q")
_REGION: Final = struct.Struct("=3Q")
_IS_PRESENT: Final = 1 << 3
_IS_HUGE: Final = 1 << 6
_REGIONS: Final = 512
#: Without that request: an entry of pagemap has 8 bytes; the highest bit of the last means that the page is present.
_ENTRY_BYTES: Final = 8
_ABSENT: Final = bytes(range(0x80))
_PAGE_ENTRIES: Final = PAGE_BYTES // SMALL_BYTES * _ENTRY_BYTES
_PAGES_READ: Final = 64

#: The pause after a request: at least this, and so many times the processor time that it took.
_PACE_SECONDS: Final = 0.002
_PAUSES: Final = 3
#: Memory also grows between snapshots, with the state and the log.
_WALK_SECONDS: Final = 5.0
#: How often step() looks, and how long a fork may have to wait for large pages.
_STEP_SECONDS: Final = 0.02
_READY_SECONDS: Final = 60.0
#: Provided ahead of what grows, at most as much as is in use; more once half of it is used.
_AHEAD_BYTES: Final = 8 << 20


class Growing(NamedTuple):
    """Memory that is used from its start on, and of which more and more is used."""

    memory: NDArray[Any]
    used_bytes: int


class LargePages:
    """The large pages of this process: one thread at a time that walks, and one that provides."""

    def __init__(self, now: float, growing: Callable[[], Iterable[Growing]] = tuple) -> None:
        """Start to walk after a while: a process that has just started has other work."""
        self._growing = growing
        self._walk_at = now + _WALK_SECONDS
        self._step_at = now
        self._madvise = madvise()
        self._thread: threading.Thread | None = None
        self._provider: threading.Thread | None = None
        self._stop = threading.Event()
        #: How far memory is provided, by its address.
        self._provided: dict[int, int] = {}
        #: Since when memory may be split, None if it is not.
        self._split_at: float | None = None
        self._children: set[int] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a walk is under way."""
        return self._thread is not None and self._thread.is_alive()

    def is_ready(self, now: float) -> bool:
        """Whether a fork may be short: what the last one split is collapsed, or was not for a long time."""
        return self._madvise is None or self._split_at is None or now - self._split_at > _READY_SECONDS

    def begin(self, now: float) -> None:
        """Start to check all memory, unless that is under way."""
        self._walk_at = now + _WALK_SECONDS
        if self._madvise is None or self.is_busy:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._walk, name="large pages", daemon=True)
        self._thread.start()

    def step(self, now: float) -> None:
        """Start what is due. Call it in every turn."""
        if now < self._step_at or self._madvise is None:
            return
        self._step_at = now + _STEP_SECONDS
        self._provide(self._madvise)
        if not self.is_busy and (now >= self._walk_at or self._split_at is not None):
            self._children = {pid for pid in self._children if _shares_memory(pid)}
            if not self._children:
                self.begin(now)

    def forks(self) -> None:
        """End the walk after its present request: a child is about to share the memory."""
        self._stop.set()

    def forked(self, pid: int, now: float) -> None:
        """Note that this child of the process shares the memory until it has ended."""
        self._children.add(pid)
        self._split_at = now

    def _provide(self, advise: Advise) -> None:
        """Let a thread provide what is used up soon."""
        if self._provider is not None and self._provider.is_alive():
            return
        wanted: list[tuple[NDArray[Any], int, int]] = []
        provided: dict[int, int] = {}
        for memory, used in self._growing():
            # The loop is at one page and at the next one soon: it would have to wait for them.
            first = memory.ctypes.data + used + PAGE_BYTES
            ahead = min(used, _AHEAD_BYTES)
            done = max(self._provided.get(memory.ctypes.data, 0), -(-first // PAGE_BYTES) * PAGE_BYTES)
            end = min(first + ahead, memory.ctypes.data + memory.nbytes) // PAGE_BYTES * PAGE_BYTES
            if done < end and done < first + ahead // 2:
                wanted.append((memory, done, end))
                done = end
            provided[memory.ctypes.data] = done
        self._provided = provided
        if wanted:
            self._provider = threading.Thread(target=_provide, args=(advise, wanted), name="provider", daemon=True)
            self._provider.start()

    def _walk(self) -> None:
        assert self._madvise is not None
        # The system may not show which pages are present, as in some containers.
        with contextlib.suppress(OSError), open("/proc/self/pagemap", "rb", buffering=0) as pages:
            for place in _small_pages(pages.fileno()):
                if self._stop.is_set():
                    return
                began = time.thread_time()
                self._madvise(place, PAGE_BYTES, _MADV_COLLAPSE)
                self._stop.wait(max(_PACE_SECONDS, _PAUSES * (time.thread_time() - began)))
        if not self._stop.is_set():
            self._split_at = None


def _provide(advise: Advise, wanted: Sequence[tuple[NDArray[Any], int, int]]) -> None:
    """Provide large pages; the arrays are held meanwhile."""
    for _, first, last in wanted:
        for place in range(first, last, PAGE_BYTES):
            advise(place, PAGE_BYTES, _MADV_HUGEPAGE)
            advise(place, PAGE_BYTES, _MADV_POPULATE_WRITE)


def _shares_memory(pid: int) -> bool:
    """Whether a child runs; this does not wait for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _small_pages(pagemap: int) -> Iterator[int]:
    """Yield where a large page could be that is present in small ones, at least half of it: others would use more."""
    for first, last in candidate_extents():
        try:
            yield from _scanned(pagemap, first, last)
        except OSError:
            yield from _read(pagemap, first, last)


def _scanned(pagemap: int, first: int, last: int) -> Iterator[int]:
    """Let the system find the small pages of an extent; raises OSError if it cannot (before Linux 6.7)."""
    regions = ctypes.create_string_buffer(_REGIONS * _REGION.size)
    place, present = first, 0
    while first < last:
        argument = bytearray(
            _SCAN.pack(
                _SCAN.size, 0, first, last, 0, ctypes.addressof(regions), _REGIONS, 0, _IS_HUGE,
                _IS_PRESENT | _IS_HUGE, 0, _IS_PRESENT,
            )
        )  # fmt: skip
        count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument)
        first = _SCAN.unpack(argument)[4]
        for start, end, _ in _REGION.iter_unpack(regions.raw[: count * _REGION.size]):
            while start < end:
                if start >= place + PAGE_BYTES:
                    place, present = start // PAGE_BYTES * PAGE_BYTES, 0
                part = min(end, place + PAGE_BYTES) - start
                if 2 * present < PAGE_BYTES <= 2 * (present + part):
                    yield place
                present += part
                start += part


def _read(pagemap: int, first: int, last: int) -> Iterator[int]:
    """Find the pages of an extent that are present: large ones, too."""
    for start in range(first, last, _PAGES_READ * PAGE_BYTES):
        count = min(_PAGES_READ, (last - start) // PAGE_BYTES)
        entries = os.pread(pagemap, count * _PAGE_ENTRIES, start // SMALL_BYTES * _ENTRY_BYTES)
        for at in range(count):
            own = entries[at * _PAGE_ENTRIES + _ENTRY_BYTES - 1 : (at + 1) * _PAGE_ENTRIES : _ENTRY_BYTES]
            if 2 * len(own.translate(None, _ABSENT)) >= PAGE_BYTES // SMALL_BYTES:
                yield start + at * PAGE_BYTES


def candidate_extents() -> list[tuple[int, int]]:
    """Return the parts of this process's own memory that large pages could fill; none if the system does not say."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            # 7f0000000000-7f0000200000 rw-p 00000000 00:00 0    [heap]
            extent, rights, _, _, _, *name = line.split()
            if rights == "rw-p" and name in ([], ["[heap]"]):
                start, end = (int(address, 16) for address in extent.split("-"))
                first, last = -(-start // PAGE_BYTES) * PAGE_BYTES, end // PAGE_BYTES * PAGE_BYTES
                if first < last:
                    found.append((first, last))
    return found
