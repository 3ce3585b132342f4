"""Match an incoming order against the book: price-time priority, self-trade prevention, time in force, fees.

A taker is an order's record that is in no book: new, replaced or triggered. `execute_taker` matches it and then rests
or expires what is left; `match` is the loop over the makers. Before that, `max_events_of_taker` bounds the events it
can cause, and `can_fill` decides whether a fill-or-kill order would fill. Called by placing.py, replacing.py and
triggering.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import credit, subtract_open_notional
from smrx.engine.kernels.book import display_of, refresh_iceberg
from smrx.engine.kernels.cancelling import cancel_order
from smrx.engine.kernels.collar import NO_LIMIT, taker_limit
from smrx.engine.kernels.emit import emit_budget_fill, emit_fill, emit_order_ended, emit_order_open, emit_trade
from smrx.engine.kernels.fees import QUOTE_BUDGET, affordable_lots, fee_or_zero, order_hold, unit_price
from smrx.engine.kernels.jit import (
    NIL,
    U1,
    Array,
    Record,
    Tables,
    either,
    inlined,
    kernel,
)
from smrx.engine.kernels.orders import (
    index_order,
    quote_balance,
    reduce_order,
    remove_order,
    rest_order,
    return_order,
    unindex_order,
)
from smrx.engine.kernels.state_hash import is_empty, refresh_balance, refresh_last_price, refresh_order
from smrx.engine.kernels.stops import elect_stops
from smrx.engine.state import BOOKS
from smrx.wire.codes import (
    EventKind,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)

#: More lots than any account can have.
MAX_LOTS: Final = np.int64(1 << 62)


@inlined
def opposite_book(instrument_slot: Any, side: Any) -> Any:
    """Return the number of the book that an order of this side takes from."""
    return BOOKS * np.int64(instrument_slot) + (1 if side == Side.BUY else 0)


@inlined
def limit_price(order_type: Any, side: Any, price: Any) -> Any:
    """Return the worst price that an order trades at; for a market order, one that every price satisfies."""
    if order_type == OrderType.LIMIT or order_type == OrderType.STOP_LIMIT:
        return price
    return NO_LIMIT if side == Side.BUY else np.int64(0)


@inlined
def accepts(side: Any, limit: Any, price: Any) -> Any:
    """Whether an order with this limit may trade at this price."""
    return either(side == Side.BUY, price <= limit, price >= limit)


@inlined
def crosses(state: Tables, book: Record, side: Any, limit: Any) -> Any:
    """Whether the best level of a book is within the limit."""
    return book.best != NIL and accepts(side, limit, state.levels[book.best].price)


@kernel
def can_fill(state: Tables, book: Record, side: Any, limit: Any, lots: Any, account_id: Any, stp: Any) -> Any:
    """Whether a book has so many lots within the limit for a taker, hidden ones included.

    The account's own orders do not count for CANCEL_OLDEST and count for NONE; for the other modes they end the search.
    The shown lots of an iceberg count at its place in the queue, its hidden lots after all shown lots of the level, as
    matching would reach them.
    """
    at = book.best
    while at != NIL:
        level = state.levels[at]
        if not accepts(side, limit, level.price):
            return False
        hidden = np.int64(0)
        slot = level.first
        while slot != NIL:
            maker = state.orders[slot]
            own = maker.account_id == account_id and stp != Stp.NONE
            if own and stp != Stp.CANCEL_OLDEST:
                return False
            if not own:
                leaves = maker.quantity - maker.cum
                shown = maker.shown if maker.shown != 0 else leaves
                lots -= shown
                hidden += leaves - shown
                if lots <= 0:
                    return True
            slot = maker.next
        lots -= hidden
        if lots <= 0:
            return True
        at = level.worse
    return False


@inlined
def max_events_of_taker(
    state: Tables, instrument: Record, number: Any, side: Any, limit: Any, quantity: Any, flags: Any, stp: Any,
    account: Any, space: Any,
) -> Any:  # fmt: skip
    """Return the most events that a taker can cause; a coarser bound where that one fits into `space` already.

    One event that announces it, at most one that ends it, and three a match.
    """
    book = state.books[number]
    if not crosses(state, book, side, limit):
        return np.int64(2)
    lots = quantity
    if (flags & QUOTE_BUDGET) != 0:
        # No lot is cheaper than at the best price. One more maker is met: the one that is too expensive.
        lots = quantity // unit_price(instrument, state.levels[book.best].price) + 1
    if book.icebergs != 0 or stp == Stp.CANCEL_OLDEST:
        return 2 + 3 * count_maker_visits(state, book, side, limit, lots, account)
    makers = min(np.int64(book.orders), lots)
    if 2 + 3 * makers <= space:
        return 2 + 3 * makers
    return 2 + 3 * min(makers, count_makers_in_reach(state, book, side, limit, lots))


@kernel
def count_makers_in_reach(state: Tables, book: Record, side: Any, limit: Any, wanted: Any) -> Any:
    """Count the orders at the levels that a taker would need if nothing stopped it."""
    makers = np.int64(0)
    lots = np.int64(0)
    at = book.best
    while at != NIL and lots < wanted:
        level = state.levels[at]
        if not accepts(side, limit, level.price):
            break
        makers += np.int64(level.orders)
        lots += level.quantity
        at = level.worse
    return makers


@kernel
def count_maker_visits(state: Tables, book: Record, side: Any, limit: Any, wanted: Any, account: Any) -> Any:
    """Count how often a taker would meet an order: an iceberg once for each part, an own order without filling lots."""
    own = state.accounts[account].account_id
    meetings = np.int64(0)
    lots = np.int64(0)
    at = book.best
    while at != NIL and lots < wanted:
        level = state.levels[at]
        if not accepts(side, limit, level.price):
            break
        slot = level.first
        while slot != NIL:
            maker = state.orders[slot]
            leaves = maker.quantity - maker.cum
            meetings += 1
            display = display_of(state, maker)
            if display != 0:
                meetings += min((leaves - maker.shown + display - 1) // display, wanted)
            if maker.account_id != own:
                lots += leaves
            slot = maker.next
        at = level.worse
    return meetings


@inlined
def pay_maker(state: Tables, instrument: Record, maker: Record, base: Any, quote: Any, lots: Any, charge: Any) -> None:
    """Settle a maker's share of a match: take it from what it holds, credit what it receives."""
    core = state.core[0]
    giving = state.balances[maker.gives]
    was_empty = is_empty(giving)
    if maker.side == Side.BUY:
        held = order_hold(instrument, maker, lots)
        giving.held -= held
        giving.available += held - quote - charge
        got = base
    else:
        giving.held -= base
        got = quote - charge
    refresh_balance(core, giving, was_empty)
    taking = state.balances[maker.takes]
    if got != 0:
        credit(core, taking, got)
    subtract_open_notional(state.balances[quote_balance(maker)], quote)


