"""Membership changes at bad moments: between two leaders, unknown to some nodes, with a reused id."""

import pytest

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, Replica, peer_progress
from smrx.consensus.leader import Leader
from smrx.consensus.membership import Member as Member_
from smrx.consensus.membership import MembershipError
from smrx.consensus.messages import (
    AppendEntries,
    AppendReply,
    Body,
    HashReply,
    HashRequest,
    Hello,
    MembershipHint,
    NotAMember,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    Vote,
)
from tests.consensus.harness import GENESIS, Clock, Cluster, Member, Violation


def followers(cluster: Cluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members.values() if member.up and member is not leader]


def let_lead(cluster: Cluster, node: int) -> Member:
    """Make a node the leader, if it is not."""
    leader = cluster.elect()
    if leader.id != node:
        cluster.run_until(
            lambda: (
                leader.replica.commit_index == leader.replica.last_index == cluster.members[node].replica.applied_index
            )
        )
        leader.replica.transfer_leadership(node)
        leader.turn()
        cluster.run_until(lambda: cluster.members[node].replica.is_leader)
    cluster.commit()
    return cluster.members[node]


def test_removal_committed_by_next_leader_removes_only_that_node(clock: Clock) -> None:
    """The next leader never sent anything to the one that goes."""
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    gone, *staying = followers(cluster, leader)
    cluster.network.isolate(leader.id, [gone.id])
    leader.replica.remove_member(gone.id)
    leader.turn()
    cluster.run_until(lambda: all(gone.id not in member.replica.membership.ids for member in staying))
    cluster.crash(leader.id)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.leader() in staying)
    cluster.commit(3)
    cluster.run_until(lambda: gone.replica.removed, what="a node that knows it is removed")


class LeaderThatSendsRemovals(Leader):
    """A bug: a removal is sent to the removed node before it is committed."""

    def _last_for(self, peer: int) -> int:
        return self._journal.last_index


class SendsRemovals(Replica):
    """A replica with this bug."""

    leader_class = LeaderThatSendsRemovals


@pytest.mark.parametrize("replica_class", [Replica, SendsRemovals])
def test_majority_can_elect_after_leader_dies_with_a_removal(clock: Clock, replica_class: type[Replica]) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    gone, staying = followers(cluster, leader)
    cluster.network.isolate(staying.id, cluster.ids)
    leader.replica.remove_member(gone.id)
    leader.turn()
    cluster.run(0.2)
    cluster.crash(leader.id)
    cluster.network.heal()
    if replica_class is SendsRemovals:
        with pytest.raises(Violation):
            cluster.commit()
        return
    cluster.commit()
    cluster.restart(leader.id)
    cluster.commit()
    cluster.check_end()
    assert {member.replica.membership.voters for member in cluster.members.values()} == {frozenset({1, 2, 3})}


