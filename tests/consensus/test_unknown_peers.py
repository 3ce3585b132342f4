"""Nodes that are unknown to each other: reused node ids, outdated cluster files, removed nodes."""

from pathlib import Path

import pytest

from smrx.config import NodeConfig
from smrx.consensus import Replica, messages
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import Member as Member_
from smrx.consensus.messages import (
    AppendEntries,
    AppendReply,
    Body,
    Envelope,
    Hello,
    MembershipHint,
    NotAMember,
    PreVote,
)
from smrx.links import greeting
from smrx.links.connection import Connection
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ServerGreeting, Terms
from smrx.links.listener import Bounds, Listener
from tests.consensus.harness import CLUSTER, ENTRY_HEAD, Clock, Cluster, Member, Violation
from tests.consensus.sockets import CLUSTER as SOCKETS
from tests.consensus.sockets import Mesh


class KeepsItsIncarnation(Replica):
    """A bug: a node does not take a higher incarnation."""

    def _exceed_known_incarnation(self, time: float) -> None:
        pass


class NoHints(MemberChanges):
    """A bug: members are named only in replies to pre-vote requests."""

    def hello(self, peer: int) -> Body:
        return Hello()


class SendsNoHints(Replica):
    """A replica with this bug."""

    member_changes_class = NoHints


def followers(cluster: Cluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members.values() if member.up and member is not leader]


def late(cluster: Cluster, source: int, life: int, target: int, body: Body, to_life: int | None = None) -> None:
    """Deliver a message that an earlier incarnation of another node has sent."""
    member = cluster.members[target]
    receiver = member.meta.incarnation if to_life is None else to_life
    number, term = messages.cluster_number(CLUSTER), member.replica.term
    envelope = Envelope(
        messages.PROTOCOL, number, source, life, receiver, term, 0, 0, 0, cluster.wall_ns(source), 0, body
    )
    member.transport.receive(messages.encode(envelope))


def replaced(clock: Clock, replica_class: type[Replica] = Replica) -> tuple[Cluster, Member, Member, int]:
    """Return (cluster, leader, new node, last incarnation of the old one): a new node has the id of a removed one.

    The old one was in its fourth incarnation; the new one's is lower, as if the clock of its machine were wrong.
    """
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    old = followers(cluster, leader)[0]
    for _ in range(3):
        cluster.crash(old.id)
        cluster.restart(old.id)
        cluster.settle()
    life = old.meta.incarnation
    cluster.crash(old.id)
    cluster.remove(old.id)
    cluster.members[old.id] = new = Member(cluster, old.id)
    assert new.meta.incarnation == 1 < life
    return cluster, leader, new, life


def late_message_of_old_incarnation(clock: Clock, replica_class: type[Replica]) -> None:
    cluster, leader, new, life = replaced(clock, replica_class)
    cluster.add(new.id)
    cluster.settle()
    for node in (1, 2, 3):
        if node != new.id:
            late(cluster, new.id, life, node, Hello())
    cluster.run(1)
    cluster.crash(next(member.id for member in followers(cluster, leader) if member is not new))
    cluster.commit(3)


def test_late_message_of_old_incarnation_mutes_no_node(clock: Clock) -> None:
    late_message_of_old_incarnation(clock, Replica)


def test_node_that_keeps_its_incarnation_can_be_muted(clock: Clock) -> None:
    with pytest.raises(Violation):
        late_message_of_old_incarnation(clock, KeepsItsIncarnation)


def test_acknowledgement_of_old_incarnation_does_not_count(clock: Clock) -> None:
    """Leader and term are the same: only the incarnation differs."""
    cluster, leader, new, life = replaced(clock)
    cluster.network.isolate(new.id, cluster.ids)
    leader.replica.add_member(NodeConfig(id=new.id, port=new.id))
    cluster.commit(3)
    late(cluster, new.id, life, leader.id, AppendReply(leader.replica.last_index + 1, False, True, 0))
    cluster.run(1)
    assert leader.transport.dropped["from an earlier incarnation of the sender"] == 1
    assert new.id not in leader.replica.membership.voters
    lags = {peer.node_id: peer.lag_entries for peer in leader.replica.peer_status()}
    assert lags[new.id] == leader.replica.last_index
    cluster.network.heal()
    cluster.run_until(lambda: new.id in leader.replica.membership.voters)
    assert new.meta.incarnation > life
    cluster.check_end()


