"""What the venue sets: accounts' status and limits, instruments' status and rules, the kill switch.

Called by apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import AMOUNT_LIMIT, reserve_balance
from smrx.engine.kernels.cancelling import cancel_order, cancels_left
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.fees import RATE_UNIT, fee_or_zero
from smrx.engine.kernels.jit import (
    NIL,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
    view_as,
)
from smrx.engine.kernels.lookup import details_of, find_instrument
from smrx.engine.kernels.order_checks import BASIS_POINTS
from smrx.engine.kernels.state_hash import refresh_account, refresh_instrument
from smrx.engine.state import BOOKS
from smrx.wire.codes import (
    AccountStatus,
    CollarReference,
    CommandKind,
    EventKind,
    InstrumentStatus,
    Reason,
    RuleFlags,
)
from smrx.wire.records import (
    LIMITS_COMMAND,
    LIMITS_EVENT,
    RULES_DETAILS,
    RULES_EVENT,
    STATUS_COMMAND,
    STATUS_EVENT,
)

VENUE: Final = np.uint32(0)
RULE_FLAGS: Final = int(RuleFlags.MIN_NOTIONAL_OF_MARKET | RuleFlags.MAX_NOTIONAL_OF_MARKET)


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


@inlined
def check_limits(command: Record) -> Any:
    """Return why SET_LIMITS is rejected, or NONE."""
    limits = view_as(command, LIMITS_COMMAND)
    amounts = is_amount(limits.max_open_notional) and is_amount(limits.max_order_notional)
    return Reason.NONE if amounts and is_amount(limits.max_order_quantity) else Reason.INVALID_LIMIT


@inlined
def set_limits(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_LIMITS."""
    limits = view_as(command, LIMITS_COMMAND)
    account = state.accounts[state.turn[0].account]
    account.max_open_orders = limits.max_open_orders
    account.max_open_notional = limits.max_open_notional
    account.max_order_notional = limits.max_order_notional
    account.max_order_quantity = limits.max_order_quantity
    refresh_account(state.core[0], account)
    event = view_as(begin_event(state.core[0], state.turn[0], command, events, EventKind.LIMITS_SET), LIMITS_EVENT)
    event.account = limits.account
    event.max_open_orders = limits.max_open_orders
    event.max_open_notional = limits.max_open_notional
    event.max_order_notional = limits.max_order_notional
    event.max_order_quantity = limits.max_order_quantity
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
def cancel_book(state: Tables, command: Record, events: Array, number: Any, most: Any) -> Any:
    """Cancel the orders of a book, best first, oldest first, so many at most; return how many."""
    cancelled = np.int64(0)
    book = state.books[number]
    while book.best != NIL and cancelled < most:
        slot = state.levels[book.best].first
        cancel_order(state, command, events, slot, Reason.INSTRUMENT_CLOSED)
        cancelled += 1
    return cancelled


@kernel
def set_status(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform SET_STATUS. CLOSED cancels all orders, as many as one command may: bids, asks, buy stops, sell stops.

    With orders left the instrument is CANCEL_ONLY, and the outcome says how many.
    """
    turn = state.turn[0]
    first = BOOKS * np.int64(turn.instrument)
    cancelled = np.int64(0)
    status = view_as(command, STATUS_COMMAND).status
    if status == InstrumentStatus.CLOSED:
        most = cancels_left(state.core[0], count_open_orders(state, turn.instrument))
        cancelled += cancel_book(state, command, events, first, most)
        cancelled += cancel_book(state, command, events, first + 1, most - cancelled)
        cancelled += cancel_book(state, command, events, first + 3, most - cancelled)
        cancelled += cancel_book(state, command, events, first + 2, most - cancelled)
        outcome.leaves_lots = count_open_orders(state, turn.instrument)
        if outcome.leaves_lots != 0:
            status = np.uint8(InstrumentStatus.CANCEL_ONLY)
    instrument = state.instruments[turn.instrument]
    instrument.status = np.uint32(status)
    refresh_instrument(state.core[0], instrument)
    event = view_as(begin_event(state.core[0], turn, command, events, EventKind.STATUS_SET), STATUS_EVENT)
    event.instrument = command.instrument
    event.status = status
    event.cancelled = cancelled
    outcome.event_kind = EventKind.STATUS_SET
    outcome.cum_lots = cancelled


@kernel
def check_rules(state: Tables, command: Record) -> Any:
    """Return why SET_RULES is rejected, or NONE. Records the instrument in `turn`."""
    reason = check_known_instrument(state, command)
    if reason != Reason.NONE:
        return reason
    instrument = state.instruments[state.turn[0].instrument]
    rules = view_as(details_of(state, command), RULES_DETAILS)
    if rules.min_price_ticks < 0 or rules.min_price_ticks > instrument.max_price:
        return Reason.INVALID_RULES
    if rules.min_quantity_lots < 0 or rules.min_quantity_lots > instrument.max_quantity:
        return Reason.INVALID_RULES
    if not is_amount(rules.min_notional) or not is_amount(rules.max_notional):
        return Reason.INVALID_RULES
    if rules.max_notional != 0 and rules.min_notional > rules.max_notional:
        return Reason.INVALID_RULES
    taker = np.int64(rules.taker_fee)
    maker = np.int64(rules.maker_fee)
    if taker > RATE_UNIT or maker > taker or maker < -taker or rules.band_bp > BASIS_POINTS:
        return Reason.INVALID_RULES
    if rules.collar_bp > BASIS_POINTS or rules.collar_reference > CollarReference.LAST_TRADE:
        return Reason.INVALID_RULES
    if rules.rule_flags > RULE_FLAGS:
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
    rules = view_as(details_of(state, command), RULES_DETAILS)
    instrument.min_price = rules.min_price_ticks
    instrument.min_quantity = rules.min_quantity_lots
    instrument.min_notional = rules.min_notional
    instrument.max_notional = rules.max_notional
    instrument.taker_fee = np.int64(rules.taker_fee)
    instrument.maker_fee = np.int64(rules.maker_fee)
    instrument.band_bp = np.int64(rules.band_bp)
    instrument.collar_bp = np.int64(rules.collar_bp)
    instrument.collar_reference = rules.collar_reference
    instrument.rule_flags = rules.rule_flags
    if instrument.taker_fee != 0 and instrument.fee_balance == NIL:
        instrument.fee_balance = reserve_balance(state, VENUE, instrument.quote_id)
    refresh_instrument(state.core[0], instrument)
    event = view_as(begin_event(state.core[0], state.turn[0], command, events, EventKind.RULES_SET), RULES_EVENT)
    event.instrument = command.instrument
    event.min_price_ticks = rules.min_price_ticks
    event.min_quantity_lots = rules.min_quantity_lots
    event.min_notional = rules.min_notional
    event.max_notional = rules.max_notional
    event.taker_fee = rules.taker_fee
    event.maker_fee = rules.maker_fee
    event.band_bp = rules.band_bp
    event.collar_bp = rules.collar_bp
    event.collar_reference = rules.collar_reference
    event.rule_flags = rules.rule_flags
    outcome.event_kind = EventKind.RULES_SET


@inlined
def set_kill_switch(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform KILL or REVIVE."""
    killing = command.kind == CommandKind.KILL
    state.core[0].killed = np.uint8(1 if killing else 0)
    kind = EventKind.KILLED if killing else EventKind.REVIVED
    begin_event(state.core[0], state.turn[0], command, events, kind)
    outcome.event_kind = kind
