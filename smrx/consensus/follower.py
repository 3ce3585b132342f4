"""Follow a leader: append its entries, install its snapshots, reply.

Owns the checks in front of the library's append handler, and installs snapshots instead of the library. Never drops an
entry that this node acknowledged, unless a leader of a later term contradicts it. Called for every message of a leader.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from smrx.consensus import snapshots
from smrx.consensus.context import ReplicaContext
from smrx.consensus.journal import LogEntry
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.messages import (
    MAX_REASON,
    AppendEntries,
    AppendReply,
    Envelope,
    Hello,
    SnapshotChunk,
    SnapshotReply,
)
from smrx.consensus.raft_library import now
from smrx.consensus.snapshots import SnapshotStore

log = logging.getLogger(__name__)


class Append(NamedTuple):
    """What an append asks of the log: these entries after (prev_index, prev_term)."""

    prev_index: int
    prev_term: int
    entries: Sequence[LogEntry]
    #: Whether the first of them replaces another entry of this log.
    conflicts: bool


class Follower:
    """The follower's part of a replica."""

    def __init__(self, context: ReplicaContext, member_changes: MemberChanges, store: SnapshotStore) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._meta = context.meta
        self._rejoin = context.rejoin
        self._post = context.transport.post
        self._refused = context.refused
        self._leader_contact = context.leader_contact
        self._member_changes = member_changes
        self._store = store
        self._incoming = snapshots.Incoming()
        #: Of the append in hand: its stream number, and whether its sender wants no reply if it succeeds.
        self._stream = 0
        self._quiet = False
        #: The newest message of a leader whose commit index this node has applied, and one that it has not applied yet:
        #: (commit index, when it arrived, the leader's clock).
        self._applied_news = (0, float("-inf"), 0)
        self._news: tuple[int, float, int] | None = None

    def on_append(self, peer: int, envelope: Envelope, body: AppendEntries) -> None:
        """Append the entries of a leader; the library moves the commit index and calls reply()."""
        if not self._accept_leader(peer, envelope, body):
            return
        self._stream, self._quiet = body.stream, body.quiet
        message = {
            "type": "append_entries",
            "term": envelope.term,
            "commit_index": self._trusted_commit(body),
        }
        if body.prev_index is None:
            self._raft.deliver(peer, message)
            # The library does not reply to a bare heartbeat, and a leader without replies steps down.
            self.reply(peer, self._journal.last_index + 1, reset=False, success=False)
            return
        append = self._without_known(body.prev_index, body.prev_term, body.entries)
        if self._undoes_committed(append):
            # No correct leader can ask for this: the committed entries stay.
            self._refused["contradicts a committed entry"] += 1
            log.critical(
                "node %d: node %d contradicts committed entry %d", self._context.node_id, peer, append.prev_index + 1
            )
            return
        message |= {"prevLogIdx": append.prev_index, "prevLogTerm": append.prev_term, "entries": append.entries}
        self._raft.deliver_append(peer, message, truncate=append.conflicts)
        self._member_changes.follow_log()
        self._member_changes.note_removal(body.last_index)

    def _note_news(self, commit_index: int, at: float, clock_ns: int) -> None:
        """Note what a leader has committed by now, to tell how old the state may be."""
        if self._news is not None and self._news[0] <= self._raft.applied_index:
            self._applied_news, self._news = self._news, None
        if commit_index <= self._raft.applied_index:
            self._applied_news = (commit_index, at, clock_ns)
        elif self._news is None:
            self._news = (commit_index, at, clock_ns)

    def state_age_seconds(self) -> float:
        """See Replica.state_age_seconds()."""
        if self._news is not None and self._news[0] <= self._raft.applied_index:
            self._applied_news, self._news = self._news, None
        _, at, clock_ns = self._applied_news
        return max(now() - at, (self._context.clock.own_ns() - clock_ns) / 1e9)

    def _trusted_commit(self, body: AppendEntries | SnapshotChunk) -> int:
        """Return the part of a leader's commit index up to which this message proves the two logs equal.

        With prev_index it proves everything up to its last entry, without it nothing. The library commits all that
        this node has, its own unverified tail included.
        """
        if isinstance(body, SnapshotChunk) or body.prev_index is None:
            return 0
        return min(body.commit_index, body.prev_index + len(body.entries))

    def _without_known(self, prev_index: int, prev_term: int, entries: Sequence[LogEntry]) -> Append:
        """Leave out the entries that this log has already, so that the library truncates it only at a conflict.

        The library deletes everything after prev_index even where it matches: acknowledged entries, missing until
        they are sent again. A message that was delayed or duplicated must not cause that.
        """
        journal = self._journal
        if prev_index < journal.first_index:
            # Compacted here, therefore committed, therefore equal in the leader's log.
            entries = [entry for entry in entries if entry[1] > journal.first_index]
            prev_index, prev_term = journal.first_index, journal[0][2]
        elif journal.term_at(prev_index) != prev_term:
            # A gap or another history: the library replies with a reset.
            return Append(prev_index, prev_term, entries, conflicts=False)
        known = 0
        for _, index, term in entries:
            if journal.term_at(index) != term:
                break
            known += 1
            prev_index, prev_term = index, term
        entries = entries[known:]
        return Append(prev_index, prev_term, entries, conflicts=bool(entries) and prev_index < journal.last_index)

    def _undoes_committed(self, append: Append) -> bool:
        return append.conflicts and append.prev_index < self._raft.commit_index

    def reply(self, peer: int, next_index: int, reset: bool, success: bool) -> None:
        """Reply to the append in hand."""
        if success:
            self._leader_contact.unusable_snapshot = None
            if self._rejoin.active and self._has_newest_term():
                self._rejoin.advance(self._raft.term, next_index - 1)
                if not self._rejoin.active:
                    self._end_rejoin(peer)
            # From this reply on the leader counts this log; `joined` is durable before it leaves.
            self._meta.set_joined()
            if self._quiet:
                return
        elif reset:
            next_index = self._resend_from(next_index)
        self._post(peer, AppendReply(next_index, reset, success, self._stream))

    def _end_rejoin(self, leader: int) -> None:
        if not self._meta.initialized:
            self._keep_only_vote(leader)
        self._meta.set_initialized()
        self._journal.mark_complete()

    def _keep_only_vote(self, leader: int) -> None:
        """Record a vote for the leader of the term, in place of one that was lost with this node's data."""
        self._raft.vote_for(leader)

    def _has_newest_term(self) -> bool:
        """Whether this leader is as new as any that this node may have acknowledged entries to or voted for.

        The peers that have reported to this incarnation and the majority that elected such a leader must have a member
        in common. Otherwise a node that lost its term with its log could follow a leader that was deposed long ago.
        """
        if self._meta.initialized:
            return True
        members, views = self._context.members, self._context.views
        reports = sum(views[peer].knows_me and views[peer].holds_state for peer in members.voters)
        return reports > len(members.membership.voters) - members.majority

    def _resend_from(self, wanted: int) -> int:
        """Return the index from which a leader whose entries do not fit must send again.

        Both logs have the committed part. With the index that the library asks for, two resets under way overwrite
        each other endlessly.
        """
        return min(wanted, self._raft.commit_index + 1)

    def on_snapshot_chunk(self, peer: int, envelope: Envelope, body: SnapshotChunk) -> None:
        """Receive a part of a snapshot; install the snapshot when it is complete."""
        if not self._accept_leader(peer, envelope, body):
            return
        self._stream, self._quiet = body.stream, False
        # The library sets leader, term and election deadline.
        self._raft.deliver(
            peer, {"type": "append_entries", "term": envelope.term, "commit_index": self._trusted_commit(body)}
        )
        if body.index <= self._raft.commit_index:
            self.reply(peer, self._raft.commit_index + 1, reset=False, success=True)
            return
        received = self._incoming.take(body)
        data = self._incoming.complete(body)
        if data is None:
            self._post(peer, SnapshotReply(body.index, received, refused=False))
            return
        self._incoming.drop()
        snapshot = snapshots.Snapshot(body.index, body.of_term, data, body.checksum)
        if self._install(snapshot, (body.membership_index, body.membership)):
            self.reply(peer, body.index + 1, reset=False, success=True)
        else:
            reason = self._leader_contact.unusable_snapshot or ""
            self._post(peer, SnapshotReply(body.index, 0, refused=True, reason=reason))

    def _install(self, snapshot: snapshots.Snapshot, in_force: tuple[int, bytes]) -> bool:
        """Replace the state by the snapshot's; return False, with nothing changed, if it is invalid."""
        node_id = self._context.node_id
        known, self._leader_contact.unusable_snapshot = self._leader_contact.unusable_snapshot, None
        if not snapshots.is_intact(snapshot.data, snapshot.checksum):
            self._refused["damaged snapshot"] += 1
            log.error("node %d: the snapshot at entry %d was damaged in transit", node_id, snapshot.index)
            return False
        try:
            self._context.machine.restore(snapshot.data)
        except ValueError as error:
            self._refused["unusable snapshot"] += 1
            reason = self._leader_contact.unusable_snapshot = str(error).rstrip(".")[:MAX_REASON]
            # Once: the leader tries again, and the reason stays in this node's status.
            level = logging.DEBUG if reason == known else logging.ERROR
            log.log(level, "node %d: cannot use the snapshot at entry %d: %s", node_id, snapshot.index, reason)
            return False
        # The snapshot is durable before the log is cut at it: a kill in between leaves a log and a newer snapshot. Its
        # membership is durable before that: this node must never count a majority of former members. Its entries
        # count as acknowledged, so a node that had none before has joined.
        if in_force[0] > self._meta.membership[0]:
            self._meta.set_membership(in_force)
        self._meta.set_joined()
        self._meta.sync()
        self._store.keep(snapshot)
        self._rebase_log(snapshot.index, snapshot.term, in_force)
        self._member_changes.follow_log()
        self._raft.advance_to(snapshot.index)
        self._member_changes.removal_due = True
        self._context.agreement.restart()
        log.info("node %d: installed the state after log entry %d", node_id, snapshot.index)
        return True

    def _rebase_log(self, index: int, term: int, in_force: tuple[int, bytes]) -> None:
        """Start the log at the snapshot; entries known to follow it may be acknowledged ones, and stay."""
        self._journal.install(index, term, in_force)

    def _accept_leader(self, peer: int, envelope: Envelope, body: AppendEntries | SnapshotChunk) -> bool:
        """Return whether the sender leads the current term; one of an earlier term is sent the current one."""
        if envelope.term < self._raft.term:
            self._post(peer, Hello())
            return False
        if self._raft.is_leader:
            self._refused["a second leader of the term"] += 1
            return False
        contact = self._leader_contact
        contact.at = now()
        self._note_news(body.commit_index, contact.at, envelope.clock_ns)
        contact.removal_report = None
        contact.commit_index = max(contact.commit_index, body.commit_index)
        self._rejoin.observe_leader(envelope.term, body.last_index)
        return True
