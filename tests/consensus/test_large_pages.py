"""Large pages that a fork has split are collapsed again, with no byte changed and little memory used."""

import contextlib
import math
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from smrx.consensus import large_pages
from smrx.consensus.large_pages import PAGE_BYTES, LargePages
from smrx.consensus.memory_advice import madvise
from smrx.consensus.snapshot_files import SnapshotFiles
from smrx.consensus.snapshot_taker import ForkedSnapshots

#: Going through the memory of a large test process takes a second; on a loaded machine, far longer.
DEADLINE_SECONDS = 300.0
PAGES = 8
SMALL_BYTES = mmap.PAGESIZE


class Memory:
    """A mapping that starts at a large page, and the system's report about it."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, (PAGES + 1) * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map.madvise(mmap.MADV_HUGEPAGE)

    def touch(self, every: int, value: int) -> None:
        for at in range(0, len(self.map), every):
            self.map[at] = value

    def kib(self, what: str) -> int:
        """AnonHugePages or Rss, of the part of the address space that is this memory's."""
        size = f"Size: {len(self.map) >> 10} kB".split()
        blocks = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags:")
        (found,) = (block for block in blocks if size in map(str.split, block.splitlines()))
        (line,) = (line for line in found.splitlines() if line.startswith(f"{what}:"))
        return int(line.split()[1])


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Keep a forked child that shares this process's memory until the block ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    yield
    os.close(writing)
    os.waitpid(pid, 0)


def finish(pages: LargePages, now: float) -> None:
    """Wait for the request under way, and notice its end."""
    if pages._is_collapsing:
        pages._collapsed(pages._costs.get(timeout=DEADLINE_SECONDS), now)


def put_together(pages: LargePages) -> None:
    """Let it go through all memory, with as much time as it asks for."""
    now = time.monotonic()
    pages.begin(now)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while pages.is_busy:
        assert time.monotonic() < deadline, "the walk never ended"
        now += large_pages._PACE_SECONDS
        pages.step(now)
        finish(pages, now)


def is_supported() -> bool:
    """Whether large pages come at once, or after some labour, which nothing here minds."""
    memory = Memory()
    memory.touch(SMALL_BYTES, 1)
    with forked():
        memory.touch(SMALL_BYTES, 2)
    before = memory.kib("AnonHugePages")
    put_together(LargePages(0.0))
    return memory.kib("AnonHugePages") > before


@pytest.fixture
def supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages, "_EXPENSIVE_SECONDS", math.inf)
    if not Path("/proc/self/smaps").exists() or not is_supported():
        pytest.skip("this system does not put large pages together on request")


@pytest.mark.usefixtures("supported")
def test_pages_split_by_a_fork_are_collapsed() -> None:
    memory = Memory()
    memory.touch(SMALL_BYTES, 1)
    with forked():
        memory.touch(SMALL_BYTES, 2)
        assert memory.kib("AnonHugePages") == 0
    content = memory.map[:]
    deadline = time.monotonic() + DEADLINE_SECONDS
    # The system may be short of something for a moment and leave a page as it is.
    while memory.kib("AnonHugePages") < (PAGES - 1) * (PAGE_BYTES >> 10):
        assert time.monotonic() < deadline, "large pages were left apart"
        put_together(LargePages(0.0))
    assert memory.map[:] == content


@pytest.mark.usefixtures("supported")
def test_snapshot_store_collapses_pages_afterwards(tmp_path: Path) -> None:
    memory = Memory()
    memory.touch(SMALL_BYTES, 1)
    store = ForkedSnapshots(Nothing(), SnapshotFiles(tmp_path, cluster="alpha", node_id=1), persistent=True)
    store.begin(2, 1)
    memory.touch(SMALL_BYTES, 2)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not store.is_idle:
        assert time.monotonic() < deadline, "the memory was not gone through"
        store.poll()
    assert memory.kib("AnonHugePages") >= PAGES // 2 * (PAGE_BYTES >> 10)


class Nothing:
    """A machine without a state."""

    def snapshot_parts(self) -> dict[str, list[bytes | memoryview]]:
        return {"state": [b"nothing"]}

    def arrays_outside_snapshots(self) -> list[NDArray[Any]]:
        return []

    def position(self) -> tuple[int, int]:
        return 0, 0


