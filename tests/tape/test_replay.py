"""A tape through a cluster: everything is sent once and in order, counted, and proved equal to one engine alone."""

import time

import numpy as np
import pytest

from smrx.tape import convert, replay, replay_proof
from smrx.tape.generate import generate
from smrx.tape.replay import Played
from smrx.tape.replay_proof import Proof, Reference
from smrx.tape.tape_file import Tape
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus
from smrx.wire.records import EVENT, pack_symbol
from tests.tape import recordings
from tests.tape.cluster import Records, StandIn


@pytest.fixture(scope="module")
def tape() -> Tape:
    return generate(3_000, seed=11)


@pytest.fixture(scope="module")
def expected(tape: Tape) -> Reference:
    return replay_proof.reference(tape)


def prove(cluster: StandIn, expected: Reference, played: Played) -> Proof:
    return replay_proof.compare(expected, played.outcomes, replay_proof.collect(cluster, played.outcomes, 0.1))


def test_a_generated_tape_does_what_its_generator_says(tape: Tape, expected: Reference) -> None:
    verdict = replay_proof.alone(tape)
    assert verdict.proved
    assert (verdict.refused, verdict.trades, verdict.trades_expected) == (0, tape.trades, tape.trades)
    assert tape.trades > 100
    assert expected.engine.check_invariants() == []
    assert not replay_proof.alone(tape._replace(trades=tape.trades + 1)).proved


def test_a_tape_is_replayed_counted_and_proved(tape: Tape, expected: Reference) -> None:
    cluster = StandIn()
    seen: list[int] = []
    played = replay.play(cluster, tape, progress=seen.append)
    summary = played.summary
    assert (summary.commands, summary.acknowledged, summary.refused, summary.unknown) == (3_000, 3_000, 0, 0)
    assert summary.trades == tape.trades == cluster.engine.trade_count
    assert seen[-1] == 3_000
    found = prove(cluster, expected, played)
    assert found.proved, found.differences
    assert (found.outcomes_compared, found.trades_compared) == (3_000, tape.trades)
    assert found.events_compared == len(expected.events)


def test_a_second_replay_on_the_same_cluster_is_the_same(tape: Tape, expected: Reference) -> None:
    cluster = StandIn()
    replay.play(cluster, tape)
    trades = cluster.engine.trade_count
    cluster.connect()
    played = replay.play(cluster, tape)
    assert played.summary.refused == 0
    assert cluster.engine.trade_count == 2 * trades
    assert prove(cluster, expected, played).proved


@pytest.mark.parametrize("name", recordings.found()[:1])
def test_a_recording_is_replayed_twice(name: str) -> None:
    found = convert.convert(recordings.read(name)).tape()
    cluster = StandIn()
    for _ in range(2):
        summary = replay.play(cluster, found).summary
        assert (summary.refused, summary.trades) == (0, found.trades)
        cluster.connect()


def test_others_on_the_cluster_do_not_disturb_the_proof(tape: Tape, expected: Reference) -> None:
    cluster = StandIn()
    replay.play(cluster, generate(500, seed=2, market_id=77))
    cluster.connect()
    assert prove(cluster, expected, replay.play(cluster, tape)).proved


def test_a_market_of_another_kind_is_refused_before_any_order(tape: Tape) -> None:
    class Crowded(StandIn):
        """Has given the tape's accounts away to a venue that refuses deposits."""

        def submit(self, commands: Records, /) -> Records:
            outcomes = super().submit(commands)
            deposits = commands["kind"] == CommandKind.DEPOSIT
            outcomes["status"][deposits] = OutcomeStatus.REJECTED
            outcomes["reason"][deposits] = 63
            return outcomes

    cluster = Crowded()
    with pytest.raises(replay.SetupRefused, match=r"DEPOSIT of the tape's setup: .*, found TRANSFER_ID_REUSED"):
        replay.play(cluster, tape)
    assert len(cluster.submissions) == 1


