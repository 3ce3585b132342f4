"""A taker against the book: price-time priority, self-trade prevention, time in force, fees.

A taker is an order's record that is in no book: new, replaced or triggered. `most_events` says beforehand how many
events it can cause, `fills_whole` whether it could fill; `engage` does it. Called by placing.py and
replacing.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import credit, take_open
from smrx.engine.kernels.book import display_of, refresh_iceberg
from smrx.engine.kernels.emit import budget_filled, order_ends, order_filled, order_stands, traded
from smrx.engine.kernels.fees import QUOTE_BUDGET, charged, held_by_lots, lots_for, unit_price
from smrx.engine.kernels.jit import (
    NIL,
    U1,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.orders import (
    bury,
    delist,
    enlist,
    quote_balance,
    rest,
    shrink,
    withdraw_order,
)
from smrx.engine.kernels.pool import give_back
from smrx.engine.kernels.state_hash import refresh_balance, refresh_last_price, refresh_order
from smrx.engine.kernels.stops import elect
from smrx.engine.state import BOOKS, NEVER, ORDERS
from smrx.wire.codes import (
    EventKind,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)

#: The limit of a market buy, and more lots than anybody has.
ANY_PRICE: Final = np.int64(NEVER)
MOST_LOTS: Final = np.int64(1 << 62)


@inlined
def opposite_book(instrument_slot: Any, side: Any) -> Any:
    """The number of the book that an order of this side takes from."""
    return BOOKS * np.int64(instrument_slot) + (1 if side == Side.BUY else 0)


@inlined
def limit_price(order_type: Any, side: Any, price: Any) -> Any:
    """The worst price that an order trades at; one that is always good enough for a market order."""
    if order_type == OrderType.LIMIT or order_type == OrderType.STOP_LIMIT:
        return price
    return ANY_PRICE if side == Side.BUY else np.int64(0)


@inlined
def accepts(side: Any, limit: Any, price: Any) -> Any:
    """Whether an order with this limit may trade at this price."""
    return price <= limit if side == Side.BUY else price >= limit


@inlined
def crosses(state: Tables, book: Record, side: Any, limit: Any) -> Any:
    return book.best != NIL and accepts(side, limit, state.levels[book.best].price)


@kernel
def fills_whole(state: Tables, book: Record, side: Any, limit: Any, lots: Any, account_id: Any, stp: Any) -> Any:
    """Whether a book has so many lots within the limit for a taker, hidden ones too.

    Own orders do not count for CANCEL_OLDEST and count for NONE; for all others they end the search. What an iceberg
    shows counts in its turn, what it hides after all that the level shows, as matching would come to it.
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
                shown = np.int64(maker.shown) if maker.shown != 0 else leaves
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
def most_events(
    state: Tables, instrument: Record, number: Any, side: Any, limit: Any, quantity: Any, flags: Any, stp: Any,
    account: Any, space: Any,
) -> Any:  # fmt: skip
    """The most events that a taker can cause; a coarser bound where that fits into the space already.

    One that says what it is, at most one that ends it, and three a match.
    """
    book = state.books[number]
    if not crosses(state, book, side, limit):
        return np.int64(2)
    lots = quantity
    if (flags & QUOTE_BUDGET) != 0:
        # No lot is cheaper than at the best price; the one that is too dear is met too.
        lots = quantity // unit_price(instrument, state.levels[book.best].price) + 1
    if book.icebergs != 0 or stp == Stp.CANCEL_OLDEST:
        return 2 + 3 * meetings_in_reach(state, book, side, limit, lots, account)
    makers = min(np.int64(book.orders), lots)
    if 2 + 3 * makers <= space:
        return 2 + 3 * makers
    return 2 + 3 * min(makers, makers_in_reach(state, book, side, limit, lots))


