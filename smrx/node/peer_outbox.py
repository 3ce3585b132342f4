"""Send replies to the peers of a ROUTER socket, with a bound on what each peer and all of them may leave unread.

ZeroMQ keeps at most `SEND_MESSAGES` replies of a peer; the socket says when that is full, or the peer gone. A reply
that it cannot take waits here, and its peer is blocked: the caller answers it nothing else. After a while a blocked
peer loses the reply. So a peer that does not read costs a bounded amount of memory, and no time.

Owns the replies that wait. Called by the admin service.
"""

import time
from typing import Final

import zmq

#: Replies to one peer that ZeroMQ keeps.
SEND_MESSAGES: Final = 4
#: Unread bytes of a peer in the system's buffer.
SEND_BUFFER_BYTES: Final = 256 << 10
#: Bytes of the replies that wait here, of one peer and of all; what exceeds them is dropped. Each reply counts for some
#: more than its own, for what keeps it.
_WAITING_OF_PEER: Final = 256 << 10
_WAITING_BYTES: Final = 16 << 20
_OVERHEAD: Final = 200
#: A reply that a peer cannot take for so long is dropped.
_WAITING_SECONDS: Final = 5.0
#: Blocked peers that are tried in one turn.
_TRIED: Final = 16
_RETRY_SECONDS: Final = 0.002


class PeerOutbox:
    """The replies to the peers of one socket."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the socket's bounds; it must not be bound yet."""
        socket.sndhwm = SEND_MESSAGES
        socket.sndbuf = SEND_BUFFER_BYTES
        socket.router_mandatory = True
        self._socket = socket
        #: By blocked peer: its replies, and since when the first waits; the peer that waits longest is first.
        self._waiting: dict[bytes, tuple[list[bytes], float]] = {}
        self._size = 0
        #: Replies that were dropped because their peer did not read.
        self.dropped = 0
        #: Peers that were found to be gone since the last take_gone().
        self._gone: list[bytes] = []

    @property
    def blocked(self) -> "dict[bytes, tuple[list[bytes], float]]":
        """The peers that cannot take a reply now."""
        return self._waiting

    @property
    def next_deadline(self) -> float:
        """When retry() has something to do, on time.monotonic()."""
        return time.monotonic() + _RETRY_SECONDS if self._waiting else float("inf")

    def send(self, peer: bytes, reply: bytes) -> None:
        """Send a reply, or let it wait; drop it if the peer is gone or too much waits."""
        known = self._waiting.get(peer)
        if known is None and self._sent(peer, reply):
            return
        of_peer = 0 if known is None else sum(map(_cost, known[0]))
        if self._size + _cost(reply) > _WAITING_BYTES or (of_peer and of_peer + _cost(reply) > _WAITING_OF_PEER):
            self.dropped += 1
            return
        if known is None:
            self._waiting[peer] = ([reply], time.monotonic())
        else:
            known[0].append(reply)
        self._size += _cost(reply)

    def retry(self) -> None:
        """Send to some of the blocked peers; drop what has waited too long."""
        if not self._waiting:
            return
        # ZeroMQ notices that a peer has read, or is gone, when it is asked for its events, and not in each send.
        self._socket.getsockopt(zmq.EVENTS)
        now = time.monotonic()
        for peer in list(self._waiting)[:_TRIED]:
            replies, since = self._waiting.pop(peer)
            while replies and self._sent(peer, replies[0]):
                self._size -= _cost(replies.pop(0))
            if not replies:
                continue
            if now - since > _WAITING_SECONDS:
                self.dropped += len(replies)
                self._size -= sum(map(_cost, replies))
                continue
            # Behind the others.
            self._waiting[peer] = (replies, since)

    def take_gone(self) -> list[bytes]:
        """Return the peers that were found to be gone since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def _sent(self, peer: bytes, reply: bytes) -> bool:
        """Send a reply; return False if the peer cannot take it now. A peer that is gone needs no reply."""
        try:
            self._socket.send_multipart((peer, reply), zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone.append(peer)
        return True


def _cost(reply: bytes) -> int:
    return len(reply) + _OVERHEAD
