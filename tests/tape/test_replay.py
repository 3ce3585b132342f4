"""Replay of a tape to a cluster: everything is sent once and in order, counted, and compared with one engine."""

import time

import numpy as np
import pytest

from smrx.tape import convert, replay, replay_check
from smrx.tape.generate import generate
from smrx.tape.replay import ReplayResult
from smrx.tape.replay_check import Reference, ReplayCheck
from smrx.tape.tape_file import Tape
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus
from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.records import ASSET_COMMAND, EVENT, INSTRUMENT_DETAILS, pack_symbol
from tests.tape import recordings
from tests.tape.cluster_stub import ClusterStub, Records
from tests.tape.tape_with_terms import with_terms


@pytest.fixture(scope="module")
def tape() -> Tape:
    return generate(3_000, seed=11)


@pytest.fixture(scope="module")
def expected(tape: Tape) -> Reference:
    return replay_check.run_reference(tape)


def check(cluster: ClusterStub, expected: Reference, played: ReplayResult) -> ReplayCheck:
    return replay_check.compare(expected, played.outcomes, replay_check.collect(cluster, played.outcomes, 0.1))


def test_generated_tape_has_the_counted_trades(tape: Tape, expected: Reference) -> None:
    verdict = replay_check.run_engine(tape)
    assert verdict.verified
    assert (verdict.refused, verdict.trades, verdict.trades_expected) == (0, tape.trades, tape.trades)
    assert tape.trades > 100
    assert expected.engine.check_invariants() == []
    assert not replay_check.run_engine(tape._replace(trades=tape.trades + 1)).verified


def test_tape_is_replayed_counted_and_compared(tape: Tape, expected: Reference) -> None:
    cluster = ClusterStub()
    seen: list[int] = []
    played = replay.play(cluster, tape, progress=seen.append)
    summary = played.summary
    assert (summary.commands, summary.acknowledged, summary.refused, summary.unknown) == (3_000, 3_000, 0, 0)
    assert summary.trades == tape.trades == cluster.engine.trade_count
    assert seen[-1] == 3_000
    found = check(cluster, expected, played)
    assert found.verified, found.differences
    assert (found.outcomes_compared, found.trades_compared) == (3_000, tape.trades)
    assert found.events_compared == len(expected.events)


def test_second_replay_on_the_same_cluster_is_equal(tape: Tape, expected: Reference) -> None:
    cluster = ClusterStub()
    replay.play(cluster, tape)
    trades = cluster.engine.trade_count
    cluster.connect()
    played = replay.play(cluster, tape)
    assert played.summary.refused == 0
    assert cluster.engine.trade_count == 2 * trades
    assert check(cluster, expected, played).verified


@pytest.mark.parametrize("name", recordings.found()[:1])
def test_recording_is_replayed_twice(name: str) -> None:
    found = convert.convert(recordings.read(name)).tape()
    cluster = ClusterStub()
    for _ in range(2):
        summary = replay.play(cluster, found).summary
        assert (summary.refused, summary.trades) == (0, found.trades)
        cluster.connect()


def test_other_markets_do_not_affect_the_comparison(tape: Tape, expected: Reference) -> None:
    cluster = ClusterStub()
    replay.play(cluster, generate(500, seed=2, market_id=77))
    cluster.connect()
    assert check(cluster, expected, replay.play(cluster, tape)).verified


def test_refused_setup_stops_the_replay_before_any_order(tape: Tape) -> None:
    class RejectsDeposits(ClusterStub):
        """Rejects deposits, because the transfer ids are in use."""

        def submit(self, commands: Records, details: Records = NO_DETAILS, /) -> Records:
            outcomes = super().submit(commands, details)
            deposits = commands["kind"] == CommandKind.DEPOSIT
            outcomes["status"][deposits] = OutcomeStatus.REJECTED
            outcomes["reason"][deposits] = 63
            return outcomes

    cluster = RejectsDeposits()
    with pytest.raises(replay.SetupRefused, match=r"DEPOSIT of the tape's setup failed: TRANSFER_ID_REUSED"):
        replay.play(cluster, tape)
    assert len(cluster.submissions) == 1


