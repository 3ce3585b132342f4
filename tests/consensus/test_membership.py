"""Membership changes under load: one at a time, a learner first, and never two majorities."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from smrx.config import NodeConfig
from smrx.consensus import ConsensusError, MemoryJournal, MetaStore, NotLeader, Replica, membership
from smrx.consensus.follower import Follower
from smrx.consensus.membership import ChangePending, MembershipError
from smrx.consensus.messages import NO_OP
from smrx.consensus.snapshots import Snapshot
from tests.consensus.harness import Clock, Cluster, Member, Violation

NODES = [NodeConfig(id=node, port=7000 + node, public_keys=("k" * 40,)) for node in (1, 2, 3, 4)]


def members(*ids: int) -> bytes:
    return membership.encode(membership.of(NodeConfig(id=node, port=node) for node in ids))


# The entry.


def test_membership_round_trips_as_entry() -> None:
    found = membership.of(NODES[:3]).with_learner(NODES[3])
    assert membership.decode(membership.encode(found)) == found
    assert found.ids == {1, 2, 3, 4}
    assert found.voters == {1, 2, 3}
    assert found.promoted(4).voters == {1, 2, 3, 4}
    assert found.promoted(4).without(2).voters == {1, 3, 4}
    assert found.node(4) == NODES[3]
    assert found.node(5) is None


def test_invalid_changes_are_refused() -> None:
    found = membership.of(NODES[:2])
    with pytest.raises(MembershipError, match="node 2 is a member already"):
        found.with_learner(NODES[1])
    with pytest.raises(MembershipError, match=r"node 3 is no member \(members: 1, 2\)"):
        found.without(3)
    with pytest.raises(MembershipError, match="node 1 is the only voter and cannot be removed"):
        found.without(2).without(1)


@pytest.mark.parametrize(
    "damage", [b"", b"\x04", b"\x00\x01abc", b"\x04\xc1", b"\x04\x92\x01\x90", b"\x04\x92\x02\x90"]
)
def test_invalid_membership_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises(MembershipError):
        membership.decode(damage)


def test_log_tracks_its_memberships() -> None:
    journal = MemoryJournal()
    journal.set_base_membership((1, members(1)))
    for index in range(2, 12):
        journal.add(members(1, index) if index in (4, 8) else NO_OP, index, 1)
    assert journal.membership == (8, members(1, 8))
    assert [journal.membership_at(index)[0] for index in (1, 3, 4, 7, 8, 11)] == [1, 1, 4, 4, 8, 8]
    journal.compact(6)
    assert journal.membership_at(6)[0] == 4
    journal.deleteEntriesFrom(2)
    assert (journal.last_index, journal.membership) == (7, (4, members(1, 4)))
    journal.add(members(1, 9), 8, 2)
    assert journal.membership == (8, members(1, 9))
    journal.deleteEntriesFrom(1)
    assert journal.membership == (4, members(1, 4))
    journal.install(20, 3, (15, members(1, 15)))
    assert journal.membership == (15, members(1, 15))


# A cluster whose members change.


def test_added_node_gets_its_vote_once_it_has_the_log(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.commit(20)
    newcomer = cluster.join()
    cluster.run(2.0)
    assert newcomer.machine.numbers == []
    assert leader.replica.is_leader
    cluster.network.keep_sent = True
    index = leader.replica.add_member(NodeConfig(id=4, port=4))
    cluster.run_until(lambda: leader.replica.commit_index >= index)
    assert leader.replica.membership.ids == {1, 2, 3, 4}
    cluster.run_until(lambda: 4 in leader.replica.membership.voters)
    assert set(newcomer.machine.numbers) >= set(range(1, 21))
    cluster.commit(5)
    cluster.settle()
    assert all(member.replica.membership.voters == {1, 2, 3, 4} for member in cluster.members.values())
    # Three of four are a majority now, two are not.
    cluster.crash(newcomer.id)
    cluster.commit(1)
    cluster.crash(next(m.id for m in cluster.members.values() if m.up and not m.replica.is_leader))
    with pytest.raises(Violation):
        cluster.commit(1, seconds=3.0)


def test_snapshot_carries_the_membership(clock: Clock) -> None:
    cluster = Cluster(clock, compaction_entries=20)
    cluster.elect()
    cluster.commit(60)
    cluster.join()
    cluster.add(4)
    cluster.settle()
    cluster.commit(60)
    cluster.join()
    cluster.add(5)
    cluster.settle()
    cluster.run_until(lambda: cluster.members[5].replica.membership.voters == {1, 2, 3, 4, 5}, 1.0)
    cluster.check_end()


def test_unresponsive_learner_gets_no_vote_and_blocks_nothing(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    leader.replica.add_member(NodeConfig(id=9, port=9))
    cluster.commit(20)
    cluster.run(3.0)
    assert leader.replica.membership.voters == {1, 2, 3}
    cluster.remove(9)
    assert leader.replica.membership.ids == {1, 2, 3}
    cluster.commit(5)
    cluster.check_end()


def test_removed_node_learns_of_it_and_disturbs_no_leader(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    gone = next(member for member in cluster.members.values() if member is not leader)
    cluster.remove(gone.id)
    cluster.run_until(lambda: gone.replica.removed)
    term = leader.replica.term
    # A node that goes on all the same.
    cluster.run(5.0)
    assert (leader.replica.is_leader, leader.replica.term) == (True, term)
    assert leader.transport.dropped["not from a member"] > 0
    gone.up = False
    cluster.commit(3)
    # Two of two: one more death is one too many.
    cluster.crash(next(m.id for m in cluster.members.values() if m.up and not m.replica.is_leader))
    with pytest.raises(Violation):
        cluster.commit(1, seconds=3.0)


def test_dead_node_is_replaced_under_a_reused_id(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.commit(10)
    dead = next(member.id for member in cluster.members.values() if member is not leader)
    cluster.crash(dead)
    cluster.remove(dead)
    cluster.members[dead] = Member(cluster, dead)
    cluster.commit(3)
    assert cluster.members[dead].machine.numbers == []
    cluster.add(dead)
    cluster.settle()
    cluster.check_end()


def test_only_the_leader_changes_members_one_at_a_time(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    follower = next(member for member in cluster.members.values() if member is not leader)
    with pytest.raises(NotLeader):
        follower.replica.add_member(NodeConfig(id=4, port=4))
    with pytest.raises(MembershipError, match="transfer the leadership"):
        leader.replica.remove_member(leader.id)
    with pytest.raises(ValueError, match="expected a command, found a membership"):
        leader.replica.submit(members(1))
    leader.replica.add_member(NodeConfig(id=4, port=4))
    with pytest.raises(ChangePending, match="is not committed yet"):
        leader.replica.add_member(NodeConfig(id=5, port=5))
    cluster.commit(1)
    leader.replica.add_member(NodeConfig(id=5, port=5))


def test_no_change_before_the_first_entry_of_the_term_is_committed(clock: Clock) -> None:
    """An earlier leader's change may still come or go: with another one beside it there are two majorities."""
    cluster = Cluster(clock)
    old = cluster.elect()
    cluster.settle()
    cluster.crash(old.id)
    cluster.run_until(lambda: cluster.leader() is not None)
    new = cluster.leader()
    assert new is not None
    with pytest.raises(ChangePending, match="is not committed yet"):
        new.replica.add_member(NodeConfig(id=4, port=4))
    with pytest.raises(MembershipError, match=r"is not committed yet|majority"):
        new.replica.remove_member(old.id)
    cluster.commit(1)
    new.replica.add_member(NodeConfig(id=4, port=4))


