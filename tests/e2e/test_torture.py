"""Torture runs of real clusters: a minute in both modes passes, and runs with broken nodes fail."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from cluster.torture.cluster_under_test import environment
from cluster.torture.torture_run import run_torture


def test_minute_of_torture_passes() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cluster", "torture", "--minutes", "1", "--seed", "7", "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment(),
    )
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)
    assert ended.returncode == 0, json.dumps(found, indent=2)
    assert found["failures"] == 0
    assert [run["durability"] for run in found["runs"]] == ["memory", "disk"]
    for run in found["runs"]:
        assert sum(run["faults"].values()) > 3
        assert run["history"]["answered"] > 20
        assert run["recovery_s"] <= run["allowed_s"]
        assert run["settlement"]["trades"] > 0


def test_gateways_that_answer_by_themselves_fail_the_run() -> None:
    program = (sys.executable, "-m", "tests.cluster.torture.broken_gateway")
    result = run_torture(1, seconds=3.0, gateway_program=program)
    try:
        assert result.failure is not None
        assert "replayed outcomes" in result.failure or "acknowledged, in the log" in result.failure
        assert result.command == ("python -m cluster torture --seed 1 --durability memory --nodes 3 --fault-seconds 3")
        assert result.folder is not None
        lines = (result.folder / "timeline.txt").read_text(encoding="utf-8").splitlines()
        assert lines[0] == result.command
        assert result.failure in lines[-1]
        assert (result.folder / "node-1.log").exists()
    finally:
        if result.folder is not None:
            shutil.rmtree(result.folder)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("publishes-another-time", "settlement: verifier-1: .* differs: time_ns"),
        ("publishes-another-fee", "settlement: alarm VIOLATION: .* fee"),
    ],
)
def test_nodes_that_publish_wrong_events_fail_the_run(how: str, found: str) -> None:
    """The nodes agree and the outcomes are correct; only the published events are wrong."""
    result = run_torture(2, seconds=3.0, program=("tests.cluster.torture.broken_node", how))
    try:
        assert result.failure is not None
        assert re.search(found, result.failure), result.failure
    finally:
        if result.folder is not None:
            shutil.rmtree(result.folder)
