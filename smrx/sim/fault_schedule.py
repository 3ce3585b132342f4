"""Inject faults at random times, one after the other, for as long as the fault phase of a run lasts."""

import random
from collections.abc import Callable, Sequence

from smrx.sim.simulated_cluster import SimulatedCluster


class FaultSchedule:
    """Draws when the next fault happens, and which one."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random, mean_seconds: float) -> None:
        """`mean_seconds` is the mean time between two faults."""
        #: Faults injected so far.
        self.injected = 0
        #: Whether more faults follow.
        self.is_active = False
        self._cluster = cluster
        self._rng = rng
        self._mean_seconds = mean_seconds
        self._choices: list[tuple[str, Callable[[], None]]] = []

    def enable(self, names: Sequence[str], actions: dict[str, Callable[[], None]]) -> None:
        """Inject the faults of these names that have an action; a name without one is a condition of the whole run."""
        self._choices = [(name, actions[name]) for name in names if name in actions]

    def begin(self) -> None:
        """Start to inject faults."""
        self.is_active = True
        self._schedule_next()

    def _schedule_next(self) -> None:
        if self._choices:
            self._cluster.scheduler.call_later(self._rng.expovariate(1 / self._mean_seconds), self._inject_next)

    def _inject_next(self) -> None:
        if self.is_active:
            self._inject()
            self._schedule_next()

    def _inject(self) -> None:
        name, action = self._rng.choice(self._choices)
        self.injected += 1
        self._cluster.trace.note("fault: {}", name)
        action()
