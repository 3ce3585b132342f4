"""Wrap the state machine of a node: the checker sees every applied entry and every restored state."""

from collections.abc import Callable
from typing import Protocol

from smrx.consensus import MemoryJournal
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.checker import Checker
from smrx.sim.wire_invariants import WireInvariants


class MemoryFault(Protocol):
    """A point where the node may run out of memory: before an entry is applied, or after."""

    def __call__(self, *, applied: bool) -> None:
        """Return, or raise OutOfMemory."""
        ...


class CheckedStateMachine:
    """The state machine that a simulated node gives to its replica."""

    def __init__(
        self,
        state: ReplicatedState,
        node: int,
        journal: MemoryJournal,
        checker: Checker,
        wire: WireInvariants,
        snapshot: Callable[[], bytes],
        memory_fault: MemoryFault,
    ) -> None:
        """`snapshot` returns the state as bytes."""
        self._state = state
        self._node = node
        self._journal = journal
        self._checker = checker
        self._wire = wire
        self.snapshot = snapshot
        self._memory_fault = memory_fault
        self.position = state.position
        self.hash_at = state.hash_at
        self.hashes_between = state.hashes_between
        self.rules = state.rules

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        if log_index > self._checker.last_index:
            self._wire.before_first_apply(self._node, self._journal, log_index)
        self._checker.before_apply(self._node, log_index, term, entry)
        self._memory_fault(applied=False)
        self._state.apply(log_index, term, entry)
        self._memory_fault(applied=True)

    def restore(self, data: bytes | memoryview) -> None:
        self._state.restore(data)
        self._checker.state_restored(self._node, self._state.position())
