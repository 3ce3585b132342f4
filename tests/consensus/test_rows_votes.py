"""Faults 2, 9, 10 and 15: who may lead, and whose word counts."""

import pytest

from smrx.config import Timing
from smrx.consensus import ConsensusError, MemoryJournal, Replica, messages
from smrx.consensus.messages import AppendReply, Vote
from tests.consensus import stock
from tests.consensus.harness import TIMING, Clock, Cluster, Meta, Violation


def a_node_that_lost_its_log_meets_one_that_never_had_it(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """Commands are safe on 1 and 2; 2 restarts empty, 1 is cut off, and 3, which has none of them, is there again."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    follower, bystander = (member for member in cluster.members.values() if member is not leader)
    cluster.network.isolate(bystander.id, cluster.ids)
    cluster.commit(5)
    cluster.crash(follower.id)
    cluster.network.isolate(leader.id, cluster.ids)
    cluster.network.cut -= {(follower.id, bystander.id), (bystander.id, follower.id)}
    cluster.restart(follower.id)
    cluster.run(5)
    if follower.replica.leader_id is not None:
        cluster.commit()
    else:
        assert follower.replica.role == "learner"
        assert follower.replica.waiting == bystander.replica.waiting == "waiting for a majority that holds state"
    cluster.network.heal()
    cluster.commit()
    cluster.check_end()
    return cluster


def test_row_2_a_node_that_lost_its_log_does_not_vote_until_it_has_it_again(clock: Clock) -> None:
    cluster = a_node_that_lost_its_log_meets_one_that_never_had_it(clock, Replica)
    assert len(cluster.acknowledged) == 7
    assert all(member.replica.role != "learner" for member in cluster.members.values())


def test_row_2_without_the_answer_acknowledged_commands_vanish(clock: Clock) -> None:
    with pytest.raises((ConsensusError, Violation)):
        a_node_that_lost_its_log_meets_one_that_never_had_it(clock, stock.VotesWithoutItsLog)


def test_row_2_when_all_lose_their_logs_nobody_leads(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.settle()
    for node in cluster.ids:
        cluster.crash(node)
        cluster.restart(node)
    cluster.run(10)
    for member in cluster.members.values():
        assert member.replica.role == "learner"
        assert member.replica.leader_id is None
        assert member.replica.waiting == "waiting for a majority that holds state"


def test_row_2_a_vote_survives_a_restart(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.begin()
    member = cluster.members[2]
    cluster.say(1, 2, messages.RequestVote(1, 0), term=7)
    assert (member.meta.term, member.meta.vote) == (7, 1)
    member.transport.flush()
    cluster.crash(2)
    cluster.restart(2)
    cluster.network.keep_sent = True
    cluster.say(3, 2, messages.RequestVote(1, 0), term=7)
    member.transport.flush()
    bodies = [messages.decode(frame).body for source, _, frame in cluster.network.sent if source == 2]
    assert not any(isinstance(body, Vote) for body in bodies)


def test_row_2_nothing_leaves_before_the_vote_it_shows_is_durable(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.begin()
    member = cluster.members[2]
    seen = []
    send = member.transport._transmit
    member.transport._transmit = lambda peer, frame: seen.append(member.meta._durable[:2]) or send(peer, frame)
    cluster.say(1, 2, messages.RequestVote(1, 0), term=7)
    member.transport.flush()
    assert seen == [(7, 1)]


def test_row_2_a_leader_forgets_what_a_peer_held_in_its_former_life(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    follower, other = (node for node in cluster.ids if node != leader.id)
    cluster.crash(other)
    cluster.crash(follower)
    cluster.restart(follower)
    cluster.network.cut.add((leader.id, follower))
    cluster.run_until(lambda: any(peer.node_id == follower and peer.learner for peer in leader.replica.peer_status()))
    lag = {peer.node_id: peer.lag_entries for peer in leader.replica.peer_status()}
    assert lag[follower] == leader.replica.last_index


def test_row_2_a_learner_that_caught_up_counts_again(clock: Clock) -> None:
    cluster = Cluster(clock, compaction_entries=8)
    leader = cluster.elect()
    cluster.commit(40)
    cluster.settle()
    follower, other = (node for node in cluster.ids if node != leader.id)
    cluster.crash(follower)
    cluster.restart(follower)
    cluster.run_until(lambda: cluster.members[follower].replica.role == "follower")
    # Now it is one of the two that are needed.
    cluster.crash(other)
    cluster.commit(3)
    cluster.restart(other)
    cluster.check_end()


def test_a_node_whose_directory_was_replaced_outlives_the_lives_that_others_know(clock: Clock) -> None:
    """It learns before it counts, although its directory does not say that anybody relies on it."""
    cluster = Cluster(clock)
    leader = cluster.elect()
    node = next(node for node in cluster.ids if node != leader.id)
    for _ in range(2):
        cluster.crash(node)
        cluster.restart(node)
        cluster.commit()
    cluster.crash(node)
    member = cluster.members[node]
    member.meta = Meta()
    cluster.restart(node)
    assert member.meta.incarnation == 1
    cluster.run_until(lambda: member.meta.incarnation > 3, what="a later life than the third")
    cluster.run_until(lambda: member.replica.role == "learner", what="a node that knows there is state")
    cluster.run_until(lambda: member.replica.role == "follower", what="a node that counts")
    assert leader.transport.dropped["from an earlier incarnation of the sender"] > 0
    assert member.meta.initialized
    cluster.check_end()


def test_of_two_nodes_with_one_number_the_one_not_heard_says_so(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    node = next(node for node in cluster.ids if node != leader.id)
    member = cluster.members[node]
    cluster.say(leader.id, node, messages.Hello(), life=member.meta.incarnation + 5)
    member.turn()
    assert member.meta.incarnation > 5
    cluster.say(leader.id, node, messages.Hello(), life=member.meta.incarnation + 5)
    member.turn()
    assert "its data directory was replaced" in str(member.replica.waiting)
    # Nobody, a forger included, brings a node to a number after which none is left.
    before = member.meta.incarnation
    cluster.run(2)
    cluster.say(leader.id, node, messages.Hello(), life=1 << 44)
    member.turn()
    assert member.meta.incarnation == before
    cluster.check_end()


@pytest.mark.parametrize(("replica_class", "counts"), [(Replica, False), (stock.CountsStaleAcknowledgements, True)])
def test_row_9_an_acknowledgement_of_another_term_does_not_count(
    clock: Clock, replica_class: type[Replica], counts: bool
) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    follower = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(leader.id, cluster.ids)
    cluster.submit(leader)
    index = leader.replica.last_index
    # Given to an earlier leadership, for another entry at this index.
    cluster.say(follower, leader.id, AppendReply(index + 1, False, True, 0), term=leader.replica.term - 1)
    leader.turn()
    assert (leader.replica.commit_index == index) is counts


@pytest.mark.parametrize(("replica_class", "leads"), [(Replica, False), (stock.CountsEveryVote, True)])
def test_row_10_a_vote_said_twice_is_one_vote(clock: Clock, replica_class: type[Replica], leads: bool) -> None:
    cluster = Cluster(clock, nodes=5, replica_class=replica_class)
    cluster.run_until(lambda: any(m.replica.role == "candidate" for m in cluster.members.values()))
    candidate = next(m for m in cluster.members.values() if m.replica.role == "candidate")
    voter = next(node for node in cluster.ids if node != candidate.id)
    for _ in range(2):
        cluster.say(voter, candidate.id, Vote(candidate.replica.term))
    assert candidate.replica.is_leader is leads


@pytest.mark.parametrize(("replica_class", "leads"), [(Replica, False), (stock.CountsEveryVote, True)])
def test_row_10_a_node_without_its_log_has_no_vote(clock: Clock, replica_class: type[Replica], leads: bool) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    cluster.run_until(lambda: any(m.replica.role == "candidate" for m in cluster.members.values()))
    candidate = next(m for m in cluster.members.values() if m.replica.role == "candidate")
    voter = next(node for node in cluster.ids if node != candidate.id)
    cluster.say(voter, candidate.id, Vote(candidate.replica.term), flags=messages.LEARNER)
    assert candidate.replica.is_leader is leads


def leaders_at_once(clock: Clock, replica_class: type[Replica], timing: Timing) -> int:
    """Cut the leader off; return the most nodes that ever believed to lead at one time."""
    cluster = Cluster(clock, replica_class=replica_class, timing=timing)
    old = cluster.elect()
    cluster.settle()
    cluster.network.isolate(old.id, cluster.ids)
    most = 0
    end = clock.time + 5
    while clock.time < end:
        cluster.step(end)
        most = max(most, sum(member.replica.is_leader for member in cluster.members.values()))
    assert cluster.leader() is not old
    return most


def test_row_15_a_leader_cut_off_steps_down_before_another_is_elected(clock: Clock) -> None:
    assert leaders_at_once(clock, Replica, TIMING) == 1


def test_row_15_without_the_answer_two_lead(clock: Clock) -> None:
    patient = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=30_000)
    assert leaders_at_once(clock, stock.LeadsOnAlone, patient) == 2


def test_row_15_such_a_timing_is_refused(clock: Clock) -> None:
    patient = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=600)
    with pytest.raises(ValueError, match=r"timing\.leader_fallback_ms: expected less than election_min_ms"):
        Cluster(clock, timing=patient)


def test_a_node_that_was_cut_off_disturbs_nobody_when_it_returns(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    term = leader.replica.term
    lost = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(lost, cluster.ids)
    cluster.run(10)
    cluster.network.heal()
    cluster.commit(3)
    cluster.check_end()
    assert (cluster.leader(), leader.replica.term) == (leader, term)


def test_a_link_that_fails_between_leader_and_follower_deposes_nobody(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    term = leader.replica.term
    follower = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(leader.id, [follower])
    cluster.commit(3)
    cluster.run(10)
    cluster.commit(3)
    assert (cluster.leader(), leader.replica.term) == (leader, term)


def test_row_8_a_journal_that_outlives_the_state_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="journal: a persistent journal needs a persistent snapshot store"):
        restart_with_a_persistent_journal(clock, Replica)


def test_row_8_without_the_answer_compaction_destroys_the_state(clock: Clock) -> None:
    assert restart_with_a_persistent_journal(clock, stock.AllowsPersistentJournal)[:3] != [1, 2, 3]


class PersistentJournal(MemoryJournal):
    """Stands for one on a disk: it is still there when the replica is made again."""

    persistent = True


def restart_with_a_persistent_journal(clock: Clock, replica_class: type[Replica]) -> list[int]:
    """Run past a compaction on one node, start again from its journal; return the commands it has then."""
    cluster = Cluster(clock, nodes=1, replica_class=replica_class, compaction_entries=8)
    member = cluster.members[1]
    journal = PersistentJournal()
    for life in range(2):
        machine = cluster.machine_class()
        replica = replica_class(
            1,
            [],
            machine=machine,
            transport=member.transport,
            meta=member.meta,
            journal=journal,
            settings=cluster.settings(),
        )
        replica.tick()
        for number in range(20 if life == 0 else 0):
            replica.submit(b"\0\1" + (number + 1).to_bytes(8, "little"))
            replica.tick()
    return machine.numbers
