"""PLACE: check a new order, write its record, and execute or rest it.

Called by apply.py: first `check_place`, which changes nothing, then `max_events_of_place` for the space in the events
buffer, then `place`.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import release, reserve_balance
from smrx.engine.kernels.collar import check_market_notional, taker_limit
from smrx.engine.kernels.emit import emit_following, emit_order_open
from smrx.engine.kernels.fees import hold_amount, is_priced, is_stop, order_hold
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    Array,
    Record,
    Tables,
    either,
    inlined,
    kernel,
    view_as,
)
from smrx.engine.kernels.layouts import COMMAND_WORDS, ORDER_WORDS
from smrx.engine.kernels.lookup import details_of, find_balance, find_client_order, find_instrument
from smrx.engine.kernels.matching import (
    can_fill,
    crosses,
    execute_taker,
    expire_taker,
    limit_price,
    max_events_of_taker,
    opposite_book,
)
from smrx.engine.kernels.order_checks import (
    POST_ONLY,
    check_account_limits,
    check_terms,
    has_limits,
    is_unsupported,
    notional_of,
)
from smrx.engine.kernels.order_details import copy_details, has_terms, has_text
from smrx.engine.kernels.orders import index_order, rest_order
from smrx.engine.kernels.pool import take_slot
from smrx.engine.kernels.state_hash import TERMS, U8
from smrx.engine.kernels.stops import is_reached
from smrx.engine.state import ORDER_DETAILS_TABLE, ORDERS
from smrx.wire.codes import (
    EventKind,
    InstrumentStatus,
    Reason,
    Side,
    TimeInForce,
)

#: ORDER.live in its word.
LIVE: Final = np.uint64(1 << 40)


@inlined
def lacks_funds(state: Tables, command: Record, instrument: Record) -> Any:
    """Whether the account cannot pay the hold. A market buy, also a pending one, holds nothing."""
    if state.core[0].ledger == 0:
        return False
    is_buy = command.side == Side.BUY
    if not is_priced(command.order_type) and is_buy:
        return False
    wanted = hold_amount(instrument, command.side, command.price_ticks, command.quantity_lots)
    # Slot 0 is an empty record: an account without the balance has nothing available.
    return state.balances[state.turn[0].balance].available < wanted


@inlined
def check_new_order_limits(state: Tables, command: Record, instrument: Record) -> Any:
    """Check a PLACE against the limits of its account."""
    turn = state.turn[0]
    account = state.accounts[turn.account]
    if not has_limits(account):
        return Reason.NONE
    quote = turn.balance
    if command.side == Side.SELL:
        quote = find_balance(state, command.account, instrument.quote_id)
    kind = command.order_type
    notional = notional_of(instrument, command.flags, command.price_ticks, command.quantity_lots)
    return check_account_limits(
        state, account, quote, kind, command.tif, command.flags, notional, command.quantity_lots, 0, 0
    )


@inlined
def check_place(state: Tables, command: Record) -> Any:
    """Return why a PLACE is rejected, FOK_UNFILLABLE (no rejection), or NONE. Records instrument and balance."""
    turn = state.turn[0]
    turn.instrument = find_instrument(state, command.instrument)
    if turn.instrument == NIL:
        return Reason.UNKNOWN_INSTRUMENT
    instrument = state.instruments[turn.instrument]
    if instrument.status != InstrumentStatus.TRADING:
        return Reason.INSTRUMENT_NOT_TRADING
    if turn.client_order_id != U0 and find_client_order(state, turn.client_order_id, command.account) != NIL:
        return Reason.DUPLICATE_CLIENT_ORDER_ID
    side = command.side
    kind = command.order_type
    lots = command.quantity_lots
    price = command.price_ticks
    tif = command.tif
    details = details_of(state, command)
    reason = check_terms(state, instrument, kind, tif, command.flags, details, price, lots, np.int64(0), True)
    if reason != Reason.NONE:
        return reason
    if instrument.rule_flags != 0:
        reason = check_market_notional(state, instrument, state.books[opposite_book(turn.instrument, side)], command)
        if reason != Reason.NONE:
            return reason
    if state.core[0].ledger != 0:
        gives = either(side == Side.BUY, instrument.quote_id, instrument.base_id)
        turn.balance = find_balance(state, command.account, gives)
    reason = check_new_order_limits(state, command, instrument)
    if reason != Reason.NONE:
        return reason
    if is_unsupported(command, details.display_lots):
        return Reason.UNSUPPORTED_COMBINATION
    if is_stop(kind):
        if is_reached(side, details.stop_price_ticks, instrument.last_price):
            return Reason.STOP_WOULD_TRIGGER
    else:
        book = state.books[opposite_book(turn.instrument, side)]
        limit = limit_price(kind, side, price)
        if command.flags == POST_ONLY and crosses(state, book, side, limit):
            return Reason.POST_ONLY_WOULD_TAKE
        fills = tif != TimeInForce.FOK or can_fill(state, book, side, limit, lots, command.account, command.stp)
        if not fills:
            return Reason.FOK_UNFILLABLE
    if lacks_funds(state, command, instrument):
        return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@inlined
def max_events_of_place(state: Tables, command: Record, space: Any) -> Any:
    """Return the most events of an accepted PLACE before any stop is triggered; see max_events_of_taker."""
    if is_stop(command.order_type):
        return np.int64(1)
    turn = state.turn[0]
    instrument = state.instruments[turn.instrument]
    number = opposite_book(turn.instrument, command.side)
    limit = taker_limit(state, instrument, state.books[number], command.order_type, command.side, command.price_ticks)
    return max_events_of_taker(
        state, instrument, number, command.side, limit, command.quantity_lots, command.flags, command.stp,
        turn.account, space,
    )  # fmt: skip


@kernel
def keep_details(state: Tables, command: Record) -> Any:
    """Copy a command's details to the table of open orders; return their slot, 0 if they are empty."""
    details = details_of(state, command)
    if not has_text(details) and not has_terms(details):
        return NIL
    slot = take_slot(state.pools[ORDER_DETAILS_TABLE], state.order_details)
    copy_details(details, state.order_details[slot])
    return slot


