"""A thousand seeds hold, and so do the seeds that once failed; a seed is the same run wherever it runs."""

import os
import subprocess
import sys

import pytest

from smrx.sim import RunResult, simulate
from smrx.sim.search import search
from tests.sim.profiles import with_changes, without_changes, without_reads

#: Any seeds would do; these are the first.
SEEDS = 1_000
#: Under pytest-xdist the test processes use all cores: a search runs in its test's process, and is shorter.
_IS_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
_SEEDS_PER_TEST = 125 if _IS_PARALLEL else 250
_JOBS = 1 if _IS_PARALLEL else min(4, os.cpu_count() or 1)

_DIGESTS = """
import logging
logging.disable(logging.CRITICAL)
from smrx.sim import simulate
print(*(simulate(seed).digest for seed in range(40, 52)))
"""


#: Each once found a fault, of the cluster or of the simulation.
REGRESSIONS = (1726, 1898, 1973, 15189, 20874)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_seed_that_once_failed_holds(seed: int) -> None:
    result = simulate(seed, focus=without_reads(without_changes))
    assert result.failure is None, f"{result.command}: {result.failure}"


#: These found faults of membership changes, with every kind of change enabled.
CHANGES_REGRESSIONS = (3, 21, 29, 31, 34, 39, 40, 44, 54, 56, 1055, 1270)


@pytest.mark.parametrize("seed", CHANGES_REGRESSIONS)
def test_seed_that_once_failed_with_membership_changes_holds(seed: int) -> None:
    result = simulate(seed, focus=without_reads(with_changes))
    assert result.failure is None, result.failure


@pytest.mark.parametrize("first", range(0, SEEDS, _SEEDS_PER_TEST))
def test_seeds_hold(first: int) -> None:
    totals = search(first, _SEEDS_PER_TEST, jobs=_JOBS)
    text = "\n".join(f"smrx sim {seed}\n  {failure}" for seed, failure in totals.failures)
    assert not totals.failures, "\n" + text
    # A search that does nothing would find nothing.
    assert totals.commands > 30 * _SEEDS_PER_TEST
    assert totals.faults > 5 * _SEEDS_PER_TEST
    assert totals.answers > 0.8 * totals.commands
    assert totals.member_changes > _SEEDS_PER_TEST // 5
    assert totals.reads > 5 * _SEEDS_PER_TEST


def digests(hash_seed: str) -> str:
    """Return the digests of some seeds, run in a separate process."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_seed_is_the_same_run_in_every_process() -> None:
    first = digests("1")
    assert len(set(first.split())) == 12
    assert digests("4242") == first
    assert " ".join(simulate(seed).digest for seed in range(40, 52)) == first


def test_seed_does_not_depend_on_earlier_runs() -> None:
    results = [simulate(seed) for seed in (47, 44, 47)]
    assert results[0].digest == results[2].digest
    assert len(results[0].trace) > 200


def test_worker_processes_find_the_same_as_one_process() -> None:
    def counts(jobs: int) -> tuple[int, int, int, float]:
        totals = search(0, 30, jobs=jobs)
        return totals.seeds, totals.commands, totals.faults, totals.simulated_seconds

    assert counts(2) == counts(1)


def first_where(condition: str, seeds: range) -> RunResult:
    """Return the first result that has a property; fail if there is none."""
    for seed in seeds:
        result = simulate(seed)
        if getattr(result, condition):
            return result
    raise AssertionError(f"expected a run that {condition} among {len(seeds)} seeds")


def test_cluster_that_lost_the_memory_of_a_majority_stops_and_reports_it() -> None:
    result = first_where("stands_still", range(200))
    assert result.failure is None
    assert not result.profile.durable
    assert any("a majority lost its memory" in line for line in result.trace.lines())
