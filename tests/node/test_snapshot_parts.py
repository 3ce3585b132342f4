"""The part of a node's snapshot beside the state, the newest events, and what is refused."""

from typing import Any

import numpy as np
import pytest

from smrx.node.replicated_state import ReplicatedState
from smrx.wire.codes import OutcomeStatus
from smrx.wire.record_schema import file_pieces, file_records
from smrx.wire.records import EVENT
from tests.node.test_replicated_state import deposit_entry, machine_after


def parts_of(state: ReplicatedState) -> dict[str, bytes]:
    return {name: b"".join(pieces) for name, pieces in state.snapshot_parts().items()}


def restored_from(parts: dict[str, bytes]) -> ReplicatedState:
    state = ReplicatedState(1024)
    state.restore(parts["state"])
    state.restore_part("events", memoryview(parts["events"]))
    return state


def test_restored_parts_answer_as_before() -> None:
    whole = machine_after(4)
    again = restored_from(parts_of(whole))
    assert (again.events.oldest, again.events.newest) == (whole.events.oldest, whole.events.newest)
    assert parts_of(again) == parts_of(whole)
    for state in (whole, again):
        state.take_applied()
        state.apply(7, 1, deposit_entry(5))
    [first], [second] = whole.take_applied(), again.take_applied()
    # A repeated request gets its first answer from the state.
    assert first.outcomes.tobytes() == second.outcomes.tobytes()
    assert second.outcomes["status"].tolist() == [OutcomeStatus.ACCEPTED]


def test_part_with_added_fields_is_converted() -> None:
    """The next version's parts: a field more, at its default."""
    parts = parts_of(machine_after(4))
    rows = file_records(parts["events"], "events", EVENT)
    more = np.dtype([("added", "<u4"), *((field, EVENT[field]) for field in EVENT.names or ())])
    newer = np.zeros(len(rows), more)
    for field in EVENT.names or ():
        newer[field] = rows[field]
    parts["events"] = b"".join(file_pieces("events", newer))
    assert parts_of(restored_from(parts)) == parts_of(machine_after(4))


def _with_sequence(data: bytes, name: str, dtype: Any, row: int, value: int) -> bytes:
    rows = file_records(data, name, dtype).copy()
    rows["sequence"][row] = value
    return b"".join(file_pieces(name, rows))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("events", lambda data: b"", "expected a file of records, found 0 bytes"),
        ("events", lambda data: b"PK" + data[2:], "one that begins with"),
        ("events", lambda data: data[:8] + b"\x09" + data[9:], "expected format 1, found 9"),
        ("events", lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "expected 1 to 4096 fields"),
        ("events", lambda data: data[:20] + b"\0" + data[21:], "name"),
        ("events", lambda data: data[:-1], "expected records of"),
        ("events", lambda data: _with_sequence(data, "events", EVENT, -1, 3), "the state ends with event"),
        ("events", lambda data: _with_sequence(data, "events", EVENT, 1, 99), "found event 99"),
    ],
)
def test_damaged_part_is_refused_and_changes_nothing(name: str, damage: Any, expected: str) -> None:
    parts = parts_of(machine_after(4))
    state = ReplicatedState(1024)
    state.restore(parts["state"])
    before = parts_of(state)
    with pytest.raises(ValueError, match=expected):
        state.restore_part(name, memoryview(damage(parts[name])))
    assert parts_of(state) == before