@inlined
def init_order(state: Tables, command: Record, slot: Any) -> None:
    """Fill an order's record from its command."""
    order = state.orders[slot]
    turn = state.turn[0]
    order.order_id = state.core[0].command_sequence
    order.client_order_id = turn.client_order_id
    order.price = command.price_ticks
    order.quantity = command.quantity_lots
    order.cum = 0
    # The sequence of the event that is written next.
    order.priority = state.core[0].event_sequence + np.uint64(1)
    order.hash = 0
    order.details = 0
    if command.details != 0:
        order.details = keep_details(state, command)
    # In whole words, see emit.fill_order_event.
    words = view_as(order, ORDER_WORDS)
    source = view_as(command, COMMAND_WORDS)
    words.parties = source.word_3
    words.terms = ((source.word_0 >> U8) & TERMS) | LIVE
    order.account = turn.account
    order.instrument = turn.instrument
    order.level = 0
    order.gives = 0
    order.takes = 0
    order.shown = 0
    order.place = 0
    order.session = 0
    if turn.session != NIL and state.sessions[turn.session].flags != 0:
        order.session = turn.session


@inlined
def assign_balances(state: Tables, order: Record) -> None:
    """Set the balances that a new order gives from and is paid into; reserve those that do not exist."""
    turn = state.turn[0]
    if state.core[0].ledger != 0:
        instrument = state.instruments[order.instrument]
        is_buy = order.side == Side.BUY
        order.gives = turn.balance
        if turn.balance == NIL:
            order.gives = reserve_balance(
                state, order.account_id, either(is_buy, instrument.quote_id, instrument.base_id)
            )
        takes = either(is_buy, instrument.base_id, instrument.quote_id)
        order.takes = find_balance(state, order.account_id, takes)
        if order.takes == NIL:
            order.takes = reserve_balance(state, order.account_id, takes)


@inlined
def place(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """Enter a checked order: rest a stop, execute any other. `reason` is FOK_UNFILLABLE or NONE."""
    slot = take_slot(state.pools[ORDERS], state.orders)
    init_order(state, command, slot)
    order = state.orders[slot]
    outcome.order_id = order.order_id
    if reason != Reason.NONE:
        expire_taker(state, command, events, slot, False, reason)
        emit_following(state, command, events, order.order_id)
    else:
        assign_balances(state, order)
        emit_order_open(state.core[0], state.turn[0], command, events, order, EventKind.NEW, Reason.NONE)
        emit_following(state, command, events, order.order_id)
        if is_stop(order.order_type):
            rest_stop(state, slot)
        else:
            reason = execute_taker(state, command, events, slot, False)
    fill_outcome(order, outcome, EventKind.NEW, np.int64(0), reason)


@inlined
def fill_outcome(order: Record, outcome: Record, kind: Any, cum: Any, reason: Any) -> None:
    """Fill the outcome of a command whose order was a taker.

    `kind` is its event kind if the order neither traded nor ended; `cum` is what it had filled before.
    """
    outcome.cum_lots = order.cum
    outcome.reason = reason
    if reason != Reason.NONE:
        outcome.event_kind = EventKind.EXPIRED
    elif order.cum == order.quantity:
        outcome.event_kind = EventKind.FILLED
    else:
        outcome.leaves_lots = order.quantity - order.cum
        outcome.event_kind = kind if order.cum == cum else EventKind.PARTIALLY_FILLED


@kernel
def rest_stop(state: Tables, slot: Any) -> None:
    """Hold the funds of a new stop order and put it into its stop book."""
    order = state.orders[slot]
    core = state.core[0]
    if core.ledger != 0:
        held = order_hold(state.instruments[order.instrument], order, order.quantity)
        release(core, state.balances[order.gives], -held)
    index_order(state, slot)
    rest_order(state, slot)