def outdated_member(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """Return a cluster in which node 1 was away while every member it knows was replaced, and has lost its log."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    one, other = followers(cluster, leader)
    cluster.crash(one.id)
    for _ in range(3):
        newcomer = cluster.join()
        cluster.unknown_to[one.id].add(newcomer.id)
        cluster.add(newcomer.id)
    cluster.remove(other.id)
    cluster.crash(other.id)
    if leader.replica.is_leader:
        leader.replica.transfer_leadership(4)
        leader.turn()
        cluster.run_until(lambda: cluster.leader() not in (None, leader))
    cluster.commit(1)
    cluster.remove(leader.id)
    cluster.crash(leader.id)
    cluster.restart(one.id)
    cluster.run_until(lambda: one.replica.role == "follower", what="a node that knows its cluster")
    return cluster


def test_outdated_member_receives_membership_hint(clock: Clock) -> None:
    cluster = outdated_member(clock, Replica)
    cluster.commit(3)


def test_outdated_member_never_rejoins_without_hints(clock: Clock) -> None:
    with pytest.raises(Violation, match="a node that knows its cluster"):
        outdated_member(clock, SendsNoHints)


def test_node_with_a_leader_ignores_unknown_peers(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    told = MembershipHint([Member_(NodeConfig(id=node, port=node), True) for node in (1, 2, 3, 200)])
    cluster.ids.append(200)
    cluster.unknown_to[200] = set()
    cluster.members[200] = outsider = Member(cluster, 200)
    for node in (1, 2, 3):
        cluster.deliver(200, node, told)
    assert all(200 not in cluster.members[node].transport._nodes for node in (1, 2, 3))
    outsider.crash()
    # Nor does a node with a hint that names another cluster, or from a node outside its own.
    cluster.network.isolate(leader.id, cluster.ids)
    alone = followers(cluster, leader)[0]
    cluster.network.isolate(alone.id, cluster.ids)
    cluster.run_until(lambda: alone.replica.leader_id is None)
    cluster.deliver(200, alone.id, MembershipHint([Member_(NodeConfig(id=200, port=1), True)]))
    cluster.deliver(200, alone.id, MembershipHint([Member_(NodeConfig(id=alone.id, port=1), True)]))
    assert 200 not in alone.transport._nodes
    cluster.deliver(200, alone.id, told)
    assert 200 in alone.transport._nodes
    assert alone.replica.membership.ids == {1, 2, 3}


def test_node_removed_while_unreachable_is_told(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    gone = followers(cluster, leader)[0]
    cluster.network.isolate(gone.id, cluster.ids)
    cluster.run_until(lambda: gone.replica.leader_id is None)
    cluster.remove(gone.id)
    assert "none by log entry" not in str(gone.replica.waiting)
    cluster.network.heal()
    cluster.network.keep_sent = True
    cluster.run(5)
    assert "reports that this node is no member by log entry" in str(gone.replica.waiting)
    assert not gone.replica.removed
    # Answers are few, whatever it asks.
    answers = [frame for _, target, frame in cluster.network.sent if target == gone.id]
    assert 5 <= len(answers) <= 12
    # It gets the report, and ignores it while it has a leader.
    cluster.add(gone.id)
    assert gone.replica.waiting is None
    cluster.check_end()


def test_node_with_old_cluster_file_gets_an_answer(clock: Clock) -> None:
    """Members whose files still name the removed node answer its pre-vote requests."""
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    gone, other = followers(cluster, leader)
    cluster.network.isolate(gone.id, cluster.ids)
    cluster.remove(gone.id)
    cluster.crash(other.id)
    cluster.restart(other.id)
    cluster.run_until(lambda: other.replica.role == "follower")
    cluster.network.isolate(leader.id, [gone.id])
    cluster.network.cut -= {(gone.id, other.id), (other.id, gone.id)}
    cluster.deliver(gone.id, other.id, PreVote(1, 1, 0))
    cluster.run(3)
    assert f"node {other.id} reports" in str(gone.replica.waiting)


def test_removal_report_is_ignored_with_a_leader(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    one, other = followers(cluster, leader)
    cluster.deliver(other.id, one.id, NotAMember(9))
    assert one.replica.waiting is None
    cluster.check_end()


def test_removed_node_is_told_over_real_sockets(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    leader = mesh.elect()
    mesh.commit(ENTRY_HEAD + bytes(30))
    gone = next(node for node in mesh.nodes if node is not leader)
    # It is not run meanwhile.
    mesh.nodes.remove(gone)
    index = leader.replica.remove_member(gone.replica.node_id)
    leader.transport.flush()
    mesh.run_until(lambda: leader.replica.commit_index >= index and gone.replica.node_id not in leader.transport._nodes)
    # The leader's messages that are still under way to it are lost.
    gone.replica._handlers[AppendEntries] = lambda peer, envelope, body: None
    mesh.nodes.append(gone)
    mesh.run_until(lambda: "reports that this node is no member" in str(gone.replica.waiting))
    assert not gone.replica.removed
    mesh.close()


TERMS = Terms(greeting.PEER, messages.cluster_number(SOCKETS))
BOUNDS = Bounds(
    connections=8, unadmitted=4, greeting_seconds=3.0, greeting_bytes=greeting.MAX_BYTES, frame_bytes=1 << 20,
    queue_bytes=1 << 20, unread_ms=2_000,
)  # fmt: skip


class Forger:
    """A process at a member's address that answers each message with two forged ones."""

    def __init__(self, forged: Envelope) -> None:
        self.frame = messages.encode(forged)

    def opened(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection) -> None:
        for _ in connection.frames():
            connection.send(self.frame)
            connection.send(self.frame)
        connection.flush()

    def closed(self, connection: Connection) -> None:
        pass


def test_answer_that_closes_its_own_connection_is_harmless(tmp_path: Path) -> None:
    """A process at a member's address replies that every member was removed and added again."""
    mesh = Mesh(tmp_path)
    victim, other = mesh.nodes[0], mesh.nodes[1]
    mesh.commit(ENTRY_HEAD + bytes(30))
    members = [
        Member_(NodeConfig(id=node, port=port), voter=True, since=1_000) for node, port in enumerate(mesh.ports, 1)
    ]
    forged = Envelope(
        messages.PROTOCOL,
        messages.cluster_number(SOCKETS),
        other.replica.node_id,
        other.meta.incarnation,
        victim.meta.incarnation,
        *victim.transport._header()[:5],
        0,
        MembershipHint(members),
    )
    other.close()
    mesh.nodes.remove(other)
    forger = Forger(forged)
    links = GreetedLinks(forger, lambda connection: ServerGreeting(TERMS, None, None, lambda key: False))
    links.listener = Listener(other.address, mesh.poller, links, BOUNDS)
    mesh.run_until(lambda: victim.replica.member_changes._since[other.replica.node_id] == 1_000)
    victim.turn()
    links.listener.close()
    mesh.close()
