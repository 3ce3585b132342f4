"""Track when a leader must submit commands by itself: DISCONNECT for a silent session, TICK for what ends with time.

These are the timer-driven commands of the log. Sans I/O: time is an argument; the reactor asks what is due and submits
it. Only a leader's timers run. A new leader has no record of when its predecessor last received something from a
session, so it starts every timeout again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Set
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, EventKind, SessionFlags
from smrx.wire.records import COMMAND, MAX_CANCELS

#: The least time between two TICKs, unless more orders are due than one expires: TICKs cannot flood the log.
TICK_SECONDS: Final = 0.01

#: The most sessions that due() returns, and the most orders that end with them, unless those of one session are more,
#: of which one DISCONNECT cancels MAX_CANCELS: a millisecond of a turn on every node. The rest is due when these have
#: ended.
_MAX_SESSIONS_DUE: Final = 256
_MAX_ORDERS_DUE: Final = MAX_CANCELS

_OPENED_OR_ENDED: Final = (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED, EventKind.SESSION_EXPIRED)

_NEVER: Final = float("inf")


def has_session_events(events: NDArray[np.void]) -> bool:
    """Return whether some events open or end a session: few entries do, so this is cheaper than to look for them."""
    kinds = events["kind"].tobytes()
    return any(kind in kinds for kind in _OPENED_OR_ENDED)


class SessionTimeouts:
    """The sessions with cancel-on-disconnect, ordered by when each was last active."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._active_at: OrderedDict[int, float] = OrderedDict()
        #: Sessions that due() has returned; they are due again only after they were active in between.
        self._timed_out: set[int] = set()
        #: Where in the log the sessions are ended that were due last; None once that is applied.
        self._submitted_at: int | None = None

    def restart(self, sessions: Iterable[int], now: float) -> None:
        """Track these sessions and no others, all of them active now."""
        self._timed_out.clear()
        self._submitted_at = None
        self._active_at = OrderedDict.fromkeys(sessions, now)

    def resume(self, now: float) -> None:
        """Restart the timeout of every session that has not timed out: this node read nothing for some time."""
        self._active_at = OrderedDict.fromkeys(self._active_at, now)

    def active(self, session: int, now: float) -> None:
        """Restart the timeout of a session, if it is tracked."""
        if session in self._active_at:
            self._active_at[session] = now
            self._active_at.move_to_end(session)
        elif session in self._timed_out:
            self._timed_out.discard(session)
            self._active_at[session] = now

    def all_active(self, sessions: Set[int], now: float) -> None:
        """Restart the timeouts of those of some sessions that are tracked."""
        if self._active_at or self._timed_out:
            for session in sessions:
                self.active(session, now)

    def applied(self, events: NDArray[np.void], now: float) -> None:
        """Add the sessions that these events opened and remove those that closed or expired."""
        for event in events[np.isin(events["kind"], _OPENED_OR_ENDED)]:
            session = int(event["session_id"])
            self._active_at.pop(session, None)
            self._timed_out.discard(session)
            if event["kind"] == EventKind.SESSION_OPENED and event["flags"] & SessionFlags.CANCEL_ON_DISCONNECT:
                self._active_at[session] = now

    def submitted(self, log_index: int) -> None:
        """The sessions that were due last are ended by the log entry at this index."""
        self._submitted_at = log_index

    def entry_applied(self, log_index: int) -> None:
        """The log is applied up to this index."""
        if self._submitted_at is not None and log_index >= self._submitted_at:
            self._submitted_at = None

    def due(self, now: float, orders_of: Callable[[int], int] = lambda _: 0) -> list[int]:
        """Return sessions that have timed out: a few, and none before the last ones have ended.

        Each is returned once, or as often as it takes to cancel all its orders. `orders_of` returns the number of open
        orders that end with a session.
        """
        found: list[int] = []
        orders = 0
        while self._active_at and now >= self.deadline and len(found) < _MAX_SESSIONS_DUE:
            session = next(iter(self._active_at))
            own = orders_of(session)
            orders += own
            if found and orders > _MAX_ORDERS_DUE:
                break
            found.append(session)
            if own > MAX_CANCELS:
                break
            del self._active_at[session]
            self._timed_out.add(session)
        return found

    @property
    def deadline(self) -> float:
        """When the next session times out if none is active before; infinity if none is tracked, or may end yet."""
        if self._submitted_at is not None or not self._active_at:
            return _NEVER
        return next(iter(self._active_at.values())) + self._timeout_s


class ExpiryTimer:
    """Decides when a TICK is due: one in the log at a time, and at most one every TICK_SECONDS."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._submitted_at: int | None = None

    def restart(self) -> None:
        """Drop a TICK in the log that may never be applied."""
        self._submitted_at = None

    def submitted(self, log_index: int, now: float) -> None:
        """A TICK is in the log at this index."""
        self._submitted_at = log_index
        self._not_before = now + TICK_SECONDS

    def applied(self, log_index: int) -> None:
        """The log is applied up to this index."""
        if self._submitted_at is not None and log_index >= self._submitted_at:
            self._submitted_at = None

    def is_due(self, next_expiry_ns: int | None, stamp_ns: int, now: float) -> bool:
        """Return whether to submit a TICK now; `next_expiry_ns` is when the next order expires, None for never.

        `stamp_ns` is the time that the TICK would carry.
        """
        if next_expiry_ns is None or next_expiry_ns > stamp_ns or self._submitted_at is not None:
            return False
        return now >= self._not_before or _is_late(next_expiry_ns, stamp_ns)

    def deadline(self, next_expiry_ns: int | None, stamp_ns: int, now: float) -> float:
        """Return when is_due() may become true."""
        if next_expiry_ns is None or self._submitted_at is not None:
            return _NEVER
        if _is_late(next_expiry_ns, stamp_ns):
            return now
        return max(self._not_before, now + (next_expiry_ns - stamp_ns) / 1e9)


def _is_late(next_expiry_ns: int, stamp_ns: int) -> bool:
    """Whether more orders were due than one TICK expires: then the next TICK need not wait."""
    return stamp_ns - next_expiry_ns > TICK_SECONDS * 1e9


def tick() -> NDArray[np.void]:
    """Return the command that advances the time of the state."""
    command = np.zeros(1, COMMAND)
    command["kind"] = CommandKind.TICK
    return command


def disconnects(sessions: list[int]) -> NDArray[np.void]:
    """Return the commands that cancel the open orders of these sessions."""
    commands = np.zeros(len(sessions), COMMAND)
    commands["kind"] = CommandKind.DISCONNECT
    commands["session_id"] = np.array(sessions, np.uint64)
    return commands
