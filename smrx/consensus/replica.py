"""Replicate the log of one member and drive its state machine.

A reader finds here what a replica does with a message (`_receive`), what it does in a tick (`tick`), and of which
parts it is made (the constructor). PySyncObj runs the elections, votes, log matching and the commit rule
(raft_library); the parts check what goes into it and replace the steps it gets wrong, which README.md beside this file
lists.

One thread: the reactor calls the transport's receive, then submit() and tick(), then the transport's flush(). An
exception from any of them means that this node must stop.
"""

import logging
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any, Final

from smrx.config import NodeConfig, Timing
from smrx.consensus import compaction, replica_status
from smrx.consensus.applier import Applier
from smrx.consensus.compaction import Compaction
from smrx.consensus.context import NotLeader, ReplicaContext, ReplicaSettings, StateMachine
from smrx.consensus.elections import Elections
from smrx.consensus.follower import Follower
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.leader import Leader
from smrx.consensus.leadership_transfer import LeadershipTransfer
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import Membership, is_membership
from smrx.consensus.messages import (
    FENCED,
    LEARNER,
    NEW,
    AppendEntries,
    AppendReply,
    Envelope,
    HashReply,
    HashRequest,
    MembershipHint,
    NotAMember,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    Vote,
)
from smrx.consensus.raft_library import Hooks, now
from smrx.consensus.read_index import ReadIndex, ReadState, ReadTicket
from smrx.consensus.recovery import MetaStore
from smrx.consensus.replica_status import Role
from smrx.consensus.rules_agreement import RulesAgreement
from smrx.consensus.snapshot_sender import SnapshotSender
from smrx.consensus.snapshots import MemorySnapshots, Snapshot, SnapshotStore
from smrx.consensus.transport import Header, PeerTransport
from smrx.wire.admin import PeerStatus

log = logging.getLogger(__name__)

#: How long a node keeps a new incarnation number before it takes a higher one.
_INCARNATION_SECONDS: Final = 1.0
#: Only a forged message can hold a higher incarnation; a later number must still be valid.
_MAX_INCARNATION: Final = 1 << 40
#: While messages arrive, the steps of a tick that can wait are taken this often, and in each tenth of a heartbeat.
_TICK_SECONDS: Final = 0.005
#: A node without a leader checks at least this often what it waits for.
_RECHECK_SECONDS: Final = 0.01


