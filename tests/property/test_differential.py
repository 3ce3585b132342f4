"""The compiled engine compared with the oracle: the same random commands give the same bytes and the same state."""

import os
from collections import Counter
from functools import cache
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.engine import Engine
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderFlags,
    OrderType,
    OutcomeStatus,
    Reason,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS
from tests.commands import apply, join
from tests.oracle import Oracle
from tests.property.broken_credentials import BROKEN_CREDENTIALS, BROKEN_SWITCHES
from tests.property.broken_oracles import BROKEN, LosesHolds
from tests.property.choices import CLIENT_ORDER_IDS
from tests.property.comparison import Answers, difference, first_difference, joined, run, state_differences
from tests.property.flow import (
    FIRST,
    NEWEST,
    RULES,
    STEP_SIZE,
    STEPS,
    SWITCHED,
    Batch,
    Rules,
    Tape,
    build_answered,
    market_setup,
    seeded_answered,
    seeded_tape,
)
from tests.property.repeat import disagreement, hex_command, seed_command

LONG_SEEDS = range(int(os.environ.get("SMRX_LONG_SEEDS", "4")))
LONG_STEPS = 3_000
#: Kinds of orders that the random flow must place successfully: type, time in force, flags, whether it hides lots.
LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
GTC, IOC, FOK, GTD = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD
POST_ONLY, BUDGET = OrderFlags.POST_ONLY, OrderFlags.QUOTE_BUDGET
ORDERS = {
    *((LIMIT, tif, 0, False) for tif in TimeInForce),
    *((LIMIT, tif, flags, True) for tif in (GTC, GTD) for flags in (0, POST_ONLY)),
    *((LIMIT, tif, POST_ONLY, False) for tif in (GTC, GTD)),
    *((MARKET, IOC, flags, False) for flags in (0, BUDGET)),
    *((OrderType.STOP, tif, 0, False) for tif in (IOC, GTD)),
    *((OrderType.STOP_LIMIT, tif, 0, False) for tif in (GTC, IOC, FOK, GTD)),
    *((OrderType.STOP_LIMIT, tif, 0, True) for tif in (GTC, GTD)),
}


EVERY_RULES = pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())


#: A capacity of credentials that is reached, and one more with networks.
FULL_OF_CREDENTIALS = [bytes.fromhex(step).ljust(STEP_SIZE, b"\0") for step in ("00d5fa070001", "00e16e0000000001")]


@EVERY_RULES
@given(steps=STEPS)
@example(steps=FULL_OF_CREDENTIALS)
def test_engine_and_oracle_agree(steps: list[bytes], rules: Rules) -> None:
    report = disagreement(build_answered(steps, rules))
    assert report is None, f"repeat: {hex_command(steps, rules)}\n{report}"


@EVERY_RULES
@given(
    noise=st.lists(st.binary(min_size=COMMAND.itemsize, max_size=COMMAND.itemsize), max_size=30),
    details=st.lists(st.binary(min_size=DETAILS.itemsize, max_size=DETAILS.itemsize), max_size=3),
)
def test_engine_and_oracle_agree_on_noise(noise: list[bytes], details: list[bytes], rules: Rules) -> None:
    """Random bytes as commands and as details; the empty batch too."""
    commands = CommandList(np.frombuffer(b"".join(noise), COMMAND), np.frombuffer(b"".join(details), DETAILS))
    tape = Tape([Batch(5, join(market_setup(rules.version))), Batch(6, commands)], rules.version)
    oracle, expected = run(Oracle(tape.rules), tape)
    engine, found = run(Engine(rules=tape.rules), tape)
    assert (difference(tape, expected, found), state_differences(oracle, engine)) == (None, [])


