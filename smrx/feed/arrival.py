"""Count the frames of each node that arrive late or twice.

The sequencer repairs both, whichever node sent them; these counts show that it happened, and at which node. They cover
what a node publishes, not retransmission: copies of other nodes and answers to requests are expected. Sans I/O. Called
by the subscriber.
"""

from typing import Final

import msgspec

#: Ranges a node skipped that are kept; beyond that the oldest are dropped, so that memory stays flat.
_MAX_SKIPPED: Final = 64


class ArrivalStats(msgspec.Struct):
    """Counts of frames of events, over all nodes."""

    reordered: int = 0  #: frames with an event that the same node had skipped before
    duplicate: int = 0  #: frames in which every event had come from the same node before


class Arrival:
    """The ranges of events that one node has published so far."""

    def __init__(self, stats: ArrivalStats) -> None:
        """Count in `stats`."""
        self._stats = stats
        self._newest: int | None = None
        self._skipped: list[tuple[int, int]] = []

    def take(self, first: int, last: int) -> None:
        """Record a frame with the events first..last."""
        if self._newest is None:
            # What a node published before the first frame received is not skipped; if it comes, it comes late.
            self._newest, self._skipped = last, [(1, first - 1)] if first > 1 else []
            return
        if first > self._newest + 1:
            self._skipped = [*self._skipped, (self._newest + 1, first - 1)][-_MAX_SKIPPED:]
        elif self._fill(first, last):
            self._stats.reordered += 1
        elif last <= self._newest:
            self._stats.duplicate += 1
        self._newest = max(self._newest, last)

    def _fill(self, first: int, last: int) -> bool:
        """Return whether any of the events had been skipped, and remove them from the skipped ranges."""
        rest: list[tuple[int, int]] = []
        found = False
        for low, high in self._skipped:
            if last < low or high < first:
                rest.append((low, high))
                continue
            found = True
            rest += [part for part in ((low, first - 1), (last + 1, high)) if part[0] <= part[1]]
        self._skipped = rest[-_MAX_SKIPPED:]
        return found
