"""Nodes that are broken on purpose, beside the library's own faults in tests/consensus/stock.py."""

import numpy as np

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, MetaStore, NotLeader, Replica, disk_journal
from smrx.consensus.disk_journal import DiskJournal
from smrx.consensus.follower import Follower
from smrx.consensus.leader import Leader
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import Membership, MembershipError
from smrx.consensus.messages import Envelope
from smrx.consensus.snapshots import Snapshot
from smrx.node.order_entry import OrderEntry, Reply
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.parts import SimulatedMeta
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.wire import batches, frames
from smrx.wire.codes import OutcomeStatus
from smrx.wire.frames import Frame
from smrx.wire.records import OUTCOME


class ForgetsVotes(SimulatedMeta):
    """Whom it voted for is gone after a restart."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(vote=None)


class ForgetsTerms(SimulatedMeta):
    """The term and the vote in it are gone after a restart."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(term=0, vote=None)


class SpeaksBeforeWriting(Replica):
    """Messages leave, and only then what they promise is made durable."""

    def _persist_term(self) -> None:
        pass

    def _persist(self) -> None:
        pass


class LeaderThatKeepsTransfers(Leader):
    """The log after a snapshot under way is kept, even for a dead peer or after the leadership."""

    def stop(self) -> None:
        pass

    def oldest_needed(self) -> int:
        transfers = [progress.transfer for progress in self._progress.values()]
        indexes = [transfer.snapshot.index for transfer in transfers if transfer is not None]
        return min([super().oldest_needed(), *indexes])


class KeepsForTheDead(Replica):
    """A replica with this bug."""

    leader_class = LeaderThatKeepsTransfers


class LeaderThatSendsRemovalsEarly(Leader):
    """A removed node is sent its removal before it is committed."""

    def _last_for(self, peer: int) -> int:
        return self._journal.last_index


class EarlyRemoval(MemberChanges):
    """A node accepts its removal before it is committed, and from an old message of a leader."""

    def note_removal(self, leader_last_index: int) -> None:
        if self._context.node_id not in self._members.ids and self._raft.commit_index >= leader_last_index:
            self.removed = True


class EndsTooEarly(Replica):
    """A replica with both bugs."""

    leader_class = LeaderThatSendsRemovalsEarly
    member_changes_class = EarlyRemoval


class CountsItselfBeforeWriting(Replica):
    """A leader sends its entries, and writes them when it leads no more; until then it counts itself all the same."""

    def _persist(self) -> None:
        if self.is_leader:
            self._persist_term()
        else:
            super()._persist()


class JournalThatDoesNotSync(DiskJournal):
    """Row 7: what was appended is on its way to the disk, for a while."""

    def sync(self) -> None:
        self._unsynced = getattr(self, "_unsynced", 0) + 1
        if self._unsynced % 8 == 1:
            super().sync()


class JournalThatBelievesEverything(DiskJournal):
    """Row 7: an entry is what the disk says it is."""

    def _load(self) -> None:
        kept = disk_journal.decode_entry
        disk_journal.decode_entry = lambda value, index: (value[16:], index, int.from_bytes(value[8:16], "little"))
        try:
            super()._load()
        finally:
            disk_journal.decode_entry = kept


class VotesEmpty(Replica):
    """An empty node takes its cluster file at its word: it never promised anything, and has a vote."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return meta.joined and journal.may_lack_entries


class UncheckedChanges(MemberChanges):
    """Members are added with their vote, and no change waits for the one before to be committed."""

    def add(self, node: NodeConfig) -> int:
        membership = self._members.membership.with_learner(node, self._journal.last_index + 1)
        return self._change(membership.promoted(node.id))

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active:
            raise NotLeader
        return self._append(membership)


class TwoVotersAtOnce(VotesEmpty):
    """A replica with this bug."""

    member_changes_class = UncheckedChanges


class EarlyChanges(MemberChanges):
    """A change is proposed before the leader's own first entry is committed."""

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active:
            raise NotLeader
        if self._members.index > self._raft.commit_index:
            raise MembershipError("expected the last change of members to be done, found it on its way")
        return self._append(membership)


class ChangesTooEarly(Replica):
    """A replica with this bug."""

    member_changes_class = EarlyChanges


class LearnersAsVoters(MemberChanges):
    """What a member without a vote acknowledges counts for the commit."""

    def put_into_force(self) -> None:
        super().put_into_force()
        self._raft.set_voters(self._members.ids - {self._context.node_id})


class CountsLearners(Replica):
    """A replica with this bug."""

    member_changes_class = LearnersAsVoters


class ForgetsMembers(SimulatedMeta):
    """Who belongs to the cluster is gone after a restart."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(membership=(0, b""))


class FollowerThatIgnoresMembers(Follower):
    """A snapshot does not bring the members that were in force at it."""

    def _install(self, snapshot: Snapshot, in_force: tuple[int, bytes]) -> bool:
        return super()._install(snapshot, self._journal.membership)


class TakesNoMembersFromSnapshots(Replica):
    """A replica with this bug."""

    follower_class = FollowerThatIgnoresMembers


class Diverges(ReplicatedState):
    """The third machine of a run loses a unit of money after a while."""

    made = 0

    def __init__(self, event_ring: int, outcome_ring: int) -> None:
        super().__init__(event_ring, outcome_ring)
        Diverges.made += 1
        self._is_it = Diverges.made % 4 == 3

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        if self._is_it and self.engine.sequence > 30:
            self.engine.corrupt_balance(1, 2, -1)
        super().apply(log_index, term, entry)


class AppliesRepeats(ReplicatedState):
    """A repeated request is taken for a new one."""

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        batch = batches.decode(entry)
        commands = batch.commands.copy()
        sessions = self.engine.inspect.sessions()
        reached = dict(zip(sessions["session_id"].tolist(), sessions["last_request_id"].tolist(), strict=True))
        for command in commands:
            session = int(command["session_id"])
            if session in reached and 0 < command["request_id"] <= reached[session]:
                command["request_id"] = reached[session] + 1
            if session in reached and command["request_id"] == reached[session] + 1:
                reached[session] += 1
        changed = batches.encode(commands.tobytes(), batch.time_ns, batch.sequence, batch.state_hash)
        super().apply(log_index, term, changed)


class AnswersBeforeCommit(OrderEntry):
    """A frame is answered as soon as it is taken."""

    def _accept(self, identity: bytes, frame: Frame) -> None:
        super()._accept(identity, frame)
        commands = frames.records(frame)
        outcomes = np.zeros(len(commands), OUTCOME)
        outcomes["status"] = OutcomeStatus.ACCEPTED
        for name in ("session_id", "request_id"):
            outcomes[name] = commands[name]
        self._replies.append(Reply(identity, frames.encode_outcomes(outcomes, frame.correlation)))


class LetsAnybodyIn(SimulatedTransport):
    """Row 5: whoever connects is whom his messages say he is."""

    def _lets_in(self, key: str) -> bool:
        return True


class BelievesEveryEnvelope(SimulatedTransport):
    """Row 5: a message is for this cluster, and of a member, because it is here."""

    def _fault(self, envelope: Envelope) -> str | None:
        return None if envelope.sender in self._nodes else super()._fault(envelope)


class ForgetsVotesAndLives(ForgetsVotes):
    """Neither its vote nor that it ever ran before survives: a vote alone is protected by the number of the life."""

    def begin(self) -> None:
        super().begin()
        self._life = 1
