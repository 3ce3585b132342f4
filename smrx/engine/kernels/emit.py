"""Write events into the buffer, one function for each shape. The caller ensures the space (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.fees import QUOTE_BUDGET
from smrx.engine.kernels.jit import U1, Array, Record, inlined, kernel
from smrx.wire.codes import EventKind


@kernel
def fill_header(event: Record, core: Record, command: Record, kind: Any) -> None:
    """Set the common fields of an event, and all others to 0."""
    core.event_sequence += U1
    event.sequence = core.event_sequence
    event.command_sequence = core.command_sequence
    event.time_ns = core.time_ns
    event.kind = kind
    event.side = 0
    event.order_type = 0
    event.tif = 0
    event.stp = 0
    event.flags = 0
    event.reason = 0
    event.instrument = 0
    event.account = 0
    event.counter_account = 0
    event.command_kind = 0
    event.order_id = 0
    event.counter_order_id = 0
    event.match_id = 0
    event.client_order_id = 0
    event.session_id = command.session_id
    event.request_id = command.request_id
    event.price_ticks = 0
    event.quantity_lots = 0
    event.cum_lots = 0
    event.leaves_lots = 0


@inlined
def skip_unreported(core: Record) -> Any:
    """If order events are switched off, count one without writing it and return True."""
    if core.reporting != 0:
        return False
    core.event_sequence += U1
    return True


@inlined
def begin_event(core: Record, turn: Record, command: Record, events: Array, kind: Any) -> Any:
    """Start the next event, with the common fields only, and return it."""
    event = events[turn.written]
    turn.written += 1
    fill_header(event, core, command, kind)
    return event


@kernel
def fill_order_fields(event: Record, order: Record) -> None:
    """Copy an order's fields to an event."""
    event.side = order.side
    event.order_type = order.order_type
    event.tif = order.tif
    event.stp = order.stp
    event.flags = order.flags
    event.account = order.account_id
    event.instrument = order.instrument_id
    event.order_id = order.order_id
    event.counter_order_id = order.extra
    event.client_order_id = order.client_order_id
    event.price_ticks = order.price
    event.quantity_lots = order.quantity
    event.cum_lots = order.cum
    event.leaves_lots = order.quantity - order.cum


@inlined
def emit_order_open(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """Write NEW, REPLACED or TRIGGERED."""
    if skip_unreported(core):
        return
    event = begin_event(core, turn, command, events, kind)
    fill_order_fields(event, order)
    event.reason = reason
    if order.flags == QUOTE_BUDGET:
        event.leaves_lots = 0


@inlined
def emit_order_ended(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """Write CANCELLED or EXPIRED."""
    if skip_unreported(core):
        return
    event = begin_event(core, turn, command, events, kind)
    fill_order_fields(event, order)
    event.reason = reason
    event.leaves_lots = 0
    if order.flags == QUOTE_BUDGET:
        event.quantity_lots = order.cum


@inlined
def emit_fill(core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any) -> None:
    """Write PARTIALLY_FILLED or FILLED, after the order's progress was updated."""
    if skip_unreported(core):
        return
    kind = EventKind.FILLED if order.cum == order.quantity else EventKind.PARTIALLY_FILLED
    event = begin_event(core, turn, command, events, kind)
    fill_order_fields(event, order)
    event.match_id = core.match_sequence
    event.price_ticks = price
    event.quantity_lots = lots


@inlined
def emit_budget_fill(
    core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any, spent: Any
) -> None:
    """Write a fill of a market buy by budget; the caller says whether the budget is spent."""
    if skip_unreported(core):
        return
    event = begin_event(core, turn, command, events, EventKind.FILLED if spent else EventKind.PARTIALLY_FILLED)
    fill_order_fields(event, order)
    event.match_id = core.match_sequence
    event.price_ticks = price
    event.quantity_lots = lots
    event.leaves_lots = 0


@inlined
def emit_trade(
    core: Record,
    turn: Record,
    command: Record,
    events: Array,
    taker: Record,
    maker: Record,
    lots: Any,
    taker_fee: Any,
    maker_fee: Any,
) -> None:
    """Write TRADE."""
    event = begin_event(core, turn, command, events, EventKind.TRADE)
    event.side = taker.side
    event.instrument = taker.instrument_id
    event.account = taker.account_id
    event.counter_account = maker.account_id
    event.order_id = taker.order_id
    event.counter_order_id = maker.order_id
    event.match_id = core.match_sequence
    event.price_ticks = maker.price
    event.quantity_lots = lots
    event.cum_lots = taker_fee
    event.leaves_lots = maker_fee


@kernel
def fill_rejected(event: Record, command: Record, reason: Any) -> None:
    """Fill a REJECTED event with the command as it was sent."""
    event.reason = reason
    event.command_kind = np.uint32(command.kind)
    event.side = command.side
    event.order_type = command.order_type
    event.tif = command.tif
    event.stp = command.stp
    event.flags = command.flags
    event.account = command.account
    event.instrument = command.instrument
    event.order_id = command.order_id
    event.client_order_id = command.client_order_id
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots
