"""The state machine of the exchange. Pure: arrays in, arrays out; no input, output, clock, chance, float or thread.

The same commands with the same stamps give the same events, outcomes and state hashes, on every machine.
"""

from smrx.engine.engine import Engine, Result, warm_up
from smrx.engine.engine_error import EngineError, SnapshotError
from smrx.engine.kernels.compiled import compiled_before

__all__ = ["Engine", "EngineError", "Result", "SnapshotError", "compiled_before", "warm_up"]
