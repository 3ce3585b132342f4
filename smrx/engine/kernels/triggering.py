"""Trigger elected stop orders: turn each into a market or limit order and execute it.

stops.py elects them, while a taker trades. Called by apply.py after the command's own order is done.
"""

from typing import Any

from smrx.engine.kernels.balances import release, subtract_open_notional
from smrx.engine.kernels.collar import taker_limit
from smrx.engine.kernels.emit import emit_order_open
from smrx.engine.kernels.fees import order_hold
from smrx.engine.kernels.jit import NIL, Array, Record, Tables, kernel
from smrx.engine.kernels.matching import (
    can_fill,
    execute_taker,
    expire_taker,
    max_events_of_taker,
    opposite_book,
)
from smrx.engine.kernels.order_details import has_terms, has_text
from smrx.engine.kernels.orders import open_notional, quote_balance
from smrx.engine.kernels.pool import return_slot, slots_left
from smrx.engine.state import LEVELS, NODES, ORDER_DETAILS_TABLE
from smrx.wire.codes import EventKind, OrderType, Reason, TimeInForce


@kernel
def clear_stop_price(state: Tables, order: Record) -> None:
    """Remove the stop price from an order's details, and the details if nothing else is in them."""
    details = state.order_details[order.details]
    details.stop_price_ticks = 0
    if not has_text(details) and not has_terms(details):
        return_slot(state.pools[ORDER_DETAILS_TABLE], state.order_details, order.details)
        order.details = 0


@kernel
def trigger_stop(state: Tables, command: Record, events: Array, slot: Any) -> None:
    """Turn an elected stop into a market or limit order and execute it."""
    core = state.core[0]
    order = state.orders[slot]
    instrument = state.instruments[order.instrument]
    if core.ledger != 0:
        lots = order.quantity - order.cum
        release(core, state.balances[order.gives], order_hold(instrument, order, lots))
        subtract_open_notional(state.balances[quote_balance(order)], open_notional(state, order, lots))
    order.order_type = OrderType.MARKET if order.order_type == OrderType.STOP else OrderType.LIMIT
    clear_stop_price(state, order)
    emit_order_open(core, state.turn[0], command, events, order, EventKind.TRIGGERED, Reason.NONE)
    order.priority = core.event_sequence
    if order.tif == TimeInForce.FOK:
        book = state.books[opposite_book(order.instrument, order.side)]
        lots = order.quantity - order.cum
        if not can_fill(state, book, order.side, order.price, lots, order.account_id, order.stp):
            expire_taker(state, command, events, slot, True, Reason.FOK_UNFILLABLE)
            return
    execute_taker(state, command, events, slot, True)


@kernel
def trigger_elected_stops(state: Tables, command: Record, events: Array) -> Any:
    """Trigger every elected stop, and those that their trades elect.

    False if the events buffer or a table may be too small for the next one: then it continues later.
    """
    turn = state.turn[0]
    while turn.elected != NIL:
        slot = turn.elected
        order = state.orders[slot]
        # An order that comes to rest may open a level.
        if (
            slots_left(state.pools[LEVELS], len(state.levels)) < 1
            or slots_left(state.pools[NODES], len(state.nodes)) < 1
        ):
            turn.needed = 0
            return False
        space = len(events) - turn.written
        converted = OrderType.MARKET if order.order_type == OrderType.STOP else OrderType.LIMIT
        instrument = state.instruments[order.instrument]
        number = opposite_book(order.instrument, order.side)
        limit = taker_limit(state, instrument, state.books[number], converted, order.side, order.price)
        turn.needed = max_events_of_taker(
            state, instrument, number, order.side, limit, order.quantity, order.flags, order.stp, order.account, space
        )
        if turn.needed > space:
            return False
        turn.elected = order.next
        order.next = 0
        trigger_stop(state, command, events, slot)
    return True
