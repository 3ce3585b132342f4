"""Put the library's own behaviour back: a replica class for each fault of the table in smrx/consensus/README.md.

For tests that must fail without the correction of a fault. Each replaces one part of a replica. The project itself uses
nothing of this.
"""

import pickle
from collections.abc import Sequence
from typing import ClassVar

from msgspec import structs

from smrx.config import Timing
from smrx.consensus import ConsensusError, MemoryJournal, MetaStore, Replica, StateMachine, messages
from smrx.consensus.applier import Applier
from smrx.consensus.elections import Elections
from smrx.consensus.follower import Append, Follower
from smrx.consensus.journal import LogEntry
from smrx.consensus.leader import Leader
from smrx.consensus.messages import AppendEntries, AppendReply, Envelope, SnapshotChunk, Vote
from smrx.consensus.peer_progress import Progress
from smrx.consensus.raft_library import now
from smrx.consensus.snapshot_sender import SnapshotSender
from smrx.consensus.snapshots import Snapshot, SnapshotStore
from smrx.sim.versions import CURRENT_VERSION, NEXT_VERSION, EntryFormats
from smrx.wire import batches
from smrx.wire.batches import VERSION

#: Several times the rate of pickle.dump into a GzipFile for 128-byte order records, on one core of a Xeon (1.3 MB/s).
PICKLED_BYTES_PER_SECOND = 10e6
#: The first bytes of a piece of an entry; the first reserved byte of a whole entry is 0.
_HEAD = bytes((messages.REGULAR, VERSION))
_START, _PROCESS, _FINISH = b"\x01", b"\x02", b"\x03"


class TrustingFollower(Follower):
    """Row 1: commits up to the commit index of a message that proves nothing about the log."""

    def _trusted_commit(self, body: AppendEntries | SnapshotChunk) -> int:
        return body.commit_index


class TrustsAnyCommitIndex(Replica):
    """Row 1."""

    follower_class = TrustingFollower


class VotesWithoutItsLog(Replica):
    """Row 2: a node that lost its log votes and acknowledges as before."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return False


class CuttingFollower(Follower):
    """Row 3: deletes everything after prev_index, matching or not."""

    def _without_known(self, prev_index: int, prev_term: int, entries: Sequence[LogEntry]) -> Append:
        return Append(prev_index, prev_term, entries, conflicts=True)

    def _undoes_committed(self, append: Append) -> bool:
        return False


class CutsMatchingEntries(Replica):
    """Row 3, the receiver's half."""

    follower_class = CuttingFollower


class RewindingLeader(Leader):
    """Row 3: goes back to what was acknowledged, with later entries under way."""

    def _next_after_success(self, before: int, acknowledged_next: int) -> int:
        return acknowledged_next


class RewindsOnSuccess(Replica):
    """Row 3, the sender's half."""

    leader_class = RewindingLeader


class StockRow3(CutsMatchingEntries, RewindsOnSuccess):
    """Row 3, both halves."""


class TailDroppingFollower(Follower):
    """Row 3b: a snapshot replaces the whole log."""

    def _rebase_log(self, index: int, term: int, in_force: tuple[int, bytes]) -> None:
        self._journal.clear()
        self._journal._entries.append((messages.NO_OP, index, term))


class DropsTailAtSnapshot(Replica):
    """Row 3b."""

    follower_class = TailDroppingFollower


class RepeatingApplier(Applier):
    """Row 4: an entry counts as applied only after it succeeded, so one that raises is applied again and again."""

    def apply_committed(self) -> None:
        try:
            super().apply_committed()
        except ConsensusError:
            self._raft.mark_applied(self._raft.applied_index - 1)
            raise


class AppliesAgainAfterFailure(Replica):
    """Row 4, the entry."""

    applier_class = RepeatingApplier


class GoesOnAfterFailure(AppliesAgainAfterFailure):
    """Row 4, the entry and the thread that ticks: it logs the exception and ticks again."""

    def tick(self) -> None:
        try:
            super().tick()
        except ConsensusError as error:
            if not isinstance(error.__cause__, MemoryError):
                raise
            self.applier.failure = None


class FollowerThatAsksForLatest(Follower):
    """Row 6: a reset asks for what follows the node's own last entry."""

    def _resend_from(self, wanted: int) -> int:
        return wanted


class AsksForLatest(Replica):
    """Row 6, the receiver's half."""

    follower_class = FollowerThatAsksForLatest


class ObedientLeader(Leader):
    """Row 6: sends once a period, to where the last reply before it pointed."""

    def _obeys_reset(self, body: AppendReply, restarted: int) -> bool:
        return True

    def _send_more(self, peer: int) -> None:
        pass


class ObeysEveryReset(Replica):
    """Row 6, the sender's half."""

    leader_class = ObedientLeader


class StockRow6(AsksForLatest, ObeysEveryReset):
    """Row 6, both halves."""


class LeaderOfAnyTerm(Leader):
    """Row 9: an acknowledgement counts whatever its term."""

    def _is_of_current_term(self, envelope: Envelope) -> bool:
        return True


class CountsStaleAcknowledgements(Replica):
    """Row 9."""

    leader_class = LeaderOfAnyTerm


