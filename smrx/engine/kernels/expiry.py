"""Expire the GTD orders whose time has come. Called by apply.py before the command itself is checked.

With version 2 of the rules at most MAX_CANCELS orders expire when a command advances the engine's time, and with each
TICK: commands of one log entry have one time, so an entry does a bounded number. The rest goes on with the next entry.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.cancelling import end_order
from smrx.engine.kernels.jit import Array, Record, Tables, inlined, kernel
from smrx.engine.kernels.rules_version import has_bounds
from smrx.engine.state import NEVER
from smrx.wire.codes import CommandKind, EventKind, Reason
from smrx.wire.records import MAX_CANCELS

MOST_EXPIRIES: Final = np.int64(MAX_CANCELS)


@inlined
def expiries_left(core: Record, command: Record, time_ns: Any) -> Any:
    """Return how many orders may expire with a command at a time, before the engine's time follows it."""
    if not has_bounds(core):
        return np.int64(NEVER)
    return MOST_EXPIRIES if time_ns > core.time_ns or command.kind == CommandKind.TICK else np.int64(0)


@kernel
def expire_due_orders(state: Tables, command: Record, events: Array) -> Any:
    """Expire due orders, earliest first. False if the events buffer is full: then it continues later."""
    core = state.core[0]
    turn = state.turn[0]
    while core.next_expiry <= core.time_ns and turn.expiries > 0:
        if turn.written == len(events):
            turn.needed = 1
            return False
        end_order(state, command, events, state.heap[1], EventKind.EXPIRED, Reason.TIME_REACHED)
        turn.expiries -= 1
    return True
