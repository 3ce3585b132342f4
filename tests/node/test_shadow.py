"""A shadow finds no difference in an equal program, and the first command that another engine or version changes."""

from typing import Any

import numpy as np
import pytest

from smrx.consensus.context import UnknownRules
from smrx.engine import Engine
from smrx.node import shadow as module
from smrx.node.replicated_state import ReplicatedState
from smrx.node.shadow import Shadow
from smrx.wire import batches
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import NO_DETAILS
from tests.any_rules import EngineOfAnyRules
from tests.commands import Commands, command, join
from tests.property.flow import FIRST, build_tape, market_setup, seeded_steps


def _entry(commands: Commands, time_ns: int) -> bytes:
    return batches.encode(commands.records.tobytes(), time_ns, 0, 0, commands.details.tobytes())


ENTRIES = [
    (number, 1, _entry(batch.commands, batch.time_ns))
    for number, batch in enumerate(build_tape(seeded_steps(7, 150), FIRST).batches, start=2)
]


class Reference:
    """A node of the cluster: the state after every entry, and all hashes."""

    def __init__(self) -> None:
        self.state = ReplicatedState(1)
        self.snapshots: list[bytes] = []
        #: By entry: the last command applied.
        self.sequences: list[int] = []
        for log_index, term, entry in ENTRIES:
            self.state.apply(log_index, term, entry)
            self.snapshots.append(self.state.snapshot())
            self.sequences.append(self.state.position()[0])

    def hashes(self, first: int, last: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.array(self.state.hashes_between(first, last), np.uint64)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.mark.parametrize("start", [0, 20], ids=["from the start", "from a snapshot"])
def test_equal_program_has_no_difference(reference: Reference, start: int) -> None:
    data = reference.snapshots[start - 1] if start else None
    shadow = Shadow(data, start + 1)
    first = shadow.sequence + 1
    assert shadow.apply(ENTRIES[start:]) is None
    assert shadow.check_hashes(first, reference.hashes(first, reference.sequences[-1])) is None
    assert shadow.compared == reference.sequences[-1]
    assert shadow.state_hash == reference.state.position()[1]


class Stingy(Engine):
    """An engine that is wrong: it deposits one unit less."""

    def apply(self, commands: Any, time_ns: int, details: Any = NO_DETAILS) -> Any:
        return super().apply(with_less(commands), time_ns, details)


def with_less(commands: Any) -> Any:
    commands = commands.copy()
    commands["quantity_lots"][commands["kind"] == CommandKind.DEPOSIT] -= 1
    return commands


def test_first_differing_hash_is_reported_with_its_command_and_records(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReplicatedState, "engine_class", Stingy)
    shadow = Shadow(None, 1)
    assert shadow.apply(ENTRIES) is None
    wrong = shadow.check_hashes(1, reference.hashes(1, reference.sequences[-1]))
    assert wrong is not None
    sequence, expected = wrong
    difference = shadow.hash_difference(sequence, expected)
    assert difference.command["kind"] == "DEPOSIT"
    assert difference.sequence == difference.equal_until + 1 == sequence
    assert difference.expected["state_hash"] == f"{reference.hashes(sequence, sequence)[0]:016x}"
    assert difference.found["state_hash"] != difference.expected["state_hash"]
    shadow.compare_records(difference, reference.snapshots[-1])
    assert difference.records_at == reference.sequences[-1]
    assert "assets" in {record.table for record in difference.records}


class Strict(EngineOfAnyRules):
    """Version 2 of its rules deposits one unit less; version 1 is as ever."""

    def apply(self, commands: Any, time_ns: int, details: Any = NO_DETAILS) -> Any:
        return super().apply(with_less(commands) if self.rules_version == 2 else commands, time_ns, details)


def test_other_rules_are_compared_by_events(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Engine", Strict)
    monkeypatch.setattr(ReplicatedState, "engine_class", Strict)
    shadow = Shadow(None, 1, 2)
    difference = shadow.apply(ENTRIES)
    assert difference is not None
    deposits = [
        (number, row)
        for number, entry in enumerate(ENTRIES)
        for row in batches.decode(entry[2]).commands
        if row["kind"] == CommandKind.DEPOSIT and row["quantity_lots"] > 1
    ]
    assert difference.log_index == ENTRIES[deposits[0][0]][0]
    assert difference.command["kind"] == "DEPOSIT"
    assert difference.expected["events"] != difference.found["events"]
    assert difference.records_at == difference.sequence
    changed = {record.table: record for record in difference.records}
    assert changed["counters"].fields == {"rules_version": (1, 2)}
    expected, found = changed["balances"].fields["available"]
    assert expected is not None
    assert found is not None
    assert expected - found == 1
    assert changed.keys() == {"counters", "balances", "assets", "transfers", "sessions"}


def test_other_rules_without_an_effect_have_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Engine", EngineOfAnyRules)
    monkeypatch.setattr(ReplicatedState, "engine_class", EngineOfAnyRules)
    shadow = Shadow(None, 1, 2)
    # Nothing of this is another thing with version 2 of the rules.
    plain = join([*market_setup(1), *(command(CommandKind.TICK) for _ in range(100))])
    assert shadow.apply([(2, 1, _entry(plain, 1))]) is None
    assert shadow.compared == shadow.sequence > 100


def test_rules_that_the_program_lacks_are_refused() -> None:
    with pytest.raises(UnknownRules, match="this program applies versions 1 to 2 of the rules, not version 3"):
        Shadow(None, 1, 3)


def test_switch_in_the_log_ends_a_comparison_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Engine", EngineOfAnyRules)
    monkeypatch.setattr(ReplicatedState, "engine_class", EngineOfAnyRules)
    shadow = Shadow(None, 1, 2)
    switch = command(CommandKind.SET_VERSION, quantity_lots=2)
    assert shadow.apply([(2, 1, _entry(join([switch]), 1)), *ENTRIES]) is None
    assert shadow.has_switched
    assert shadow.log_index == 2


def test_checkpoints_do_not_change_what_is_found(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECKPOINT_COMMANDS", 10)
    shadow = Shadow(None, 1)
    for entry, sequence in zip(ENTRIES, reference.sequences, strict=True):
        first = shadow.sequence + 1
        assert shadow.apply([entry]) is None
        assert (
            shadow.check_hashes(first, reference.hashes(first, sequence) if first <= sequence else hashes_of([]))
            is None
        )
    assert len(shadow._checkpoint.entries) < 30
    wrong = shadow.check_hashes(shadow.sequence, hashes_of([1]))
    assert wrong == (shadow.sequence, 1)


def hashes_of(values: list[int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


def test_engines_with_equal_states_have_no_differing_records(reference: Reference) -> None:
    first, second = Engine(), Engine(orders=1)
    for _, _, entry in ENTRIES:
        batch = batches.decode(entry)
        for engine in (first, second):
            engine.apply(batch.commands, batch.time_ns, batch.details)
    assert first.differing_records(second, 5) == []
    tick = command(CommandKind.TICK)
    second.apply(tick.records, 0)
    assert [record.table for record in first.differing_records(second, 5)] == ["counters"]
    assert len(Engine().differing_records(first, 3)) == 3
