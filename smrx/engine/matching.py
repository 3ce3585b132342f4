"""A taker against the book: price-time priority, self-trade prevention, time in force.

Called by machine.py: `check_place` first, which changes nothing, then `events_of_place` to see that the buffer
suffices, then `place`.
"""

from typing import Any

import numpy as np

from .codes import EventKind, InstrumentStatus, OrderType, Reason, Side, Stp, TimeInForce
from .digest import refresh_balance, refresh_order
from .emit import order_ends, order_filled, order_stands, traded
from .index import NO_EXTRA, find
from .jit import NIL, U0, U1, Array, Record, Tables, inlined, kernel
from .ledger import balance_slot, credit, reserve_balance
from .orders import bury, check_limits, check_quantity, held_by_lots, rest
from .pool import give_back, take
from .refusals import POST_ONLY
from .state import ORDERS


@inlined
def opposite_book(instrument_slot: Any, side: Any) -> Any:
    """The number of the book that an order of this side takes from."""
    return 2 * np.int64(instrument_slot) + (1 if side == Side.BUY else 0)


@inlined
def accepts(command: Record, price: Any) -> Any:
    """Whether the order may trade at this price."""
    if command.order_type == OrderType.MARKET:
        return True
    if command.side == Side.BUY:
        return price <= command.price_ticks
    return price >= command.price_ticks


@inlined
def crosses(state: Tables, command: Record, book: Record) -> Any:
    return book.best != NIL and accepts(command, state.levels[book.best].price)


@inlined
def unsupported(command: Record) -> Any:
    """Combinations of order type, time in force, self-trade prevention and flags that are not offered."""
    market = command.order_type == OrderType.MARKET
    if command.tif == TimeInForce.GTD or command.stp != Stp.CANCEL_NEWEST:
        return True
    if market and command.tif != TimeInForce.IOC:
        return True
    return command.flags != 0 and (market or command.tif != TimeInForce.GTC)


@kernel
def fills_whole(state: Tables, command: Record, book: Record) -> Any:
    """Whether the book has all the lots within the limit, before the first order of the same account."""
    wanted = command.quantity_lots
    at = book.best
    while at != NIL:
        level = state.levels[at]
        if not accepts(command, level.price):
            return False
        slot = level.first
        while slot != NIL:
            maker = state.orders[slot]
            if maker.account_id == command.account:
                return False
            wanted -= maker.quantity - maker.cum
            if wanted <= 0:
                return True
            slot = maker.next
        at = level.worse
    return False


@inlined
def lacks_funds(state: Tables, command: Record, instrument: Record) -> Any:
    """Whether the hold cannot be paid. A market buy holds nothing: it takes what it can pay. Notes the balance."""
    turn = state.turn[0]
    buying = command.side == Side.BUY
    turn.balance = balance_slot(state, command.account, instrument.quote_id if buying else instrument.base_id)
    if buying and command.order_type == OrderType.MARKET:
        return False
    if buying:
        wanted = command.price_ticks * command.quantity_lots * np.int64(instrument.scale_units)
    else:
        wanted = command.quantity_lots * np.int64(instrument.lot_units)
    # Slot 0 is an empty record: who has no balance has nothing available.
    return state.balances[turn.balance].available < wanted


