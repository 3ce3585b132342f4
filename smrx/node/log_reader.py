"""Replay the log on the disk of a stopped node: its commands, trades and events, with their sequences.

Starts from the newest snapshot before what is requested and applies the journal from there. Changes no file. Called by
`smrx log` and by the settlement audit. A node itself restarts with smrx/consensus/restart.py.
"""

import contextlib
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from smrx.config import Config
from smrx.consensus.disk_journal import FILE, DiskJournal, JournalError, check_readable, owner_of
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.membership import is_membership
from smrx.consensus.messages import NO_OP
from smrx.consensus.recovery import MetaError, hold_directory
from smrx.consensus.restart import replay_entries
from smrx.consensus.snapshot_files import FOLDER, STATE, SnapshotError, SnapshotFiles, Stored, verify
from smrx.consensus.storage import LmdbStorage
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import EventKind

#: Capacity of the event and the outcome ring: nothing here reads them.
_RING = 1


class LogReadError(Exception):
    """The log does not hold what is requested; the message is one sentence for the operator."""


class BeforeLogStart(LogReadError):
    """The request is for something before the oldest state on the disk, that of command `sequence`."""

    def __init__(self, sequence: int, match_id: int) -> None:
        self.sequence, self.match_id = sequence, match_id
        super().__init__(
            f"the oldest state on this disk is that of command {sequence} and trade {match_id}; what came before is no "
            "longer on this disk"
        )


class AfterLogEnd(LogReadError):
    """The request is for something after the last entry that this node knew to be committed."""


class ReplayedCommand(NamedTuple):
    """One command with its sequence, its log entry and its outcome. Records as in wire/records.py."""

    sequence: int
    log_index: int
    term: int
    time_ns: int
    command: np.void
    outcome: np.void
    #: The command's details (DETAILS), None if it has none.
    details: np.void | None = None


class ReplayedTrade(NamedTuple):
    """One trade: the TRADE event, as it was published."""

    match_id: int
    sequence: int
    log_index: int
    event: np.void


class LogReader:
    """The journal and the snapshots of one node; made by open_log() and open_node_log()."""

    def __init__(self, journal: MemoryJournal, snapshots: list[Stored], node_id: int) -> None:
        """`snapshots`: the valid ones that the journal continues, oldest first."""
        self.journal = journal
        self.snapshots = snapshots
        self.node_id = node_id
        self._end = journal.getRaftCommitIndex()

    def replay(
        self,
        callback: Callable[[Applied, LogEntry], bool | None],
        starts_before: Callable[[ReplicatedState], bool] = lambda state: True,
    ) -> ReplicatedState:
        """Apply the log from the newest state for which `starts_before` holds and pass each entry to the callback.

        Ends with the last entry known to be committed, or after the first for which the callback returns False. Returns
        the state at that point. Raises LogReadError if there is no state to start from, BeforeLogStart if
        `starts_before` holds for none.
        """
        state, index = self._start(starts_before)

        def apply(entry: LogEntry) -> bool | None:
            command, log_index, term = entry
            state.apply(log_index, term, command)
            return callback(state.take_applied()[0], entry)

        replay_entries(self.journal, index + 1, self._end, apply)
        return state

    def state_after(self, sequence: int, attested: int = 0) -> ReplicatedState:
        """Return the state just after a command, even in the middle of its log entry.

        A node that was killed may not have learned that its last entries are committed. They are taken as committed,
        from this call on, if they lead to `attested`: the state hash that a majority of the nodes claimed after the
        command. Raises BeforeLogStart or AfterLogEnd if the log does not hold the command.
        """
        state, index = self._start(lambda state: state.engine.sequence <= sequence)

        def apply(entry: LogEntry) -> bool:
            # Repeated requests have no sequence, so apply parts of the entry until the command is reached.
            nonlocal index
            batch, start = batches.decode(entry[0]), 0
            while state.engine.sequence < sequence and start < max(1, len(batch.commands)):
                part = batch.commands[start : start + sequence - state.engine.sequence]
                start += max(1, len(part))
                details = batch.details.tobytes()  # all of them, so that the numbers stay
                state.apply(entry[1], entry[2], batches.encode(part.tobytes(), batch.time_ns, 0, 0, details))
                state.take_applied()
            index = entry[1]
            return state.engine.sequence < sequence

        if state.engine.sequence < sequence:
            replay_entries(self.journal, index + 1, self._end, apply)
        known = state.position()[0], state.engine.match_sequence
        if known[0] < sequence and attested:
            replay_entries(self.journal, self._end + 1, self.journal.last_index, apply)
            if state.position() == (sequence, attested):
                self._end = index
                return state
        if known[0] < sequence:
            more = f"; not known to be committed: {self.uncommitted} more" if self.uncommitted else ""
            raise AfterLogEnd(
                f"expected the log of node {self.node_id} to reach command {sequence}, but its committed part ends "
                f"with command {known[0]} and trade {known[1]}{more}"
            )
        return state

    def oldest_state(self) -> tuple[int, bytes | None]:
        """Return the log index of the oldest state on the disk and its bytes, None for that of a new exchange.

        Raises LogReadError if there is none.
        """
        if self.journal.first_index == 1:
            return 1, None
        if not self.snapshots:
            self._start(lambda state: True)
        data = self.snapshots[0].part(STATE)
        assert data is not None
        return self.snapshots[0].log_index, bytes(data)

    def entries_after(self, index: int) -> Iterator[LogEntry]:
        """Yield the entries with commands after a log index, up to the last one known to be committed."""
        for start in range(index + 1, self._end + 1, 1024):
            for entry in self.journal.between(start, min(start + 1023, self._end)):
                if entry[0] != NO_OP and not is_membership(entry[0]):
                    yield entry

    @property
    def uncommitted(self) -> int:
        """The number of entries after the last one known to be committed."""
        later = self.journal.between(self._end + 1, self.journal.last_index)
        return sum(entry[0] != NO_OP for entry in later)

    def _start(self, starts_before: Callable[[ReplicatedState], bool]) -> tuple[ReplicatedState, int]:
        oldest = None
        for stored in reversed(self.snapshots):
            state = _restored(stored)
            if starts_before(state):
                return state, stored.log_index
            oldest = state
        if self.journal.first_index == 1:
            return ReplicatedState(_RING), 1
        if oldest is None:
            raise LogReadError(
                f"the journal starts at log entry {self.journal.first_index}, but no valid snapshot is at that "
                "entry or later"
            )
        raise BeforeLogStart(oldest.engine.sequence, oldest.engine.match_sequence)


