"""A node that is too far behind gets a snapshot in chunks, under load."""

import logging

import pytest

from smrx.consensus import Replica, messages, snapshots
from smrx.consensus.messages import AppendReply, SnapshotChunk, SnapshotReply
from smrx.consensus.snapshots import WINDOW_CHUNKS, Incoming, Outgoing, Snapshot
from tests.consensus import stock
from tests.consensus.harness import GENESIS, Clock, Cluster, Machine, entry


def lagging(clock: Clock, replica_class: type[Replica] = Replica) -> tuple[Cluster, int]:
    """A cluster whose log no longer reaches one node; return it and the node."""
    cluster = Cluster(clock, compaction_entries=16, chunk_bytes=64, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    node = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(node, cluster.ids)
    cluster.commit(100)
    assert leader.replica._journal.first_index > 50
    return cluster, node


def test_log_stays_bounded_and_keeps_a_tail(clock: Clock) -> None:
    cluster = Cluster(clock, compaction_entries=16)
    cluster.elect()
    cluster.commit(200)
    cluster.settle()
    for member in cluster.members.values():
        journal = member.replica._journal
        assert 4 <= len(journal) <= 17
        assert journal.size_bytes == sum(len(journal[at][0]) for at in range(len(journal)))


def test_log_is_bounded_by_bytes(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=1, compaction_entries=10_000)
    member = cluster.members[1]
    member.replica.compaction.max_bytes = 10_000
    member.turn()
    for _ in range(100):
        cluster.submit(member, size=1000)
        member.turn()
    assert member.replica._journal.size_bytes <= 11_000


def test_lagging_node_installs_a_snapshot_under_load(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    leader = cluster.leader()
    assert leader is not None
    lagger = cluster.members[node]
    cluster.network.keep_sent = True
    while lagger.machine.sequence < 100:
        cluster.submit(leader)
        leader.turn()
        cluster.run(0.003)
    cluster.check_end()
    sent = [messages.decode(frame).body for _, target, frame in cluster.network.sent if target == node]
    assert any(isinstance(body, SnapshotChunk) for body in sent)
    # Not through the log: the first hundred commands never came to apply().
    assert lagger.replica._journal.first_index > 50


def test_only_a_window_of_chunks_is_under_way(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    cluster.network.keep_sent = True
    leader = cluster.leader()
    assert leader is not None
    cluster.settle()
    under_way = most = 0
    for source, target, frame in cluster.network.sent:
        body = messages.decode(frame).body
        if isinstance(body, SnapshotChunk):
            under_way += 1
        elif (source, target) == (node, leader.id) and isinstance(body, SnapshotReply):
            under_way -= 1
        most = max(most, under_way)
    assert 2 <= most <= WINDOW_CHUNKS


def test_snapshot_transfer_survives_message_loss(clock: Clock) -> None:
    cluster, _ = lagging(clock)
    cluster.network.heal()
    cluster.network.loss = 0.2
    cluster.run(6)
    cluster.network.loss = 0.0
    cluster.commit()
    cluster.check_end()


def test_snapshot_transfer_restarts_with_the_receiver(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.members[node].replica.follower._incoming._buffer)
    cluster.crash(node)
    cluster.restart(node)
    cluster.commit()
    cluster.check_end()


def test_snapshot_transfer_restarts_with_a_new_leader(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.members[node].replica.follower._incoming._buffer)
    leader = cluster.leader()
    assert leader is not None
    cluster.network.isolate(leader.id, cluster.ids)
    cluster.run(3)
    cluster.commit()
    cluster.network.heal()
    cluster.commit()
    cluster.check_end()


def test_dead_receiver_does_not_block_compaction(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.members[node].replica.follower._incoming._buffer)
    cluster.crash(node)
    # Until it is known to be gone.
    cluster.run(2)
    cluster.commit(100)
    for member in cluster.members.values():
        assert not member.up or len(member.replica._journal) <= 17
    cluster.restart(node)
    cluster.commit()
    cluster.check_end()


def test_deposed_sender_does_not_block_compaction(clock: Clock) -> None:
    cluster, node = lagging(clock)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.members[node].replica.follower._incoming._buffer)
    sender = cluster.leader()
    assert sender is not None
    heir = next(other for other in cluster.ids if other not in (node, sender.id))
    # Its bytes to the node go no more, so that the transfer stays where it is.
    cluster.network.cut |= {(sender.id, node), (node, sender.id)}
    sender.replica.transfer_leadership(heir)
    cluster.run_until(lambda: cluster.members[heir].replica.is_leader)
    cluster.commit(100)
    assert not sender.replica.is_leader
    assert len(sender.replica._journal) <= 17
    cluster.network.heal()
    cluster.commit()
    cluster.check_end()


def answer_to(clock: Clock, replica_class: type[Replica], snapshot: Snapshot) -> tuple[Cluster, messages.Body]:
    """Send one snapshot to a new node; return its answer."""
    cluster = Cluster(clock, replica_class=replica_class)
    cluster.deliver(1, 2, messages.Hello(), term=0)
    cluster.network.keep_sent = True
    data = snapshot.data
    cluster.deliver(1, 2, SnapshotChunk(5, 1, len(data), snapshot.checksum, 0, data, 9, 9, 0, *GENESIS), term=1)
    cluster.members[2].transport.flush()
    return cluster, messages.decode(cluster.network.sent[-1][2]).body


def good_snapshot() -> Snapshot:
    machine = Machine()
    for number in range(4):
        machine.apply(number, 1, entry(number))
    return Snapshot.of(5, 1, machine.snapshot())


def test_valid_snapshot_is_acknowledged(clock: Clock) -> None:
    cluster, answer = answer_to(clock, Replica, good_snapshot())
    assert answer == AppendReply(6, False, True, 0)
    assert cluster.members[2].machine.sequence == 4
    assert cluster.members[2].replica.applied_index == 5


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(5, 1, good_snapshot().data, bytes(16)),
        Snapshot.of(5, 1, b"no state"),
        Snapshot.of(5, 1, good_snapshot().data[:-3]),
    ],
    ids=["damaged on its way", "no state", "truncated at its source"],
)
def test_row_16_invalid_snapshot_is_refused_and_changes_nothing(clock: Clock, snapshot: Snapshot) -> None:
    cluster, answer = answer_to(clock, Replica, snapshot)
    assert isinstance(answer, SnapshotReply)
    assert (answer.index, answer.offset, answer.refused) == (5, 0, True)
    # One that arrived intact gets the machine's reason.
    assert bool(answer.reason) == snapshots.is_intact(snapshot.data, snapshot.checksum)
    assert cluster.members[2].machine.sequence == 0
    assert (cluster.members[2].replica.applied_index, cluster.members[2].replica.last_index) == (1, 1)


