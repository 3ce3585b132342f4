"""Restore a node's state from the newest valid snapshot and the journal after it.

Owns the rule which snapshot may be used with which journal, and refuses files that do not fit together. Changes no file
except the journal, and that only if a snapshot is newer. Called once by the node, before its sockets are bound, and by
the tools that read a stopped node's log.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from smrx.consensus.context import StateMachine
from smrx.consensus.disk_journal import JournalError
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.membership import is_membership
from smrx.consensus.messages import NO_OP
from smrx.consensus.recovery import MetaStore
from smrx.consensus.snapshot_files import STATE, SnapshotError, SnapshotFiles, Stored, with_intact_parts
from smrx.consensus.storage import NOTHING_CHANGED, REBUILD

log = logging.getLogger(__name__)


class LocalMachine(StateMachine, Protocol):
    """A machine whose snapshots have parts beside the state, for its own node only."""

    def restore_part(self, name: str, data: memoryview) -> None:
        """Restore one part of a snapshot; raises ValueError, with nothing changed, for invalid data."""
        ...


class Restarted(NamedTuple):
    """The log index that the machine has applied, and the snapshots that may be used."""

    log_index: int
    snapshots: list[Stored]
    snapshot_sequence: int


def replay_entries(journal: MemoryJournal, first: int, last: int, callback: Callable[[LogEntry], bool | None]) -> int:
    """Call the callback with the commands of log entries first..last, in order; return how many.

    Stops after an entry for which the callback returns False. Entries that are no commands are skipped.
    """
    count = 0
    for start in range(first, last + 1, 1024):
        for entry in journal.between(start, min(start + 1023, last)):
            if entry[0] == NO_OP or is_membership(entry[0]):
                continue
            count += 1
            if callback(entry) is False:
                return count
    return count


def restart(
    machine: LocalMachine,
    journal: MemoryJournal,
    meta: MetaStore,
    files: SnapshotFiles,
    *,
    applied: Callable[[], None] = lambda: None,
) -> Restarted:
    """Restore the machine to the last committed entry on disk; `applied` is called from time to time on the way.

    Raises SnapshotError, JournalError, or whatever a machine raises that cannot apply an entry again.
    """
    # In memory mode the log is lost and other members have it, so an old snapshot is useless, except to a node that
    # never had a log: a cluster that is restored.
    usable = _usable_snapshots(files, journal) if journal.persistent or not meta.joined else []
    check_term(journal, meta, str(files.folder.parent))
    if meta.joined:
        files.taken_up()
    elif usable and not files.given:
        # It would count at once, without its votes: only an operator may provide a new node with a state.
        raise SnapshotError(
            f"{files.folder}: expected no snapshots of a node whose term and vote are new, found that of command "
            f"{usable[-1].metadata.sequence}: a file was lost or removed; {REBUILD}"
        )
    if usable:
        _restore(machine, usable[-1])
    newest = usable[-1].metadata if usable else None
    replay_log(machine, journal, meta, None if newest is None else (newest.log_index, newest.log_term), applied=applied)
    return Restarted(journal.applied_index, usable, 0 if newest is None else newest.sequence)


def check_term(journal: MemoryJournal, meta: MetaStore, where: str) -> None:
    """Raise JournalError if the meta data are older than the log."""
    if journal.last_index > 1 and not meta.joined:
        raise JournalError(
            f"{where}: expected term and vote of a node with a log up to entry {journal.last_index}, found those of a "
            f"new one: a file was lost or replaced; {REBUILD}"
        )
    if meta.joined and meta.term < journal.last_term:
        raise JournalError(
            f"{where}: expected term {journal.last_term} or later of a node with entries of that term, found "
            f"{meta.term}: its files are not of one time; {REBUILD}"
        )


def replay_log(
    machine: StateMachine,
    journal: MemoryJournal,
    meta: MetaStore,
    snapshot: tuple[int, int] | None,
    *,
    applied: Callable[[], None] = lambda: None,
) -> None:
    """Apply the committed entries after the snapshot at log entry (index, term), if there is one.

    A log that ends before the snapshot, or contradicts it, is replaced by an empty one after it.
    """
    if snapshot is not None:
        index, term = snapshot
        if journal.last_index < index or journal.term_at(index) != term:
            log.info("the log is replaced by an empty one after the snapshot at entry %d", index)
            # The membership in force there was durable before the snapshot; one that only the log has may be undone.
            journal.install(index, term, meta.membership if meta.membership[1] else None)
            if not meta.joined:
                # An operator provided it before the first start: the state with which a restored cluster starts.
                meta.set_initialized()
                journal.mark_complete()
            if journal.persistent:
                # The next start has a log.
                meta.set_joined()
        journal.applied_index = index
    else:
        journal.applied_index = journal.first_index
    if meta.term < journal.last_term:
        # A restored cluster continues from the term of its snapshot.
        meta.set_term(journal.last_term, None)
    for start in range(journal.applied_index + 1, journal.getRaftCommitIndex() + 1, 64):
        last = min(start + 63, journal.getRaftCommitIndex())
        replay_entries(journal, start, last, lambda entry: machine.apply(entry[1], entry[2], entry[0]))
        journal.applied_index = last
        applied()


def _usable_snapshots(files: SnapshotFiles, journal: MemoryJournal) -> list[Stored]:
    """Return the snapshots that a restart may use, oldest first; raises SnapshotError if one is missing."""
    files.clean()
    found, faults = files.readable()
    usable: list[Stored] = []
    for stored in found:
        try:
            intact, damaged = with_intact_parts(stored)
        except SnapshotError as error:
            faults.append(error)
        else:
            for fault in damaged:
                log.warning("%s; the state beside it is valid and is used without this part", fault)
            if stored.log_index >= journal.first_index:
                usable.append(intact)
    needed = journal.first_index > 1
    if not usable and (needed or (faults and not journal.persistent)):
        missing = f"expected a snapshot at log entry {journal.first_index} or later"
        what = str(faults[-1]) if faults else f"{files.folder}: {missing}, found none"
        raise SnapshotError(f"{what}; {REBUILD}")
    for fault in faults:
        log.warning("%s; it is not used", fault)
    return usable


def _restore(machine: LocalMachine, stored: Stored) -> None:
    state = stored.part(STATE)
    assert state is not None
    try:
        machine.restore(state)
    except ValueError as error:
        # Its checksums are right, so another version is more likely than damage.
        raise SnapshotError(
            f"{stored.path}: the snapshot cannot be used: {str(error).rstrip('.')}; {NOTHING_CHANGED}run the "
            f"version of smrx that wrote it, or {REBUILD.removeprefix(NOTHING_CHANGED)}"
        ) from None
    sequence, state_hash = machine.position()
    if (sequence, f"{state_hash:016x}") != (stored.metadata.sequence, stored.metadata.state_hash):
        raise SnapshotError(
            f"{stored.path}: expected the state of command {stored.metadata.sequence} with hash "
            f"{stored.metadata.state_hash}, found that of command {sequence} with hash {state_hash:016x}; {REBUILD}"
        )
    for part in stored.metadata.parts:
        data = stored.part(part.name) if part.name != STATE else None
        if data is None:
            continue
        try:
            machine.restore_part(part.name, data)
        except ValueError as error:
            # The state is complete without it: peers have the events.
            log.warning(
                "%s: its part %s cannot be used: %s; the node goes on without it", stored.path, part.name, error
            )
