"""Membership changes and transfers during power failures, of one node at any step of its disk or of all at once."""

import contextlib
import random
from collections.abc import Iterator

import pytest

from smrx.config import NodeConfig
from smrx.consensus import ConsensusError, NotLeader, Replica, peer_progress
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import Membership, MembershipError
from tests.consensus.harness import Clock, Member, Violation
from tests.consensus.test_disk_cluster import DiskCluster, DiskMember, powered, run


class Storm:
    """One seed's course of events."""

    def __init__(self, clock: Clock, seed: int, replica_class: type[Replica] = Replica) -> None:
        self.chance = random.Random(seed)
        self.cluster = DiskCluster(
            clock,
            seed,
            replica_class=replica_class,
            compaction_entries=self.chance.choice((12, 30, 200)),
            batch_bytes=self.chance.choice((200, 1 << 20)),
            nodes=self.chance.choice((1, 3, 3, 4)),
        )
        self.cluster.network.loss = self.chance.choice((0.0, 0.02))
        self.cluster.network.repeats = self.chance.choice((0.0, 0.02))
        self.lost: DiskMember | None = None
        self.done: list[str] = []

    def run(self) -> None:
        """Everything in turn, checked as it goes; and at the end that all is there, and moves on."""
        for _ in range(70):
            leader = self.cluster.leader()
            kind = self.chance.choices(
                ("commands", "add", "reuse_id", "remove", "split", "transfer", "power", "all", "cut", "heal", "disk"),
                (30, 10, 5, 12, 15, 8, 15, 6, 8, 16, 2),
            )[0]
            with contextlib.suppress(MembershipError, NotLeader, ValueError), powered(self.cluster):
                getattr(self, f"_{kind}")(leader)
                self.done.append(kind)
            run(self.cluster, self.chance.uniform(0.001, 1.2))
            self._bury()
            for member in self._members():
                if not member.up and self.chance.random() < 0.8:
                    self._start(member)
        self._calm()

    def _members(self) -> Iterator[DiskMember]:
        for member in list(self.cluster.members.values()):
            assert isinstance(member, DiskMember)
            yield member

    def _start(self, member: DiskMember) -> None:
        member.platter.steps_left = None
        self.cluster.restart(member.id)

    def _bury(self) -> None:
        """Stop nodes that are removed, as the reactor does."""
        for member in self._members():
            if member.up and member.replica.removed:
                del self.cluster.members[member.id]
                self.cluster.ids.remove(member.id)

    def _calm(self) -> None:
        cluster = self.cluster
        cluster.network.heal()
        cluster.network.loss = cluster.network.repeats = 0.0
        for member in self._members():
            member.platter.steps_left = None
            if not member.up:
                self._start(member)
        cluster.run(1.0)
        cluster.commit(1, seconds=60.0)
        cluster.run(3.0)
        cluster.commit(1, seconds=60.0)
        leader = cluster.leader()
        assert leader is not None
        known = leader.replica.membership
        for member in self._members():
            if member.id not in known.ids:
                member.up = False
        cluster.members = {node: member for node, member in cluster.members.items() if node in known.ids}
        cluster.check_end()
        cluster.run(1.0)
        for member in self._members():
            if member.replica.membership != known:
                raise Violation(f"node {member.id} knows other members than node {leader.id}: {cluster.describe()}")
        if known.voters != known.ids:
            raise Violation(f"members without a vote: {known.ids - known.voters}; {cluster.describe()}")

    # What happens.

    def _commands(self, leader: Member | None) -> None:
        for _ in range(self.chance.randrange(1, 30)):
            if leader is not None and leader.up and leader.replica.is_leader:
                self.cluster.submit(leader)

    def _add(self, leader: Member | None) -> None:
        if leader is not None and len(self.cluster.ids) < 6:
            newcomer = self.cluster.join()
            leader.replica.add_member(NodeConfig(id=newcomer.id, port=newcomer.id))

    def _reuse_id(self, leader: Member | None) -> None:
        """Start an empty node with the id of one that was removed or never added."""
        if leader is None or leader.replica.membership_is_open or len(leader.replica.membership.ids) > 5:  # type: ignore[attr-defined]
            return
        # Those others that are no members are not in its cluster file: an operator starts it with the present one.
        members = leader.replica.membership.ids
        node = self.chance.choice([node for node in range(1, 20) if node not in members])
        if node not in self.cluster.ids:
            self.cluster.ids.append(node)
        for other in self.cluster.ids:
            self.cluster.unknown_to.setdefault(other, set()).add(node)
        self.cluster.unknown_to[node] = {other for other in self.cluster.ids if other not in members}
        self.cluster.members[node] = DiskMember(self.cluster, node)
        leader.replica.add_member(NodeConfig(id=node, port=node))

    def _remove(self, leader: Member | None) -> None:
        if leader is not None and len(leader.replica.membership.ids) > 1 and not self._a_disk_is_lost():
            gone = self.chance.choice(sorted(leader.replica.membership.ids - {leader.id}))
            leader.replica.remove_member(gone)

    def _split(self, leader: Member | None) -> None:
        """A leader with one other is parted from the rest, and changes who belongs to the cluster."""
        if leader is not None:
            others = [node for node in self.cluster.ids if node != leader.id]
            self.chance.shuffle(others)
            for node in (leader.id, *others[:1]):
                self.cluster.network.isolate(node, others[1:])
            for _ in range(self.chance.randrange(1, 4)):
                with contextlib.suppress(MembershipError):
                    self.chance.choice((self._add, self._remove))(leader)
            self._commands(leader)

    def _transfer(self, leader: Member | None) -> None:
        if leader is not None:
            leader.replica.transfer_leadership()

    def _power(self, leader: Member | None) -> None:
        victim = self.chance.choice(list(self._members()))
        victim.platter.steps_left = self.chance.randrange(12)

    def _all(self, leader: Member | None) -> None:
        for member in self._members():
            self.cluster.crash(member.id)

    def _cut(self, leader: Member | None) -> None:
        self.cluster.network.isolate(self.chance.choice(self.cluster.ids), self.cluster.ids)

    def _heal(self, leader: Member | None) -> None:
        self.cluster.network.heal()

    def _disk(self, leader: Member | None) -> None:
        """One member has another disk; never two at a time, and never where that is more than a minority."""
        members = list(self._members())
        voters = set() if leader is None else leader.replica.membership.voters
        if len(voters) >= 3 and not self._a_disk_is_lost() and not leader.replica.membership_is_open:  # type: ignore[union-attr]
            self.lost = self.chance.choice([member for member in members if member.id in voters])
            self.cluster.crash(self.lost.id)
            self.lost.lose_disk()

    def _a_disk_is_lost(self) -> bool:
        """Whether a member has not regained what it had: without it there may be no majority that holds all."""
        lost = self.lost
        if lost is not None and lost.up and not lost.journal.may_lack_entries:
            self.lost = None
        return self.lost is not None


class ObservedReplica(Replica):
    """A replica that shows whether a change is uncommitted."""

    @property
    def membership_is_open(self) -> bool:
        """Whether the newest change is not committed."""
        return self._context.members.index > self.commit_index


@pytest.mark.parametrize("seed", range(16))
def test_members_change_during_power_failures(clock: Clock, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr(peer_progress, "WINDOW_MESSAGES", 2)
    Storm(clock, seed, ObservedReplica).run()


class ConcurrentChanges(MemberChanges):
    """A bug: a change of members before the one before it is committed, as in the first text of Ongaro's thesis."""

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active:
            raise NotLeader
        return self._append(membership)


class ChangesConcurrently(ObservedReplica):
    """A replica with this bug."""

    membership_is_open = False
    member_changes_class = ConcurrentChanges


def test_concurrent_changes_make_two_majorities(clock: Clock) -> None:
    def breaks(seed: int) -> bool:
        try:
            Storm(clock, seed, ChangesConcurrently).run()
        except (Violation, ConsensusError):
            return True
        return False

    assert any(map(breaks, range(30)))
