"""Run many seeds and add up what ran, what failed and how long it took.

Owns the division of seeds among worker processes. The result of a seed depends neither on the process that runs it nor
on what the process ran before.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from smrx.sim.run import RunResult, simulate, simulate_upgrades
from smrx.sim.versions import load_next_version

#: Seeds of one task of a worker: enough that its overhead does not matter, few enough to show progress.
_SEEDS_PER_TASK: Final = 20


@dataclass
class SearchTotals:
    """The sums of a search so far."""

    seeds: int = 0
    #: (seed, failure)
    failures: list[tuple[int, str]] = field(default_factory=list)
    #: Commands applied, answers received by clients, faults injected.
    commands: int = 0
    answers: int = 0
    faults: int = 0
    #: Committed membership changes.
    member_changes: int = 0
    simulated_seconds: float = 0.0
    #: Seeds in which a majority lost its memory, so that the cluster stopped and reported it.
    stood_still: int = 0
    #: Reads answered.
    reads: int = 0
    #: How long the search took.
    seconds: float = 0.0

    @classmethod
    def of(cls, result: RunResult) -> "SearchTotals":
        """Return the totals of one run."""
        return cls(
            seeds=1,
            failures=[] if result.failure is None else [(result.seed, result.failure)],
            commands=result.commands,
            answers=result.answers,
            faults=result.faults,
            member_changes=result.member_changes,
            simulated_seconds=result.simulated_seconds,
            stood_still=int(result.stands_still),
            reads=result.reads,
        )

    def add(self, other: "SearchTotals") -> None:
        """Add the sums of another part of the search."""
        self.seeds += other.seeds
        self.failures += other.failures
        self.commands += other.commands
        self.answers += other.answers
        self.faults += other.faults
        self.member_changes += other.member_changes
        self.simulated_seconds += other.simulated_seconds
        self.stood_still += other.stood_still
        self.reads += other.reads


def search(
    start: int,
    seeds: int,
    *,
    jobs: int = 1,
    next_version: str | None = None,
    progress: Callable[[SearchTotals], None] = lambda totals: None,
) -> SearchTotals:
    """Run the seeds from `start` on, in `jobs` processes; call `progress` after every task.

    `next_version`: the directory of the package of another version; then nodes are upgraded to it in every seed. Raises
    VersionError if it is none.
    """
    if next_version is not None:
        load_next_version(next_version)
    started = time.monotonic()
    total = SearchTotals()
    tasks = [range(at, min(at + _SEEDS_PER_TASK, start + seeds)) for at in range(start, start + seeds, _SEEDS_PER_TASK)]
    for part in _results(tasks, jobs, partial(run_seeds, next_version=next_version)):
        total.add(part)
        total.seconds = time.monotonic() - started
        progress(total)
    total.failures.sort()
    return total


def _results(tasks: Sequence[range], jobs: int, run: Callable[[range], SearchTotals]) -> Iterator[SearchTotals]:
    if jobs == 1:
        yield from map(run, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, tasks)


def run_seeds(seeds: range, next_version: str | None = None) -> SearchTotals:
    """Run some seeds in this process."""
    totals = SearchTotals()
    run: Callable[[int], RunResult] = simulate
    if next_version is not None:
        run = partial(simulate_upgrades, next_version=load_next_version(next_version))
    # The trace replaces the nodes' own logging.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for seed in seeds:
            totals.add(SearchTotals.of(run(seed)))
    finally:
        logging.disable(before)
    return totals
