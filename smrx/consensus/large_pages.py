"""Collapse memory into large pages, so that a fork is short: it copies one entry for each page of 4 KiB or 2 MiB.

While a forked child runs, Linux splits each large page that the node writes to, and tables grow by small pages; it
collapses 16 MiB in ten seconds. Until then 200 MB of state are 50,000 entries to copy instead of a hundred. A thread of
this module walks through the process's own memory, page by page, and requests that pages which are mostly present are
collapsed. It changes no byte, and the loop does not wait for it: a request takes 0.1 to 0.4 ms, and many milliseconds
if the system has to move other memory first. If the system does not support the request (before Linux 6.1, and
elsewhere) nothing happens.

Called by the snapshot store when no child of it runs.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

from smrx.consensus.memory_advice import PAGE_BYTES as SMALL_BYTES
from smrx.consensus.memory_advice import Advise, madvise

PAGE_BYTES: Final = 2 << 20
#: <linux/mman.h>; neither mmap nor ctypes names it.
_MADV_COLLAPSE: Final = 25
#: An entry of /proc/self/pagemap has 8 bytes; the highest bit of the last one means that the page is present.
_ENTRY_BYTES: Final = 8
_ABSENT: Final = bytes(range(0x80))
#: Bytes of pagemap for a large page, and large pages whose entries are read at once.
_PAGE_ENTRIES: Final = PAGE_BYTES // SMALL_BYTES * _ENTRY_BYTES
_PAGES_READ: Final = 64

#: The pause after a request: at least this, and so many times the processor time that it took.
_PACE_SECONDS: Final = 0.002
_PAUSES: Final = 10
#: Memory also grows between snapshots, with the state and the log.
_WALK_SECONDS: Final = 5.0


class LargePages:
    """Walks through this process's memory, one at a time."""

    def __init__(self, now: float) -> None:
        """Start after a while: a process that has just started has other work."""
        self._walk_at = now + _WALK_SECONDS
        self._madvise = madvise()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def is_busy(self) -> bool:
        """Whether a walk is under way."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, now: float) -> None:
        """Start to check all memory, unless that is under way."""
        self._walk_at = now + _WALK_SECONDS
        if self._madvise is None or self.is_busy:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=_walk, args=(self._madvise, self._stop), name="large pages", daemon=True)
        self._thread.start()

    def step(self, now: float) -> None:
        """Start a walk, if it is time."""
        if now >= self._walk_at:
            self.begin(now)

    def stop(self) -> None:
        """End the walk after its present request: a child is about to share the memory."""
        self._stop.set()


def _walk(advise: Advise, stop: threading.Event) -> None:
    # The system may not show which pages are present, as in some containers.
    with contextlib.suppress(OSError), open("/proc/self/pagemap", "rb", buffering=0) as pages:
        for place in _present_pages(pages.fileno()):
            if stop.is_set():
                return
            began = time.thread_time()
            advise(place, PAGE_BYTES, _MADV_COLLAPSE)
            stop.wait(max(_PACE_SECONDS, _PAUSES * (time.thread_time() - began)))


def _present_pages(pagemap: int) -> Iterator[int]:
    """Yield where a large page could be of which at least half is present: others would only use more memory."""
    for first, last in candidate_extents():
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
