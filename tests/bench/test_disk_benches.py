"""The benchmarks of journal and recovery, run small: their figures, and their checks of what they measured."""

from pathlib import Path

import pytest

from smrx.bench import journal_bench, recovery_bench, snapshot_latency, snapshot_pause
from smrx.bench.bench_error import BenchError, WrongResultError
from smrx.consensus.disk_journal import DiskJournal


def test_journal_bench_reports_every_turn_size(tmp_path: Path) -> None:
    figures = journal_bench.run(seconds=0.4, directory=tmp_path)
    assert [turn["turn_bytes"] for turn in figures["turns"]] == list(journal_bench.TURNS)
    for turn in figures["turns"]:
        assert turn["commands_per_second"] == pytest.approx(
            turn["turns_per_second"] * turn["turn_bytes"] // 64, rel=0.05, abs=turn["turn_bytes"] // 64
        )
        assert turn["sync_us"]["p50"] > 0
    assert not list(tmp_path.iterdir())


def test_journal_that_does_not_write_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiskJournal, "sync", lambda self: None)
    with pytest.raises(WrongResultError, match="the journal ends at index"):
        journal_bench.run(seconds=0.4, directory=tmp_path)


def test_recovery_bench_restarts_a_node_and_takes_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_pause, "_SNAPSHOTS", 3)
    figures = recovery_bench.run(commands=3000, accounts=50, orders=400, largest_mib=200, seconds=1, directory=tmp_path)
    assert figures["recovery"]["commands"] == 3000
    assert figures["recovery"]["seconds_from_start_to_first_acknowledged_order"] > 0
    assert (figures["snapshot"]["accounts"], figures["snapshot"]["orders"]) == (50, 400)
    assert 0 < figures["snapshot"]["pause_ms"]["median"] <= figures["snapshot"]["pause_ms"]["max"]
    for applied in figures["snapshot"]["apply_us"].values():
        assert 0 < applied["p50"] <= applied["p99"] <= applied["max"]
    assert list(figures["pause_ms_by_mib"]) == ["200"]
    latency = figures["latency"]
    for phase in ("without_snapshots_us", "with_snapshots_us"):
        assert 0 < latency[phase]["p50"] <= latency[phase]["p99"] <= latency[phase]["max"]
        assert latency[phase]["orders"] > 10
    assert latency["snapshots"]["taken"] > 0
    assert latency["snapshots"]["pause_ms"] > 0


def test_latency_without_any_snapshot_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_latency._SnapshotWatch, "poll", lambda self: 1)
    monkeypatch.setattr(snapshot_latency, "_EXTRA_SECONDS", 0.0)
    with pytest.raises(BenchError, match="no node completed a snapshot"):
        snapshot_latency.run(tmp_path, snapshot_pause.large_market(5, 10), seconds=0.2, nodes=1)
