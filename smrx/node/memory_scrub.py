"""Scrub the memory of an idle node: compare stored hashes with the records they cover, a slice at a time.

Finds memory that was damaged at rest before a command uses it. Decides nothing: the reactor fences the node.
"""

from typing import Final

from smrx.node.replicated_state import ReplicatedState

#: Records checked in one slice, and the time between two slices.
_SLICE_RECORDS: Final = 1024
_SLICE_SECONDS: Final = 0.1


class MemoryScrub:
    """The place of the scrub in the state, and when the next slice is due."""

    def __init__(self, state: ReplicatedState, *, enabled: bool = True) -> None:
        self._state = state
        self._next_record = 0
        #: When run() checks the next slice, on the clock given to it.
        self.next_deadline = 0.0 if enabled else float("inf")

    def run(self, now: float) -> str | None:
        """Check the next slice if it is due; return the record that differs from its hash, None if there is none."""
        if now < self.next_deadline:
            return None
        self.next_deadline = now + _SLICE_SECONDS
        self._next_record, damaged = self._state.engine.scrub(self._next_record, _SLICE_RECORDS)
        return damaged
