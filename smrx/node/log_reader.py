"""What the disk of a stopped node remembers: its commands and trades again, in order, with the numbers they had.

Owns the way from snapshots and journal to commands and trades: the state machine does all of it once more, beginning
with the newest snapshot that lies before what is asked for. Changes no file. Called by `smrx log` and by whoever wants
the past of a node; a node itself restarts with the same entries (smrx/consensus/restart.py).
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
from smrx.consensus.messages import NO_OP
from smrx.consensus.recovery import MetaError, hold_directory
from smrx.consensus.restart import replay_entries
from smrx.consensus.snapshot_files import FOLDER, STATE, SnapshotError, SnapshotFiles, Stored, verify
from smrx.consensus.storage import LmdbStorage
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import EventKind

#: Nothing here needs what a node remembers for others.
_RING = 1


class LogReadError(Exception):
    """What is asked for is not there; the message is one sentence for the operator."""


class BeforeLogStart(LogReadError):
    """What is asked for came before everything this disk remembers: command `sequence` and trade `match_id`."""

    def __init__(self, sequence: int, match_id: int) -> None:
        self.sequence, self.match_id = sequence, match_id
        super().__init__(
            f"expected an earlier state to begin with, found that of command {sequence} and trade {match_id} as the "
            "oldest; what came before is no longer on this disk"
        )


class AfterLogEnd(LogReadError):
    """What is asked for came after everything this node knew to be committed."""


class ReplayedCommand(NamedTuple):
    """One command with its number, the log entry it came in, and what came of it. Records as in wire/records.py."""

    sequence: int
    log_index: int
    term: int
    time_ns: int
    command: np.void
    outcome: np.void


class ReplayedTrade(NamedTuple):
    """One trade: the TRADE event, as it was published."""

    match_id: int
    sequence: int
    log_index: int
    event: np.void


class LogReader:
    """The journal and the snapshots of one node; see open_node_log()."""

    def __init__(self, journal: MemoryJournal, snapshots: list[Stored], node_id: int) -> None:
        """`snapshots`: those that are whole and that the journal continues, oldest first."""
        self.journal = journal
        self.snapshots = snapshots
        self.node_id = node_id
        self._end = journal.getRaftCommitIndex()

    def replay(
        self,
        callback: Callable[[Applied, LogEntry], bool | None],
        starts_before: Callable[[ReplicatedState], bool] = lambda machine: True,
    ) -> ReplicatedState:
        """Apply the log again from the newest state for which `starts_before` holds, handing over each entry applied.

        Ends with the last entry that is known to be committed, or after the first for which the callback returns False;
        returns the machine as it is then. Raises LogReadError if there is no state, BeforeLogStart if every one is too
        late.
        """
        machine, index = self._beginning(starts_before)

        def apply(entry: LogEntry) -> bool | None:
            command, log_index, term = entry
            machine.apply(log_index, term, command)
            return callback(machine.take_applied()[0], entry)

        replay_entries(self.journal, index + 1, self._end, apply)
        return machine

    def state_after(self, sequence: int, attested: int = 0) -> ReplicatedState:
        """The machine just after a command, even where its log entry goes on.

        A node that was killed did not learn of its last entries that they are committed. They count, here and from
        here on, if they lead to `attested`: the state hash that a majority of the nodes claimed after the command.
        Raises BeforeLogStart if the disk no longer reaches back to the command, AfterLogEnd if it does not reach it.
        """
        machine, index = self._beginning(lambda machine: machine.engine.sequence <= sequence)

        def apply(entry: LogEntry) -> bool:
            # Repeated requests take no sequence, so that the entry is cut again until the command has come.
            nonlocal index
            batch, start = batches.decode(entry[0]), 0
            while machine.engine.sequence < sequence and start < max(1, len(batch.commands)):
                part = batch.commands[start : start + sequence - machine.engine.sequence]
                start += max(1, len(part))
                machine.apply(entry[1], entry[2], batches.encode(part.tobytes(), batch.time_ns, 0, 0))
                machine.take_applied()
            index = entry[1]
            return machine.engine.sequence < sequence

        if machine.engine.sequence < sequence:
            replay_entries(self.journal, index + 1, self._end, apply)
        known = machine.position()[0], machine.engine.match_sequence
        if known[0] < sequence and attested:
            replay_entries(self.journal, self._end + 1, self.journal.last_index, apply)
            if machine.position() == (sequence, attested):
                self._end = index
                return machine
        if known[0] < sequence:
            more = f" ({self.uncommitted} entries more, of which it did not learn so)" if self.uncommitted else ""
            raise AfterLogEnd(
                f"expected the log of node {self.node_id} to reach command {sequence}, found that what it knew to be "
                f"committed ends with command {known[0]} and trade {known[1]}{more}"
            )
        return machine

    @property
    def uncommitted(self) -> int:
        """Entries that follow the last one that is known to be committed."""
        later = self.journal.between(self._end + 1, self.journal.last_index)
        return sum(entry[0] != NO_OP for entry in later)

    def _beginning(self, starts_before: Callable[[ReplicatedState], bool]) -> tuple[ReplicatedState, int]:
        oldest = None
        for stored in reversed(self.snapshots):
            machine = _restored(stored)
            if starts_before(machine):
                return machine, stored.log_index
            oldest = machine
        if self.journal.first_index == 1:
            return ReplicatedState(_RING, _RING), 1
        if oldest is None:
            raise LogReadError(
                f"expected a snapshot at log entry {self.journal.first_index} or later, where the journal begins, "
                "found none that is whole"
            )
        raise BeforeLogStart(oldest.engine.sequence, oldest.engine.match_sequence)


def replay_commands(
    history: LogReader, from_seq: int, to_seq: int | None, callback: Callable[[ReplayedCommand], bool | None]
) -> int:
    """Hand the callback commands from_seq..to_seq (None: to the end) in order; return how many.

    Stops early when the callback returns False. Requests that were repeated have no sequence and are left out. Raises
    LogReadError if the disk no longer reaches back to from_seq.
    """
    _check_range(from_seq, to_seq)
    count = 0

    def take(applied: Applied, entry: LogEntry) -> bool:
        nonlocal count
        if applied.sequence < from_seq:
            return True
        batch = batches.decode(entry[0])
        for command, outcome in zip(batch.commands, applied.outcomes, strict=True):
            sequence = int(outcome["sequence"])
            if sequence < from_seq:
                continue
            if to_seq is not None and sequence > to_seq:
                return False
            count += 1
            if callback(ReplayedCommand(sequence, entry[1], entry[2], batch.time_ns, command, outcome)) is False:
                return False
        return to_seq is None or applied.sequence < to_seq

    history.replay(take, lambda machine: machine.engine.sequence < from_seq)
    return count


def replay_trades(
    history: LogReader, from_match_id: int, to_match_id: int | None, callback: Callable[[ReplayedTrade], bool | None]
) -> int:
    """Hand the callback trades from_match_id..to_match_id (None: to the end) in order; return how many.

    Stops early when the callback returns False. Raises LogReadError if the disk no longer reaches back to the first.
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

    history.replay(take, lambda machine: machine.engine.match_sequence < from_match_id)
    return count


