"""Many seeds with all faults at once, and known bugs that the search must find."""

import pytest

from smrx.consensus import ConsensusError, Replica
from tests.consensus import chaos, stock
from tests.consensus.harness import Violation

#: Seeds that once found a fault stay.
REGRESSIONS: tuple[int, ...] = ()


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_no_acknowledged_command_is_lost_or_repeated(first: int) -> None:
    acknowledged = 0
    for seed in (*range(first, first + 20), *(REGRESSIONS if not first else ())):
        print(f"python -m tests.consensus.chaos {seed} 1")
        acknowledged += len(chaos.run(seed, nodes=nodes_of(seed)).acknowledged)
    assert acknowledged > 1000


@pytest.mark.parametrize(
    "fault",
    [stock.VotesWithoutItsLog, stock.CutsMatchingEntries],
    ids=lambda c: c.__name__,
)
def test_search_finds_library_faults(fault: type[Replica]) -> None:
    for seed in range(200):
        try:
            chaos.run(seed, fault, nodes=nodes_of(seed))
        except (Violation, ConsensusError):
            return
    raise AssertionError("expected a violation within 200 seeds")


def test_same_seed_gives_same_run() -> None:
    first, second = chaos.run(5), chaos.run(5)
    assert first.log == second.log
    assert first.clock.time == second.clock.time


def nodes_of(seed: int) -> int:
    """Every fourth seed has five nodes."""
    return 3 if seed % 4 else 5
