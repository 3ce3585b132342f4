"""One member's replica of the log, and what drives the state machine from it.

A SyncObj whose elections, votes, log matching and commit rule are the library's, with checks of our own before them.
What the library gets wrong, and where each answer is, says README.md beside this file. One thread: the reactor calls
the transport's drain(), then submit() and tick(), then the transport's flush(). An exception out of any of them means
that this node must stop.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from pysyncobj.node import Node

from smrx.config import NodeConfig, Timing
from smrx.consensus import messages
from smrx.consensus.core import ConsensusError, PeerView, StateMachine
from smrx.consensus.internals import CANDIDATE, LEADER, now
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.leading import Leading, NotLeader, Progress
from smrx.consensus.membership import (
    Member,
    Membership,
    MembershipError,
    decode,
    encode,
    host_fault,
    is_membership,
)
from smrx.consensus.messages import (
    Acquaint,
    AppendEntries,
    AppendReply,
    Body,
    Envelope,
    HashReply,
    HashRequest,
    Hello,
    NoMember,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    StandNow,
    Vote,
)
from smrx.consensus.recovery import MetaStore
from smrx.consensus.snapshots import Mark, Schedule, Snapshot, SnapshotStore
from smrx.consensus.transport import PeerTransport
from smrx.wire.admin import PeerStatus

log = logging.getLogger(__name__)

Role = Literal["leader", "follower", "candidate", "learner"]

#: The log is compacted past this many bytes whatever the number of its entries: a replica lives in memory.
COMPACTION_BYTES: Final = 256 << 20
#: Of a compacted log this part stays, so that a peer that lags a little needs no snapshot.
_TAIL_PART: Final = 4
#: Entries of a durable log dropped in one turn: the loop does not wait for the rest.
_COMPACTED_A_TICK: Final = 2048
#: Applied again in a third of a second at a restart.
SNAPSHOT_COMMANDS: Final = 1_000_000
SNAPSHOT_SECONDS: Final = 600.0
#: Before a node outlives another of its number again.
_OUTLIVE_SECONDS: Final = 1.0
#: A number that only a forger can have said; what goes on after it must still be one that others take.
_MOST_LIVES: Final = 1 << 40
#: How often a node looks again at what it waits for.
_LOOK_AGAIN_SECONDS: Final = 0.01


class Replica(Leading):
    """The replicated log of one member."""

    def __init__(
        self,
        node_id: int,
        peers: Sequence[int],
        machine: StateMachine,
        transport: PeerTransport,
        meta: MetaStore,
        journal: MemoryJournal,
        timing: Timing,
        members: Membership | None = None,
        *,
        compaction_entries: int,
        compaction_bytes: int = COMPACTION_BYTES,
        snapshots: SnapshotStore | None = None,
        snapshot_commands: int = SNAPSHOT_COMMANDS,
        snapshot_seconds: float = SNAPSHOT_SECONDS,
        snapshot_sequence: int = 0,
    ) -> None:
        """Start as a follower, or as a learner where the node held state before; raises ValueError.

        The machine stands at the journal's `applied_index`, which is the beginning where nothing was kept. Snapshots
        are taken in memory unless there is a store; where the store is persistent, after so many commands or seconds,
        counted from the one at `snapshot_sequence`.
        """
        self._check_journal(journal, snapshots)
        self._check_timing(timing)
        if compaction_entries < _TAIL_PART:
            raise ValueError(f"compaction_entries: expected at least {_TAIL_PART}, found {compaction_entries}")
        self._compaction_entries = compaction_entries
        self._compaction_bytes = compaction_bytes
        self._compaction_asked = self._snapshot_asked = False
        self._failure: ConsensusError | None = None
        #: This node was a member and is none any more.
        self.removed = False
        self._outlive_at = 0.0
        #: When each member became one: see membership.Member.
        self._since: dict[int, int] = {}
        super().__init__(node_id, peers, machine, transport, meta, journal, timing, members)
        if snapshots is not None:
            self._snapshots = snapshots
        # Half of what the log may hold: the other half is what follows the older of the two snapshots that are kept.
        newest = self._snapshots.newest()
        # Each member at another time: that it stands still for a moment is then no majority's moment.
        part = sum(peer < node_id for peer in peers) / (len(peers) + 1)
        self._schedule = Schedule(
            Mark(
                snapshot_sequence - int(part * snapshot_commands),
                (0 if newest is None else newest.index) - int(part * compaction_entries / 2),
                -int(part * compaction_bytes / 2),
                now() - part * snapshot_seconds,
            ),
            commands=snapshot_commands,
            seconds=snapshot_seconds,
            entries=compaction_entries // 2,
            size_bytes=compaction_bytes // 2,
        )
        self._handlers: dict[type, Callable[[int, Envelope, Any], None]] = {
            AppendEntries: self._on_append,
            AppendReply: self._on_append_reply,
            RequestVote: self._on_request_vote,
            Vote: self._on_vote,
            PreVote: self._on_pre_vote,
            PreVoteReply: self._on_pre_vote_reply,
            SnapshotChunk: self._on_chunk,
            SnapshotReply: self._on_snapshot_reply,
            StandNow: self._on_stand_now,
            Acquaint: self._on_acquaint,
            NoMember: self._on_no_member,
        }
        self._adopt_membership()

    # What the node calls.

    def submit(self, entry: bytes) -> int:
        """Append a command to the log and send it to the followers; return its log index.

        It is committed, if ever, when tick() has handed it to the machine at this index and the present term. Raises
        NotLeader, also while the leadership is handed over; ValueError for bytes that are no entry.
        """
        if not self.is_leader or self.handing_over or self.agreement.fenced is not None:
            raise NotLeader
        self._check_entry(entry)
        if is_membership(entry):
            raise ValueError("expected a command of the exchange, found a membership; see add_member and remove_member")
        return self._enter(entry)

    def _enter(self, entry: bytes) -> int:
        index = self._journal.last_index + 1
        self._journal.add(entry, index, self.term)
        self._replicate()
        return index

    def tick(self) -> None:
        """Move on: elections, commits, applies, heartbeats; never waits. Raises ConsensusError: the node must stop."""
        if self._failure is not None:
            raise self._failure
        time = now()
        self._transport.tick(time)
        self._outlive(time)
        if self.agreement.fenced is not None:
            self._stand_down()
        else:
            if not self._voters:
                # Alone, this node is the majority: what it has appended is committed by the next step.
                self._persist()
            self.doTick(0.0)
            if not self._voters:
                # The first entry of a leadership is appended and committed in that one step, and told of early.
                self._persist()
        if self._parting_due:
            self._part_from_others()
        self._announce_commit()
        self._go_on_handing_over()
        self._give_votes()
        self.agreement.tick(time)

    def next_deadline(self) -> float:
        """When tick() has something to do even if no message arrives (on the clock of time.monotonic)."""
        deadline = self._transport.next_deadline()
        if self.is_leader:
            end = float("inf") if self._hand_over is None else self._hand_over.deadline
            return min(deadline, self._heartbeat_due(), self._announcement_due(), end)
        return min(deadline, max(self._election_deadline, now() + _LOOK_AGAIN_SECONDS))

    def compact(self) -> None:
        """Take a snapshot at the next tick, where the store keeps them, and compact the log, however short it is."""
        self._compaction_asked = self._snapshot_asked = True

    # What the node shows.

    @property
    def role(self) -> Role:
        """What this node is at present."""
        if self._raft_state == LEADER:
            return "leader"
        if not self.holds_log or self.node_id not in self._membership.voters:
            return "learner"
        return "candidate" if self._raft_state == CANDIDATE else "follower"

    @property
    def waiting(self) -> str | None:
        """What this node waits for before it can serve, None if nothing."""
        later = self._transport.later_life
        if later is not None:
            return (
                f"this is life {self.meta.incarnation} of this node, and other members know its life {later}: its data "
                "directory was replaced, and they do not listen to it until they are restarted"
            )
        absent = self._founding.awaited(self._views)
        if absent:
            return (
                f"waiting for node {', '.join(map(str, absent))}: a new cluster begins once all of its nodes were there"
            )
        if self._rejoin.active and self.leader_id is not None:
            target = "?" if self._rejoin.target is None else self._rejoin.target
            return f"catching up with the leader: log entry {self._journal.last_index} of {target}"
        if self.leader_id is not None:
            return None
        if self._told_gone is not None:
            peer, index = self._told_gone
            return (
                f"waiting to be made a member: node {peer} says that this node is none by log entry {index}; if it was "
                "removed, stop it, else see smrx cluster add"
            )
        if self.node_id not in self._membership.voters:
            return "waiting to be made a member: see smrx cluster add"
        reachable = 1 + sum(self._transport.is_connected(peer) for peer in self._voters)
        if reachable < self._majority:
            return f"waiting for a majority to be reachable ({reachable} of {len(self._membership.voters)} members are)"
        if (not self._rejoin.active) + sum(self._counts(peer) for peer in self._voters) < self._majority:
            return "waiting for a majority that holds state"
        return "waiting for a leader to be elected"

    def peer_status(self) -> tuple[PeerStatus, ...]:
        """What this node knows of each other member."""
        return tuple(self._status_of(peer) for peer in sorted(self._views))

    # Who belongs to the cluster.

    def add_member(self, node: NodeConfig) -> int:
        """Make a node a member: it learns first, and gets its vote once it has the log; return the entry's index.

        Raises NotLeader; MembershipError where that cannot be, or not yet.
        """
        fault = host_fault(node) or self._transport.keys_fault(node)
        if fault is not None:
            # Once in the log every member would try, now and at every start.
            raise MembershipError(fault)
        return self._change(self._membership.with_learner(node, self._journal.last_index + 1))

    def remove_member(self, node_id: int) -> int:
        """Make a node no member; return the entry's index. Raises NotLeader; MembershipError, also for this node."""
        if node_id == self.node_id:
            raise MembershipError("expected another node than the leader, found the leader: let another one lead first")
        membership = self._membership.without(node_id)
        staying = membership.voters - {self.node_id}
        reached, needed = 1 + sum(map(self._counts, staying)), len(membership.voters) // 2 + 1
        if self.is_leader and node_id in self._voters and reached < needed:
            # The change would be in force at once, and nothing could be committed any more.
            raise MembershipError(
                f"expected a majority of those that stay ({needed} nodes) in reach, with the state, found {reached}; "
                "nothing was changed"
            )
        return self._change(membership)

    def _change(self, membership: Membership) -> int:
        if not self.is_leader or self.handing_over or self.agreement.fenced is not None:
            raise NotLeader
        # One step at a time, and none before this leader's own first entry is committed: until then an earlier leader's
        # change may still come or go (Ongaro's message to raft-dev, 2015-07-10).
        if self._membership_index > self.commit_index or self._journal.term_at(self.commit_index) != self.term:
            raise MembershipError("expected the last change of members to be done, found it on its way; try again")
        index = self._journal.last_index + 1
        self._journal.add(encode(membership), index, self.term)
        self._follow_membership()
        self._replicate()
        return index

    def _give_votes(self) -> None:
        """A member that only learned, and has all there is, gets its vote."""
        if not self.is_leader or self.handing_over or self._membership_index > self.commit_index:
            return
        for peer in self._membership.ids - self._membership.voters:
            ready = self._counts(peer) and self._match_index[self._nodes[peer]] >= self.commit_index
            if ready and self._journal.term_at(self.commit_index) == self.term:
                log.info("node %d has the log and gets its vote", peer)
                self._change(self._membership.promoted(peer))
                return

    def _follow_membership(self) -> None:
        """The log may say anew who belongs to the cluster."""
        index, entry = self._journal.membership
        if (index, entry) == self._membership_entry:
            return
        # Durable with its entry before any message of this turn: a majority that this node takes part in is counted
        # by it.
        self._membership_entry, self._membership = (index, entry), decode(entry)
        log.info("node %d: members %s", self.node_id, _described(self._membership))
        self._adopt_membership()

    def _adopt_membership(self) -> None:
        """Know every member, send to all of them while leading, and count those with a vote."""
        for member in self._membership.members:
            if member.node.id != self.node_id:
                self._forget_namesake(member)
                self._meet(member.node)
        self._set_voters(self._voters)
        self.agreement.set_voters(self._membership.voters)
        if self.is_leader:
            for peer in self._membership.ids - self._progress.keys() - {self.node_id}:
                self._track(peer)
                self._progress[peer] = Progress()

    def _meet(self, node: NodeConfig) -> None:
        """Listen to a node; what it says counts as the log says."""
        if node.id in self._views or node.id == self.node_id:
            return
        self._views[node.id] = PeerView()
        self._nodes[node.id] = Node(node.id)
        self._transport.meet(node)
        self._track(node.id)

    def _forget_namesake(self, member: Member) -> None:
        """A member that went and came under its name again may be another one, of whom nothing is known yet."""
        node = member.node
        before = self._since.get(node.id)
        self._since[node.id] = member.since
        if before is not None and before != member.since and node.id in self._views:
            self._forget_peer(node.id)
            self.agreement.forget(node.id)
            self._views[node.id] = PeerView()
            # What the old one acknowledged to this leader may still be on its way, and is not the new one's. Who does
            # not lead counts nothing; and it may be on its way through old entries, and have heard the new one only.
            self._transport.part(node.id, outlived=self.is_leader)
            self._transport.meet(node)

    def _on_acquaint(self, peer: int, envelope: Envelope, body: Acquaint) -> None:
        if peer in self._voters:
            for member in body.members:
                # Or it listens to one that is dead, and the leader has its name.
                if member.since > self._since.get(member.node.id, member.since):
                    self._forget_namesake(member)
                self._meet(member.node)

    def _greeting(self, peer: int) -> Body:
        """One that is not heard may be one that does not listen, because its file and its log name others."""
        if self._membership_index > 1 and peer in self._membership.ids and not self._transport.is_connected(peer):
            return Acquaint(list(self._membership.members))
        return Hello()

    def _on_stranger(self, envelope: Envelope) -> Body | None:
        """A node that this one does not know: a member of these days, while this one slept, or none any more.

        Who hears no leader listens to those it is told of. What they say counts as the log says.
        """
        body = envelope.body
        if isinstance(body, Acquaint):
            told = {member.node.id for member in body.members}
            if self.leader_id is None and {self.node_id, envelope.sender} <= told:
                log.info("node %d: node %d names the members %s", self.node_id, envelope.sender, sorted(told))
                for member in body.members:
                    self._meet(member.node)
            return None
        return NoMember(self._membership_index) if self._is_gone(envelope.sender) else None

    def _on_no_member(self, peer: int, envelope: Envelope, body: NoMember) -> None:
        """Somebody says that this node was removed. It may be wrong: nothing is given up, and whoever looks is told."""
        if self.leader_id is None:
            if self._told_gone is None:
                log.warning("node %d: node %d says that this node is no member any more", self.node_id, peer)
            self._told_gone = (peer, body.membership_index)

    def _part_from_others(self) -> None:
        """A membership is committed: whoever is not in the newest one was told so as far as could be.

        Not before this node knows all that is committed: on its way through the log it meets old memberships, which
        may lack the very leader it has the log from.
        """
        if self._membership_index > self.applied_index or self.applied_index < self._told_commit:
            return
        self._parting_due = False
        for peer in self._views.keys() - self._membership.ids:
            self._announce_to(peer)
            del self._views[peer]
            self._progress.pop(peer, None)
            self._since.pop(peer, None)
            self._transport.part(peer, outlived=self.is_leader)
            self._untrack(peer)

    def _announce_to(self, peer: int) -> None:
        """Tell one that goes that it does: it will hear nothing more."""
        if self.is_leader and peer in self._progress and self._transport.is_connected(peer):
            self._post_last_words(peer)

    def _status_of(self, peer: int) -> PeerStatus:
        view = self._views[peer]
        lag = self._journal.last_index - self._match_index.get(self._nodes[peer], 0) if self.is_leader else None
        return PeerStatus(
            node_id=peer,
            connected=self._transport.is_connected(peer),
            lag_entries=lag,
            sequence=view.sequence,
            state_hash=view.state_hash,
            learner=view.learner,
            silent_s=self._transport.silent_seconds(peer),
        )

    # Steps of the library's tick and its messages.

    def _on_message(self, peer: int, envelope: Envelope) -> None:
        """Every message of a member passes here."""
        view = self._views.get(peer)
        if view is None:
            return
        if envelope.incarnation != view.incarnation:
            if view.incarnation:
                self._forget_peer(peer)
                self.agreement.forget(peer)
            view.incarnation = envelope.incarnation
        view.learner = bool(envelope.flags & messages.LEARNER)
        view.fenced = bool(envelope.flags & messages.FENCED)
        view.new = bool(envelope.flags & messages.NEW)
        view.knows_me |= envelope.receiver_incarnation == self.meta.incarnation
        self._found()
        view.sequence, view.state_hash = envelope.sequence, envelope.state_hash
        self.agreement.observe(peer, envelope.sequence, envelope.state_hash, now())
        body = envelope.body
        if isinstance(body, HashRequest):
            self.agreement.answer(peer, body)
        elif isinstance(body, HashReply):
            self.agreement.answered(peer, body, now())
        elif self.agreement.fenced is None:
            if envelope.term > self.term:
                self._become_follower(envelope.term)
            handler = self._handlers.get(type(body))
            if handler is not None:
                handler(peer, envelope, body)

    def _found(self) -> None:
        """A node that turns out to be one of the first may act like one."""
        if self._founding.heard(self._views):
            log.info("node %d: all members are new, the cluster begins", self.node_id)
            self._rejoin.active = False
            self._journal.regained()

    def _outlive(self, time: float) -> None:
        """Others know a later life of this number than this one, and will not listen: go on as a later one still.

        That was a node that is gone, whose directory this one's has replaced. Should both be running all the same, they
        take turns, and each says so.
        """
        later = self._transport.later_life
        if later is None or time < self._outlive_at or later >= _MOST_LIVES:
            return
        self._outlive_at = time + _OUTLIVE_SECONDS
        log.warning("node %d: others know its life %d, which is none of this directory's", self.node_id, later)
        self.meta.outlive(later)
        self._transport.begin_life(self.meta.incarnation)

    def _check_journal(self, journal: MemoryJournal, snapshots: SnapshotStore | None) -> None:
        if journal.persistent and (snapshots is None or not snapshots.persistent):
            raise ValueError(
                "journal: expected one that lives in memory, found a persistent one and nowhere to store snapshots; "
                "the first compaction would destroy the only copy of the state"
            )

    def _check_timing(self, timing: Timing) -> None:
        if timing.leader_fallback_ms >= timing.election_min_ms:
            raise ValueError(
                f"timing.leader_fallback_ms: expected less than election_min_ms ({timing.election_min_ms}), so that a "
                f"leader cut off steps down before another is elected, found {timing.leader_fallback_ms}"
            )

    def _check_entry(self, entry: bytes) -> None:
        """One command with a version byte, small enough to travel whole; raises ValueError."""
        fault = messages.entry_fault(entry)
        if fault is not None:
            raise ValueError(fault)

    def _apply_committed(self) -> None:
        """Hand committed entries to the machine, each once, whatever comes of it."""
        for entry, index, term in self._journal.between(self.applied_index + 1, self.commit_index):
            self._applied(index)
            if entry == messages.NO_OP:
                continue
            if is_membership(entry):
                if index > self.meta.membership[0]:
                    self.meta.set_membership((index, entry))
                self._parting_due = True
                continue
            try:
                self._apply(index, term, entry)
            except Exception as error:
                # A bug, or a state that must not go on: never again, and no message may claim the entry was applied.
                self._failure = ConsensusError(f"log entry {index} could not be applied: {error!r}")
                raise self._failure from error

    def _apply(self, index: int, term: int, entry: bytes) -> None:
        self._check_entry(entry)
        self.machine.apply(index, term, entry)

    def _compact_if_due(self) -> None:
        """Drop the oldest applied entries of a log that is long enough.

        A log in memory needs no snapshot for it: the state is in the machine, and one is made when a peer turns out to
        need it.
        """
        self._snapshots.poll()
        if self._snapshot_asked and self._snapshots.pending_index is None:
            self._snapshot_asked = False
            self._take_snapshot(lasting=True)
        journal = self._journal
        if self._snapshots.persistent:
            self._compact_below_snapshots()
            return
        due = len(journal) > self._compaction_entries or journal.size_bytes > self._compaction_bytes
        if not due and not self._compaction_asked:
            return
        keep = 0 if self._compaction_asked else len(journal) // _TAIL_PART
        self._compaction_asked = False
        base = self.applied_index - keep
        if journal.size_bytes < _TAIL_PART * self._compaction_bytes:
            # Else a snapshot under way must begin anew: memory comes first.
            base = min(base, self._oldest_needed())
        if base > journal.first_index:
            journal.compact(base)
        self._snapshots.release(journal.first_index)

    def _compact_below_snapshots(self) -> None:
        """Take a snapshot when one is due; drop what lies below the oldest one that a restart may begin with."""
        journal, store, schedule = self._journal, self._snapshots, self._schedule
        if store.pending_index is None:
            newest = store.newest()
            schedule.whole(0 if newest is None else newest.index)
            mark = Mark(self.machine.position()[0], self.applied_index, journal.appended_bytes, now())
            if schedule.due(mark):
                schedule.begun(mark)
                self._take_snapshot(lasting=True)
        base = min(store.oldest_index(), self._oldest_needed(), journal.first_index + _COMPACTED_A_TICK)
        if base > journal.first_index:
            journal.compact(base)

    def _store_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshots.keep(snapshot)

    def _note_removal(self, leader_last_index: int) -> None:
        """A node that has all its leader has, and finds itself no member, was removed. (One that joins has not.)

        Once that is committed: before, another leader may know nothing of it. The leader's word may be an old one.
        """
        gone = self.node_id not in self._membership.ids and self._membership_index <= self.commit_index
        if gone and self.commit_index >= max(leader_last_index, self._told_commit):
            self.removed = True

    def _stand_down(self) -> None:
        """A node whose state is in doubt leads nobody."""
        if self.is_leader or self.leader_id is not None:
            self._become_follower(self.term)


def _described(membership: Membership) -> str:
    return ", ".join(f"{m.node.id}" + ("" if m.voter else " (learns)") for m in membership.members)