def replay_events(history: LogReader, from_event: int, callback: Callable[[Applied], bool | None]) -> int:
    """Hand the callback log entries as they are applied, from event `from_event` on; return how many events.

    Entries without such events are left out, and so are the earlier events of the first one. Stops early when the
    callback returns False. Raises LogReadError if the disk no longer reaches back to the first.
    """
    _check_range(from_event, None)
    count = 0

    def take(applied: Applied, entry: LogEntry) -> bool | None:
        nonlocal count
        events = applied.events[applied.events["sequence"] >= from_event]
        count += len(events)
        return callback(applied._replace(events=events)) if len(events) else True

    history.replay(take, lambda machine: machine.engine.event_sequence < from_event)
    return count


@contextlib.contextmanager
def open_node_log(config: Config, node_id: int) -> Iterator[LogReader]:
    """What the disk of a node of this machine that does not run remembers; see open_log()."""
    directory = config.node_dir(node_id)
    if not directory.is_dir():
        raise MetaError(f"{directory}: expected the data directory of node {node_id}, found none")
    with open_log(directory, config.cluster, node_id) as history:
        yield history


@contextlib.contextmanager
def open_log(directory: Path, cluster: str, node_id: int | None = None) -> Iterator[LogReader]:
    """What a node's data directory, or a copy of it, remembers; of whichever node it is, if none is named.

    Raises MetaError if the node runs or there is no such directory, StorageError, JournalError or SnapshotError for
    what is damaged or another's. A damaged snapshot is refused although a node could begin with another one.
    """
    if not directory.is_dir():
        raise MetaError(f"{directory}: expected the data directory of a node, found none")
    path = directory / FILE
    if node_id is None and not path.exists():
        raise MetaError(f"{directory}: expected the data directory of a node with a journal, found no {FILE} in it")
    with _held(directory):
        if path.exists():
            check_readable(path)
        storage = LmdbStorage(path, readonly=True)
        try:
            if node_id is None:
                owner = owner_of(storage, path)
                if owner is None:
                    raise JournalError(f"{path}: expected the journal of a node, found an empty one")
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
    """The machine as it was, every byte checked; raises SnapshotError."""
    verify(stored)
    machine = _restored(stored)
    if machine.position() != (stored.metadata.sequence, int(stored.metadata.state_hash, 16)):
        raise SnapshotError(
            f"{stored.path}: expected the state of command {stored.metadata.sequence} with hash "
            f"{stored.metadata.state_hash}, found that of command {machine.engine.sequence} with hash "
            f"{machine.engine.state_hash:016x}"
        )
    return machine


