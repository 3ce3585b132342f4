"""The disk journal: after a power loss at any step it has every synced entry, and none that was not written."""

import random
from collections.abc import Iterator

import pytest

from smrx.consensus.disk_journal import (
    DELETED_A_SYNC,
    IDENTITY_KEY,
    STATE_KEY,
    DiskJournal,
    JournalError,
    decode_entry,
    encode_entry,
    entry_key,
)
from smrx.consensus.journal import LogEntry
from smrx.consensus.storage import StorageFull
from tests.consensus.harness import ENTRY_HEAD
from tests.consensus.model_disk import Crash, ModelStorage, Platter


def opened(platter: Platter, kind: type[DiskJournal] = DiskJournal, **options: object) -> DiskJournal:
    return kind(ModelStorage(platter), **{"cluster": "alpha", "node_id": 1, "joined": False} | options)  # type: ignore[arg-type]


def filled(platter: Platter, entries: int = 10, term: int = 3) -> DiskJournal:
    journal = opened(platter)
    for index in range(2, entries + 2):
        journal.add(b"\0\1%d" % index, index, term)
    journal.sync()
    return journal


def after_base(journal: DiskJournal) -> tuple[int, int, list[LogEntry]]:
    """What a log means: its base, and what follows it. The base's own command is gone after a restart."""
    return journal.first_index, journal[0][2], journal[1:]


def test_log_is_equal_after_restart() -> None:
    platter = Platter()
    journal = filled(platter)
    journal.setRaftCommitIndex(7)
    journal.add(b"\0\1last", 12, 4)
    journal.sync()
    again = opened(platter)
    assert after_base(again) == after_base(journal)
    assert (again.getRaftCommitIndex(), again.last_term, again.size_bytes) == (7, 4, journal.size_bytes)


def test_only_synced_entries_survive_a_crash() -> None:
    platter = Platter()
    journal = filled(platter)
    journal.add(b"\0\1lost", 12, 3)
    assert opened(platter).last_index == 11


def test_sync_without_changes_does_not_write() -> None:
    platter = Platter()
    journal = filled(platter)
    platter.full = True
    journal.setRaftCommitIndex(9)
    journal.sync()


def test_full_disk_raises_and_loses_nothing() -> None:
    platter = Platter()
    journal = filled(platter)
    platter.full = True
    journal.add(b"\0\1more", 12, 3)
    with pytest.raises(StorageFull):
        journal.sync()
    assert opened(platter).last_index == 11


def test_compaction_deletes_a_few_entries_with_each_sync() -> None:
    platter = Platter()
    journal = filled(platter, 300)
    journal.compact(290)
    journal.sync()
    left = sum(key.startswith(b"e") for key in platter.records)
    assert 300 - DELETED_A_SYNC - 1 <= left < 300
    for index in range(302, 312):
        journal.add(ENTRY_HEAD, index, 3)
        journal.sync()
    assert [key for key in platter.records if key.startswith(b"e")] == [entry_key(i) for i in range(291, 312)]
    assert after_base(opened(platter)) == after_base(journal)


def test_next_start_deletes_entries_below_the_base() -> None:
    platter = Platter()
    journal = filled(platter, 300)
    journal.compact(290)
    journal.sync()
    journal = opened(platter)
    for index in range(302, 312):
        journal.add(ENTRY_HEAD, index, 3)
        journal.sync()
    assert min(key for key in platter.records if key.startswith(b"e")) == entry_key(291)


def test_snapshot_that_contradicts_log_replaces_it() -> None:
    platter = Platter()
    journal = filled(platter)
    journal.install(40, 9)
    journal.sync()
    again = opened(platter)
    assert after_base(again) == (40, 9, [])
    assert again.getRaftCommitIndex() == 40
    assert not [key for key in platter.records if key.startswith(b"e")]


def test_snapshot_keeps_entries_that_follow_it() -> None:
    platter = Platter()
    journal = filled(platter)
    journal.install(5, 3)
    journal.sync()
    assert after_base(opened(platter)) == (5, 3, journal.between(6, 11))


def test_new_log_of_joined_node_is_incomplete_until_marked() -> None:
    platter = Platter()
    assert opened(platter, joined=True).may_lack_entries
    journal = opened(platter, joined=True)
    journal.add(ENTRY_HEAD, 2, 1)
    journal.sync()
    assert opened(platter, joined=True).may_lack_entries, "a restart half way does not make the log whole"
    journal.mark_complete()
    journal.sync()
    assert not opened(platter, joined=True).may_lack_entries


def test_new_log_of_new_node_is_complete() -> None:
    platter = Platter()
    opened(platter)
    assert not opened(platter, joined=True).may_lack_entries


# Damage.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": "beta"}, "expected the journal of cluster 'beta', found that of cluster 'alpha'"),
        ({"node_id": 2}, "expected the journal of node 2, found that of node 1"),
    ],
)
def test_journal_of_another_node_is_refused(options: dict[str, object], message: str) -> None:
    platter = Platter()
    filled(platter)
    with pytest.raises(JournalError, match=message):
        opened(platter, **options)


def test_newer_journal_format_is_refused() -> None:
    platter = Platter()
    filled(platter)
    platter.records[IDENTITY_KEY] = platter.records[IDENTITY_KEY].replace(b"\x93\x01", b"\x93\x02", 1)
    with pytest.raises(JournalError, match="expected a journal of format 1, found format 2"):
        opened(platter)


