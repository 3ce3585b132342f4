"""In which order one node's frames of events arrive: what comes late or twice is counted, each by its name.

The sequencer heals both, whichever node they come from; this says that it happened, and at which node. It looks at
what a node publishes alone: the copies of other nodes and what was asked for are expected. Sans I/O. Called by the
subscriber.
"""

from typing import Final

import msgspec

#: Places a node skipped that are remembered; beyond that the oldest are forgotten, and memory stays flat.
_SKIPPED: Final = 64


class ArrivalStats(msgspec.Struct):
    """Counts of frames of events, over all nodes."""

    reordered: int = 0  #: frames with an event that the same node had skipped before
    duplicate: int = 0  #: frames in which everything had come from the same node before


class Arrival:
    """What one node has published, as far as it came."""

    def __init__(self, stats: ArrivalStats) -> None:
        """Count in `stats`."""
        self._stats = stats
        self._newest: int | None = None
        self._skipped: list[tuple[int, int]] = []

    def take(self, first: int, last: int) -> None:
        """Take note of a frame with the events first..last."""
        if self._newest is None:
            # What a node published before it was heard is not skipped; should it come, it comes late.
            self._newest, self._skipped = last, [(1, first - 1)] if first > 1 else []
            return
        if first > self._newest + 1:
            self._skipped = [*self._skipped, (self._newest + 1, first - 1)][-_SKIPPED:]
        elif self._fill(first, last):
            self._stats.reordered += 1
        elif last <= self._newest:
            self._stats.duplicate += 1
        self._newest = max(self._newest, last)

    def _fill(self, first: int, last: int) -> bool:
        """Whether any of the events had been skipped; they are not any more."""
        rest: list[tuple[int, int]] = []
        found = False
        for low, high in self._skipped:
            if last < low or high < first:
                rest.append((low, high))
                continue
            found = True
            rest += [part for part in ((low, first - 1), (last + 1, high)) if part[0] <= part[1]]
        self._skipped = rest[-_SKIPPED:]
        return found
