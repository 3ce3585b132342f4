"""While a sink is away the feed is read on: nothing is lost, nothing is stored twice, and it is said aloud."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from smrx.config import load
from smrx.feed.feed_errors import Disagreement, GapUnfillable
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.settlement.follower.alarms import AlarmCode, Alarms
from smrx.settlement.follower.retry_policy import RetryPolicy
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

#: What may be read ahead in these tests, and what is kept beyond that: far less than the stream has.
PENDING, AHEAD = 500, 300


class Away(CsvSink):
    """A sink that cannot write while `away` is set; it is when it has been given events for the first time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.away = False
        self.tried = 0

    def write(self, events: Events) -> None:
        if not self.tried:
            self.away = True
        self.tried += 1
        if self.away:
            raise SinkError(f"{self.name}: the database is away")
        super().write(events)


class Meanwhile:
    """Stands between patience and the feed: lets the test act while the sink is away."""

    def __init__(self, runner: LedgerRunner, act: Callable[[], None]) -> None:
        self._running, self._act = runner, act

    @property
    def behind(self) -> int:
        return self._running.behind

    def listen(self, seconds: float) -> None:
        self._running.listen(seconds)
        self._act()


class Story:
    """One node, one verifier, one sink that is away from its first events until all the others are published."""

    def __init__(self, directory: Path, node: StubNode, first: int, away_seconds: float) -> None:
        self.events = market_events()
        self.node, self.first, self.away_seconds = node, end_of_command(self.events, first), away_seconds
        self.sink = Away(directory)
        self.alarms = Alarms("local")
        self.policy = RetryPolicy(60.0, lambda: False, self.alarms)
        self.policy.is_enabled = True
        config = load(write_config(directory, [node]))
        self.settler = make_settler("local", str(directory / "books"), [self.sink], self.policy.wrap)
        self.settler.open()
        self.runner = make_runner(config, self.settler, self.alarms)
        self.policy.reader = Meanwhile(self.runner, self.meanwhile)
        self.since = 0.0
        self.most_kept = 0

    def meanwhile(self) -> None:
        sequencer = self.runner.subscriber.sequencer
        if not self.since:
            self.since = time.monotonic()
            publish_all(self.node, self.events[self.first :])
        self.most_kept = max(self.most_kept, sequencer.expected - 1 - self.runner.quorum.released)
        if sequencer.known == len(self.events) and time.monotonic() - self.since >= self.away_seconds:
            self.sink.away = False

    def run(self, idle_seconds: float) -> None:
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
    # An answer is longer than what is kept here, so that its rest is asked for again and again.
    monkeypatch.setitem(Sequencer.__init__.__kwdefaults__ or {}, "request_timeout_s", 0.05)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[..., Story]]:
    stories: list[Story] = []

    def tell(node: StubNode, *, first: int = 200, away_seconds: float = 0.0) -> Story:
        stories.append(Story(tmp_path, node, first, away_seconds))
        return stories[-1]

    yield tell
    for story in stories:
        story.close()


@pytest.mark.usefixtures("_little_room")
def test_what_comes_while_a_sink_is_away_is_kept_or_asked_for_again(tmp_path: Path, told: Callable[..., Story]) -> None:
    with StubNode() as node:
        story = told(node, away_seconds=0.6)
        # Idle for less than the sink is away: it must not look as if nothing came.
        story.run(idle_seconds=0.3)
        sequencer = story.runner.subscriber.sequencer
        assert story.sink.tried > 2
        assert story.runner.sequence == len(story.events) > 2 * (PENDING + AHEAD)
        assert 0 < story.most_kept <= PENDING
        assert sequencer.stats.beyond_window > 0
        assert sequencer.stats.gaps == sequencer.stats.gaps_healed
        assert node.requests
        story.close()
    assert rows(tmp_path) == expected_rows(story.events)
    failed, recovered = story.alarms.last
    assert (failed.code, recovered.code) == (AlarmCode.SINK_FAILED, AlarmCode.SINK_RECOVERED)
    assert "the database is away; retrying for up to 60 s; nothing is settled meanwhile" in failed.message
    behind = len(story.events) - story.runner.settler.trades_before
    assert "events wait to be settled" in recovered.message
    assert 0 < int(recovered.message.rsplit("; ", 1)[1].split()[0].replace(",", "")) <= behind


@pytest.mark.usefixtures("_little_room")
def test_what_the_nodes_have_forgotten_meanwhile_is_a_gap_and_said(tmp_path: Path, told: Callable[..., Story]) -> None:
    with StubNode(ring=400) as node:
        story = told(node)
        with pytest.raises(GapUnfillable, match=f"node 1: holds {len(story.events) - 399} to {len(story.events)}"):
            story.run(idle_seconds=5.0)
        story.close()
    settled = rows(tmp_path)
    assert settled == expected_rows(story.events)[: len(settled)]
    codes = [alarm.code for alarm in story.alarms.last]
    assert codes == [AlarmCode.SINK_FAILED, AlarmCode.SINK_RECOVERED, AlarmCode.GAP]


def test_nodes_that_contradict_each_other_are_named_while_a_sink_is_away(told: Callable[..., Story]) -> None:
    """A second copy that differs is noticed at once, not when the sink is back."""
    with StubNode() as node:
        story = told(node)
        forged = np.array(story.events[:100])
        forged["price_ticks"][50] += 1

        def lie() -> None:
            node.send(encode_events(forged, 0, 0))

        story.policy.reader = Meanwhile(story.runner, lie)
        with pytest.raises(Disagreement, match="nodes 1 contradict the others"):
            story.run(idle_seconds=5.0)
        assert story.sink.away


def fail(monkeypatch: pytest.MonkeyPatch, times: int | None) -> None:
    """Let every CSV sink fail so many times, or always."""
    tried = 0
    write = CsvSink.write

    def failing(sink: CsvSink, events: Events) -> None:
        nonlocal tried
        tried += 1
        if times is None or tried <= times:
            raise SinkError(f"{sink.name}: the disk is away")
        write(sink, events)

    monkeypatch.setattr(CsvSink, "write", failing)


def test_the_command_reads_the_feed_on_and_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail(monkeypatch, 3)
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5", "--json") == 0
    told, _ = summary(capsys)
    assert (told["sequence"], told["alarms"]) == (len(events), 2)
    assert rows(tmp_path) == expected_rows(events)
    assert "the disk is away; retrying for up to 60 s; nothing is settled meanwhile, the feed is read" in caplog.text


def test_the_command_ends_with_9_when_patience_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, None)
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--sink-timeout", "0.3", "--json") == 9
    told, error = summary(capsys)
    assert (told["committed"], told["known_sequence"]) == (0, len(events))
    assert "the disk is away" in error
    # Nothing is lost by that: the next run settles all of it.
    monkeypatch.undo()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5") == 0
    assert rows(tmp_path) == expected_rows(events)
