"""Store the unanswered requests of one session, in the order of their ids.

Assigns the request ids. Used by ClientSession only. No clock, no I/O.

    ... answered | sent, not answered | not sent | free ...
        `answered`             `sent`     `last`
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import COMMAND


class RequestWindow:
    """A ring buffer of commands: request r is at index r modulo the capacity until it is answered."""

    def __init__(self, session_id: int, capacity: int) -> None:
        self._session_id = session_id
        self._ring = np.zeros(capacity, COMMAND)
        self.answered = 0  #: id of the last answered request
        self.sent = 0  #: id of the last request sent in this attempt
        self.last = 0  #: id of the last request added

    @property
    def free_slots(self) -> int:
        """How many more commands fit."""
        return len(self._ring) - (self.last - self.answered)

    def add(self, commands: NDArray[np.void]) -> int:
        """Number the commands and store copies; return the first id. The caller checks `free_slots`."""
        first, count = self.last + 1, len(commands)
        at = first % len(self._ring)
        head = min(count, len(self._ring) - at)
        self._put(at, commands[:head], first)
        if head < count:
            self._put(0, commands[head:], first + head)
        self.last += count
        return first

    def _put(self, at: int, commands: NDArray[np.void], first: int) -> None:
        slots = self._ring[at : at + len(commands)]
        slots[:] = commands
        slots["session_id"] = self._session_id
        slots["request_id"] = np.arange(first, first + len(commands), dtype=np.uint64)

    def take(self, limit: int) -> NDArray[np.void]:
        """Return the next unsent commands, at most `limit`, and mark them sent. Valid until they are answered."""
        at = (self.sent + 1) % len(self._ring)
        count = min(limit, self.last - self.sent, len(self._ring) - at)
        self.sent += count
        return self._ring[at : at + count]

    def rewind(self) -> None:
        """Mark every unanswered request as not sent."""
        self.sent = self.answered

    def accept(self, count: int) -> None:
        """Mark the next `count` requests as answered."""
        self.answered += count
        # A reply to an earlier attempt can arrive before this attempt has sent the request.
        self.sent = max(self.sent, self.answered)