@inlined
def prevent_self_trade(state: Tables, command: Record, events: Array, taker: Record, slot: Any, leaves: Any) -> Any:
    """Apply the taker's self-trade prevention to an own maker; return the taker's lots left, 0 if it ends."""
    maker = state.orders[slot]
    if taker.stp == Stp.CANCEL_NEWEST:
        return np.int64(0)
    if taker.stp != Stp.DECREMENT:
        cancel_order(state, command, events, slot, Reason.SELF_TRADE)
        return leaves if taker.stp == Stp.CANCEL_OLDEST else np.int64(0)
    own = maker.quantity - maker.cum
    overlap = min(leaves, own)
    if overlap == own:
        cancel_order(state, command, events, slot, Reason.SELF_TRADE)
    else:
        reduce_order(state, command, events, slot, maker.quantity - overlap, Reason.SELF_TRADE)
    if overlap != leaves:
        taker.quantity -= overlap
        kind = EventKind.REPLACED
        emit_order_open(state.core[0], state.turn[0], command, events, taker, kind, Reason.SELF_TRADE)
    return leaves - overlap


@inlined
def fill_maker(state: Tables, slot: Any, lots: Any) -> None:
    """Count filled lots of a maker in its order and its level."""
    maker = state.orders[slot]
    maker.cum += lots
    state.levels[maker.level].quantity -= lots
    if maker.shown != 0:
        maker.shown = maker.shown - lots


