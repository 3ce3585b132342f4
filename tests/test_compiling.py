"""The engine is compiled in a subprocess, or in this process if no subprocess can do it."""

import subprocess
import sys
from typing import Any

import pytest

from smrx import compiling
from smrx.compiling import compile_engine


@pytest.fixture
def subprocess_exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Simulate a machine with nothing compiled; return the exit codes of the subprocesses that are run."""
    exit_codes: list[int] = []
    run = subprocess.run

    def recorded_run(*args: Any, **options: Any) -> Any:
        completed = run(*args, **options)
        exit_codes.append(completed.returncode)
        return completed

    monkeypatch.setattr(compiling, "_compiled_before", lambda: False)
    monkeypatch.setattr(subprocess, "run", recorded_run)
    return exit_codes


def test_compiled_engine_is_loaded_without_subprocess_or_report(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[str] = []
    monkeypatch.setattr(compiling, "_compiled_before", lambda: True)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a subprocess was started"))
    compile_engine(reports.append)
    assert reports == []


def test_engine_is_compiled_in_a_subprocess_so_that_the_compiler_memory_is_freed(
    subprocess_exit_codes: list[int],
) -> None:
    reports: list[str] = []
    compile_engine(reports.append)
    assert subprocess_exit_codes == [0]
    assert [line.split()[0] for line in reports] == ["compiling", "compiled"]


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_engine_is_compiled_in_this_process_if_the_subprocess_fails(
    subprocess_exit_codes: list[int], monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    reports: list[str] = []
    warm_up_calls: list[str] = []
    monkeypatch.setattr(compiling, "load", lambda: warm_up_calls.append("called"))
    monkeypatch.setattr(sys, "executable", python)
    compile_engine(reports.append)
    assert 0 not in subprocess_exit_codes
    assert warm_up_calls == ["called"]
    assert reports[-1].startswith("compiled in ")
