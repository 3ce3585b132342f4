"""Apply committed entries to the state machine, each once and in log order.

Called by the library in the middle of each tick, after the commit index has moved.
"""

from smrx.consensus import messages
from smrx.consensus.context import ConsensusError, ReplicaContext, UnknownRules
from smrx.consensus.member_changes import MemberChanges
from smrx.consensus.membership import is_membership


class Applier:
    """The part of a replica that applies entries."""

    def __init__(self, context: ReplicaContext, member_changes: MemberChanges) -> None:
        self._raft = context.raft
        self._journal = context.journal
        self._machine = context.machine
        self._member_changes = member_changes
        #: Why this node must stop: an entry could not be applied.
        self.failure: ConsensusError | None = None

    def apply_committed(self) -> None:
        """Apply the committed entries that were not applied yet. Raises ConsensusError."""
        for entry, index, term in self._journal.between(self._raft.applied_index + 1, self._raft.commit_index):
            self._raft.mark_applied(index)
            if entry == messages.NO_OP:
                continue
            if is_membership(entry):
                self._member_changes.on_committed(index, entry)
                continue
            try:
                self._apply(index, term, entry)
            except UnknownRules as error:
                self.failure = error
                raise
            except Exception as error:
                # A bug, or a damaged state: the entry is not applied again, and no message may report it as applied.
                self.failure = ConsensusError(f"log entry {index} could not be applied: {error!r}")
                raise self.failure from error

    def _apply(self, index: int, term: int, entry: bytes) -> None:
        self.check_entry(entry)
        self._machine.apply(index, term, entry)

    def check_entry(self, entry: bytes) -> None:
        """Accept one command with a version byte, small enough for one message; raises ValueError for anything else."""
        fault = messages.entry_fault(entry)
        if fault is not None:
            raise ValueError(fault)
