"""Many seeds: what was run, what failed, how long it took.

Owns the division of seeds among worker processes. A seed's verdict does not depend on who runs it, nor on what that
process ran before.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from smrx.sim.run import simulate

#: Seeds a worker takes at once: enough that handing them over costs nothing, few enough to show progress.
_SLICE: Final = 20


@dataclass
class Tally:
    """What a search has found so far."""

    seeds: int = 0
    #: (seed, what does not hold)
    failures: list[tuple[int, str]] = field(default_factory=list)
    #: Commands applied, answers that clients got, faults done, seconds simulated.
    commands: int = 0
    answers: int = 0
    faults: int = 0
    #: Changes of members that were committed.
    changes: int = 0
    simulated_seconds: float = 0.0
    #: Seeds in which a majority lost its memory, so that the cluster stood still and said so.
    stood_still: int = 0
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        """Take in what another part of the search found."""
        self.seeds += other.seeds
        self.failures += other.failures
        self.commands += other.commands
        self.answers += other.answers
        self.faults += other.faults
        self.changes += other.changes
        self.simulated_seconds += other.simulated_seconds
        self.stood_still += other.stood_still


def search(start: int, seeds: int, *, jobs: int = 1, progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Run the seeds from `start` on, in `jobs` processes; `progress` hears of every slice."""
    started = time.monotonic()
    total = Tally()
    slices = [range(at, min(at + _SLICE, start + seeds)) for at in range(start, start + seeds, _SLICE)]
    for part in _parts(slices, jobs):
        total.add(part)
        total.seconds = time.monotonic() - started
        progress(total)
    total.failures.sort()
    return total


def _parts(slices: Sequence[range], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(run_seeds, slices)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run_seeds, slices)


def run_seeds(seeds: range) -> Tally:
    """Run some seeds in this process."""
    tally = Tally()
    # The nodes' own log is of no use here: what happened is in the timeline.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for seed in seeds:
            verdict = simulate(seed)
            tally.seeds += 1
            tally.commands += verdict.commands
            tally.answers += verdict.answers
            tally.faults += verdict.faults
            tally.changes += verdict.changes
            tally.simulated_seconds += verdict.seconds
            tally.stood_still += verdict.stands_still
            if verdict.failure is not None:
                tally.failures.append((seed, verdict.failure))
    finally:
        logging.disable(before)
    return tally
