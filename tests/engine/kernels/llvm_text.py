"""Keep the LLVM text of the engine's apply between runs of the tests.

Numba has the text of a function only in the process that compiles it, not of a function from its cache. So the process
that compiles the engine before the tests (scripts/test runs this module) writes it to a file, and the tests do not
compile the engine a second time.
"""

import os
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import xxhash
from numba import njit

from smrx.engine import Engine, warm_up
from smrx.engine.kernels import compiled
from smrx.engine.kernels.jit import fingerprint
from smrx.wire.records import COMMAND

FOLDER = Path(__file__).resolve().parents[3] / ".pytest_cache" / "apply_llvm"


def llvm_of(function: Any) -> str:
    """Return the LLVM module of a compiled function with one signature."""
    (text,) = function.inspect_llvm().values()
    return str(text)


def of_apply() -> str:
    """Return the LLVM module of apply for this source and compiler; compile it if no file has it."""
    path = _path()
    if not path.exists():
        Engine().apply(np.zeros(1, COMMAND), 1)
        _write(path, _compiled_here() or _compile_again())
    return path.read_text(encoding="utf-8")


def _compiled_here() -> str | None:
    """Return the text if this process compiled apply, None if it came from Numba's cache."""
    return None if compiled.apply_at.stats.cache_hits else llvm_of(compiled.apply_at)


def _compile_again() -> str:
    fresh = njit(error_model="numpy")(compiled.apply_at.py_func)
    fresh.compile(compiled.apply_at.nopython_signatures[0].args)
    return llvm_of(fresh)


def _path() -> Path:
    target = compiled.apply_at.targetctx.codegen().magic_tuple()
    key = f"{fingerprint(*compiled.MODULES)} {numba.__version__} {llvmlite.__version__} {target}"
    return FOLDER / f"{xxhash.xxh3_64_hexdigest(key.encode())}.ll"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, because another test process may read it.
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    warm_up()
    of_apply()
