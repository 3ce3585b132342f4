"""Hold events until they are released, and release whole commands only. Sans I/O.

Which events may be released is decided by the quorum, which calls this for every run of events the sequencer delivers.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from smrx.wire.record_words import concatenate_records


class Pending:
    """The events after the last one released; its length is in events."""

    def __init__(self, released: int) -> None:
        self.released = released
        #: The last event held.
        self.last = released
        self._runs: deque[NDArray[np.void]] = deque()
        self._ends: set[int] = set()  #: events known to be the last of their commands

    def __len__(self) -> int:
        return self.last - self.released

    def append(self, events: NDArray[np.void]) -> None:
        """Hold events, at least one, that follow the last one."""
        self._runs.append(events)
        self.last = int(events["sequence"][-1])

    def clear(self) -> None:
        """Drop what is not released; the known ends of commands stay."""
        self._runs.clear()
        self.last = self.released

    def note_end(self, sequence: int) -> None:
        """Record that an event is the last of its command."""
        self._ends.add(sequence)

    def whole_commands(self, last: int, agreed: int) -> int:
        """Return the last event up to `last` that ends a command up to `agreed`; the last one released if none does."""
        for events in reversed(self._runs):
            first = int(events["sequence"][0])
            if first > last:
                continue
            commands = events["command_sequence"]
            end = last - first + 1
            if int(commands[end - 1]) > agreed:
                end = int(np.searchsorted(commands[:end], np.uint64(agreed), side="right"))
            if end and not self._ends_command(first + end - 1, int(commands[end - 1])):
                end = int(np.searchsorted(commands[:end], commands[end - 1]))
            if end:
                return first + end - 1
            last = first - 1
        return self.released

    def between(self, first: int, last: int) -> list[NDArray[np.void]]:
        """Return the held events among first..last, in parts."""
        parts = []
        for events in self._runs:
            start = int(events["sequence"][0])
            part = events[max(0, first - start) : max(0, last - start + 1)]
            if len(part):
                parts.append(part)
        return parts

    def pop(self, last: int) -> NDArray[np.void]:
        """Release everything up to `last`, which is held and was not released."""
        parts = self.between(self.released + 1, last)
        while self._runs and int(self._runs[0]["sequence"][-1]) <= last:
            self._runs.popleft()
        if self._runs:
            head = self._runs[0]
            self._runs[0] = head[max(0, last - int(head["sequence"][0]) + 1) :]
        self.released = last
        self._ends = {end for end in self._ends if end > last}
        return concatenate_records(parts)

    def _ends_command(self, sequence: int, command: int) -> bool:
        if sequence < self.last:
            return self._command_of(sequence + 1) != command
        return sequence in self._ends

    def _command_of(self, sequence: int) -> int:
        for events in self._runs:
            at = sequence - int(events["sequence"][0])
            if at < len(events):
                return int(events["command_sequence"][at])
        return 0
