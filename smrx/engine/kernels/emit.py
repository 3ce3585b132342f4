"""Write events into the buffer, one function for each shape. The caller ensures the space (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.fees import QUOTE_BUDGET
from smrx.engine.kernels.jit import U0, U1, U32, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.layouts import CLIENT_ORDER_ID_WORDS, COMMAND_WORDS, EVENT_WORDS, ORDER_WORDS
from smrx.engine.kernels.lookup import details_of
from smrx.engine.kernels.order_details import has_terms, has_text
from smrx.engine.kernels.state_hash import TERMS, U8, U48
from smrx.wire.codes import EventKind, Reason
from smrx.wire.records import ORDER_TERMS_EVENT


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
def fill_order_event(
    event: Record, core: Record, turn: Record, command: Record, order: Record, kind: Any, reason: Any, price: Any,
    lots: Any, leaves: Any, match_id: Any,
) -> None:  # fmt: skip
    """Set all fields of an event of an order, `lots` its quantity.

    In whole words, because the hash of the event reads words soon: the processor has to wait for a word that was
    written in parts.
    """
    core.event_sequence += U1
    source = view_as(order, ORDER_WORDS)
    words = view_as(event, EVENT_WORDS)
    words.word_0 = core.event_sequence
    words.word_1 = core.command_sequence
    words.word_2 = np.uint64(core.time_ns)
    words.word_3 = np.uint64(kind) | ((source.terms & TERMS) << U8) | (np.uint64(reason) << U48)
    words.word_4 = command.session_id
    words.word_5 = command.request_id
    words.word_6 = order.order_id
    words.word_7 = (source.parties >> U32) | (source.parties << U32)
    words.word_8 = order.client_order_id
    words.word_9 = np.uint64(price)
    words.word_10 = np.uint64(lots)
    words.word_11 = np.uint64(order.cum)
    words.word_12 = np.uint64(leaves)
    words.word_13 = match_id
    words.word_14 = 0
    words.word_15 = turn.credential


@inlined
def next_event(turn: Record, events: Array) -> Any:
    """Take the next event of the buffer."""
    event = events[turn.written]
    turn.written += 1
    return event


@inlined
def emit_order_open(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """Write NEW, REPLACED or TRIGGERED."""
    if skip_unreported(core):
        return
    leaves = np.int64(0) if order.flags == QUOTE_BUDGET else order.quantity - order.cum
    event = next_event(turn, events)
    fill_order_event(event, core, turn, command, order, kind, reason, order.price, order.quantity, leaves, U0)


@inlined
def emit_order_ended(
    core: Record, turn: Record, command: Record, events: Array, order: Record, kind: Any, reason: Any
) -> None:
    """Write CANCELLED or EXPIRED."""
    if skip_unreported(core):
        return
    lots = order.cum if order.flags == QUOTE_BUDGET else order.quantity
    event = next_event(turn, events)
    fill_order_event(event, core, turn, command, order, kind, reason, order.price, lots, np.int64(0), U0)


@inlined
def emit_fill(core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any) -> None:
    """Write PARTIALLY_FILLED or FILLED, after the order's progress was updated."""
    if skip_unreported(core):
        return
    leaves = order.quantity - order.cum
    kind = EventKind.FILLED if leaves == 0 else EventKind.PARTIALLY_FILLED
    event = next_event(turn, events)
    fill_order_event(event, core, turn, command, order, kind, Reason.NONE, price, lots, leaves, core.match_sequence)


@inlined
def emit_budget_fill(
    core: Record, turn: Record, command: Record, events: Array, order: Record, price: Any, lots: Any, spent: Any
) -> None:
    """Write a fill of a market buy by budget; the caller says whether the budget is spent."""
    if skip_unreported(core):
        return
    kind = EventKind.FILLED if spent else EventKind.PARTIALLY_FILLED
    event = next_event(turn, events)
    fill_order_event(
        event, core, turn, command, order, kind, Reason.NONE, price, lots, np.int64(0), core.match_sequence
    )


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
    """Write TRADE, in whole words, see fill_order_event."""
    core.event_sequence += U1
    words = view_as(next_event(turn, events), EVENT_WORDS)
    words.word_0 = core.event_sequence
    words.word_1 = core.command_sequence
    words.word_2 = np.uint64(core.time_ns)
    words.word_3 = np.uint64(EventKind.TRADE) | (np.uint64(taker.side) << U8)
    words.word_4 = command.session_id
    words.word_5 = command.request_id
    words.word_6 = taker.order_id
    words.word_7 = np.uint64(taker.instrument_id) | (np.uint64(taker.account_id) << U32)
    words.word_8 = turn.credential
    words.word_9 = np.uint64(maker.price)
    words.word_10 = np.uint64(lots)
    words.word_11 = np.uint64(taker_fee)
    words.word_12 = np.uint64(maker_fee)
    words.word_13 = core.match_sequence
    words.word_14 = maker.order_id
    words.word_15 = np.uint64(maker.account_id)


@kernel
def emit_rejected(core: Record, turn: Record, command: Record, events: Array, reason: Any) -> None:
    """Write REJECTED, with the command as it was sent, in whole words, see fill_order_event."""
    core.event_sequence += U1
    source = view_as(command, COMMAND_WORDS)
    words = view_as(next_event(turn, events), EVENT_WORDS)
    words.word_0 = core.event_sequence
    words.word_1 = core.command_sequence
    words.word_2 = np.uint64(core.time_ns)
    terms = (source.word_0 >> U8) & TERMS
    words.word_3 = np.uint64(EventKind.REJECTED) | (terms << U8) | (np.uint64(reason) << U48)
    words.word_4 = command.session_id
    words.word_5 = command.request_id
    words.word_6 = command.order_id
    words.word_7 = (source.word_3 >> U32) | (source.word_3 << U32)
    words.word_8 = turn.client_order_id
    words.word_9 = np.uint64(command.price_ticks)
    words.word_10 = np.uint64(command.quantity_lots)
    words.word_11 = 0
    words.word_12 = 0
    words.word_13 = 0
    words.word_14 = 0
    words.word_15 = turn.credential | (np.uint64(command.kind) << U32)


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