@inlined
def check_place(state: Tables, command: Record) -> Any:
    """Why a PLACE is refused, FOK_UNFILLABLE (which is no refusal), or NONE. Notes instrument and balance."""
    turn = state.turn[0]
    turn.instrument = find(state.instrument_index, np.uint64(command.instrument), NO_EXTRA)
    if turn.instrument == NIL:
        return Reason.UNKNOWN_INSTRUMENT
    instrument = state.instruments[turn.instrument]
    if instrument.status != InstrumentStatus.TRADING:
        return Reason.INSTRUMENT_NOT_TRADING
    if command.client_order_id != U0 and find(state.client_index, command.client_order_id, command.account) != NIL:
        return Reason.DUPLICATE_CLIENT_ORDER_ID
    if command.order_type == OrderType.LIMIT:
        reason = check_limits(instrument, command.price_ticks, command.quantity_lots)
    elif command.price_ticks != 0:
        reason = Reason.INVALID_PRICE
    else:
        reason = check_quantity(instrument, command.quantity_lots)
    if reason != Reason.NONE:
        return reason
    if unsupported(command):
        return Reason.UNSUPPORTED_COMBINATION
    book = state.books[opposite_book(turn.instrument, command.side)]
    if command.flags == POST_ONLY and crosses(state, command, book):
        return Reason.POST_ONLY_WOULD_TAKE
    if command.tif == TimeInForce.FOK and not fills_whole(state, command, book):
        return Reason.FOK_UNFILLABLE
    if lacks_funds(state, command, instrument):
        return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@inlined
def events_of_place(state: Tables, command: Record, space: Any) -> Any:
    """The most events an accepted PLACE can make; a coarser bound where that fits into the space already."""
    book = state.books[opposite_book(state.turn[0].instrument, command.side)]
    if not crosses(state, command, book):
        return 2
    makers = min(np.int64(book.orders), command.quantity_lots)
    # NEW, at most one EXPIRED, and three events a match.
    if 2 + 3 * makers <= space:
        return 2 + 3 * makers
    return 2 + 3 * makers_in_reach(state, command, book)


@kernel
def makers_in_reach(state: Tables, command: Record, book: Record) -> Any:
    """How many orders there are at the levels that the taker would need, if it met no obstacle."""
    makers = np.int64(0)
    lots = np.int64(0)
    at = book.best
    while at != NIL and lots < command.quantity_lots:
        level = state.levels[at]
        if not accepts(command, level.price):
            break
        makers += np.int64(level.orders)
        lots += level.quantity
        at = level.worse
    return makers


@kernel
def write_order(state: Tables, command: Record, slot: Any) -> None:
    """Fill an order's record from its command."""
    order = state.orders[slot]
    turn = state.turn[0]
    order.order_id = state.core[0].command_sequence
    order.client_order_id = command.client_order_id
    order.price = command.price_ticks
    order.quantity = command.quantity_lots
    order.cum = 0
    order.priority = order.order_id
    order.hash = 0
    order.account_id = command.account
    order.instrument_id = command.instrument
    order.side = command.side
    order.order_type = command.order_type
    order.tif = command.tif
    order.stp = command.stp
    order.flags = command.flags
    order.account = turn.account
    order.instrument = turn.instrument


