"""Views: pages of one state, for their owner only, bounded in number, size and time."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.consensus.large_pages import LargePages
from smrx.engine.inspect import DTYPES
from smrx.node import child_file, views
from smrx.node.views import Refused, Slice, Views, Waiting
from tests.engine.small_market import SmallMarket, busy_market

OWNER, OTHER = "one", "two"
ROW = np.dtype([("number", "<u8")])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Views]:
    # How long a fork takes is up to the machine: only one test waits for it.
    monkeypatch.setattr(views, "_PAUSES", 0)
    held = Views(clock)
    yield held
    held.close()


def numbers(count: int) -> Callable[[], Iterator[Any]]:
    """Return rows 0 to count - 1, in blocks of ten."""

    def rows() -> Iterator[Any]:
        for start in range(0, count, 10):
            yield np.arange(start, min(start + 10, count), dtype=np.uint64).view(ROW)

    return rows


def opened(held: Views, clock: Clock, rows: Callable[[], Iterator[Any]], owner: str = OWNER) -> str:
    clock.now += 5
    cursor = held.open(owner, ROW, rows, (), 7)
    assert isinstance(cursor, str)
    return cursor


def written(held: Views, cursor: str) -> str:
    """Wait until the child has written all rows of a view."""
    deadline = time.monotonic() + 20
    while not held._views[cursor].file.poll():
        assert time.monotonic() < deadline
    return cursor


def page(held: Views, cursor: str, offset: int, limit: int, owner: str = OWNER) -> Slice | Refused:
    """Return a page once it is written."""
    deadline = time.monotonic() + 60
    while isinstance(found := held.read(owner, cursor, offset, limit), Waiting):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


def test_pages_are_of_the_state_as_it_was(held: Views) -> None:
    market: SmallMarket = busy_market()
    inspect = market.engine.inspect
    before = inspect.orders()
    cursor = held.open(OWNER, DTYPES["orders"], lambda: inspect.listing("orders"), inspect.arrays_outside("orders"), 5)
    assert isinstance(cursor, str)
    market.cancel(int(before["account"][0]), int(before["order_id"][0]))
    market.buy(1, 1, 3)
    found, offset, more = [], 0, True
    while more:
        part = page(held, cursor, offset, 4)
        assert isinstance(part, Slice)
        assert part.sequence == 5
        found.append(part.rows)
        offset, more = offset + len(part.rows), part.more
    assert np.concatenate(found).tobytes() == before.tobytes()
    assert market.engine.inspect.orders().tobytes() != before.tobytes()


def test_listing_needs_no_memory_that_is_excluded(held: Views, clock: Clock) -> None:
    """Large arrays are excluded page by page: a child that read one would end with SIGSEGV."""
    market = SmallMarket(orders=1 << 15, balances=1 << 15)
    inspect = market.engine.inspect
    for table in ("orders", "balances", "accounts", "sessions"):
        clock.now += 5
        cursor = held.open(
            OWNER, DTYPES[table], lambda table=table: inspect.listing(table), inspect.arrays_outside(table), 5
        )
        assert isinstance(cursor, str)
        part = page(held, cursor, 0, 100)
        assert isinstance(part, Slice)
        assert part.rows.tobytes() == getattr(inspect, table)().tobytes()


def test_view_belongs_to_its_owner(held: Views, clock: Clock) -> None:
    cursor = opened(held, clock, numbers(5))
    assert isinstance(held.read(OTHER, cursor, 0, 1), Refused)
    assert isinstance(held.read(OWNER, cursor[:-1] + "x", 0, 1), Refused)
    part = page(held, cursor, 0, 1)
    assert isinstance(part, Slice)
    assert (part.rows["number"].tolist(), part.more) == ([0], True)


def test_view_is_read_as_the_listing_that_it_is(held: Views, clock: Clock) -> None:
    """Who lost the right to one listing does not read on as if it were another, public one."""
    cursor = written(held, opened(held, clock, numbers(3)))
    assert isinstance(held.read(OWNER, cursor, 0, 3, DTYPES["assets"]), Refused)
    assert isinstance(held.read(OWNER, cursor, 0, 3, ROW), Slice)


def test_next_view_of_an_owner_replaces_the_last(held: Views, clock: Clock) -> None:
    first = opened(held, clock, numbers(5))
    second = opened(held, clock, numbers(6))
    assert list(held) == [second]
    assert isinstance(held.read(OWNER, first, 0, 1), Refused)


def test_number_of_views_is_bounded(held: Views, clock: Clock) -> None:
    for owner in range(views.MAX_VIEWS):
        page(held, written(held, opened(held, clock, numbers(2), str(owner))), 0, 1, str(owner))
    clock.now += 5
    refused = held.open("more", ROW, numbers(1), (), 7)
    assert isinstance(refused, Refused)
    assert str(views.MAX_VIEWS) in refused.reason
    clock.now += views.HELD_SECONDS
    held.poll()
    assert len(held) == 0
    assert isinstance(held.open("more", ROW, numbers(1), (), 7), str)


def test_view_that_was_read_to_its_end_makes_room(held: Views, clock: Clock) -> None:
    cursors = []
    for owner in range(views.MAX_VIEWS):
        cursors.append(written(held, opened(held, clock, numbers(2), str(owner))))
        page(held, cursors[-1], 0, 1, str(owner))
    page(held, cursors[1], 1, 1, "1")
    clock.now += 5
    another = held.open("more", ROW, numbers(1), (), 7)
    assert list(held) == [cursors[0], *cursors[2:], another]


def test_one_child_at_a_time(held: Views, clock: Clock) -> None:
    def slow() -> Iterator[Any]:
        time.sleep(60)
        yield np.zeros(1, ROW)

    cursor = opened(held, clock, slow)
    clock.now += 5
    assert isinstance(held.open(OTHER, ROW, numbers(1), (), 7), Refused)
    assert isinstance(held.read(OWNER, cursor, 0, 1), Waiting)
    assert isinstance(held.open(OWNER, ROW, numbers(1), (), 7), str), "an owner may replace its own view"


def test_after_a_fork_the_next_one_waits(held: Views, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_PAUSES", 100)
    page(held, opened(held, clock, numbers(1)), 0, 1)
    assert isinstance(held.open(OTHER, ROW, numbers(1), (), 7), Refused)
    clock.now += 100 * held.longest_pause_s + 1
    assert isinstance(held.open(OTHER, ROW, numbers(1), (), 7), str)


def test_listing_waits_for_large_pages(clock: Clock) -> None:
    """The last child has split them: a fork would be long."""
    pages = LargePages(0.0)
    held = Views(clock, pages)
    pages.forked(os.getpid(), clock.now)
    if pages.is_ready(clock.now):
        pytest.skip("this system has no large pages")
    refused = held.open(OWNER, ROW, numbers(3), (), 7)
    assert isinstance(refused, Refused)
    assert "memory is prepared" in refused.reason
    clock.now += 1000.0
    assert isinstance(held.open(OWNER, ROW, numbers(3), (), 7), str)
    held.close()


def test_view_is_bounded_in_bytes(held: Views, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_BYTES", 1 << 20)
    refused = page(held, opened(held, clock, numbers(200_000)), 199_999, 1)
    assert isinstance(refused, Refused)
    assert "1 MiB" in refused.reason
    assert len(held) == 0


def test_child_that_takes_too_long_is_killed(held: Views, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "CHILD_SECONDS", 0.1)

    def slow() -> Iterator[Any]:
        time.sleep(60)
        yield np.zeros(1, ROW)

    cursor = opened(held, clock, slow)
    file = held._views[cursor].file
    pid = file._pid
    refused = page(held, cursor, 0, 1)
    assert isinstance(refused, Refused)
    assert "too long" in refused.reason
    assert file.reaper is not None
    file.reaper.join(60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_child_is_ended_and_its_file_freed_without_a_thread(
    held: Views, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(child_file, "_LARGE_BYTES", 0)
    # One that runs, and one that has written its file.
    page(held, opened(held, clock, numbers(3)), 0, 1)
    opened(held, clock, endless)
    pids = [view.file._pid for view in held._views.values()]
    held.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def endless() -> Iterator[Any]:
    time.sleep(60)
    yield np.zeros(1, ROW)


def test_child_that_dies_is_reported(held: Views, clock: Clock) -> None:
    def dies() -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGSEGV)
        yield np.zeros(1, ROW)

    refused = page(held, opened(held, clock, dies), 0, 1)
    assert isinstance(refused, Refused)
    assert str(-signal.SIGSEGV) in refused.reason


def children() -> set[str]:
    """Return the ids of this process's children; other tests in it may have started helpers."""
    return {
        child
        for thread in os.listdir("/proc/self/task")
        for child in Path(f"/proc/self/task/{thread}/children").read_text().split()
    }


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="children are listed in /proc only")
def test_no_process_is_left_and_no_descriptor(held: Views, clock: Clock) -> None:
    before_children = children()
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    files = []
    for _ in range(5):
        opened(held, clock, numbers(3))
        files += [view.file for view in held._views.values()]
    page(held, next(iter(held)), 0, 1)
    held.close()
    for file in files:
        if file.reaper is not None:
            file.reaper.join(60)
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)
    assert children() == before_children


def test_no_view_if_there_can_be_no_process(held: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child_file, "fork", refuse)
    refused = held.open(OWNER, ROW, numbers(1), (), 7)
    assert isinstance(refused, Refused)
    assert "Resource temporarily" in refused.reason
