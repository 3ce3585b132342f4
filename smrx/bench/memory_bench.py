"""Memory under sustained load: a steady book needs no more of it after ten million commands than after one million.

Two measures: the process's resident memory, as the system counts it, and the bytes of the engine's own tables, which
say the same exactly. Called by the command line and, small, by the tests.
"""

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smrx.bench import machine_conditions
from smrx.bench.steady import Steady
from smrx.engine import Engine


def resident_bytes() -> int:
    """Memory of this process that is in use now; where the system does not tell, the most there ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def table_bytes(engine: Engine) -> int:
    """Bytes of all tables of an engine."""
    return sum(int(array.nbytes) for array in engine._state)


def run(
    first: int = 1_000_000,
    last: int = 10_000_000,
    piece: int = 10_000,
    flow: Steady | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Apply `last` commands of a steady flow and compare memory then with memory after `first`."""
    if not piece <= first < last:
        raise ValueError(f"first and last: expected {piece} <= first < last, found {first} and {last}")
    flow = Steady(piece) if flow is None else flow
    engine = Engine()
    engine.apply(flow.opening(), 1)
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
        | {"flow": "60 % adds, 30 % cancels, 10 % takes of three makers each"},
    }
