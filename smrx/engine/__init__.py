"""The matching engine: a pure state machine, arrays in and arrays out; no I/O, clock, randomness, float or thread.

The same commands with the same time stamps give the same events, outcomes and state hashes on every machine. Start
reading at engine.py (what Python calls) or kernels/apply.py (how a command is handled).
"""

from smrx.engine.engine import Engine, Result, warm_up
from smrx.engine.engine_error import EngineError, RulesError, SnapshotError
from smrx.engine.kernels.compiled import compiled_before
from smrx.engine.state import FIRST_RULES

__all__ = [
    "FIRST_RULES",
    "Engine",
    "EngineError",
    "Result",
    "RulesError",
    "SnapshotError",
    "compiled_before",
    "warm_up",
]
