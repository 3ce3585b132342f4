"""A restart uses the newest valid snapshot and the log after it, or is refused with a remedy."""

from pathlib import Path

import pytest

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, MetaStore, membership
from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.restart import Restarted, replay_entries, restart
from smrx.consensus.snapshot_files import Position, SnapshotError, SnapshotFiles, Stored
from tests.consensus.harness import Machine, entry
from tests.consensus.model_disk import ModelStorage, Platter


class LocalMachine(Machine):
    """A machine with something of its own beside the state."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, bytes] = {}

    def restore_part(self, name: str, data: memoryview) -> None:
        if name != "beside":
            raise ValueError(f"no part {name}")
        self.parts[name] = bytes(data)


class Disk:
    """One node's disk: journal, meta data, snapshots; entry number n is at index n + 1."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.platter = Platter()
        self.files = SnapshotFiles(tmp_path / "snapshots", cluster="alpha", node_id=1)
        self.meta = MetaStore(tmp_path, cluster="alpha", node_id=1)
        self.meta.set_term(3, 1)
        self.meta.set_joined()
        self.journal = self.open()
        self.machine = LocalMachine()

    def open(self) -> DiskJournal:
        return DiskJournal(ModelStorage(self.platter), cluster="alpha", node_id=1, joined=False)

    def append(self, last: int, *, committed: int | None = None) -> None:
        """Append and apply entries up to this number."""
        for number in range(len(self.machine.numbers) + 1, last + 1):
            self.journal.add(entry(number), number + 1, 1 + number // 40)
            self.machine.apply(number + 1, 1, entry(number))
        self.journal.setRaftCommitIndex(1 + (last if committed is None else committed))
        self.journal.sync()

    def take(self) -> Stored:
        sequence, state_hash = self.machine.position()
        position = Position(sequence + 1, self.journal.last_term, sequence, state_hash % (1 << 64))
        return self.files.write(position, {"state": [self.machine.snapshot()], "beside": [b"more"]})

    def restart(self) -> tuple[LocalMachine, DiskJournal, Restarted]:
        machine, journal = LocalMachine(), self.open()
        return machine, journal, restart(machine, journal, self.meta, self.files)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def damage(stored: Stored, part: str = "state") -> None:
    path = stored.path / part
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_restart_without_snapshot_applies_whole_log(disk: Disk) -> None:
    disk.append(50)
    machine, journal, restarted = disk.restart()
    assert machine.position() == disk.machine.position()
    assert (journal.applied_index, restarted.snapshots) == (51, [])


def test_restart_with_snapshot_applies_only_later_entries(disk: Disk) -> None:
    disk.append(30)
    disk.take()
    disk.journal.compact(31)
    disk.append(50)
    machine, journal, restarted = disk.restart()
    assert machine.position() == disk.machine.position()
    assert machine.parts == {"beside": b"more"}
    assert (journal.first_index, journal.applied_index, restarted.snapshot_sequence) == (31, 51, 30)


def test_uncommitted_entries_are_not_applied_at_restart(disk: Disk) -> None:
    disk.append(50, committed=45)
    machine, journal, _ = disk.restart()
    assert (len(machine.numbers), journal.applied_index, journal.last_index) == (45, 46, 51)


def test_log_that_ends_before_the_snapshot_is_replaced(disk: Disk) -> None:
    disk.append(20)
    disk.journal.sync()
    ahead = Disk.__new__(Disk)
    ahead.__dict__ = disk.__dict__ | {"platter": Platter(), "machine": LocalMachine()}
    ahead.journal = ahead.open()
    ahead.append(80)
    ahead.take()
    machine, journal, _ = disk.restart()
    assert machine.position() == ahead.machine.position()
    assert (journal.first_index, journal.last_index, journal.applied_index) == (81, 81, 81)


def test_damaged_snapshot_falls_back_to_an_older_one(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.append(20)
    disk.take()
    disk.append(40)
    damage(disk.take())
    disk.journal.compact(21)
    disk.append(60)
    machine, _, restarted = disk.restart()
    assert machine.position() == disk.machine.position()
    assert [stored.log_index for stored in restarted.snapshots] == [21]
    assert "its part state is not what was written; it is not used" in caplog.text


def test_damaged_part_beside_the_state_is_reported_and_left_out(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """The log needs this snapshot, and its state is valid."""
    disk.append(20)
    damage(disk.take(), "beside")
    disk.journal.compact(21)
    disk.append(30)
    machine, _, restarted = disk.restart()
    assert machine.position() == disk.machine.position()
    assert machine.parts == {}
    assert [[part.name for part in stored.metadata.parts] for stored in restarted.snapshots] == [["state"]]
    assert "its part beside is not what was written; the state beside it is valid" in caplog.text


def test_part_that_the_machine_cannot_use_is_reported_and_left_out(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.append(20)
    sequence, state_hash = disk.machine.position()
    position = Position(sequence + 1, disk.journal.last_term, sequence, state_hash)
    disk.files.write(position, {"state": [disk.machine.snapshot()], "other": [b"?"], "beside": [b"more"]})
    machine, _, _ = disk.restart()
    assert machine.position() == disk.machine.position()
    assert machine.parts == {"beside": b"more"}
    assert "snapshot-20: its part other cannot be used: no part other; the node goes on without it" in caplog.text


def test_damaged_snapshot_that_the_log_needs_is_refused(disk: Disk) -> None:
    disk.append(20)
    stored = disk.take()
    disk.journal.compact(21)
    disk.append(30)
    damage(stored)
    before = dict(disk.platter.records), sorted(disk.path.rglob("*"))
    message = r"snapshot-20: the snapshot is damaged: .*; nothing was changed: rebuild this node .*--rebuild"
    with pytest.raises(SnapshotError, match=message):
        disk.restart()
    assert (disk.platter.records, sorted(disk.path.rglob("*"))) == before


def test_log_without_its_snapshot_is_refused(disk: Disk) -> None:
    disk.append(20)
    disk.journal.compact(15)
    disk.journal.sync()
    with pytest.raises(SnapshotError, match="expected a snapshot at log entry 15 or later, found none"):
        disk.restart()


def test_snapshot_older_than_the_log_is_not_used(disk: Disk) -> None:
    disk.append(10)
    disk.take()
    disk.append(20)
    disk.journal.compact(15)
    disk.journal.sync()
    with pytest.raises(SnapshotError, match="expected a snapshot at log entry 15 or later, found none"):
        disk.restart()


def test_snapshot_of_another_version_is_refused_with_both_remedies(disk: Disk) -> None:
    disk.append(20)
    disk.files.write(Position(21, 1, 20, 12345), {"state": [b"of another version"]})
    message = "cannot be used: no snapshot: .*; nothing was changed: run the version of smrx that wrote it, or rebuild"
    with pytest.raises(SnapshotError, match=message):
        disk.restart()


def test_snapshot_with_wrong_state_hash_is_refused(disk: Disk) -> None:
    disk.append(20)
    disk.files.write(Position(21, 1, 20, 12345), {"state": [disk.machine.snapshot()]})
    with pytest.raises(SnapshotError, match="expected the state of command 20 with hash 0000000000003039"):
        disk.restart()


def test_meta_data_older_than_the_log_are_refused(disk: Disk) -> None:
    disk.append(200)
    with pytest.raises(JournalError, match="expected term 6 or later of a node with entries of that term, found 3"):
        disk.restart()


def test_log_without_meta_data_is_refused(disk: Disk, tmp_path: Path) -> None:
    disk.append(20)
    disk.meta.close()
    (tmp_path / "meta.lmdb").unlink()
    disk.meta = MetaStore(tmp_path, cluster="alpha", node_id=1)
    for _ in range(2):
        with pytest.raises(JournalError, match="a file was lost or replaced"):
            disk.restart()


def test_restarted_memory_node_starts_empty(disk: Disk) -> None:
    disk.append(20)
    disk.take()
    machine, journal = LocalMachine(), MemoryJournal()
    restart(machine, journal, disk.meta, disk.files)
    assert (machine.numbers, journal.first_index, journal.may_lack_entries) == ([], 1, True)


@pytest.mark.parametrize("durable", [False, True])
def test_new_node_starts_with_provided_snapshot(disk: Disk, tmp_path: Path, durable: bool) -> None:
    disk.append(90)
    files = SnapshotFiles(tmp_path / "new" / "snapshots", cluster="alpha", node_id=1)
    files.adopt(disk.take())
    meta = MetaStore(tmp_path / "new", cluster="alpha", node_id=1)
    machine = LocalMachine()
    platter = Platter()

    def opened() -> MemoryJournal:
        storage = ModelStorage(platter)
        return DiskJournal(storage, cluster="alpha", node_id=1, joined=meta.joined) if durable else MemoryJournal()

    journal = opened()
    restart(machine, journal, meta, files)
    assert machine.position() == disk.machine.position()
    # In memory mode the node has not joined yet, and the next start is the same.
    assert (journal.first_index, journal.applied_index, meta.term, meta.joined) == (91, 91, 3, durable)
    # Killed before it has received anything.
    journal.sync()
    again, machine = opened(), LocalMachine()
    restart(machine, again, meta, files)
    assert machine.position() == disk.machine.position()
    assert (again.applied_index, again.may_lack_entries) == (91, not durable and again.last_index == 1)


def test_membership_entries_are_not_applied_at_restart(disk: Disk) -> None:
    disk.append(10)
    disk.journal.add(membership.encode(membership.of([NodeConfig(id=1, port=1)])), 12, 2)
    disk.journal.setRaftCommitIndex(12)
    disk.journal.sync()
    machine, journal, _ = disk.restart()
    assert machine.position() == disk.machine.position()
    assert journal.applied_index == 12


def test_replaced_log_drops_uncommitted_membership(disk: Disk) -> None:
    """The log was to be cut at a leader's snapshot when the power went."""
    known, undone = (membership.encode(membership.of([NodeConfig(id=1, port=port)])) for port in (1, 2))
    disk.append(20)
    disk.meta.set_membership((1, known))
    disk.journal.set_base_membership((1, known))
    disk.journal.add(undone, 22, 1)
    disk.journal.sync()
    ahead = Disk.__new__(Disk)
    ahead.__dict__ = disk.__dict__ | {"platter": Platter(), "machine": LocalMachine()}
    ahead.journal = ahead.open()
    ahead.append(80)
    ahead.take()
    _, journal, _ = disk.restart()
    assert journal.last_index == 81
    assert journal.membership == (1, known)


def test_replay_stops_when_the_callback_returns_false(disk: Disk) -> None:
    disk.append(50)
    seen: list[int] = []

    def until_30(found: tuple[bytes, int, int]) -> bool:
        seen.append(found[1])
        return found[1] < 30

    assert replay_entries(disk.journal, 10, 51, until_30) == 21
    assert seen == list(range(10, 31))
    assert replay_entries(disk.journal, 40, 45, lambda found: None) == 6


def test_state_without_meta_data_is_accepted_from_an_operator_only(disk: Disk, tmp_path: Path) -> None:
    disk.append(20)
    stored = disk.take()
    disk.meta.close()
    lost = tmp_path / "lost"
    files = SnapshotFiles(lost / "snapshots", cluster="alpha", node_id=1)
    meta = MetaStore(lost, cluster="alpha", node_id=1)
    given = files.adopt(stored)
    journal = MemoryJournal()
    assert restart(LocalMachine(), journal, meta, files).snapshots == [given]
    assert not journal.may_lack_entries

    # After the first start the provided snapshot is its own; then the meta data are lost.
    meta.set_joined()
    restart(LocalMachine(), MemoryJournal(), meta, files)
    meta.close()
    (lost / "meta.lmdb").unlink()
    with pytest.raises(SnapshotError, match=r"expected no snapshots .* are new, found .* command 20: .*--rebuild"):
        restart(LocalMachine(), MemoryJournal(), MetaStore(lost, cluster="alpha", node_id=1), files)
