"""The same commands give the same hash compiled, with bounds checks, and interpreted."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from smrx.engine import Engine, compiled_before, warm_up
from smrx.engine.kernels import jit
from smrx.engine.kernels.numba_tables import table_of
from smrx.wire.records import COMMAND
from tests.property.comparison import run
from tests.property.flow import build_tape, seeded_steps

ROOT = Path(__file__).parents[2]
SEED = 21
LONG, SHORT = 1_500, 60

RUN = """
import sys
from tests.engine.test_execution_modes import hash_of
print(f"{hash_of(int(sys.argv[1])):016x}")
"""
OUTSIDE = """
from tests.engine.test_execution_modes import read_outside
print(read_outside())
"""


def hash_of(steps: int) -> int:
    """Return the hash after a random tape with every kind of command, in an engine whose tables grow."""
    engine, _ = run(Engine(orders=1, levels=1, balances=2), build_tape(seeded_steps(SEED, steps)))
    assert engine.check_invariants() == []
    return engine.state_hash


def read_outside() -> str:
    """Read behind the end of a table; return what happened."""

    @njit
    def read_past_end(commands: np.ndarray) -> int:  # type: ignore[type-arg]  # numba wants the plain class
        return int(table_of(commands)[np.uint32(len(commands))].kind)

    try:
        read_past_end(np.zeros(2, COMMAND))
    except IndexError:
        return "raised"
    return "read"


def python(program: str, *arguments: str, **environment: str) -> str:
    """Run a Python program with additional environment variables; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted_kernels_give_the_same_hash() -> None:
    assert python(RUN, str(SHORT), NUMBA_DISABLE_JIT="1") == f"{hash_of(SHORT):016x}"


def test_checked_bounds_give_the_same_hash(pytestconfig: pytest.Config) -> None:
    # Code with checks needs its own cache directory: Numba does not distinguish it from code without. It needs
    # little optimisation; without any, Numba cannot cache it.
    cache = {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_OPT": "1",
        "NUMBA_CACHE_DIR": str(pytestconfig.cache.mkdir("checked_bounds")),
    }
    assert python(RUN, str(LONG), **cache) == f"{hash_of(LONG):016x}"
    # The result is meaningful only if an access outside is detected.
    assert python(OUTSIDE, **cache) == "raised"


def test_compiled_before_reports_cached_code(tmp_path: Path) -> None:
    program = "from smrx.engine import compiled_before; print(compiled_before())"
    assert python(program, NUMBA_CACHE_DIR=str(tmp_path)) == "False"
    warm_up()
    assert compiled_before()
    assert python(program) == "True"


def test_engine_compiles_without_a_writable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit_without_cache(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    def doubled(count: Any) -> Any:
        return count * 2

    monkeypatch.setattr(jit, "_compile", njit_without_cache)
    assert jit.entry_point(doubled)(21) == 42
