"""The same commands give the same hash compiled, with bounds checked, and not compiled at all."""

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
from tests.engine.test_modes import hash_of
print(f"{hash_of(int(sys.argv[1])):016x}")
"""
OUTSIDE = """
from tests.engine.test_modes import read_outside
print(read_outside())
"""


def hash_of(steps: int) -> int:
    """The hash after a random tape with every kind of command, and some that grow every table."""
    engine, _ = run(Engine(orders=1, levels=1, balances=2), build_tape(seeded_steps(SEED, steps)))
    assert engine.check_invariants() == []
    return engine.state_hash


def read_outside() -> str:
    """What reading behind the end of a table does."""

    @njit
    def behind(commands: np.ndarray) -> int:  # type: ignore[type-arg]  # numba wants the plain class
        return int(table_of(commands)[np.uint32(len(commands))].kind)

    try:
        behind(np.zeros(2, COMMAND))
    except IndexError:
        return "refused"
    return "read"


def python(program: str, *arguments: str, **environment: str) -> str:
    """What a Python process with more in its environment prints."""
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
    # A place of its own for code with checks, kept between runs: Numba does not tell it from code without.
    place = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(pytestconfig.cache.mkdir("checked_bounds"))}
    assert python(RUN, str(LONG), **place) == f"{hash_of(LONG):016x}"
    # That nothing was outside says something only if it would have been noticed.
    assert python(OUTSIDE, **place) == "refused"


def test_one_knows_before_whether_the_engine_is_compiled(tmp_path: Path) -> None:
    program = "from smrx.engine import compiled_before; print(compiled_before())"
    assert python(program, NUMBA_CACHE_DIR=str(tmp_path)) == "False"
    warm_up()
    assert compiled_before()
    assert python(program) == "True"


def test_a_machine_without_a_place_for_compiled_code_compiles_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    def doubled(count: Any) -> Any:
        return count * 2

    monkeypatch.setattr(jit, "_compile", refusing)
    assert jit.entry_point(doubled)(21) == 42
