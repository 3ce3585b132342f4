"""Measure how many updates of orders a second are stored, and how long the newest orders of an account take to read.

The events of a market are given to the store as settlement gives them, a commit with fsync for each 16,384 events. What
it costs to make the events is not counted. Then, while another process stores updates at a rate, the newest orders of
random accounts are read, each time from a view opened for it. Called by the command line.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench.machine_conditions import machine
from smrx.bench.settle_bench import event_pieces
from smrx.follower.settler import EVENTS_PER_CHECKPOINT
from smrx.history.history_reader import HistoryReader
from smrx.history.history_store import HistoryStore
from smrx.history.order_kernels import warm_up
from smrx.history.order_views import OrderViews
from smrx.sinks.contract import Checkpoint

_CLUSTER: Final = "bench"
#: Rows of a page.
_LIMIT: Final = 50


class _Writer:
    """Writes events of the market, and counts the time that takes."""

    def __init__(self, path: Path, seed: int) -> None:
        self.store = HistoryStore(path)
        self.store.open(_CLUSTER)
        self.updates = 0
        self.seconds = self.cpu_seconds = 0.0
        self._events = _batches(event_pieces(seed), EVENTS_PER_CHECKPOINT)

    def write(self) -> None:
        """Store one batch of events, and commit it."""
        events = next(self._events)
        last = events[-1]
        checkpoint = Checkpoint(_CLUSTER, int(last["sequence"]), int(last["command_sequence"]), 0, 0)
        started, cpu = time.perf_counter(), time.process_time()
        self.store.write(events)
        self.store.commit(checkpoint)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu
        self.updates = self.store.updates


def run(
    updates: int = 1_000_000,
    reads: int = 500,
    rate: int = 20_000,
    seed: int = 1,
    directory: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Measure once; see the module's docstring. `directory`: where the files of the run are made."""
    warm_up()
    with tempfile.TemporaryDirectory(prefix="smrx-bench-", dir=directory) as folder:
        writer = _Writer(Path(folder), seed)
        try:
            while writer.updates < updates:
                writer.write()
                if progress is not None:
                    progress("storing", writer.updates / updates)
            size = (Path(folder) / "data.mdb").stat().st_blocks * 512
            open_orders = writer.store.history.open_orders
        finally:
            writer.store.close()
        with _writing_on(writer, rate):
            latencies = _read(Path(folder), reads, seed, progress)
    stored = writer.updates
    return {
        "updates_per_second": round(stored / writer.seconds),
        "p99_ms": round(float(np.percentile(latencies, 99)), 3),
        "p50_ms": round(float(np.percentile(latencies, 50)), 3),
        "updates": stored,
        "cpu_ns_an_update": round(1e9 * writer.cpu_seconds / stored),
        "bytes_an_update": round(size / stored),
        "open_orders": open_orders,
        "conditions": {
            **machine(),
            "store": "LMDB, one writer, a commit with fsync for each 16,384 events",
            "reads": reads,
            "rows_a_read": _LIMIT,
            "updates_per_second_while_reading": rate,
        },
    }


@contextmanager
def _writing_on(writer: _Writer, rate: int) -> Iterator[None]:
    """Store updates at a rate in another process, which has one of the two views of the files that LMDB allows."""
    parent = os.getpid()
    child = os.fork()
    if not child:
        try:
            writer.store.open(_CLUSTER)
            started, begun = time.perf_counter(), writer.updates
            while os.getppid() == parent:
                due = begun + rate * (time.perf_counter() - started)
                if writer.updates < due:
                    writer.write()
                else:
                    time.sleep(0.001)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _read(path: Path, reads: int, seed: int, progress: Callable[[str, float], None] | None) -> NDArray[np.float64]:
    """Return the milliseconds that each read took."""
    accounts = _accounts(path)
    chosen = np.random.default_rng(seed).choice(accounts, reads).tolist()
    latencies = np.zeros(reads)
    for at, account in enumerate(chosen):
        asked = time.perf_counter()
        with HistoryReader(path) as reader:
            OrderViews(reader).orders(account, limit=_LIMIT)
        latencies[at] = 1000 * (time.perf_counter() - asked)
        if progress is not None:
            progress("reading", (at + 1) / reads)
    return latencies


def _accounts(path: Path) -> list[int]:
    """Return the accounts that have open orders."""
    with HistoryReader(path) as reader:
        return np.unique(reader.open_orders()["account"]).tolist()  # type: ignore[no-any-return]


def _batches(pieces: Iterator[NDArray[np.void]], events: int) -> Iterator[NDArray[np.void]]:
    """Yield the same events in batches of at least so many."""
    waiting: list[NDArray[np.void]] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= events:
            yield np.concatenate(waiting)
            waiting = []