@pytest.mark.parametrize(
    ("kind", "column", "value", "sentence"),
    [
        (
            CommandKind.ADD_ASSET,
            "decimals",
            2,
            "asset id 10 is in use for AMZN with 2 decimals; .* AMZN with 0",
        ),
        (
            CommandKind.ADD_ASSET,
            "symbol",
            pack_symbol("BTC"),
            "asset id 10 is in use for BTC",
        ),
        (
            CommandKind.ADD_INSTRUMENT,
            "symbol",
            pack_symbol("BTC-USD"),
            "instrument id 10 is in use for BTC-USD .* the tape needs it for AMZN-USD",
        ),
    ],
)
def test_ids_of_another_market_are_not_used(
    tape: Tape, kind: CommandKind, column: str, value: int | bytes, sentence: str
) -> None:
    other = CommandList(tape.setup.records.copy(), tape.setup.details.copy())
    if kind == CommandKind.ADD_ASSET:
        assets = other.records.view(ASSET_COMMAND)
        assets[column][np.flatnonzero(assets["kind"] == kind)[0]] = value
    else:
        other.details.view(INSTRUMENT_DETAILS)[column] = value
    cluster = ClusterStub()
    cluster.submit(*other)
    with pytest.raises(replay.SetupRefused, match=sentence):
        replay.play(cluster, tape)
    assert cluster.submissions == [len(other.records)]


def test_rate_limits_commands_per_second(tape: Tape) -> None:
    cluster = ClusterStub()
    started = time.perf_counter()
    replay.play(cluster, tape.first(400), rate=1_000)
    # 400 commands at 1,000 a second: the last 50 are due after 0.35 s.
    assert time.perf_counter() - started >= 0.35
    assert cluster.submissions[1:] == [50] * 8


def test_shortened_tape_has_unknown_trades(tape: Tape) -> None:
    summary = replay.play(ClusterStub(), tape.first(100)).summary
    assert summary.commands == 100
    assert tape.first(None) is tape
    assert replay_check.run_engine(tape.first(100)).trades_expected is None


def test_refusals_are_counted_and_the_first_is_described(tape: Tape) -> None:
    twice = np.concatenate([tape.commands[:1], tape.commands[:1], tape.commands[:2]])
    summary = replay.play(ClusterStub(), tape._replace(flow=CommandList(twice))).summary
    assert (summary.acknowledged, summary.refused) == (2, 2)
    assert summary.first_refusal == "command 1 (PLACE): DUPLICATE_CLIENT_ORDER_ID"


def test_orders_with_long_ids_and_terms_are_counted_and_compared(tape: Tape) -> None:
    other = with_terms(tape)
    cluster = ClusterStub()
    played = replay.play(cluster, other)
    assert (played.summary.refused, played.summary.trades) == (0, tape.trades)
    found = check(cluster, replay_check.run_reference(other), played)
    assert found.verified, found.differences
    assert replay.play(ClusterStub(), other.first(100)).summary.refused == 0


# Faulty clusters.


@pytest.mark.parametrize("column", ["price_ticks", "quantity_lots", "counter_order_id", "account", "side"])
def test_differing_trade_is_reported(tape: Tape, expected: Reference, column: str) -> None:
    cluster = ClusterStub()
    played = replay.play(cluster, tape)
    batch, rows = cluster.rows(EventKind.TRADE)
    cluster.alter(batch, column, rows[7], 1)
    found = check(cluster, expected, played)
    assert found.difference_count == 1
    assert column.replace("_id", "") in found.differences[0]


def test_missing_event_is_reported(tape: Tape, expected: Reference) -> None:
    cluster = ClusterStub()
    played = replay.play(cluster, tape)
    batch, rows = cluster.rows(EventKind.TRADE)
    cluster.drop(batch, rows[3])
    found = check(cluster, expected, played)
    total = len(expected.events)
    assert found.differences == [f"expected {total} events, found {total - 1}"]


def test_differing_outcome_is_reported(tape: Tape, expected: Reference) -> None:
    played = replay.play(ClusterStub(), tape)
    played.outcomes["cum_lots"][123] += 1
    found = replay_check.compare(expected, played.outcomes, None)
    assert not found.verified
    assert found.differences[0].startswith("command 123: cum_lots expected ")


def test_lost_outcome_is_covered_by_its_events(tape: Tape, expected: Reference) -> None:
    cluster = ClusterStub()
    played = replay.play(cluster, tape)
    lost = np.zeros(1, dtype=played.outcomes.dtype)
    lost["status"] = OutcomeStatus.DUPLICATE
    for name in ("session_id", "request_id"):
        lost[name] = played.outcomes[name][50]
    played.outcomes[50] = lost[0]
    found = check(cluster, expected, played)
    assert found.verified, found.differences
    assert (found.outcomes_unknown, found.outcomes_compared) == (1, 2_999)
    assert found.events_compared == len(expected.events)


def test_silent_feed_is_reported(tape: Tape) -> None:
    played = replay.play(ClusterStub(), tape)
    with pytest.raises(replay_check.FeedSilent, match=r"no event after 0 for 0\.01 s"):
        replay_check.collect(_Silent(), played.outcomes, 0.01)


class _Silent:
    def poll(self, timeout: float, /) -> Records:
        return np.zeros(0, dtype=EVENT)
