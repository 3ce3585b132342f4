"""CANCEL and MASS_CANCEL, and the end of an open order for any other reason.

`cancel_order` also serves self-trade prevention, the end of a session and the closing of an instrument; `end_order`
also serves expiry. Called by apply.py, replacing.py, matching.py, sessions.py, venue_controls.py and expiry.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.emit import begin_event, emit_order_ended
from smrx.engine.kernels.jit import NIL, U0, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.lookup import find_instrument, find_named_client_order, find_order
from smrx.engine.kernels.orders import release_lots, remove_order
from smrx.engine.kernels.rules_version import has_bounds
from smrx.wire.codes import EventKind, Reason, Side
from smrx.wire.records import CANCELS_EVENT, MAX_CANCELS

MOST_CANCELS: Final = np.int64(MAX_CANCELS)


@kernel
def end_order(state: Tables, command: Record, events: Array, slot: Any, kind: Any, reason: Any) -> None:
    """End an open order, CANCELLED or EXPIRED: write the event, release the hold, remove it from the book."""
    order = state.orders[slot]
    emit_order_ended(state.core[0], state.turn[0], command, events, order, kind, reason)
    release_lots(state, order, order.quantity - order.cum)
    remove_order(state, slot)


@inlined
def cancel_order(state: Tables, command: Record, events: Array, slot: Any, reason: Any) -> None:
    """End an open order as CANCELLED."""
    end_order(state, command, events, slot, EventKind.CANCELLED, reason)


@inlined
def cancels_left(core: Record, orders: Any) -> Any:
    """Return how many of so many orders one command cancels."""
    return min(np.int64(orders), MOST_CANCELS) if has_bounds(core) else np.int64(orders)


@inlined
def check_named_order(state: Tables, command: Record) -> Any:
    """Return UNKNOWN_ORDER unless the command names an open order of its account. Records the order in `turn`."""
    turn = state.turn[0]
    if command.order_id != U0:
        turn.order = find_order(state, command.order_id)
    else:
        turn.order = find_named_client_order(state, command)
    if turn.order == NIL or state.orders[turn.order].account_id != command.account:
        return Reason.UNKNOWN_ORDER
    return Reason.NONE


@inlined
def cancel(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked CANCEL."""
    slot = state.turn[0].order
    order = state.orders[slot]
    outcome.event_kind = EventKind.CANCELLED
    outcome.order_id = order.order_id
    outcome.cum_lots = order.cum
    cancel_order(state, command, events, slot, Reason.REQUESTED)


@inlined
def check_mass_cancel(state: Tables, command: Record) -> Any:
    """Return UNKNOWN_INSTRUMENT for an instrument that does not exist, else NONE."""
    if command.instrument != 0 and find_instrument(state, command.instrument) == NIL:
        return Reason.UNKNOWN_INSTRUMENT
    return Reason.NONE


@kernel
def mass_cancel(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Cancel the account's open orders, of one instrument and side if the command names them, oldest first.

    At most as many as cancels_left() allows: the outcome says how many orders of the account it did not look at.
    """
    account = state.accounts[state.turn[0].account]
    most = cancels_left(state.core[0], account.orders)
    cancelled = np.int64(0)
    kept = np.int64(0)
    slot = account.first
    while slot != NIL and cancelled < most:
        order = state.orders[slot]
        following = order.newer
        wanted = command.instrument == 0 or order.instrument_id == command.instrument
        if wanted and (command.side == Side.ANY or order.side == command.side):
            cancel_order(state, command, events, slot, Reason.MASS_CANCEL)
            cancelled += 1
        else:
            kept += 1
        slot = following
    event = view_as(begin_event(state.core[0], state.turn[0], command, events, EventKind.MASS_CANCELLED), CANCELS_EVENT)
    event.account = command.account
    event.instrument = command.instrument
    event.side = command.side
    event.cancelled = cancelled
    outcome.event_kind = EventKind.MASS_CANCELLED
    outcome.cum_lots = cancelled
    outcome.leaves_lots = np.int64(account.orders) - kept
