"""A node's state machine as its replica sees it: the checker looks on at every entry and every restored state."""

from collections.abc import Callable
from typing import Protocol

from smrx.consensus import MemoryJournal
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.checker import Checker
from smrx.sim.promises import Promises


class Shortage(Protocol):
    """Where memory may be short: before an entry is applied, or after."""

    def __call__(self, *, applied: bool) -> None:
        """Go on, or raise."""
        ...


class WatchedMachine:
    """The node's machine as the replica sees it, with the checker looking on."""

    def __init__(
        self,
        machine: ReplicatedState,
        node: int,
        journal: MemoryJournal,
        checker: Checker,
        promises: Promises,
        snapshot: Callable[[], bytes],
        shortage: Shortage,
    ) -> None:
        """`snapshot` takes the machine's state."""
        self._machine = machine
        self._node = node
        self._journal = journal
        self._checker = checker
        self._promises = promises
        self.snapshot = snapshot
        self._shortage = shortage
        self.position = machine.position
        self.hash_at = machine.hash_at
        self.hashes_between = machine.hashes_between

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        if log_index > self._checker.last_index:
            self._promises.applying(self._node, self._journal, log_index)
        self._checker.applying(self._node, log_index, term, entry)
        self._shortage(applied=False)
        self._machine.apply(log_index, term, entry)
        self._shortage(applied=True)

    def restore(self, data: bytes | memoryview) -> None:
        self._machine.restore(data)
        self._checker.restored(self._node, self._machine.position())
