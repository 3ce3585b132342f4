"""Bootstrap: only the first nodes of a cluster act on an empty log, not a later node or one that lost its data."""

import pytest

from smrx.consensus import MemoryJournal, MetaStore, Replica
from smrx.consensus.follower import Follower
from smrx.consensus.messages import LEARNER, NEW, Hello, RequestVote
from tests.consensus.harness import Clock, Cluster, Member, Meta, Violation


class VotesEmpty(Replica):
    """A bug: an empty node votes as if its cluster were new."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return meta.joined and journal.may_lack_entries


class TrustingFollower(Follower):
    """A bug: a rejoining node accepts the first leader it receives something from."""

    def _has_newest_term(self) -> bool:
        return True


class CatchesUpWithAnyLeader(Replica):
    """A replica with this bug."""

    follower_class = TrustingFollower


def followers(cluster: Cluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members.values() if member.up and member is not leader]


def restart_empty(cluster: Cluster, node: int) -> Member:
    """Restart a crashed node without its directory."""
    cluster.members[node].meta = Meta()
    cluster.restart(node)
    return cluster.members[node]


def outdated_node_meets_empty_node(clock: Clock, replica_class: type[Replica]) -> None:
    """Of nodes 1 to 3 one is away, one is removed and returns empty to that one only; two new nodes have joined."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    sleeper, gone = followers(cluster, leader)
    cluster.settle()
    cluster.network.isolate(sleeper.id, [1, 2, 3, 4, 5])
    for _ in range(2):
        newcomer = cluster.join()
        cluster.network.isolate(sleeper.id, [newcomer.id])
        cluster.add(newcomer.id)
    cluster.remove(gone.id)
    cluster.crash(gone.id)
    cluster.commit(3)
    cluster.network.heal()
    for node in (sleeper.id, gone.id):
        cluster.network.isolate(node, [leader.id, 4, 5])
    restart_empty(cluster, gone.id)
    cluster.run(8)
    assert not sleeper.replica.is_leader
    cluster.commit(3)
    cluster.network.heal()
    cluster.run_until(lambda: sleeper.replica.leader_id == leader.id)
    cluster.crash(gone.id)
    cluster.settle()


def test_empty_node_does_not_vote_for_outdated_node(clock: Clock) -> None:
    outdated_node_meets_empty_node(clock, Replica)


def test_voting_empty_node_makes_two_leaders(clock: Clock) -> None:
    with pytest.raises((AssertionError, Violation)):
        outdated_node_meets_empty_node(clock, VotesEmpty)


def test_cluster_bootstraps_once_all_nodes_have_connected(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.crash(3)
    cluster.run(5)
    assert cluster.leader() is None
    assert {member.replica.role for member in followers(cluster, cluster.members[3])} == {"follower"}
    assert not any(member.meta.initialized for member in cluster.members.values())
    cluster.restart(3)
    cluster.elect()
    cluster.check_end()


def test_no_node_campaigns_before_all_are_bootstrapped(clock: Clock) -> None:
    """Node 3 can send but not receive: with a leader now, it would treat itself as a node that lost its data."""
    cluster = Cluster(clock)
    cluster.network.cut |= {(1, 3), (2, 3)}
    cluster.run(0.3)
    # What the first message of each would have reported.
    for node in (1, 2):
        cluster.deliver(3, node, Hello(), flags=NEW | LEARNER)
    cluster.run(5)
    assert all(cluster.members[node].meta.initialized for node in (1, 2))
    assert cluster.leader() is None
    cluster.network.heal()
    cluster.elect()
    assert cluster.members[3].meta.initialized
    cluster.check_end()


def test_bootstrapped_node_votes_without_ever_holding_state(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.run_until(lambda: cluster.leader() is not None)
    leader = cluster.leader()
    assert leader is not None
    one, other = followers(cluster, leader)
    cluster.network.isolate(other.id, cluster.ids)
    cluster.commit(3)
    cluster.run_until(lambda: one.machine.position() == leader.machine.position())
    assert not other.meta.joined
    cluster.crash(other.id)
    cluster.restart(other.id)
    cluster.crash(leader.id)
    cluster.network.heal()
    cluster.run_until(lambda: one.replica.is_leader, what="a leader by the vote of an empty node of the first")
    cluster.commit(2)


def test_empty_node_does_not_vote(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.deliver(1, 2, RequestVote(1, 0), term=7)
    assert cluster.members[2].meta.vote is None


def test_forged_hello_does_not_prevent_bootstrap(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.deliver(1, 2, Hello())
    cluster.elect()
    cluster.check_end()


def empty_node_reaches_only_one_leader(clock: Clock, replica_class: type[Replica]) -> Cluster:
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.commit(5)
    cluster.settle()
    empty, other = followers(cluster, leader)
    cluster.crash(empty.id)
    cluster.network.isolate(empty.id, [other.id])
    restart_empty(cluster, empty.id)
    cluster.run_until(lambda: empty.replica.last_index == leader.replica.last_index)
    cluster.run(2)
    assert empty.replica.role == "learner"
    cluster.network.heal()
    cluster.run_until(lambda: empty.replica.role == "follower")
    return cluster


def test_empty_node_counts_once_a_quorum_has_reported(clock: Clock) -> None:
    """It may have voted for a later leader than the one it is connected to, and has lost the vote."""
    empty_node_reaches_only_one_leader(clock, Replica).check_end()


def test_empty_node_that_follows_any_leader_counts_too_early(clock: Clock) -> None:
    with pytest.raises(AssertionError, match="learner"):
        empty_node_reaches_only_one_leader(clock, CatchesUpWithAnyLeader)


class FollowerThatKeepsItsVote(Follower):
    """A bug: a rejoined node does not replace the vote it may have given before."""

    def _keep_only_vote(self, leader: int) -> None:
        pass


class KeepsItsVote(Replica):
    """A replica with this bug."""

    follower_class = FollowerThatKeepsItsVote


def vote_of_rejoined_node(clock: Clock, replica_class: type[Replica]) -> int | None:
    """Return its vote in the term of the leader it has caught up with; None if it is for another node."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    empty, other = followers(cluster, leader)
    cluster.crash(empty.id)
    restart_empty(cluster, empty.id)
    cluster.run_until(lambda: empty.meta.initialized)
    # A late message of the election before.
    cluster.deliver(other.id, empty.id, RequestVote(100, empty.replica.term - 1))
    assert leader.replica.is_leader
    return {leader.id: leader.id, other.id: None}.get(empty.meta.vote or 0)


def test_rejoined_node_does_not_vote_in_the_term_of_its_leader(clock: Clock) -> None:
    assert vote_of_rejoined_node(clock, Replica) is not None


def test_rejoined_node_without_that_rule_votes_twice(clock: Clock) -> None:
    assert vote_of_rejoined_node(clock, KeepsItsVote) is None
