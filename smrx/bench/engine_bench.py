"""Measure how many commands per second the engine applies on one core, without sockets and consensus.

There are three tiers. A: matching and trades only, to compare with order books that do nothing else. B: everything on,
as in a node. C: everything on, and every batch is journaled and synced to disk before the next one. The tape is made
before the clock starts (see tapes.py), and the memory of the filled engine is in large pages then, as in a node. Called
by the command line.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from smrx.bench import machine_conditions, public_tape, tapes
from smrx.consensus.large_pages import LargePages
from smrx.engine import Engine, compiled_before
from smrx.wire.command_list import CommandList

TIERS: Final = {
    "A": "matching and trades only",
    "B": "state hash, ledger and events on",
    "C": "everything on, journaled and synced",
}
#: Commands after the measured ones, which are applied in calls of one command.
SINGLES: Final = 2_000
#: The longest that memory is collapsed into large pages before the clock starts: a market of 200,000 orders takes less
#: than a second.
LARGE_PAGES_SECONDS: Final = 10.0


#: Makes a batch durable before it is applied.
Journal = Callable[[tapes.Commands], None]
_DISK_JOURNAL: Final = "smrx.consensus.disk_journal"


def new_engine(tier: str) -> Engine:
    """Return an empty engine of a tier. Raises ValueError for an unknown tier."""
    if tier not in TIERS:
        raise ValueError(f"tier: expected one of {', '.join(TIERS)}, found {tier!r}")
    return Engine(hash=False, ledger=False, reports=False) if tier == "A" else Engine()


@contextmanager
def tier_journal(tier: str) -> Iterator[Journal | None]:
    """Open a node's journal on disk for tier C; None for the other tiers.

    Raises ValueError if this version has no such journal.
    """
    if tier != "C":
        yield None
        return
    if find_spec(_DISK_JOURNAL) is None:
        raise ValueError("tier C: this version has no journal on disk; use tier B")
    # Imported by name because not every version has it.
    disk, recovery = import_module(_DISK_JOURNAL), import_module("smrx.consensus.recovery")
    with tempfile.TemporaryDirectory(prefix="smrx-bench-") as folder:
        meta = recovery.MetaStore(folder, cluster="bench", node_id=1)
        journal = disk.open_journal(Path(folder), meta, cluster="bench", node_id=1)

        def append_and_sync(commands: tapes.Commands) -> None:
            journal.add(commands.tobytes(), journal.last_index + 1, 1)
            journal.sync()

        try:
            yield append_and_sync
        finally:
            journal.close()
            meta.close()


def use_large_pages() -> None:
    """Check all memory of this process once, as a node does every few seconds: see large_pages.py."""
    now = time.monotonic()
    pages = LargePages(now)
    pages.begin(now)
    while pages.is_busy and time.monotonic() < now + LARGE_PAGES_SECONDS:
        time.sleep(0.01)
    pages.forks()


def apply_all(engine: Engine, commands: CommandList, batch: int, journal: Journal | None = None) -> float:
    """Apply commands in calls of `batch`, each journaled first if there is a journal; return the seconds."""
    records, details = commands
    begin = time.perf_counter()
    for at in range(0, len(records), batch):
        part = records[at : at + batch]
        if journal is not None:
            journal(part)
        engine.apply(part, 1, details)
    return time.perf_counter() - begin


def single_latency_us(engine: Engine, commands: CommandList) -> float:
    """Return the median time of a call with one command."""
    records, details = commands
    times = []
    for at in range(len(records)):
        begin = time.perf_counter_ns()
        engine.apply(records[at : at + 1], 1, details)
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1_000


def run(
    commands: int = 2_000_000,
    tape: str = "mixed",
    seed: int = 1,
    batch: int = 1_000,
    tier: str = "B",
    files: Sequence[str] = (),
    repeats: int = 1,
) -> dict[str, Any]:
    """Measure a tape in a tier, `repeats` times with a new engine each; return the figures of the fastest run."""
    if commands < 1 or batch < 1 or repeats < 1:
        found = f"{commands}, {batch} and {repeats}"
        raise ValueError(f"commands, batch and repeats: expected 1 or more, found {found}")
    new_engine(tier)
    # Fails here, before the tape is made, if the tier cannot be measured.
    with tier_journal(tier):
        pass
    was_compiled = compiled_before()
    flow = tapes.flow(tape, commands + SINGLES, seed, files)
    # A recorded tape may be shorter than requested.
    length = len(flow.measured.records)
    count = min(commands, length - min(SINGLES, length // 10))
    measured, singles = flow.measured.part(0, count), flow.measured.part(count, count + SINGLES)
    seconds = float("inf")
    for _ in range(repeats):
        engine = new_engine(tier)
        engine.apply(flow.before.records, 1, flow.before.details)
        use_large_pages()
        events, trades = engine.event_sequence, engine.trade_count
        with tier_journal(tier) as journal:
            seconds = min(seconds, apply_all(engine, measured, batch, journal))
    events, trades = engine.event_sequence - events, engine.trade_count - trades
    figures: dict[str, Any] = {
        "commands": count,
        "seconds": round(seconds, 6),
        "commands_per_second": round(count / seconds),
        "ns_per_command": round(seconds / count * 1e9, 1),
        "state_hash": f"{engine.state_hash:016x}",
        "tier": tier,
        "tape": tape,
        "batch": batch,
        "events": events,
        "trades": trades,
        "conditions": machine_conditions.machine()
        | {
            "tier": TIERS[tier],
            "tape": flow.description,
            "seed": seed,
            "repeats": repeats,
            "cores": 1,
            "hash": "off" if tier == "A" else "on",
            "ledger": "off" if tier == "A" else "on",
            "events": "trades" if tier == "A" else "on",
            "events_per_command": round(events / count, 3),
            "open_orders": len(engine.inspect.orders()),
            "compiled_before": was_compiled,
            "batch_of_1_us": round(single_latency_us(engine, singles), 2),
        },
    }
    if tape == tapes.PUBLIC:
        reports = tapes.public_reports(files[0])
        figures |= {"report_sha256": reports, "published_for": public_tape.scenario_of(reports)}
    return figures
