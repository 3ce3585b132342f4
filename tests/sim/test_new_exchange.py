"""A new exchange has the newest rules before the first command of a client."""

from typing import Any

import pytest

from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.sim import REAL, simulate
from smrx.sim.simulated_node import SimulatedNode

SEEDS = range(12)
SWITCH = f"logs the switch to version {NEWEST_RULES} of the rules"


def first_entries(seed: int, **components: Any) -> list[str]:
    """Return, in their order, the first switch and the first entry with commands of clients."""
    result = simulate(seed, REAL.replace(**components))
    assert result.failure is None
    lines = result.trace.lines(None)
    found = [next((line for line in lines if text in line), "") for text in (SWITCH, "submits entry")]
    return sorted((line for line in found if line), key=lines.index)


@pytest.mark.parametrize("seed", SEEDS)
def test_first_leader_switches_before_it_submits_commands(seed: int) -> None:
    found = first_entries(seed)
    # A run may end before there is a leader.
    assert not found or SWITCH in found[0]


class Hasty(SimulatedNode):
    """A leader that submits commands at once."""

    def _has_begun(self) -> bool:
        return True


def test_leader_that_does_not_switch_is_noticed() -> None:
    assert any(found and SWITCH not in found[0] for found in (first_entries(seed, node=Hasty) for seed in SEEDS))
