"""Simulate time: a queue of events, and the clock that each node reads.

Owns the event queue and the clock that replaces the one of the consensus library. A run happens inside one
`simulated_time` block; nothing in it may read another clock or another random generator.
"""

import contextlib
import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pysyncobj.syncobj

#: Every reading advances the clock: loops of the library wait for it to move.
_READ_SECONDS: Final = 1e-9
#: Not 0, so that a deadline computed from "never" (0) differs from one computed from the start.
_START_SECONDS: Final = 100.0


class Clock:
    """True time, and the same time as the clock of the selected node shows it."""

    def __init__(self) -> None:
        self.time = _START_SECONDS
        self._rate = 1.0
        self._offset = 0.0

    def __call__(self) -> float:
        """Return the time on the clock of the selected node."""
        self.time += _READ_SECONDS
        return self.time * self._rate + self._offset

    def set_skew(self, rate: float, offset: float) -> None:
        """Select the node whose clock runs at `rate` and is `offset` seconds ahead."""
        self._rate, self._offset = rate, offset

    def to_true_time(self, local: float) -> float:
        """Return the true time at which the clock of the selected node shows `local`."""
        return (local - self._offset) / self._rate


class Scheduler:
    """Runs events in the order of their times, and those of one time in the order they were scheduled."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def now(self) -> float:
        """True time."""
        return self.clock.time

    @property
    def elapsed_seconds(self) -> float:
        """Simulated seconds since the start."""
        return self.clock.time - _START_SECONDS

    def call_at(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        """Schedule an event at a time; one in the past runs next."""
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action, arguments))

    def call_later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Schedule an event some seconds from now."""
        self.call_at(self.clock.time + seconds, action, *arguments)

    def run_until(self, end: float, condition: Callable[[], object] | None = None) -> bool:
        """Run events up to `end`, or until `condition()` holds after one; return whether it held."""
        queue, clock, pop = self._queue, self.clock, heapq.heappop
        while queue and queue[0][0] <= end:
            time, _, action, arguments = pop(queue)
            if time > clock.time:
                clock.time = time
            action(*arguments)
            if condition is not None and condition():
                return True
        clock.time = max(clock.time, end)
        return False

    def run_for(self, seconds: float, condition: Callable[[], object] | None = None) -> bool:
        """Run events for some seconds, or until `condition()` holds after one; return whether it held."""
        return self.run_until(self.now + seconds, condition)


def generator(label: str, seed: int) -> random.Random:
    """Return the random generator of one part of a run, so that a change in one part leaves the others' draws alone.

    The label is part of the seed: another label makes every seed another run.
    """
    return random.Random(f"{label} {seed}")  # noqa: S311 (not for secrets)


@contextlib.contextmanager
def simulated_time(seed: int) -> Iterator[Scheduler]:
    """Replace the clock and the random generator of the consensus library inside the block."""
    module = pysyncobj.syncobj
    saved = module.monotonicTime, module.random
    scheduler = Scheduler()
    module.monotonicTime, module.random = scheduler.clock, generator("library", seed)
    try:
        yield scheduler
    finally:
        module.monotonicTime, module.random = saved
