"""The flame graph of `smrx bench load`: how py-spy is called, and what is said when it is missing or fails."""

import os
from pathlib import Path

import pytest

from smrx.bench.bench_error import BenchError
from smrx.bench.leader_profile import LeaderProfile


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a program named py-spy first into the search path."""
    program = folder / "py-spy"
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_process_is_sampled_for_the_measured_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "leader.svg"
    drawn = '<text id="title" x="1">py-spy record</text>'
    install(tmp_path, monkeypatch, f"echo \"$@\" >{tmp_path}/arguments; echo '{drawn}' >{picture}")
    profile = LeaderProfile(str(picture))
    profile.start(4321, 5.0)
    profile.finish()
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:5] == ["record", "--pid", "4321", "--duration", "5"]
    assert arguments[-2:] == ["--output", str(picture)]
    # A picture for the documentation names no file of the machine.
    assert "leader's Python code" in picture.read_text()
    assert "py-spy" not in picture.read_text()


def test_failure_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "echo 'Error: Permission Denied' >&2; exit 1")
    profile = LeaderProfile("leader.svg")
    profile.start(4321, 5.0)
    with pytest.raises(BenchError, match="py-spy failed: Error: Permission Denied; it may have to be run by root"):
        profile.finish()


def test_profile_that_never_began_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(BenchError, match="no node led"):
        LeaderProfile("leader.svg").finish()


def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="py-spy, which is not installed"):
        LeaderProfile("leader.svg")
