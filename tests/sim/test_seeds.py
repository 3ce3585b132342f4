"""A thousand seeds with those of the files beside this one, and that a seed is one run wherever it is run."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from smrx.sim import Verdict, simulate
from smrx.sim.profile import CHANGES, MISHAPS, Profile
from smrx.sim.search import search

#: Every run is as good as every other; these are the first.
SEEDS = 1_000
#: Under pytest-xdist the test processes use all cores: no processes of our own, and smaller pieces.
_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
_SLICE = 125 if _PARALLEL else 250
_JOBS = 1 if _PARALLEL else min(4, os.cpu_count() or 1)

_DIGESTS = """
import logging
logging.disable(logging.CRITICAL)
from smrx.sim import simulate
print(*(simulate(seed).digest for seed in range(40, 52)))
"""


#: Each once found a fault, of the cluster or of the simulation.
REGRESSIONS = (1726, 1898, 1973, 15189, 20874)


def with_changes(drawn: Profile) -> Profile:
    """The same run, in which members come, go and are replaced, as it was when there were no mishaps."""
    faults = (drawn.faults | set(CHANGES)) - set(MISHAPS)
    return replace(drawn, spares=drawn.spares or 2, state_bytes=0, faults=faults)


def as_it_was(drawn: Profile) -> Profile:
    """The run as it was when members did not change and there were no mishaps."""
    return replace(drawn, spares=0, state_bytes=0, faults=drawn.faults - set(CHANGES) - set(MISHAPS))


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    verdict = simulate(seed, focus=as_it_was)
    assert verdict.failure is None, f"{verdict.command}: {verdict.failure}"


#: These found faults of changing members, with every kind of change switched on.
CHANGES_REGRESSIONS = (3, 21, 29, 31, 34, 39, 40, 44, 54, 56, 1055, 1270)


@pytest.mark.parametrize("seed", CHANGES_REGRESSIONS)
def test_members_change_where_they_once_could_not(seed: int) -> None:
    verdict = simulate(seed, focus=with_changes)
    assert verdict.failure is None, verdict.failure


@pytest.mark.parametrize("first", range(0, SEEDS, _SLICE))
def test_everything_holds(first: int) -> None:
    tally = search(first, _SLICE, jobs=_JOBS)
    text = "\n".join(f"smrx sim {seed}\n  {failure}" for seed, failure in tally.failures)
    assert not tally.failures, "\n" + text
    # A search that does nothing finds nothing.
    assert tally.commands > 30 * _SLICE
    assert tally.faults > 5 * _SLICE
    assert tally.answers > 0.8 * tally.commands
    assert tally.changes > _SLICE // 5


def digests(hash_seed: str) -> str:
    """The timelines of some seeds in a process of their own."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_a_seed_is_the_same_run_in_every_process() -> None:
    first = digests("1")
    assert len(set(first.split())) == 12
    assert digests("4242") == first
    assert " ".join(simulate(seed).digest for seed in range(40, 52)) == first


def test_a_seed_does_not_depend_on_what_ran_before() -> None:
    again = [simulate(seed) for seed in (47, 44, 47)]
    assert again[0].digest == again[2].digest
    assert len(again[0].timeline) > 200


def test_workers_find_what_one_process_finds() -> None:
    def essence(jobs: int) -> tuple[int, int, int, float]:
        tally = search(0, 30, jobs=jobs)
        return tally.seeds, tally.commands, tally.faults, tally.simulated_seconds

    assert essence(2) == essence(1)


def first_where(condition: str, seeds: range) -> Verdict:
    """The first run that has something; fails if none has."""
    for seed in seeds:
        verdict = simulate(seed)
        if getattr(verdict, condition):
            return verdict
    raise AssertionError(f"expected a run that {condition} among {len(seeds)} seeds")


def test_a_cluster_that_lost_a_majority_of_its_memory_stands_still_and_says_so() -> None:
    verdict = first_where("stands_still", range(200))
    assert verdict.failure is None
    assert not verdict.profile.durable
    assert any("a majority lost its memory" in line for line in verdict.timeline.lines())
