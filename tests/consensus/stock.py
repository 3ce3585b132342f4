"""The library's own behaviour put back, one class for each fault of the table in smrx/consensus/README.md.

For tests that must fail without the answer to a fault. Nothing here is used by the project.
"""

import pickle
from collections.abc import Sequence

from smrx.config import Timing
from smrx.consensus import ConsensusError, MemoryJournal, MetaStore, Replica, StateMachine, messages
from smrx.consensus.following import Append
from smrx.consensus.internals import now
from smrx.consensus.journal import LogEntry
from smrx.consensus.messages import AppendEntries, AppendReply, Envelope, SnapshotChunk, Vote
from smrx.consensus.snapshots import Snapshot, SnapshotStore


class TrustsAnyCommitIndex(Replica):
    """Row 1: the commit index of a message that proves nothing about the log."""

    def _trusted_commit(self, body: AppendEntries | SnapshotChunk) -> int:
        return body.commit_index


class ForgetsThatItForgot(Replica):
    """Row 2: a node that lost its log votes and counts as before."""

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        return False


class CutsMatchingEntries(Replica):
    """Row 3: everything after prev_index goes, matching or not."""

    def _without_known(self, prev_index: int, prev_term: int, entries: Sequence[LogEntry]) -> Append:
        return Append(prev_index, prev_term, entries, conflicts=True)

    def _undoes_committed(self, append: Append) -> bool:
        return False


class RewindsOnSuccess(Replica):
    """Row 3, the sender's half: back to what was acknowledged, with later entries under way."""

    def _next_after_success(self, node: object, before: int, acknowledged_next: int) -> int:
        return acknowledged_next


class StockRow3(CutsMatchingEntries, RewindsOnSuccess):
    """Row 3 as a whole."""


class DropsTailAtSnapshot(Replica):
    """Row 3b: a snapshot takes the place of the whole log."""

    def _rebase_log(self, index: int, term: int) -> None:
        self._journal.clear()
        self._journal._entries.append((messages.NO_OP, index, term))


class AppliesAgainAfterFailure(Replica):
    """Row 4: an entry counts as applied only after it succeeded, so one that raises is applied for ever."""

    def _apply_committed(self) -> None:
        for command, index, term in self._journal.between(self.applied_index + 1, self.commit_index):
            if command != messages.NO_OP:
                try:
                    self._apply(index, term, command)
                except Exception as error:
                    raise ConsensusError(str(error)) from error
            self._applied(index)


class AsksForLatest(Replica):
    """Row 6: a reset asks for what follows the node's own last entry."""

    def _resend_from(self, wanted: int) -> int:
        return wanted


class ObeysEveryReset(Replica):
    """Row 6, the sender's half: sends once a period, to where the last answer before it pointed."""

    def _obeys_reset(self, body: AppendReply, stream: int) -> bool:
        return True

    def _send_on(self, peer: int, node: object) -> None:
        pass


class StockRow6(AsksForLatest, ObeysEveryReset):
    """Row 6 as a whole."""


class CountsStaleAcknowledgements(Replica):
    """Row 9: an acknowledgement counts whatever term it was given in."""

    def _is_of_this_term(self, envelope: Envelope) -> bool:
        return True


class CountsEveryVote(Replica):
    """Row 10: votes are counted, not voters."""

    def _counts_vote(self, peer: int, envelope: Envelope, body: Vote) -> bool:
        return True


class AllowsPersistentJournal(Replica):
    """Row 8: a journal that survives, and nothing to hold what compaction takes from it."""

    def _check_journal(self, journal: MemoryJournal, snapshots: SnapshotStore | None) -> None:
        pass


class FloodsWhileNotReady(Replica):
    """Row 12: empty frames for as long as the sending loop may run."""

    def _send_snapshot(self, peer: int, *, heartbeat: bool) -> None:
        started = now()
        while now() - started < self.timing.heartbeat_ms / 1000:
            self._post_bare_heartbeat(peer)


class LeadsOnAlone(Replica):
    """Row 15: any patience of a leader that hears nobody."""

    def _check_timing(self, timing: Timing) -> None:
        pass


class AcknowledgesFailedSnapshots(Replica):
    """Row 16: a snapshot that did not load is taken for loaded."""

    def _install(self, snapshot: Snapshot) -> bool:
        super()._install(snapshot)
        return True


class IgnoresVersions(Replica):
    """Row 17: an entry is what the reader thinks it is."""

    def _check_entry(self, entry: bytes) -> None:
        pass


class Pickles(Replica):
    """Row 18: the log holds pickles, as the library makes them."""

    def submit(self, entry: bytes) -> int:
        return super().submit(entry[:2] + pickle.dumps((0, (entry,)), protocol=2))


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and value is not StateMachine]
