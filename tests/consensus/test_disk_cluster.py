"""Replicas with a journal on a modelled disk: no acknowledged entry is lost when all lose power, at any step."""

import contextlib
import random
from collections.abc import Iterator

import pytest

from smrx.consensus import ConsensusError, Replica
from smrx.consensus.compaction import Compaction
from smrx.consensus.disk_journal import DiskJournal, JournalError
from smrx.consensus.restart import replay_entries
from smrx.consensus.snapshots import Snapshot
from smrx.consensus.storage import StorageFull
from tests.consensus.harness import CLUSTER, Clock, Cluster, Member, MemoryTransport, Violation
from tests.consensus.model_disk import Crash, ModelSnapshots, ModelStorage, Platter


class DiskMember(Member):
    """A node that keeps its log and its snapshots on a platter."""

    def __init__(self, cluster: "DiskCluster", node_id: int) -> None:
        self.platter = Platter()
        self.snapshots: list[Snapshot] = []
        super().__init__(cluster, node_id)

    def start(self) -> None:
        cluster = self._cluster
        assert isinstance(cluster, DiskCluster)
        peers = [node for node in cluster.ids if node != self.id and node not in cluster.unknown_to[self.id]]
        self.machine = cluster.machine_class()
        store = ModelSnapshots(self.snapshots)
        store.take = self.machine.snapshot
        journal = cluster.journal_class(
            ModelStorage(self.platter), cluster=CLUSTER, node_id=self.id, joined=self.meta.joined
        )
        newest = store.newest()
        if newest is not None:
            self.machine.restore(bytes(newest.data))
            if journal.term_at(newest.index) != newest.term:
                journal.install(newest.index, newest.term, self.meta.membership if self.meta.membership[1] else None)
                self.meta.set_joined()
            journal.applied_index = newest.index
        committed = journal.getRaftCommitIndex()
        replay_entries(
            journal,
            journal.applied_index + 1,
            committed,
            lambda found: self.machine.apply(found[1], found[2], found[0]),
        )
        journal.applied_index = max(journal.applied_index, committed)
        self.machine.on_apply = self._on_apply
        self.transport = MemoryTransport(
            cluster.network, cluster=CLUSTER, node_id=self.id, peers=peers, incarnation=self.meta.incarnation
        )
        self.journal = journal
        self.replica = cluster.replica_class(
            self.id,
            peers,
            machine=self.machine,
            transport=self.transport,
            meta=self.meta,
            journal=journal,
            settings=cluster.settings(),
            snapshots=store,
            wall_ns=lambda: cluster.wall_ns(self.id),
        )
        self.up = True

    def lose_disk(self) -> None:
        """Another disk, empty, in the place of this one; term and vote are elsewhere."""
        self.platter = Platter()
        self.snapshots = []


class DiskCluster(Cluster):
    """Members with platters."""

    journal_class: type[DiskJournal] = DiskJournal

    def __init__(self, clock: Clock, seed: int = 0, **options: object) -> None:
        self.journal_class = options.pop("journal_class", DiskJournal)  # type: ignore[assignment]
        super().__init__(clock, seed, **{"compaction_entries": 30, "nodes": 3} | options)  # type: ignore[arg-type]

    def _member(self, node: int) -> DiskMember:
        return DiskMember(self, node)

    def crash_all(self) -> None:
        for node in self.ids:
            self.crash(node)

    def restart_all(self) -> None:
        for node in self.ids:
            self.restart(node)


