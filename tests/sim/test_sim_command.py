"""`smrx sim`: what it prints, and with which code it ends."""

import json

import pytest

import smrx.sim
import smrx.sim.search
from smrx.cli import run
from smrx.cli.exit_codes import Exit
from smrx.sim import REAL, Verdict, simulate
from tests.sim import broken


def broken_simulate(seed: int) -> Verdict:
    return simulate(seed, REAL.but(order_entry=broken.AnswersBeforeCommit))


def test_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "7"]) == Exit.OK
    said = capsys.readouterr().out
    assert said.startswith("seed 7: ")
    assert "ok: " in said


def test_one_seed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "7", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert found["failure"] is None
    assert found["timeline"] == simulate(7).digest


def test_a_search_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--start", "100", "--seeds", "25", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["seeds"], found["failures"]) == (25, [])
    assert found["commands"] > 25
    assert found["faults"] > 25
    assert found["seconds"] > 0


def test_a_failure_begins_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smrx.sim, "simulate", broken_simulate)
    assert run(["sim", "3"]) == Exit.DIVERGED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "smrx sim 3"
    assert any("node 1 starts, life 1" in line for line in lines)
    assert any("VIOLATION" in line for line in lines)
    assert lines[-1].startswith("FAILED: ")


def test_a_search_that_finds_something_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smrx.sim.search, "simulate", broken_simulate)
    assert run(["sim", "--seeds", "3", "--json"]) == Exit.DIVERGED
    found = json.loads(capsys.readouterr().out)
    assert [failure["command"] for failure in found["failures"]] == ["smrx sim 0", "smrx sim 1", "smrx sim 2"]
    assert run(["sim", "--seeds", "2"]) == Exit.DIVERGED
    assert capsys.readouterr().out.startswith("smrx sim 0\n")


@pytest.mark.parametrize("arguments", [[], ["3", "--seeds", "4"], ["--start", "3"], ["--seeds", "0"]])
def test_a_command_line_without_sense_is_refused(arguments: list[str]) -> None:
    assert run(["sim", *arguments]) == Exit.USAGE
