"""`smrx sim`: its output and its exit codes."""

import json

import pytest

import smrx.sim
import smrx.sim.search
from smrx.cli import run
from smrx.cli.exit_codes import Exit
from smrx.sim import REAL, RunResult, simulate
from tests.sim import broken


def simulate_broken(seed: int) -> RunResult:
    return simulate(seed, REAL.replace(order_entry=broken.AnswersBeforeCommit))


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
    assert run(["sim", "3"]) == Exit.DIVERGED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "smrx sim 3"
    assert any("node 1 starts, process 1" in line for line in lines)
    assert any("VIOLATION" in line for line in lines)
    assert lines[-1].startswith("FAILED: ")


def test_search_lists_failing_seeds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smrx.sim.search, "simulate", simulate_broken)
    assert run(["sim", "--seeds", "3", "--json"]) == Exit.DIVERGED
    found = json.loads(capsys.readouterr().out)
    assert [failure["command"] for failure in found["failures"]] == ["smrx sim 0", "smrx sim 1", "smrx sim 2"]
    assert run(["sim", "--seeds", "2"]) == Exit.DIVERGED
    assert capsys.readouterr().out.startswith("smrx sim 0\n")


@pytest.mark.parametrize("arguments", [[], ["3", "--seeds", "4"], ["--start", "3"], ["--seeds", "0"]])
def test_invalid_arguments_are_refused(arguments: list[str]) -> None:
    assert run(["sim", *arguments]) == Exit.USAGE
