"""The settlement benchmark, small: it runs, and measures what it says."""

import pytest

from smrx.bench import settle


@pytest.mark.parametrize("sink", ["csv", "lmdb"])
def test_it_reports_what_it_promises(sink: str) -> None:
    report = settle.run(events=20_000, sink=sink, rate=20_000, seconds=0.5)
    assert list(report)[:3] == ["events", "seconds", "events_per_second"]
    assert report["events"] >= 20_000
    assert report["events_per_second"] == pytest.approx(report["events"] / report["seconds"], rel=0.01)
    assert 0 < report["lag_p50_ms"] <= report["lag_p99_ms"] <= report["lag_max_ms"]
    assert report["trades"] > 1000
    assert report["conditions"]["sink"] == sink


def test_the_market_is_the_same_for_the_same_seed() -> None:
    first, second, third = (settle.make_events(10_000, seed) for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes() != third.tobytes()
    assert first["sequence"].tolist() == list(range(1, len(first) + 1))
