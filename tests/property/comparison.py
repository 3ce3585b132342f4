"""Compare two state machines on one tape: their answers and their final states, byte for byte.

A difference is reported as text: the command that shows it, both answers, and the tape up to it. Used by the
differential, determinism and deliberate-bug tests.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import EventKind, OutcomeStatus, Reason
from smrx.wire.records import EVENT, EVENT_LAYOUTS
from tests.commands import apply, describe
from tests.property.flow import Tape

#: More levels than any book of the random flow has.
ALL_LEVELS = 1_000


class Machine(Protocol):
    """The common interface of engine and oracle. Their arrays are equal as bytes, or there is a bug."""

    def apply(self, commands: NDArray[np.void], time_ns: int, details: NDArray[np.void] = ...) -> Any: ...
    def content_hash(self) -> int: ...
    def recompute_content_hash(self) -> int: ...
    def check_invariants(self) -> list[str]: ...


M = TypeVar("M", bound=Machine)


class Answers(NamedTuple):
    """Everything a state machine returned for a tape."""

    outcomes: NDArray[np.void]
    events: NDArray[np.void]
    hashes: NDArray[np.uint64]


def run(machine: M, tape: Tape, *, restore: bool = False) -> tuple[M, Answers]:
    """Apply a tape; with `restore`, restore the state machine from its own snapshot where the tape says so."""
    results = []
    for batch in tape.batches:
        results.append(apply(machine, batch.commands, batch.time_ns))
        if restore and batch.restore_after:
            machine = restored(machine)
    return machine, joined(results)


def joined(results: Sequence[Any]) -> Answers:
    """Return the answers of several calls of apply as those of one."""
    return Answers(*(np.concatenate([getattr(result, name) for result in results]) for name in Answers._fields))


def first_difference(machine: Machine, tape: Tape, expected: Answers) -> str | None:
    """Return what `difference` reports of a state machine; no batch after the first different one is applied."""
    results = []
    commands = events = 0
    for number, batch in enumerate(tape.batches, 1):
        results.append(apply(machine, batch.commands, batch.time_ns))
        commands += len(batch.commands.records)
        events += len(results[-1].events)
        prefix = Answers(expected.outcomes[:commands], expected.events[:events], expected.hashes[:commands])
        is_last = number == len(tape.batches)
        report = difference(Tape(tape.batches[:number], tape.rules), expected if is_last else prefix, joined(results))
        if report:
            return report
    return None


def restored(machine: M) -> M:
    """Return the state machine restored from its snapshot; it must give the same snapshot again."""
    source: Any = machine
    data = source.snapshot()
    again: Any = type(source).restore(data)
    assert again.snapshot() == data, "the snapshot of a restored machine differs from the one it was made of"
    return cast(M, again)


def difference(tape: Tape, expected: Answers, found: Answers) -> str | None:
    """Return a report of the first command that two state machines answer differently; None if there is none."""
    if _bytes(expected) == _bytes(found):
        return None
    records, details = tape.commands
    for index, record in enumerate(records):
        if _raw(expected, index) != _raw(found, index):
            lines = [f"command {index} is answered differently: {describe(record, details)}"]
            for name, answers in (("expected", expected), ("found", found)):
                lines += [f"  {name}:", *(f"    {line}" for line in _answer(answers, index))]
            return "\n".join([*lines, "the tape:", tape.text(index + 1)])
    return "the answers are of different lengths or types"


def _raw(answers: Answers, index: int) -> list[bytes]:
    """Return outcome, hash and events of one command as bytes."""
    if index >= min(len(answers.outcomes), len(answers.hashes)):
        return []
    return [part.tobytes() for part in (answers.outcomes[index], answers.hashes[index], _events(answers, index))]


def _events(answers: Answers, index: int) -> NDArray[np.void]:
    sequence = answers.outcomes[index]["sequence"]
    events: NDArray[np.void] = answers.events[answers.events["command_sequence"] == sequence]
    return events if sequence else events[:0]


def _bytes(answers: Answers) -> list[tuple[str, bytes]]:
    return [(str(array.dtype), array.tobytes()) for array in answers]


def _answer(answers: Answers, index: int) -> list[str]:
    """Return outcome, hash and events of one command as text that shows every field."""
    if index >= min(len(answers.outcomes), len(answers.hashes)):
        return ["no answer"]
    outcome = answers.outcomes[index]
    return [
        f"OUTCOME {OutcomeStatus(int(outcome['status'])).name} {fields_text(outcome)}",
        *(f"EVENT {event_text(event)}" for event in _events(answers, index)),
        f"HASH {int(answers.hashes[index]):016x}",
    ]


def event_text(record: np.void) -> str:
    """Return an event's fields that are not 0, in the names of its kind."""
    kind = int(record["kind"])
    layout = EVENT_LAYOUTS[EventKind(kind)] if kind in set(EventKind) else EVENT
    return fields_text(np.frombuffer(record.tobytes(), layout)[0])


