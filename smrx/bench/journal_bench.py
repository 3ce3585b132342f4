"""Measure how fast the journal appends and syncs entries, one a turn, as a node with durability on disk does.

The time of a plain write and fdatasync of as many bytes is measured, too. Prints nothing; the command line does.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from smrx.bench.bench_error import WrongResultError
from smrx.bench.machine_conditions import processor
from smrx.consensus.disk_journal import FILE, DiskJournal
from smrx.consensus.storage import LmdbStorage
from smrx.wire import batches
from smrx.wire.records import COMMAND_SIZE

#: Bytes of commands per turn.
TURNS: Final = (4 << 10, 16 << 10, 64 << 10, 256 << 10)
#: The older half of the log is removed when it is larger than this, as a node does after a snapshot.
_COMPACTION_BYTES: Final = 64 << 20


def run(
    *,
    seconds: float = 10.0,
    directory: str | Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Return the figures of one run; the time is divided among the turn sizes.

    Keys: turns (a list, by bytes per turn: commands_per_second, sync_us p50, p99, max; disk_us, the median of a plain
    write and fdatasync of as many bytes), conditions. Files are written to a temporary folder in `directory`.
    """
    turns = []
    with tempfile.TemporaryDirectory(prefix="smrx-bench-", dir=directory) as folder:
        for number, size in enumerate(TURNS):
            if progress is not None:
                progress("turns", number / len(TURNS))
            turns.append(_turns(Path(folder) / str(size), size, seconds / len(TURNS)))
        filesystem = _filesystem(Path(folder))
    return {
        "turns": turns,
        "conditions": {
            "entry": "one a turn, checksummed (xxh3), with the journal's state record in the same transaction",
            "sync": "LMDB commit: two disk flushes",
            "compacted_past_bytes": _COMPACTION_BYTES,
            "filesystem": filesystem,
            "cpu_count": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
        },
    }


def _turns(folder: Path, size: int, seconds: float) -> dict[str, Any]:
    folder.mkdir()
    commands = size // COMMAND_SIZE
    entry = batches.encode(os.urandom(commands * COMMAND_SIZE), 0, 0, 0)
    disk_us = _disk_us(folder / "plain", len(entry))
    journal = DiskJournal(LmdbStorage(folder / FILE), cluster="bench", node_id=1, joined=False)
    histogram = HdrHistogram(1, 60_000_000, 3)
    started = time.perf_counter()
    turns = 0
    while (elapsed := time.perf_counter() - started) < seconds:
        index = journal.last_index + 1
        began = time.perf_counter_ns()
        journal.add(entry, index, 1)
        journal.setRaftCommitIndex(index - 1)
        journal.sync()
        histogram.record_value(max(1, (time.perf_counter_ns() - began) // 1000))
        if journal.size_bytes > _COMPACTION_BYTES:
            journal.compact(journal.first_index + len(journal) // 2)
        turns += 1
    journal.close()
    # The entries that were counted must be in the file.
    reopened = DiskJournal(LmdbStorage(folder / FILE), cluster="bench", node_id=1, joined=False)
    if reopened.last_index != turns + 1:
        raise WrongResultError(f"the journal ends at index {reopened.last_index}; expected {turns + 1}")
    reopened.close()
    return {
        "turn_bytes": size,
        "commands_per_second": round(turns * commands / elapsed),
        "turns_per_second": round(turns / elapsed),
        "sync_us": {
            name: histogram.get_value_at_percentile(percentile)
            for name, percentile in (("p50", 50), ("p99", 99), ("max", 100))
        },
        "disk_us": disk_us,
        "file_bytes": (folder / FILE).stat().st_size,
    }


def _disk_us(path: Path, size: int) -> int:
    """Return the median time of writing `size` bytes with fdatasync."""
    data, times = os.urandom(size), []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for number in range(64):
            began = time.perf_counter_ns()
            os.pwrite(descriptor, data, number * size)
            os.fdatasync(descriptor)
            times.append(time.perf_counter_ns() - began)
    finally:
        os.close(descriptor)
    return sorted(times)[len(times) // 2] // 1000


def _filesystem(path: Path) -> str:
    """Return the type of a path's file system: on tmpfs the figures say nothing about a disk."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    resolved = path.resolve()
    found = [mount for mount in mounts if resolved.is_relative_to(mount[1])]
    return max(found, key=lambda mount: len(mount[1]))[2] if found else "unknown"
