"""The latency benchmark: latency counts from the scheduled arrival, so a stalled engine delays all later orders."""

import time
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from smrx.bench import engine_bench, latency_bench, tapes
from smrx.engine import Engine
from tests import commands as make


def test_latency_counts_from_the_scheduled_arrival() -> None:
    """Ten orders, one per microsecond; the third call takes three microseconds too long and delays three orders."""
    ends = np.array([1, 2, 6, 7, 8, 9, 10])
    done_at = np.array([500, 1_500, 5_500, 6_500, 7_500, 8_500, 9_500])
    latencies = latency_bench.latencies_ns(ends, done_at, 1_000_000)
    assert latencies.tolist() == [500, 500, 3_500, 2_500, 1_500, 500, 500, 500, 500, 500]


def test_every_scheduled_command_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_bench, "WARM_UP", 1_000)
    figures = latency_bench.run(3_000, per_second=200_000)
    of = figures["latency_us"]
    assert list(of) == list(latency_bench.PERCENTILES)
    assert 0 < of["p50"] <= of["p90"] <= of["p99"] <= of["p999"] <= of["max"]
    assert figures["achieved_per_second"] <= 200_100
    flow = tapes.flow("mixed", 4_000, 1)
    alone = Engine()
    make.apply(alone, flow.before, 1)
    make.apply(alone, flow.measured, 1)
    assert figures["state_hash"] == f"{alone.state_hash:016x}"
    root = ElementTree.fromstring(latency_bench.picture(figures))
    assert "50 microseconds" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_stall_counts_in_the_latency_of_all_orders_that_arrive_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call stalls for 20 ms, during which a fifth of all orders arrive."""
    monkeypatch.setattr(latency_bench, "WARM_UP", 16)
    make = engine_bench.new_engine

    def pausing(tier: str) -> Any:
        engine = make(tier)
        apply, calls = engine.apply, iter(range(1 << 30))

        def slow(*arguments: Any) -> Any:
            if next(calls) == 5:
                end = time.perf_counter() + 0.02
                while time.perf_counter() < end:
                    pass
            return apply(*arguments)

        engine.__dict__["apply"] = slow
        return engine

    monkeypatch.setattr(latency_bench, "new_engine", pausing)
    figures = latency_bench.run(10_000, per_second=100_000)
    assert figures["latency_us"]["max"] >= 19_000
    assert figures["latency_us"]["p90"] >= 5_000
    assert figures["pauses"]["longest_us"] >= 20_000


@pytest.mark.parametrize("wrong", [{"commands": 0}, {"per_second": 0}, {"tier": "C"}])
def test_invalid_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        latency_bench.run(**wrong)