def fields_text(record: np.void) -> str:
    """Return a record's fields that are not 0, enumerations by name."""
    enums: dict[str, Any] = {"kind": EventKind, "event_kind": EventKind, "reason": Reason}
    parts = []
    for name in record.dtype.names or ():
        value = record[name].item()
        if value:
            known = enums.get(name)
            parts.append(f"{name}={known(value).name if known and value in set(known) else value}")
    return " ".join(parts)


def state_differences(expected: Any, found: Any) -> list[str]:
    """Return one line for each part of the state in which two machines differ."""
    differences = [
        f"{name}: expected {getattr(expected, name)}, found {getattr(found, name)}"
        for name in ("sequence", "event_sequence", "match_sequence", "time_ns", "state_hash", "trade_count")
        if getattr(expected, name) != getattr(found, name)
    ]
    content_hashes = {expected.content_hash(), found.content_hash(), found.recompute_content_hash()}
    if len(content_hashes) != 1:
        differences.append(f"content hashes differ: {[f'{value:016x}' for value in sorted(content_hashes)]}")
    for table in ("accounts", "assets", "instruments", "sessions", "balances", "orders", "credentials"):
        differences += _table_differences(table, getattr(expected.inspect, table)(), getattr(found.inspect, table)())
    for instrument in expected.inspect.instruments()["instrument"]:
        books = [machine.inspect.depth(int(instrument), ALL_LEVELS) for machine in (expected, found)]
        if _plain(books[0]) != _plain(books[1]):
            differences.append(f"book {instrument}: expected {books[0]}, found {books[1]}")
    for account in expected.inspect.accounts()["account"]:
        owned = [[tuple(row) for row in machine.inspect.positions(int(account))] for machine in (expected, found)]
        if owned[0] != owned[1]:
            differences.append(f"positions of {account}: expected {owned[0]}, found {owned[1]}")
    differences += [f"invariant of the expected: {broken}" for broken in expected.check_invariants()]
    if expected.inspect.killed != found.inspect.killed:
        differences.append(f"kill switch: expected {expected.inspect.killed}, found {found.inspect.killed}")
    return differences + [f"invariant: {broken}" for broken in found.check_invariants()]


def _plain(depth: Any) -> Any:
    return [[tuple(int(number) for number in level) for level in side] for side in depth]


def _table_differences(table: str, expected: NDArray[np.void], found: NDArray[np.void]) -> list[str]:
    """Return the rows, by the columns of the expected table, that only one table has."""
    names = expected.dtype.names or ()
    rows: Sequence[list[tuple[Any, ...]]] = [
        [tuple(row[name].item() for name in names) for row in array] for array in (expected, found)
    ]
    if rows[0] == rows[1]:
        return []
    missing = sorted(set(rows[0]) - set(rows[1]))
    extra = sorted(set(rows[1]) - set(rows[0]))
    return [f"{table} {names}: missing {missing}, unexpected {extra}, or in another order"]
