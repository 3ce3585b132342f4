"""Between the feed and the disk: the settler, the checkpoint store, failing sinks, alarms and their hook."""

import errno
import json
import logging
import os
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from smrx.follower import checkpoint_store, settler
from smrx.follower.alarms import Alarm, AlarmCode, Alarms
from smrx.local import free_ports
from smrx.settlement.settlement_metrics import Metrics
from smrx.settlement.settlement_run import LedgerSettler, make_settler
from smrx.sinks import Checkpoint
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.retrying import RetryingSink, SinkFailure
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import Events, expected_rows, rows
from tests.settlement.test_crash import check


def opened(directory: Path, *sinks: CsvSink, cluster: str = "local") -> LedgerSettler:
    found = make_settler(cluster, str(directory / "books"), sinks or [CsvSink(directory)])
    found.open()
    return found


def settled(directory: Path, events: Events) -> LedgerSettler:
    verifier = opened(directory)
    verifier.settle(events[verifier.projection.sequence :], lambda command: 7)
    verifier.commit(lambda command: 7)
    return verifier


def test_checkpoint_is_made_every_thousand_trades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "TRADES_PER_CHECKPOINT", 25)
    verifier = opened(tmp_path)
    seen = [0]
    sink = verifier._sinks[0]
    original = sink.commit

    def commit(checkpoint: Checkpoint) -> None:
        seen.append(checkpoint.match_id)
        original(checkpoint)

    monkeypatch.setattr(sink, "commit", commit)
    events = market_events()
    verifier.settle(events, lambda command: 7)
    verifier.commit(lambda command: 7)
    verifier.close()
    # A command with many trades is not split.
    assert max(np.diff(seen)) <= 25 + 20
    assert seen[-1] == len(expected_rows(events))
    check(tmp_path, events)


def test_new_projection_file_replaces_a_long_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "_MIN_JOURNAL_BYTES", 32 << 10)
    monkeypatch.setattr(settler, "TRADES_PER_CHECKPOINT", 10)
    events = market_events()
    settled(tmp_path, events).close()
    saved = json.loads((tmp_path / "books" / "checkpoint.json").read_bytes())
    assert saved["books_sequence"] > 1000
    assert saved["journal_bytes"] < 64 << 10
    assert len(list((tmp_path / "books").glob("*.bin"))) == 2
    check(tmp_path, events)


@pytest.mark.parametrize("patient", [False, True])
def test_failed_sync_of_the_journal_stops_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    """The kernel reports such an error once: the sync ahead must pass it on."""
    events = market_events()
    sync, left = os.fsync, [3]

    def failing(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(settler, "TRADES_PER_CHECKPOINT", 50)
    wrap = (lambda sink: RetryingSink(sink, first_pause=0.0)) if patient else (lambda sink: sink)
    verifier = make_settler("local", str(tmp_path / "books"), [CsvSink(tmp_path)], wrap)
    verifier.open()
    if not patient:
        with pytest.raises(SinkError, match="Input/output error"):
            verifier.settle(events, lambda command: 7)
        assert verifier.checkpoints == 2
        verifier.close()
        verifier = make_settler("local", str(tmp_path / "books"), [CsvSink(tmp_path)])
        verifier.open()
    verifier.settle(events[verifier.projection.sequence :], lambda command: 7)
    verifier.commit(lambda command: 7)
    assert left[0] <= 0
    verifier.close()
    check(tmp_path, events)


@pytest.mark.parametrize("name", ["journal-0.bin", "checkpoint.json"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    settled(tmp_path, market_events()).close()
    path = tmp_path / "books" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SinkMismatch, match=r"not a checkpoint of settlement|does not hold the"):
        opened(tmp_path)


def test_damaged_books_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "_MIN_JOURNAL_BYTES", 0)
    settled(tmp_path, market_events()).close()
    (path,) = (tmp_path / "books").glob("books-*.bin")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(SinkMismatch, match="the saved bytes are damaged"):
        opened(tmp_path)


def test_sink_of_another_history_is_refused(tmp_path: Path) -> None:
    settled(tmp_path, market_events()).close()
    for path in (tmp_path / "books").iterdir():
        path.unlink()
    with pytest.raises(SinkMismatch, match=r"holds another history|expected trades"):
        settled(tmp_path, market_events(commands=4000, seed=2))


def test_new_sink_is_filled_from_the_journal(tmp_path: Path) -> None:
    events = market_events()
    settled(tmp_path, events).close()
    verifier = opened(tmp_path, CsvSink(tmp_path), CsvSink(tmp_path / "second"))
    assert verifier.projection.sequence == len(events)
    verifier.close()
    assert rows(tmp_path / "second") == expected_rows(events)


def test_new_sink_older_than_the_journal_restarts_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "_MIN_JOURNAL_BYTES", 0)
    events = market_events()
    settled(tmp_path, events).close()
    verifier = opened(tmp_path, CsvSink(tmp_path), CsvSink(tmp_path / "second"))
    assert verifier.projection.sequence == 0
    verifier.settle(events, lambda command: 7)
    verifier.commit(lambda command: 7)
    verifier.close()
    assert rows(tmp_path / "second") == rows(tmp_path) == expected_rows(events)
    check(tmp_path, events)