@inlined
def finish_maker(state: Tables, slot: Any, refreshed: Any) -> None:
    """Remove a maker that is filled; show the next lots of an iceberg whose shown lots are gone."""
    maker = state.orders[slot]
    if maker.cum == maker.quantity:
        remove_order(state, slot)
        return
    if maker.shown == 0 and display_of(state, maker) != 0:
        refresh_iceberg(state, slot)
        maker.priority = refreshed
    refresh_order(state, maker)


@kernel
def match(state: Tables, command: Record, events: Array, taker: Record, limit: Any) -> Any:
    """Fill the taker against the best levels within its limit, oldest order first.

    Returns why it stopped with lots left although an acceptable maker remains: SELF_TRADE, FUNDS_EXHAUSTED or
    BUDGET_SPENT; else NONE. Adds what the taker gives and gets to `turn`; its balances do not change here.
    """
    core = state.core[0]
    turn = state.turn[0]
    instrument = state.instruments[taker.instrument]
    lot_units = np.int64(instrument.lot_units)
    scale_units = np.int64(instrument.scale_units)
    # Without a ledger no balance changes and fees are 0, but a budget still limits the lots.
    has_ledger = core.ledger != 0
    taker_rate = instrument.taker_fee if has_ledger else np.int64(0)
    maker_rate = instrument.maker_fee if has_ledger else np.int64(0)
    side = taker.side
    is_buy = side == Side.BUY
    book = state.books[opposite_book(taker.instrument, side)]
    leaves = taker.quantity - taker.cum
    is_market_buy = is_buy and taker.order_type == OrderType.MARKET
    is_budget = taker.flags == QUOTE_BUDGET
    available = np.int64(0)
    if is_market_buy:
        available = state.balances[taker.gives].available if has_ledger else MAX_LOTS
        if is_budget:
            leaves = MAX_LOTS
            available = min(available, taker.quantity)
    while leaves > 0 and crosses(state, book, side, limit):
        level = state.levels[book.best]
        slot = level.first
        maker = state.orders[slot]
        if maker.account_id == taker.account_id and taker.stp != Stp.NONE:
            leaves = prevent_self_trade(state, command, events, taker, slot, leaves)
            if leaves == 0:
                return Reason.SELF_TRADE
            continue
        price = level.price
        unit = price * scale_units
        lots = min(leaves, maker.shown if maker.shown != 0 else maker.quantity - maker.cum)
        if is_market_buy and (has_ledger or is_budget):
            lots = min(lots, affordable_lots(available - turn.given, unit, taker_rate))
            if lots == 0:
                if is_budget and unit + fee_or_zero(unit, taker_rate) > taker.quantity - turn.given:
                    return Reason.BUDGET_SPENT
                return Reason.FUNDS_EXHAUSTED
        quote = unit * lots
        base = lots * lot_units
        taker_fee = fee_or_zero(quote, taker_rate)
        maker_fee = fee_or_zero(quote, maker_rate)
        core.match_sequence += U1
        fill_maker(state, slot, lots)
        taker.cum += lots
        leaves -= lots
        if is_buy:
            turn.given += quote + taker_fee
            turn.got += base
        else:
            turn.given += base
            turn.got += quote - taker_fee
        if has_ledger:
            turn.fees += taker_fee + maker_fee
            pay_maker(state, instrument, maker, base, quote, lots, maker_fee)
        instrument.last_price = price
        emit_trade(core, turn, command, events, taker, maker, lots, taker_fee, maker_fee)
        emit_fill(core, turn, command, events, maker, price, lots)
        refreshed = core.event_sequence
        if is_budget:
            spent = affordable_lots(taker.quantity - turn.given, unit, taker_rate) == 0
            emit_budget_fill(core, turn, command, events, taker, price, lots, spent)
            if spent:
                leaves = np.int64(0)
        else:
            emit_fill(core, turn, command, events, taker, price, lots)
        finish_maker(state, slot, refreshed)
    if is_budget and leaves == 0:
        # A spent budget counts as filled: execute_taker compares the two fields.
        taker.quantity = taker.cum
    return Reason.NONE


