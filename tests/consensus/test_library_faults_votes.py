"""Library faults 2, 8, 9, 10 and 15: which node may lead, and whose votes and acknowledgements count."""

import pytest

from smrx.config import Timing
from smrx.consensus import ConsensusError, MemoryJournal, Replica, messages
from smrx.consensus.messages import AppendReply, Vote
from tests.consensus import stock
from tests.consensus.harness import ENTRY_HEAD, TIMING, Clock, Cluster, Meta, Violation


def node_without_log_meets_lagging_node(clock: Clock, replica_class: type[Replica]) -> Cluster:
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


def test_row_2_node_without_log_does_not_vote_until_it_has_caught_up(clock: Clock) -> None:
    cluster = node_without_log_meets_lagging_node(clock, Replica)
    assert len(cluster.acknowledged) == 7
    assert all(member.replica.role != "learner" for member in cluster.members.values())


def test_row_2_uncorrected_loses_acknowledged_commands(clock: Clock) -> None:
    with pytest.raises((ConsensusError, Violation)):
        node_without_log_meets_lagging_node(clock, stock.VotesWithoutItsLog)


def test_row_2_no_node_leads_if_all_lost_their_logs(clock: Clock) -> None:
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


def test_row_2_vote_survives_a_restart(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.bootstrap()
    member = cluster.members[2]
    cluster.deliver(1, 2, messages.RequestVote(1, 0), term=7)
    assert (member.meta.term, member.meta.vote) == (7, 1)
    member.transport.flush()
    cluster.crash(2)
    cluster.restart(2)
    cluster.network.keep_sent = True
    cluster.deliver(3, 2, messages.RequestVote(1, 0), term=7)
    member.transport.flush()
    bodies = [messages.decode(frame).body for source, _, frame in cluster.network.sent if source == 2]
    assert not any(isinstance(body, Vote) for body in bodies)


def test_row_2_vote_is_durable_before_it_is_sent(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.bootstrap()
    member = cluster.members[2]
    seen = []
    send = member.transport._transmit
    member.transport._transmit = lambda peer, frame: seen.append(member.meta._durable[:2]) or send(peer, frame)
    cluster.deliver(1, 2, messages.RequestVote(1, 0), term=7)
    member.transport.flush()
    assert seen == [(7, 1)]


def test_row_2_leader_resets_a_peer_with_a_new_incarnation(clock: Clock) -> None:
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


def test_row_2_learner_that_caught_up_counts_again(clock: Clock) -> None:
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


def test_node_with_replaced_directory_exceeds_known_incarnation(clock: Clock) -> None:
    """It catches up before it counts, although its directory does not record that it has joined."""
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
    cluster.run_until(lambda: member.meta.incarnation > 3, what="a later incarnation than the third")
    cluster.run_until(lambda: member.replica.role == "learner", what="a node that knows there is state")
    cluster.run_until(lambda: member.replica.role == "follower", what="a node that counts")
    assert leader.transport.dropped["from an earlier incarnation of the sender"] > 0
    assert member.meta.initialized
    cluster.check_end()


def test_ignored_node_with_duplicate_id_reports_it(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    node = next(node for node in cluster.ids if node != leader.id)
    member = cluster.members[node]
    cluster.deliver(leader.id, node, messages.Hello(), incarnation=member.meta.incarnation + 5)
    member.turn()
    assert member.meta.incarnation > 5
    cluster.deliver(leader.id, node, messages.Hello(), incarnation=member.meta.incarnation + 5)
    member.turn()
    assert "its data directory was replaced" in str(member.replica.waiting)
    # Not even a forged message can exhaust the incarnation numbers.
    before = member.meta.incarnation
    cluster.run(2)
    cluster.deliver(leader.id, node, messages.Hello(), incarnation=1 << 44)
    member.turn()
    assert member.meta.incarnation == before
    cluster.check_end()


@pytest.mark.parametrize(("replica_class", "counts"), [(Replica, False), (stock.CountsStaleAcknowledgements, True)])
def test_row_9_acknowledgement_of_another_term_does_not_count(
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
    cluster.deliver(follower, leader.id, AppendReply(index + 1, False, True, 0), term=leader.replica.term - 1)
    leader.turn()
    assert (leader.replica.commit_index == index) is counts


@pytest.mark.parametrize(("replica_class", "leads"), [(Replica, False), (stock.CountsEveryVote, True)])
def test_row_10_repeated_vote_counts_once(clock: Clock, replica_class: type[Replica], leads: bool) -> None:
    cluster = Cluster(clock, nodes=5, replica_class=replica_class)
    cluster.run_until(lambda: any(m.replica.role == "candidate" for m in cluster.members.values()))
    candidate = next(m for m in cluster.members.values() if m.replica.role == "candidate")
    voter = next(node for node in cluster.ids if node != candidate.id)
    for _ in range(2):
        cluster.deliver(voter, candidate.id, Vote(candidate.replica.term))
    assert candidate.replica.is_leader is leads


@pytest.mark.parametrize(("replica_class", "leads"), [(Replica, False), (stock.CountsEveryVote, True)])
def test_row_10_vote_of_a_node_without_log_does_not_count(
    clock: Clock, replica_class: type[Replica], leads: bool
) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    cluster.run_until(lambda: any(m.replica.role == "candidate" for m in cluster.members.values()))
    candidate = next(m for m in cluster.members.values() if m.replica.role == "candidate")
    voter = next(node for node in cluster.ids if node != candidate.id)
    cluster.deliver(voter, candidate.id, Vote(candidate.replica.term), flags=messages.LEARNER)
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


def test_row_15_isolated_leader_steps_down_before_another_is_elected(clock: Clock) -> None:
    assert leaders_at_once(clock, Replica, TIMING) == 1


def test_row_15_uncorrected_two_nodes_lead(clock: Clock) -> None:
    patient = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=30_000)
    assert leaders_at_once(clock, stock.LeadsOnAlone, patient) == 2


def test_row_15_timing_that_allows_two_leaders_is_refused(clock: Clock) -> None:
    patient = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=600)
    with pytest.raises(ValueError, match=r"timing\.leader_fallback_ms: expected less than election_min_ms"):
        Cluster(clock, timing=patient)


def test_isolated_node_disturbs_no_leader_when_it_returns(clock: Clock) -> None:
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


def test_failed_link_to_a_follower_deposes_no_leader(clock: Clock) -> None:
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


def test_row_8_persistent_journal_without_snapshots_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="journal: a persistent journal needs a persistent snapshot store"):
        restart_with_a_persistent_journal(clock, Replica)


def test_row_8_uncorrected_compaction_destroys_the_state(clock: Clock) -> None:
    assert restart_with_a_persistent_journal(clock, stock.AllowsPersistentJournal)[:3] != [1, 2, 3]


class PersistentJournal(MemoryJournal):
    """Stands for a journal on disk: it survives a restart of the replica."""

    persistent = True


def restart_with_a_persistent_journal(clock: Clock, replica_class: type[Replica]) -> list[int]:
    """Run one node past a compaction and restart it from its journal; return the commands it has then."""
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
            replica.submit(ENTRY_HEAD + (number + 1).to_bytes(8, "little"))
            replica.tick()
    return machine.numbers
