"""Accept connections at one address, within bounds, and end those that do not prove who they are in time.

Owns the listening socket and the connections that are not admitted yet. What exceeds a bound is cut off with a reason
that is counted. Knows nothing of keys: the owner of the connections says which it admits. tick() must run often.
"""

import contextlib
import socket
import ssl
import time
from collections import Counter
from typing import Final, NamedTuple

from smrx.links import tcp_options
from smrx.links.connection import Connection, Owner
from smrx.links.framing import KEPT_BYTES, NATIVE, Framing
from smrx.links.poller import Poller

TOO_MANY_CONNECTIONS: Final = "too many connections"
TOO_MANY_UNKNOWN: Final = "too many connections without a greeting"
TOO_SLOW: Final = "no greeting in time"
#: Connections accepted in one turn: each costs some 20 us.
_ACCEPTS: Final = 16
#: After an error of accept(), as a lack of descriptors, or too many connections, the listener rests for this time.
_REST_SECONDS: Final = 0.05


class Bounds(NamedTuple):
    """What the connections of one address may take."""

    #: All of them, and those that are not admitted.
    connections: int
    unadmitted: int
    #: The time until a connection has to be admitted.
    greeting_seconds: float
    #: The largest frame of a connection before it is admitted, and after.
    greeting_bytes: int
    frame_bytes: int
    #: What waits to be sent to one connection.
    queue_bytes: int
    #: How long a connection may leave what was sent to it unread.
    unread_ms: int
    #: Connections accepted in a second, and as many at once; the others wait in the kernel. With keys a connection
    #: costs the loop up to a millisecond before it is admitted.
    accepts_per_second: int = 1_000


class Listener:
    """One listening socket and the connections that it accepted."""

    def __init__(
        self,
        address: str,
        poller: Poller,
        owner: Owner,
        bounds: Bounds,
        *,
        framing: Framing = NATIVE,
        tls: ssl.SSLContext | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Listen; raises OSError, ValueError. The connections call `owner`, which calls admit() and closed().

        `framing`, `tls`, `kept_bytes`: see Connection.
        """
        #: The open connections.
        self.connections: set[Connection] = set()
        #: Connections that were cut off by this side or failed before they were admitted, by the reason.
        self.refused: Counter[str] = Counter()
        self._bounds = bounds
        self._owner = owner
        self._poller = poller
        self._framing = framing
        self._tls = tls
        self._kept_bytes = kept_bytes
        #: When each of them has to be admitted, the oldest first.
        self._unadmitted: dict[Connection, float] = {}
        self._rests_until = 0.0
        self._allowance = float(bounds.accepts_per_second)
        self._allowance_at = time.monotonic()
        self._socket = tcp_options.listening(address)
        poller.add(self._socket.fileno(), self._accept)

    @property
    def port(self) -> int:
        """The port that it listens on; only of TCP."""
        return int(self._socket.getsockname()[1])

    def admit(self, connection: Connection) -> None:
        """The owner knows who this is: the bounds of unknown peers no longer apply."""
        self._unadmitted.pop(connection, None)
        connection.max_frame_bytes = self._bounds.frame_bytes

    def closed(self, connection: Connection) -> None:
        """The owner was told that a connection ended."""
        self.connections.discard(connection)
        if self._unadmitted.pop(connection, None) is not None:
            self.refused[connection.reason or ""] += 1

    def refuse(self, connection: Connection, reason: str) -> None:
        """Cut a connection off and count the reason."""
        if connection not in self._unadmitted:
            self.refused[reason] += 1
        connection.close(reason)

    def tick(self, now: float) -> None:
        """End the connections that were not admitted in time. `now`: of time.monotonic()."""
        for connection, until in tuple(self._unadmitted.items()):
            if now < until:
                break
            connection.close(TOO_SLOW)
        if self._rests_until and now >= self._rests_until:
            self._rests_until = 0.0
            self._poller.add(self._socket.fileno(), self._accept)

    @property
    def next_deadline(self) -> float:
        """When tick() has something to do."""
        first = next(iter(self._unadmitted.values()), float("inf"))
        return min(first, self._rests_until or float("inf"))

    def close(self) -> None:
        """Close the listening socket and every connection."""
        for connection in tuple(self.connections):
            connection.close("this side stops")
        if not self._rests_until:
            self._poller.remove(self._socket.fileno())
        self._socket.close()

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTS):
            if not self._may_accept():
                self._rest()
                return
            try:
                stream, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self.refused[error.strerror or str(error)] += 1
                self._rest()
                return
            if self._makes_room():
                self._take(stream)
            else:
                self.refused[TOO_MANY_CONNECTIONS] += 1
                stream.close()

    def _makes_room(self) -> bool:
        """Return whether there is room for one more, if need be by ending the oldest that is not admitted.

        A peer that can greet has done so by then.
        """
        if len(self._unadmitted) < self._bounds.unadmitted and len(self.connections) < self._bounds.connections:
            return True
        oldest = next(iter(self._unadmitted), None)
        if oldest is None:
            return False
        oldest.close(TOO_MANY_UNKNOWN)
        return True

    def _take(self, stream: socket.socket) -> None:
        bounds = self._bounds
        stream.setblocking(False)
        with contextlib.suppress(OSError):
            tcp_options.set_options(stream, unacknowledged_ms=bounds.unread_ms)
        connection = Connection(
            stream,
            self._poller,
            self._owner,
            max_frame_bytes=bounds.greeting_bytes,
            max_queue_bytes=bounds.queue_bytes,
            kept_bytes=self._kept_bytes,
            framing=self._framing,
            tls=self._tls,
        )
        self.connections.add(connection)
        self._unadmitted[connection] = time.monotonic() + bounds.greeting_seconds
        if self._tls is None:
            connection.start()

    def _may_accept(self) -> bool:
        """Take one from the allowance of connections."""
        now, most = time.monotonic(), self._bounds.accepts_per_second
        self._allowance = min(most, self._allowance + (now - self._allowance_at) * most)
        self._allowance_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _rest(self) -> None:
        self._poller.remove(self._socket.fileno())
        self._rests_until = time.monotonic() + _REST_SECONDS
