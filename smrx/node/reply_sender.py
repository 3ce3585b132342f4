"""Send the replies of one ROUTER socket, so that a peer that does not read them costs a bounded amount of memory.

ZeroMQ holds few messages for each connection. Beyond them replies wait here, up to a budget for each peer and one for
all; what exceeds it is dropped, and the peer is behind until it has read what it was sent before. The owner of the
socket accepts no request of a peer that is behind: it cannot cost more. Has no clock. Called by the reactor.
"""

from collections import deque
from typing import Final

import zmq

#: Messages that ZeroMQ holds for one connection. With the largest outcomes, of 256 KiB, that is 8 MiB.
HIGH_WATER_MARK: Final = 32
#: Bytes of replies that wait here for one peer: the outcomes of a window of 64 K requests. And for all peers.
PEER_BYTES: Final = 4 << 20
ALL_BYTES: Final = 64 << 20


class ReplySender:
    """The replies that wait, by the identity of their peer."""

    def __init__(
        self, socket: "zmq.Socket[bytes]", *, peer_bytes: int = PEER_BYTES, all_bytes: int = ALL_BYTES
    ) -> None:
        """Set the options of a ROUTER socket; call before bind()."""
        socket.sndhwm = HIGH_WATER_MARK
        # Report a full queue, instead of dropping the message without a word.
        socket.router_mandatory = True
        self._socket = socket
        self._peer_bytes = peer_bytes
        self._all_bytes = all_bytes
        self._waiting: dict[bytes, deque[bytes]] = {}
        self._sizes: dict[bytes, int] = {}
        self._total = 0
        #: Replies dropped so far.
        self.dropped = 0

    @property
    def has_waiting(self) -> bool:
        """Whether replies wait; call flush() again soon."""
        return bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """The bytes of all waiting replies."""
        return self._total

    def is_behind(self, identity: bytes) -> bool:
        """Return whether replies to a peer wait, because it reads too slowly or not at all."""
        return identity in self._waiting

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send a reply, or let it wait, or drop it: if the budget is used up, or the peer is gone."""
        if identity in self._waiting or not self._try(identity, frame):
            self._wait(identity, frame)

    def flush(self) -> None:
        """Send the waiting replies that their connections now take."""
        # ZeroMQ learns which connections have room, or are gone, when it is asked for its events.
        self._socket.getsockopt(zmq.EVENTS)
        for identity in tuple(self._waiting):
            waiting = self._waiting[identity]
            while waiting and self._try(identity, waiting[0]):
                self._shrink(identity, len(waiting.popleft()))
            if not waiting:
                del self._waiting[identity], self._sizes[identity]

    def _wait(self, identity: bytes, frame: bytes) -> None:
        size = self._sizes.get(identity, 0) + len(frame)
        if size > self._peer_bytes or self._total + len(frame) > self._all_bytes:
            self.dropped += 1
            # An empty entry still says that the peer is behind.
            self._waiting.setdefault(identity, deque())
            self._sizes.setdefault(identity, 0)
            return
        self._waiting.setdefault(identity, deque()).append(frame)
        self._sizes[identity] = size
        self._total += len(frame)

    def _shrink(self, identity: bytes, size: int) -> None:
        self._sizes[identity] -= size
        self._total -= size

    def _try(self, identity: bytes, frame: bytes) -> bool:
        """Send if the connection takes it; return False if it does not. A reply to a peer that is gone is dropped."""
        try:
            self._socket.send_multipart((identity, frame), zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.dropped += 1
        return True
