"""Send snapshots to followers whose next entry was compacted.

Owns the window of chunks under way to each of them. Called by the leader, for a peer that needs a snapshot and for its
replies; takes a snapshot when there is none that the log continues.
"""

import logging
from collections.abc import Sequence
from typing import Final

from smrx.consensus.context import ReplicaContext
from smrx.consensus.messages import AppendEntries, SnapshotChunk, SnapshotReply
from smrx.consensus.peer_progress import Progress
from smrx.consensus.raft_library import now
from smrx.consensus.snapshots import Outgoing, Snapshot, SnapshotStore

log = logging.getLogger(__name__)

#: A peer that refused a snapshot gets the next one after this time. The time doubles up to the limit while the peer
#: cannot use what arrives intact: it is likely to be of another version, and each snapshot costs a fork.
_REFUSED_SECONDS: Final = 1.0
_MAX_REFUSED_SECONDS: Final = 300.0


class SnapshotSender:
    """The part of a replica that sends snapshots."""

    def __init__(self, context: ReplicaContext, store: SnapshotStore) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._post = context.transport.post
        self._store = store
        self._heartbeat_seconds = context.settings.timing.heartbeat_ms / 1000
        self.chunk_bytes = context.settings.chunk_bytes

    def send(self, peer: int, progress: Progress, *, heartbeat: bool) -> None:
        """Send the chunks that fit into the window; without any, a bare heartbeat where one is due."""
        time = now()
        if progress.transfer is not None and progress.transfer.snapshot.index < self._journal.first_index:
            # The log after it was compacted meanwhile: the peer would need another snapshot at once.
            progress.transfer = None
        if progress.transfer is None and time >= progress.no_snapshot_before:
            if progress.refused_index:
                # Not the same one again, unless it is on disk and valid.
                self._store.refused(progress.refused_index)
                progress.refused_index = 0
            snapshot = self.snapshot_for_peers()
            if snapshot is not None:
                progress.transfer = Outgoing(snapshot, time, self.chunk_bytes)
        transfer = progress.transfer
        if transfer is not None:
            if time - transfer.stalled_since() >= 4 * self._heartbeat_seconds:
                transfer.rewind(time)
            for offset, data in transfer.chunks():
                self._post_chunk(peer, progress.stream, transfer.snapshot, offset, data)
                heartbeat = False
        if heartbeat:
            self.send_bare_heartbeat(peer, progress.stream)

    def send_bare_heartbeat(self, peer: int, stream: int) -> None:
        """Send a heartbeat that says nothing about the log."""
        self._post(peer, AppendEntries(None, 0, self._raft.commit_index, self._journal.last_index, stream, False, []))

    def _post_chunk(self, peer: int, stream: int, snapshot: Snapshot, offset: int, data: bytes) -> None:
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
                self._raft.commit_index,
                self._journal.last_index,
                stream,
                membership_index,
                membership,
            ),
        )

    def on_reply(self, peer: int, progress: Progress, body: SnapshotReply) -> bool:
        """Take account of a peer's reply; return whether more chunks may be sent now."""
        transfer = progress.transfer
        if transfer is None or transfer.snapshot.index != body.index:
            return False
        if body.refused:
            self._on_refusal(peer, progress, body)
            return False
        transfer.acknowledge(body.offset, now())
        return True

    def _on_refusal(self, peer: int, progress: Progress, body: SnapshotReply) -> None:
        progress.transfer = None
        node_id, view = self._context.node_id, self._context.views[peer]
        if not body.reason:
            log.error("node %d: the snapshot at entry %d arrived at node %d damaged", node_id, body.index, peer)
            self._store.refused(body.index)
            progress.no_snapshot_before = now() + _REFUSED_SECONDS
            return
        # It stays in the store: another peer, or the next incarnation of this one, may be able to use it.
        progress.refused_index = body.index
        progress.no_snapshot_before = now() + min(_REFUSED_SECONDS * 2**progress.refusals, _MAX_REFUSED_SECONDS)
        progress.refusals = min(progress.refusals + 1, 16)
        if view.refused_snapshot != body.reason:
            view.refused_snapshot = body.reason
            log.error(
                "node %d: node %d cannot use the snapshot at entry %d: %s; the next attempts come at growing "
                "intervals, and at once after that node restarts",
                *(node_id, peer, body.index, body.reason),
            )

    def snapshot_for_peers(self) -> Snapshot | None:
        """Return a snapshot that the log continues; take one if there is none, and return None until it is ready."""
        snapshot = self._store.newest()
        if snapshot is None or snapshot.index < self._journal.first_index:
            self.take(for_restart=False)
            snapshot = self._store.newest()
        return None if snapshot is None or snapshot.index < self._journal.first_index else snapshot

    def take(self, *, for_restart: bool) -> None:
        """Begin to take a snapshot of the present state; `for_restart`: for restarts, otherwise only for a peer."""
        term = self._journal.term_at(self._raft.applied_index)
        assert term is not None
        self._store.begin(self._raft.applied_index, term, for_restart=for_restart)

    def oldest_needed(self, transfers: Sequence[Outgoing]) -> int:
        """Return the first entry that these snapshots, or the one being taken, will be continued from."""
        indexes = [transfer.snapshot.index for transfer in transfers]
        pending = self._store.pending_index
        return min(indexes if pending is None else [*indexes, pending], default=self._journal.last_index)
