"""Lead: send entries to the followers, count their acknowledgements, announce the commit index.

Owns how much is under way to each peer. An acknowledgement of another term, of another incarnation, or of a node that
is catching up never counts; that the commit index moves with a majority is the library's rule. Called at submit, at
each tick, and for each reply.
"""

from typing import Final

from smrx.consensus.context import ReplicaContext
from smrx.consensus.journal import LogEntry
from smrx.consensus.membership import decode
from smrx.consensus.messages import MAX_BATCH_ENTRIES, AppendEntries, AppendReply, Envelope, SnapshotReply
from smrx.consensus.peer_progress import Progress
from smrx.consensus.raft_library import now
from smrx.consensus.read_index import ReadIndex
from smrx.consensus.rules_agreement import RulesAgreement
from smrx.consensus.snapshot_sender import SnapshotSender

#: The next message of entries carries the commit index; without a next one, followers wait at most this long.
_ANNOUNCE_SECONDS: Final = 0.001


class Leader:
    """The leader's part of a replica."""

    def __init__(
        self, context: ReplicaContext, snapshots: SnapshotSender, rules: RulesAgreement, reads: ReadIndex
    ) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._members = context.members
        self._transport = context.transport
        self._post = context.transport.post
        self._refused = context.refused
        self._rules = rules
        self._reads = reads
        self.snapshots = snapshots
        #: When a message of entries is full.
        self.batch_bytes = context.settings.batch_bytes
        #: The members to which this leader sends, learners included.
        self._progress: dict[int, Progress] = {}
        #: Whether a member has acknowledged an entry that is not committed: a tick may move the commit index.
        self.may_commit = False
        #: The last commit index that was sent, and since when there is a newer one.
        self._announced = 0
        self._unannounced_since: float | None = None

    def start(self) -> None:
        """Begin a leadership, with nothing under way to any peer."""
        self._context.meta.set_joined()
        self._reads.start()
        # A member whose removal an earlier leader began is sent entries, too, until the removal is committed.
        before = decode(self._journal.membership_at(self._raft.commit_index)[1])
        members = (self._members.ids | before.ids) & self._context.views.keys()
        self._progress = {peer: Progress() for peer in members}
        for peer in self._progress:
            self._raft.reset_indexes(peer)
            self._context.views[peer].refused_snapshot = None
        self._announced = self._raft.commit_index
        self._unannounced_since = None

    def stop(self) -> None:
        """End a leadership: snapshots under way stop, and no log is kept for them."""
        for progress in self._progress.values():
            progress.transfer = None

    def in_flight_bytes(self, peer: int) -> int:
        """Return the bytes of entries sent to a peer and not acknowledged."""
        return self._progress[peer].size_bytes

    # Peers.

    def add_members(self) -> None:
        """Begin to send to the members that are new."""
        for peer in self._members.ids - self._progress.keys() - {self._context.node_id}:
            self._raft.reset_indexes(peer)
            self._progress[peer] = Progress(self._reads.next_number())

    def remove_peer(self, peer: int) -> None:
        """Stop sending to a peer that is no member."""
        self._progress.pop(peer, None)
        self._reads.forget(peer)

    def reset_peer(self, peer: int) -> None:
        """Drop what is known of a peer's log: it has a new incarnation, which may have lost it."""
        if self._raft.is_leader and peer in self._progress:
            self._raft.reset_indexes(peer)
            self._progress[peer].restart(self._reads.next_number())
            self._reads.forget(peer)
            self._progress[peer].transfer = None
            self._progress[peer].forget_refusals()

    # Sending.

    def replicate(self) -> None:
        """Send every peer the entries that it lacks, as far as its window has space."""
        for peer in self._progress:
            if self._transport.is_connected(peer):
                self._send(peer, heartbeat=False)
        self._announced = self._raft.commit_index
        self._unannounced_since = None

    def send_heartbeats(self) -> None:
        """Send every peer something: entries, or a message without any. It begins a round of confirmations."""
        number = self._reads.begin_round()
        for peer, progress in self._progress.items():
            progress.stream = number
            if self._transport.is_connected(peer):
                self._send(peer, heartbeat=True)
        self._announced = self._raft.commit_index
        self._unannounced_since = None

    def confirm_reads(self) -> None:
        """Begin a round if a read waits for one."""
        if self._raft.is_leader and self._reads.is_wanted:
            self.send_heartbeats()

    def announce_commit(self) -> None:
        """Send a new commit index after a short time, unless a message of entries has carried it by then."""
        commit_index = self._raft.commit_index
        if not self._raft.is_leader or commit_index == self._announced:
            return
        if self._unannounced_since is None:
            self._unannounced_since = now()
        if now() - self._unannounced_since < _ANNOUNCE_SECONDS:
            return
        self._announced = commit_index
        self._unannounced_since = None
        for peer in self._progress:
            next_index = self._raft.next_index(peer)
            if next_index <= self._journal.first_index or self._rules.lacks_rules(peer):
                continue
            if self._transport.is_connected(peer):
                self._post_append(peer, next_index, [], quiet=True)

    def announcement_due(self) -> float:
        """Return when announce_commit() has to send, infinity if there is nothing to announce."""
        return float("inf") if self._unannounced_since is None else self._unannounced_since + _ANNOUNCE_SECONDS

    def _send(self, peer: int, *, heartbeat: bool) -> None:
        """Send entries while the window has space; as a heartbeat, send at least an empty message."""
        next_index = self._raft.next_index(peer)
        progress = self._progress[peer]
        if self._rules.lacks_rules(peer):
            # It stops when it learns which rules are in force. It might drop a message with entries as malformed.
            if heartbeat:
                self.snapshots.send_bare_heartbeat(peer, progress.stream)
            return
        if next_index <= self._journal.first_index:
            self.snapshots.send(peer, progress, heartbeat=heartbeat)
            return
        last = self._last_for(peer)
        while next_index <= last and progress.has_space():
            most = min(MAX_BATCH_ENTRIES, last - next_index + 1)
            entries = self._journal.batch(next_index, self.batch_bytes, most)
            self._post_append(peer, next_index, entries)
            heartbeat = False
            next_index = entries[-1][1] + 1
            progress.sent(next_index - 1, sum(len(entry[0]) for entry in entries))
        self._raft.set_next_index(peer, next_index)
        if heartbeat:
            self._post_append(peer, next_index, [])

    def _last_for(self, peer: int) -> int:
        """Return the last entry to send to a peer.

        A member that is being removed gets the entries before its removal, until the removal is committed. With a
        longer log than the remaining members it would refuse them its vote, and it has none for itself: if this leader
        then failed, with one node less than a majority holding the removal, no node could be elected.
        """
        committed = self._members.index <= self._raft.commit_index
        return self._journal.last_index if committed or peer in self._members.ids else self._members.index - 1

    def send_removal(self, peer: int) -> None:
        """Send a removed peer the log up to its removal, as committed, and nothing after it."""
        if not self._raft.is_leader or peer not in self._progress or not self._transport.is_connected(peer):
            return
        end = self._members.index
        next_index = min(self._raft.next_index(peer), end + 1)
        if next_index > self._journal.first_index:
            entries = self._journal.between(next_index, min(end, next_index + MAX_BATCH_ENTRIES - 1))
            if sum(len(entry[0]) for entry in entries) <= self.batch_bytes:
                self._post_append(peer, next_index, entries, end=end)

    def _post_append(
        self,
        peer: int,
        next_index: int,
        entries: list[LogEntry],
        *,
        quiet: bool = False,
        end: int | None = None,
    ) -> None:
        """Send entries; with `end`, as if the log ended there and all of it were committed."""
        prev_index = next_index - 1
        prev_term = self._journal.term_at(prev_index)
        assert prev_term is not None
        self._post(
            peer,
            AppendEntries(
                prev_index,
                prev_term,
                self._raft.commit_index if end is None else end,
                self._journal.last_index if end is None else end,
                self._progress[peer].stream,
                quiet,
                entries,
            ),
        )

    # Replies.

    def on_append_reply(self, peer: int, envelope: Envelope, body: AppendReply) -> None:
        """Count an acknowledgement, or go back where a follower asks for it; send on."""
        if not self._raft.is_leader or not self._is_of_current_term(envelope) or peer not in self._progress:
            return
        if body.next_index > self._journal.last_index + 1 and body.success:
            self._refused["acknowledges entries that are not there"] += 1
            return
        progress = self._progress[peer]
        if body.stream > progress.stream:
            self._refused["echoes a round that was not begun"] += 1
            return
        if self._context.views[peer].holds_state:
            # Whether it succeeds or not, the peer has no later term.
            self._reads.echoed(peer, body.stream)
        before = self._raft.next_index(peer)
        # A learner's acknowledgement makes room in the window, and counts for no majority.
        counts = body.success and not self._context.views[peer].learner
        resets = body.reset and self._obeys_reset(body, progress.restarted)
        self._raft.acknowledge(peer, body.next_index, counts=counts)
        if counts and body.next_index - 1 > self._raft.commit_index:
            self.may_commit = True
        if body.success:
            self._raft.set_next_index(peer, self._next_after_success(before, body.next_index))
            progress.acknowledged(body.next_index - 1)
            if progress.transfer is not None and body.next_index > progress.transfer.snapshot.index:
                progress.transfer = None
            progress.forget_refusals()
            self._context.views[peer].refused_snapshot = None
        elif resets:
            progress.restart(self._reads.next_number())
            self._raft.set_next_index(peer, max(2, min(body.next_index, self._journal.last_index + 1)))
        self._send_more(peer)

    def on_snapshot_reply(self, peer: int, envelope: Envelope, body: SnapshotReply) -> None:
        """Send the next chunks of a snapshot."""
        if not self._raft.is_leader or not self._is_of_current_term(envelope) or peer not in self._progress:
            return
        self._raft.acknowledge(peer, 0, counts=False)
        if self.snapshots.on_reply(peer, self._progress[peer], body):
            self._send(peer, heartbeat=False)

    def _is_of_current_term(self, envelope: Envelope) -> bool:
        """The library's acknowledgements carry no term, so that one of an earlier leadership would count."""
        return envelope.term == self._raft.term

    def _obeys_reset(self, body: AppendReply, restarted: int) -> bool:
        """Return whether a reset answers a message since the last restart: each message after a lost one asks for one.

        `restarted` is the number of the first message since then.
        """
        return body.stream >= restarted

    def _next_after_success(self, before: int, acknowledged_next: int) -> int:
        """The library goes back to what was acknowledged, and sends again everything that is under way."""
        return max(before, acknowledged_next)

    def _send_more(self, peer: int) -> None:
        """Send what a reply made room for or asked for."""
        self._send(peer, heartbeat=False)

    def oldest_needed(self) -> int:
        """Return the first entry that a snapshot under way will be continued from.

        Not for a peer that is disconnected: it may never return, and the log would grow until then.
        """
        transfers = [
            progress.transfer for peer, progress in self._progress.items() if self._transport.is_connected(peer)
        ]
        return self.snapshots.oldest_needed([transfer for transfer in transfers if transfer is not None])