def replay_commands(
    log: LogReader, from_seq: int, to_seq: int | None, callback: Callable[[ReplayedCommand], bool | None]
) -> int:
    """Pass commands from_seq..to_seq (None: to the end) to the callback in order; return how many.

    Stops early when the callback returns False. Repeated requests, which get their first answer again, are skipped.
    Raises LogReadError if from_seq is before the oldest state on the disk.
    """
    _check_range(from_seq, to_seq)
    count = newest = 0

    def take(applied: Applied, entry: LogEntry) -> bool:
        nonlocal count, newest
        if applied.sequence < from_seq:
            return True
        batch = batches.decode(entry[0])
        for command, outcome in zip(batch.commands, applied.outcomes, strict=True):
            sequence = int(outcome["sequence"])
            if sequence < from_seq or sequence <= newest:
                continue
            newest = sequence
            if to_seq is not None and sequence > to_seq:
                return False
            count += 1
            # A number of details that the entry does not have is what the engine has refused.
            number = int(command["details"])
            details = batch.details[number - 1] if 0 < number <= len(batch.details) else None
            found = ReplayedCommand(sequence, entry[1], entry[2], batch.time_ns, command, outcome, details)
            if callback(found) is False:
                return False
        return to_seq is None or applied.sequence < to_seq

    log.replay(take, lambda state: state.engine.sequence < from_seq)
    return count


def replay_trades(
    log: LogReader, from_match_id: int, to_match_id: int | None, callback: Callable[[ReplayedTrade], bool | None]
) -> int:
    """Pass trades from_match_id..to_match_id (None: to the end) to the callback in order; return how many.

    Stops early when the callback returns False. Raises LogReadError if the first is before the oldest state.
    """
    _check_range(from_match_id, to_match_id)
    count = 0

    def take(applied: Applied, entry: LogEntry) -> bool:
        nonlocal count
        trades = applied.events[applied.events["kind"] == EventKind.TRADE]
        for event in trades[trades["match_id"] >= from_match_id]:
            match_id = int(event["match_id"])
            if to_match_id is not None and match_id > to_match_id:
                return False
            count += 1
            if callback(ReplayedTrade(match_id, int(event["command_sequence"]), entry[1], event)) is False:
                return False
            if match_id == to_match_id:
                return False
        return True

    log.replay(take, lambda state: state.engine.match_sequence < from_match_id)
    return count


def replay_events(log: LogReader, from_event: int, callback: Callable[[Applied], bool | None]) -> int:
    """Pass each log entry with events from `from_event` on to the callback; return the number of these events.

    Of the first entry, only the events from `from_event` on are passed. Stops early when the callback returns False.
    Raises LogReadError if the first event is before the oldest state on the disk.
    """
    _check_range(from_event, None)
    count = 0

    def take(applied: Applied, entry: LogEntry) -> bool | None:
        nonlocal count
        events = applied.events[applied.events["sequence"] >= from_event]
        count += len(events)
        return callback(applied._replace(events=events)) if len(events) else True

    log.replay(take, lambda state: state.engine.event_sequence < from_event)
    return count


