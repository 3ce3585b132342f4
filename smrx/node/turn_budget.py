"""Measure how long a turn has worked for one purpose, so that it stops in time and goes on in the next turn.

Pure, except for the clock. Called by the services of a node whose work others cause.
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