@inlined
def reason_to_expire(taker: Record, book: Record, stopped: Any) -> Any:
    """Return why the remaining lots cannot rest, or NONE if they can."""
    if stopped != Reason.NONE:
        return stopped
    if taker.order_type == OrderType.MARKET:
        return Reason.NO_LIQUIDITY if book.best == NIL else Reason.COLLAR_REACHED
    if taker.tif != TimeInForce.GTC and taker.tif != TimeInForce.GTD:
        return Reason.IOC_REMAINDER
    return Reason.NONE


@inlined
def settle_taker(state: Tables, instrument: Record, taker: Record, held: Any) -> None:
    """Pay and hold on the taker's side, and credit all fees to the venue, once for all its matches."""
    core = state.core[0]
    turn = state.turn[0]
    if core.ledger == 0:
        return
    taken = turn.given + held
    if taken != 0:
        giving = state.balances[taker.gives]
        was_empty = is_empty(giving)
        giving.available -= taken
        giving.held += held
        refresh_balance(core, giving, was_empty)
    if turn.got != 0:
        credit(core, state.balances[taker.takes], turn.got)
    if turn.fees != 0:
        credit(core, state.balances[instrument.fee_balance], turn.fees)


@inlined
def remove_taker(state: Tables, slot: Any, is_indexed: Any) -> None:
    """Free the record of a taker that has ended."""
    if is_indexed:
        unindex_order(state, slot)
    else:
        return_order(state, slot)


@inlined
def expire_taker(state: Tables, command: Record, events: Array, slot: Any, is_indexed: Any, reason: Any) -> None:
    """End a taker with lots left."""
    kind = EventKind.EXPIRED
    emit_order_ended(state.core[0], state.turn[0], command, events, state.orders[slot], kind, reason)
    remove_taker(state, slot, is_indexed)


@kernel
def execute_taker(state: Tables, command: Record, events: Array, slot: Any, is_indexed: Any) -> Any:
    """Match a taker, then rest or expire the remainder; return the reason why it expired, NONE if it did not.

    A new taker is not indexed yet: neither its account's list nor an index contains it. Its funds are available, not
    held. Stops that its trades reach are elected.
    """
    core = state.core[0]
    turn = state.turn[0]
    turn.given = 0
    turn.got = 0
    turn.fees = 0
    taker = state.orders[slot]
    instrument = state.instruments[taker.instrument]
    stopped = Reason.NONE
    book = state.books[opposite_book(taker.instrument, taker.side)]
    # Most orders do not cross the book.
    limit = taker_limit(state, instrument, book, taker.order_type, taker.side, taker.price)
    if crosses(state, book, taker.side, limit):
        before = core.match_sequence
        stopped = match(state, command, events, taker, limit)
        if core.match_sequence != before:
            refresh_last_price(core, instrument)
            elect_stops(state, taker.instrument)
    if taker.cum == taker.quantity:
        settle_taker(state, instrument, taker, np.int64(0))
        remove_taker(state, slot, is_indexed)
        return Reason.NONE
    reason = reason_to_expire(taker, book, stopped)
    if reason != Reason.NONE:
        settle_taker(state, instrument, taker, np.int64(0))
        expire_taker(state, command, events, slot, is_indexed, reason)
        return reason
    settle_taker(state, instrument, taker, order_hold(instrument, taker, taker.quantity - taker.cum))
    if not is_indexed:
        index_order(state, slot)
    rest_order(state, slot)
    return Reason.NONE
