"""How many commands a second the engine applies on one core: no sockets, no consensus.

Three tiers, never mixed. A: matching and trades only, to compare with books that have nothing else. B: everything on,
as the engine always runs. C: everything on, and every batch journaled and synced to the disk before the next. The tape
is written before the clock starts (see tapes.py). Called by the command line.
"""

import inspect
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

from smrx.bench import conditions, tapes
from smrx.engine import Engine, compiled_before

TIERS: Final = {
    "A": "matching and trades only",
    "B": "state hash, ledger and events on",
    "C": "everything on, journaled and synced",
}
#: Commands behind the measured ones that are applied one a call.
SINGLES: Final = 2_000


def has_ledger_switch() -> bool:
    """Whether this engine can be told to keep no ledger."""
    return "ledger" in inspect.signature(Engine).parameters


def new_engine(tier: str) -> Engine:
    """An empty engine of a tier. ValueError for a tier that is none, or that this version has not."""
    if tier not in TIERS:
        raise ValueError(f"tier: expected one of {', '.join(TIERS)}, found {tier!r}")
    if tier == "C":
        raise ValueError("tier C: expected a journal on disk to write to, found none in this version; use tier B")
    if tier == "B":
        return Engine()
    switches: dict[str, Any] = {"hash": False} | ({"ledger": False} if has_ledger_switch() else {})
    return Engine(**switches)


def apply_all(engine: Engine, commands: tapes.Commands, batch: int) -> float:
    """Apply commands, `batch` of them a call; return the seconds that took."""
    begin = time.perf_counter()
    for at in range(0, len(commands), batch):
        engine.apply(commands[at : at + batch], 1)
    return time.perf_counter() - begin


def single_latency_us(engine: Engine, commands: tapes.Commands) -> float:
    """The median time of a call with one command."""
    times = []
    for at in range(len(commands)):
        begin = time.perf_counter_ns()
        engine.apply(commands[at : at + 1], 1)
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
    """Measure a tape in a tier, `repeats` times on a new engine each; the figures are those of the fastest run."""
    if commands < 1 or batch < 1 or repeats < 1:
        found = f"{commands}, {batch} and {repeats}"
        raise ValueError(f"commands, batch and repeats: expected 1 or more, found {found}")
    new_engine(tier)
    was_compiled = compiled_before()
    flow = tapes.flow(tape, commands + SINGLES, seed, files)
    # A recorded tape may be shorter than what was asked for.
    measured = flow.measured[: min(commands, len(flow.measured) - min(SINGLES, len(flow.measured) // 10))]
    seconds = float("inf")
    for _ in range(repeats):
        engine = new_engine(tier)
        engine.apply(flow.before, 1)
        events, trades = engine.event_sequence, engine.trade_count
        seconds = min(seconds, apply_all(engine, measured, batch))
    events, trades = engine.event_sequence - events, engine.trade_count - trades
    return {
        "commands": len(measured),
        "seconds": round(seconds, 6),
        "commands_per_second": round(len(measured) / seconds),
        "ns_per_command": round(seconds / len(measured) * 1e9, 1),
        "state_hash": f"{engine.state_hash:016x}",
        "tier": tier,
        "tape": tape,
        "batch": batch,
        "events": events,
        "trades": trades,
        "conditions": conditions.machine()
        | {
            "tier": TIERS[tier],
            "tape": flow.description,
            "seed": seed,
            "repeats": repeats,
            "cores": 1,
            "hash": "off" if tier == "A" else "on",
            "ledger": "off" if tier == "A" and has_ledger_switch() else "on",
            "events": "on",
            "events_per_command": round(events / len(measured), 3),
            "open_orders": len(engine.inspect.orders()),
            "compiled_before": was_compiled,
            "batch_of_1_us": round(single_latency_us(engine, flow.measured[len(measured) :][:SINGLES]), 2),
        },
    }
