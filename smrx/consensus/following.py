"""The follower's side: appends, snapshots, and the answers to them.

Owns the checks that stand before the library's append handler, and the way around its snapshot handler. Never lets go
of an entry this node acknowledged, unless a leader of a later term contradicts it. Called for each message of a leader.
"""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from smrx.config import Timing
from smrx.consensus import snapshots
from smrx.consensus.core import Core, StateMachine
from smrx.consensus.internals import now
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.membership import Membership
from smrx.consensus.messages import (
    AppendEntries,
    AppendReply,
    Envelope,
    Hello,
    SnapshotChunk,
    SnapshotReply,
)
from smrx.consensus.recovery import MetaStore
from smrx.consensus.transport import PeerTransport

log = logging.getLogger(__name__)


class Append(NamedTuple):
    """What an append asks of the log: these entries after (prev_index, prev_term)."""

    prev_index: int
    prev_term: int
    entries: Sequence[LogEntry]
    #: Whether an entry here must give way to the first of them.
    conflicts: bool


_NEVER: Final = float("-inf")


class Following(Core):
    """What a node does for the leader it follows."""

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
    ) -> None:
        self._leader_heard_at = _NEVER
        self._incoming = snapshots.Incoming()
        #: What leaders said is committed, as far as they said it.
        self._told_commit = 0
        #: Who said that this node is no member, and at which log entry; None once a leader spoke to it.
        self._told_gone: tuple[int, int] | None = None
        #: Nodes that are no members any more may have to be parted from.
        self._parting_due = False
        #: While an append is handled: its stream number, and whether its sender wants no word if all is well.
        self._answering_stream = 0
        self._answering_quietly = False
        super().__init__(node_id, peers, machine, transport, meta, journal, timing, members)

    def _on_append(self, peer: int, envelope: Envelope, body: AppendEntries) -> None:
        if not self._accept_leader(peer, envelope, body):
            return
        self._answering_stream, self._answering_quietly = body.stream, body.quiet
        message = {
            "type": "append_entries",
            "term": envelope.term,
            "commit_index": self._trusted_commit(body),
        }
        if body.prev_index is None:
            self._hand_to_library(peer, message)
            # The library answers no bare heartbeat; a leader that hears nothing steps down.
            self._reply(peer, self._journal.last_index + 1, reset=False, success=False)
            return
        append = self._without_known(body.prev_index, body.prev_term, body.entries)
        if self._undoes_committed(append):
            # No leader can ask for this. Whoever does, the committed entries stay.
            self.refused["contradicts a committed entry"] += 1
            log.critical("node %d: node %d contradicts committed entry %d", self.node_id, peer, append.prev_index + 1)
            return
        message |= {"prevLogIdx": append.prev_index, "prevLogTerm": append.prev_term, "entries": append.entries}
        self._keep_tail = not append.conflicts
        try:
            self._hand_to_library(peer, message)
        finally:
            self._keep_tail = False
        self._follow_membership()
        self._note_removal(body.last_index)

    def _trusted_commit(self, body: AppendEntries | SnapshotChunk) -> int:
        """The part of a leader's commit index that this message proves this log to share.

        Without prev_index it proves nothing; with it, everything up to its last entry. The library takes all this node
        has, its own unverified tail included.
        """
        if isinstance(body, SnapshotChunk) or body.prev_index is None:
            return 0
        return min(body.commit_index, body.prev_index + len(body.entries))

    def _without_known(self, prev_index: int, prev_term: int, entries: Sequence[LogEntry]) -> Append:
        """Leave out the entries this log has already, so that the library cuts it only where it conflicts.

        The library deletes everything after prev_index even where it matches: acknowledged entries, gone until sent
        again. A message that was delayed, or sent twice, must not do that.
        """
        journal = self._journal
        if prev_index < journal.first_index:
            # Compacted here, so committed, so the same there.
            entries = [entry for entry in entries if entry[1] > journal.first_index]
            prev_index, prev_term = journal.first_index, journal[0][2]
        elif journal.term_at(prev_index) != prev_term:
            # A hole or another history: the library answers with a reset.
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
        return append.conflicts and append.prev_index < self.commit_index

    def _reply(self, peer: int, next_index: int, reset: bool, success: bool) -> None:
        """Answer the append in hand."""
        if success:
            if self._rejoin.active and self._knows_the_newest_term():
                self._rejoin.reached(self.term, next_index - 1)
                if not self._rejoin.active:
                    if not self.meta.settled:
                        # Whom it voted for in this term it may not know. That this one leads is sure.
                        self._vote_for(peer)
                    self.meta.set_settled()
                    self._journal.regained()
            # From this answer on others rely on this log; durable before it leaves.
            self.meta.set_joined()
            if self._answering_quietly:
                return
        elif reset:
            next_index = self._resend_from(next_index)
        self._post(peer, AppendReply(next_index, reset, success, self._answering_stream))

    def _knows_the_newest_term(self) -> bool:
        """Whether every leader that this node can have promised anything was elected by somebody it has heard since.

        Of the others, that leader's majority and those heard must have one in common. A node that lost its term with
        its log could else take a leader that was deposed long ago for the one of the moment.
        """
        if self.meta.settled:
            return True
        heard = sum(self._views[peer].knows_me and self._views[peer].holds_state for peer in self._voters)
        return heard > len(self._membership.voters) - self._majority

    def _resend_from(self, wanted: int) -> int:
        """Where a leader whose entries do not fit shall start again.

        The committed part is the same in both logs. Asked for what the library wants, two resets under way overwrite
        each other for ever.
        """
        return min(wanted, self.commit_index + 1)

    def _on_chunk(self, peer: int, envelope: Envelope, body: SnapshotChunk) -> None:
        if not self._accept_leader(peer, envelope, body):
            return
        self._answering_stream, self._answering_quietly = body.stream, False
        # The library's part of it: leader, term, election deadline.
        self._hand_to_library(
            peer, {"type": "append_entries", "term": envelope.term, "commit_index": self._trusted_commit(body)}
        )
        if body.index <= self.commit_index:
            self._reply(peer, self.commit_index + 1, reset=False, success=True)
            return
        received = self._incoming.take(body)
        data = self._incoming.complete(body)
        if data is None:
            self._post(peer, SnapshotReply(body.index, received, refused=False))
            return
        self._incoming.drop()
        snapshot = snapshots.Snapshot(body.index, body.of_term, data, body.checksum)
        if self._install(snapshot, (body.membership_index, body.membership)):
            self._reply(peer, body.index + 1, reset=False, success=True)
        else:
            self._post(peer, SnapshotReply(body.index, 0, refused=True))

    def _install(self, snapshot: snapshots.Snapshot, in_force: tuple[int, bytes]) -> bool:
        """Become the snapshot's state; False, with nothing changed, if it is none."""
        if not snapshots.is_intact(snapshot.data, snapshot.checksum):
            self.refused["damaged snapshot"] += 1
            log.error("node %d: the snapshot at entry %d was damaged on its way", self.node_id, snapshot.index)
            return False
        try:
            self.machine.restore(snapshot.data)
        except ValueError as error:
            self.refused["unusable snapshot"] += 1
            log.error("node %d: the snapshot at entry %d is no state: %s", self.node_id, snapshot.index, error)
            return False
        # Durable before the log is cut at it: a kill between the two leaves a log and a newer snapshot. And first, who
        # belongs to the cluster by then: never may this node count a majority of those that once did.
        # The entries in it are promises kept, too, for a node that had none before: it has joined.
        if in_force[0] > self.meta.membership[0]:
            self.meta.set_membership(in_force)
        self.meta.set_joined()
        self.meta.sync()
        self._store_snapshot(snapshot)
        self._rebase_log(snapshot.index, snapshot.term, in_force)
        self._follow_membership()
        self._jump_to(snapshot.index)
        self._parting_due = True
        self.agreement.restart()
        log.info("node %d: took over the state after log entry %d", self.node_id, snapshot.index)
        return True

    def _store_snapshot(self, snapshot: snapshots.Snapshot) -> None:
        raise NotImplementedError

    def _rebase_log(self, index: int, term: int, in_force: tuple[int, bytes]) -> None:
        """Entries after the snapshot that are known to follow it may be acknowledged ones, and stay."""
        self._journal.install(index, term, in_force)

    def _follow_membership(self) -> None:
        raise NotImplementedError

    def _note_removal(self, leader_last_index: int) -> None:
        raise NotImplementedError

    def _accept_leader(self, peer: int, envelope: Envelope, body: AppendEntries | SnapshotChunk) -> bool:
        """Whether this is the leader of the current term; one of an earlier term is told so."""
        if envelope.term < self.term:
            self._post(peer, Hello())
            return False
        if self.is_leader:
            self.refused["a second leader of the term"] += 1
            return False
        self._leader_heard_at = now()
        self._told_gone = None
        self._told_commit = max(self._told_commit, body.commit_index)
        self._rejoin.meet(envelope.term, body.last_index)
        return True
