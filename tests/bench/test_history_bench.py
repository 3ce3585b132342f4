"""The benchmark of order history, run small."""

from smrx.bench import history_bench


def test_report_has_all_figures() -> None:
    report = history_bench.run(updates=20_000, reads=5)
    assert list(report)[:2] == ["updates_per_second", "p99_ms"]
    assert report["updates"] >= 20_000
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["bytes_an_update"] > 144
    assert report["open_orders"] > 100
