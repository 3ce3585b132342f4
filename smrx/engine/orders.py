"""The life of an order outside of matching: entry into the books and lists, cancel, replace, mass cancel, death.

Called by machine.py and matching.py.
"""

from typing import Any

import numpy as np

from .book import dequeue, enqueue
from .codes import EventKind, Reason, Side
from .digest import forget, refresh_order
from .emit import begin, order_ends, order_stands
from .index import NO_EXTRA, find, insert, remove
from .jit import NIL, U0, Array, Record, Tables, inlined, kernel
from .ledger import release
from .pool import give_back
from .state import ORDERS


@inlined
def held_by_lots(instrument: Record, order: Record, lots: Any) -> Any:
    """What so many lots of a limit order hold: quote units for a buy, base units for a sell."""
    if order.side == Side.BUY:
        return order.price * lots * np.int64(instrument.scale_units)
    return lots * np.int64(instrument.lot_units)


@inlined
def rest(state: Tables, slot: Any) -> None:
    """Put an order with lots left into its book, its account's list and the indexes."""
    orders = state.orders
    order = orders[slot]
    enqueue(state, np.uint32(2 * np.int64(order.instrument) + np.int64(order.side) - 1), slot)
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
    refresh_order(state.core[0], order)


@kernel
def bury(state: Tables, slot: Any) -> None:
    """Take an order out of everything that knows it. What it held must be settled already."""
    orders = state.orders
    dequeue(state, slot)
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
    remove(state.order_index, order.order_id, NO_EXTRA)
    if order.client_order_id != U0:
        remove(state.client_index, order.client_order_id, order.account_id)
    forget(state.core[0], order)
    give_back(state.pools[ORDERS], orders, slot)


@kernel
def withdraw_order(state: Tables, command: Record, events: Array, slot: Any, reason: Any) -> None:
    """Cancel an open order: event, hold, book."""
    core = state.core[0]
    order = state.orders[slot]
    order_ends(core, state.turn[0], command, events, order, EventKind.CANCELLED, reason)
    held = held_by_lots(state.instruments[order.instrument], order, order.quantity - order.cum)
    release(core, state.balances[order.gives], held)
    bury(state, slot)


@inlined
def check_named_order(state: Tables, command: Record) -> Any:
    """UNKNOWN_ORDER unless the command names an open order of its account. Notes the order."""
    turn = state.turn[0]
    if command.order_id != U0:
        turn.order = find(state.order_index, command.order_id, NO_EXTRA)
    else:
        turn.order = find(state.client_index, command.client_order_id, command.account)
    if turn.order == NIL or state.orders[turn.order].account_id != command.account:
        return Reason.UNKNOWN_ORDER
    return Reason.NONE


@inlined
def check_limits(instrument: Record, price: Any, quantity: Any) -> Any:
    """Price and quantity of a limit order against the instrument's."""
    if price < 1:
        return Reason.INVALID_PRICE
    if price > instrument.max_price:
        return Reason.PRICE_ABOVE_MAXIMUM
    return check_quantity(instrument, quantity)


@inlined
def check_quantity(instrument: Record, quantity: Any) -> Any:
    if quantity < 1:
        return Reason.INVALID_QUANTITY
    if quantity > instrument.max_quantity:
        return Reason.QUANTITY_ABOVE_MAXIMUM
    return Reason.NONE


@kernel
def check_replace(state: Tables, command: Record) -> Any:
    reason = check_named_order(state, command)
    if reason != Reason.NONE:
        return reason
    order = state.orders[state.turn[0].order]
    quantity = command.quantity_lots
    reason = check_limits(state.instruments[order.instrument], command.price_ticks, quantity)
    if reason != Reason.NONE:
        return reason
    if command.price_ticks != order.price or quantity <= order.cum or quantity >= order.quantity:
        return Reason.UNSUPPORTED_COMBINATION
    return Reason.NONE


@inlined
def cancel(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    slot = state.turn[0].order
    order = state.orders[slot]
    outcome.event_kind = EventKind.CANCELLED
    outcome.order_id = order.order_id
    outcome.cum_lots = order.cum
    withdraw_order(state, command, events, slot, Reason.REQUESTED)


@kernel
def replace(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Make an order smaller."""
    core = state.core[0]
    turn = state.turn[0]
    order = state.orders[turn.order]
    fewer = order.quantity - command.quantity_lots
    release(core, state.balances[order.gives], held_by_lots(state.instruments[order.instrument], order, fewer))
    # A smaller quantity keeps its place: queue position is property.
    order.quantity = command.quantity_lots
    state.levels[order.level].quantity -= fewer
    refresh_order(core, order)
    order_stands(core, turn, command, events, order, EventKind.REPLACED)
    outcome.event_kind = EventKind.REPLACED
    outcome.order_id = order.order_id
    outcome.cum_lots = order.cum
    outcome.leaves_lots = order.quantity - order.cum


@inlined
def check_mass_cancel(state: Tables, command: Record) -> Any:
    if command.instrument != 0 and find(state.instrument_index, np.uint64(command.instrument), NO_EXTRA) == NIL:
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
