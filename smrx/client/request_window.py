"""The requests of one session that are not answered yet, in the order of their ids.

Owns the numbering. Pure: no clock, no I/O. Used by the session state machine only.

    ... answered | sent, no answer yet | not sent yet | room ...
        `answered`                `sent`         `last`
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import COMMAND


class RequestWindow:
    """A ring of commands: request r stands at r modulo the capacity until it is answered."""

    def __init__(self, session_id: int, capacity: int) -> None:
        self._session_id = session_id
        self._ring = np.zeros(capacity, COMMAND)
        #: The last request whose answer is known, the last one sent in this try, the last one numbered.
        self.answered = 0
        self.sent = 0
        self.last = 0

    @property
    def free_slots(self) -> int:
        """How many more commands fit."""
        return len(self._ring) - (self.last - self.answered)

    def add(self, commands: NDArray[np.void]) -> int:
        """Number the commands and keep copies; return the first id. The caller has checked the room."""
        first, count = self.last + 1, len(commands)
        at = first % len(self._ring)
        head = min(count, len(self._ring) - at)
        self._put(at, commands[:head], first)
        if head < count:
            self._put(0, commands[head:], first + head)
        self.last += count
        return first

    def _put(self, at: int, commands: NDArray[np.void], first: int) -> None:
        place = self._ring[at : at + len(commands)]
        place[:] = commands
        place["session_id"] = self._session_id
        place["request_id"] = np.arange(first, first + len(commands), dtype=np.uint64)

    def take(self, limit: int) -> NDArray[np.void]:
        """Return the next unsent commands, at most `limit`, and count them as sent; valid until they are answered."""
        at = (self.sent + 1) % len(self._ring)
        count = min(limit, self.last - self.sent, len(self._ring) - at)
        self.sent += count
        return self._ring[at : at + count]

    def rewind(self) -> None:
        """Everything that is not answered is to be sent again."""
        self.sent = self.answered

    def accept(self, count: int) -> None:
        """The next `count` requests are answered."""
        self.answered += count
        # An answer to an earlier try may come before the request was sent again in this one.
        self.sent = max(self.sent, self.answered)