@pytest.mark.usefixtures("supported")
def test_mostly_empty_memory_is_not_collapsed() -> None:
    memory = Memory()
    memory.map.madvise(mmap.MADV_NOHUGEPAGE)
    memory.touch(3 * SMALL_BYTES, 1)
    memory.map.madvise(mmap.MADV_HUGEPAGE)
    before = memory.kib("Rss")
    put_together(LargePages(0.0))
    assert memory.kib("Rss") == before


@pytest.mark.usefixtures("supported")
def test_walk_proceeds_in_paced_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    memory.touch(SMALL_BYTES, 1)
    with forked():
        memory.touch(SMALL_BYTES, 2)
    pages = LargePages(100.0)
    pages.step(101.0)
    assert not pages.is_busy, "a process that has just started was looked at"
    monkeypatch.setattr(large_pages, "_STEP_SECONDS", 0.0)
    pages.step(131.0)
    assert pages.is_busy
    left = len(pages._addresses)
    pages.step(131.001)
    assert len(pages._addresses) == left, "it did not wait"
    monkeypatch.setattr(large_pages, "_STEP_SECONDS", 0.0001)
    finish(pages, 131.5)
    pages.step(132.0)
    finish(pages, 132.0)
    assert len(pages._addresses) < left


@pytest.mark.skipif(madvise() is None, reason="this system has no such request")
@pytest.mark.parametrize(("labour_seconds", "asked"), [(0.0, 3), (0.05, 1)])
def test_expensive_request_pauses_the_walk(monkeypatch: pytest.MonkeyPatch, labour_seconds: float, asked: int) -> None:
    requests: list[int] = []

    def labour(place: int, size: int, advice: int) -> int:
        requests.append(place)
        end = time.thread_time() + labour_seconds
        while time.thread_time() < end:
            pass
        return 0

    monkeypatch.setattr(large_pages, "madvise", lambda: labour)
    monkeypatch.setattr(large_pages, "candidate_addresses", lambda: [1, 2, 3])
    monkeypatch.setattr(large_pages, "_present", lambda pagemap, place: PAGE_BYTES // SMALL_BYTES)
    pages = LargePages(0.0)
    put_together(pages)
    assert len(requests) == asked
    # After the next snapshot it is still so; later it may not be.
    put_together(pages)
    assert len(requests) == (asked if labour_seconds else 2 * asked)
    requests.clear()
    pages.begin(time.monotonic() + 1_000)
    assert pages.is_busy


@pytest.mark.skipif(madvise() is None, reason="this system has no such request")
def test_repeated_expensive_requests_lengthen_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    labour_seconds = 0.01

    def labour(place: int, size: int, advice: int) -> int:
        end = time.thread_time() + labour_seconds
        while time.thread_time() < end:
            pass
        return 0

    monkeypatch.setattr(large_pages, "madvise", lambda: labour)
    monkeypatch.setattr(large_pages, "candidate_addresses", lambda: [1])
    monkeypatch.setattr(large_pages, "_STEP_SECONDS", DEADLINE_SECONDS)  # However slow this machine is.
    monkeypatch.setattr(large_pages, "_present", lambda pagemap, place: PAGE_BYTES // SMALL_BYTES)
    pages, now, rests = LargePages(0.0), 0.0, []

    def rest() -> float:
        """Go through everything once, and return for how long nothing is looked at then."""
        nonlocal now
        pages.begin(now)
        pages.step(now)
        finish(pages, now)
        seconds = 0.0
        while not pages.is_busy:
            seconds += 1.0
            pages.begin(now + seconds)
        now += seconds
        return seconds

    rests = [rest() for _ in range(9)]
    assert rests == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]
    labour_seconds = 0.0
    pages.step(now)
    finish(pages, now)
    labour_seconds = 0.01
    now += 1.0
    assert rest() == 10.0


def test_missing_pagemap_ends_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its /proc has maps and no pagemap."""

    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("/proc/self/pagemap")

    monkeypatch.setattr(large_pages, "madvise", lambda: lambda place, size, advice: 0)
    monkeypatch.setattr(large_pages, "candidate_addresses", lambda: [1, 2, 3])
    monkeypatch.setattr(large_pages, "open", refuse, raising=False)
    pages = LargePages(0.0)
    pages.begin(0.0)
    pages.step(1.0)
    assert not pages.is_busy


def test_nothing_is_done_without_madvise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages, "madvise", lambda: None)
    pages = LargePages(0.0)
    pages.begin(0.0)
    pages.step(1000.0)
    assert not pages.is_busy