@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_engine_and_oracle_agree_for_long(seed: int) -> None:
    """Most seeds with the newest rules, one in four with the first, one in four with a switch between them."""
    rules = (NEWEST, FIRST, NEWEST, SWITCHED)[seed % 4]
    report = disagreement(seeded_answered(seed, LONG_STEPS, rules))
    assert report is None, f"repeat: {seed_command(seed, LONG_STEPS, rules)}\n{report}"


@pytest.mark.parametrize("machine", [Engine, Oracle], ids=["engine", "oracle"])
def test_invariants_hold_after_every_batch(machine: Any) -> None:
    """After every batch, so that no later command can hide a violation."""
    running = machine()
    for batch in seeded_tape(5, 1_000).batches:
        apply(running, batch.commands, batch.time_ns)
        assert running.check_invariants() == []


def test_failure_shrinks_to_a_short_tape() -> None:
    """What Hypothesis reports for a bug: the few commands that show it, after those that set up the market.

    With the first rules, whose market takes half as many commands to set up.
    """
    settings = hypothesis.settings(max_examples=500, database=None, derandomize=True, deadline=None)
    lists = st.lists(st.binary(min_size=STEP_SIZE, max_size=STEP_SIZE), max_size=12)
    known: dict[tuple[bytes, ...], bool] = {}

    def differs(steps: list[bytes]) -> bool:
        # So many tapes are enough to shrink to a handful of commands.
        if tuple(steps) not in known:
            known[tuple(steps)] = len(known) < 250 and difference_of(LosesHolds, steps) is not None
        return known[tuple(steps)]

    report = difference_of(LosesHolds, hypothesis.find(lists, differs, settings=settings))
    assert report is not None
    _, tape = report.split("the tape:\n")
    setup = len(market_setup(FIRST.version))
    after_the_market = [line for line in tape.splitlines() if not line.startswith("--")][setup:]
    # The bug needs an order and a command that ends it.
    assert 1 <= len(after_the_market) <= 4
    assert any(" PLACE " in line for line in after_the_market)


def difference_of(broken: type[Oracle], steps: list[bytes]) -> str | None:
    """Return how a broken oracle differs from the oracle on a tape."""
    tape, _, results = build_answered(steps, FIRST)
    return first_difference(broken(tape.rules), tape, joined(results))


def test_random_flow_reaches_everything() -> None:
    """A comparison proves nothing about what the random flow never does."""
    reasons: Counter[int] = Counter()
    events: Counter[int] = Counter()
    statuses: Counter[int] = Counter()
    kinds: Counter[int] = Counter()
    orders: Counter[tuple[int, int, int, bool]] = Counter()
    modes: Counter[tuple[int, int]] = Counter()
    ids: Counter[bytes] = Counter()
    who: Counter[int] = Counter()
    answers_with_mismatch: list[int] = []
    repeats = 0
    for seed in range(4):
        tape = seeded_tape(seed, LONG_STEPS)
        _, answers = run(Engine(), tape)
        reasons.update(answers.events["reason"].tolist())
        events.update(answers.events["kind"].tolist())
        statuses.update(answers.outcomes["status"].tolist())
        answers_with_mismatch += answers.outcomes["reason"][answers.outcomes["sequence"] == 0].tolist()
        who.update(answers.events["credential"][answers.events["kind"] == EventKind.NEW].tolist())
        records, details = tape.commands
        # The first answer to each command: a repeated request may hold anything.
        first = np.zeros(len(records), bool)
        first[np.unique(answers.outcomes["sequence"], return_index=True)[1]] = True
        repeats += int((~first & (answers.outcomes["sequence"] != 0)).sum())
        accepted = records[first & (answers.outcomes["status"] == OutcomeStatus.ACCEPTED)]
        kinds.update(accepted["kind"].tolist())
        placed = accepted[accepted["kind"] == CommandKind.PLACE]
        orders.update(kind_of_order(place, details) for place in placed)
        ids.update(client_order_id(place, details) for place in placed)
        prevented = answers.events[answers.events["reason"] == Reason.SELF_TRADE]
        modes.update(zip(prevented["kind"].tolist(), prevented["stp"].tolist(), strict=True))
    # That of a repeated request is in no event.
    reasons.update(answers_with_mismatch)
    assert [reason.name for reason in Reason if reason not in reasons] == []
    # An engine stops at a switch to rules that it lacks: tests/engine/kernels/test_rules_version.py compares it.
    assert [kind.name for kind in EventKind if kind not in events] == [EventKind.VERSION_SET.name]
    assert [kind.name for kind in CommandKind if kind not in kinds] == [CommandKind.SET_VERSION.name]
    assert set(orders) == ORDERS
    assert repeats > 0
    # Orders without a credential, of accounts' and firms' credentials, and of persons behind a gateway.
    assert {0, 21, 31, 33, 43} <= set(who)
    assert len(who) > 12
    assert {text.encode() for text in CLIENT_ORDER_IDS} <= set(ids)
    # Takers and makers that self-trade prevention ended or reduced.
    assert {mode for kind, mode in modes if kind == EventKind.EXPIRED} == set(Stp) - {Stp.NONE, Stp.CANCEL_OLDEST}
    assert {kind for kind, _ in modes} == {EventKind.EXPIRED, EventKind.CANCELLED, EventKind.REPLACED}
    assert set(statuses) == set(OutcomeStatus)
    # More of them are valid than not: if most commands were rejected, no book would be built.
    assert statuses[OutcomeStatus.ACCEPTED] > statuses[OutcomeStatus.REJECTED]


