"""Hold what the compiled part of the native server knows of each client: one row of numbers for each connection.

Owns the slots: a slot is taken by a connection and is free again once the connection is closed and every command of it
is answered, so that no answer goes to another client. Called by native_server.py and packet_splitter.py.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Columns of the table, all u64. SESSION: the session that the client has opened, by the client's id. KEPT_ALIVE: the
#: id at the exchange of a session with cancel-on-disconnect, else 0. PERSON: the number of the client's credential.
#: UNDER_WAY: commands without an answer; at most ALLOWANCE. TOKENS: commands that the rate allows now. COUNT and
#: POSITION are used within one call.
STATE, SESSION, KEPT_ALIVE, PERSON, ACCOUNT, UNDER_WAY, ALLOWANCE, TOKENS, COUNT, POSITION = range(10)
COLUMNS: Final = 10

#: States of a slot.
FREE, CONNECTED, LOGGED_IN, CLOSED = range(4)

#: Without a rate.
NO_RATE: Final = 1 << 62


class ClientTable:
    """The rows of all clients of a server."""

    def __init__(self, slots: int, allowance: int, rate: int | None) -> None:
        """`allowance`: commands under way of one client. `rate`: commands a second of one client."""
        self.rows: NDArray[np.uint64] = np.zeros((slots, COLUMNS), np.uint64)
        #: When a client connected, and when something was last received from it and sent to it, on a steady clock.
        self.opened: NDArray[Any] = np.zeros(slots, np.float64)
        self.heard: NDArray[Any] = np.zeros(slots, np.float64)
        self.sent: NDArray[Any] = np.zeros(slots, np.float64)
        self._allowance = allowance
        self._rate = rate
        self._refilled = 0.0
        self._free = list(range(slots - 1, -1, -1))

    def take(self, now: float) -> int | None:
        """Return a slot for a new connection, None if all are in use."""
        if not self._free:
            return None
        slot = self._free.pop()
        self.rows[slot] = 0
        self.rows[slot, STATE], self.rows[slot, ALLOWANCE] = CONNECTED, self._allowance
        self.rows[slot, TOKENS] = NO_RATE if self._rate is None else self._rate
        self.opened[slot] = self.heard[slot] = self.sent[slot] = now
        return slot

    def close(self, slot: int) -> None:
        """The connection has ended; its slot is free once its commands are answered."""
        self.rows[slot, STATE] = CLOSED
        self.release(slot)

    def release(self, slot: int) -> None:
        """Free the slot of a closed connection if nothing of it is under way."""
        if self.rows[slot, STATE] == CLOSED and not self.rows[slot, UNDER_WAY]:
            self.rows[slot, STATE] = FREE
            self._free.append(slot)

    def refill(self, now: float) -> None:
        """Let clients send what the rate allows since the last call."""
        if self._rate is None:
            return
        tokens = self.rows[:, TOKENS] + np.uint64(max(0, int(self._rate * (now - self._refilled))))
        np.minimum(tokens, np.uint64(self._rate), out=self.rows[:, TOKENS])
        self._refilled = now

    def slots(self, state: int) -> NDArray[np.intp]:
        """Return the slots in a state."""
        return np.flatnonzero(self.rows[:, STATE] == state)

    def kept_alive(self) -> NDArray[np.uint64]:
        """Return the sessions with cancel-on-disconnect whose clients are connected, by their ids at the exchange."""
        rows = self.rows[self.rows[:, STATE] == LOGGED_IN]
        sessions = rows[:, KEPT_ALIVE]
        found: NDArray[np.uint64] = np.unique(sessions[sessions != 0])
        return found