@kernel
def makers_in_reach(state: Tables, book: Record, side: Any, limit: Any, wanted: Any) -> Any:
    """How many orders there are at the levels that a taker would need, if it met no obstacle."""
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
def meetings_in_reach(state: Tables, book: Record, side: Any, limit: Any, wanted: Any, account: Any) -> Any:
    """How often a taker would meet an order: an iceberg as often as it shows lots, an own order without effect."""
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
            display = display_of(maker)
            if display != 0:
                meetings += min((leaves - np.int64(maker.shown) + display - 1) // display, wanted)
            if maker.account_id != own:
                lots += leaves
            slot = maker.next
        at = level.worse
    return meetings


@inlined
def pay_maker(state: Tables, instrument: Record, maker: Record, base: Any, quote: Any, lots: Any, charge: Any) -> None:
    """Move a maker's share of a match: out of what it holds, into what it is paid in."""
    core = state.core[0]
    giving = state.balances[maker.gives]
    if maker.side == Side.BUY:
        held = held_by_lots(instrument, maker, lots)
        giving.held -= held
        giving.available += held - quote - charge
        got = base
    else:
        giving.held -= base
        got = quote - charge
    refresh_balance(core, giving)
    taking = state.balances[maker.takes]
    if got != 0:
        credit(core, taking, got)
    take_open(state.balances[quote_balance(maker)], quote)


@inlined
def prevent(state: Tables, command: Record, events: Array, taker: Record, slot: Any, leaves: Any) -> Any:
    """Keep the taker from trading with an order of its own account; return the taker's lots left, 0 if it must end."""
    maker = state.orders[slot]
    if taker.stp == Stp.CANCEL_NEWEST:
        return np.int64(0)
    if taker.stp != Stp.DECREMENT:
        withdraw_order(state, command, events, slot, Reason.SELF_TRADE)
        return leaves if taker.stp == Stp.CANCEL_OLDEST else np.int64(0)
    own = maker.quantity - maker.cum
    overlap = min(leaves, own)
    if overlap == own:
        withdraw_order(state, command, events, slot, Reason.SELF_TRADE)
    else:
        shrink(state, command, events, slot, maker.quantity - overlap, Reason.SELF_TRADE)
    if overlap != leaves:
        taker.quantity -= overlap
        kind = EventKind.REPLACED
        order_stands(state.core[0], state.turn[0], command, events, taker, kind, Reason.SELF_TRADE)
    return leaves - overlap


@inlined
def fill_maker(state: Tables, slot: Any, lots: Any) -> None:
    """Count the lots of a maker that were filled, in its order and its level."""
    maker = state.orders[slot]
    maker.cum += lots
    state.levels[maker.level].quantity -= lots
    if maker.shown != 0:
        maker.shown = np.uint32(np.int64(maker.shown) - lots)


@inlined
def settle_maker(state: Tables, slot: Any, refreshed: Any) -> None:
    """Bury a maker that is done; give one of which nothing is shown any more its next lots and a new place."""
    maker = state.orders[slot]
    if maker.cum == maker.quantity:
        bury(state, slot)
        return
    if maker.shown == 0 and display_of(maker) != 0:
        refresh_iceberg(state, slot)
        maker.priority = refreshed
    refresh_order(state, maker)


@kernel
def match(state: Tables, command: Record, events: Array, taker: Record) -> Any:
    """Fill the taker against the best levels, oldest first.

    Returns why it stopped with lots left though an acceptable order remains: SELF_TRADE, FUNDS_EXHAUSTED, BUDGET_SPENT;
    else NONE. Adds to the turn what the taker gave and got; the taker's balances are not touched.
    """
    core = state.core[0]
    turn = state.turn[0]
    instrument = state.instruments[taker.instrument]
    lot_units = np.int64(instrument.lot_units)
    scale_units = np.int64(instrument.scale_units)
    # Without a ledger nobody pays anything, and nobody's money is counted; a budget still is one.
    counting = core.ledger != 0
    taker_rate = instrument.taker_fee if counting else np.int64(0)
    maker_rate = instrument.maker_fee if counting else np.int64(0)
    side = taker.side
    buying = side == Side.BUY
    limit = limit_price(taker.order_type, side, taker.price)
    book = state.books[opposite_book(taker.instrument, side)]
    leaves = taker.quantity - taker.cum
    spending = buying and taker.order_type == OrderType.MARKET
    budgeting = taker.flags == QUOTE_BUDGET
    available = np.int64(0)
    if spending:
        available = state.balances[taker.gives].available if counting else MOST_LOTS
        if budgeting:
            leaves = MOST_LOTS
            available = min(available, taker.quantity)
    while leaves > 0 and crosses(state, book, side, limit):
        level = state.levels[book.best]
        slot = level.first
        maker = state.orders[slot]
        if maker.account_id == taker.account_id and taker.stp != Stp.NONE:
            leaves = prevent(state, command, events, taker, slot, leaves)
            if leaves == 0:
                return Reason.SELF_TRADE
            continue
        price = level.price
        unit = price * scale_units
        lots = min(leaves, np.int64(maker.shown) if maker.shown != 0 else maker.quantity - maker.cum)
        if spending and (counting or budgeting):
            lots = min(lots, lots_for(available - turn.given, unit, taker_rate))
            if lots == 0:
                if budgeting and unit + charged(unit, taker_rate) > taker.quantity - turn.given:
                    return Reason.BUDGET_SPENT
                return Reason.FUNDS_EXHAUSTED
        quote = unit * lots
        base = lots * lot_units
        taker_fee = charged(quote, taker_rate)
        maker_fee = charged(quote, maker_rate)
        core.match_sequence += U1
        fill_maker(state, slot, lots)
        taker.cum += lots
        leaves -= lots
        if buying:
            turn.given += quote + taker_fee
            turn.got += base
        else:
            turn.given += base
            turn.got += quote - taker_fee
        if counting:
            turn.fees += taker_fee + maker_fee
            pay_maker(state, instrument, maker, base, quote, lots, maker_fee)
        instrument.last_price = price
        traded(core, turn, command, events, taker, maker, lots, taker_fee, maker_fee)
        order_filled(core, turn, command, events, maker, price, lots)
        refreshed = core.event_sequence
        if budgeting:
            spent = lots_for(taker.quantity - turn.given, unit, taker_rate) == 0
            budget_filled(core, turn, command, events, taker, price, lots, spent)
            if spent:
                leaves = np.int64(0)
        else:
            order_filled(core, turn, command, events, taker, price, lots)
        settle_maker(state, slot, refreshed)
    if budgeting and leaves == 0:
        # The record says so too that it is filled: nobody sees it any more.
        taker.quantity = taker.cum
    return Reason.NONE


@inlined
def why_it_ends(taker: Record, stopped: Any) -> Any:
    """The reason why the lots that are left cannot rest, or NONE if they can."""
    if stopped != Reason.NONE:
        return stopped
    if taker.order_type == OrderType.MARKET:
        return Reason.NO_LIQUIDITY
    if taker.tif != TimeInForce.GTC and taker.tif != TimeInForce.GTD:
        return Reason.IOC_REMAINDER
    return Reason.NONE


@inlined
def settle_taker(state: Tables, instrument: Record, taker: Record, held: Any) -> None:
    """Pay and hold on the taker's side, and pay all fees to the venue, once for all its matches."""
    core = state.core[0]
    turn = state.turn[0]
    if core.ledger == 0:
        return
    taken = turn.given + held
    if taken != 0:
        giving = state.balances[taker.gives]
        giving.available -= taken
        giving.held += held
        refresh_balance(core, giving)
    if turn.got != 0:
        credit(core, state.balances[taker.takes], turn.got)
    if turn.fees != 0:
        credit(core, state.balances[instrument.fee_balance], turn.fees)


@inlined
def leave(state: Tables, slot: Any, listed: Any) -> None:
    """Forget a taker that is over."""
    if listed:
        delist(state, slot)
    else:
        give_back(state.pools[ORDERS], state.orders, slot)


@inlined
def expire(state: Tables, command: Record, events: Array, slot: Any, listed: Any, reason: Any) -> None:
    """End a taker with lots left."""
    kind = EventKind.EXPIRED
    order_ends(state.core[0], state.turn[0], command, events, state.orders[slot], kind, reason)
    leave(state, slot, listed)


@kernel
def engage(state: Tables, command: Record, events: Array, slot: Any, listed: Any) -> Any:
    """Match a taker, then let the rest stand or expire; return the reason why it expired, NONE if it did not.

    A new taker is not listed yet: neither its account nor an index knows it. Its funds are available, not held. The
    stops that its trades reach are elected.
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
    # Most orders meet nobody.
    if crosses(state, book, taker.side, limit_price(taker.order_type, taker.side, taker.price)):
        before = core.match_sequence
        stopped = match(state, command, events, taker)
        if core.match_sequence != before:
            refresh_last_price(core, instrument)
            elect(state, taker.instrument)
    if taker.cum == taker.quantity:
        settle_taker(state, instrument, taker, np.int64(0))
        leave(state, slot, listed)
        return Reason.NONE
    reason = why_it_ends(taker, stopped)
    if reason != Reason.NONE:
        settle_taker(state, instrument, taker, np.int64(0))
        expire(state, command, events, slot, listed, reason)
        return reason
    settle_taker(state, instrument, taker, held_by_lots(instrument, taker, taker.quantity - taker.cum))
    if not listed:
        enlist(state, slot)
    rest(state, slot)
    return Reason.NONE