def test_uncommitted_change_is_undone_with_its_entry(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.isolate(leader.id, cluster.ids)
    leader.replica.add_member(NodeConfig(id=4, port=4))
    assert leader.replica.membership.ids == {1, 2, 3, 4}
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    cluster.commit(3)
    cluster.network.heal()
    cluster.settle()
    assert leader.replica.membership.ids == {1, 2, 3}
    assert leader.meta.membership[0] == 1


def test_membership_survives_loss_of_log_and_edited_file(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.join()
    cluster.add(4)
    cluster.commit(1)
    cluster.settle()
    for node in (1, 2, 3, 4):
        cluster.crash(node)
        cluster.restart(node)
        assert cluster.members[node].replica.membership.voters == {1, 2, 3, 4}
        cluster.settle()
    cluster.check_end()


def test_node_that_missed_a_change_finds_unknown_leader(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    sleeper = next(member for member in cluster.members.values() if member is not leader)
    cluster.network.isolate(sleeper.id, cluster.ids)
    newcomer = cluster.join()
    cluster.network.isolate(sleeper.id, cluster.ids)
    cluster.add(4)
    cluster.run_until(lambda: newcomer.replica.applied_index == leader.replica.applied_index)
    leader.replica.transfer_leadership(4)
    leader.turn()
    cluster.run_until(lambda: newcomer.replica.is_leader)
    cluster.network.heal()
    cluster.commit(3)
    cluster.settle()
    assert sleeper.replica.leader_id == 4
    assert sleeper.replica.membership.voters == {1, 2, 3, 4}
    cluster.check_end()


def storm(clock: Clock, seed: int, replica_class: type[Replica] = Replica) -> Cluster:
    """Changes of members among crashes, cuts and losses; checked as it goes, and at the end."""
    cluster = Cluster(clock, seed, replica_class=replica_class, compaction_entries=30)
    chance = random.Random(seed)
    cluster.network.loss = 0.02
    cluster.elect()
    wanted = {1, 2, 3}
    for _ in range(12):
        what = chance.choice(("add", "remove", "crash", "cut", "commands", "transfer"))
        leader = cluster.leader()
        if leader is not None:
            try:
                if what == "add" and len(wanted) < 6:
                    newcomer = cluster.join()
                    leader.replica.add_member(NodeConfig(id=newcomer.id, port=newcomer.id))
                    wanted.add(newcomer.id)
                elif what == "remove" and len(leader.replica.membership.ids) > 3:
                    gone = chance.choice(sorted(leader.replica.membership.ids - {leader.id}))
                    leader.replica.remove_member(gone)
                elif what == "transfer":
                    leader.replica.transfer_leadership()
            except (MembershipError, NotLeader, ValueError):
                pass
            for _ in range(chance.randrange(4)):
                if leader.up and leader.replica.is_leader and not leader.replica.is_transferring:
                    cluster.submit(leader)
        # In memory, more than a minority that forgets at once is the end of a cluster, and no fault of its members.
        if what == "crash" and all(member.replica.role != "learner" for member in cluster.members.values()):
            victim = chance.choice([member for member in cluster.members.values() if member.up])
            cluster.crash(victim.id)
            cluster.run(chance.uniform(0, 1.0))
            cluster.restart(victim.id)
        elif what == "cut":
            cluster.network.isolate(chance.choice(cluster.ids), cluster.ids)
            cluster.run(chance.uniform(0, 2.0))
            cluster.network.heal()
        cluster.run(chance.uniform(0, 1.5))
    cluster.network.loss = 0.0
    cluster.run(1.0)  # Longer than a hand-over takes.
    cluster.run_until(lambda: cluster.leader() is not None, 20.0, "a leader after the storm")
    cluster.commit(3)
    leader = cluster.leader()
    assert leader is not None
    for member in cluster.members.values():
        member.up = member.up and member.id in leader.replica.membership.ids
    cluster.members = {node: member for node, member in cluster.members.items() if member.up}
    cluster.check_end()
    return cluster


@pytest.mark.parametrize("seed", range(25))
def test_members_change_under_faults(clock: Clock, seed: int) -> None:
    storm(clock, seed)


class FollowerThatIgnoresMembership(Follower):
    """A bug: an installed snapshot does not bring its membership."""

    def _install(self, snapshot: Snapshot, in_force: tuple[int, bytes]) -> bool:
        return super()._install(snapshot, self._journal.membership)


class LosesMembership(Replica):
    """A bug: the membership is lost with the log, and a snapshot does not restore it."""

    follower_class = FollowerThatIgnoresMembership

    def __init__(self, node_id: int, peers: Sequence[int], *, meta: MetaStore, **parts: Any) -> None:
        meta.set_membership((0, b""))
        super().__init__(node_id, peers, meta=meta, **parts)


def isolate_former_majority(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """Grow from three nodes to five; two of the first three lose their log and rejoin; then those two are isolated."""
    cluster = Cluster(clock, replica_class=replica_class, compaction_entries=20)
    cluster.elect()
    for node in (4, 5):
        cluster.join()
        cluster.add(node)
    for node in (1, 2):
        cluster.commit(60)
        cluster.settle()
        # A leader that is named in the old cluster files, too.
        leader = cluster.elect()
        if leader.id != 3:
            leader.replica.transfer_leadership(3)
            leader.turn()
            cluster.run_until(lambda: cluster.members[3].replica.is_leader)
        cluster.crash(node)
        cluster.run_until(lambda: cluster.leader() is not None)
        cluster.commit(60)
        cluster.restart(node)
        cluster.settle()
    for one in (1, 2):
        for other in (3, 4, 5):
            cluster.network.cut |= {(one, other), (other, one)}
    cluster.run(6.0)
    for _ in range(5):
        for member in cluster.members.values():
            if member.replica.is_leader:
                cluster.submit(member)
        cluster.run(0.5)
    cluster.network.heal()
    return cluster


def test_former_majority_cannot_commit(clock: Clock) -> None:
    isolate_former_majority(clock, Replica).check_end()


def test_cluster_splits_without_durable_membership(clock: Clock) -> None:
    with pytest.raises((Violation, ConsensusError), match="where another node applied"):
        isolate_former_majority(clock, LosesMembership)