class Failing(CsvSink):
    """A sink whose disk is full for some writes."""

    full = 0

    def write(self, events: Events) -> None:
        if self.full:
            self.full -= 1
            raise SinkError("no space left on device")
        super().write(events)


def test_failing_sink_stops_the_checkpoint_and_loses_nothing(tmp_path: Path) -> None:
    events = market_events()
    said: list[SinkFailure] = []
    sink = Failing(tmp_path)
    verifier = make_settler(
        "local",
        str(tmp_path / "books"),
        [sink],
        lambda inner: RetryingSink(inner, on_failure=said.append, first_pause=0.001),
    )
    verifier.open()
    verifier.settle(events[:2000], lambda command: 7)
    sink.full = 3
    verifier.settle(events[2000:], lambda command: 7)
    verifier.commit(lambda command: 7)
    verifier.close()
    assert [failure.attempt for failure in said] == [1, 2, 3]
    check(tmp_path, events)


def test_sink_that_keeps_failing_leaves_the_checkpoint(tmp_path: Path) -> None:
    events = market_events()
    sink = Failing(tmp_path)
    verifier = make_settler(
        "local", str(tmp_path / "books"), [sink], lambda inner: RetryingSink(inner, wait=lambda seconds: True)
    )
    verifier.open()
    sink.full = 1
    with pytest.raises(SinkError, match="no space left"):
        verifier.settle(events, lambda command: 7)
    verifier.close()
    assert not (tmp_path / "books" / "checkpoint.json").exists()
    settled(tmp_path, events).close()
    check(tmp_path, events)


def test_alarm_is_logged_counted_and_passed_to_the_hook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = tmp_path / "hook.sh"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/code; cat > {tmp_path}/alarm\n')
    script.chmod(0o755)
    seen: list[Alarm] = []
    alarms = Alarms("venue", str(script), seen.append)
    with caplog.at_level(logging.ERROR):
        alarms.report(AlarmCode.GAP, "events 3 to 4 are missing", sequence=3, node=2)
    alarms.close()
    result = json.loads((tmp_path / "alarm").read_bytes())
    assert (result["code"], result["cluster"], result["sequence"], result["node"]) == ("GAP", "venue", 3, 2)
    assert "account" not in result
    assert (tmp_path / "code").read_text() == "GAP\n"
    assert "alarm GAP: events 3 to 4 are missing" in caplog.text
    assert ([alarm.code for alarm in seen], alarms.count) == ([AlarmCode.GAP], 1)


def test_hanging_or_missing_hook_does_not_block(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("smrx.follower.alarms._HOOK_TIMEOUT_S", 3600.0)
    hanging, missing = Alarms("venue", "sh -c 'exec sleep 60'"), Alarms("venue", "/nonexistent/hook")
    for _ in range(20):
        hanging.report(AlarmCode.GAP, "again")
    missing.report(AlarmCode.GAP, "once")
    # Nothing waited for the hooks: they sleep for a minute, and still do.
    assert len(hanging._running) == 16
    assert all(process.poll() is None for _, process in hanging._running)
    monkeypatch.setattr("smrx.follower.alarms._HOOK_TIMEOUT_S", 0.0)
    hanging.reap_hooks()
    assert not hanging._running
    assert "did not end within" in caplog.text
    assert "16 alarm hooks are running" in caplog.text
    assert "the alarm hook /nonexistent/hook cannot be run" in caplog.text


def test_metrics_are_served() -> None:
    (port,) = free_ports(1)
    metrics = Metrics(lambda: {"sequence": 42.0})
    metrics.alarm(Alarm(code=AlarmCode.GAP, message="", time_ns=1, cluster="venue"))
    metrics.serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
    finally:
        metrics.close()
    assert "smrx_settlement_sequence 42.0" in text
    assert 'smrx_settlement_alarms_total{code="GAP"} 1.0' in text
