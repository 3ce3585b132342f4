"""Each bound of a siege is checked: a measurement that keeps all of them passes, and one that breaks it fails."""

from dataclasses import replace

import pytest

from cluster.siege.honest_client import SampleKind, latencies
from cluster.siege.siege_verdict import MIB, Bounds, Latencies, Measurement, Memory, violations

GOOD = Measurement(
    "test",
    10.0,
    Latencies(1000, 1.0, 2.0),
    Latencies(900, 1.2, 9.0),
    Memory(2, 200 * MIB, 260 * MIB, 230 * MIB, 3),
    log_entries=900,
)
BOUNDS = Bounds(log_entries_per_second=100)


def test_measurement_within_all_bounds_passes() -> None:
    assert violations(GOOD, BOUNDS) == []
    assert GOOD.ratio == 4.5


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"beside": Latencies(900, 1.2, 10.1)}, "p99 2.0 -> 10.1 ms; at most 10.0 ms (2 times, or 10 ms)"),
        ({"alone": Latencies(900, 1.2, 8.0), "beside": Latencies(900, 1.2, 16.5)}, "at most 16.0 ms"),
        ({"beside": Latencies(900, 1.2, 9.0, failed=1)}, "1 orders of the honest client failed"),
        ({"beside": Latencies(900, 1.2, 9.0, wrong=2)}, "2 orders of the honest client got a wrong outcome"),
        ({"beside": Latencies()}, "no order of the honest client was acknowledged"),
        ({"leader_changes": 1}, "1 leader changes; at most 0"),
        ({"memory": Memory(2, 200 * MIB, 265 * MIB, 230 * MIB)}, "node 2 grew by 65 MiB during the attack; at most 64"),
        ({"memory": Memory(2, 200 * MIB, 260 * MIB, 233 * MIB)}, "node 2 grew by 33 MiB after the attack; at most 32"),
        ({"memory": Memory(2, 200 * MIB, 260 * MIB, 230 * MIB, 17)}, "a node grew by 17 threads; at most 16"),
        ({"unread_answer_bytes": 66 << 20}, "66 MiB of answers waited for clients that do not read; at most 64 MiB"),
        ({"log_entries": 1001}, "100 log entries a second; at most 100"),
        ({"harm": ["it was stolen"]}, "it was stolen"),
        ({"ended_nodes": [3]}, "node 3 ended"),
        ({"states_differ": True}, "the nodes did not reach one state"),
    ],
)
def test_each_bound_that_is_broken_is_reported(change: dict[str, object], found: str) -> None:
    (problem,) = violations(replace(GOOD, **change), BOUNDS)  # type: ignore[arg-type]
    assert found in problem


def test_latency_runs_from_the_time_when_the_order_was_due() -> None:
    samples = [(at / 100, at / 100 + 0.001, int(SampleKind.ACKNOWLEDGED)) for at in range(100)]
    assert latencies(samples, 0.0, 0.99, 1.0) == Latencies(99, 1.0, 1.0)
    # A stall of half a second delays all orders that are due meanwhile.
    stalled = [(due, max(done, 0.8), kind) if 0.3 <= due < 0.8 else (due, done, kind) for due, done, kind in samples]
    found = latencies(stalled, 0.0, 1.0, 1.0)
    assert found.p50_ms > 1.0
    assert found.p99_ms > 480.0


def test_order_without_an_answer_counts_as_long_as_it_waits() -> None:
    samples = [(at / 100, at / 100 + 0.001, int(SampleKind.ACKNOWLEDGED)) for at in range(10)]
    found = latencies(samples, 0.0, 1.0, 3.0)
    assert found.p99_ms > 2_500.0
    assert latencies([], 0.0, 1.0, 3.0).orders == 0


def test_order_that_waits_during_the_whole_span_counts() -> None:
    samples = [(0.0, 0.001, int(SampleKind.ACKNOWLEDGED)), (0.01, 3.0, int(SampleKind.ACKNOWLEDGED))]
    found = latencies(samples, 1.0, 2.0, 3.0)
    assert (found.orders, found.p99_ms) == (1, 2990.0)


def test_failed_and_wrong_orders_are_counted() -> None:
    kinds = [SampleKind.ACKNOWLEDGED, SampleKind.FAILED, SampleKind.WRONG, SampleKind.WRONG]
    samples = [(at / 10, at / 10 + 0.01, int(kind)) for at, kind in enumerate(kinds)]
    found = latencies(samples, 0.0, 0.4, 0.31)
    assert (found.orders, found.failed, found.wrong) == (1, 1, 2)
