"""One member's replica of the log, and what drives the state machine from it.

A SyncObj whose elections, votes, log matching and commit rule are the library's, with checks of our own before them.
What the library gets wrong, and where each answer is, says README.md beside this file. One thread: the reactor calls
the transport's drain(), then submit() and tick(), then the transport's flush(). An exception out of any of them means
that this node must stop.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from smrx.config import Timing
from smrx.consensus import messages
from smrx.consensus.changing import Changing
from smrx.consensus.core import ConsensusError, StateMachine
from smrx.consensus.internals import CANDIDATE, LEADER, now
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.leading import NotLeader
from smrx.consensus.membership import Membership, is_membership
from smrx.consensus.messages import (
    Acquaint,
    AppendEntries,
    AppendReply,
    Envelope,
    HashReply,
    HashRequest,
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


class Replica(Changing):
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
        self._outlive_at = 0.0
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

    def _stand_down(self) -> None:
        """A node whose state is in doubt leads nobody."""
        if self.is_leader or self.leader_id is not None:
            self._become_follower(self.term)