def _restored(stored: Stored) -> ReplicatedState:
    machine = ReplicatedState(_RING, _RING)
    state = stored.part(STATE)
    assert state is not None
    try:
        machine.restore(state)
    except ValueError as error:
        raise SnapshotError(f"{stored.path}: the snapshot cannot be used: {error}") from None
    return machine


def _check_range(first: int, last: int | None) -> None:
    if first < 1 or (last is not None and last < first):
        raise LogReadError(
            f"expected a range that begins with 1 or more and does not end before, found {first} to {last}"
        )


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What verify_log() found. `faults`: snapshots that are not the state the log leads to."""

    first_index: int
    last_index: int
    snapshots: int
    sequence: int
    state_hash: int
    trades: int
    uncommitted: int
    faults: tuple[str, ...] = ()


def verify_log(history: LogReader) -> Verified:
    """Apply everything again from the oldest state there is, and hold the later snapshots against it."""
    waiting = list(history.snapshots)
    faults: list[str] = []
    position: tuple[int, str] | None = None

    def settle(log_index: int) -> None:
        """Compare the snapshots up to this entry with where the log has led so far."""
        while waiting and waiting[0].log_index <= log_index:
            stored = waiting.pop(0)
            found = (stored.metadata.sequence, stored.metadata.state_hash)
            if position is not None and found != position:
                faults.append(
                    f"{stored.path}: expected the state of command {position[0]} with hash {position[1]}, to which the "
                    f"log leads, found that of command {found[0]} with hash {found[1]}"
                )

    def compare(applied: Applied, entry: LogEntry) -> None:
        nonlocal position
        # A snapshot may stand at an entry that only marks a term: it is compared before the next one.
        settle(applied.log_index - 1)
        position = applied.sequence, f"{applied.state_hash:016x}"

    oldest = history.snapshots[0].metadata.sequence if history.journal.first_index > 1 and waiting else -1
    machine = history.replay(compare, lambda machine: machine.engine.sequence <= oldest)
    settle(history.journal.getRaftCommitIndex())
    return Verified(
        first_index=history.journal.first_index,
        last_index=history.journal.last_index,
        snapshots=len(history.snapshots),
        sequence=machine.engine.sequence,
        state_hash=machine.engine.state_hash,
        trades=machine.engine.trade_count,
        uncommitted=history.uncommitted,
        faults=tuple(faults),
    )
