"""Keep a connection to one address: dial, dial again when it ends, and give up on a slow greeting.

Owns the connection and the time between two attempts. A host name is looked up in a thread, as that may block for
seconds, and again after a failed attempt: a machine may have moved. tick() must run often.
"""

import socket
import threading
from collections.abc import Callable
from typing import Final

from smrx.links import tcp_options
from smrx.links.connection import Connection
from smrx.links.listener import TOO_SLOW

#: The time between two attempts doubles from the first to the last.
_FIRST_DELAY: Final = 0.05
_LAST_DELAY: Final = 0.5


class Dialer:
    """One address and the connection to it."""

    def __init__(
        self,
        address: str,
        connect: Callable[[socket.socket], Connection],
        *,
        greeting_seconds: float,
        unacknowledged_ms: int,
    ) -> None:
        """`connect` makes the connection of a socket that is connecting. Raises ValueError for an invalid address."""
        #: The connection, None between two attempts. Its `greeted` says whether it is usable.
        self.connection: Connection | None = None
        #: Why the last attempt failed.
        self.fault: str | None = None
        self._target = tcp_options.Target(address)
        self._connect = connect
        self._greeting_seconds = greeting_seconds
        self._unacknowledged_ms = unacknowledged_ms
        self._delay = _FIRST_DELAY
        self._lookup: threading.Thread | None = None
        #: When the next attempt begins, or the present one has to be complete.
        self.next_deadline = 0.0

    @property
    def usable(self) -> Connection | None:
        """The connection, if it has greeted and is open."""
        connection = self.connection
        return connection if connection is not None and connection.greeted and connection.reason is None else None

    def tick(self, now: float) -> None:
        """Go on; `now` is of time.monotonic()."""
        connection = self.connection
        if connection is not None and connection.reason is None:
            if connection.greeted:
                self._delay, self.next_deadline = _FIRST_DELAY, float("inf")
            elif now >= self.next_deadline:
                connection.close(TOO_SLOW)
            else:
                return
        if connection is not None and connection.reason is not None:
            self._failed(now, connection.reason)
        elif connection is None and now >= self.next_deadline:
            self._dial(now)

    def close(self) -> None:
        """Close the connection and dial no more."""
        self.next_deadline = float("inf")
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close("this side stops")

    def _failed(self, now: float, fault: str) -> None:
        self.connection, self.fault = None, fault
        self.next_deadline = now + self._delay
        self._delay = min(2 * self._delay, _LAST_DELAY)
        self._target.forget()

    def _dial(self, now: float) -> None:
        if not self._target.is_known:
            if self._lookup is None:
                self._lookup = threading.Thread(target=self._target.look_up, daemon=True, name="host name")
                self._lookup.start()
            if self._lookup.is_alive():
                self.next_deadline = now + _FIRST_DELAY
                return
            self._lookup = None
            if not self._target.is_known:
                self._failed(now, "the host name is not known")
                return
        try:
            stream = self._target.connecting(unacknowledged_ms=self._unacknowledged_ms)
        except OSError as error:
            self._failed(now, error.strerror or str(error))
            return
        self.next_deadline = now + self._greeting_seconds
        self.connection = self._connect(stream)