class Replica:
    """The replicated log of one member."""

    #: The classes of the parts, so that a test can replace one.
    applier_class: type[Applier] = Applier
    compaction_class: type[Compaction] = Compaction
    elections_class: type[Elections] = Elections
    follower_class: type[Follower] = Follower
    leader_class: type[Leader] = Leader
    read_index_class: type[ReadIndex] = ReadIndex
    member_changes_class: type[MemberChanges] = MemberChanges
    snapshot_sender_class: type[SnapshotSender] = SnapshotSender
    transfer_class: type[LeadershipTransfer] = LeadershipTransfer

    def __init__(
        self,
        node_id: int,
        peers: Sequence[int],
        *,
        machine: StateMachine,
        transport: PeerTransport,
        meta: MetaStore,
        journal: MemoryJournal,
        settings: ReplicaSettings,
        snapshots: SnapshotStore | None = None,
        snapshot_sequence: int = 0,
        members: Membership | None = None,
        wall_ns: Callable[[], int] = time_ns,
    ) -> None:
        """Start as a follower, or as a learner if the node has lost its log; raises ValueError.

        The machine has applied the log up to the journal's `applied_index`. Without `snapshots` they are taken in
        memory; `snapshot_sequence` is the command sequence of the newest stored one. `members` is the cluster file's
        membership; by default this node and its peers. `wall_ns` reads this node's clock, in nanoseconds since 1970.
        """
        self._check_journal(journal, snapshots)
        self._check_timing(settings.timing)
        compaction.check_settings(settings.compaction_entries)
        journal.attach(meta)
        context = self._context = ReplicaContext(
            node_id,
            peers,
            machine=machine,
            transport=transport,
            meta=meta,
            journal=journal,
            settings=settings,
            members=members,
            starts_as_learner=self._starts_as_learner,
            wall_ns=wall_ns,
        )
        self.node_id = node_id
        self.agreement = context.agreement
        self.clock = context.clock
        self._journal = journal
        self._raft = context.raft
        self._next_incarnation_at = 0.0
        #: When the next tick takes every step, and the time from one to the next.
        self._full_tick_at = 0.0
        self._tick_seconds = min(_TICK_SECONDS, settings.timing.heartbeat_ms / 10_000)

        store = MemorySnapshots(machine.snapshot) if snapshots is None else snapshots
        self.transfer = self.transfer_class(context)
        self.rules = RulesAgreement(context)
        self.reads = self.read_index_class(context)
        self.leader = self.leader_class(context, self.snapshot_sender_class(context, store), self.rules, self.reads)
        self.member_changes = self.member_changes_class(context, self.leader, self.transfer)
        self.follower = self.follower_class(context, self.member_changes, store)
        self.applier = self.applier_class(context, self.member_changes)

        transport.attach(
            header=self._header,
            persist_term=self._persist_term,
            persist=self._persist,
            clock=now,
            # A little more than the heartbeat, which carries the same and more.
            hello_interval_seconds=1.2 * settings.timing.heartbeat_ms / 1000,
            peer_timeout_seconds=settings.timing.election_max_ms / 1000,
            hello=self.member_changes.hello,
            unknown_peer=self.member_changes.on_unknown_peer,
        )
        self.elections = self.elections_class(context)
        self.compaction = self.compaction_class(
            context, self.leader, store, peers=peers, snapshot_sequence=snapshot_sequence
        )
        self._raft.attach(
            Hooks(
                receive=self._receive,
                reply_to_append=self.follower.reply,
                may_start_election=self.elections.may_start_election,
                leadership_won=self._start_leading,
                leadership_lost=self.leader.stop,
                apply_committed=self.applier.apply_committed,
                send_heartbeats=self.leader.send_heartbeats,
                compact_log=self.compaction.run,
            )
        )
        self._handlers: dict[type, Callable[[int, Envelope, Any], None]] = {
            AppendEntries: self.follower.on_append,
            SnapshotChunk: self.follower.on_snapshot_chunk,
            AppendReply: self.leader.on_append_reply,
            SnapshotReply: self.leader.on_snapshot_reply,
            PreVote: self.elections.on_pre_vote,
            PreVoteReply: self.elections.on_pre_vote_reply,
            RequestVote: self.elections.on_request_vote,
            Vote: self.elections.on_vote,
            TimeoutNow: self.elections.on_timeout_now,
            MembershipHint: self.member_changes.on_membership_hint,
            NotAMember: self.member_changes.on_not_a_member,
        }
        self.member_changes.put_into_force()

    # The order of steps: a command, a message, a tick.

    def submit(self, entry: bytes) -> int:
        """Append a command to the log and send it to the followers; return its log index.

        It is committed once tick() has passed it to the machine at this index and in the present term. Raises
        NotLeader, also during a transfer of the leadership; ValueError for bytes that are no entry.
        """
        if not self._raft.is_leader or self.transfer.is_active or self.agreement.fenced is not None:
            raise NotLeader
        self.applier.check_entry(entry)
        if is_membership(entry):
            raise ValueError("expected a command, found a membership entry; use add_member() or remove_member()")
        index = self._journal.last_index + 1
        self._journal.add(entry, index, self._raft.term)
        self.leader.replicate()
        return index

    def request_read(self) -> ReadTicket:
        """Request a linearizable read; read_state() says when the state may be read. Raises NotLeader.

        confirm_reads() must follow, once for all reads of a turn.
        """
        if self.agreement.fenced is not None:
            raise NotLeader
        return self.reads.request()

    def confirm_reads(self) -> None:
        """Ask the members to confirm this leader, if a read was requested since the last time."""
        self.leader.confirm_reads()

    def read_state(self, ticket: ReadTicket) -> ReadState:
        """Return whether the state may be read now for a read that was requested."""
        return ReadState.LOST if self.agreement.fenced is not None else self.reads.state(ticket)

    def state_age_seconds(self) -> float:
        """Return how old this node's state may be, as far as it knows; infinity if it has heard of no leader.

        The time since this node knew that it led; or since the newest message of a leader whose commit index this node
        has applied, or the difference of the two clocks, if that is longer: the message may have waited. Such a leader
        may have been deposed for leader_fallback_ms.
        """
        return min(self.reads.age_seconds(), self.follower.state_age_seconds())

    def stamp_ns(self) -> int:
        """Return the nanoseconds since 1970 for a new log entry, bounded by the clocks of a majority."""
        return self.clock.stamp_ns(now())

    def _receive(self, peer: int, envelope: Envelope) -> None:
        """Handle a message: note what it says about the peer, adopt its term, and pass it to its handler."""
        if not self._update_view(peer, envelope):
            return
        body = envelope.body
        if isinstance(body, HashRequest):
            self.agreement.answer(peer, body)
        elif isinstance(body, HashReply):
            self.agreement.answered(peer, body, now())
        elif self.agreement.fenced is None:
            if envelope.term > self._raft.term:
                self._raft.step_down(envelope.term)
            handler = self._handlers.get(type(body))
            if handler is not None:
                handler(peer, envelope, body)

    def tick(self) -> None:
        """Advance: elections, commits, applies, heartbeats; never blocks. Raises ConsensusError: the node must stop.

        A tick soon after the last one takes only the steps that others wait for.
        """
        if self.applier.failure is not None:
            raise self.applier.failure
        time = now()
        if time < self._full_tick_at and not self._needs_every_step():
            if self.leader.may_commit or self._raft.has_work(time):
                self.leader.may_commit = False
                self._raft.tick()
            self.leader.announce_commit()
            return
        self._full_tick_at = time + self._tick_seconds
        self.leader.may_commit = False
        self._context.transport.tick(time)
        self._exceed_known_incarnation(time)
        self.clock.tick(time)
        if self.agreement.fenced is not None:
            self._step_down()
        else:
            self._persist_if_alone()
            # In this order: elections.may_start_election; the leader moves the commit index, or steps down without a
            # majority; applier.apply_committed; leader.send_heartbeats; compaction.run.
            self._raft.tick()
            # The first entry of a leadership was appended and committed within that tick, and is announced below.
            self._persist_if_alone()
        self.member_changes.remove_former_peers()
        self.leader.announce_commit()
        self.transfer.advance()
        self.transfer.leave_if_clock_is_wrong()
        self.member_changes.promote_learners()
        self.agreement.tick(time)

    def next_deadline(self) -> float:
        """Return when tick() has something to do even without a message (on the clock of time.monotonic)."""
        deadline = max(self._context.transport.next_deadline(), self._full_tick_at)
        if self._raft.is_leader:
            return min(deadline, self._raft.heartbeat_due(), self.leader.announcement_due(), self.transfer.deadline)
        return min(deadline, max(self._raft.election_deadline, now() + _RECHECK_SECONDS))

    # Steps of the above.

    def _needs_every_step(self) -> bool:
        """Whether no step of a tick can wait: this node is fenced or alone, or the leader or the members change."""
        is_fenced_or_alone = self.agreement.fenced is not None or not self._context.members.voters
        return is_fenced_or_alone or self.transfer.is_active or self.member_changes.removal_due

    def _update_view(self, peer: int, envelope: Envelope) -> bool:
        """Note what a message says about its sender; return False if that is no peer."""
        context = self._context
        view = context.views.get(peer)
        if view is None:
            return False
        if envelope.incarnation != view.incarnation:
            if view.incarnation:
                self.leader.reset_peer(peer)
                self.agreement.forget(peer)
            self.clock.forget(peer)
            view.incarnation = envelope.incarnation
            view.refused_snapshot = None
        view.learner = bool(envelope.flags & LEARNER)
        view.fenced = bool(envelope.flags & FENCED)
        view.new = bool(envelope.flags & NEW)
        self.rules.observe(peer, envelope.rules)
        view.knows_me |= envelope.receiver_incarnation == context.meta.incarnation
        if context.bootstrap.update(context.views):
            log.info("node %d: all nodes of the cluster are new, and it is bootstrapped", self.node_id)
            context.rejoin.active = False
            self._journal.mark_complete()
        view.sequence, view.state_hash = envelope.sequence, envelope.state_hash
        self.agreement.observe(peer, envelope.sequence, envelope.state_hash, now())
        self.clock.observe(peer, envelope.number, envelope.clock_ns, now())
        return True

    def _start_leading(self) -> None:
        self.transfer.cancel()
        self.elections.won()
        self.leader.start()

    def _step_down(self) -> None:
        """Stop leading and following: this node is fenced."""
        if self._raft.is_leader or self._raft.leader_id is not None:
            self._raft.step_down(self._raft.term)

    def _exceed_known_incarnation(self, time: float) -> None:
        """Take a higher incarnation than one that peers know of this node id and this directory does not.

        It belonged to a node that is gone, whose directory this one has replaced; the peers drop messages of earlier
        incarnations. If both nodes run, they take turns, and each logs it.
        """
        context = self._context
        known = context.transport.newer_incarnation
        if known is None or time < self._next_incarnation_at or known >= _MAX_INCARNATION:
            return
        self._next_incarnation_at = time + _INCARNATION_SECONDS
        log.warning("node %d: peers know its incarnation %d, which is not of this directory", self.node_id, known)
        context.meta.exceed_incarnation(known)
        context.transport.set_incarnation(context.meta.incarnation)

    def _header(self) -> Header:
        context = self._context
        flags = (LEARNER if context.rejoin.active else 0) | (FENCED if self.agreement.fenced is not None else 0)
        flags |= NEW if context.bootstrap.never_held_state else 0
        return Header(self._raft.term, flags, *context.machine.position(), self.clock.own_ns(), context.machine.rules())

    def _persist_if_alone(self) -> None:
        """The only voter is the majority: an entry is committed by the next step, so it has to be durable before."""
        if not self._context.members.voters:
            self._persist()

    def _persist_term(self) -> None:
        """Make term, vote and membership durable; called before any message leaves."""
        self._context.meta.sync()

    def _persist(self) -> None:
        """Make the log durable; called before any message leaves that acknowledges entries.

        The term comes first: no durable entry may be of a term that its node could lose.
        """
        self._persist_term()
        self._journal.sync()

    # Requests of an operator.

    def transfer_leadership(self, peer: int | None = None) -> int:
        """Begin to make another member the leader; see LeadershipTransfer.start()."""
        return self.transfer.start(peer)

    def add_member(self, node: NodeConfig) -> int:
        """Add a member; see MemberChanges.add()."""
        return self.member_changes.add(node)

    def remove_member(self, node_id: int) -> int:
        """Remove a member; see MemberChanges.remove()."""
        return self.member_changes.remove(node_id)

    def compact(self) -> None:
        """Take a snapshot at the next tick, where the store keeps them, and compact the log whatever its length."""
        self.compaction.request()
        self._full_tick_at = 0.0

    # For a program that applies the same log (smrx/node/log_service.py).

    def state_for_readers(self, not_before: int) -> Snapshot | None:
        """Return a snapshot that the log continues, after this entry or later; take one, as for a peer, if needed."""
        snapshot = self.leader.snapshots.snapshot_for_peers()
        if snapshot is not None and snapshot.index < not_before:
            self.leader.snapshots.take(for_restart=False)
            return None
        return snapshot

    def entries_after(self, index: int, size_bytes: int, count: int) -> list[LogEntry] | None:
        """Return applied entries after one, about so many bytes; None if the log no longer has them."""
        journal = self._journal
        if index < journal.first_index:
            return None
        count = min(count, self.applied_index - index)
        return journal.batch(index + 1, size_bytes, count) if count > 0 else []

    @property
    def first_index(self) -> int:
        """The log entry after which this node has the log; 1 if it has all of it."""
        return self._journal.first_index

    # Status.

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows; only a committed entry proves it."""
        return self._raft.is_leader

    @property
    def has_applied_earlier_terms(self) -> bool:
        """Whether this node leads and its state has all that earlier leaders may have committed."""
        index = self._raft.applied_index
        return self._raft.is_leader and self._journal.term_at(index) == self._raft.term

    @property
    def is_transferring(self) -> bool:
        """Whether a transfer of the leadership is under way, so that commands have to wait."""
        return self.transfer.is_active

    @property
    def leader_id(self) -> int | None:
        """The leader, None if unknown."""
        return self._raft.leader_id

    @property
    def term(self) -> int:
        """The current term."""
        return self._raft.term

    @property
    def commit_index(self) -> int:
        """The last log entry that is known to be on a majority."""
        return self._raft.commit_index

    @property
    def applied_index(self) -> int:
        """The last log entry that the state machine has applied."""
        return self._raft.applied_index

    @property
    def last_index(self) -> int:
        """The last log entry of this node, committed or not."""
        return self._journal.last_index

    @property
    def membership(self) -> Membership:
        """The members of the cluster, by this node's log."""
        return self._context.members.membership

    @property
    def removed(self) -> bool:
        """Whether this node was a member and was removed."""
        return self.member_changes.removed

    @property
    def holds_log(self) -> bool:
        """Whether this node has every entry that it ever acknowledged, as far as it can know."""
        return self._context.holds_log

    @property
    def refused(self) -> dict[str, int]:
        """Messages that were well formed but refused, by reason."""
        return self._context.refused

    @property
    def role(self) -> Role:
        """What this node is at present."""
        return replica_status.role(self._context)

    @property
    def waiting(self) -> str | None:
        """What this node waits for before it can serve, None if nothing."""
        return replica_status.waiting_for(self._context)

    def clock_offset_seconds(self) -> float | None:
        """Return how far this node's clock is ahead of the majority clock, None if no majority is heard."""
        return self.clock.offset_seconds(now())

    def clock_fault(self, state_time_ns: int) -> str | None:
        """Return what is wrong with this node's clock, or with the time of its state; None if nothing is known."""
        return self.clock.fault(now(), state_time_ns)

    def peer_status(self) -> tuple[PeerStatus, ...]:
        """Return what this node has of each other node."""
        return replica_status.peer_status(self._context)

    # Checks at the start.

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        """Return whether this node may lack entries that it acknowledged, so that it must catch up before it counts."""
        return journal.may_lack_entries and (meta.joined or not meta.initialized)

    def _check_journal(self, journal: MemoryJournal, snapshots: SnapshotStore | None) -> None:
        if journal.persistent and (snapshots is None or not snapshots.persistent):
            raise ValueError(
                "journal: a persistent journal needs a persistent snapshot store; without one, the first compaction "
                "destroys the only copy of the state"
            )

    def _check_timing(self, timing: Timing) -> None:
        if timing.leader_fallback_ms >= timing.election_min_ms:
            raise ValueError(
                f"timing.leader_fallback_ms: expected less than election_min_ms ({timing.election_min_ms}), so that an "
                f"isolated leader steps down before another is elected, found {timing.leader_fallback_ms}"
            )
