"""A forked child writes the state as it was at the fork, without blocking the node, even if the child fails."""

import contextlib
import errno
import faulthandler
import gc
import mmap
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from smrx.consensus.large_pages import LargePages
from smrx.consensus.snapshot_files import SnapshotFiles, verify
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.consensus.snapshots import Mark, MemorySnapshots, Schedule, Snapshot
from smrx.consensus.storage import StorageFull

DEADLINE_SECONDS = 20.0


class Source:
    """A machine with an array for a state."""

    def __init__(self, size: int = 1000) -> None:
        self.state = np.zeros(size, np.uint64)
        self.beside: list[NDArray[Any]] = []
        self.before: Callable[[], None] = lambda: None

    def snapshot_parts(self) -> dict[str, list[memoryview]]:
        self.before()
        return {"state": [memoryview(self.state.view(np.uint8))]}

    def arrays_outside_snapshots(self) -> list[NDArray[Any]]:
        return self.beside

    def position(self) -> tuple[int, int]:
        return int(self.state[0]), 7


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for large pages: tests/consensus/test_large_pages.py has that."""
    monkeypatch.setattr(LargePages, "is_ready", lambda pages, now: True)


def taker(folder: Path, source: Source, *, persistent: bool = True) -> ForkedSnapshots:
    return ForkedSnapshots(source, SnapshotFiles(folder, cluster="alpha", node_id=1), persistent=persistent)


def wait(store: ForkedSnapshots) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while store.pending_index is not None:
        assert time.monotonic() < deadline, "the child never ended"
        store.poll()
        time.sleep(0.001)


def test_snapshot_is_the_state_at_the_fork(tmp_path: Path) -> None:
    source = Source()
    source.state[:] = 5
    store = taker(tmp_path, source)
    source.before = lambda: time.sleep(0.05)  # In the child: it looks long after the loop has gone on.
    store.begin(10, 1)
    source.state[:] = 6
    assert store.pending_index == 10
    wait(store)
    newest = store.newest()
    assert newest is not None
    assert (newest.index, newest.term) == (10, 1)
    assert bytes(newest.data) == np.full(1000, 5, np.uint64).tobytes()
    assert newest == Snapshot.of(10, 1, bytes(newest.data))
    assert store.stored is not None
    verify(store.stored)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTFORK"), reason="this system leaves no memory out of a fork")
def test_child_lacks_arrays_outside_snapshots(tmp_path: Path) -> None:
    source = Source()
    source.beside = [np.zeros(1 << 20, np.uint64)]
    store = taker(tmp_path, source)
    store.begin(10, 1)
    wait(store)
    assert store.stored is not None
    # A child that reads it dies without a snapshot, and the node continues.

    def read() -> None:
        faulthandler.disable()
        source.beside[0].sum()

    source.before = read
    store.begin(20, 1)
    wait(store)
    assert store.stored.log_index == 10


def test_one_snapshot_at_a_time_and_the_older_one_bounds_the_log(tmp_path: Path) -> None:
    source = Source()
    store = taker(tmp_path, source)
    store.begin(10, 1)
    store.begin(11, 1)
    assert store.pending_index == 10
    wait(store)
    assert store.oldest_index() == 0, "a log that could replace the only one must stay"
    for index in (20, 30):
        source.state[0] += 1
        store.begin(index, 1)
        wait(store)
    assert store.oldest_index() == 20


def test_memory_node_writes_no_file_for_a_peer(tmp_path: Path) -> None:
    source = Source()
    source.state[:] = 8
    store = taker(tmp_path, source, persistent=False)
    store.begin(10, 1, for_restart=False)
    wait(store)
    newest = store.newest()
    assert newest is not None
    assert newest == Snapshot.of(10, 1, source.state.tobytes())
    assert not list(tmp_path.iterdir())
    store.release(11)
    assert store.newest() is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see descriptors")
def test_child_closes_inherited_descriptors(tmp_path: Path) -> None:
    source = Source()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        router = context.socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def descriptors() -> None:
            found = []
            for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
                with contextlib.suppress(OSError):  # The listing's own.
                    found += [os.readlink(f"/proc/self/fd/{fd}")] if fd > 2 else []
            (tmp_path / "held").write_text("\n".join(found))

        source.before = descriptors
        store = taker(tmp_path / "snapshots", source)
        store.begin(10, 1)
        wait(store)
        held = (tmp_path / "held").read_text()
        assert "pipe:" in held
        assert "socket:" not in held
        # The node's own still work.
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"hello")
        assert router.poll(5000)
    context.destroy(linger=0)
    assert gc.isenabled()


def test_killed_child_leaves_no_files_and_is_retried(tmp_path: Path) -> None:
    source = Source()
    source.before = lambda: os.kill(os.getpid(), signal.SIGKILL)
    clock = [0.0]
    store = ForkedSnapshots(
        source, SnapshotFiles(tmp_path, cluster="alpha", node_id=1), persistent=True, clock=lambda: clock[0]
    )
    store.begin(10, 1)
    wait(store)
    assert store.newest() is None
    source.before = lambda: None
    store.begin(11, 1)
    assert store.pending_index is None, "tried again without a pause"
    clock[0] += 60.0
    store.begin(11, 1)
    wait(store)
    assert store.stored is not None
    assert store.stored.log_index == 11


@pytest.mark.parametrize("call", ["pipe", "fork"])
def test_failed_fork_only_costs_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    now = 0.0
    files = SnapshotFiles(tmp_path, cluster="alpha", node_id=1)
    store = ForkedSnapshots(Source(), files, persistent=False, clock=lambda: now)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        before = len(os.listdir("/dev/fd"))
        store.begin(10, 1, for_restart=False)
        assert len(os.listdir("/dev/fd")) == before
        assert (store.pending_index, store.newest()) == (None, None)
    store.begin(10, 1, for_restart=False)
    assert store.pending_index is None, "not at every turn"
    now += 60
    store.begin(11, 1, for_restart=False)
    wait(store)
    newest = store.newest()
    assert newest is not None
    assert newest.index == 11


def test_snapshot_removed_before_poll_is_tolerated(tmp_path: Path) -> None:
    now = 0.0
    source = Source()
    files = SnapshotFiles(tmp_path, cluster="alpha", node_id=1)
    store = ForkedSnapshots(source, files, persistent=True, clock=lambda: now)
    store.begin(10, 1)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (tmp_path / "snapshot-0" / "COMPLETE").exists():
        assert time.monotonic() < deadline, "the child never wrote anything"
        time.sleep(0.001)
    shutil.rmtree(tmp_path / "snapshot-0")
    wait(store)
    assert store.newest() is None
    assert store.oldest_index() == 0
    now += 60
    store.begin(11, 1)
    wait(store)
    newest = store.newest()
    assert newest is not None
    assert newest.index == 11


def test_full_disk_only_costs_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    store = taker(tmp_path, source)
    store.begin(10, 1)
    wait(store)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    store.begin(20, 1)
    wait(store)
    assert store.stored is not None
    assert store.stored.log_index == 10
    assert "No space left" in caplog.text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    # One that a leader sent must be kept before the log is cut at it.
    with pytest.raises(StorageFull, match="nothing acknowledged is lost"):
        store.keep(Snapshot.of(30, 1, b"state"))


def test_received_snapshot_is_durable_on_return(tmp_path: Path) -> None:
    source = Source()
    store = taker(tmp_path, source)
    store.keep(Snapshot.of(30, 4, b"state"))
    stored = store.stored
    assert stored is not None
    verify(stored)
    assert (stored.log_index, stored.metadata.log_term, store.oldest_index()) == (30, 4, 0)


def test_refused_snapshot_is_sent_again_only_if_valid(tmp_path: Path) -> None:
    source = Source()
    store = taker(tmp_path, source)
    store.begin(10, 1)
    wait(store)
    store.refused(10)
    assert store.newest() is not None
    assert store.stored is not None
    with (store.stored.path / "state").open("r+b") as file:
        file.write(b"x")
    store.refused(10)
    assert store.newest() is None


def test_close_kills_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork, children = os.fork, []

    def noted() -> int:
        pid = fork()
        children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    source = Source()
    source.before = lambda: time.sleep(DEADLINE_SECONDS)
    store = taker(tmp_path, source)
    store.begin(10, 1)
    store.close()
    assert store.pending_index is None
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


def test_loop_neither_reads_the_state_nor_waits_for_the_child(tmp_path: Path) -> None:
    """How long the fork itself takes is measured by `smrx bench recovery`."""
    source = Source()
    loop, gate = os.getpid(), tmp_path / "gate"

    def blocked() -> None:
        assert os.getpid() != loop, "the loop itself read the state"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.001)

    source.before = blocked
    store = taker(tmp_path / "snapshots", source)
    store.begin(10, 1)
    store.poll()
    assert store.pending_index == 10
    assert store.newest() is None
    gate.touch()
    wait(store)
    assert store.newest() is not None


# When.


def test_snapshot_is_due_after_commands_entries_bytes_or_time() -> None:
    start = Mark(0, 0, 0, 0.0)
    schedule = Schedule(start, commands=100, seconds=60.0, entries=50, size_bytes=1000)
    assert not schedule.due(Mark(99, 49, 999, 59.0))
    assert schedule.due(Mark(100, 1, 1, 1.0))
    assert schedule.due(Mark(1, 50, 1, 1.0))
    assert schedule.due(Mark(1, 1, 1000, 1.0))
    assert schedule.due(Mark(1, 1, 1, 60.0))
    assert not schedule.due(Mark(0, 10, 10, 600.0)), "nothing changed since"


def test_failed_snapshot_is_due_again_and_complete_one_is_not() -> None:
    schedule = Schedule(Mark(0, 0, 0, 0.0), commands=100, seconds=60.0, entries=50, size_bytes=1000)
    mark = Mark(120, 7, 500, 3.0)
    schedule.begun(mark)
    schedule.whole(0)
    assert schedule.due(mark)
    schedule.whole(7)
    assert not schedule.due(Mark(219, 8, 600, 4.0))
    assert schedule.due(Mark(220, 8, 600, 4.0))


def test_memory_store_takes_snapshots_only_for_peers() -> None:
    store = MemorySnapshots(lambda: b"state")
    store.begin(5, 1)
    assert store.newest() is None
    store.begin(5, 1, for_restart=False)
    assert store.newest() == Snapshot.of(5, 1, b"state")
    store.refused(5)
    assert store.newest() is None
