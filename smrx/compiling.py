"""The first run on a machine compiles the engine: once, before anything waits for it, and said aloud.

A node that compiled inside its loop would be silent for as long as that takes and lose its leader. Called by whatever
starts nodes or applies commands.
"""

import time
from collections.abc import Callable


def ready_engine(say: Callable[[str], None]) -> None:
    """Return when the engine is compiled on this machine; says so if that takes a while."""
    from smrx.engine import compiled_before, warm_up

    first = not compiled_before()
    if first:
        say("compiling the engine (once on this machine; up to a minute or two)")
    started = time.monotonic()
    warm_up()
    if first:
        say(f"compiled in {time.monotonic() - started:.0f} s")
