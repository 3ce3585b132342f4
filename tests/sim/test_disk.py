"""The modelled disk keeps the contract of storage.py, breaks it when told to, and the real journal notices."""

import random

import pytest

from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.storage import StorageFull
from smrx.sim.simulated_disk import Disk, SimulatedStorage


class Stop(BaseException):
    """The power goes."""


class Fuse:
    """Lets the power go at a step."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps

    def __call__(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps <= 0:
                raise Stop


def journal_on(disk: Disk, fuse: Fuse | None = None) -> DiskJournal:
    return DiskJournal(SimulatedStorage(disk, fuse or Fuse()), cluster="alpha", node_id=1, joined=True)


def written(entries: int = 5) -> Disk:
    disk = Disk(random.Random(1))
    journal = journal_on(disk)
    for index in range(2, entries + 2):
        journal.add(b"\0\1 entry %d" % index, index, 1)
    journal.sync()
    return disk


def test_what_was_not_synced_is_gone() -> None:
    disk = written()
    journal = journal_on(disk)
    journal.add(b"\0\1 one more", 7, 1)
    journal.close()
    assert journal_on(disk).last_index == 6


@pytest.mark.parametrize(("steps", "last"), [(1, 6), (2, 8)])
def test_a_sync_that_is_cut_short_is_there_as_a_whole_or_not_at_all(steps: int, last: int) -> None:
    disk = written()
    journal = journal_on(disk, fuse := Fuse())
    fuse.steps = steps
    journal.add(b"\0\1 7", 7, 1)
    journal.add(b"\0\1 8", 8, 1)
    with pytest.raises(Stop):
        journal.sync()
    assert journal_on(disk).last_index == last


def test_a_torn_sync_is_refused_or_harmless() -> None:
    refused = 0
    for seed in range(20):
        disk = written()
        disk._chance = random.Random(seed)
        journal = journal_on(disk, fuse := Fuse())
        for index in range(7, 12):
            journal.add(b"\0\1 more", index, 1)
        disk.tears, fuse.steps = True, 1
        with pytest.raises(Stop):
            journal.sync()
        assert disk.spoiled
        try:
            assert journal_on(disk).last_index in (6, 11)
        except JournalError:
            refused += 1
    assert 0 < refused < 20


def test_a_full_disk_keeps_what_it_has() -> None:
    disk = written()
    journal = journal_on(disk)
    disk.full = True
    journal.add(b"\0\1 one more", 7, 1)
    with pytest.raises(StorageFull):
        journal.sync()
    disk.full = False
    assert journal_on(disk).last_index == 6


def test_every_wrong_bit_is_refused_or_harmless() -> None:
    disk = written()
    kept = dict(disk.records)
    whole = journal_on(disk).between(1, 10)
    refused = 0
    for key, value in kept.items():
        for bit in range(8 * len(value)):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            disk.records = kept | {key: bytes(changed)}
            try:
                assert journal_on(disk).between(1, 10) == whole
            except JournalError:
                refused += 1
    assert refused > 0.9 * sum(8 * len(value) for value in kept.values())
