"""What a leader submits by itself: TICK when an order's time has come, DISCONNECT when a session has been silent.

Sans I/O: time is an argument; the reactor asks what is due and submits it. Only a leader's timers run. A new leader
cannot know when the one before it last heard of a session, and counts anew.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, EventKind, SessionFlags
from smrx.wire.records import COMMAND

#: An expiry counts in whole seconds; a hundredth of one is soon enough, and cannot flood the log.
TICK_SECONDS: Final = 0.01

#: Far below what one log entry takes; the rest is due in the next turn.
_SESSIONS_AT_ONCE: Final = 1024

_OPENED_OR_CLOSED: Final = (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED)

_NEVER: Final = float("inf")


class SessionTimeouts:
    """Sessions that asked for cancel-on-disconnect, in the order in which they were last heard of."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._heard: OrderedDict[int, float] = OrderedDict()
        #: Told to be disconnected; again only after they were heard of in between.
        self._silent: set[int] = set()

    def restart(self, sessions: Iterable[int], now: float) -> None:
        """Count anew, for these sessions."""
        self._silent.clear()
        self._heard = OrderedDict.fromkeys(sessions, now)

    def resume(self, now: float) -> None:
        """Count anew for those that are not silent: this node was not listening."""
        self._heard = OrderedDict.fromkeys(self._heard, now)

    def heard(self, session: int, now: float) -> None:
        """A session is there; of no account if it did not ask for this."""
        if session in self._heard:
            self._heard[session] = now
            self._heard.move_to_end(session)
        elif session in self._silent:
            self._silent.discard(session)
            self._heard[session] = now

    def applied(self, events: NDArray[np.void], now: float) -> None:
        """Sessions that these events opened or closed begin and end to count."""
        kinds = events["kind"]
        # Hardly any entry opens or closes a session: to find that out should cost next to nothing.
        found = kinds.tobytes()
        if EventKind.SESSION_OPENED not in found and EventKind.SESSION_CLOSED not in found:
            return
        for event in events[np.isin(kinds, _OPENED_OR_CLOSED)]:
            session = int(event["session_id"])
            self._heard.pop(session, None)
            self._silent.discard(session)
            if event["kind"] == EventKind.SESSION_OPENED and event["flags"] & SessionFlags.CANCEL_ON_DISCONNECT:
                self._heard[session] = now

    def due(self, now: float) -> list[int]:
        """Return the sessions that have been silent for too long, each once, no more than fit a log entry."""
        found: list[int] = []
        while self._heard and now >= self.deadline and len(found) < _SESSIONS_AT_ONCE:
            session, _ = self._heard.popitem(last=False)
            self._silent.add(session)
            found.append(session)
        return found

    @property
    def deadline(self) -> float:
        """When due() may find something, if nobody is heard of before."""
        return next(iter(self._heard.values())) + self._patience_s if self._heard else _NEVER


class ExpiryTimer:
    """Whether it is time for a TICK: one at a time, and not more often than every TICK_SECONDS."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._submitted_at: int | None = None

    def restart(self) -> None:
        """Forget a TICK that may never be applied."""
        self._submitted_at = None

    def submitted(self, log_index: int, now: float) -> None:
        """A TICK stands in the log."""
        self._submitted_at = log_index
        self._not_before = now + TICK_SECONDS

    def applied(self, log_index: int) -> None:
        """The log is applied up to here."""
        if self._submitted_at is not None and log_index >= self._submitted_at:
            self._submitted_at = None

    def is_due(self, next_expiry_ns: int | None, wall_ns: int, now: float) -> bool:
        """Whether to submit a TICK now, given when the next order expires."""
        waiting = self._submitted_at is not None or now < self._not_before
        return next_expiry_ns is not None and next_expiry_ns <= wall_ns and not waiting

    def deadline(self, next_expiry_ns: int | None, wall_ns: int, now: float) -> float:
        """When is_due() may become true."""
        if next_expiry_ns is None or self._submitted_at is not None:
            return _NEVER
        return max(self._not_before, now + (next_expiry_ns - wall_ns) / 1e9)


def tick() -> NDArray[np.void]:
    """The command that lets time pass."""
    command = np.zeros(1, COMMAND)
    command["kind"] = CommandKind.TICK
    return command


def disconnects(sessions: list[int]) -> NDArray[np.void]:
    """The commands that end what these sessions left open."""
    commands = np.zeros(len(sessions), COMMAND)
    commands["kind"] = CommandKind.DISCONNECT
    commands["session_id"] = np.array(sessions, np.uint64)
    return commands
