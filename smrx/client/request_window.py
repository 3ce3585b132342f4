"""Store the unanswered requests of one session, in the order of their ids.

Assigns the request ids. Used by ClientSession only. No clock, no I/O.

    ... answered | sent, not answered | not sent | free ...
        `answered`             `sent`     `last`

Each command with details has them at the same index of a second ring, which exists once a command has some.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS

#: Where a command has its session and request, and the id of the order that it names.
_IDS: Final = slice(8, 24)
_ORDER_ID: Final = slice(COMMAND.fields["order_id"][1], COMMAND.fields["order_id"][1] + 8)  # type: ignore[index]


class RequestWindow:
    """A ring buffer of commands: request r is at index r modulo the capacity until it is answered."""

    def __init__(self, session_id: int, capacity: int) -> None:
        self._session_id = session_id
        self._ring = np.zeros(capacity, COMMAND)
        #: The same memory, for one command at a time.
        self._bytes = self._ring.view(np.uint8).data
        self._details = NO_DETAILS
        self.answered = 0  #: id of the last answered request
        self.sent = 0  #: id of the last request sent in this attempt
        self.last = 0  #: id of the last request added

    def rename(self, session_id: int) -> None:
        """Make the commands those of another session; none of them was sent."""
        self._session_id = session_id
        self._ring["session_id"] = session_id

    def next_unanswered(self, count: int) -> NDArray[np.void]:
        """Return copies of the commands from the first unanswered one on, as many as there are up to `count`."""
        at = (self.answered + 1 + np.arange(min(count, self.last - self.answered))) % len(self._ring)
        return self._ring[at]

    def next_command(self) -> tuple[int, int]:
        """Return the kind of the first unanswered command, and the id in its order_id."""
        at = (self.answered + 1) % len(self._ring) * COMMAND_SIZE
        return self._bytes[at], int.from_bytes(self._bytes[at:][_ORDER_ID], "little")

    @property
    def free_slots(self) -> int:
        """How many more commands fit."""
        return len(self._ring) - (self.last - self.answered)

    def add(self, commands: NDArray[np.void], details: NDArray[np.void] = NO_DETAILS) -> int:
        """Number the commands and store copies; return the first id.

        The caller checks `free_slots`, and that no command names details beyond the last.
        """
        first, count = self.last + 1, len(commands)
        if count == 1 and not len(details):
            self._put_one(commands, first)
            return first
        at = first % len(self._ring)
        head = min(count, len(self._ring) - at)
        self._put(at, commands[:head], first, details)
        if head < count:
            self._put(0, commands[head:], first + head, details)
        self.last += count
        return first

    def _put_one(self, command: NDArray[np.void], request: int) -> None:
        row = command.tobytes()
        at = request % len(self._ring) * COMMAND_SIZE
        numbers = self._session_id.to_bytes(8, "little") + request.to_bytes(8, "little")
        self._bytes[at : at + COMMAND_SIZE] = row[: _IDS.start] + numbers + row[_IDS.stop :]
        self.last = request

    def _put(self, at: int, commands: NDArray[np.void], first: int, details: NDArray[np.void]) -> None:
        if len(details):
            numbers = commands["details"].astype(np.int64)
            named = np.flatnonzero(numbers)
            if len(named):
                if not len(self._details):
                    self._details = np.zeros(len(self._ring), DETAILS)
                self._details[at + named] = details[numbers[named] - 1]
        slots = self._ring[at : at + len(commands)]
        slots[:] = commands
        slots["session_id"] = self._session_id
        slots["request_id"] = np.arange(first, first + len(commands), dtype=np.uint64)

    def take(self, limit: int) -> CommandList:
        """Return the next unsent commands, at most `limit`, and mark them sent. Valid until they are answered."""
        at = (self.sent + 1) % len(self._ring)
        count = min(limit, self.last - self.sent, len(self._ring) - at)
        self.sent += count
        rows = self._ring[at : at + count]
        if not len(self._details):
            return CommandList(rows)
        named = np.flatnonzero(rows["details"])
        if not len(named):
            return CommandList(rows)
        rows = rows.copy()
        rows["details"][named] = np.arange(1, len(named) + 1)
        return CommandList(rows, self._details[at + named])

    def rewind(self) -> None:
        """Mark every unanswered request as not sent."""
        self.sent = self.answered

    def accept(self, count: int) -> None:
        """Mark the next `count` requests as answered."""
        self.answered += count
        # A reply to an earlier attempt can arrive before this attempt has sent the request.
        self.sent = max(self.sent, self.answered)
