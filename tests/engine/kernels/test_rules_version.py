"""SET_VERSION: the next version and no other, applied by the next command, never by a program that lacks it."""

import numpy as np
import pytest

from smrx.engine import FIRST_RULES, Engine, RulesError
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from smrx.wire.records import VERSION_EVENT
from tests.any_rules import EngineOfAnyRules
from tests.commands import Commands, apply, command, join
from tests.oracle import Oracle
from tests.property.flow import build_tape, seeded_steps


def switch(version: int) -> Commands:
    return command(CommandKind.SET_VERSION, version=version)


def test_engine_starts_with_a_version_and_accepts_the_next_only() -> None:
    assert EngineOfAnyRules().rules_version == NEWEST_RULES
    engine = EngineOfAnyRules(rules=FIRST_RULES)
    assert engine.rules_version == 1
    result = apply(engine, join([switch(3), switch(1), switch(0), switch(-1), switch(2), switch(2), switch(3)]), 5)
    accepted = result.outcomes["status"] == OutcomeStatus.ACCEPTED
    assert np.flatnonzero(accepted).tolist() == [4, 6]
    assert set(result.outcomes["reason"][~accepted].tolist()) == {Reason.INVALID_VERSION}
    switched = result.events[result.events["kind"] == EventKind.VERSION_SET]
    assert switched.view(VERSION_EVENT)["version"].tolist() == [2, 3]
    assert engine.rules_version == 3
    assert engine.content_hash() == engine.recompute_content_hash()
    assert engine.check_invariants() == []


def test_engine_and_oracle_agree_across_the_switch() -> None:
    engine, oracle = EngineOfAnyRules(rules=FIRST_RULES), Oracle(rules=FIRST_RULES)
    tape = build_tape(seeded_steps(5, 120))
    for number, batch in enumerate(tape.batches):
        commands = join([batch.commands, switch(number // 9 + 2)])
        found, expected = apply(engine, commands, batch.time_ns), apply(oracle, commands, batch.time_ns)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]
    assert engine.rules_version == oracle.rules_version >= 5


def test_version_is_part_of_the_state_hash_from_the_switch_on() -> None:
    switched, ticked = EngineOfAnyRules(rules=FIRST_RULES), EngineOfAnyRules(rules=FIRST_RULES)
    before = switched.content_hash()
    apply(switched, switch(2), 5)
    apply(ticked, command(CommandKind.TICK), 5)
    assert switched.content_hash() != ticked.content_hash()
    assert EngineOfAnyRules(rules=FIRST_RULES).content_hash() == before


def test_snapshot_keeps_the_version() -> None:
    engine = EngineOfAnyRules(rules=FIRST_RULES)
    apply(engine, switch(2), 5)
    again = EngineOfAnyRules.restore(engine.snapshot())
    assert again.rules_version == 2
    assert again.snapshot() == engine.snapshot()


@pytest.mark.parametrize("before", [0, 100], ids=["small batch", "large batch"])
def test_program_without_the_version_stops_at_the_switch(before: int) -> None:
    engine = Engine()
    commands = join([*(command(CommandKind.TICK) for _ in range(before)), switch(NEWEST_RULES + 1)])
    with pytest.raises(RulesError) as caught:
        apply(engine, commands, 5)
    assert str(caught.value) == (
        f"version {NEWEST_RULES + 1} of the rules is in force, and this program applies versions 1 to {NEWEST_RULES}; "
        "run a newer program on this node"
    )


def test_program_without_the_version_does_not_restore_it() -> None:
    engine = EngineOfAnyRules(rules=FIRST_RULES)
    apply(engine, join([switch(version) for version in range(2, NEWEST_RULES + 2)]), 5)
    with pytest.raises(RulesError, match="run a newer program"):
        Engine.restore(engine.snapshot())


def test_program_that_dropped_the_version_does_not_restore_it() -> None:
    class Newer(Engine):
        oldest_rules, newest_rules = 2, 3

    with pytest.raises(
        RulesError, match="version 1 of the rules is in force, and this program applies versions 2 to 3"
    ):
        Newer.restore(Engine(rules=FIRST_RULES).snapshot())


@pytest.mark.parametrize("version", [0, NEWEST_RULES + 1])
def test_engine_does_not_begin_with_rules_that_it_lacks(version: int) -> None:
    with pytest.raises(RulesError, match="of the rules is in force, and this program applies versions 1 to"):
        Engine(rules=version)
