"""Expire the GTD orders whose time has come. Called by apply.py before the command itself is checked."""

from typing import Any

from smrx.engine.kernels.cancelling import end_order
from smrx.engine.kernels.jit import Array, Record, Tables, kernel
from smrx.wire.codes import EventKind, Reason


@kernel
def expire_due_orders(state: Tables, command: Record, events: Array) -> Any:
    """Expire due orders, earliest first. False if the events buffer is full: then it continues later."""
    core = state.core[0]
    turn = state.turn[0]
    while core.next_expiry <= core.time_ns:
        if turn.written == len(events):
            turn.needed = 1
            return False
        end_order(state, command, events, state.heap[1], EventKind.EXPIRED, Reason.TIME_REACHED)
    return True
