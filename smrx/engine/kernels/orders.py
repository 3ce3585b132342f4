"""The life of an order outside of matching: entry into books and lists, cancels of every kind, expiry, death.

Called by apply.py, matching.py, stops.py, replacing.py, sessions.py and venue.py.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.balances import add_open, release, take_open
from smrx.engine.kernels.book import dequeue, display_of, enqueue, public_book, stop_book
from smrx.engine.kernels.emit import begin, order_ends, order_stands
from smrx.engine.kernels.expiry import schedule, unschedule
from smrx.engine.kernels.fees import held_by_lots, is_stop, unit_price
from smrx.engine.kernels.hash_index import NO_EXTRA, insert, remove
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_client_order, find_instrument, find_order
from smrx.engine.kernels.pool import give_back
from smrx.engine.kernels.state_hash import forget, refresh_order
from smrx.engine.state import ORDERS
from smrx.wire.codes import EventKind, Reason, Side, TimeInForce


@inlined
def quote_balance(order: Record) -> Any:
    """The slot of the balance in which the order's notional is counted."""
    return order.gives if order.side == Side.BUY else order.takes


@inlined
def open_notional(state: Tables, order: Record, lots: Any) -> Any:
    """What so many lots of an order count in the open notional of its account."""
    return unit_price(state.instruments[order.instrument], order.price) * lots


@inlined
def enlist(state: Tables, slot: Any) -> None:
    """Put a new order that stays into its account's list, the indexes and, if it is GTD, the heap."""
    orders = state.orders
    order = orders[slot]
    account = state.accounts[order.account]
    order.older = account.last
    order.newer = 0
    if account.last == NIL:
        account.first = slot
    else:
        orders[account.last].newer = slot
    account.last = slot
    account.orders = np.uint32(account.orders + 1)
    insert(state.order_index, order.order_id, NO_EXTRA, slot)
    if order.client_order_id != U0:
        insert(state.client_index, order.client_order_id, order.account_id, slot)
    if order.session != NIL:
        session = state.sessions[order.session]
        session.orders = np.uint32(session.orders + 1)
    if order.tif == TimeInForce.GTD:
        schedule(state, slot)


@inlined
def delist(state: Tables, slot: Any) -> None:
    """Take an order out of everything that knows it but its book, and give its slot back."""
    orders = state.orders
    order = orders[slot]
    account = state.accounts[order.account]
    if order.older == NIL:
        account.first = order.newer
    else:
        orders[order.older].newer = order.newer
    if order.newer == NIL:
        account.last = order.older
    else:
        orders[order.newer].older = order.older
    account.orders = np.uint32(account.orders - 1)
    remove(state.order_index, order.order_id, NO_EXTRA, slot)
    if order.client_order_id != U0:
        remove(state.client_index, order.client_order_id, order.account_id, slot)
    if order.session != NIL:
        session = state.sessions[order.session]
        session.orders = np.uint32(session.orders - 1)
    if order.place != 0:
        unschedule(state, slot)
    forget(state.core[0], order)
    give_back(state.pools[ORDERS], orders, slot)


@inlined
def rest(state: Tables, slot: Any) -> None:
    """Put an order with lots left at the end of the queue of its price, or of its stop price if it is a stop."""
    order = state.orders[slot]
    if is_stop(order.order_type):
        enqueue(state, stop_book(order), np.int64(order.extra), slot)
    else:
        order.shown = np.uint32(min(display_of(order), order.quantity - order.cum))
        enqueue(state, public_book(order), order.price, slot)
    if state.core[0].ledger != 0:
        add_open(state.balances[quote_balance(order)], open_notional(state, order, order.quantity - order.cum))
    refresh_order(state, order)


@kernel
def bury(state: Tables, slot: Any) -> None:
    """Take an order out of its book and everything else. What it held must be settled already."""
    dequeue(state, slot)
    delist(state, slot)