def kind_of_order(place: np.void, details: NDArray[np.void]) -> tuple[int, int, int, bool]:
    hides = place["details"] and details["display_lots"][int(place["details"]) - 1] != 0
    return int(place["order_type"]), int(place["tif"]), int(place["flags"]), bool(hides)


def client_order_id(place: np.void, details: NDArray[np.void]) -> bytes:
    if place["client_order_id"] or not place["details"]:
        return int(place["client_order_id"]).to_bytes(8, "little").rstrip(b"\0")
    return bytes(details["client_order_id"][int(place["details"]) - 1])


#: Steps of the tapes on which the broken oracles are tried.
SHORT_STEPS = 400


@cache
def engine_answers(seed: int, rules: Rules) -> Answers:
    """Return the engine's answers to a short tape, with which every broken oracle is compared."""
    return run(Engine(rules=rules.version), seeded_tape(seed, SHORT_STEPS, rules))[1]


@pytest.mark.parametrize("broken", [*BROKEN, *BROKEN_CREDENTIALS], ids=lambda machine: machine.__name__)
def test_comparison_notices_a_bug(broken: type[Oracle]) -> None:
    expect_notice(broken, NEWEST)


@pytest.mark.parametrize("broken", BROKEN_SWITCHES, ids=lambda machine: machine.__name__)
def test_comparison_notices_a_bug_of_the_switch(broken: type[Oracle]) -> None:
    expect_notice(broken, SWITCHED)


def expect_notice(broken: type[Oracle], rules: Rules) -> None:
    """The comparison distinguishes a broken oracle from the engine within thirty short tapes."""
    for seed in range(30):
        tape = seeded_tape(seed, SHORT_STEPS, rules)
        report = first_difference(broken(tape.rules), tape, engine_answers(seed, rules))
        if report:
            assert report.startswith("command ")
            assert "the tape:\n-- batch at time" in report
            return
    pytest.fail(f"{broken.__name__} passed for the engine: {broken.__doc__}")


def test_state_comparison_notices_silent_corruption() -> None:
    tape = seeded_tape(0, 50)
    oracle, _ = run(Oracle(), tape)
    engine, _ = run(Engine(), tape)
    assert state_differences(oracle, engine) == []
    assert engine.corrupt_balance(1, 1, 5)
    report = "\n".join(state_differences(oracle, engine))
    assert "content hashes differ" in report
    assert "balances" in report
    assert "invariant" in report
