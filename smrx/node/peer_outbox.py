"""Send replies to the peers of a ROUTER socket, with a bound on what each peer and all of them may leave unread.

ZeroMQ keeps few replies for a peer; the socket says when that many wait, or that the peer is gone. A reply that it
cannot take waits here, and its peer is blocked. What exceeds the bytes of a peer or of all is dropped, and so is what
waits for too long. So a peer that does not read costs a bounded amount of memory, and no time. What else the owner of
the socket does for a peer that is blocked or behind is its own decision.

Owns the replies that wait. Called by the admin service and by order_socket.py.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

import zmq

#: Each reply counts for so much more than its own bytes, for what keeps it.
_OVERHEAD: Final = 200
#: Blocked peers that are tried in one turn, and the time until the next.
_TRIED: Final = 64
_RETRY_SECONDS: Final = 0.001


class Bounds(NamedTuple):
    """What the peers of a socket may leave unread."""

    #: Replies to one peer that ZeroMQ keeps, and the bytes in the system's buffer, 0 for the system's own bound.
    messages: int
    buffer_bytes: int
    #: Bytes of the replies that wait here, of one peer and of all. One reply of a peer may be larger.
    peer_bytes: int
    all_bytes: int
    #: A peer with more waiting bytes is behind.
    behind_bytes: int
    #: Replies that a peer cannot take for so long are dropped.
    seconds: float


class _Waiting:
    """The replies that wait for one peer."""

    def __init__(self) -> None:
        self.replies: deque[bytes] = deque()
        self.cost = 0
        self.since = time.monotonic()
        self.lost = False


class PeerOutbox:
    """The replies to the peers of one socket."""

    def __init__(self, socket: "zmq.Socket[bytes]", bounds: Bounds) -> None:
        """Set the socket's bounds; it must not be bound yet."""
        socket.sndhwm = bounds.messages
        if bounds.buffer_bytes:
            socket.sndbuf = bounds.buffer_bytes
        # Report a full queue and a peer that is gone, instead of dropping the message without a word.
        socket.router_mandatory = True
        self._socket = socket
        self._bounds = bounds
        #: By blocked peer; the peer that was tried least recently is first.
        self._waiting: dict[bytes, _Waiting] = {}
        #: What all of them cost, now and at most so far.
        self.waiting_bytes = 0
        self.most_waiting_bytes = 0
        #: Replies that were dropped because their peer did not read.
        self.dropped = 0
        #: Peers that were found to be gone since the last take_gone().
        self._gone: list[bytes] = []

    @property
    def blocked(self) -> Mapping[bytes, _Waiting]:
        """The peers that cannot take a reply now."""
        return self._waiting

    def is_behind(self, peer: bytes) -> bool:
        """Return whether much waits for a peer, or some was dropped since it was blocked."""
        waiting = self._waiting.get(peer)
        return waiting is not None and (waiting.lost or waiting.cost > self._bounds.behind_bytes)

    @property
    def next_deadline(self) -> float:
        """When retry() has something to do, on time.monotonic()."""
        return time.monotonic() + _RETRY_SECONDS if self._waiting else float("inf")

    def send(self, peer: bytes, reply: bytes) -> None:
        """Send a reply, or let it wait; drop it if the peer is gone or too much waits."""
        if peer in self._waiting or not self._sent(peer, reply):
            self.wait(peer, reply)

    def wait(self, peer: bytes, reply: bytes) -> None:
        """Let a reply wait that the peer could not take; drop it if too much waits."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            waiting = self._waiting[peer] = _Waiting()
        cost = len(reply) + _OVERHEAD
        of_peer = waiting.cost + cost
        if self.waiting_bytes + cost > self._bounds.all_bytes or (waiting.cost and of_peer > self._bounds.peer_bytes):
            self.dropped += 1
            waiting.lost = True
            return
        waiting.replies.append(reply)
        waiting.cost = of_peer
        self.waiting_bytes += cost
        self.most_waiting_bytes = max(self.most_waiting_bytes, self.waiting_bytes)

    def retry(self) -> None:
        """Send to some of the blocked peers; drop what has waited too long."""
        if not self._waiting:
            return
        # ZeroMQ notices that a peer has read, or is gone, when it is asked for its events, and not in each send.
        self._socket.getsockopt(zmq.EVENTS)
        now = time.monotonic()
        for peer in list(self._waiting)[:_TRIED]:
            waiting = self._waiting.pop(peer)
            before = waiting.cost
            while waiting.replies and self._sent(peer, waiting.replies[0]):
                waiting.cost -= len(waiting.replies.popleft()) + _OVERHEAD
            self.waiting_bytes += waiting.cost - before
            if not waiting.replies:
                continue
            if waiting.cost < before:
                waiting.since = now
            if now - waiting.since > self._bounds.seconds:
                self.dropped += len(waiting.replies)
                self.waiting_bytes -= waiting.cost
                continue
            # Behind the others.
            self._waiting[peer] = waiting

    def gone(self, peer: bytes) -> None:
        """Note that a peer is gone."""
        self._gone.append(peer)

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
