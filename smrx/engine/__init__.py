"""The state machine of the exchange. Pure: arrays in, arrays out; no input, output, clock, chance, float or thread.

The same commands with the same stamps give the same events, outcomes and state hashes, on every machine.

What is exported here is imported when it is first used: whoever needs the records and codes alone, as a client does,
waits for no compiler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core import Engine as Engine
    from .core import Result as Result
    from .core import warm_up as warm_up
    from .entry import compiled_before as compiled_before
    from .errors import EngineError as EngineError
    from .errors import SnapshotError as SnapshotError

__all__ = ["Engine", "EngineError", "Result", "SnapshotError", "compiled_before", "warm_up"]

_HOME = {
    "Engine": "core",
    "EngineError": "errors",
    "Result": "core",
    "SnapshotError": "errors",
    "compiled_before": "entry",
    "warm_up": "core",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smrx.engine' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