@pytest.mark.parametrize("key", [IDENTITY_KEY, STATE_KEY, entry_key(4), entry_key(11)])
def test_missing_record_is_refused(key: bytes) -> None:
    platter = Platter()
    filled(platter)
    del platter.records[key]
    before = dict(platter.records)
    with pytest.raises(JournalError, match=r"the journal is damaged: .*; nothing was changed: rebuild this node"):
        opened(platter)
    assert platter.records == before


def test_swapped_entries_are_refused() -> None:
    platter = Platter()
    filled(platter)
    four, five = entry_key(4), entry_key(5)
    platter.records[four], platter.records[five] = platter.records[five], platter.records[four]
    with pytest.raises(JournalError, match="log entry 4 is not what was written"):
        opened(platter)


def damages(seed: int, rounds: int) -> Iterator[tuple[Platter, bytes]]:
    """Journals with one bit turned over."""
    chance = random.Random(seed)
    for _ in range(rounds):
        platter = Platter()
        filled(platter)
        key = chance.choice([key for key in platter.records if key != IDENTITY_KEY])
        value = bytearray(platter.records[key])
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        platter.records[key] = bytes(value)
        yield platter, key


def test_every_flipped_bit_is_detected() -> None:
    for platter, _ in damages(1, 300):
        with pytest.raises(JournalError, match="the journal is damaged"):
            opened(platter)


def test_short_record_is_no_entry() -> None:
    record = encode_entry(b"command", 7, 3)
    assert decode_entry(record, 7) == (b"command", 7, 3)
    assert decode_entry(record, 8) is None
    assert decode_entry(record[:15], 7) is None


# Loss of power at every step.


class Run:
    """One incarnation of a journal under random operations, and a plain list as a reference."""

    def __init__(self, platter: Platter, kind: type[DiskJournal], seed: int) -> None:
        self.journal = opened(platter, kind)
        self.chance = random.Random(seed)
        #: What the disk may hold: as of the last sync that returned, and as of the one that did not.
        self.promised = self.wanted = after_base(self.journal)

    def operate(self, count: int) -> None:
        journal, chance = self.journal, self.chance
        for _ in range(count):
            kind = chance.random()
            if kind < 0.6:
                for _ in range(chance.randrange(1, 4)):
                    term = max(1, journal.last_term + (chance.random() < 0.1))
                    journal.add(ENTRY_HEAD + chance.randbytes(6), journal.last_index + 1, term)
            elif kind < 0.75 and len(journal) > 1:
                journal.deleteEntriesFrom(chance.randrange(1, len(journal)))
            elif kind < 0.9 and len(journal) > 1:
                journal.compact(chance.randrange(journal.first_index, journal.last_index + 1))
            else:
                ahead = chance.randrange(-3, 20)
                index = max(journal.first_index + 1, journal.last_index + ahead)
                journal.install(index, journal.term_at(index) or journal.last_term + 1)
            self.wanted = after_base(journal)
            journal.sync()
            self.promised = self.wanted


def survives_every_crash(kind: type[DiskJournal], seeds: int = 12, operations: int = 12) -> None:
    """Cut the power at each step of a run in turn, open again, and compare."""
    for seed in range(seeds):
        for step in range(10_000):
            platter = Platter()
            run = Run(platter, kind, seed)
            platter.steps_left = step
            try:
                run.operate(operations)
            except Crash:
                platter.steps_left = None
                found = after_base(opened(platter))
                assert found in (run.promised, run.wanted), f"seed {seed}, step {step}"
                continue
            break
        platter.steps_left = None
        assert after_base(opened(platter)) == run.promised


def test_no_synced_entry_is_lost_at_any_step() -> None:
    survives_every_crash(DiskJournal)


def test_torn_sync_is_refused_or_complete() -> None:
    refused = 0
    for seed in range(6):
        for step in range(60):
            platter = Platter()
            run = Run(platter, DiskJournal, seed)
            platter.steps_left, platter.torn_after = step, step % 4
            try:
                run.operate(12)
            except Crash:
                platter.steps_left = None
                try:
                    found = after_base(opened(platter))
                except JournalError:
                    refused += 1
                else:
                    assert found in (run.promised, run.wanted), f"seed {seed}, step {step}"
    assert refused, "no sync was torn in a way that matters: nothing was proved"


class Forgets(DiskJournal):
    """A bug: returns from sync before anything is durable."""

    def sync(self) -> None:
        if self.last_index < 4:
            super().sync()


class DeletesBeforeTheBaseMoves(DiskJournal):
    """A bug: compaction deletes the entries before it has moved the base."""

    def deleteEntriesTo(self, entryTo: int) -> None:
        self._storage.delete(entry_key(0), entry_key(self[entryTo][1]))
        self._storage.sync()
        super().deleteEntriesTo(entryTo)


class KeepsWhatWasCut(DiskJournal):
    """A bug: a conflict cuts the log in memory only."""

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        super(DiskJournal, self).deleteEntriesFrom(entryFrom)
        self._dirty = True


class SyncsTooEarly(DiskJournal):
    """A bug: what is cut is durable before what takes its place, and compaction before the snapshot's base."""

    def clear(self) -> None:
        super().clear()
        self._storage.sync()


@pytest.mark.parametrize("kind", [Forgets, DeletesBeforeTheBaseMoves, KeepsWhatWasCut, SyncsTooEarly])
def test_journal_that_breaks_its_contract_is_found(kind: type[DiskJournal]) -> None:
    with pytest.raises((AssertionError, JournalError)):
        survives_every_crash(kind)