@contextlib.contextmanager
def open_node_log(config: Config, node_id: int) -> Iterator[LogReader]:
    """Open the log of a stopped node of this machine; see open_log()."""
    directory = config.node_dir(node_id)
    if not directory.is_dir():
        raise MetaError(f"{directory}: the data directory of node {node_id} does not exist")
    with open_log(directory, config.cluster, node_id) as log:
        yield log


@contextlib.contextmanager
def open_log(directory: Path, cluster: str, node_id: int | None = None) -> Iterator[LogReader]:
    """Open the log in a node's data directory or in a copy of it; without `node_id`, that of any node.

    Raises MetaError if the node is running or the directory does not exist; StorageError, JournalError or SnapshotError
    for a file that is damaged or belongs to another node. A damaged snapshot is refused even if a node could start from
    another one.
    """
    if not directory.is_dir():
        raise MetaError(f"{directory}: the directory does not exist; expected the data directory of a node")
    path = directory / FILE
    if node_id is None and not path.exists():
        raise MetaError(f"{directory}: there is no {FILE}; expected the data directory of a node with a journal")
    with _held(directory):
        if path.exists():
            check_readable(path)
        storage = LmdbStorage(path, readonly=True)
        try:
            if node_id is None:
                owner = owner_of(storage, path)
                if owner is None:
                    raise JournalError(f"{path}: the journal is empty")
                node_id = owner[1]
            journal = DiskJournal(storage, cluster=cluster, node_id=node_id, joined=False, where=path)
            found, faults = SnapshotFiles(directory / FOLDER, cluster=cluster, node_id=node_id).readable()
            if faults:
                raise faults[0]
            for stored in found:
                verify(stored)
            yield LogReader(journal, [stored for stored in found if stored.log_index >= journal.first_index], node_id)
        finally:
            storage.close()


def _held(directory: Path) -> TextIOWrapper:
    try:
        return hold_directory(directory)
    except MetaError as error:
        raise MetaError(f"{error}; stop the node that runs there first") from None


def load_snapshot(stored: Stored) -> ReplicatedState:
    """Return the state of a snapshot after checking every byte; raises SnapshotError."""
    verify(stored)
    state = _restored(stored)
    if state.position() != (stored.metadata.sequence, int(stored.metadata.state_hash, 16)):
        raise SnapshotError(
            f"{stored.path}: expected the state of command {stored.metadata.sequence} with hash "
            f"{stored.metadata.state_hash}, found command {state.engine.sequence} with hash "
            f"{state.engine.state_hash:016x}"
        )
    return state


def _restored(stored: Stored) -> ReplicatedState:
    state = ReplicatedState(_RING)
    data = stored.part(STATE)
    assert data is not None
    try:
        state.restore(data)
    except ValueError as error:
        raise SnapshotError(f"{stored.path}: the snapshot cannot be restored: {error}") from None
    return state


def _check_range(first: int, last: int | None) -> None:
    if first < 1 or (last is not None and last < first):
        raise LogReadError(
            f"expected a range that starts at 1 or later and does not end before its start, found {first} to {last}"
        )


class LogVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The result of verify_log(). `faults`: the snapshots that differ from the state the log leads to."""

    first_index: int
    last_index: int
    snapshots: int
    sequence: int
    state_hash: int
    trades: int
    uncommitted: int
    faults: tuple[str, ...] = ()


def verify_log(log: LogReader) -> LogVerification:
    """Apply the log from the oldest state on the disk and compare the later snapshots with it."""
    waiting = list(log.snapshots)
    faults: list[str] = []
    position: tuple[int, str] | None = None

    def compare_snapshots(log_index: int) -> None:
        """Compare the snapshots up to this entry with the state the log leads to."""
        while waiting and waiting[0].log_index <= log_index:
            stored = waiting.pop(0)
            found = (stored.metadata.sequence, stored.metadata.state_hash)
            if position is not None and found != position:
                faults.append(
                    f"{stored.path}: the log leads to command {position[0]} with hash {position[1]}, the snapshot "
                    f"holds command {found[0]} with hash {found[1]}"
                )

    def compare(applied: Applied, entry: LogEntry) -> None:
        nonlocal position
        # A snapshot may be at an entry without commands, which is not applied: compare it before the next entry.
        compare_snapshots(applied.log_index - 1)
        position = applied.sequence, f"{applied.state_hash:016x}"

    oldest = log.snapshots[0].metadata.sequence if log.journal.first_index > 1 and waiting else -1
    state = log.replay(compare, lambda state: state.engine.sequence <= oldest)
    compare_snapshots(log.journal.getRaftCommitIndex())
    return LogVerification(
        first_index=log.journal.first_index,
        last_index=log.journal.last_index,
        snapshots=len(log.snapshots),
        sequence=state.engine.sequence,
        state_hash=state.engine.state_hash,
        trades=state.engine.trade_count,
        uncommitted=log.uncommitted,
        faults=tuple(faults),
    )
