"""While a sink fails the feed is read: nothing is lost, nothing is stored twice, and alarms are raised."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from smrx.config import load
from smrx.feed.feed_errors import Disagreement, GapUnfillable
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.follower.alarms import AlarmCode, Alarms
from smrx.follower.retry_policy import RetryPolicy
from smrx.settlement.settlement_run import LedgerRunner, make_runner, make_settler
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.sink_errors import SinkError
from smrx.wire.frames import encode_events
from tests.feed.stub import StubNode
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import (
    Events,
    end_of_command,
    expected_rows,
    publish_all,
    publishing,
    rows,
    settle,
    summary,
    write_config,
)

#: Events held by the quorum and by the sequencer in these tests: far fewer than the stream has.
PENDING, AHEAD = 500, 300


class FailingSink(CsvSink):
    """A sink that cannot write while `is_down` is set, which its first events do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_down = False
        self.tried = 0

    def write(self, events: Events) -> None:
        if not self.tried:
            self.is_down = True
        self.tried += 1
        if self.is_down:
            raise SinkError(f"{self.name}: the database is down")
        super().write(events)


class ActingReader:
    """A FeedReader that lets the test act while the sink fails."""

    def __init__(self, runner: LedgerRunner, act: Callable[[], None]) -> None:
        self._running, self._act = runner, act

    @property
    def behind(self) -> int:
        return self._running.behind

    def listen(self, seconds: float) -> None:
        self._running.listen(seconds)
        self._act()


class Scenario:
    """One node, one run, one sink that fails from its first events until all the others are published."""

    def __init__(self, directory: Path, node: StubNode, first: int, away_seconds: float) -> None:
        self.events = market_events()
        self.node, self.first, self.away_seconds = node, end_of_command(self.events, first), away_seconds
        self.sink = FailingSink(directory)
        self.alarms = Alarms("local")
        self.policy = RetryPolicy(60.0, lambda: False, self.alarms)
        self.policy.is_enabled = True
        config = load(write_config(directory, [node]))
        self.settler = make_settler("local", str(directory / "books"), [self.sink], self.policy.wrap)
        self.settler.open()
        self.runner = make_runner(config, self.settler, self.alarms)
        self.policy.reader = ActingReader(self.runner, self.meanwhile)
        self.since = 0.0
        self.most_kept = 0

    def meanwhile(self) -> None:
        sequencer = self.runner.subscriber.sequencer
        if not self.since:
            self.since = time.monotonic()
            publish_all(self.node, self.events[self.first :])
        self.most_kept = max(self.most_kept, sequencer.expected - 1 - self.runner.quorum.released)
        if sequencer.known == len(self.events) and time.monotonic() - self.since >= self.away_seconds:
            self.sink.is_down = False

    def run(self, idle_seconds: float) -> None:
        while not self.node.is_subscribed():
            self.runner.turn(0.01)
        self.node.wait_subscribed()
        publish_all(self.node, self.events[: self.first])
        self.runner.run(stop=lambda: False, idle_seconds=idle_seconds)

    def close(self) -> None:
        self.runner.close()
        self.settler.close()
        self.alarms.close()


@pytest.fixture
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Quorum.__init__.__kwdefaults__ or {}, "pending", PENDING)
    monkeypatch.setitem(Sequencer.__init__.__kwdefaults__ or {}, "ahead", AHEAD)
    # An answer is longer than what is held here, so that its rest is asked for repeatedly.
    monkeypatch.setitem(Sequencer.__init__.__kwdefaults__ or {}, "request_timeout_s", 0.05)


@pytest.fixture
def make_scenario(tmp_path: Path) -> Iterator[Callable[..., Scenario]]:
    scenarios: list[Scenario] = []

    def make(node: StubNode, *, first: int = 200, away_seconds: float = 0.0) -> Scenario:
        scenarios.append(Scenario(tmp_path, node, first, away_seconds))
        return scenarios[-1]

    yield make
    for scenario in scenarios:
        scenario.close()


