"""The leader's side: entries to followers, their acknowledgements, snapshots to those too far behind.

Owns how much is under way to each peer and when the commit index is announced. Never counts an acknowledgement of
another term, another life, or of a node that is still learning. Called at submit, at each tick and for each answer.
"""

import logging
from collections.abc import Sequence
from typing import Final

from pysyncobj.node import Node

from smrx.config import Timing
from smrx.consensus.core import StateMachine
from smrx.consensus.electing import Electing
from smrx.consensus.internals import now
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.membership import Membership, decode
from smrx.consensus.messages import (
    CHUNK_BYTES,
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    AppendEntries,
    AppendReply,
    Envelope,
    SnapshotChunk,
    SnapshotReply,
    StandNow,
)
from smrx.consensus.progress import Progress
from smrx.consensus.recovery import MetaStore
from smrx.consensus.snapshots import MemorySnapshots, Outgoing, Snapshot, SnapshotStore
from smrx.consensus.transport import PeerTransport

log = logging.getLogger(__name__)

#: With entries under way the next one carries the commit index; if none comes, followers wait no longer than this.
_ANNOUNCE_SECONDS: Final = 0.002
#: A peer that was asked to lead and does not by then is given up: until it does, no command is taken.
_HAND_OVER_SECONDS: Final = 0.5
#: A snapshot that a peer could not use is not tried again before.
_REFUSED_SECONDS: Final = 1.0


class NotLeader(Exception):
    """Commands are taken by the leader only; the replica's leader_id says who that is."""


class _HandOver:
    """A leader that wants to be one no more."""

    def __init__(self, peer: int, deadline: float) -> None:
        self.peer = peer
        self.deadline = deadline
        self.told = False


