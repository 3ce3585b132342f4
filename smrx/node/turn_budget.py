"""Measure how long a turn has worked for one purpose, so that it stops in time and goes on in the next turn.

A TurnBudget bounds one turn, a TimeShare all turns together. Pure, except for the clock. Called by the services of a
node whose work others cause.
"""

import time


class TurnBudget:
    """The time that one turn may spend; a turn that did not begin to spend it has all of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = 0.0
        self._since: float | None = None

    def begin_turn(self) -> None:
        """Start a turn: nothing is spent."""
        self._spent = 0.0

    def start(self) -> None:
        """Begin to spend."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """End to spend."""
        if self._since is not None:
            self._spent += time.perf_counter() - self._since
            self._since = None

    def has_time(self, part: float = 1.0) -> bool:
        """Return whether less than a part of the time is spent."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._spent + running < part * self._seconds


class TimeShare:
    """A part of the time that goes by, and a burst of it: the rest is left to the other work of the loop.

    Without it, turns that follow each other would give most of their time, and the processor, to those who ask most.
    """

    def __init__(self, part: float, burst_seconds: float, now: float) -> None:
        self._part = part
        self._burst = burst_seconds
        self._left = burst_seconds
        self._at = now

    def charge(self, seconds: float) -> None:
        """Spend some time."""
        self._left -= seconds

    def is_open(self, now: float) -> bool:
        """Return whether there is time left."""
        self._left = min(self._burst, self._left + self._part * max(0.0, now - self._at))
        self._at = now
        return self._left > 0

    @property
    def is_closed(self) -> bool:
        """Whether there was no time left when it was last asked, or spent."""
        return self._left <= 0

    @property
    def opens_at(self) -> float:
        """When there will be time again, if none is spent until then."""
        return self._at + max(0.0, -self._left) / self._part