def test_all_nodes_continue_after_simultaneous_power_loss(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    cluster.elect()
    for _ in range(5):
        cluster.commit(17)
        cluster.crash_all()
        cluster.restart_all()
    cluster.commit()
    cluster.check_end()
    assert len(cluster.acknowledged) > 80
    assert all(member.journal.first_index > 20 for member in cluster.members.values()), "nothing was ever compacted"


def test_single_node_acknowledges_only_durable_entries(clock: Clock) -> None:
    cluster = DiskCluster(clock, nodes=1)
    cluster.elect()
    member = cluster.members[1]
    for _ in range(30):
        number = cluster.submit(member)
        member.replica.tick()
        assert number in cluster.acknowledged
        cluster.crash(1)
        cluster.restart(1)
        cluster.elect()
    cluster.check_end()


def test_node_with_new_disk_catches_up_before_it_votes(clock: Clock) -> None:
    # A message has one entry.
    cluster = DiskCluster(clock, batch_bytes=1)
    leader = cluster.elect()
    cluster.commit(50)
    lost = next(node for node in cluster.ids if node != leader.id)
    member = cluster.members[lost]
    assert isinstance(member, DiskMember)
    cluster.crash(lost)
    member.lose_disk()
    cluster.restart(lost)
    assert member.replica.role == "learner"
    # Another crash half way: a log that was begun is not a log that is whole.
    cluster.run_until(lambda: member.replica.last_index > 10)
    cluster.crash(lost)
    cluster.restart(lost)
    assert member.replica.role == "learner"
    cluster.run_until(lambda: member.replica.role == "follower", what="a follower again")
    cluster.crash(lost)
    cluster.restart(lost)
    assert member.replica.role == "follower"
    cluster.check_end()


def test_restart_uses_snapshot_received_before_power_loss(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    leader = cluster.elect()
    away = next(node for node in cluster.ids if node != leader.id)
    cluster.crash(away)
    cluster.commit(100)
    member = cluster.members[away]
    assert isinstance(member, DiskMember)
    cluster.restart(away)
    cluster.run_until(lambda: member.snapshots, what="a snapshot on the disk of the node that was away")
    # The log may or may not have been cut at the snapshot by now; either must do.
    cluster.crash(away)
    cluster.restart(away)
    cluster.commit(5)
    cluster.check_end()


def test_full_disk_stops_one_node_only(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    leader = cluster.elect()
    cluster.commit(10)
    assert isinstance(leader, DiskMember)
    leader.platter.full = True
    cluster.submit(leader)
    with pytest.raises(StorageFull):
        leader.turn()
    cluster.crash(leader.id)
    cluster.commit(10)
    leader.platter.full = False
    cluster.restart(leader.id)
    cluster.check_end()


# Power failures at random steps.


def run_with_faults(clock: Clock, seed: int, replica_class: type[Replica] = Replica, **options: object) -> None:
    """Random commands, cuts, and losses of power: of one node at any step of its disk, or of all at once."""
    chance = random.Random(seed)
    cluster = DiskCluster(clock, seed, replica_class=replica_class, **options)
    for _ in range(60):
        kind = chance.random()
        members = list(cluster.members.values())
        leader = cluster.leader()
        if kind < 0.5 and leader is not None:
            with powered(cluster):
                for _ in range(chance.randrange(1, 8)):
                    cluster.submit(leader)
        elif kind < 0.65:
            victim = chance.choice(members)
            assert isinstance(victim, DiskMember)
            victim.platter.steps_left = chance.randrange(12)
        elif kind < 0.72:
            cluster.crash_all()
        elif kind < 0.8:
            cluster.network.isolate(chance.choice(cluster.ids), cluster.ids)
        else:
            cluster.network.heal()
        run(cluster, chance.uniform(0.001, 1.5))
        for member in members:
            if not member.up:
                member.platter.steps_left = None  # type: ignore[attr-defined]
                cluster.restart(member.id)
    cluster.network.heal()
    for member in cluster.members.values():
        member.platter.steps_left = None  # type: ignore[attr-defined]
    cluster.commit(1, seconds=60.0)
    cluster.check_end()


def run(cluster: Cluster, seconds: float) -> None:
    """Let time pass; a node whose power goes is down from then on."""
    end = cluster.clock.time + seconds
    while cluster.clock.time < end:
        with powered(cluster):
            cluster.step(end)


@contextlib.contextmanager
def powered(cluster: Cluster) -> Iterator[None]:
    """The node whose power goes in here is down afterwards."""
    try:
        yield
    except Crash:
        for member in cluster.members.values():
            steps = member.platter.steps_left  # type: ignore[attr-defined]
            if member.up and steps is not None and steps < 0:
                cluster.crash(member.id)


@pytest.mark.parametrize("seed", range(12))
def test_no_acknowledged_command_is_lost_at_power_loss(clock: Clock, seed: int) -> None:
    run_with_faults(clock, seed, nodes=(1, 3, 3, 5)[seed % 4])


class SendsBeforeSync(Replica):
    """A bug: messages are sent before what they acknowledge is durable, which it is at some later turn."""

    _turns = 0

    def _persist_term(self) -> None:
        pass

    def _persist(self) -> None:
        self._turns += 1
        if self._turns % 7 == 0:
            super()._persist()


class CountsItselfBeforeSync(Replica):
    """A bug: a leader without followers commits what it has not synced."""

    _ticking = False

    def tick(self) -> None:
        self._ticking = True
        super().tick()
        self._ticking = False

    def _persist(self) -> None:
        if not self._ticking:
            super()._persist()


def found_by_faults(clock: Clock, replica_class: type[Replica], seeds: int, **options: object) -> bool:
    for seed in range(seeds):
        try:
            run_with_faults(clock, seed, replica_class, **options)
        except (Violation, ConsensusError, JournalError):
            return True
    return False


def test_sending_before_sync_is_found(clock: Clock) -> None:
    assert found_by_faults(clock, SendsBeforeSync, 30)


def test_counting_unsynced_entries_is_found(clock: Clock) -> None:
    assert found_by_faults(clock, CountsItselfBeforeSync, 30, nodes=1)


class NeverComplete(DiskJournal):
    """A bug: a lost log is never marked as complete again."""

    def mark_complete(self) -> None:
        pass


class AlwaysComplete(DiskJournal):
    """A bug: a log that was created anew counts as complete."""

    may_lack_entries = property(lambda self: False)  # type: ignore[assignment]


def lose_a_disk(clock: Clock, journal_class: type[DiskJournal]) -> None:
    """Two nodes that lack acknowledged entries, one of them with a new disk, must not elect each other."""
    cluster = DiskCluster(clock, journal_class=journal_class)
    leader = cluster.elect()
    cluster.settle()
    away, other = (node for node in cluster.ids if node != leader.id)
    cluster.crash(away)
    cluster.commit(5)
    cluster.crash(leader.id)
    cluster.crash(other)
    member = cluster.members[other]
    assert isinstance(member, DiskMember)
    member.lose_disk()
    cluster.restart(other)
    cluster.restart(away)
    cluster.run(10)
    assert cluster.leader() is None, "two nodes that lack what was acknowledged elected one of them"
    cluster.restart(leader.id)
    cluster.commit()
    cluster.check_end()
    cluster.crash(other)
    cluster.restart(other)
    assert member.replica.role != "learner"


def test_node_that_lost_its_disk_does_not_vote(clock: Clock) -> None:
    lose_a_disk(clock, DiskJournal)


@pytest.mark.parametrize("journal_class", [AlwaysComplete, NeverComplete])
def test_wrong_completeness_of_log_is_found(clock: Clock, journal_class: type[DiskJournal]) -> None:
    with pytest.raises(AssertionError):
        lose_a_disk(clock, journal_class)


class EarlyCompaction(Compaction):
    """A bug: the log is compacted above the newest snapshot."""

    def _compact_below_snapshots(self) -> None:
        if len(self._journal) > 10:
            self._journal.compact(min(self._raft.applied_index, self._journal.last_index) - 5)


class CompactsTooEarly(Replica):
    """A replica with this bug."""

    compaction_class = EarlyCompaction


def test_compaction_above_snapshots_is_found(clock: Clock) -> None:
    assert found_by_faults(clock, CompactsTooEarly, 20)


def test_log_is_not_compacted_without_complete_snapshot(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSnapshots, "poll", lambda self: None)
    cluster = DiskCluster(clock)
    cluster.elect()
    cluster.commit(100)
    assert all(member.journal.first_index == 1 for member in cluster.members.values())


def test_members_take_snapshots_at_different_times(clock: Clock) -> None:
    cluster = DiskCluster(clock, compaction_entries=120)
    cluster.elect()
    cluster.commit(200)
    taken = [member.snapshots[-1].index for member in cluster.members.values()]
    assert len(set(taken)) == 3, taken