def test_row_16_uncorrected_acknowledges_invalid_snapshot(clock: Clock) -> None:
    _, answer = answer_to(clock, stock.AcknowledgesFailedSnapshots, Snapshot.of(5, 1, b"no state"))
    assert answer == AppendReply(6, False, True, 0)


def test_refused_snapshot_is_taken_again_later(clock: Clock) -> None:
    class BadOnce(Machine):
        """Its first snapshot is garbage."""

        bad = True

        def snapshot(self) -> bytes:
            if type(self).bad:
                type(self).bad = False
                return b"garbage"
            return super().snapshot()

    cluster = Cluster(clock, compaction_entries=16, machine_class=BadOnce)
    leader = cluster.elect()
    cluster.settle()
    node = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(node, cluster.ids)
    cluster.commit(50)
    cluster.network.heal()
    cluster.check_end()
    assert cluster.members[node].replica.refused["unusable snapshot"] == 1


def test_compaction_can_be_requested(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.commit(20)
    leader.replica.compact()
    leader.turn()
    assert leader.replica._journal.first_index == leader.replica.applied_index


def test_out_of_order_chunks_are_requested_again() -> None:
    snapshot = good_snapshot()
    incoming, outgoing = Incoming(), Outgoing(snapshot, 0.0, chunk_bytes=10)
    pieces = dict(outgoing.chunks())

    def chunk(offset: int) -> SnapshotChunk:
        total = len(snapshot.data)
        return SnapshotChunk(5, 1, total, snapshot.checksum, offset, pieces[offset], 9, 9, 0, *GENESIS)

    assert incoming.take(chunk(0)) == 10
    assert incoming.take(chunk(20)) == 10
    assert incoming.take(chunk(0)) == 10
    assert incoming.take(chunk(10)) == 20


def test_snapshot_that_a_peer_cannot_use_is_named_and_rarely_sent_again(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As of another version: each attempt costs the leader a fork, and gives the same answer."""
    taken: list[int] = []

    class Counting(Machine):
        def snapshot(self) -> bytes:
            taken.append(self.sequence)
            return super().snapshot()

    cluster = Cluster(clock, compaction_entries=16, machine_class=Counting)
    leader = cluster.elect()
    cluster.settle()
    node = next(node for node in cluster.ids if node != leader.id)
    cluster.network.isolate(node, cluster.ids)
    cluster.commit(100)
    member = cluster.members[node]

    def refuse(data: bytes | memoryview) -> None:
        raise ValueError("snapshot: state layout 9")

    vars(member.machine)["restore"] = refuse
    taken.clear()
    cluster.network.heal()
    with caplog.at_level(logging.ERROR, "smrx.consensus"):
        cluster.run(60)
    assert cluster.leader() is leader
    # After 1, 2, 4, 8, 16 and 32 seconds.
    assert 3 <= len(taken) <= 7
    assert [record.getMessage().split(":")[0] for record in caplog.records if "layout 9" in record.getMessage()] == [
        f"node {node}",
        f"node {leader.id}",
    ]
    waiting = member.replica.waiting
    assert waiting == f"cannot use the snapshot of node {leader.id}, the leader: snapshot: state layout 9"
    assert {peer.node_id: peer.refused_snapshot for peer in leader.replica.peer_status()} == {
        other: "snapshot: state layout 9" if other == node else None for other in cluster.ids if other != leader.id
    }

    # Its next incarnation can use it, and gets it at once: no pause of the earlier one counts.
    cluster.crash(node)
    cluster.restart(node)
    started = clock.time
    cluster.run_until(lambda: cluster.members[node].machine.sequence >= 100)
    assert clock.time - started < 3
    cluster.commit()
    assert cluster.members[node].replica.waiting is None
    assert all(peer.refused_snapshot is None for peer in leader.replica.peer_status())
    cluster.check_end()


def test_reason_is_forgotten_once_a_snapshot_is_used(clock: Clock) -> None:
    cluster, node = lagging(clock)
    member = cluster.members[node]
    restore = member.machine.restore
    failures = iter("x")

    def refuse_once(data: bytes | memoryview) -> None:
        if next(failures, None):
            raise ValueError("not now")
        restore(data)

    vars(member.machine)["restore"] = refuse_once
    cluster.network.heal()
    leader = cluster.leader()
    assert leader is not None
    cluster.run_until(lambda: any(peer.refused_snapshot == "not now" for peer in leader.replica.peer_status()))
    cluster.run_until(lambda: member.machine.sequence >= 100)
    cluster.commit()
    assert member.replica.waiting is None
    assert all(peer.refused_snapshot is None for peer in leader.replica.peer_status())
    cluster.check_end()
