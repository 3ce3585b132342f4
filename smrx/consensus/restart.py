"""How a node begins: with the newest snapshot that is whole, and the journal after it.

Owns the rule which snapshot may be used with which journal, and refuses what does not fit together. Changes no file
but through the journal, and that only where a snapshot is newer than it. Called once by the node, before its sockets
are bound, and by the tools that read a stopped node's log.
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
from smrx.consensus.snapshot_files import STATE, SnapshotError, SnapshotFiles, Stored, verify
from smrx.consensus.storage import REBUILD

log = logging.getLogger(__name__)


class LocalMachine(StateMachine, Protocol):
    """A machine that remembers more than the state, on its own disk only."""

    def restore_part(self, name: str, data: memoryview) -> None:
        """Take over what one of its snapshots has beside the state; raises ValueError for what is none of it."""
        ...


class Restarted(NamedTuple):
    """Where the machine stands now, and what it began with."""

    log_index: int
    snapshots: list[Stored]
    snapshot_sequence: int


def replay_entries(journal: MemoryJournal, first: int, last: int, callback: Callable[[LogEntry], bool | None]) -> int:
    """Hand the callback the log entries first..last, in order; return how many.

    Stops after an entry for which the callback returns False. Entries that are no commands are left out.
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
    """Bring the machine to where the disk can bring it; `applied` is called now and then while entries are applied.

    Raises SnapshotError, JournalError, or ConsensusError of a machine that cannot apply what it once applied.
    """
    # A log in memory is continued by whoever has the rest of it, so that an old snapshot is of no use, but for a node
    # that never had a log: a cluster that is restored.
    usable = _whole(files, journal) if journal.persistent or not meta.joined else []
    check_term(journal, meta, str(files.folder.parent))
    if meta.joined:
        files.taken_up()
    elif usable and not files.given:
        # It would count at once, and remember no vote: nobody but an operator may give a state to a new node.
        raise SnapshotError(
            f"{files.folder}: expected no snapshots of a node whose term and vote are new, found that of command "
            f"{usable[-1].metadata.sequence}: a file was lost or removed; {REBUILD}"
        )
    if usable:
        _take_over(machine, usable[-1])
    newest = usable[-1].metadata if usable else None
    replay_log(machine, journal, meta, None if newest is None else (newest.log_index, newest.log_term), applied=applied)
    return Restarted(journal.applied_index, usable, 0 if newest is None else newest.sequence)


def check_term(journal: MemoryJournal, meta: MetaStore, where: str) -> None:
    """Refuse, with JournalError, a log that term and vote of its node are older than."""
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
    """Bring a machine that took over the snapshot at log entry (index, term), if any, to the end of what is committed.

    A log that does not reach the snapshot, or contradicts it, begins anew after it.
    """
    if snapshot is not None:
        index, term = snapshot
        if journal.last_index < index or journal.term_at(index) != term:
            log.info("the log begins anew after the snapshot at entry %d", index)
            # Who belonged to the cluster by then was noted before the snapshot; what the log says may be undone.
            journal.install(index, term, meta.membership if meta.membership[1] else None)
            if not meta.joined:
                # Given to it before its first start: the state that a cluster which is restored begins with.
                meta.set_initialized()
                journal.mark_complete()
            if journal.persistent:
                # The next start finds a log.
                meta.set_joined()
        journal.applied_index = index
    else:
        journal.applied_index = journal.first_index
    if meta.term < journal.last_term:
        # A cluster that is restored goes on from the term of its snapshot.
        meta.set_term(journal.last_term, None)
    for start in range(journal.applied_index + 1, journal.getRaftCommitIndex() + 1, 64):
        last = min(start + 63, journal.getRaftCommitIndex())
        replay_entries(journal, start, last, lambda entry: machine.apply(entry[1], entry[2], entry[0]))
        journal.applied_index = last
        applied()


def _whole(files: SnapshotFiles, journal: MemoryJournal) -> list[Stored]:
    """The snapshots that a restart may begin with, oldest first; raises SnapshotError if one is needed and none is."""
    files.clean()
    found, faults = files.readable()
    usable: list[Stored] = []
    for stored in found:
        try:
            verify(stored)
        except SnapshotError as error:
            faults.append(error)
        else:
            if stored.log_index >= journal.first_index:
                usable.append(stored)
    needed = journal.first_index > 1
    if not usable and (needed or (faults and not journal.persistent)):
        missing = f"expected a snapshot at log entry {journal.first_index} or later"
        what = str(faults[-1]) if faults else f"{files.folder}: {missing}, found none"
        raise SnapshotError(f"{what}; {REBUILD}")
    for fault in faults:
        log.warning("%s; it is not used", fault)
    return usable


def _take_over(machine: LocalMachine, stored: Stored) -> None:
    state = stored.part(STATE)
    assert state is not None
    try:
        machine.restore(state)
        for part in stored.metadata.parts:
            if part.name != STATE:
                data = stored.part(part.name)
                machine.restore_part(part.name, memoryview(b"") if data is None else data)
    except ValueError as error:
        raise SnapshotError(f"{stored.path}: the snapshot cannot be used: {error}; {REBUILD}") from None
    sequence, state_hash = machine.position()
    if (sequence, f"{state_hash:016x}") != (stored.metadata.sequence, stored.metadata.state_hash):
        raise SnapshotError(
            f"{stored.path}: expected the state of command {stored.metadata.sequence} with hash "
            f"{stored.metadata.state_hash}, found that of command {sequence} with hash {state_hash:016x}; {REBUILD}"
        )
