"""REPLACE: change the price or quantity of an open order, which keeps its id and what it has filled.

Only a smaller quantity at the same price keeps the order's place in its queue; a pending stop always does. Any other
change acts like a cancel and a new order at once: if the new order would be rejected, the old one stays unchanged.
Called by apply.py as placing.py is.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.balances import add_open_notional, release
from smrx.engine.kernels.book import dequeue
from smrx.engine.kernels.cancelling import check_named_order
from smrx.engine.kernels.emit import emit_order_open
from smrx.engine.kernels.fees import hold_amount, is_stop, order_hold
from smrx.engine.kernels.jit import Array, Record, Tables, inlined, kernel
from smrx.engine.kernels.matching import crosses, execute_taker, limit_price, max_events_of_taker, opposite_book
from smrx.engine.kernels.order_checks import POST_ONLY, check_account_limits, check_terms, has_limits, notional_of
from smrx.engine.kernels.orders import open_notional, quote_balance, reduce_order, release_lots
from smrx.engine.kernels.placing import fill_outcome
from smrx.engine.kernels.state_hash import refresh_order
from smrx.wire.codes import EventKind, InstrumentStatus, Reason


@inlined
def is_reduction(command: Record, order: Record) -> Any:
    """Whether the command only reduces the quantity."""
    return command.price_ticks == order.price and command.quantity_lots < order.quantity


@kernel
def check_replace(state: Tables, command: Record) -> Any:
    """Return why a REPLACE is rejected, or NONE. Records the order in `turn`."""
    turn = state.turn[0]
    reason = check_named_order(state, command)
    if reason != Reason.NONE:
        return reason
    order = state.orders[turn.order]
    instrument = state.instruments[order.instrument]
    if instrument.status != InstrumentStatus.TRADING:
        return Reason.INSTRUMENT_NOT_TRADING
    price = command.price_ticks
    lots = command.quantity_lots
    kind = order.order_type
    # Slot 0 is an empty record: the details of an order without.
    details = state.order_details[order.details]
    reason = check_terms(state, instrument, kind, order.tif, order.flags, details, price, lots, order.cum, False)
    if reason != Reason.NONE or is_reduction(command, order):
        return reason
    account = state.accounts[order.account]
    leaves = order.quantity - order.cum
    if has_limits(account):
        notional = notional_of(instrument, order.flags, price, lots)
        old = open_notional(state, order, leaves)
        balance = quote_balance(order)
        reason = check_account_limits(state, account, balance, kind, order.tif, order.flags, notional, lots, 1, old)
        if reason != Reason.NONE:
            return reason
    if order.flags == POST_ONLY:
        book = state.books[opposite_book(order.instrument, order.side)]
        if crosses(state, book, order.side, limit_price(kind, order.side, price)):
            return Reason.POST_ONLY_WOULD_TAKE
    if state.core[0].ledger != 0:
        wanted = hold_amount(instrument, order.side, price, lots - order.cum)
        if wanted > state.balances[order.gives].available + order_hold(instrument, order, leaves):
            return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@kernel
def max_events_of_replace(state: Tables, command: Record, space: Any) -> Any:
    """Return the most events of an accepted REPLACE before any stop is triggered; see max_events_of_taker."""
    order = state.orders[state.turn[0].order]
    if is_stop(order.order_type) or is_reduction(command, order):
        return np.int64(1)
    return max_events_of_taker(
        state, state.instruments[order.instrument], opposite_book(order.instrument, order.side), order.side,
        limit_price(order.order_type, order.side, command.price_ticks), command.quantity_lots - order.cum, order.flags,
        order.stp, order.account, space,
    )  # fmt: skip


@inlined
def replace_stop(state: Tables, command: Record, events: Array, slot: Any) -> None:
    """Give a pending stop a new limit price or quantity; it keeps its stop price and its place."""
    core = state.core[0]
    order = state.orders[slot]
    level = state.levels[order.level]
    release_lots(state, order, order.quantity)
    level.quantity += command.quantity_lots - order.quantity
    order.price = command.price_ticks
    order.quantity = command.quantity_lots
    if core.ledger != 0:
        instrument = state.instruments[order.instrument]
        release(core, state.balances[order.gives], -order_hold(instrument, order, order.quantity))
        add_open_notional(state.balances[quote_balance(order)], open_notional(state, order, order.quantity))
    refresh_order(state, order)
    emit_order_open(core, state.turn[0], command, events, order, EventKind.REPLACED, Reason.NONE)


@kernel
def replace(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked REPLACE."""
    core = state.core[0]
    slot = state.turn[0].order
    order = state.orders[slot]
    outcome.order_id = order.order_id
    cum = order.cum
    reason = Reason.NONE
    if is_reduction(command, order):
        reduce_order(state, command, events, slot, command.quantity_lots, Reason.NONE)
    elif is_stop(order.order_type):
        replace_stop(state, command, events, slot)
    else:
        release_lots(state, order, order.quantity - order.cum)
        dequeue(state, slot)
        order.shown = 0
        order.price = command.price_ticks
        order.quantity = command.quantity_lots
        emit_order_open(core, state.turn[0], command, events, order, EventKind.REPLACED, Reason.NONE)
        order.priority = core.event_sequence
        reason = execute_taker(state, command, events, slot, True)
    fill_outcome(order, outcome, EventKind.REPLACED, cum, reason)