class ElectionsOfMessages(Elections):
    """Row 10: messages are counted, not voters."""

    def _counts_vote(self, peer: int, body: Vote) -> bool:
        return True


class CountsEveryVote(Replica):
    """Row 10."""

    elections_class = ElectionsOfMessages


class SplittingLeader(Leader):
    """Row 14: an entry as large as a batch is sent in pieces."""

    def _post_append(self, peer: int, next_index: int, entries: list[LogEntry], **how: object) -> None:
        if len(entries) != 1 or len(entries[0][0]) < self.batch_bytes:
            super()._post_append(peer, next_index, entries, **how)  # type: ignore[arg-type]
            return
        whole, (entry, index, term) = pickle.dumps(entries[0], protocol=2), entries[0]
        for at in range(0, len(whole), self.batch_bytes):
            if at == 0:
                kind = _START
            elif at + self.batch_bytes >= len(entry):
                kind = _FINISH
            else:
                kind = _PROCESS
            piece = _HEAD + kind + whole[at : at + self.batch_bytes]
            super()._post_append(peer, next_index, [(piece, index, term)])


class JoiningFollower(Follower):
    """Row 14: joins the pieces of an entry."""

    _received = b""

    def on_append(self, peer: int, envelope: Envelope, body: AppendEntries) -> None:
        kind = body.entries[0][0][2:3] if len(body.entries) == 1 else b""
        if kind not in (_START, _PROCESS, _FINISH):
            super().on_append(peer, envelope, body)
            return
        piece = body.entries[0][0][3:]
        self._received = piece if kind == _START else self._received + piece
        if kind != _FINISH:
            self._post(peer, AppendReply(self._journal.last_index + 1, False, False, body.stream))
            return
        # Raises at every piece that is wrongly called the last one: the library's thread logs that and goes on, a node
        # of this project stops.
        entry = pickle.loads(self._received)
        self._received = b""
        super().on_append(peer, envelope, structs.replace(body, entries=[entry]))


class SplitsLargeEntries(Replica):
    """Row 14: sender and receiver disagree on which piece of an entry is the last one.

    The library pickles the entry (with protocol 2, in which bytes over 127 take twice the space), cuts the pickle, and
    finds the last piece by the length of the entry.
    """

    leader_class = SplittingLeader
    follower_class = JoiningFollower


class AllowsPersistentJournal(Replica):
    """Row 8: a persistent journal without a store for what compaction removes from it."""

    def _check_journal(self, journal: MemoryJournal, snapshots: SnapshotStore | None) -> None:
        pass


class FloodingSender(SnapshotSender):
    """Row 12: sends empty frames for as long as its loop may run."""

    def send(self, peer: int, progress: Progress, *, heartbeat: bool) -> None:
        started = now()
        while now() - started < self._heartbeat_seconds:
            self.send_bare_heartbeat(peer, progress.stream)


class FloodsWhileNotReady(Replica):
    """Row 12."""

    snapshot_sender_class = FloodingSender


class LeadsOnAlone(Replica):
    """Row 15: accepts any time after which a leader without replies steps down."""

    def _check_timing(self, timing: Timing) -> None:
        pass


class FollowerThatAcknowledgesFailures(Follower):
    """Row 16: treats a snapshot that did not load as loaded."""

    def _install(self, snapshot: Snapshot, in_force: tuple[int, bytes]) -> bool:
        super()._install(snapshot, in_force)
        return True


class AcknowledgesFailedSnapshots(Replica):
    """Row 16."""

    follower_class = FollowerThatAcknowledgesFailures


def pickled(state_bytes: int) -> float:
    """Row 13: seconds for which the thread that ticks pickles and compresses a state."""
    return state_bytes / PICKLED_BYTES_PER_SECOND


class UncheckedApplier(Applier):
    """Row 17: an entry is what the reader assumes."""

    def check_entry(self, entry: bytes) -> None:
        pass


class IgnoresVersions(Replica):
    """Rows 14 and 17: entries are not checked, neither for their size nor for their version."""

    applier_class = UncheckedApplier


class NumbersMethods(EntryFormats):
    """Row 17: an entry names a method by its place among the names of all, and the next version has one name more."""

    _METHODS: ClassVar = {CURRENT_VERSION: ("apply",), NEXT_VERSION: ("amend", "apply")}

    def write(self, entry: bytes, version: int) -> bytes:
        number = VERSION + self._METHODS[version].index("apply")
        return entry[:1] + bytes((number,)) + entry[2:]

    def read(self, entry: bytes, version: int) -> bytes:
        method = self._METHODS[version][entry[1] - VERSION]
        # An amendment of nothing has no commands.
        return entry[:1] + bytes((VERSION,)) + entry[2:] if method == "apply" else batches.encode([], 0, 0, 0)


class UnpicklingApplier(Applier):
    """Row 18: unpickles commands."""

    def _apply(self, index: int, term: int, entry: bytes) -> None:
        _, (whole,) = pickle.loads(entry[2:])
        super()._apply(index, term, whole)


class Pickles(Replica):
    """Row 18: the log holds pickles, as the library makes them."""

    applier_class = UnpicklingApplier

    def submit(self, entry: bytes) -> int:
        return super().submit(entry[:2] + pickle.dumps((0, (entry,)), protocol=2))


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and value is not StateMachine]
