"""Compile the engine once on a machine, before anything depends on it.

A node that compiled inside its loop would stop answering for a minute and lose its leadership. The compiler also leaves
130 MB of memory in its process, and every fork for a snapshot would copy the page tables of that memory. So a separate
process compiles into the cache on disk, and this process loads the result. Of several processes that start together one
compiles, and the others wait for it. Called by everything that starts nodes or applies commands.
"""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from smrx import compile_cache

#: The modules with entry points that every process with an engine or a node needs.
_MODULES: Final = ("smrx.engine", "smrx.node.compiled_entry")
_COMPILE: Final = "import sys; sys.path[:] = sys.argv[1:]; from smrx.compiling import load; load()"


def compile_engine(report: Callable[[str], None], data_dir: str | Path | None = None) -> Path | None:
    """Return when the engine is compiled and loaded; call `report` with a line of text if it has to be compiled.

    Returns the directory of the compiled code, None if there is none; `data_dir` is where it goes if the user has no
    other place. Raises compile_cache.CacheError.
    """
    with compile_cache.writable_by_owner_only():
        return _compile_engine(report, None if data_dir is None else Path(data_dir).expanduser())


def _compile_engine(report: Callable[[str], None], place: Path | None) -> Path | None:
    directory = compile_cache.choose(place)
    first = not _compiled_before()
    started = time.monotonic()
    if first:
        if directory is None:
            report(f"compiled code cannot be kept; looked for a directory in {compile_cache.places(place)}")
        with compile_cache.only_compiler(
            directory, lambda: report("waiting for another process that compiles")
        ) as lock:
            first = not _compiled_before()
            if first:
                where = f" into {directory}" if directory is not None else ""
                report(f"compiling the engine{where} (once on this machine, up to two minutes)")
                if lock is not None:
                    _compile_in_subprocess(lock)
    # This compiles here if the subprocess failed, or if there is no cache.
    load()
    if first:
        report(f"compiled in {time.monotonic() - started:.0f} s")
    return directory


def load() -> None:
    """Load the compiled code; compile it if it is not there."""
    for module in _MODULES:
        importlib.import_module(module).warm_up()


def _compiled_before() -> bool:
    return all(importlib.import_module(module).compiled_before() for module in _MODULES)


def _compile_in_subprocess(lock: int) -> None:
    """Compile in another process. Its errors are ignored: the same error occurs again in warm_up().

    It inherits the lock: if this process is killed, the other one goes on, and the next to start waits for it.
    """
    try:
        subprocess.run([sys.executable, "-c", _COMPILE, *sys.path], check=False, capture_output=True, pass_fds=(lock,))
    except OSError:
        return
