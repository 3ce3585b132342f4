"""Measure how many events per second settlement verifies into a sink on one core, and its lag behind a live feed.

Everything is real except the nodes: another process plays two of three members (feed_publisher.py), which publish the
events of a market made beforehand. This process fetches, attests, posts and writes them, and commits with fsync.

- Catching up: settlement starts late, fetches all events from one node by retransmission and attests them by the other.
- Lag: both nodes publish at a fixed rate; from the time a node sends an event to the checkpoint that covers it.
- Memory: of this process at the end of the live phase, and its growth since the middle of that phase, when everything
  that is allocated once is allocated. Mapped files (LMDB) are not counted.

Called by the command line.
"""

import gc
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench.bench_error import BenchError
from smrx.bench.tapes import TapeMaker, market
from smrx.config import Config, NodeConfig, Settlement, SinkConfig
from smrx.engine import Engine
from smrx.follower.alarms import Alarms
from smrx.settlement.books.compiled_books import warm_up
from smrx.settlement.settlement_run import LedgerRunner, make_runner, make_settler
from smrx.sinks import Checkpoint, make_sinks
from smrx.sinks.retrying import RetryingSink
from smrx.sinks.rows import Tables

#: The benchmark fails after so many seconds without progress.
_PROGRESS_TIMEOUT_SECONDS: Final = 30.0
_PIECE: Final = 1_000


class _SendTimes:
    """A sink that collects the times at which uncommitted events left their node."""

    name = "send times"

    def __init__(self) -> None:
        self.uncommitted: list[NDArray[np.int64]] = []

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink: it has no checkpoint."""
        return None

    def write(self, events: NDArray[np.void]) -> None:
        """Collect the times."""
        self.uncommitted.append(events["time_ns"].copy())

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink: the lag is measured when all sinks have committed."""

    def close(self) -> None:
        """See Sink."""


class _Lags:
    """The lag of every live event, in milliseconds. Its memory is allocated once."""

    def __init__(self, count: int) -> None:
        # Filled, so that the pages are resident before memory is measured.
        self._values = np.full(count, -1.0)
        self._count = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Add the lags of events committed together."""
        values = values[: len(self._values) - self._count]
        self._values[self._count : self._count + len(values)] = values
        self._count += len(values)

    def sorted(self) -> NDArray[np.float64]:
        """Return all lags in ascending order; a single 0 if there are none."""
        return np.sort(self._values[: self._count]) if self._count else np.zeros(1)


def event_pieces(seed: int) -> Iterator[NDArray[np.void]]:
    """Yield the events of the benchmark's market from sequence 1 on, without end, in pieces of whole commands."""
    maker, engine = TapeMaker(seed), Engine()
    setup = market()
    maker.engine.apply(setup.records, 1, setup.details)
    yield engine.apply(setup.records, 1, setup.details).events
    yield engine.apply(maker.piece(4_000, adds_only=True), 1).events
    while True:
        yield engine.apply(maker.piece(_PIECE), 1).events


def make_events(count: int, seed: int) -> NDArray[np.void]:
    """Return at least `count` events of the benchmark's market from sequence 1, with all events of each command."""
    parts: list[NDArray[np.void]] = []
    for part in event_pieces(seed):
        parts.append(part)
        if int(part["sequence"][-1]) >= count:
            break
    rows = np.concatenate([np.ascontiguousarray(part).view(np.uint64) for part in parts])
    return rows.view(parts[0].dtype)


