"""Measure the engine's latency under an open-loop load: orders arrive on a fixed schedule, ready or not.

Arrival i is due i intervals after the start. The engine applies all orders that have arrived as one batch; an order's
latency runs from its scheduled arrival to the end of the call that applied it. A stalled engine therefore delays every
order that arrives meanwhile, and no coordinated omission hides it. One process on one core, without sockets and
consensus. Called by the command line.
"""

import gc
import time
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from smrx.bench import machine_conditions, svg, tapes
from smrx.bench.engine_bench import TIERS, new_engine

#: The histogram's range: 1 ns to 100 s with three digits.
_LONGEST_NS: Final = 100_000_000_000
_DIGITS: Final = 3
#: Commands applied before the clock starts, to warm caches, tables and branch predictors.
WARM_UP: Final = 200_000
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99, "max": 100.0}
_MARK_US: Final = 50


def run(
    commands: int = 3_000_000, per_second: int = 1_000_000, tape: str = "mixed", seed: int = 1, tier: str = "B"
) -> dict[str, Any]:
    """Return the latency percentiles of a tape at a rate, the batch sizes, and the longest calls."""
    if commands < 1 or not 1 <= per_second <= 1_000_000_000:
        raise ValueError(
            f"commands and rate: expected 1 or more, and 1 to 10^9 a second, found {commands} and {per_second}"
        )
    if tier == "C":
        raise ValueError("tier: expected A or B, found C; `smrx bench cluster --durability disk` measures the disk")
    engine = new_engine(tier)
    flow = tapes.flow(tape, WARM_UP + commands, seed)
    engine.apply(flow.before.records, 1, flow.before.details)
    # A generated tape has no details.
    measured = flow.measured.records
    for at in range(0, WARM_UP, 16):
        engine.apply(measured[at : min(at + 16, WARM_UP)], 1)
    ends, done_at = _open_loop(engine, measured[WARM_UP:], per_second)
    latencies = latencies_ns(ends, done_at, per_second)
    histogram = HdrHistogram(1, _LONGEST_NS, _DIGITS)
    for value, count in zip(*np.unique(latencies, return_counts=True), strict=True):
        histogram.record_value(max(1, int(value)), int(count))
    sizes = np.diff(ends, prepend=0)
    calls = np.diff(done_at, prepend=0)
    return {
        "commands": commands,
        "per_second": per_second,
        "latency_us": {
            name: round(histogram.get_value_at_percentile(share) / 1_000, 2) for name, share in PERCENTILES.items()
        },
        "achieved_per_second": round(commands / (done_at[-1] / 1e9)),
        "batch": {"mean": round(float(sizes.mean()), 2), "max": int(sizes.max())},
        "pauses": {
            "over_50_us": int((calls > 50_000).sum()),
            "longest_us": round(int(calls.max()) / 1_000, 1),
        },
        "state_hash": f"{engine.state_hash:016x}",
        "curve": _curve(histogram),
        "conditions": machine_conditions.machine()
        | {
            "tier": TIERS[tier],
            "tape": flow.description,
            "seed": seed,
            "arrivals": "open loop, evenly spaced; latency from the scheduled arrival",
            "warm_up": WARM_UP,
            "garbage_collection": "off while measuring",
            "cores": 1,
        },
    }


def _open_loop(engine: Any, commands: tapes.Commands, per_second: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Apply commands as they arrive; return, for each call, the commands done after it and its end in nanoseconds."""
    count = len(commands)
    ends = np.zeros(count, np.int64)
    done_at = np.zeros(count, np.int64)
    # Written here, so that the loop causes no page faults in them.
    ends[:], done_at[:] = 1, 1
    apply, clock = engine.apply, time.perf_counter_ns
    done = 0
    calls = 0
    gc.collect()
    gc.disable()
    try:
        start = clock()
        while done < count:
            # Arrival i is due at i / per_second.
            arrived = min((clock() - start) * per_second // 1_000_000_000 + 1, count)
            if arrived > done:
                apply(commands[done:arrived], 1)
                done = arrived
                done_at[calls] = clock() - start
                ends[calls] = done
                calls += 1
    finally:
        gc.enable()
    return ends[:calls], done_at[:calls]


def latencies_ns(ends: NDArray[np.int64], done_at: NDArray[np.int64], per_second: int) -> NDArray[np.int64]:
    """Return the latency of every command: the end of its call minus its scheduled arrival."""
    sizes = np.diff(ends, prepend=0)
    due = np.arange(ends[-1], dtype=np.int64) * 1_000_000_000 // per_second
    latencies: NDArray[np.int64] = np.repeat(done_at, sizes) - due
    return latencies


def _curve(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """Return (percentile, microseconds) with ever finer steps up to one in a million, as HdrHistogram plots."""
    shares = [100 * (1 - 10 ** (-step / 8)) for step in range(2, 49)]
    return [(round(share, 6), histogram.get_value_at_percentile(share) / 1_000) for share in shares]


def picture(figures: dict[str, Any]) -> str:
    """Return a chart of the latency percentiles as SVG."""
    points = [(100 / (100 - share), value) for share, value in figures["curve"]]
    marks = [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")]
    return svg.chart(
        f"Latency of the engine at {figures['per_second']:,} commands a second",
        svg.Axis("share of commands that are at least as fast", marks),
        svg.Axis("microseconds from scheduled arrival to result"),
        [svg.Series(figures["conditions"]["tier"], points)],
        notes=[(_MARK_US, f"{_MARK_US} microseconds")],
    )