def test_uncommitted_removal_removes_no_node_despite_late_messages(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    gone, staying = followers(cluster, leader)
    cluster.network.keep_sent = True
    cluster.run(0.5)
    late = [frame for source, target, frame in cluster.network.sent if (source, target) == (leader.id, gone.id)]
    cluster.network.isolate(staying.id, cluster.ids)
    # As a leader with that bug would.
    monkeypatch.setattr(leader.replica.leader, "_last_for", lambda peer: leader.replica.last_index)
    leader.replica.remove_member(gone.id)
    leader.turn()
    cluster.run_until(lambda: gone.id not in gone.replica.membership.ids)
    for frame in late:
        gone.transport.receive(frame)
    assert not gone.replica.removed
    cluster.network.heal()
    cluster.run_until(lambda: gone.replica.removed)


def test_lost_uncommitted_change_is_revoked(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    one, other = followers(cluster, leader)
    cluster.network.isolate(leader.id, cluster.ids)
    leader.replica.remove_member(other.id)
    leader.turn()
    cluster.crash(leader.id)
    cluster.run_until(lambda: cluster.leader() in (one, other))
    cluster.commit(5)
    cluster.network.heal()
    cluster.restart(leader.id)
    cluster.settle()
    cluster.run_until(lambda: leader.replica.role == "follower")
    assert leader.replica.membership.voters == {1, 2, 3}
    assert leader.replica.waiting is None
    cluster.crash(leader.id)
    cluster.restart(leader.id)
    cluster.settle()
    assert leader.replica.membership.voters == {1, 2, 3}


def test_new_member_replaying_old_memberships_keeps_its_leader(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it catches up it applies memberships that lack its leader."""
    monkeypatch.setattr(peer_progress, "WINDOW_MESSAGES", 2)
    cluster = Cluster(clock, batch_bytes=300, compaction_entries=10_000)
    cluster.elect()
    cluster.commit(30)
    cluster.join()
    cluster.add(4)
    cluster.remove(4)
    cluster.members[4].up = False
    cluster.commit(300)
    cluster.members[4] = Member(cluster, 4)
    cluster.add(4)
    let_lead(cluster, 4)
    cluster.join()
    cluster.add(5)
    cluster.settle()
    cluster.check_end()


def test_node_without_log_finds_unknown_leader(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    sleeper = followers(cluster, leader)[0]
    cluster.crash(sleeper.id)
    cluster.join()
    cluster.unknown_to[sleeper.id].add(4)
    cluster.add(4)
    let_lead(cluster, 4)
    cluster.restart(sleeper.id)
    cluster.commit(3)
    cluster.settle()
    assert sleeper.replica.leader_id == 4
    cluster.check_end()


def test_deposed_leader_with_long_tail_finds_unknown_leader(clock: Clock) -> None:
    cluster = Cluster(clock)
    old = cluster.elect()
    cluster.settle()
    cluster.network.isolate(old.id, cluster.ids)
    for _ in range(100):
        cluster.submit(old)
    old.turn()
    cluster.run_until(lambda: cluster.leader() not in (None, old))
    cluster.join()
    cluster.network.isolate(old.id, cluster.ids)
    cluster.add(4)
    let_lead(cluster, 4)
    cluster.network.heal()
    cluster.run_until(lambda: old.replica.leader_id == 4, what="the old leader to follow the new one")
    cluster.settle()
    cluster.check_end()


def test_returning_node_accepts_replacement_with_reused_id(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    dead, sleeper, *_ = followers(cluster, leader)
    for _ in range(3):
        cluster.crash(dead.id)
        cluster.restart(dead.id)
        cluster.settle()
    cluster.network.isolate(sleeper.id, cluster.ids)
    cluster.crash(dead.id)
    cluster.remove(dead.id)
    cluster.members[dead.id] = Member(cluster, dead.id)
    cluster.add(dead.id)
    cluster.network.heal()
    cluster.settle()
    let_lead(cluster, sleeper.id)
    cluster.commit(5)
    cluster.settle()
    assert cluster.members[dead.id].replica.leader_id == sleeper.id
    assert all(member.replica.waiting is None for member in cluster.members.values())


def test_returning_node_finds_leader_with_reused_id(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    dead, sleeper, *_ = followers(cluster, leader)
    for _ in range(3):
        cluster.crash(dead.id)
        cluster.restart(dead.id)
        cluster.settle()
    cluster.network.isolate(sleeper.id, cluster.ids)
    cluster.crash(dead.id)
    cluster.remove(dead.id)
    cluster.members[dead.id] = Member(cluster, dead.id)
    cluster.add(dead.id)
    let_lead(cluster, dead.id)
    cluster.network.heal()
    cluster.run_until(lambda: sleeper.replica.leader_id == dead.id)
    cluster.settle()
    cluster.check_end()


def test_messages_of_non_members_remove_no_node(clock: Clock) -> None:
    """One that is a peer but no member, and one that is unknown."""
    cluster = Cluster(clock)
    cluster.elect()
    cluster.join()
    cluster.add(4)
    leader = let_lead(cluster, 1)
    cluster.settle()
    # A peer without being a member, as after an edit of the cluster file.
    known = [member for member in cluster.members.values() if member.id != 4]
    for member in known:
        member.replica.member_changes.remove_former_peers = lambda: None  # type: ignore[method-assign]
    leader.replica.remove_member(4)
    cluster.run_until(lambda: all(member.replica.membership.ids == {1, 2, 3} for member in known))
    here = leader.replica.last_index
    some = SnapshotChunk(here, 1, 0, bytes(16), 0, b"", here, here, 0, 1, GENESIS[1])
    bodies: list[Body] = [
        Hello(),
        AppendEntries(here, 1, here, here, 0, False, []),
        AppendReply(here + 1, False, True, 0),
        AppendReply(2, True, False, 0),
        SnapshotReply(here, 0, False),
        SnapshotReply(here, 0, True),
        some,
        TimeoutNow(),
        RequestVote(1, 0),
        Vote(1),
        PreVote(1, 1, 0),
        PreVoteReply(1),
        HashRequest([1]),
        HashReply([(1, 1)]),
        MembershipHint([Member_(NodeConfig(id=200, port=1), False, 7)]),
        NotAMember(9),
    ]
    for member in known:
        for body in bodies:
            for term in (member.replica.term, 0, member.replica.term + 1):
                cluster.deliver(4, member.id, body, term=term)
                member.turn()
                cluster.run(0.01)
    cluster.crash(4)
    cluster.commit(5)
    assert cluster.members[1].replica.membership.ids == {1, 2, 3}


def test_successor_that_cannot_campaign_keeps_following(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    first, *others = followers(cluster, leader)
    cluster.network.isolate(first.id, [other.id for other in others])
    cluster.run(2.0)
    leader.replica.transfer_leadership(first.id)
    leader.turn()
    cluster.run_until(lambda: not leader.replica.is_transferring)
    cluster.network.heal()
    cluster.run(3.0)
    assert leader.replica.is_leader
    for _ in range(100):
        cluster.run(0.02)
        assert first.replica.leader_id == leader.id


def test_timeout_now_expires_with_its_term(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    told, other = followers(cluster, leader)
    leader_term = leader.replica.term
    cluster.deliver(leader.id, told.id, TimeoutNow())
    # Before its next tick another term begins.
    cluster.deliver(other.id, told.id, PreVote(1, 1, 0), term=leader_term + 1)
    told.turn()
    # It asks first.
    assert (told.replica.term, told.replica.role) == (leader_term + 1, "follower")
    cluster.commit()


def test_learner_with_the_right_state_is_not_fenced(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=4)
    leader = cluster.elect()
    cluster.settle()
    learner, wrong, _ = followers(cluster, leader)
    # As on a learner: its own membership counts the others.
    learner.replica.agreement.set_voters({1, 2, 3, 4} - {learner.id})
    wrong.machine.corruption = 1
    cluster.submit(leader)
    cluster.run(3.0)
    assert wrong.replica.agreement.fenced is not None
    assert learner.replica.agreement.fenced is None


def test_removal_without_available_majority_is_refused(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=4)
    leader = cluster.elect()
    cluster.settle()
    dead, alive, third = followers(cluster, leader)
    cluster.remove(third.id)
    cluster.crash(third.id)
    cluster.crash(dead.id)
    cluster.run_until(lambda: not leader.transport.is_connected(dead.id))
    with pytest.raises(MembershipError, match="majority"):
        leader.replica.remove_member(alive.id)
    cluster.commit(1)
    leader.replica.remove_member(dead.id)
    cluster.commit(1)


def test_membership_at_never_returns_a_later_index() -> None:
    journal = MemoryJournal()
    journal.set_base_membership((50, b"\x04"))
    assert journal.membership_at(7) == (7, b"\x04")


def test_invalid_addresses_do_not_enter_the_log(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    for host in ("no such host", "", "a/b", "tcp://x"):
        with pytest.raises(MembershipError, match="host"):
            leader.replica.add_member(NodeConfig(id=4, port=4, host=host))
    with pytest.raises(MembershipError, match="keys"):
        leader.replica.add_member(NodeConfig(id=4, port=4, public_keys=("k" * 40,)))
    cluster.commit(1)