def run(
    events: int = 1_000_000,
    sink: str = "csv",
    rate: int = 100_000,
    seconds: float = 5.0,
    seed: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Measure once; see the module's docstring. Raises BenchError."""
    live = int(rate * seconds)
    stream = make_events(events + live, seed)
    commands = stream["command_sequence"]
    held = int(np.searchsorted(commands, commands[events - 1], side="right"))
    warm_up()
    with tempfile.TemporaryDirectory(prefix="smrx-bench-") as folder, _nodes(Path(folder), stream, held) as nodes:
        process, ports = nodes
        config = _config(ports, folder, sink)
        times = _SendTimes()
        settler = make_settler(config.cluster, config.settlement.directory, [*make_sinks(config), times], RetryingSink)
        settler.open()
        runner = make_runner(config, settler, Alarms(config.cluster), node_ids=[1, 2])
        try:
            before = time.process_time()
            catch_up_seconds = _follow(runner, held, times, None, progress, "catching up")
            cpu_seconds = time.process_time() - before
            assert process.stdin is not None
            process.stdin.write(f"{rate}\n")
            process.stdin.flush()
            lags = _Lags(len(stream) - held)
            middle = held + (len(stream) - held) // 2
            live_seconds = _follow(runner, middle, times, lags, progress, "live")
            middle_bytes, middle_sequence = _memory_bytes(), runner.sequence
            live_seconds += _follow(runner, len(stream), times, lags, progress, "live")
            memory_bytes, measured = _memory_bytes(), runner.sequence - middle_sequence
        finally:
            runner.close()
            settler.close()
        feed = runner.subscriber.feed_stats
        lag = lags.sorted()
        return {
            "events": held,
            "seconds": round(catch_up_seconds, 6),
            "events_per_second": round(held / catch_up_seconds),
            # Of this process with its socket thread: what it does with a whole core on a busy machine.
            "events_per_cpu_second": round(held / cpu_seconds),
            "lag_p50_ms": _quantile(lag, 0.50),
            "lag_p99_ms": _quantile(lag, 0.99),
            "lag_max_ms": _quantile(lag, 1.0),
            "live_events_per_second": round((len(stream) - held) / live_seconds),
            "memory_bytes": memory_bytes,
            "memory_growth_bytes": memory_bytes - middle_bytes,
            "memory_growth_bytes_per_event": round((memory_bytes - middle_bytes) / max(1, measured), 2),
            "trades": settler.projection.trades,
            "checkpoints": settler.checkpoints,
            "conditions": {
                "machine": f"{platform.machine()} {platform.system()}",
                "python": platform.python_version(),
                "numpy": np.__version__,
                "sink": sink,
                "nodes": "2 of 3 members, in one other process, over loopback",
                "offered_events_per_second": rate,
                "seed": seed,
                "cores": 1,
                "fsync": "at every checkpoint, of sink and books",
                "trades_share": round(settler.projection.trades / len(stream), 3),
                "gaps_healed": feed.gaps_healed,
                "lag": "from sending by a node to the checkpoint that covers the event",
            },
        }


def _follow(
    runner: LedgerRunner,
    last: int,
    times: _SendTimes,
    lags: "_Lags | None",
    progress: Callable[[str, float], None] | None,
    phase: str,
) -> float:
    """Run settlement until everything up to event `last` is committed; return the seconds since the first event."""
    started: float | None = None
    first = runner.sequence
    progressed = time.monotonic()
    done = first
    while done < last:
        runner.turn()
        now = time.monotonic()
        if started is None and runner.subscriber.sequencer.expected > first + 1:
            started = now
        committed = runner.settler.committed
        if committed is None or committed.event_sequence == done:
            if now - progressed > _PROGRESS_TIMEOUT_SECONDS:
                raise BenchError(
                    f"settlement made no progress for {_PROGRESS_TIMEOUT_SECONDS:g} s at event {done} of {last}"
                )
            continue
        done, progressed = committed.event_sequence, now
        if not runner.settler.has_uncommitted:
            if lags is not None and times.uncommitted:
                lags.add((time.time_ns() - np.concatenate(times.uncommitted)) / 1e6)
            times.uncommitted.clear()
        if progress is not None:
            progress(phase, (done - first) / max(1, last - first))
    return time.monotonic() - (started or progressed)


@contextmanager
def _nodes(folder: Path, stream: NDArray[np.void], held: int) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    path = folder / "events.bin"
    stream.tofile(path)
    process = subprocess.Popen(
        [sys.executable, "-m", "smrx.bench.feed_publisher", str(path), str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BenchError("the process that plays the nodes ended before it reported its ports")
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def _config(ports: list[int], folder: str, sink: str) -> Config:
    nodes = [NodeConfig(id=i, port=i * 10, events_port=port) for i, port in enumerate(ports, 1)]
    settlement = Settlement(directory=f"{folder}/settled", sinks=(SinkConfig(kind=sink, path=sink),))  # type: ignore[arg-type]
    return Config(nodes=(*nodes, NodeConfig(id=3, port=30)), settlement=settlement)


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    return round(float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]), 2)


def _memory_bytes() -> int:
    """Return the anonymous resident memory of this process; its peak where the system reports only that."""
    gc.collect()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
