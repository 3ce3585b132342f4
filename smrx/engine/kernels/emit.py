"""Write events into the buffer, one function for each shape. The caller ensures the space (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.fees import QUOTE_BUDGET
from smrx.engine.kernels.jit import U1, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.layouts import CLIENT_ORDER_ID_WORDS, EVENT_WORDS
from smrx.engine.kernels.lookup import details_of
from smrx.engine.kernels.order_details import has_terms, has_text
from smrx.wire.codes import EventKind
from smrx.wire.records import ORDER_TERMS_EVENT, TRADE_EVENT


@kernel
def fill_header(event: Record, core: Record, turn: Record, command: Record, kind: Any) -> None:
    """Set the common fields of an event, and all others to 0."""
    core.event_sequence += U1
    event.sequence = core.event_sequence
    event.command_sequence = core.command_sequence
    event.time_ns = core.time_ns
    words = view_as(event, EVENT_WORDS)
    words.word_3 = np.uint64(kind)
    event.session_id = command.session_id
    event.request_id = command.request_id
    words.word_6 = 0
    words.word_7 = 0
    words.word_8 = 0
    words.word_9 = 0
    words.word_10 = 0
    words.word_11 = 0
    words.word_12 = 0
    words.word_13 = 0
    words.word_14 = 0
    words.word_15 = turn.credential


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
    fill_header(event, core, turn, command, kind)
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
    event = view_as(begin_event(core, turn, command, events, EventKind.TRADE), TRADE_EVENT)
    event.side = taker.side
    event.instrument = taker.instrument_id
    event.account = taker.account_id
    event.credential = np.uint32(turn.credential)
    event.counter_account = maker.account_id
    event.order_id = taker.order_id
    event.counter_order_id = maker.order_id
    event.match_id = core.match_sequence
    event.price_ticks = maker.price
    event.quantity_lots = lots
    event.taker_fee = taker_fee
    event.maker_fee = maker_fee


@kernel
def fill_rejected(event: Record, turn: Record, command: Record, reason: Any) -> None:
    """Fill a REJECTED event with the command as it was sent."""
    event.reason = reason
    event.command_kind = command.kind
    event.side = command.side
    event.order_type = command.order_type
    event.tif = command.tif
    event.stp = command.stp
    event.flags = command.flags
    event.account = command.account
    event.instrument = command.instrument
    event.order_id = command.order_id
    event.client_order_id = turn.client_order_id
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots


@kernel
def emit_details(state: Tables, command: Record, events: Array, order_id: Any) -> None:
    """Write the events that follow the last one and say what the details of its command say; see turn.following."""
    core = state.core[0]
    turn = state.turn[0]
    if core.reporting == 0:
        core.event_sequence += np.uint64(turn.following)
        return
    details = details_of(state, command)
    events[turn.written - 1].following = np.uint8(turn.following)
    if has_text(details):
        text = view_as(begin_event(core, turn, command, events, EventKind.CLIENT_ORDER_ID), CLIENT_ORDER_ID_WORDS)
        text.order_id = order_id
        text.instrument = command.instrument
        text.account = command.account
        text.client_order_id_0 = details.client_order_id_0
        text.client_order_id_1 = details.client_order_id_1
        text.client_order_id_2 = details.client_order_id_2
        text.client_order_id_3 = details.client_order_id_3
        text.client_order_id_4 = details.client_order_id_4
        text.client_order_id_5 = details.client_order_id_5
        text.client_order_id_6 = details.client_order_id_6
        text.client_order_id_7 = details.client_order_id_7
    if has_terms(details):
        terms = view_as(begin_event(core, turn, command, events, EventKind.ORDER_TERMS), ORDER_TERMS_EVENT)
        terms.order_id = order_id
        terms.instrument = command.instrument
        terms.account = command.account
        terms.stop_price_ticks = details.stop_price_ticks
        terms.display_lots = details.display_lots
        terms.expiry_ns = details.expiry_ns
        terms.trailing_offset_ticks = details.trailing_offset_ticks
        terms.peg_offset_ticks = details.peg_offset_ticks
        terms.order_list_id = details.order_list_id
        terms.credential = details.credential
        terms.peg_reference = details.peg_reference
        view_as(terms, EVENT_WORDS).word_15 = 0


@inlined
def emit_following(state: Tables, command: Record, events: Array, order_id: Any) -> None:
    """Write the events that follow the command's own event, if there are any."""
    if state.turn[0].following != 0:
        emit_details(state, command, events, order_id)
