"""Linearizable reads: one round confirms all of a turn, and no deposed leader answers one."""

import pytest

from smrx.consensus import NotLeader, messages
from smrx.consensus.messages import AppendReply
from smrx.consensus.read_index import ReadState, ReadTicket
from tests.consensus.harness import Clock, Cluster, Member


def request(member: Member) -> ReadTicket:
    """Request a read and send what confirms it, as a turn does."""
    ticket = member.replica.request_read()
    member.replica.confirm_reads()
    member.turn()
    return ticket


def state(member: Member, ticket: ReadTicket) -> ReadState:
    return member.replica.read_state(ticket)


def test_read_is_ready_after_one_round_trip(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.001, 0.001)
    cluster.run(0.01)
    start = clock.time
    ticket = request(leader)
    assert ticket.log_index == leader.replica.commit_index
    assert state(leader, ticket) is ReadState.WAITING
    cluster.run_until(lambda: state(leader, ticket) is ReadState.READY)
    assert clock.time - start == pytest.approx(0.002, abs=2e-4)


def test_reads_of_a_turn_share_a_round(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    tickets = [leader.replica.request_read() for _ in range(100)]
    cluster.network.keep_sent = True
    leader.replica.confirm_reads()
    leader.replica.confirm_reads()
    leader.transport.flush()
    assert len([frame for source, _, frame in cluster.network.sent if source == leader.id]) == 2
    cluster.run_until(lambda: all(state(leader, ticket) is ReadState.READY for ticket in tickets))


def test_reads_that_come_while_a_round_is_under_way_share_the_next_one(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.002, 0.002)
    cluster.run(0.01)
    cluster.network.keep_sent = True
    tickets = [request(leader) for _ in range(50)]
    assert len({ticket.round_number for ticket in tickets}) == 2
    assert len([frame for source, _, frame in cluster.network.sent if source == leader.id]) == 2
    cluster.run_until(lambda: all(state(leader, ticket) is ReadState.READY for ticket in tickets))
    from_leader = [messages.decode(frame) for source, _, frame in cluster.network.sent if source == leader.id]
    rounds = {sent.body.stream for sent in from_leader if isinstance(sent, messages.Envelope)}  # type: ignore[union-attr]
    assert len(rounds) == 2


def test_round_that_was_lost_is_followed_by_one_with_the_next_heartbeat(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.isolate(leader.id, cluster.ids)
    request(leader)
    cluster.network.cut.clear()
    ticket = request(leader)
    assert state(leader, ticket) is ReadState.WAITING
    cluster.run_until(lambda: state(leader, ticket) is ReadState.READY)


def test_read_needs_a_message_sent_after_it(clock: Clock) -> None:
    """Replies to heartbeats from before the read say nothing about the time after it."""
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.01, 0.01)
    leader.replica.leader.send_heartbeats()
    leader.transport.flush()
    ticket = leader.replica.request_read()
    cluster.network.isolate(leader.id, cluster.ids)
    cluster.network.cut -= {(2, leader.id), (3, leader.id), (1, leader.id)}
    cluster.run(0.03)
    assert state(leader, ticket) is ReadState.WAITING


def test_only_the_leader_takes_reads(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    for member in cluster.members.values():
        if member is not leader:
            with pytest.raises(NotLeader):
                member.replica.request_read()
    leader.replica.agreement.fence("a test")
    with pytest.raises(NotLeader):
        leader.replica.request_read()


def test_node_without_peers_needs_no_round(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=1)
    member = cluster.members[1]
    member.turn()
    cluster.submit(member)
    ticket = member.replica.request_read()
    member.turn()
    assert state(member, ticket) is ReadState.READY
    assert member.replica.state_age_seconds() == 0


def test_isolated_leader_loses_its_reads(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.network.isolate(leader.id, cluster.ids)
    ticket = request(leader)
    cluster.run_until(lambda: state(leader, ticket) is not ReadState.WAITING)
    assert state(leader, ticket) is ReadState.LOST


def test_stopped_leader_that_resumes_answers_no_read(clock: Clock) -> None:
    """While it was stopped others were elected; what it then reads first is a client's request."""
    cluster = Cluster(clock)
    old = cluster.elect()
    old.up = False
    cluster.run_until(lambda: cluster.leader() is not None)
    cluster.commit(3)
    old.up = True
    assert old.replica.is_leader
    ticket = old.replica.request_read()
    assert state(old, ticket) is ReadState.WAITING
    old.replica.confirm_reads()
    old.turn()
    cluster.run_until(lambda: state(old, ticket) is not ReadState.WAITING)
    assert state(old, ticket) is ReadState.LOST
    cluster.run_until(lambda: old.replica.state_age_seconds() < 1)


def test_age_of_a_stopped_leader_includes_the_stop(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.run(1)
    assert leader.replica.state_age_seconds() < 0.2
    leader.up = False
    cluster.run(5)
    assert leader.replica.state_age_seconds() > 5


def test_age_of_a_follower_without_messages_grows(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    follower = next(member for member in cluster.members.values() if member is not leader)
    cluster.run(1)
    assert follower.replica.state_age_seconds() < 0.2
    cluster.network.isolate(follower.id, cluster.ids)
    cluster.run(3)
    assert follower.replica.state_age_seconds() > 2.9


def test_age_of_a_follower_that_was_stopped_counts_the_wait_of_its_messages(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    follower = next(member for member in cluster.members.values() if member is not leader)
    cluster.run(1)
    cluster.network.keep_sent = True
    cluster.run(0.2)
    waiting = [frame for source, target, frame in cluster.network.sent if (source, target) == (leader.id, follower.id)]
    follower.up = False
    cluster.run(5)
    follower.transport.receive(waiting[-1])
    assert follower.replica.state_age_seconds() > 4.9


def test_learners_confirm_nothing(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    others = [member.id for member in cluster.members.values() if member is not leader]
    new = cluster.join()
    leader = cluster.elect()
    leader.replica.add_member(cluster_node(new.id))
    cluster.commit(3)
    cluster.network.isolate(leader.id, others)
    ticket = request(leader)
    cluster.run_until(lambda: state(leader, ticket) is not ReadState.WAITING)
    assert state(leader, ticket) is ReadState.LOST


def test_read_is_confirmed_by_the_members_in_force(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.join()
    cluster.add(4)
    leader = cluster.elect()
    cluster.settle()
    # Two of four are no majority.
    companion = next(node for node in cluster.ids if node != leader.id)
    rest = [node for node in cluster.ids if node not in (leader.id, companion)]
    for node in rest:
        cluster.network.isolate(node, [leader.id, companion])
    ticket = request(leader)
    cluster.run(0.2)
    assert state(leader, ticket) is not ReadState.READY
    cluster.network.heal()
    leader = cluster.elect()
    ticket = request(leader)
    cluster.run_until(lambda: state(leader, ticket) is ReadState.READY)


def test_new_leader_reads_no_further_back_than_its_own_first_entry(clock: Clock) -> None:
    """What an earlier leader acknowledged is in its log, but not yet known to be committed."""
    cluster = Cluster(clock)
    old = cluster.elect()
    cluster.commit(5)
    cluster.crash(old.id)
    tickets = []

    def leads() -> bool:
        leader = cluster.leader()
        if leader is None or leader is old:
            return False
        tickets.append((leader, leader.replica.request_read()))
        return True

    cluster.run_until(leads)
    leader, ticket = tickets[0]
    leader.replica.confirm_reads()
    assert ticket.log_index > leader.replica.commit_index or leader.replica.term == ticket.term
    cluster.run_until(lambda: state(leader, ticket) is ReadState.READY)
    assert set(leader.machine.numbers) >= cluster.acknowledged


def test_echo_of_a_round_that_was_not_begun_is_refused(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    ticket = request(leader)
    for peer in (node for node in cluster.ids if node != leader.id):
        cluster.deliver(peer, leader.id, AppendReply(leader.replica.last_index + 1, False, True, 1 << 40))
    assert state(leader, ticket) is ReadState.WAITING
    assert leader.replica.refused["echoes a round that was not begun"] == 2


def test_reply_of_an_earlier_program_confirms() -> None:
    """Messages have not changed: the number is in a field that every program echoes."""
    assert messages.PROTOCOL == 2
    assert messages.AppendReply.__struct_fields__ == ("next_index", "reset", "success", "stream")


def cluster_node(node: int):  # type: ignore[no-untyped-def]
    from smrx.config import NodeConfig

    return NodeConfig(id=node, port=node)