@pytest.mark.parametrize(
    ("kind", "column", "value", "sentence"),
    [
        (CommandKind.ADD_ASSET, "quantity_lots", 2, "asset 10: expected AMZN with 0 decimals, found AMZN with 2"),
        (
            CommandKind.ADD_ASSET,
            "client_order_id",
            pack_symbol("BTC"),
            "asset 10: expected AMZN with 0 decimals, found BTC",
        ),
        (
            CommandKind.ADD_INSTRUMENT,
            "client_order_id",
            pack_symbol("BTC-USD"),
            "instrument 10: expected AMZN-USD .*, found BTC-USD",
        ),
    ],
)
def test_the_market_of_somebody_else_is_left_alone(
    tape: Tape, kind: CommandKind, column: str, value: int, sentence: str
) -> None:
    other = tape.setup.copy()
    other[column][np.flatnonzero(other["kind"] == kind)[0]] = value
    cluster = StandIn()
    cluster.submit(other)
    with pytest.raises(replay.SetupRefused, match=sentence):
        replay.play(cluster, tape)
    assert cluster.submissions == [len(other)]


def test_a_rate_is_kept(tape: Tape) -> None:
    cluster = StandIn()
    started = time.perf_counter()
    replay.play(cluster, tape.first(400), rate=1_000)
    # 400 commands at 1,000 a second: the last 50 are due after 0.35 s.
    assert time.perf_counter() - started >= 0.35
    assert cluster.submissions[1:] == [50] * 8


def test_a_shorter_tape_is_its_beginning(tape: Tape) -> None:
    summary = replay.play(StandIn(), tape.first(100)).summary
    assert summary.commands == 100
    assert tape.first(None) is tape
    assert replay_proof.alone(tape.first(100)).trades_expected is None


def test_refusals_are_counted_and_the_first_is_named(tape: Tape) -> None:
    twice = np.concatenate([tape.commands[:1], tape.commands[:1], tape.commands[:2]])
    summary = replay.play(StandIn(), tape._replace(commands=twice)).summary
    assert (summary.acknowledged, summary.refused) == (2, 2)
    assert summary.first_refusal == "command 1 (PLACE): DUPLICATE_CLIENT_ORDER_ID"


# A wrong cluster.


@pytest.mark.parametrize("column", ["price_ticks", "quantity_lots", "counter_order_id", "account", "side"])
def test_a_trade_that_differs_is_named(tape: Tape, expected: Reference, column: str) -> None:
    cluster = StandIn()
    played = replay.play(cluster, tape)
    batch, rows = cluster.rows(EventKind.TRADE)
    cluster.alter(batch, column, rows[7], 1)
    found = prove(cluster, expected, played)
    assert found.difference_count == 1
    assert column.replace("_id", "") in found.differences[0]


def test_a_missing_event_is_noticed(tape: Tape, expected: Reference) -> None:
    cluster = StandIn()
    played = replay.play(cluster, tape)
    batch, rows = cluster.rows(EventKind.TRADE)
    cluster.drop(batch, rows[3])
    found = prove(cluster, expected, played)
    total = len(expected.events)
    assert found.differences == [f"expected {total} events, found {total - 1}"]


def test_an_outcome_that_differs_is_named(tape: Tape, expected: Reference) -> None:
    played = replay.play(StandIn(), tape)
    played.outcomes["cum_lots"][123] += 1
    found = replay_proof.compare(expected, played.outcomes, None)
    assert not found.proved
    assert found.differences[0].startswith("command 123: cum_lots expected ")


def test_a_lost_answer_is_left_to_the_events(tape: Tape, expected: Reference) -> None:
    cluster = StandIn()
    played = replay.play(cluster, tape)
    lost = np.zeros(1, dtype=played.outcomes.dtype)
    lost["status"] = OutcomeStatus.DUPLICATE
    for name in ("session_id", "request_id"):
        lost[name] = played.outcomes[name][50]
    played.outcomes[50] = lost[0]
    found = prove(cluster, expected, played)
    assert found.proved, found.differences
    assert (found.outcomes_unknown, found.outcomes_compared) == (1, 2_999)
    assert found.events_compared == len(expected.events)


def test_a_feed_that_stops_early_is_said(tape: Tape) -> None:
    played = replay.play(StandIn(), tape)
    with pytest.raises(replay_proof.FeedSilent, match=r"found none after 0 for 0\.01 s"):
        replay_proof.collect(_Silent(), played.outcomes, 0.01)


class _Silent:
    def poll(self, timeout: float, /) -> Records:
        return np.zeros(0, dtype=EVENT)
