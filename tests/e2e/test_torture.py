"""Torture of real clusters: a minute of it in both modes, and one that must fail because the nodes are broken."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from cluster.torture.field import environment
from cluster.torture.ordeal import endure


def test_a_minute_of_torture_breaks_nothing() -> None:
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
    assert [ordeal["durability"] for ordeal in found["ordeals"]] == ["memory", "disk"]
    for ordeal in found["ordeals"]:
        assert sum(ordeal["faults"].values()) > 3
        assert ordeal["judged"]["answered"] > 20
        assert ordeal["recovery_s"] <= ordeal["allowed_s"]
        assert ordeal["settled"]["trades"] > 0


def test_nodes_that_answer_before_they_commit_are_found_and_their_logs_kept() -> None:
    outcome = endure(1, seconds=3.0, program=("tests.cluster.torture.broken_node", "answers-before-commit"))
    try:
        assert outcome.failure is not None
        assert "the replay's answers" in outcome.failure or "acknowledged, in the log once" in outcome.failure
        assert outcome.command == ("python -m cluster torture --seed 1 --durability memory --nodes 3 --storm-seconds 3")
        assert outcome.kept is not None
        told = (outcome.kept / "timeline.txt").read_text(encoding="utf-8").splitlines()
        assert told[0] == outcome.command
        assert outcome.failure in told[-1]
        assert (outcome.kept / "node-1.log").exists()
    finally:
        if outcome.kept is not None:
            shutil.rmtree(outcome.kept)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("publishes-another-time", "settlement: verifier-1: .* differs: time_ns"),
        ("publishes-another-fee", "settlement: alarm VIOLATION: .* fee"),
    ],
)
def test_nodes_that_all_publish_what_did_not_happen_are_found(how: str, found: str) -> None:
    """The nodes agree with each other, and what clients were told is right: only the books are not."""
    outcome = endure(2, seconds=3.0, program=("tests.cluster.torture.broken_node", how))
    try:
        assert outcome.failure is not None
        assert re.search(found, outcome.failure), outcome.failure
    finally:
        if outcome.kept is not None:
            shutil.rmtree(outcome.kept)
