"""Entries may be sent before the journal is synced, acknowledgements only after."""

from collections.abc import Callable

import pytest

from smrx.config import NodeConfig
from smrx.consensus import Replica, messages
from smrx.consensus.disk_journal import entry_key
from smrx.consensus.messages import AppendEntries, AppendReply, Body, Vote
from tests.consensus.harness import Clock
from tests.consensus.model_disk import Crash
from tests.consensus.test_disk_cluster import DiskCluster, DiskMember


def watched(member: DiskMember, noted: Callable[[Body], object]) -> None:
    """Call `noted` with each message when it leaves."""
    transmit = member.transport._transmit

    def noting(peer: int, frame: bytes) -> bool:
        envelope = messages.decode(frame)
        assert not isinstance(envelope, str)
        noted(envelope.body)
        return transmit(peer, frame)

    member.transport._transmit = noting  # type: ignore[method-assign]


def disk_member(cluster: DiskCluster, node: int) -> DiskMember:
    member = cluster.members[node]
    assert isinstance(member, DiskMember)
    return member


def on_disk(member: DiskMember, index: int) -> bool:
    return entry_key(index) in member.platter.records


def test_leader_sends_entries_before_sync_and_replies_after(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    leader = disk_member(cluster, cluster.elect().id)
    cluster.settle()
    left: list[tuple[str, bool]] = []

    def of_leader(body: Body) -> None:
        if isinstance(body, AppendEntries) and body.entries:
            left.append(("entries", on_disk(leader, body.entries[-1][1])))

    def of_follower(member: DiskMember) -> Callable[[Body], None]:
        def noted(body: Body) -> None:
            if isinstance(body, AppendReply) and body.success:
                left.append(("answer", on_disk(member, body.next_index - 1)))

        return noted

    watched(leader, of_leader)
    for node in cluster.ids:
        if node != leader.id:
            watched(disk_member(cluster, node), of_follower(disk_member(cluster, node)))
    cluster.commit()
    cluster.settle()
    assert left.count(("entries", False)) == 2
    assert ("answer", True) in left
    assert ("answer", False) not in left


def test_messages_after_an_acknowledgement_wait_for_the_sync(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    leader = disk_member(cluster, cluster.elect().id)
    cluster.settle()
    order: list[tuple[type, bool]] = []
    index = leader.journal.last_index + 1
    watched(leader, lambda body: order.append((type(body), on_disk(leader, index))))
    leader.transport.post(next(node for node in cluster.ids if node != leader.id), Vote(leader.replica.term))
    cluster.submit(leader)
    leader.transport.flush()
    assert order == [(Vote, True), (AppendEntries, True), (AppendEntries, True)]


def test_leader_dies_between_send_and_sync(clock: Clock) -> None:
    cluster = DiskCluster(clock)
    leader = disk_member(cluster, cluster.elect().id)
    cluster.settle()
    cluster.submit(leader)
    index = leader.journal.last_index
    leader.platter.steps_left = 1  # The record of the base is noted; the sync fails.
    with pytest.raises(Crash):
        leader.transport.flush()
    cluster.crash(leader.id)
    leader.platter.steps_left = None
    assert not on_disk(leader, index)
    cluster.commit()
    assert index in cluster.log, "the followers lost what they had"
    cluster.restart(leader.id)
    cluster.commit()
    cluster.check_end()


def announcements_of_single_voter(clock: Clock, replica_class: type[Replica]) -> list[bool]:
    """Return, for each announced commit index, whether that entry was on the disk of the only voter.

    With announcements at once: a turn later all of them would be.
    """
    cluster = DiskCluster(clock, nodes=1, replica_class=replica_class)
    member = disk_member(cluster, cluster.elect().id)
    learner = cluster.join()
    member.replica.add_member(NodeConfig(id=learner.id, port=learner.id))
    cluster.run_until(lambda: member.transport.is_connected(learner.id), what="a learner in reach")
    assert member.replica.membership.voters == {member.id}
    # As if the learner had spoken of a later term.
    member.replica._raft.step_down(member.replica.term + 1)
    member.replica._raft.election_deadline = clock.time
    said: list[bool] = []

    def noted(body: Body) -> None:
        if isinstance(body, AppendEntries):
            said.append(on_disk(member, body.commit_index))

    watched(member, noted)
    member.turn()
    assert member.replica.is_leader
    assert member.replica.commit_index == member.replica.last_index
    assert said
    return said


class AnnouncesBeforeSync(Replica):
    """A bug: a single voter announces the first entry of its leadership as committed before it is durable."""

    def tick(self) -> None:
        self._calls = 0
        super().tick()
        self._calls = 0

    def _persist(self) -> None:
        self._calls = getattr(self, "_calls", 0) + 1
        if self._calls < 2:
            super()._persist()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a leader announce each commit index in the turn in which it moves."""
    monkeypatch.setattr("smrx.consensus.leader._ANNOUNCE_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_single_voter_announces_only_durable_entries(clock: Clock) -> None:
    assert all(announcements_of_single_voter(clock, Replica))


@pytest.mark.usefixtures("at_once")
def test_early_announcement_of_single_voter_is_found(clock: Clock) -> None:
    assert not all(announcements_of_single_voter(clock, AnnouncesBeforeSync))
