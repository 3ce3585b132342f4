"""The engine is compiled by a process of its own, and here where that cannot be."""

import subprocess
import sys
from typing import Any

import pytest

from smrx import engine
from smrx.compiling import ready_engine


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a new machine; the exit codes of the processes that were started."""
    ended: list[int] = []
    run = subprocess.run

    def watched(*args: Any, **options: Any) -> Any:
        done = run(*args, **options)
        ended.append(done.returncode)
        return done

    monkeypatch.setattr(engine, "compiled_before", lambda: False)
    monkeypatch.setattr(subprocess, "run", watched)
    return ended


def test_what_was_compiled_before_is_only_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine, "compiled_before", lambda: True)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("expected no other process"))
    ready_engine(said.append)
    assert said == []


def test_another_process_compiles_so_that_the_compilers_memory_ends_with_it(nothing_compiled: list[int]) -> None:
    said: list[str] = []
    ready_engine(said.append)
    assert nothing_compiled == [0]
    assert [line.split()[0] for line in said] == ["compiling", "compiled"]


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_where_no_other_process_can_it_is_compiled_here(
    nothing_compiled: list[int], monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    said: list[str] = []
    here: list[str] = []
    monkeypatch.setattr(engine, "warm_up", lambda: here.append("compiled"))
    monkeypatch.setattr(sys, "executable", python)
    ready_engine(said.append)
    assert 0 not in nothing_compiled
    assert here == ["compiled"]
    assert said[-1].startswith("compiled in ")