class Leading(Electing):
    """What a node does while it leads."""

    #: How a snapshot is cut and when a message of entries is full; less only in tests.
    chunk_bytes: int = CHUNK_BYTES
    batch_bytes: int = MAX_BATCH_BYTES

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
        #: Members to whom a leader sends, those that only learn included.
        self._progress: dict[int, Progress] = {}
        self._announced = 0
        self._unannounced_since: float | None = None
        #: Where snapshots come from; the node gives one that does not make the loop wait.
        self._snapshots: SnapshotStore = MemorySnapshots(machine.snapshot)
        self._hand_over: _HandOver | None = None
        super().__init__(node_id, peers, machine, transport, meta, journal, timing, members)

    def in_flight_bytes(self, peer: int) -> int:
        """Bytes of entries sent to a peer and not acknowledged."""
        return self._progress[peer].size_bytes

    def hand_over(self, peer: int | None = None) -> int:
        """Begin to make a peer the leader, the one that has most of the log where none is named; return who it is.

        Until it leads, or half a second has passed, this node takes no commands. Raises NotLeader; ValueError where
        nobody, or not the one named, can lead.
        """
        if not self.is_leader:
            raise NotLeader
        if peer is not None and peer not in self._voters:
            known = ", ".join(map(str, sorted(self._voters)))
            raise ValueError(f"expected one of the other members ({known}) to lead, found {peer}")
        fit = [other for other in sorted(self._voters) if self._counts(other)]
        if peer is None and fit:
            peer = max(fit, key=lambda other: self._match_index[self._nodes[other]])
        if peer not in fit:
            who = "another member" if peer is None else f"node {peer}"
            raise ValueError(
                f"expected {who} to be in reach and to hold the state, found otherwise; nothing was changed"
            )
        self._hand_over = _HandOver(peer, now() + _HAND_OVER_SECONDS)
        self._go_on_handing_over()
        return peer

    @property
    def handing_over(self) -> bool:
        """Whether commands must wait until it is known who leads."""
        return self._hand_over is not None

    def _go_on_handing_over(self) -> None:
        """Tell the successor once it has everything; give up on one that takes too long."""
        over = self._hand_over
        if over is None:
            return
        if not self.is_leader:
            self._hand_over = None
        elif now() >= over.deadline:
            log.warning("node %d: node %d did not take over in time", self.node_id, over.peer)
            self._hand_over = None
        elif over.peer not in self._voters:
            self._hand_over = None
        elif not over.told and self.commit_index == self.last_index == self._match_index[self._nodes[over.peer]]:
            over.told = True
            self._post(over.peer, StandNow())

    def _leading(self) -> None:
        """A new leadership begins."""
        self._hand_over = None
        self.meta.set_joined()
        # One whose removal an earlier leader began is told of it, too, until it is done.
        before = decode(self._journal.membership_at(self.commit_index)[1])
        members = (self._membership.ids | before.ids) & self._views.keys()
        self._progress = {peer: Progress() for peer in members}
        for peer in self._progress:
            self._track(peer)
        self._announced = self.commit_index
        self._unannounced_since = None

    def _leading_no_more(self) -> None:
        """Nobody's snapshot goes on from here: neither it nor the log after it is kept for that."""
        for progress in self._progress.values():
            progress.transfer = None

    def _replicate(self) -> None:
        """Send every peer what it lacks and has room for."""
        for peer in self._progress:
            node = self._nodes[peer]
            if self._transport.is_connected(peer):
                self._send(peer, node, heartbeat=False)
        self._announced = self.commit_index
        self._unannounced_since = None

    def _heartbeat(self) -> None:
        for peer in self._progress:
            node = self._nodes[peer]
            if self._transport.is_connected(peer):
                self._send(peer, node, heartbeat=True)
        self._announced = self.commit_index
        self._unannounced_since = None

    def _announce_commit(self) -> None:
        """Let followers apply what was committed: at once if nothing else will tell them, else with the next entry."""
        if not self.is_leader or self.commit_index == self._announced:
            return
        if self.commit_index < self._journal.last_index:
            if self._unannounced_since is None:
                self._unannounced_since = now()
                return
            if now() - self._unannounced_since < _ANNOUNCE_SECONDS:
                return
        self._announced = self.commit_index
        self._unannounced_since = None
        for peer in self._progress:
            node = self._nodes[peer]
            next_index = self._next_index[node]
            if self._transport.is_connected(peer) and next_index > self._journal.first_index:
                self._post_append(peer, next_index, [], quiet=True)

    def _announcement_due(self) -> float:
        return float("inf") if self._unannounced_since is None else self._unannounced_since + _ANNOUNCE_SECONDS

    def _send(self, peer: int, node: Node, *, heartbeat: bool) -> None:
        """Send entries while there is room; a heartbeat sends something in any case."""
        next_index = self._next_index[node]
        if next_index <= self._journal.first_index:
            self._send_snapshot(peer, heartbeat=heartbeat)
            return
        progress = self._progress[peer]
        last = self._last_for(peer)
        while next_index <= last and progress.has_room():
            most = min(MAX_BATCH_ENTRIES, last - next_index + 1)
            entries = self._journal.batch(next_index, self.batch_bytes, most)
            self._post_append(peer, next_index, entries)
            heartbeat = False
            next_index = entries[-1][1] + 1
            progress.sent(next_index - 1, sum(len(entry[0]) for entry in entries))
        self._next_index[node] = next_index
        if heartbeat:
            self._post_append(peer, next_index, [])

    def _last_for(self, peer: int) -> int:
        """The last entry that a peer is to have by now.

        For one that goes that is the last one before it does, until its going is committed. With a longer log than
        those that stay, and no vote for itself, it would refuse them its vote, too: with this leader dead, and one node
        less than a majority that has the change, nobody could ever lead.
        """
        settled = self._membership_index <= self.commit_index
        return self._journal.last_index if settled or peer in self._membership.ids else self._membership_index - 1

    def _post_last_words(self, peer: int) -> None:
        """Tell a peer that goes that this is committed, and nothing of what follows: then it knows that it went."""
        end = self._membership_index
        next_index = min(self._next_index[self._nodes[peer]], end + 1)
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
        """Send entries; with `end` as if the log, all of it committed, ended there."""
        prev_index = next_index - 1
        prev_term = self._journal.term_at(prev_index)
        assert prev_term is not None
        self._post(
            peer,
            AppendEntries(
                prev_index,
                prev_term,
                self.commit_index if end is None else end,
                self._journal.last_index if end is None else end,
                self._progress[peer].stream,
                quiet,
                entries,
            ),
        )

    def _on_append_reply(self, peer: int, envelope: Envelope, body: AppendReply) -> None:
        if not self.is_leader or not self._is_of_this_term(envelope) or peer not in self._progress:
            return
        if body.next_index > self._journal.last_index + 1 and body.success:
            self.refused["acknowledges entries that are not there"] += 1
            return
        node, progress = self._nodes[peer], self._progress[peer]
        before = self._next_index[node]
        # What a learner has may be sent after, but nobody may rely on it.
        counts = body.success and not self._views[peer].learner
        resets = body.reset and self._obeys_reset(body, progress.stream)
        self._hand_to_library(
            peer,
            {"type": "next_node_idx", "next_node_idx": body.next_index, "reset": resets, "success": counts},
        )
        if body.success:
            self._next_index[node] = self._next_after_success(node, before, body.next_index)
            progress.acknowledged(body.next_index - 1)
            if progress.transfer is not None and body.next_index > progress.transfer.snapshot.index:
                progress.transfer = None
        elif resets:
            progress.restart()
            self._next_index[node] = max(2, min(body.next_index, self._journal.last_index + 1))
        self._send_on(peer, node)

    def _obeys_reset(self, body: AppendReply, stream: int) -> bool:
        """Every message under way after a lost one asks for a reset; what the first one brings answers the rest."""
        return body.stream == stream

    def _send_on(self, peer: int, node: Node) -> None:
        """An answer made room, or asked for something else."""
        self._send(peer, node, heartbeat=False)

    def _next_after_success(self, node: Node, before: int, acknowledged_next: int) -> int:
        """The library goes back to what was acknowledged, and sends again everything that is under way."""
        return max(before, acknowledged_next)

    def _forget_peer(self, peer: int) -> None:
        """A peer came back in a new life: what it held may be gone."""
        if self.is_leader and peer in self._progress:
            node = self._nodes[peer]
            self._match_index[node] = 0
            self._progress[peer].restart()
            self._progress[peer].transfer = None
            self._next_index[node] = self._journal.last_index + 1

    # Snapshots.

    def _send_snapshot(self, peer: int, *, heartbeat: bool) -> None:
        """Send the window's next chunks, or, once a period, a bare heartbeat."""
        progress = self._progress[peer]
        time = now()
        if progress.transfer is not None and progress.transfer.snapshot.index < self._journal.first_index:
            # The log after it went meanwhile: who takes it over would need another one at once.
            progress.transfer = None
        if progress.transfer is None and time >= progress.no_snapshot_before:
            snapshot = self._snapshot_for_peers()
            if snapshot is not None:
                progress.transfer = Outgoing(snapshot, time, self.chunk_bytes)
        transfer = progress.transfer
        if transfer is not None:
            if time - transfer.stalled_since() >= 4 * self.timing.heartbeat_ms / 1000:
                transfer.rewind(time)
            for offset, data in transfer.chunks():
                self._post_chunk(peer, transfer.snapshot, offset, data)
                heartbeat = False
        if heartbeat:
            self._post_bare_heartbeat(peer)

    def _post_bare_heartbeat(self, peer: int) -> None:
        self._post(
            peer,
            AppendEntries(None, 0, self.commit_index, self._journal.last_index, self._progress[peer].stream, False, []),
        )

    def _post_chunk(self, peer: int, snapshot: Snapshot, offset: int, data: bytes) -> None:
        membership_index, membership = self._journal.membership_at(snapshot.index)
        self._post(
            peer,
            SnapshotChunk(
                snapshot.index,
                snapshot.term,
                len(snapshot.data),
                snapshot.checksum,
                offset,
                data,
                self.commit_index,
                self._journal.last_index,
                self._progress[peer].stream,
                membership_index,
                membership,
            ),
        )

    def _on_snapshot_reply(self, peer: int, envelope: Envelope, body: SnapshotReply) -> None:
        if not self.is_leader or not self._is_of_this_term(envelope) or peer not in self._progress:
            return
        node, progress = self._nodes[peer], self._progress[peer]
        # A sign of life to the library, no acknowledgement.
        self._hand_to_library(
            peer,
            {"type": "next_node_idx", "next_node_idx": body.offset, "reset": False, "success": False},
        )
        transfer = progress.transfer
        if transfer is None or transfer.snapshot.index != body.index:
            return
        if body.refused:
            log.error("node %d: node %d cannot use the snapshot at entry %d", self.node_id, peer, body.index)
            progress.transfer = None
            self._snapshots.refused(body.index)
            progress.no_snapshot_before = now() + _REFUSED_SECONDS
            return
        transfer.acknowledge(body.offset, now())
        self._send(peer, node, heartbeat=False)

    def _snapshot_for_peers(self) -> Snapshot | None:
        """A snapshot that the log continues; taken when one is needed, None while it is not ready."""
        snapshot = self._snapshots.newest()
        if snapshot is None or snapshot.index < self._journal.first_index:
            self._take_snapshot(lasting=False)
            snapshot = self._snapshots.newest()
        return None if snapshot is None or snapshot.index < self._journal.first_index else snapshot

    def _take_snapshot(self, *, lasting: bool) -> None:
        term = self._journal.term_at(self.applied_index)
        assert term is not None
        self._snapshots.begin(self.applied_index, term, lasting=lasting)

    def _oldest_needed(self) -> int:
        """The first entry that a snapshot under way, or being taken, will be continued from.

        Not for a peer that is gone: it may never come back, and the log would grow as long.
        """
        transfers = [
            progress.transfer for peer, progress in self._progress.items() if self._transport.is_connected(peer)
        ]
        indexes = [transfer.snapshot.index for transfer in transfers if transfer is not None]
        pending = self._snapshots.pending_index
        return min(indexes if pending is None else [*indexes, pending], default=self.last_index)
