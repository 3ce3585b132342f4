"""Who may act on an empty log: the first nodes of a cluster, and nobody who comes later or lost what it had."""

import pytest

from smrx.consensus import MemoryJournal, MetaStore, Replica
from smrx.consensus.follower import Follower
from smrx.consensus.messages import LEARNER, NEW, Hello, RequestVote
from tests.consensus.harness import Clock, Cluster, Member, Meta, Violation


class VotesEmpty(Replica):
    """An empty node takes its cluster file at its word."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return meta.joined and journal.may_lack_entries


class TrustingFollower(Follower):
    """A node that learns takes the first leader it meets for the one of the moment."""

    def _has_newest_term(self) -> bool:
        return True


class CatchesUpWithAnybody(Replica):
    """A replica with this bug."""

    follower_class = TrustingFollower


def followers(cluster: Cluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members.values() if member.up and member is not leader]


def begin_empty(cluster: Cluster, node: int) -> Member:
    """A node that died is there again, and its directory is not."""
    cluster.members[node].meta = Meta()
    cluster.restart(node)
    return cluster.members[node]


def a_sleeper_meets_an_empty_node(clock: Clock, replica_class: type[Replica]) -> None:
    """Of nodes 1 to 3 one sleeps, one leaves, and comes back empty to the sleeper alone; two others took over."""
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
    begin_empty(cluster, gone.id)
    cluster.run(8)
    assert not sleeper.replica.is_leader
    cluster.commit(3)
    cluster.network.heal()
    cluster.run_until(lambda: sleeper.replica.leader_id == leader.id)
    cluster.crash(gone.id)
    cluster.settle()


def test_an_empty_node_does_not_vote_for_one_that_slept_through_changes(clock: Clock) -> None:
    a_sleeper_meets_an_empty_node(clock, Replica)


def test_an_empty_node_that_votes_gives_the_cluster_two_leaders(clock: Clock) -> None:
    with pytest.raises((AssertionError, Violation)):
        a_sleeper_meets_an_empty_node(clock, VotesEmpty)


def test_a_cluster_begins_once_all_were_there_and_not_before(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.crash(3)
    cluster.run(5)
    assert cluster.leader() is None
    assert {member.replica.role for member in followers(cluster, cluster.members[3])} == {"follower"}
    assert not any(member.meta.initialized for member in cluster.members.values())
    cluster.restart(3)
    cluster.elect()
    cluster.check_end()


def test_nobody_stands_before_all_know_that_they_are_of_the_first(clock: Clock) -> None:
    """Node 3 is heard and hears nobody: with a leader now, it would take itself for one that lost everything."""
    cluster = Cluster(clock)
    cluster.network.cut |= {(1, 3), (2, 3)}
    cluster.run(0.3)
    # What the first message of each would have told.
    for node in (1, 2):
        cluster.say(3, node, Hello(), flags=NEW | LEARNER)
    cluster.run(5)
    assert all(cluster.members[node].meta.initialized for node in (1, 2))
    assert cluster.leader() is None
    cluster.network.heal()
    cluster.elect()
    assert cluster.members[3].meta.initialized
    cluster.check_end()


def test_one_of_the_first_has_its_vote_though_it_never_held_anything(clock: Clock) -> None:
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


def test_an_empty_node_gives_no_vote(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.say(1, 2, RequestVote(1, 0), term=7)
    assert cluster.members[2].meta.vote is None


def test_one_word_that_was_forged_does_not_keep_a_cluster_from_beginning(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.say(1, 2, Hello())
    cluster.elect()
    cluster.check_end()


def an_empty_node_hears_one_leader_alone(clock: Clock, replica_class: type[Replica]) -> Cluster:
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.commit(5)
    cluster.settle()
    empty, other = followers(cluster, leader)
    cluster.crash(empty.id)
    cluster.network.isolate(empty.id, [other.id])
    begin_empty(cluster, empty.id)
    cluster.run_until(lambda: empty.replica.last_index == leader.replica.last_index)
    cluster.run(2)
    assert empty.replica.role == "learner"
    cluster.network.heal()
    cluster.run_until(lambda: empty.replica.role == "follower")
    return cluster


def test_an_empty_node_counts_once_it_heard_enough_to_know_who_leads(clock: Clock) -> None:
    """It may have voted for a later leader than the one it hears, and does not know any more."""
    an_empty_node_hears_one_leader_alone(clock, Replica).check_end()


def test_an_empty_node_that_believes_any_leader_counts_too_early(clock: Clock) -> None:
    with pytest.raises(AssertionError, match="learner"):
        an_empty_node_hears_one_leader_alone(clock, CatchesUpWithAnybody)


class FollowerThatMayVoteAgain(Follower):
    """A node that learned keeps the vote it does not know it gave."""

    def _keep_only_vote(self, leader: int) -> None:
        pass


class MayVoteAgain(Replica):
    """A replica with this bug."""

    follower_class = FollowerThatMayVoteAgain


def an_empty_node_is_asked_for_a_vote_it_may_have_given(clock: Clock, replica_class: type[Replica]) -> int | None:
    """Whom it votes for in the term of the leader it learned from."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    empty, other = followers(cluster, leader)
    cluster.crash(empty.id)
    begin_empty(cluster, empty.id)
    cluster.run_until(lambda: empty.meta.initialized)
    # Of the election before: an echo.
    cluster.say(other.id, empty.id, RequestVote(100, empty.replica.term - 1))
    assert leader.replica.is_leader
    return {leader.id: leader.id, other.id: None}.get(empty.meta.vote or 0)


def test_an_empty_node_votes_for_nobody_in_the_term_of_the_leader_it_learned_from(clock: Clock) -> None:
    assert an_empty_node_is_asked_for_a_vote_it_may_have_given(clock, Replica) is not None


def test_an_empty_node_that_keeps_its_vote_may_give_it_twice(clock: Clock) -> None:
    assert an_empty_node_is_asked_for_a_vote_it_may_have_given(clock, MayVoteAgain) is None
