"""`smrx sim`: its output and its exit codes."""

import itertools
import json
from collections.abc import Iterator

import pytest

import smrx.sim
import smrx.sim.search
from smrx.cli import run
from smrx.cli.exit_codes import Exit
from smrx.sim import REAL, RunResult, simulate
from tests.sim import broken


def simulate_broken(seed: int) -> RunResult:
    return simulate(seed, REAL.replace(order_entry=broken.AnswersBeforeCommit))


def failing_seeds() -> Iterator[int]:
    """Yield the seeds at which the fault shows, from 0 on."""
    return (seed for seed in range(40) if simulate_broken(seed).failure is not None)


def test_one_seed_prints_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "7"]) == Exit.OK
    printed = capsys.readouterr().out
    assert printed.startswith("seed 7: ")
    assert "ok: " in printed


def test_one_seed_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "7", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert found["failure"] is None
    assert found["timeline"] == simulate(7).digest


def test_search_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--start", "100", "--seeds", "25", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["seeds"], found["failures"]) == (25, [])
    assert found["commands"] > 25
    assert found["faults"] > 25
    assert found["seconds"] > 0


def test_failure_output_begins_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smrx.sim, "simulate", simulate_broken)
    seed = next(failing_seeds())
    assert run(["sim", str(seed)]) == Exit.DIVERGED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"smrx sim {seed}"
    assert any("node 1 starts, process 1" in line for line in lines)
    assert any("VIOLATION" in line for line in lines)
    assert lines[-1].startswith("FAILED: ")


def test_search_lists_failing_seeds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smrx.sim.search, "simulate", simulate_broken)
    seeds = [*itertools.islice(failing_seeds(), 3)]
    assert run(["sim", "--seeds", str(seeds[-1] + 1), "--json"]) == Exit.DIVERGED
    found = json.loads(capsys.readouterr().out)
    assert [failure["command"] for failure in found["failures"]] == [f"smrx sim {seed}" for seed in seeds]
    assert run(["sim", "--seeds", str(seeds[0] + 1)]) == Exit.DIVERGED
    assert capsys.readouterr().out.startswith(f"smrx sim {seeds[0]}\n")


@pytest.mark.parametrize("arguments", [[], ["3", "--seeds", "4"], ["--start", "3"], ["--seeds", "0"]])
def test_invalid_arguments_are_refused(arguments: list[str]) -> None:
    assert run(["sim", *arguments]) == Exit.USAGE