@pytest.mark.usefixtures("_little_room")
def test_events_during_a_sink_failure_are_kept_or_asked_for_again(
    tmp_path: Path, make_scenario: Callable[..., Scenario]
) -> None:
    with StubNode() as node:
        scenario = make_scenario(node, away_seconds=0.6)
        # The idle time is shorter than the failure: it must not count as idle.
        scenario.run(idle_seconds=0.3)
        sequencer = scenario.runner.subscriber.sequencer
        assert scenario.sink.tried > 2
        assert scenario.runner.sequence == len(scenario.events) > 2 * (PENDING + AHEAD)
        assert 0 < scenario.most_kept <= PENDING
        assert sequencer.stats.beyond_window > 0
        assert sequencer.stats.gaps == sequencer.stats.gaps_healed
        assert node.requests
        scenario.close()
    assert rows(tmp_path) == expected_rows(scenario.events)
    failed, recovered = scenario.alarms.last
    assert (failed.code, recovered.code) == (AlarmCode.SINK_FAILED, AlarmCode.SINK_RECOVERED)
    assert "the database is down; retrying for up to 60 s; nothing is settled meanwhile" in failed.message
    behind = len(scenario.events) - scenario.runner.settler.trades_before
    assert "events wait to be settled" in recovered.message
    assert 0 < int(recovered.message.rsplit("; ", 1)[1].split()[0].replace(",", "")) <= behind


@pytest.mark.usefixtures("_little_room")
def test_events_dropped_by_nodes_during_a_sink_failure_are_a_gap(
    tmp_path: Path, make_scenario: Callable[..., Scenario]
) -> None:
    with StubNode(ring=400) as node:
        scenario = make_scenario(node)
        with pytest.raises(
            GapUnfillable, match=f"node 1: holds {len(scenario.events) - 399} to {len(scenario.events)}"
        ):
            scenario.run(idle_seconds=5.0)
        scenario.close()
    settled = rows(tmp_path)
    assert settled == expected_rows(scenario.events)[: len(settled)]
    codes = [alarm.code for alarm in scenario.alarms.last]
    assert codes == [AlarmCode.SINK_FAILED, AlarmCode.SINK_RECOVERED, AlarmCode.GAP]


def test_conflict_is_reported_during_a_sink_failure(make_scenario: Callable[..., Scenario]) -> None:
    """A second copy that differs is reported at once, not when the sink works again."""
    with StubNode() as node:
        scenario = make_scenario(node)
        forged = np.array(scenario.events[:100])
        forged["price_ticks"][50] += 1

        def lie() -> None:
            node.send(encode_events(forged, 0, 0))

        scenario.policy.reader = ActingReader(scenario.runner, lie)
        with pytest.raises(Disagreement, match="nodes 1 contradict the others"):
            scenario.run(idle_seconds=5.0)
        assert scenario.sink.is_down


def fail(monkeypatch: pytest.MonkeyPatch, times: int | None) -> None:
    """Make every CSV sink fail so many times, or always."""
    tried = 0
    write = CsvSink.write

    def failing(sink: CsvSink, events: Events) -> None:
        nonlocal tried
        tried += 1
        if times is None or tried <= times:
            raise SinkError(f"{sink.name}: the disk is down")
        write(sink, events)

    monkeypatch.setattr(CsvSink, "write", failing)


def test_command_reads_the_feed_during_a_sink_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail(monkeypatch, 3)
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5", "--json") == 0
    result, _ = summary(capsys)
    assert (result["sequence"], result["alarms"]) == (len(events), 2)
    assert rows(tmp_path) == expected_rows(events)
    assert "the disk is down; retrying for up to 60 s; nothing is settled meanwhile, the feed is read" in caplog.text


def test_command_exits_with_9_after_the_retry_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, None)
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--sink-timeout", "0.3", "--json") == 9
    result, error = summary(capsys)
    assert result["committed"] == 0
    assert result["known_sequence"] > 0
    assert "the disk is down" in error
    # Nothing is lost: the next run settles all of it.
    monkeypatch.undo()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5") == 0
    assert rows(tmp_path) == expected_rows(events)
