"""Components with a planted fault, besides the library's own faults in tests/consensus/stock.py."""

from collections.abc import Iterator

import numpy as np

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, MetaStore, NotLeader, Replica, disk_journal
from smrx.consensus.disk_journal import DiskJournal
from smrx.consensus.elections import Elections
from smrx.consensus.follower import Follower
from smrx.consensus.leader import Leader
from smrx.consensus.leadership_transfer import LeadershipTransfer
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import Membership, MembershipError
from smrx.consensus.messages import Envelope
from smrx.consensus.raft_library import now
from smrx.consensus.read_index import ReadIndex, ReadTicket
from smrx.consensus.snapshots import Snapshot
from smrx.node.frame_block import SENDER, FrameBlock
from smrx.node.order_entry import CommandBatch, OrderEntry, Reply
from smrx.node.principal import Principal
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.simulated_meta import SimulatedMeta
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.wire import batches, frames
from smrx.wire.codes import OutcomeStatus
from smrx.wire.frames import Frame, LeaderHint
from smrx.wire.records import DETAILS_SIZE, OUTCOME
from tests.client.fake_exchange import EVENTS


class LosesVotes(SimulatedMeta):
    """A restart loses the vote."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(vote=None)


class LosesTerms(SimulatedMeta):
    """A restart loses the term and the vote in it."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(term=0, vote=None)


class SendsBeforeSync(Replica):
    """Messages are sent before the state they depend on is durable."""

    def _persist_term(self) -> None:
        pass

    def _persist(self) -> None:
        pass


class LeaderThatKeepsTransfers(Leader):
    """The log after a snapshot in transfer is kept even if the peer crashed or the leader changed."""

    def stop(self) -> None:
        pass

    def oldest_needed(self) -> int:
        transfers = [progress.transfer for progress in self._progress.values()]
        indexes = [transfer.snapshot.index for transfer in transfers if transfer is not None]
        return min([super().oldest_needed(), *indexes])


class KeepsLogForOldTransfers(Replica):
    """A replica whose leader keeps the log of every transfer it started."""

    leader_class = LeaderThatKeepsTransfers


class LeaderThatSendsRemovalsEarly(Leader):
    """A removed node receives its removal before it is committed."""

    def _last_for(self, peer: int) -> int:
        return self._journal.last_index


class EarlyRemoval(MemberChanges):
    """A node accepts its removal before it is committed, and from an old message of a leader."""

    def note_removal(self, leader_last_index: int) -> None:
        if self._context.node_id not in self._members.ids and self._raft.commit_index >= leader_last_index:
            self.removed = True


class StopsBeforeRemovalIsCommitted(Replica):
    """A replica that sends and accepts removals before they are committed."""

    leader_class = LeaderThatSendsRemovalsEarly
    member_changes_class = EarlyRemoval


class CountsItselfBeforeSync(Replica):
    """A leader writes its entries only after it steps down, and counts itself for the commit before."""

    def _persist(self) -> None:
        if self.is_leader:
            self._persist_term()
        else:
            super()._persist()


class JournalWithRareSyncs(DiskJournal):
    """Row 7: most syncs do nothing."""

    def sync(self) -> None:
        self._unsynced = getattr(self, "_unsynced", 0) + 1
        if self._unsynced % 8 == 1:
            super().sync()


class JournalWithoutChecksums(DiskJournal):
    """Row 7: entries are read without a check of their checksum and index."""

    def _load(self) -> None:
        kept = disk_journal.decode_entry
        disk_journal.decode_entry = lambda value, index: (value[16:], index, int.from_bytes(value[8:16], "little"))
        try:
            super()._load()
        finally:
            disk_journal.decode_entry = kept


