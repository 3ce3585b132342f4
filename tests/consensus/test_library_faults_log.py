"""Library faults 1, 3, 3b and 6: entries that a follower must keep, or must drop."""

import pytest

from smrx.consensus import ConsensusError, Replica, messages
from smrx.consensus.messages import AppendEntries, SnapshotChunk
from smrx.consensus.snapshots import Snapshot
from tests.consensus import stock
from tests.consensus.harness import GENESIS, Clock, Cluster, Machine, Member, Violation, entry


def isolated_leader_gets_snapshot(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """A leader is cut off with a tail of its own, the others go on and compact; then the cut heals."""
    cluster = Cluster(clock, replica_class=replica_class, compaction_entries=8, chunk_bytes=50)
    old = cluster.elect()
    cluster.settle()
    cluster.network.isolate(old.id, cluster.ids)
    for _ in range(30):
        cluster.submit(old)
    cluster.run_until(lambda: not old.replica.is_leader)
    cluster.run_until(lambda: cluster.leader() is not None)
    cluster.commit(60)
    cluster.network.heal()
    cluster.commit()
    cluster.check_end()
    return cluster


def test_row_1_snapshot_frame_commits_nothing(clock: Clock) -> None:
    cluster = isolated_leader_gets_snapshot(clock, Replica)
    assert len(cluster.acknowledged) == 62


def test_row_1_uncorrected_commits_unverified_tail(clock: Clock) -> None:
    with pytest.raises(ConsensusError, match="where another node applied"):
        isolated_leader_gets_snapshot(clock, stock.TrustsAnyCommitIndex)


def test_row_1_commit_index_stays_within_compared_entries(clock: Clock) -> None:
    member = Cluster(clock).members[2]
    follow(member, 9, commit=1)
    # The leader has more and has committed it; this message compares entry 3 only.
    member.replica._receive(1, envelope_of(member, AppendEntries(3, 1, 9, 9, 0, False, [])))
    assert (member.replica.last_index, member.replica.commit_index) == (9, 3)


def late_append_before_leader_dies(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """Commands are safe on two nodes; one gets an old append again, the other dies, the third knew nothing."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    follower, bystander = (member for member in cluster.members.values() if member is not leader)
    cluster.network.isolate(bystander.id, cluster.ids)
    cluster.network.keep_sent = True
    cluster.commit()
    late = next(frame for source, target, frame in cluster.network.sent if (source, target) == (leader.id, follower.id))
    cluster.commit(10)
    follower.transport.receive(late)
    cluster.crash(leader.id)
    cluster.network.heal()
    cluster.commit()
    cluster.restart(leader.id)
    cluster.check_end()
    return cluster


def test_row_3_matching_entries_are_kept(clock: Clock) -> None:
    cluster = late_append_before_leader_dies(clock, Replica)
    assert len(cluster.acknowledged) == 13


def test_row_3_uncorrected_loses_acknowledged_entries(clock: Clock) -> None:
    with pytest.raises((ConsensusError, Violation)):
        late_append_before_leader_dies(clock, stock.CutsMatchingEntries)


def entries_sent(clock: Clock, replica_class: type[Replica]) -> int:
    """Submit 100 entries while earlier ones are under way; return how many were sent to one follower."""
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.005, 0.006)
    cluster.network.keep_sent = True
    for _ in range(100):
        cluster.submit(leader)
        leader.turn()
        cluster.run(0.001)
    cluster.settle()
    follower = next(node for node in cluster.ids if node != leader.id)
    bodies = [messages.decode(frame).body for _, target, frame in cluster.network.sent if target == follower]
    return sum(len(body.entries) for body in bodies if isinstance(body, AppendEntries))


def test_row_3_acknowledgement_resends_nothing(clock: Clock) -> None:
    assert entries_sent(clock, Replica) == 100


def test_row_3_uncorrected_resends_everything_under_way(clock: Clock) -> None:
    assert entries_sent(clock, stock.RewindsOnSuccess) > 200


def test_row_3_conflict_truncates_the_log(clock: Clock) -> None:
    member = Cluster(clock).members[2]
    follow(member, 9, commit=4)
    other = [(entry(50), 7, 2), (entry(51), 8, 2)]
    member.replica._receive(3, envelope_of(member, AppendEntries(6, 1, 4, 8, 0, False, other), sender=3, term=2))
    assert [member.replica._journal.term_at(index) for index in range(5, 10)] == [1, 1, 2, 2, None]


def test_row_3_committed_entry_is_never_truncated(clock: Clock) -> None:
    member = Cluster(clock).members[2]
    follow(member, 9, commit=8)
    other = [(entry(50), 7, 2)]
    member.replica._receive(3, envelope_of(member, AppendEntries(6, 1, 4, 8, 0, False, other), sender=3, term=2))
    assert member.replica.last_index == 9
    assert member.replica.refused["contradicts a committed entry"] == 1


@pytest.mark.parametrize(("replica_class", "last"), [(Replica, 10), (stock.DropsTailAtSnapshot, 7)])
def test_row_3b_snapshot_keeps_the_tail_that_follows_it(clock: Clock, replica_class: type[Replica], last: int) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    member = cluster.members[2]
    follow(member, 10, commit=2)
    # Entries 3 to 10 were acknowledged. The leader, who may have compacted since, sends the state after 7.
    machine = Machine()
    for number in range(2, 8):
        machine.apply(number, 1, entry(number))
    snapshot = Snapshot.of(7, 1, machine.snapshot())
    chunk = SnapshotChunk(7, 1, len(snapshot.data), snapshot.checksum, 0, snapshot.data, 10, 10, 0, *GENESIS)
    cluster.deliver(1, 2, chunk, term=1)
    assert (member.replica.applied_index, member.replica.last_index) == (7, last)


def resync_after_conflict(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """A deposed leader has one entry of its own; the new one has a backlog of many messages for it."""
    cluster = Cluster(clock, replica_class=replica_class)
    old = cluster.elect()
    cluster.settle()
    cluster.network.isolate(old.id, cluster.ids)
    cluster.submit(old)
    cluster.run_until(lambda: not old.replica.is_leader)
    cluster.run_until(lambda: cluster.leader() is not None)
    cluster.commit(100)
    leader = cluster.leader()
    assert leader is not None
    leader.replica.leader.batch_bytes = 40
    cluster.network.heal()
    # The leader learns that its first guess was wrong and has a window full of the next ones under way.
    cluster.settle(seconds=5)
    cluster.check_end()
    return cluster


def test_row_6_reset_asks_for_the_committed_part(clock: Clock) -> None:
    resync_after_conflict(clock, Replica)


def test_row_6_holds_with_the_librarys_sender(clock: Clock) -> None:
    resync_after_conflict(clock, stock.ObeysEveryReset)


def test_row_6_uncorrected_resets_overwrite_each_other(clock: Clock) -> None:
    with pytest.raises(Violation, match="equal positions"):
        resync_after_conflict(clock, stock.StockRow6)


def envelope_of(member: Member, body: messages.Body, sender: int = 1, term: int = 1) -> messages.Envelope:
    """Return a message to a node that has received nothing from its sender before."""
    return messages.Envelope(messages.PROTOCOL, 0, sender, 1, member.meta.incarnation, term, 0, 0, 0, 0, 0, body)


def follow(member: Member, last: int, commit: int) -> None:
    """Give a follower the entries 2..last of term 1 and a commit index, from node 1."""
    entries = [(entry(index), index, 1) for index in range(2, last + 1)]
    member.replica._receive(1, envelope_of(member, AppendEntries(1, 0, commit, last, 0, False, entries)))
    assert (member.replica.last_index, member.replica.commit_index) == (last, commit)
