"""Upgrades to a version with other records and rules: seeds hold in both durability modes, planted faults are found."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.node.replicated_state import ReplicatedState
from smrx.sim import REAL, simulate
from smrx.sim.profile import Profile
from smrx.sim.run import simulate_upgrades
from smrx.sim.search import search
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.versions import VersionError, load_next_version
from tests.versions.next_version import NextVersion, build, substitute

SEEDS = 60


@pytest.fixture(scope="module")
def built() -> NextVersion:
    return build()


@pytest.fixture(scope="module")
def next_state(built: NextVersion) -> type[ReplicatedState]:
    return load_next_version(str(built.package))


def test_seeds_with_the_different_engine_hold(built: NextVersion) -> None:
    totals = search(0, SEEDS, next_version=str(built.package))
    text = "\n".join(
        f"smrx sim {seed} --next-version {built.package}\n  {failure}" for seed, failure in totals.failures
    )
    assert not totals.failures, "\n" + text
    assert totals.commands > 50 * SEEDS


def test_switches_downgrades_and_stops_happen_in_both_modes(next_state: type[ReplicatedState]) -> None:
    """Otherwise the seeds would show nothing."""
    switched: dict[bool, int] = {True: 0, False: 0}
    stopped = went_back = rejected = 0
    for seed in range(100, 100 + SEEDS):
        result = simulate_upgrades(seed, next_state)
        lines = result.trace.lines(None)
        switched[result.profile.durable] += any("logs the switch to version 3" in line for line in lines)
        stopped += any("of the rules is in force" in line for line in lines)
        went_back += any("goes back to the current version" in line for line in lines)
        rejected += result.failure is not None
    assert min(switched.values()) >= 3
    assert min(stopped, went_back) >= 3
    assert rejected == 0


def upgrades(drawn: Profile) -> Profile:
    """Return the same run with upgrades as its only faults."""
    return replace(
        drawn, nodes=3, spares=0, durable=True, early=False, faults=frozenset({"upgrade"}), fault_phase_seconds=5.0
    )


def found(seeds: int, focus: Any = upgrades, **components: Any) -> str:
    """Return the first failure among some seeds, an empty text if there is none."""
    for seed in range(seeds):
        failure = simulate(seed, REAL.replace(**components), focus).failure
        if failure is not None:
            return failure
    return ""


def test_without_a_planted_fault_the_same_seeds_hold(next_state: type[ReplicatedState]) -> None:
    assert found(10, next_state=next_state) == ""


def test_engine_that_applies_the_new_rules_before_the_switch_is_found(next_state: type[ReplicatedState]) -> None:
    class Eager(next_state):  # type: ignore[misc, valid-type]
        """The engine's own planted fault, see tests/versions/next_version.py."""

        def __init__(self, *rings: int) -> None:
            super().__init__(*rings)
            self.engine._state.core["unused"] = 1

        def restore(self, data: bytes | memoryview) -> None:
            super().restore(data)
            self.engine._state.core["unused"] = 1

    assert found(10, next_state=Eager, reference=next_state).startswith("one state: ")


class SwitchesWithoutAsking(SimulatedNode):
    """A leader that switches to the next version whatever the members said."""

    def upgrade_rules(self) -> tuple[int, int]:
        self.replica.rules.next_version = lambda: 3  # type: ignore[method-assign]
        return super().upgrade_rules()


def test_switch_with_a_member_that_lacks_the_version_is_found(next_state: type[ReplicatedState]) -> None:
    failure = found(30, next_state=next_state, node=SwitchesWithoutAsking)
    assert failure.startswith("rules: a leader switched to rules that member ")


class IgnoresUnknownRules(ReplicatedState):
    """A state of the current version that goes on after a switch to rules it lacks."""

    class engine_class(ReplicatedState.engine_class):  # type: ignore[misc, name-defined]
        newest_rules = NEWEST_RULES + 1


def test_node_that_goes_on_under_rules_it_lacks_is_found(next_state: type[ReplicatedState]) -> None:
    """It says that it has them, and applies the old ones."""
    failure = found(30, next_state=next_state, state=IgnoresUnknownRules, reference=next_state)
    # Its state differs, or it cannot restore one that differs, or read what a node with these rules logs.
    found_by = ("one state: ", "The snapshot's schema cannot be used", "expected entry version 2, found 3")
    assert any(text in failure for text in found_by), failure


def test_command_runs_seeds_and_repeats_a_seed(built: NextVersion) -> None:
    command = [sys.executable, "-m", "smrx", "sim", "--next-version", str(built.package)]
    done = subprocess.run([*command, "--seeds", "2"], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.startswith("2 seeds, 0 failures")
    one = subprocess.run([*command, "7", "--json"], capture_output=True, text=True, check=True, timeout=300)
    assert '"failure":null' in one.stdout.replace(" ", "")


@pytest.mark.parametrize("path", ["missing", "smrx"])
def test_what_is_no_other_version_is_refused(path: str, tmp_path: Path) -> None:
    if path == "smrx":
        path = str(Path(__file__).parents[2] / "smrx")
    with pytest.raises(VersionError, match="expected"):
        load_next_version(path)


def test_substitution_that_no_longer_fits_raises() -> None:
    with pytest.raises(ValueError, match=r"smrx/engine/state\.py: expected .* once, found it 0 times"):
        substitute("engine/state.py", "nothing of it")
