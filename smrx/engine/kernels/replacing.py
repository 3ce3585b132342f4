"""REPLACE: a new price or quantity for an open order, which keeps its id and what was filled of it.

Only a smaller quantity at the same price keeps its place; so does a pending stop whatever changes. Anything else is as
if cancelled and placed at once: if the new one would be refused, the old one stands untouched. Called by apply.py as
placing.py is.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.balances import add_open, release
from smrx.engine.kernels.book import dequeue
from smrx.engine.kernels.emit import order_stands
from smrx.engine.kernels.fees import held_by_lots, hold_of, is_stop
from smrx.engine.kernels.jit import Array, Record, Tables, inlined, kernel
from smrx.engine.kernels.matching import crosses, engage, limit_price, most_events, opposite_book
from smrx.engine.kernels.order_checks import POST_ONLY, check_account_limits, check_terms, has_limits, notional_of
from smrx.engine.kernels.orders import check_named_order, free_lots, open_notional, quote_balance, shrink
from smrx.engine.kernels.placing import tell
from smrx.engine.kernels.state_hash import refresh_order
from smrx.wire.codes import EventKind, InstrumentStatus, Reason


@inlined
def is_shrink(command: Record, order: Record) -> Any:
    """Whether the order only gets smaller."""
    return command.price_ticks == order.price and command.quantity_lots < order.quantity


@kernel
def check_replace(state: Tables, command: Record) -> Any:
    """Why a REPLACE is refused, or NONE. Notes the order."""
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
    reason = check_terms(state, instrument, kind, order.tif, order.flags, order.extra, price, lots, order.cum, False)
    if reason != Reason.NONE or is_shrink(command, order):
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
        wanted = hold_of(instrument, order.side, price, lots - order.cum)
        if wanted > state.balances[order.gives].available + held_by_lots(instrument, order, leaves):
            return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@kernel
def events_of_replace(state: Tables, command: Record, space: Any) -> Any:
    """The most events an accepted REPLACE can make before any stop is triggered; see most_events."""
    order = state.orders[state.turn[0].order]
    if is_stop(order.order_type) or is_shrink(command, order):
        return np.int64(1)
    return most_events(
        state, state.instruments[order.instrument], opposite_book(order.instrument, order.side), order.side,
        limit_price(order.order_type, order.side, command.price_ticks), command.quantity_lots - order.cum, order.flags,
        order.stp, order.account, space,
    )  # fmt: skip


@inlined
def change_stop(state: Tables, command: Record, events: Array, slot: Any) -> None:
    """Give a pending stop a new limit price or quantity; it keeps its stop price and its place."""
    core = state.core[0]
    order = state.orders[slot]
    level = state.levels[order.level]
    free_lots(state, order, order.quantity)
    level.quantity += command.quantity_lots - order.quantity
    order.price = command.price_ticks
    order.quantity = command.quantity_lots
    if core.ledger != 0:
        instrument = state.instruments[order.instrument]
        release(core, state.balances[order.gives], -held_by_lots(instrument, order, order.quantity))
        add_open(state.balances[quote_balance(order)], open_notional(state, order, order.quantity))
    refresh_order(state, order)
    order_stands(core, state.turn[0], command, events, order, EventKind.REPLACED, Reason.NONE)


@kernel
def replace(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Change a checked order."""
    core = state.core[0]
    slot = state.turn[0].order
    order = state.orders[slot]
    outcome.order_id = order.order_id
    cum = order.cum
    reason = Reason.NONE
    if is_shrink(command, order):
        shrink(state, command, events, slot, command.quantity_lots, Reason.NONE)
    elif is_stop(order.order_type):
        change_stop(state, command, events, slot)
    else:
        free_lots(state, order, order.quantity - order.cum)
        dequeue(state, slot)
        order.shown = 0
        order.price = command.price_ticks
        order.quantity = command.quantity_lots
        order_stands(core, state.turn[0], command, events, order, EventKind.REPLACED, Reason.NONE)
        order.priority = core.event_sequence
        reason = engage(state, command, events, slot, True)
    tell(order, outcome, EventKind.REPLACED, cum, reason)
