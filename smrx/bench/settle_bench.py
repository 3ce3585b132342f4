"""How many events a second settlement verifies into a sink on one core, and how far it is behind a live feed.

Everything is real but the nodes: two of three members in another process hold and publish the events of a market made
beforehand; this process fetches, compares or has vouched for, attests, posts, writes, and commits with fsync.

- Catching up: it joins late, fetches all events from one node by retransmission and has the other vouch for them.
- Lag: both nodes publish at a rate; from the moment a node sends an event to the checkpoint that covers it.
- Memory: what this process holds at the end of the live part, and how much less it was in the middle of it, when all
  that is allocated once had been. Pages of files (LMDB's map) are the machine's, and are not counted.

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

from smrx.bench.tapes import Writer, market
from smrx.config import Config, NodeConfig, Settlement, SinkConfig
from smrx.engine import Engine
from smrx.settlement.books.compiled_books import warm_up
from smrx.settlement.follower.alarms import Alarms
from smrx.settlement.follower.runner import Settlement as Running
from smrx.settlement.follower.settler import Settling
from smrx.sinks import Checkpoint, make_sinks
from smrx.sinks.retrying import RetryingSink
from smrx.sinks.rows import Tables

#: Seconds without progress after which the benchmark has failed.
_PATIENCE: Final = 30.0
_PIECE: Final = 1_000


class BenchError(Exception):
    """The measurement could not be made; the message says why."""


class _Clock:
    """A sink that notes when the events it is given left their node."""

    name = "clock"

    def __init__(self) -> None:
        self.waiting: list[NDArray[np.int64]] = []

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink: it holds nothing."""
        return None

    def write(self, events: NDArray[np.void]) -> None:
        """Note the times."""
        self.waiting.append(events["time_ns"].copy())

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink: the lag is measured when all of them have committed."""

    def close(self) -> None:
        """See Sink."""


class _Lags:
    """The lag of every live event, in milliseconds; its memory is all there from the beginning."""

    def __init__(self, count: int) -> None:
        # Written to, so that the pages are there before memory is measured.
        self._values = np.full(count, -1.0)
        self._count = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in the lags of events committed together."""
        values = values[: len(self._values) - self._count]
        self._values[self._count : self._count + len(values)] = values
        self._count += len(values)

    def ordered(self) -> NDArray[np.float64]:
        """All of them, the smallest first; one of 0 if there are none."""
        return np.sort(self._values[: self._count]) if self._count else np.zeros(1)


def make_events(count: int, seed: int) -> NDArray[np.void]:
    """At least `count` events of the benchmark's market, whole commands, the first event 1."""
    writer, engine = Writer(seed), Engine()
    setup = market()
    writer.engine.apply(setup, 1)
    parts = [engine.apply(setup, 1).events, engine.apply(writer.piece(4_000, adds_only=True), 1).events]
    made = sum(map(len, parts))
    while made < count:
        parts.append(engine.apply(writer.piece(_PIECE), 1).events)
        made += len(parts[-1])
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
        clock = _Clock()
        settling = Settling(config.cluster, config.settlement.directory, [*make_sinks(config), clock], RetryingSink)
        settling.open()
        running = Running(config, settling, Alarms(config.cluster), node_ids=[1, 2])
        try:
            before = time.process_time()
            catching = _follow(running, held, clock, None, progress, "catching up")
            worked = time.process_time() - before
            assert process.stdin is not None
            process.stdin.write(f"{rate}\n")
            process.stdin.flush()
            lags = _Lags(len(stream) - held)
            middle = held + (len(stream) - held) // 2
            following = _follow(running, middle, clock, lags, progress, "live")
            warm, warm_at = _held_bytes(), running.sequence
            following += _follow(running, len(stream), clock, lags, progress, "live")
            held_bytes, measured = _held_bytes(), running.sequence - warm_at
        finally:
            running.close()
            settling.close()
        feed = running.subscriber.feed_stats
        lag = lags.ordered()
        return {
            "events": held,
            "seconds": round(catching, 6),
            "events_per_second": round(held / catching),
            # Of this process, its socket thread included: what a machine that is busy otherwise would do on a core.
            "events_per_cpu_second": round(held / worked),
            "lag_p50_ms": _quantile(lag, 0.50),
            "lag_p99_ms": _quantile(lag, 0.99),
            "lag_max_ms": _quantile(lag, 1.0),
            "live_events_per_second": round((len(stream) - held) / following),
            "memory_bytes": held_bytes,
            "memory_growth_bytes": held_bytes - warm,
            "memory_growth_bytes_per_event": round((held_bytes - warm) / max(1, measured), 2),
            "trades": settling.ledger.trades,
            "checkpoints": settling.checkpoints,
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
                "trades_share": round(settling.ledger.trades / len(stream), 3),
                "gaps_healed": feed.gaps_healed,
                "lag": "from a node's send to the checkpoint that covers the event",
            },
        }


def _follow(
    running: Running,
    last: int,
    clock: _Clock,
    lags: "_Lags | None",
    progress: Callable[[str, float], None] | None,
    phase: str,
) -> float:
    """Turn until everything up to event `last` is committed; return the seconds since the first event came."""
    begun: float | None = None
    first = running.sequence
    moved = time.monotonic()
    done = first
    while done < last:
        running.turn()
        now = time.monotonic()
        if begun is None and running.subscriber.sequencer.expected > first + 1:
            begun = now
        committed = running.settling.committed
        if committed is None or committed.event_sequence == done:
            if now - moved > _PATIENCE:
                raise BenchError(f"settlement stands still at event {done} of {last}")
            continue
        done, moved = committed.event_sequence, now
        if not running.settling.uncommitted:
            if lags is not None and clock.waiting:
                lags.add((time.time_ns() - np.concatenate(clock.waiting)) / 1e6)
            clock.waiting.clear()
        if progress is not None:
            progress(phase, (done - first) / max(1, last - first))
    return time.monotonic() - (begun or moved)


@contextmanager
def _nodes(
    folder: Path, stream: NDArray[np.void], held: int
) -> Iterator[tuple["subprocess.Popen[str]", list[tuple[int, int]]]]:
    path = folder / "events.bin"
    stream.tofile(path)
    process = subprocess.Popen(
        [sys.executable, "-m", "smrx.bench.feed", str(path), str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BenchError("the process that plays the nodes ended before it began")
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def _config(ports: list[tuple[int, int]], folder: str, sink: str) -> Config:
    nodes = [
        NodeConfig(id=i, port=i * 10, events_port=events, retransmit_port=retransmit)
        for i, (events, retransmit) in enumerate(ports, 1)
    ]
    settlement = Settlement(directory=f"{folder}/settled", sinks=(SinkConfig(kind=sink, path=sink),))  # type: ignore[arg-type]
    return Config(nodes=(*nodes, NodeConfig(id=3, port=30)), settlement=settlement)


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    return round(float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]), 2)


def _held_bytes() -> int:
    """The memory this process holds now, without pages of files; where only the peak is known, the peak."""
    gc.collect()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
