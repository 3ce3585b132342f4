"""The simulated disk keeps the contract of storage.py, breaks it on request, and the real journal detects it."""

import random

import pytest

from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.storage import StorageFull
from smrx.sim.simulated_disk import Disk, SimulatedStorage


class PowerLoss(BaseException):
    """The computer loses power."""


class PowerSwitch:
    """Raises PowerLoss at a step."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps

    def __call__(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps <= 0:
                raise PowerLoss


def journal_on(disk: Disk, power: PowerSwitch | None = None) -> DiskJournal:
    return DiskJournal(SimulatedStorage(disk, power or PowerSwitch()), cluster="alpha", node_id=1, joined=True)


def disk_with_entries(entries: int = 5) -> Disk:
    disk = Disk(random.Random(1))
    journal = journal_on(disk)
    for index in range(2, entries + 2):
        journal.add(b"\0\1 entry %d" % index, index, 1)
    journal.sync()
    return disk


def test_unsynced_entries_are_lost() -> None:
    disk = disk_with_entries()
    journal = journal_on(disk)
    journal.add(b"\0\1 one more", 7, 1)
    journal.close()
    assert journal_on(disk).last_index == 6


@pytest.mark.parametrize(("steps", "last"), [(1, 6), (2, 8)])
def test_interrupted_sync_is_durable_completely_or_not_at_all(steps: int, last: int) -> None:
    disk = disk_with_entries()
    journal = journal_on(disk, power := PowerSwitch())
    power.steps = steps
    journal.add(b"\0\1 7", 7, 1)
    journal.add(b"\0\1 8", 8, 1)
    with pytest.raises(PowerLoss):
        journal.sync()
    assert journal_on(disk).last_index == last


def test_torn_sync_is_refused_or_harmless() -> None:
    refused = 0
    for seed in range(20):
        disk = disk_with_entries()
        disk._rng = random.Random(seed)
        journal = journal_on(disk, power := PowerSwitch())
        for index in range(7, 12):
            journal.add(b"\0\1 more", index, 1)
        disk.tears_next_sync, power.steps = True, 1
        with pytest.raises(PowerLoss):
            journal.sync()
        assert disk.may_be_damaged
        try:
            assert journal_on(disk).last_index in (6, 11)
        except JournalError:
            refused += 1
    assert 0 < refused < 20


def test_full_disk_keeps_its_entries() -> None:
    disk = disk_with_entries()
    journal = journal_on(disk)
    disk.full = True
    journal.add(b"\0\1 one more", 7, 1)
    with pytest.raises(StorageFull):
        journal.sync()
    disk.full = False
    assert journal_on(disk).last_index == 6


def test_every_flipped_bit_is_refused_or_harmless() -> None:
    disk = disk_with_entries()
    records = dict(disk.records)
    expected = journal_on(disk).between(1, 10)
    refused = 0
    for key, value in records.items():
        for bit in range(8 * len(value)):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            disk.records = records | {key: bytes(changed)}
            try:
                assert journal_on(disk).between(1, 10) == expected
            except JournalError:
                refused += 1
    assert refused > 0.9 * sum(8 * len(value) for value in records.values())
