"""Open orders outside of matching: entry into and removal from books, lists and indexes; holds; reduction in place.

Called by matching.py, placing.py, replacing.py, triggering.py and cancelling.py.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.balances import add_open_notional, release, subtract_open_notional
from smrx.engine.kernels.book import dequeue, display_of, enqueue, resting_book_number, stop_book_number
from smrx.engine.kernels.emit import emit_order_open
from smrx.engine.kernels.expiry_heap import schedule_expiry, unschedule_expiry
from smrx.engine.kernels.fees import is_stop, order_hold, unit_price
from smrx.engine.kernels.hash_index import NO_EXTRA, insert, remove
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    Array,
    Record,
    Tables,
    either,
    inlined,
    kernel,
)
from smrx.engine.kernels.pool import return_slot
from smrx.engine.kernels.state_hash import drop_hash, refresh_order
from smrx.engine.state import ORDER_DETAILS_TABLE, ORDERS
from smrx.wire.codes import EventKind, Side, TimeInForce


@inlined
def quote_balance(order: Record) -> Any:
    """Return the slot of the balance in which the order's notional is counted."""
    return either(order.side == Side.BUY, order.gives, order.takes)


@inlined
def open_notional(state: Tables, order: Record, lots: Any) -> Any:
    """Return what so many lots of an order add to the open notional of its account."""
    return unit_price(state.instruments[order.instrument], order.price) * lots


@kernel
def join_session(state: Tables, order: Record, slot: Any) -> None:
    """Add an order to the end of the list of the session with which it ends."""
    session = state.sessions[order.session]
    session.orders = np.uint32(session.orders + 1)
    ends = state.session_lists[order.session]
    link = state.session_links[slot]
    link.older = ends.last
    link.newer = NIL
    if ends.last == NIL:
        ends.first = slot
    else:
        state.session_links[ends.last].newer = slot
    ends.last = slot


@kernel
def leave_session(state: Tables, order: Record, slot: Any) -> None:
    """Remove an order from the list of the session with which it ends."""
    session = state.sessions[order.session]
    session.orders = np.uint32(session.orders - 1)
    ends = state.session_lists[order.session]
    link = state.session_links[slot]
    if link.older == NIL:
        ends.first = link.newer
    else:
        state.session_links[link.older].newer = link.newer
    if link.newer == NIL:
        ends.last = link.older
    else:
        state.session_links[link.newer].older = link.older


@inlined
def index_order(state: Tables, slot: Any) -> None:
    """Add a new order to its account's list, the indexes, its session's count and, if it is GTD, the expiry heap."""
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
        join_session(state, order, slot)
    if order.tif == TimeInForce.GTD:
        schedule_expiry(state, slot)


@inlined
def return_order(state: Tables, slot: Any) -> None:
    """Return the slot of an order and that of its details."""
    order = state.orders[slot]
    if order.details != NIL:
        return_slot(state.pools[ORDER_DETAILS_TABLE], state.order_details, order.details)
    return_slot(state.pools[ORDERS], state.orders, slot)


@inlined
def unindex_order(state: Tables, slot: Any) -> None:
    """Remove an order from everything but its book, and return its slot."""
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
        leave_session(state, order, slot)
    if order.place != 0:
        unschedule_expiry(state, slot)
    drop_hash(state.core[0], order)
    return_order(state, slot)


@inlined
def rest_order(state: Tables, slot: Any) -> None:
    """Put an order with lots left at the end of the queue of its price, or of its stop price if it is a stop."""
    order = state.orders[slot]
    if is_stop(order.order_type):
        enqueue(state, stop_book_number(order), state.order_details[order.details].stop_price_ticks, slot)
    else:
        order.shown = min(display_of(state, order), order.quantity - order.cum)
        enqueue(state, resting_book_number(order), order.price, slot)
    if state.core[0].ledger != 0:
        add_open_notional(state.balances[quote_balance(order)], open_notional(state, order, order.quantity - order.cum))
    refresh_order(state, order)


@kernel
def remove_order(state: Tables, slot: Any) -> None:
    """Remove an order from its book and everything else. Its hold must be released already."""
    dequeue(state, slot)
    unindex_order(state, slot)


@inlined
def release_lots(state: Tables, order: Record, lots: Any) -> None:
    """Release what so many lots of an open order hold, and subtract them from the open notional."""
    if state.core[0].ledger != 0:
        held = order_hold(state.instruments[order.instrument], order, lots)
        release(state.core[0], state.balances[order.gives], held)
        subtract_open_notional(state.balances[quote_balance(order)], open_notional(state, order, lots))


@kernel
def reduce_order(state: Tables, command: Record, events: Array, slot: Any, quantity: Any, reason: Any) -> None:
    """Reduce the quantity of an open order, which keeps its place: queue position is property."""
    order = state.orders[slot]
    fewer = order.quantity - quantity
    release_lots(state, order, fewer)
    level = state.levels[order.level]
    leaves = quantity - order.cum
    if order.shown == 0:
        level.quantity -= fewer
    elif order.shown > leaves:
        level.quantity -= order.shown - leaves
        order.shown = leaves
    order.quantity = quantity
    refresh_order(state, order)
    emit_order_open(state.core[0], state.turn[0], command, events, order, EventKind.REPLACED, reason)
