"""What the venue sets: accounts' status and limits, instruments' status and rules, the kill switch.

Called by apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import AMOUNT_LIMIT, reserve_balance
from smrx.engine.kernels.cancelling import cancel_order
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.fees import RATE_UNIT, fee_or_zero
from smrx.engine.kernels.jit import (
    NIL,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_instrument
from smrx.engine.kernels.order_checks import BASIS_POINTS
from smrx.engine.kernels.registry import scale_units
from smrx.engine.kernels.state_hash import refresh_account, refresh_instrument
from smrx.engine.state import BOOKS
from smrx.wire.codes import AccountStatus, CommandKind, EventKind, InstrumentStatus, Reason

VENUE: Final = np.uint32(0)


@inlined
def set_account_status(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform SUSPEND_ACCOUNT or RESUME_ACCOUNT."""
    suspending = command.kind == CommandKind.SUSPEND_ACCOUNT
    account = state.accounts[state.turn[0].account]
    account.status = AccountStatus.SUSPENDED if suspending else AccountStatus.ACTIVE
    refresh_account(state.core[0], account)
    kind = EventKind.ACCOUNT_SUSPENDED if suspending else EventKind.ACCOUNT_RESUMED
    begin_event(state.core[0], state.turn[0], command, events, kind).account = command.account
    outcome.event_kind = kind


@inlined
def is_amount(value: Any) -> Any:
    """Whether a value is from 0 to AMOUNT_LIMIT - 1."""
    return value >= 0 and value < AMOUNT_LIMIT


# SET_LIMITS and SET_RULES have their own names for the bytes of a command (records.LIMITS_COMMAND, RULES_COMMAND).
# Kernels see the names of COMMAND.


@inlined
def check_limits(command: Record) -> Any:
    """Return why SET_LIMITS is rejected, or NONE."""
    amounts = is_amount(np.int64(command.order_id)) and is_amount(command.price_ticks)
    return Reason.NONE if amounts and is_amount(command.quantity_lots) else Reason.INVALID_LIMIT


