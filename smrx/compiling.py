"""Compile the engine once on a machine, before anything depends on it.

A node that compiled inside its loop would stop answering for a minute and lose its leadership. The compiler also leaves
130 MB of memory in its process, and every fork for a snapshot would copy the page tables of that memory. So a separate
process compiles into the cache on disk, and this process loads the result. Called by everything that starts nodes or
applies commands.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

_COMPILE: Final = "import sys; sys.path[:] = sys.argv[1:]; from smrx.engine import warm_up; warm_up()"


def compile_engine(report: Callable[[str], None]) -> None:
    """Return when the engine is compiled and loaded; call `report` with a line of text if it has to be compiled."""
    from smrx.engine import compiled_before, warm_up

    first = not compiled_before()
    started = time.monotonic()
    if first:
        report("compiling the engine (once on this machine, up to two minutes)")
        _compile_in_subprocess()
    # This compiles here if the subprocess failed, or if the cache cannot be written.
    warm_up()
    if first:
        report(f"compiled in {time.monotonic() - started:.0f} s")


def _compile_in_subprocess() -> None:
    """Compile in another process. Its errors are ignored: the same error occurs again in warm_up()."""
    try:
        subprocess.run([sys.executable, "-c", _COMPILE, *sys.path], check=False, capture_output=True)
    except OSError:
        return
