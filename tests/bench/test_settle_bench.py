"""The settlement benchmark, run small."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.bench import settle_bench
from smrx.follower.settler import Settler
from smrx.settlement.settlement_run import LedgerSettler


@pytest.mark.parametrize("sink", ["csv", "lmdb"])
def test_report_has_all_figures(sink: str) -> None:
    report = settle_bench.run(events=20_000, sink=sink, rate=20_000, seconds=0.5)
    assert list(report)[:3] == ["events", "seconds", "events_per_second"]
    assert report["events"] >= 20_000
    # All events may arrive in one turn; the seconds are rounded to microseconds.
    events, seconds = report["events"], report["seconds"]
    assert events / (seconds + 1e-6) <= report["events_per_second"] + 1
    assert report["events_per_second"] - 1 <= events / max(seconds - 1e-6, 1e-9)
    assert 0 < report["lag_p50_ms"] <= report["lag_p99_ms"] <= report["lag_max_ms"]
    assert report["trades"] > 1000
    assert report["conditions"]["sink"] == sink


#: The size of an event. The allocator's noise is a fifth of it; events kept as objects are far above.
LEAK_BYTES_PER_EVENT = 128


@pytest.mark.parametrize("leaks", [False, True])
def test_memory_is_constant_and_a_leak_is_found(monkeypatch: pytest.MonkeyPatch, leaks: bool) -> None:
    kept = []
    take = Settler.settle

    def leaking(self: LedgerSettler, events: NDArray[np.void], hash_after: Callable[[int], int]) -> None:
        kept.append(events.tolist())
        take(self, events, hash_after)

    if leaks:
        monkeypatch.setattr(Settler, "settle", leaking)
    # On a busy machine events that wait to be read are memory, too; a leak is there in every run.
    for _ in range(1 if leaks else 3):
        report = settle_bench.run(events=20_000, sink="lmdb", rate=60_000, seconds=3.0)
        assert report["memory_bytes"] > 0
        grows = report["memory_growth_bytes_per_event"] > LEAK_BYTES_PER_EVENT
        if not grows:
            break
    assert grows == leaks, report


def test_events_depend_on_the_seed_alone() -> None:
    first, second, third = (settle_bench.make_events(10_000, seed) for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes() != third.tobytes()
    assert first["sequence"].tolist() == list(range(1, len(first) + 1))
