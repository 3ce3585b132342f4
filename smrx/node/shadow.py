"""Apply the log of a cluster with this program and find the first command whose result differs.

Two comparisons: every state hash with that of a node of the cluster; and, to try another version of the rules, every
outcome and event of the log's rules with those of the other version, both applied here. Owns its states and the
entries since a checkpoint, from which the command and the states just after it are found. No sockets, no clock:
shadow_source.py reads the log from a node or a disk. Called by `smrx shadow`.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.consensus.context import UnknownRules
from smrx.engine import Engine, Result, RulesError
from smrx.node.replicated_state import ReplicatedState
from smrx.wire import batches
from smrx.wire.batches import Batch
from smrx.wire.record_names import named_command, named_event, named_outcome

#: (log index, term, entry)
Entry = tuple[int, int, bytes]

#: Commands after which the state is saved, so that the search for a command applies no more than these again.
_CHECKPOINT_COMMANDS: Final = 200_000
#: Differing records that a report shows.
MAX_RECORDS: Final = 100
_RING: Final = 1


class RecordReport(msgspec.Struct, frozen=True):
    """A record that differs: field -> its values, expected and found; None in a state without the record."""

    table: str
    key: tuple[int, ...]
    fields: dict[str, tuple[int | None, int | None]]


class Difference(msgspec.Struct, kw_only=True):
    """The first difference: the command, what both sides made of it, and the records that differ after it.

    `expected` is the cluster's side or the log's rules, `found` this program's side or the other rules: state hash,
    outcome and events, as far as they are known. `records_at` is the command after which the records were compared,
    None if they could not be.
    """

    sequence: int
    #: The last command after which both sides were compared and equal.
    equal_until: int
    log_index: int
    command: dict[str, Any]
    expected: dict[str, Any]
    found: dict[str, Any]
    records_at: int | None = None
    records: list[RecordReport] = []


class _Checkpoint(NamedTuple):
    """A saved state, and the entries applied since."""

    state: bytes
    entries: list[Entry]


class Shadow:
    """The states of this program along the log."""

    def __init__(self, data: bytes | None, log_index: int, rules: int | None = None) -> None:
        """Start with the state after a log entry, that of a new exchange if `data` is None.

        `rules`: also apply this version of the rules and compare it. Raises ValueError for an unusable state;
        UnknownRules.
        """
        self.log_index = log_index
        self._rules = rules
        self._state = _restored(data)
        self._first_rules = self._state.rules().in_force
        self._other = None if rules is None else _assuming(self._state, rules)
        #: The last command that was compared, and how many before it were not: see resume().
        self.compared = self.sequence
        self.skipped = 0
        self._save()

    def resume(self, data: bytes | None, log_index: int) -> None:
        """Continue with a later state: the log up to it is gone, and its commands are not compared."""
        before = self.sequence
        self._state = _restored(data)
        self.log_index = log_index
        self.skipped += max(0, self.sequence - before)
        if self._rules is not None and not self.has_switched:
            self._other = _assuming(self._state, self._rules)
        self._save()

    @property
    def sequence(self) -> int:
        """The last command applied."""
        return self._state.position()[0]

    @property
    def state_hash(self) -> int:
        """The state hash after it."""
        return self._state.position()[1]

    @property
    def has_switched(self) -> bool:
        """Whether the log itself has changed the rules, which ends a comparison with another version."""
        return self._rules is not None and self._state.rules().in_force != self._first_rules

    def apply(self, entries: Sequence[Entry]) -> Difference | None:
        """Apply entries; with other rules, return the first difference of the two versions."""
        for entry in entries:
            before = self.sequence
            self._checkpoint.entries.append(entry)
            log_index, term, data = entry
            self._state.apply(log_index, term, data)
            applied = self._state.take_applied()[0]
            self.log_index = log_index
            self._commands_since += self.sequence - before
            if self.has_switched:
                return None
            if self._other is not None:
                batch = batches.decode(data)
                other = _apply(self._other, batch)
                same = [applied.outcomes.tobytes(), applied.events.tobytes()]
                if same != [other.outcomes.tobytes(), other.events.tobytes()]:
                    return self._first_rule_difference()
                self.compared = self.sequence
        return None

    def check_hashes(self, first: int, hashes: NDArray[np.uint64]) -> tuple[int, int] | None:
        """Compare hashes of the cluster from command `first` on; return the first (sequence, its hash) that differs."""
        last = min(self.sequence, first + len(hashes) - 1)
        if last < first:
            return None
        own = self._state.hashes_between(first, last)
        if own is None:
            raise ValueError(f"expected the state hashes after commands {first} to {last}, which are no longer kept")
        expected = hashes[: last - first + 1]
        differs = np.flatnonzero(np.array(own, np.uint64) != expected)
        if len(differs):
            at = int(differs[0])
            if at and self._other is None:
                self.compared = first + at - 1
            return first + at, int(expected[at])
        if self._other is None:
            self.compared = last
        if last == self.sequence and self._commands_since >= _CHECKPOINT_COMMANDS:
            self._save()
        return None

    def hash_difference(self, sequence: int, expected: int) -> Difference:
        """Return the difference at a command whose hash in the cluster is `expected`, without records."""
        engine = _restored(self._checkpoint.state).engine
        for log_index, _, data in self._checkpoint.entries:
            batch = batches.decode(data)
            for at in range(len(batch.commands)):
                result = _apply_one(engine, batch, at)
                if engine.sequence == sequence:
                    return Difference(
                        sequence=sequence,
                        equal_until=self.compared,
                        log_index=log_index,
                        command=_shown(named_command(batch.commands[at], _details_of(batch, at))),
                        expected={"state_hash": f"{expected:016x}"},
                        found=_described(result),
                    )
        raise ValueError(f"expected command {sequence} among the entries since the checkpoint")

    def compare_records(self, difference: Difference, data: bytes) -> None:
        """Add the records that differ between a state of the cluster, after the last entry applied, and this one."""
        theirs = _restored(data)
        if theirs.position()[0] != self.sequence:
            raise ValueError(f"expected the state after command {self.sequence}, found {theirs.position()[0]}")
        _add_records(difference, theirs.engine, self._state.engine)

    def _first_rule_difference(self) -> Difference:
        """Return the first command of the last entry that the two versions answer differently, and both states."""
        *earlier, (log_index, _, data) = self._checkpoint.entries
        state = _restored(self._checkpoint.state)
        ours = state.engine
        theirs = self._other_checkpoint_engine()
        for _, _, entry in earlier:
            batch = batches.decode(entry)
            _apply(ours, batch)
            _apply(theirs, batch)
        batch = batches.decode(data)
        for at in range(len(batch.commands)):
            expected, found = _apply_one(ours, batch, at), _apply_one(theirs, batch, at)
            if (expected.outcomes.tobytes(), expected.events.tobytes()) != (
                found.outcomes.tobytes(),
                found.events.tobytes(),
            ):
                difference = Difference(
                    sequence=ours.sequence,
                    equal_until=ours.sequence - 1,
                    log_index=log_index,
                    command=_shown(named_command(batch.commands[at], _details_of(batch, at))),
                    expected=_described(expected),
                    found=_described(found),
                )
                _add_records(difference, ours, theirs)
                return difference
        raise ValueError(f"expected a difference in log entry {log_index}")

    def _save(self) -> None:
        self._checkpoint = _Checkpoint(self._state.snapshot(), [])
        self._other_saved = None if self._other is None else self._other.snapshot()
        self._commands_since = 0

    def _other_checkpoint_engine(self) -> Engine:
        assert self._other_saved is not None
        return Engine.restore(self._other_saved)


def _restored(data: bytes | None) -> ReplicatedState:
    state = ReplicatedState(_RING)
    if data is not None:
        state.restore(data)
    return state


def _assuming(state: ReplicatedState, rules: int) -> Engine:
    """Return an engine with the same state that applies another version of the rules."""
    engine = Engine.restore(state.engine.snapshot())
    try:
        engine.assume_rules(rules)
    except RulesError:
        own = state.rules()
        raise UnknownRules(
            f"this program applies versions {own.oldest} to {own.newest} of the rules, not version {rules}"
        ) from None
    return engine


def _apply(engine: Engine, batch: Batch) -> Result:
    return engine.apply(batch.commands, batch.time_ns, batch.details)


def _apply_one(engine: Engine, batch: Batch, at: int) -> Result:
    """Apply one command of a batch."""
    return engine.apply(batch.commands[at : at + 1], batch.time_ns, batch.details)


def _add_records(difference: Difference, expected: Engine, found: Engine) -> None:
    difference.records_at = expected.sequence
    difference.records = [RecordReport(*record) for record in expected.differing_records(found, MAX_RECORDS)]


def _details_of(batch: Batch, at: int) -> np.void | None:
    """Return the details that a command of a batch names, None if there are none."""
    number = int(batch.commands["details"][at])
    return batch.details[number - 1] if 0 < number <= len(batch.details) else None


def _described(result: Any) -> dict[str, Any]:
    """Return the result of one command."""
    return {
        "state_hash": f"{int(result.hashes[0]):016x}",
        "outcome": _shown(named_outcome(result.outcomes[0])),
        "events": [_shown(named_event(event)) for event in result.events],
    }


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that are set."""
    return {name: value for name, value in record.items() if value}