@inlined
def free_lots(state: Tables, order: Record, lots: Any) -> None:
    """Give back what so many lots of an open order hold, and count them as open no more."""
    if state.core[0].ledger != 0:
        held = held_by_lots(state.instruments[order.instrument], order, lots)
        release(state.core[0], state.balances[order.gives], held)
        take_open(state.balances[quote_balance(order)], open_notional(state, order, lots))


@kernel
def end_order(state: Tables, command: Record, events: Array, slot: Any, kind: Any, reason: Any) -> None:
    """End an open order, CANCELLED or EXPIRED: event, hold, book."""
    order = state.orders[slot]
    order_ends(state.core[0], state.turn[0], command, events, order, kind, reason)
    free_lots(state, order, order.quantity - order.cum)
    bury(state, slot)


@inlined
def withdraw_order(state: Tables, command: Record, events: Array, slot: Any, reason: Any) -> None:
    end_order(state, command, events, slot, EventKind.CANCELLED, reason)


@kernel
def shrink(state: Tables, command: Record, events: Array, slot: Any, quantity: Any, reason: Any) -> None:
    """Make an open order smaller; it keeps its place: queue position is property."""
    order = state.orders[slot]
    fewer = order.quantity - quantity
    free_lots(state, order, fewer)
    level = state.levels[order.level]
    leaves = quantity - order.cum
    if order.shown == 0:
        level.quantity -= fewer
    elif np.int64(order.shown) > leaves:
        level.quantity -= np.int64(order.shown) - leaves
        order.shown = np.uint32(leaves)
    order.quantity = quantity
    refresh_order(state, order)
    order_stands(state.core[0], state.turn[0], command, events, order, EventKind.REPLACED, reason)


@inlined
def check_named_order(state: Tables, command: Record) -> Any:
    """UNKNOWN_ORDER unless the command names an open order of its account. Notes the order."""
    turn = state.turn[0]
    if command.order_id != U0:
        turn.order = find_order(state, command.order_id)
    else:
        turn.order = find_client_order(state, command.client_order_id, command.account)
    if turn.order == NIL or state.orders[turn.order].account_id != command.account:
        return Reason.UNKNOWN_ORDER
    return Reason.NONE


@inlined
def cancel(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    slot = state.turn[0].order
    order = state.orders[slot]
    outcome.event_kind = EventKind.CANCELLED
    outcome.order_id = order.order_id
    outcome.cum_lots = order.cum
    withdraw_order(state, command, events, slot, Reason.REQUESTED)


@inlined
def check_mass_cancel(state: Tables, command: Record) -> Any:
    if command.instrument != 0 and find_instrument(state, command.instrument) == NIL:
        return Reason.UNKNOWN_INSTRUMENT
    return Reason.NONE


@kernel
def mass_cancel(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Cancel the account's open orders, of one instrument and side if named, oldest first."""
    cancelled = 0
    slot = state.accounts[state.turn[0].account].first
    while slot != NIL:
        order = state.orders[slot]
        following = order.newer
        wanted = command.instrument == 0 or order.instrument_id == command.instrument
        if wanted and (command.side == Side.ANY or order.side == command.side):
            withdraw_order(state, command, events, slot, Reason.MASS_CANCEL)
            cancelled += 1
        slot = following
    event = begin(state.core[0], state.turn[0], command, events, EventKind.MASS_CANCELLED)
    event.account = command.account
    event.instrument = command.instrument
    event.side = command.side
    event.quantity_lots = cancelled
    outcome.event_kind = EventKind.MASS_CANCELLED
    outcome.cum_lots = cancelled


@kernel
def expire_due(state: Tables, command: Record, events: Array) -> Any:
    """End the GTD orders whose time has come, in order; False, and go on later, when the events buffer is full."""
    core = state.core[0]
    turn = state.turn[0]
    while core.next_expiry <= core.time_ns:
        if turn.written == len(events):
            turn.needed = 1
            return False
        end_order(state, command, events, state.heap[1], EventKind.EXPIRED, Reason.TIME_REACHED)
    return True