class VotesWithEmptyLog(Replica):
    """A node with an empty directory votes if its cluster file names it."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return meta.joined and journal.may_lack_entries


class UncheckedChanges(MemberChanges):
    """New members vote at once, and a change does not wait until the one before is committed."""

    def add(self, node: NodeConfig) -> int:
        membership = self._members.membership.with_learner(node, self._journal.last_index + 1)
        return self._change(membership.promoted(node.id))

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active:
            raise NotLeader
        return self._append(membership)


class AddsVotersAtOnce(VotesWithEmptyLog):
    """A replica that changes members without any condition."""

    member_changes_class = UncheckedChanges


class EarlyChanges(MemberChanges):
    """A leader starts a change before it has committed an entry of its own term."""

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active:
            raise NotLeader
        if self._members.index > self._raft.commit_index:
            raise MembershipError("the last membership change is not committed yet")
        return self._append(membership)


class ChangesBeforeOwnCommit(Replica):
    """A replica that changes members before it has committed an entry of its own term."""

    member_changes_class = EarlyChanges


class LearnersAsVoters(MemberChanges):
    """Acknowledgements of learners count for the commit."""

    def put_into_force(self) -> None:
        super().put_into_force()
        self._raft.set_voters(self._members.ids - {self._context.node_id})


class CountsLearners(Replica):
    """A replica that counts learners as voters."""

    member_changes_class = LearnersAsVoters


class LosesMembership(SimulatedMeta):
    """A restart loses the membership."""

    def begin(self) -> None:
        super().begin()
        self._current = self._current._replace(membership=(0, b""))


class FollowerThatIgnoresMembers(Follower):
    """A restored snapshot does not change the membership."""

    def _install(self, snapshot: Snapshot, in_force: tuple[int, bytes]) -> bool:
        return super()._install(snapshot, self._journal.membership)


class IgnoresSnapshotMembership(Replica):
    """A replica that keeps its membership when it installs a snapshot."""

    follower_class = FollowerThatIgnoresMembers


class Diverges(ReplicatedState):
    """The third state of a run loses a unit of money after a while."""

    made = 0

    def __init__(self, event_ring: int) -> None:
        super().__init__(event_ring)
        Diverges.made += 1
        self._diverges = Diverges.made % 4 == 3

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        if self._diverges and self.engine.sequence > 30:
            self.engine.corrupt_balance(1, 2, -1)
        super().apply(log_index, term, entry)


class AppliesRepeats(ReplicatedState):
    """A repeated request is applied as a new one."""

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        batch = batches.decode(entry)
        commands = batch.commands.copy()
        sessions = self.engine.inspect.sessions()
        last_requests = dict(zip(sessions["session_id"].tolist(), sessions["last_request_id"].tolist(), strict=True))
        for command in commands:
            session = int(command["session_id"])
            if session in last_requests and 0 < command["request_id"] <= last_requests[session]:
                command["request_id"] = last_requests[session] + 1
            if session in last_requests and command["request_id"] == last_requests[session] + 1:
                last_requests[session] += 1
        details = batch.details.tobytes()
        changed = batches.encode(commands.tobytes(), batch.time_ns, batch.sequence, batch.state_hash, details)
        super().apply(log_index, term, changed)


class MixesDetails(OrderEntry):
    """A log entry has the details of its commands in another order."""

    def take_batches(self) -> Iterator[CommandBatch]:
        for batch in super().take_batches():
            yield batch._replace(details=batch.details[DETAILS_SIZE:] + batch.details[:DETAILS_SIZE])


class AnswersBeforeCommit(OrderEntry):
    """A frame is answered as soon as it is accepted."""

    def receive_block(self, block: FrameBlock, hint: LeaderHint, fenced: str | None, now_ns: int = 0) -> None:
        for row, sender in enumerate(block.rows[:, SENDER].tolist()):
            self.receive(block.senders.identities[sender], block.frame(row), hint, fenced)

    def _accept(self, identity: bytes, frame: Frame, principal: Principal, now_ns: int) -> None:
        super()._accept(identity, frame, principal, now_ns)
        commands = frames.records(frame)
        outcomes = np.zeros(len(commands), OUTCOME)
        outcomes["status"] = OutcomeStatus.ACCEPTED
        # Such as the client takes for answers to what it sent.
        outcomes["event_kind"] = [EVENTS.get(kind, 0) for kind in commands["kind"].tolist()]
        for name in ("session_id", "request_id", "order_id"):
            outcomes[name] = commands[name]
        self._replies.append(Reply(identity, frames.encode_outcomes(outcomes, frame.correlation)))


class AcceptsEveryKey(SimulatedTransport):
    """Row 5: a connection with any key is accepted."""

    def _accepts_key(self, key: str) -> bool:
        return True


class AcceptsEveryEnvelope(SimulatedTransport):
    """Row 5: a message is accepted without a check of its cluster and sender."""

    def _fault(self, envelope: Envelope) -> str | None:
        return None if envelope.sender in self._nodes else super()._fault(envelope)


class LosesVotesAndIncarnation(LosesVotes):
    """A restart loses the vote and the incarnation: the incarnation alone would protect the vote."""

    def begin(self) -> None:
        super().begin()
        self._incarnation = 1


class StampsOwnClock(SimulatedNode):
    """A leader stamps entries with its own clock, whatever the other clocks show."""

    def stamp_ns(self) -> int:
        return self.wall_ns()


class StampsNoLaterThanMajority(SimulatedNode):
    """A leader whose clock is behind stamps entries with it."""

    def stamp_ns(self) -> int:
        return min(self.wall_ns(), super().stamp_ns())


class ElectionsOfAnyClock(Elections):
    """A node with a wrong clock campaigns like any other."""

    def _leaves_to_others(self) -> bool:
        return False


class TransferForNoClock(LeadershipTransfer):
    """A leader with a wrong clock leads on."""

    def leave_if_clock_is_wrong(self) -> None:
        pass


class IgnoresClocks(Replica):
    """A replica that leads with any clock."""

    elections_class = ElectionsOfAnyClock
    transfer_class = TransferForNoClock


class ElectionsOfRightClocks(Elections):
    """A node with a wrong clock never campaigns, even if no other node can win."""

    def _leaves_to_others(self) -> bool:
        return self._context.clock.judge(now()) in ("ahead", "behind")


class WaitsForRightClock(Replica):
    """A replica that never campaigns with a wrong clock."""

    elections_class = ElectionsOfRightClocks


class ConfirmsWithoutRound(ReadIndex):
    """A leader serves reads because it has not heard of another one."""

    def _is_confirmed(self, ticket: ReadTicket) -> bool:
        return True


class ReadsWithoutConfirmation(Replica):
    """A replica that confirms no read."""

    read_index_class = ConfirmsWithoutRound


class AnswersReadsAtOnce(SimulatedNode):
    """A read is answered before the turn in which it arrives, as if what a leader knew last were a lease."""

    def _request_read(self, source: int, number: int) -> None:
        super()._request_read(source, number)
        self._answer_reads()


class ReadsKnownCommits(ReadIndex):
    """A new leader serves what it knows to be committed, before it has committed an entry of its own term."""

    def _read_index(self) -> int:
        return self._raft.commit_index


class ReadsBeforeOwnCommit(Replica):
    """A replica that serves reads before it has committed an entry of its own term."""

    read_index_class = ReadsKnownCommits


class CountsEarlierRounds(ReadIndex):
    """Any echo of the term confirms, also one of a message that was sent before the read."""

    def _is_confirmed(self, ticket: ReadTicket) -> bool:
        return self._confirmed_round() > 0


class ReadsWithEarlierRounds(Replica):
    """A replica that confirms reads by rounds from before them, as a lease without an end."""

    read_index_class = CountsEarlierRounds
