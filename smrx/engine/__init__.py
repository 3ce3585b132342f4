"""The state machine of the exchange. Pure: arrays in, arrays out; no input, output, clock, chance, float or thread.

The same commands with the same stamps give the same events, outcomes and state hashes, on every machine.
"""

from .core import Engine, Result, warm_up
from .entry import compiled_before
from .errors import EngineError, SnapshotError

__all__ = ["Engine", "EngineError", "Result", "SnapshotError", "compiled_before", "warm_up"]
