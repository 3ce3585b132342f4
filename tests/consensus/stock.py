"""The library's own behaviour put back, one class for each fault of the table in smrx/consensus/README.md.

For tests that must fail without the answer to a fault. Nothing here is used by the project.
"""

import pickle
from collections.abc import Sequence
from typing import ClassVar

from msgspec import structs

from smrx.config import Timing
from smrx.consensus import ConsensusError, MemoryJournal, MetaStore, Replica, StateMachine, messages
from smrx.consensus.following import Append
from smrx.consensus.internals import now
from smrx.consensus.journal import LogEntry
from smrx.consensus.messages import AppendEntries, AppendReply, Envelope, SnapshotChunk, Vote
from smrx.consensus.snapshots import Snapshot, SnapshotStore
from smrx.sim.versions import NEXT, PRESENT, Formats
from smrx.wire import batches
from smrx.wire.batches import VERSION

#: Several times what pickle.dump into a GzipFile makes of 128-byte order records on one core of a Xeon (1.3 MB/s).
PICKLED_BYTES_PER_SECOND = 10e6
#: What a piece of an entry is, where the first reserved byte of a whole one is 0.
_HEAD = bytes((messages.REGULAR, VERSION))
_START, _PROCESS, _FINISH = b"\x01", b"\x02", b"\x03"


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

    def _rebase_log(self, index: int, term: int, in_force: tuple[int, bytes]) -> None:
        self._journal.clear()
        self._journal._entries.append((messages.NO_OP, index, term))


class AppliesAgainAfterFailure(Replica):
    """Row 4: an entry counts as applied only after it succeeded, so one that raises is applied for ever."""

    def _apply_committed(self) -> None:
        try:
            super()._apply_committed()
        except ConsensusError:
            self._applied(self.applied_index - 1)
            raise


class GoesOnAfterFailure(AppliesAgainAfterFailure):
    """Row 4 as a whole: the thread that ticks logs the exception and ticks again."""

    def tick(self) -> None:
        try:
            super().tick()
        except ConsensusError as error:
            if not isinstance(error.__cause__, MemoryError):
                raise
            self._failure = None


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


class SplitsLargeEntries(Replica):
    """Row 14: an entry as large as a batch travels in pieces; which is the last one, sender and receiver disagree on.

    The library pickles the entry (at protocol 2, in which bytes over 127 take twice the room), cuts the pickle, and
    tells the last piece by the length of the entry.
    """

    _received = b""

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

    def _on_append(self, peer: int, envelope: Envelope, body: AppendEntries) -> None:
        kind = body.entries[0][0][2:3] if len(body.entries) == 1 else b""
        if kind not in (_START, _PROCESS, _FINISH):
            super()._on_append(peer, envelope, body)
            return
        piece = body.entries[0][0][3:]
        self._received = piece if kind == _START else self._received + piece
        if kind != _FINISH:
            self._post(peer, AppendReply(self.last_index + 1, False, False, body.stream))
            return
        # Raises at every piece that is called the last one and is not: the library's own thread then writes a line into
        # its log and goes on, a node of ours ends.
        entry = pickle.loads(self._received)
        self._received = b""
        super()._on_append(peer, envelope, structs.replace(body, entries=[entry]))


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

    def _install(self, snapshot: Snapshot, in_force: tuple[int, bytes]) -> bool:
        super()._install(snapshot, in_force)
        return True


def pickled(state_bytes: int) -> float:
    """Row 13: seconds that the thread which ticks pickles and compresses a state, at PICKLED_BYTES_PER_SECOND."""
    return state_bytes / PICKLED_BYTES_PER_SECOND


class IgnoresVersions(Replica):
    """Row 17: an entry is what the reader thinks it is."""

    def _check_entry(self, entry: bytes) -> None:
        pass


class NumbersMethods(Formats):
    """Row 17: an entry names a method by its place among the names of all, and the next version has one name more."""

    _METHODS: ClassVar = {PRESENT: ("apply",), NEXT: ("amend", "apply")}

    def write(self, entry: bytes, version: int) -> bytes:
        number = VERSION + self._METHODS[version].index("apply")
        return entry[:1] + bytes((number,)) + entry[2:]

    def read(self, entry: bytes, version: int) -> bytes:
        method = self._METHODS[version][entry[1] - VERSION]
        # An amendment of nothing has no commands.
        return entry[:1] + bytes((VERSION,)) + entry[2:] if method == "apply" else batches.encode([], 0, 0, 0)


class Pickles(Replica):
    """Row 18: the log holds pickles, as the library makes them."""

    def submit(self, entry: bytes) -> int:
        return super().submit(entry[:2] + pickle.dumps((0, (entry,)), protocol=2))

    def _apply(self, index: int, term: int, entry: bytes) -> None:
        _, (whole,) = pickle.loads(entry[2:])
        super()._apply(index, term, whole)


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and value is not StateMachine]