@inlined
def set_limits(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_LIMITS."""
    account = state.accounts[state.turn[0].account]
    account.max_open_orders = command.instrument
    account.max_open_notional = np.int64(command.order_id)
    account.max_order_notional = command.price_ticks
    account.max_order_quantity = command.quantity_lots
    refresh_account(state.core[0], account)
    event = begin_event(state.core[0], state.turn[0], command, events, EventKind.LIMITS_SET)
    event.account = command.account
    event.instrument = command.instrument
    event.order_id = command.order_id
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots
    outcome.event_kind = EventKind.LIMITS_SET


@inlined
def check_known_instrument(state: Tables, command: Record) -> Any:
    """Return UNKNOWN_INSTRUMENT or NONE. Records the instrument in `turn`."""
    turn = state.turn[0]
    turn.instrument = find_instrument(state, command.instrument)
    return Reason.NONE if turn.instrument != NIL else Reason.UNKNOWN_INSTRUMENT


@inlined
def count_open_orders(state: Tables, instrument_slot: Any) -> Any:
    """Count an instrument's open orders, stops included."""
    orders = np.int64(0)
    for book in range(BOOKS):
        orders += np.int64(state.books[BOOKS * np.int64(instrument_slot) + book].orders)
    return orders


@inlined
def cancel_book(state: Tables, command: Record, events: Array, number: Any) -> Any:
    """Cancel all orders of a book, best first, oldest first; return how many."""
    cancelled = np.int64(0)
    book = state.books[number]
    while book.best != NIL:
        slot = state.levels[book.best].first
        cancel_order(state, command, events, slot, Reason.INSTRUMENT_CLOSED)
        cancelled += 1
    return cancelled


@kernel
def set_status(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform SET_STATUS. CLOSED cancels all orders: bids, asks, buy stops, sell stops."""
    turn = state.turn[0]
    first = BOOKS * np.int64(turn.instrument)
    cancelled = np.int64(0)
    if command.side == InstrumentStatus.CLOSED:
        cancelled += cancel_book(state, command, events, first)
        cancelled += cancel_book(state, command, events, first + 1)
        cancelled += cancel_book(state, command, events, first + 3)
        cancelled += cancel_book(state, command, events, first + 2)
    instrument = state.instruments[turn.instrument]
    instrument.status = np.uint32(command.side)
    refresh_instrument(state.core[0], instrument)
    event = begin_event(state.core[0], turn, command, events, EventKind.STATUS_SET)
    event.instrument = command.instrument
    event.side = command.side
    event.quantity_lots = cancelled
    outcome.event_kind = EventKind.STATUS_SET
    outcome.cum_lots = cancelled


@inlined
def band_bp(command: Record) -> Any:
    """Bytes 2 and 3."""
    return np.int64(command.order_type) | (np.int64(command.tif) << np.int64(8))


@inlined
def maker_fee(command: Record) -> Any:
    """Bytes 4..7, signed."""
    value = np.int64(scale_units(command))
    return value - (np.int64(1) << np.int64(32)) if value >= (np.int64(1) << np.int64(31)) else value


@inlined
def taker_fee(command: Record) -> Any:
    """Bytes 24..27."""
    return np.int64(command.account)


@kernel
def check_rules(state: Tables, command: Record) -> Any:
    """Return why SET_RULES is rejected, or NONE. Records the instrument in `turn`."""
    reason = check_known_instrument(state, command)
    if reason != Reason.NONE:
        return reason
    instrument = state.instruments[state.turn[0].instrument]
    min_price = np.int64(command.client_order_id)
    min_notional = np.int64(command.order_id)
    max_notional = command.price_ticks
    taker = taker_fee(command)
    maker = maker_fee(command)
    if min_price < 0 or min_price > instrument.max_price:
        return Reason.INVALID_RULES
    if command.quantity_lots < 0 or command.quantity_lots > instrument.max_quantity:
        return Reason.INVALID_RULES
    if (
        not is_amount(min_notional)
        or not is_amount(max_notional)
        or (max_notional != 0 and min_notional > max_notional)
    ):
        return Reason.INVALID_RULES
    if taker > RATE_UNIT or maker > taker or maker < -taker or band_bp(command) > BASIS_POINTS:
        return Reason.INVALID_RULES
    unit = instrument.max_price * np.int64(instrument.scale_units)
    if unit + fee_or_zero(unit, taker) > (AMOUNT_LIMIT - 1) // instrument.max_quantity:
        return Reason.INVALID_RULES
    if (taker != instrument.taker_fee or maker != instrument.maker_fee) and count_open_orders(
        state, state.turn[0].instrument
    ) != 0:
        return Reason.INSTRUMENT_HAS_ORDERS
    return Reason.NONE


@kernel
def set_rules(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_RULES."""
    instrument = state.instruments[state.turn[0].instrument]
    instrument.min_price = np.int64(command.client_order_id)
    instrument.min_quantity = command.quantity_lots
    instrument.min_notional = np.int64(command.order_id)
    instrument.max_notional = command.price_ticks
    instrument.taker_fee = taker_fee(command)
    instrument.maker_fee = maker_fee(command)
    instrument.band_bp = band_bp(command)
    if instrument.taker_fee != 0 and instrument.fee_balance == NIL:
        instrument.fee_balance = reserve_balance(state, VENUE, instrument.quote_id)
    refresh_instrument(state.core[0], instrument)
    event = begin_event(state.core[0], state.turn[0], command, events, EventKind.RULES_SET)
    event.instrument = command.instrument
    event.account = command.account
    event.counter_account = scale_units(command)
    event.cum_lots = instrument.band_bp
    event.client_order_id = command.client_order_id
    event.order_id = command.order_id
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots
    outcome.event_kind = EventKind.RULES_SET


@inlined
def set_kill_switch(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform KILL or REVIVE."""
    killing = command.kind == CommandKind.KILL
    state.core[0].killed = np.uint8(1 if killing else 0)
    kind = EventKind.KILLED if killing else EventKind.REVIVED
    begin_event(state.core[0], state.turn[0], command, events, kind)
    outcome.event_kind = kind