@kernel
def expire_unfillable(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """A fill-or-kill order that cannot fill whole: accepted, and over."""
    slot = take(state.pools[ORDERS], state.orders)
    write_order(state, command, slot)
    order = state.orders[slot]
    order_ends(state.core[0], state.turn[0], command, events, order, EventKind.EXPIRED, Reason.FOK_UNFILLABLE)
    outcome.event_kind = EventKind.EXPIRED
    outcome.reason = Reason.FOK_UNFILLABLE
    outcome.order_id = order.order_id
    give_back(state.pools[ORDERS], state.orders, slot)


@inlined
def pay_maker(state: Tables, maker: Record, gives: Any, takes: Any) -> None:
    """Move a maker's share of a match: out of what it holds, into what it is paid in."""
    core = state.core[0]
    giving = state.balances[maker.gives]
    giving.held -= gives
    refresh_balance(core, giving)
    credit(core, state.balances[maker.takes], takes)


@inlined
def match(state: Tables, command: Record, events: Array, taker: Record) -> Any:
    """Fill the taker against the best levels, oldest first.

    Returns why it stopped with lots left though an acceptable order remains: SELF_TRADE, FUNDS_EXHAUSTED; else NONE.
    Leaves in the turn what the taker gave and got; the taker's balances are not touched.
    """
    core = state.core[0]
    turn = state.turn[0]
    turn.given = 0
    turn.got = 0
    instrument = state.instruments[taker.instrument]
    lot_units = np.int64(instrument.lot_units)
    scale_units = np.int64(instrument.scale_units)
    buying = taker.side == Side.BUY
    paying_as_it_goes = buying and taker.order_type == OrderType.MARKET
    budget = state.balances[taker.gives].available
    book = state.books[opposite_book(taker.instrument, taker.side)]
    while taker.cum < taker.quantity and crosses(state, command, book):
        level = state.levels[book.best]
        slot = level.first
        maker = state.orders[slot]
        if maker.account_id == taker.account_id:
            return Reason.SELF_TRADE
        lots = min(taker.quantity - taker.cum, maker.quantity - maker.cum)
        if paying_as_it_goes:
            lots = min(lots, (budget - turn.given) // (level.price * scale_units))
            if lots == 0:
                return Reason.FUNDS_EXHAUSTED
        quote = level.price * lots * scale_units
        base = lots * lot_units
        core.match_sequence += U1
        maker.cum += lots
        taker.cum += lots
        level.quantity -= lots
        if buying:
            turn.given += quote
            turn.got += base
            pay_maker(state, maker, base, quote)
        else:
            turn.given += base
            turn.got += quote
            pay_maker(state, maker, quote, base)
        traded(core, turn, command, events, taker, maker, lots)
        order_filled(core, turn, command, events, maker, maker.price, lots)
        order_filled(core, turn, command, events, taker, maker.price, lots)
        if maker.cum == maker.quantity:
            bury(state, slot)
        else:
            refresh_order(core, maker)
    return Reason.NONE


@inlined
def why_it_ends(taker: Record, stopped: Any) -> Any:
    """The reason why the lots that are left cannot rest, or NONE if they can."""
    if stopped != Reason.NONE:
        return stopped
    if taker.order_type == OrderType.MARKET:
        return Reason.NO_LIQUIDITY
    if taker.tif != TimeInForce.GTC:
        return Reason.IOC_REMAINDER
    return Reason.NONE


@inlined
def settle_taker(state: Tables, taker: Record, held: Any) -> None:
    """Pay and hold on the taker's side, once for all its matches."""
    core = state.core[0]
    turn = state.turn[0]
    taken = turn.given + held
    if taken != 0:
        giving = state.balances[taker.gives]
        giving.available -= taken
        giving.held += held
        refresh_balance(core, giving)
    if turn.got != 0:
        credit(core, state.balances[taker.takes], turn.got)


@inlined
def place(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Enter a checked order: match it, then let the rest stand or expire."""
    core = state.core[0]
    turn = state.turn[0]
    instrument = state.instruments[turn.instrument]
    slot = take(state.pools[ORDERS], state.orders)
    write_order(state, command, slot)
    taker = state.orders[slot]
    buying = command.side == Side.BUY
    taker.gives = turn.balance
    if turn.balance == NIL:
        taker.gives = reserve_balance(state, command.account, instrument.quote_id)
    taker.takes = reserve_balance(state, command.account, instrument.base_id if buying else instrument.quote_id)
    order_stands(core, turn, command, events, taker, EventKind.NEW)
    outcome.order_id = taker.order_id

    stopped = match(state, command, events, taker)
    outcome.cum_lots = taker.cum
    if taker.cum == taker.quantity:
        settle_taker(state, taker, np.int64(0))
        give_back(state.pools[ORDERS], state.orders, slot)
        outcome.event_kind = EventKind.FILLED
        return
    reason = why_it_ends(taker, stopped)
    if reason != Reason.NONE:
        settle_taker(state, taker, np.int64(0))
        order_ends(core, turn, command, events, taker, EventKind.EXPIRED, reason)
        give_back(state.pools[ORDERS], state.orders, slot)
        outcome.event_kind = EventKind.EXPIRED
        outcome.reason = reason
        return
    settle_taker(state, taker, held_by_lots(instrument, taker, taker.quantity - taker.cum))
    rest(state, slot)
    outcome.leaves_lots = taker.quantity - taker.cum
    outcome.event_kind = EventKind.NEW if taker.cum == 0 else EventKind.PARTIALLY_FILLED
