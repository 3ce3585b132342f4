"""Collapse memory into large pages, so that a fork is short: it copies one entry for each page of 4 KiB or 2 MiB.

While a forked child runs, Linux splits each large page that the node writes to, and collapses 16 MiB of them again in
ten seconds. Until then 200 MB of state are 50,000 entries to copy instead of a hundred. This module walks through the
process's own memory between two snapshots, a little at a time, and requests that pages which are mostly present are
collapsed. It changes no byte. A thread makes the requests: each takes 0.1 to 0.4 ms, and many milliseconds if the
system has to move other memory first. Then the rest is postponed. If the system does not support the request (before
Linux 6.1, and elsewhere) nothing happens.

Called by the snapshot store when it has nothing else to do.
"""

import contextlib
import os
import threading
import time
from queue import SimpleQueue
from typing import Final

from smrx.consensus.memory_advice import PAGE_BYTES as SMALL_BYTES
from smrx.consensus.memory_advice import madvise

PAGE_BYTES: Final = 2 << 20
#: <linux/mman.h>; neither mmap nor ctypes names it.
_MADV_COLLAPSE: Final = 25
#: An entry of /proc/self/pagemap has 8 bytes; the highest bit of the last one means that the page is present.
_ENTRY_BYTES: Final = 8
_ABSENT: Final = bytes(range(0x80))

#: How long a step looks for the next page to collapse.
_STEP_SECONDS: Final = 0.0001
_PACE_SECONDS: Final = 0.005
#: A request that takes this much processor time moves other memory first.
_EXPENSIVE_SECONDS: Final = 0.005
#: It takes the processor from the loop: the walk pauses for a while, then for longer.
_PAUSE_SECONDS: Final = 10.0
_LONGEST_PAUSE_SECONDS: Final = 600.0
#: Memory also grows between snapshots, with the log. Linux needs a millisecond to list it.
_LIST_SECONDS: Final = 30.0


class LargePages:
    """A walk through this process's memory."""

    def __init__(self, now: float) -> None:
        """Start after a while: a process that has just started has other work."""
        self._addresses: list[int] = []
        self._list_at = now + _LIST_SECONDS
        self._step_at = now
        self._paused_until = now
        self._pause_seconds = _PAUSE_SECONDS
        self._madvise = madvise()
        #: Pages for the thread, and the processor time of each request; the thread starts with the first one.
        self._requests: SimpleQueue[int] = SimpleQueue()
        self._costs: SimpleQueue[float] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_collapsing = False

    @property
    def is_busy(self) -> bool:
        """Whether there is memory left to check."""
        return bool(self._addresses) or self._is_collapsing

    def begin(self, now: float) -> None:
        """Start to check all memory."""
        self._list_at = now + _LIST_SECONDS
        self._addresses = candidate_addresses() if self._madvise is not None and now >= self._paused_until else []

    def step(self, now: float) -> None:
        """Continue for about a tenth of a millisecond, if it is time: request one page, when the last one is done."""
        if self._is_collapsing:
            if self._costs.empty():
                return
            self._collapsed(self._costs.get(), now)
        if now < self._step_at:
            return
        if now >= self._list_at:
            self.begin(now)
        if not self._addresses or self._madvise is None:
            return
        self._step_at = now + _PACE_SECONDS
        end = time.perf_counter() + _STEP_SECONDS
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as pages:
                while self._addresses and not self._is_collapsing and time.perf_counter() < end:
                    place = self._addresses.pop()
                    # Collapsing a page that is mostly empty would only use more memory.
                    if 2 * _present(pages.fileno(), place) >= PAGE_BYTES // SMALL_BYTES:
                        self._collapse(place)
        except OSError:
            # The system does not show which pages are present, as in some containers.
            self._addresses = []

    def _collapse(self, place: int) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._make_requests, name="large pages", daemon=True)
            self._thread.start()
        self._is_collapsing = True
        self._requests.put(place)

    def _make_requests(self) -> None:
        """Make the requests, one after the other; the thread ends with the process."""
        assert self._madvise is not None
        while True:
            place = self._requests.get()
            began = time.thread_time()
            self._madvise(place, PAGE_BYTES, _MADV_COLLAPSE)
            self._costs.put(time.thread_time() - began)

    def _collapsed(self, cost: float, now: float) -> None:
        self._is_collapsing = False
        if cost > _EXPENSIVE_SECONDS:
            self._addresses = []
            self._paused_until = now + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        elif not self._addresses:
            self._pause_seconds = _PAUSE_SECONDS


def candidate_addresses() -> list[int]:
    """Return where a large page could be in this process's own memory; nothing if the system does not show it."""
    found: list[int] = []
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            # 7f0000000000-7f0000200000 rw-p 00000000 00:00 0    [heap]
            extent, rights, _, _, _, *name = line.split()
            if rights == "rw-p" and name in ([], ["[heap]"]):
                first, last = (int(address, 16) for address in extent.split("-"))
                found += range(-(-first // PAGE_BYTES) * PAGE_BYTES, last - PAGE_BYTES + 1, PAGE_BYTES)
    return found


def _present(pagemap: int, place: int) -> int:
    """Return how many of the small pages from an address on are present."""
    count = PAGE_BYTES // SMALL_BYTES
    entries = os.pread(pagemap, count * _ENTRY_BYTES, place // SMALL_BYTES * _ENTRY_BYTES)
    return len(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(None, _ABSENT))
