"""Large pages that a fork has split are collapsed again by a thread, with no byte changed and little memory used."""

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.consensus import large_pages
from smrx.consensus.large_pages import PAGE_BYTES, Growing, LargePages
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
def forked() -> Iterator[int]:
    """Keep a forked child that shares this process's memory until the block ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    yield pid
    os.close(writing)
    os.waitpid(pid, 0)


def put_together(pages: LargePages) -> None:
    """Let it go through all memory."""
    pages.begin(0.0)
    if pages._thread is not None:
        pages._thread.join(DEADLINE_SECONDS)
        assert not pages.is_busy, "the walk never ended"


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
    monkeypatch.setattr(large_pages, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(large_pages, "_PAUSES", 0)
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
def test_fork_waits_until_split_pages_are_collapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = LargePages(0.0)
    assert pages.is_ready(0.0)
    pages.forks()
    with forked() as child:
        pages.forked(child, 0.0)
        pages.step(1.0)
        assert not pages.is_busy, "memory is collapsed while a child shares it"
        assert not pages.is_ready(1.0)
    pages.step(2.0)
    assert pages._thread is not None
    pages._thread.join(DEADLINE_SECONDS)
    assert pages.is_ready(2.0)
    # It does not wait for ever.
    pages.forked(child, 3.0)
    assert pages.is_ready(4.0 + large_pages._READY_SECONDS)


@pytest.mark.usefixtures("supported")
def test_memory_is_provided_in_large_pages_before_it_is_used() -> None:
    memory = Memory()
    memory.map.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory.map, np.uint8)
    array[: 2 * PAGE_BYTES] = 1
    before = large_kib()
    pages = LargePages(0.0, lambda: [Growing(array, 2 * PAGE_BYTES)])
    pages.step(0.0)
    assert pages._provider is not None
    pages._provider.join(DEADLINE_SECONDS)
    assert large_kib() > before
    assert memory.map[: 3 * PAGE_BYTES] == b"\1" * (2 * PAGE_BYTES) + bytes(PAGE_BYTES)
    pages.step(1.0)
    assert not pages._provider.is_alive(), "the same memory is provided twice"


def large_kib() -> int:
    """AnonHugePages of the process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


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


class Requests:
    """Takes requests, each of which may cost processor time; keeps how long the walk waits after each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: list[float]) -> None:
        self.pages: list[int] = []
        self.pauses: list[float] = []
        self._costs = iter(costs)
        monkeypatch.setattr(large_pages, "madvise", lambda: self.request)
        monkeypatch.setattr(large_pages, "_small_pages", lambda pagemap: iter(range(1, 1 + len(costs))))

    def request(self, place: int, size: int, advice: int) -> int:
        self.pages.append(place)
        end = time.thread_time() + next(self._costs)
        while time.thread_time() < end:
            pass
        return 0


class Watched(threading.Event):
    """An event that notes the times for which it is waited, and returns at once."""

    def __init__(self, requests: Requests) -> None:
        super().__init__()
        self._requests = requests

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._requests.pauses.append(timeout)
        return self.is_set()


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="this system has no such file")
def test_walk_waits_in_proportion_to_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Requests(monkeypatch, [0.0, 0.05, 0.0])
    pages = LargePages(0.0)
    pages._stop = Watched(requests)
    put_together(pages)
    assert requests.pages == [1, 2, 3]
    assert requests.pauses[1] >= 0.05 * large_pages._PAUSES
    assert min(requests.pauses) >= large_pages._PACE_SECONDS


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="this system has no such file")
def test_walk_ends_when_a_child_is_about_to_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Requests(monkeypatch, [0.0] * 3)
    monkeypatch.setattr(large_pages, "_PACE_SECONDS", DEADLINE_SECONDS)
    pages = LargePages(0.0)
    pages.begin(0.0)
    pages.forks()
    assert pages._thread is not None
    pages._thread.join(DEADLINE_SECONDS / 2)
    assert not pages.is_busy
    assert len(requests.pages) <= 1


def test_walk_begins_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []
    pages = LargePages(100.0)
    monkeypatch.setattr(pages, "begin", begun.append)
    for now in (101.0, 104.9, 105.0):
        pages.step(now)
    assert begun == [105.0]


def test_missing_pagemap_ends_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its /proc has maps and no pagemap."""

    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("/proc/self/pagemap")

    requests = Requests(monkeypatch, [0.0] * 3)
    monkeypatch.setattr(large_pages, "open", refuse, raising=False)
    put_together(LargePages(0.0))
    assert requests.pages == []


def test_nothing_is_done_without_madvise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages, "madvise", lambda: None)
    pages = LargePages(0.0)
    pages.begin(0.0)
    pages.step(1000.0)
    assert not pages.is_busy
