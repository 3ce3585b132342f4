"""Measure memory under sustained load: with a book of constant size it must not grow with the number of commands.

There are two measures: the resident memory of the process, and the exact bytes of the engine's tables. Called by the
command line and, small, by the tests.
"""

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smrx.bench import machine_conditions
from smrx.bench.steady_flow import SteadyFlow
from smrx.engine import Engine
from smrx.engine.state import in_use


def resident_bytes() -> int:
    """Return the resident memory of this process; its peak where the system does not report the current value."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def table_bytes(engine: Engine) -> int:
    """Return the bytes of all tables of an engine; of an index, those of the generation in use."""
    arrays = engine._state._asdict().items()
    return sum(int((in_use(array) if name.endswith("_index") else array).nbytes) for name, array in arrays)


def run(
    first: int = 1_000_000,
    last: int = 10_000_000,
    piece: int = 10_000,
    flow: SteadyFlow | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Apply `last` commands of a steady flow; compare memory at the end with memory after `first` commands."""
    if not piece <= first < last:
        raise ValueError(f"first and last: expected {piece} <= first < last, found {first} and {last}")
    flow = SteadyFlow(piece) if flow is None else flow
    engine = Engine()
    setup = flow.setup()
    engine.apply(setup.records, 1, setup.details)
    done = 0
    points = []
    for until in (first, last):
        while done < until:
            result = engine.apply(flow.next(), 1)
            done += len(result.outcomes)
            if progress is not None:
                progress("memory", done / last)
        del result
        gc.collect()
        points.append(
            {"commands": done, "resident_bytes": resident_bytes(), "table_bytes": table_bytes(engine)}
            | {"open_orders": len(engine.inspect.orders())}
        )
    before, after = points
    return {
        "points": points,
        "resident_ratio": round(after["resident_bytes"] / before["resident_bytes"], 4),
        "table_ratio": round(after["table_bytes"] / before["table_bytes"], 4),
        "state_hash": f"{engine.state_hash:016x}",
        "trades": engine.trade_count,
        "conditions": machine_conditions.machine()
        | {"flow": "60 % adds, 30 % cancels, 10 % takers that fill three makers each"},
    }
