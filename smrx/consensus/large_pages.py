"""Memory in large pages, so that a fork is short: it copies one entry a page, and a page has 4 KiB or 2 MiB.

While a forked child lives, Linux takes each large page apart that the node writes to, and puts it together again at
16 MiB in ten seconds. Until then 200 MB of state are 50,000 entries to copy instead of a hundred. This goes through the
process's own memory between two snapshots, a little at a time, and asks for what is mostly there to be put together.
It changes no byte. Where the system knows no such request (before Linux 6.1, and elsewhere) nothing happens; where it
has to make room first, as the loop stands still meanwhile, the rest is left for another time.

Called by the snapshot store when it has nothing else to do.
"""

import contextlib
import os
import time
from typing import Final

from smrx.consensus.memory_advice import PAGE_BYTES as SMALL_BYTES
from smrx.consensus.memory_advice import madvise

PAGE_BYTES: Final = 2 << 20
#: <linux/mman.h>; neither mmap nor ctypes names it.
_MADV_COLLAPSE: Final = 25
#: An entry of /proc/self/pagemap has 8 bytes; the highest bit of the last one says that the page is there.
_ENTRY_BYTES: Final = 8
_ABSENT: Final = bytes(range(0x80))

#: One large page is copied in 0.1 to 0.4 ms: an order that arrives meanwhile waits for one, seldom for two.
_STEP_SECONDS: Final = 0.0001
_PACE_SECONDS: Final = 0.005
#: What takes so much of the processor is no copying: other memory is moved out of the way.
_LABOUR_SECONDS: Final = 0.005
#: Such a request held the loop for longer than a fork would: the system is left alone for a while, then for longer.
_REST_SECONDS: Final = 10.0
_LONGEST_REST_SECONDS: Final = 600.0
#: Memory also grows: the log between two snapshots. Linux needs a millisecond to list what there is.
_LOOK_SECONDS: Final = 30.0


class LargePages:
    """A walk through this process's memory."""

    def __init__(self, now: float) -> None:
        """Nothing is looked at for a while: a process that has just started has other things to do."""
        self._places: list[int] = []
        self._look_at = now + _LOOK_SECONDS
        self._step_at = now
        self._rests_until = now
        self._rest_seconds = _REST_SECONDS
        self._ask = madvise()

    @property
    def at_work(self) -> bool:
        """Whether there is memory left that was not looked at."""
        return bool(self._places)

    def begin(self, now: float) -> None:
        """Look at all of it, from now on."""
        self._look_at = now + _LOOK_SECONDS
        self._places = places() if self._ask is not None and now >= self._rests_until else []

    def step(self, now: float) -> None:
        """Go on for about a tenth of a millisecond, if it is time."""
        if now < self._step_at:
            return
        if now >= self._look_at:
            self.begin(now)
        if not self._places or self._ask is None:
            return
        self._step_at = now + _PACE_SECONDS
        end = time.perf_counter() + _STEP_SECONDS
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as pages:
                while self._places and time.perf_counter() < end:
                    place = self._places.pop()
                    # What is mostly empty would only grow.
                    if 2 * _present(pages.fileno(), place) >= PAGE_BYTES // SMALL_BYTES:
                        self._put_together(place, now)
        except OSError:
            # A system that does not say what is there, as some containers' do not.
            self._places = []

    def _put_together(self, place: int, now: float) -> None:
        assert self._ask is not None
        # Of the processor: that somebody else had it for a while says nothing.
        began = time.thread_time()
        self._ask(place, PAGE_BYTES, _MADV_COLLAPSE)
        if time.thread_time() - began > _LABOUR_SECONDS:
            self._places = []
            self._rests_until = now + self._rest_seconds
            self._rest_seconds = min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)
        elif not self._places:
            self._rest_seconds = _REST_SECONDS


def places() -> list[int]:
    """Where a large page could be in this process's own memory; none where the system does not say."""
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
    """How many of the small pages from an address on are there."""
    count = PAGE_BYTES // SMALL_BYTES
    entries = os.pread(pagemap, count * _ENTRY_BYTES, place // SMALL_BYTES * _ENTRY_BYTES)
    return len(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(None, _ABSENT))
