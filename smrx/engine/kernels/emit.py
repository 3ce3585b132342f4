"""Writing events into the buffer: one function an event's shape. Room is the caller's care (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.fees import QUOTE_BUDGET
from smrx.engine.kernels.jit import U1, Array, Record, inlined, kernel
from smrx.wire.codes import EventKind


@kernel
def fill_header(event: Record, core: Record, command: Record, kind: Any) -> None:
    """Every field of an event: the common ones, and 0."""
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
def unreported(core: Record) -> Any:
    """Whether what becomes of orders is not reported: then an event takes its number, and is not written."""
    if core.reporting != 0:
        return False
    core.event_sequence += U1
    return True


@inlined
def begin(core: Record, turn: Record, command: Record, events: Array, kind: Any) -> Any:
    """The next event, with nothing but the common fields."""
    event = events[turn.written]
    turn.written += 1
    fill_header(event, core, command, kind)
    return event


@kernel
def describe_order(event: Record, order: Record) -> None:
    """What an order is; price, lots and their progress as they stand."""
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
def order_stands(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """NEW, REPLACED or TRIGGERED."""
    if unreported(core):
        return
    event = begin(core, turn, command, events, kind)
    describe_order(event, order)
    event.reason = reason
    if order.flags == QUOTE_BUDGET:
        event.leaves_lots = 0


@inlined
def order_ends(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """CANCELLED or EXPIRED: what was left of the order is gone."""
    if unreported(core):
        return
    event = begin(core, turn, command, events, kind)
    describe_order(event, order)
    event.reason = reason
    event.leaves_lots = 0
    if order.flags == QUOTE_BUDGET:
        event.quantity_lots = order.cum


@inlined
def order_filled(
    core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any
) -> None:
    """PARTIALLY_FILLED or FILLED, after the order's progress was updated."""
    if unreported(core):
        return
    kind = EventKind.FILLED if order.cum == order.quantity else EventKind.PARTIALLY_FILLED
    event = begin(core, turn, command, events, kind)
    describe_order(event, order)
    event.match_id = core.match_sequence
    event.price_ticks = price
    event.quantity_lots = lots


@inlined
def budget_filled(
    core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any, spent: Any
) -> None:
    """A fill of a market buy by budget, which says itself whether the budget is spent."""
    if unreported(core):
        return
    event = begin(core, turn, command, events, EventKind.FILLED if spent else EventKind.PARTIALLY_FILLED)
    describe_order(event, order)
    event.match_id = core.match_sequence
    event.price_ticks = price
    event.quantity_lots = lots
    event.leaves_lots = 0


@inlined
def traded(
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
    event = begin(core, turn, command, events, EventKind.TRADE)
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
def refused(event: Record, command: Record, reason: Any) -> None:
    """REJECTED: the command as it was sent."""
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
