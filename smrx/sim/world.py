"""Simulated time: what happens next, and what each node's clock says meanwhile.

Owns the queue of events and the clock that the consensus library is given. One seed's run lives in one `simulated`
block; nothing in it may read another clock or another source of chance.
"""

import contextlib
import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pysyncobj.syncobj

#: The library's loops expect a clock that moves while they look at it.
_LOOK_SECONDS: Final = 1e-9
#: Not 0: a deadline computed from "never" must not look like one.
_BEGINNING: Final = 100.0


class Clock:
    """True time, seen through the clock of whichever node is at work."""

    def __init__(self) -> None:
        self.time = _BEGINNING
        self._rate = 1.0
        self._offset = 0.0

    def __call__(self) -> float:
        """The time on the clock of the node at work."""
        self.time += _LOOK_SECONDS
        return self.time * self._rate + self._offset

    def view(self, rate: float, offset: float) -> None:
        """From now on a node with this clock is at work."""
        self._rate, self._offset = rate, offset

    def true(self, local: float) -> float:
        """When the clock of the node at work will show `local`."""
        return (local - self._offset) / self._rate


class World:
    """The events that will happen, in order of time; those of one instant in the order they were asked for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def now(self) -> float:
        """True time."""
        return self.clock.time

    @property
    def seconds(self) -> float:
        """Simulated seconds since the beginning."""
        return self.clock.time - _BEGINNING

    def at(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen at a time, at once if that is past."""
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen a while from now."""
        self.at(self.clock.time + seconds, action, *arguments)

    def run_until(self, end: float, stop: Callable[[], object] | None = None) -> bool:
        """Let events happen up to `end`, or until `stop()`; return whether `stop()` came true."""
        queue, clock = self._queue, self.clock
        while queue and queue[0][0] <= end:
            time, _, action, arguments = heapq.heappop(queue)
            clock.time = max(clock.time, time)
            action(*arguments)
            if stop is not None and stop():
                return True
        clock.time = max(clock.time, end)
        return False


def chance(what: str, seed: int) -> random.Random:
    """A generator of its own for each part of a run, so that a change in one leaves the draws of the others alone."""
    return random.Random(f"{what} {seed}")  # noqa: S311 (not for secrets)


@contextlib.contextmanager
def simulated(seed: int) -> Iterator[World]:
    """Give the consensus library a clock and a generator of our own for a while."""
    module = pysyncobj.syncobj
    saved = module.monotonicTime, module.random
    world = World()
    module.monotonicTime, module.random = world.clock, chance("library", seed)
    try:
        yield world
    finally:
        module.monotonicTime, module.random = saved
