"""The first run on a machine compiles the engine: once, before anything waits for it, and said aloud.

A node that compiled inside its loop would be silent for as long as that takes and lose its leader. Compiling leaves
130 MB of the compiler's memory behind, which every fork for a snapshot would have to list, so a process of its own does
it and what was compiled is loaded. Called by whatever starts nodes or applies commands.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

_COMPILE: Final = "import sys; sys.path[:] = sys.argv[1:]; from smrx.engine import warm_up; warm_up()"


def ready_engine(say: Callable[[str], None]) -> None:
    """Return when the engine is compiled on this machine; says so if that takes a while."""
    from smrx.engine import compiled_before, warm_up

    first = not compiled_before()
    started = time.monotonic()
    if first:
        say("compiling the engine (once on this machine; up to a minute or two)")
        _compile_apart()
    # Also compiles it, where no other process could or where nothing compiled can be kept.
    warm_up()
    if first:
        say(f"compiled in {time.monotonic() - started:.0f} s")


def _compile_apart() -> None:
    """Let another process do it. If it fails it says nothing: whatever is wrong comes up again here."""
    try:
        subprocess.run([sys.executable, "-c", _COMPILE, *sys.path], check=False, capture_output=True)
    except OSError:
        return
