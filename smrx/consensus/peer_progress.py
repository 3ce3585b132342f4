"""Track what a leader has under way to one peer: a window of entries, or a snapshot.

Owns the size of the window. Sends nothing; the leader reports what was sent and acknowledged.
"""

from collections import deque
from typing import Final

from smrx.consensus.snapshots import Outgoing

#: Entries under way to one peer: 800 MB/s with a round trip of 10 ms. It is also the memory that a peer which stops
#: replying can cost.
WINDOW_BYTES: Final = 8 << 20
WINDOW_MESSAGES: Final = 128


class Progress:
    """What is under way to one peer."""

    def __init__(self, stream: int = 0) -> None:
        #: The number that the next message carries, and the first one since the last restart. Numbers only grow.
        self.stream = self.restarted = stream
        self._messages: deque[tuple[int, int]] = deque()
        self.size_bytes = 0
        self.transfer: Outgoing | None = None
        #: The log index of the last snapshot that the peer could not use, how many there were, and when to try again.
        self.refused_index = 0
        self.refusals = 0
        self.no_snapshot_before = 0.0

    def restart(self, stream: int) -> None:
        """Treat everything under way as lost; messages carry this number from now on."""
        self.stream = self.restarted = stream
        self._messages.clear()
        self.size_bytes = 0

    def forget_refusals(self) -> None:
        """Send a snapshot as soon as one is needed: the peer has used one, or is another incarnation."""
        self.refused_index = self.refusals = 0
        self.no_snapshot_before = 0.0

    def has_space(self) -> bool:
        """Return whether more entries may be sent."""
        return self.size_bytes < WINDOW_BYTES and len(self._messages) < WINDOW_MESSAGES

    def sent(self, last_index: int, size: int) -> None:
        """Record a message of entries."""
        self._messages.append((last_index, size))
        self.size_bytes += size

    def acknowledged(self, index: int) -> None:
        """Record that everything up to `index` has arrived."""
        while self._messages and self._messages[0][0] <= index:
            self.size_bytes -= self._messages.popleft()[1]
