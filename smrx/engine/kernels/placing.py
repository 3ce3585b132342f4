"""PLACE, and a stop's turn: checks of a new order, its record, and its way to matching, book or wait.

Called by apply.py: `check_place` first, which changes nothing, then `events_of_place` to see that the buffer
suffices, then `place`.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.balances import release, reserve_balance, take_open
from smrx.engine.kernels.emit import order_stands
from smrx.engine.kernels.fees import held_by_lots, hold_of, is_stop
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_balance, find_client_order, find_instrument
from smrx.engine.kernels.matching import (
    crosses,
    engage,
    expire,
    fills_whole,
    limit_price,
    most_events,
    opposite_book,
)
from smrx.engine.kernels.order_checks import (
    POST_ONLY,
    check_account_limits,
    check_terms,
    has_limits,
    notional_of,
    unsupported,
)
from smrx.engine.kernels.orders import enlist, open_notional, quote_balance, rest
from smrx.engine.kernels.pool import left, take
from smrx.engine.kernels.stops import is_reached
from smrx.engine.state import LEVELS, NODES, ORDERS
from smrx.wire.codes import (
    EventKind,
    InstrumentStatus,
    OrderType,
    Reason,
    Side,
    TimeInForce,
)


@inlined
def lacks_funds(state: Tables, command: Record, instrument: Record) -> Any:
    """Whether the hold cannot be paid. A market buy, also one to come, holds nothing: it takes what it can pay."""
    if state.core[0].ledger == 0:
        return False
    buying = command.side == Side.BUY
    if buying and (command.order_type == OrderType.MARKET or command.order_type == OrderType.STOP):
        return False
    wanted = hold_of(instrument, command.side, command.price_ticks, command.quantity_lots)
    # Slot 0 is an empty record: who has no balance has nothing available.
    return state.balances[state.turn[0].balance].available < wanted


@inlined
def check_limits_of_new(state: Tables, command: Record, instrument: Record) -> Any:
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
    """Why a PLACE is refused, FOK_UNFILLABLE (which is no refusal), or NONE. Notes instrument and balance."""
    turn = state.turn[0]
    turn.instrument = find_instrument(state, command.instrument)
    if turn.instrument == NIL:
        return Reason.UNKNOWN_INSTRUMENT
    instrument = state.instruments[turn.instrument]
    if instrument.status != InstrumentStatus.TRADING:
        return Reason.INSTRUMENT_NOT_TRADING
    if command.client_order_id != U0 and find_client_order(state, command.client_order_id, command.account) != NIL:
        return Reason.DUPLICATE_CLIENT_ORDER_ID
    side = command.side
    kind = command.order_type
    extra = command.order_id
    lots = command.quantity_lots
    price = command.price_ticks
    tif = command.tif
    reason = check_terms(state, instrument, kind, tif, command.flags, extra, price, lots, np.int64(0), True)
    if reason != Reason.NONE:
        return reason
    if state.core[0].ledger != 0:
        gives = instrument.quote_id if side == Side.BUY else instrument.base_id
        turn.balance = find_balance(state, command.account, gives)
    reason = check_limits_of_new(state, command, instrument)
    if reason != Reason.NONE:
        return reason
    if unsupported(command):
        return Reason.UNSUPPORTED_COMBINATION
    if is_stop(kind):
        if is_reached(side, np.int64(extra), instrument.last_price):
            return Reason.STOP_WOULD_TRIGGER
    else:
        book = state.books[opposite_book(turn.instrument, side)]
        limit = limit_price(kind, side, price)
        if command.flags == POST_ONLY and crosses(state, book, side, limit):
            return Reason.POST_ONLY_WOULD_TAKE
        whole = tif != TimeInForce.FOK or fills_whole(state, book, side, limit, lots, command.account, command.stp)
        if not whole:
            return Reason.FOK_UNFILLABLE
    if lacks_funds(state, command, instrument):
        return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@inlined
def events_of_place(state: Tables, command: Record, space: Any) -> Any:
    """The most events an accepted PLACE can make before any stop is triggered; see most_events."""
    if is_stop(command.order_type):
        return np.int64(1)
    turn = state.turn[0]
    return most_events(
        state, state.instruments[turn.instrument], opposite_book(turn.instrument, command.side), command.side,
        limit_price(command.order_type, command.side, command.price_ticks), command.quantity_lots, command.flags,
        command.stp, turn.account, space,
    )  # fmt: skip


@inlined
def write_order(state: Tables, command: Record, slot: Any) -> None:
    """Fill an order's record from its command."""
    order = state.orders[slot]
    turn = state.turn[0]
    order.order_id = state.core[0].command_sequence
    order.client_order_id = command.client_order_id
    order.price = command.price_ticks
    order.quantity = command.quantity_lots
    order.cum = 0
    # The event that is about to be written.
    order.priority = state.core[0].event_sequence + np.uint64(1)
    order.hash = 0
    order.extra = command.order_id
    order.account_id = command.account
    order.instrument_id = command.instrument
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
    order.side = command.side
    order.order_type = command.order_type
    order.tif = command.tif
    order.stp = command.stp
    order.flags = command.flags


@inlined
def name_balances(state: Tables, order: Record) -> None:
    """Note the balances that a new order gives from and is paid into; one that is not there yet is reserved."""
    turn = state.turn[0]
    if state.core[0].ledger != 0:
        instrument = state.instruments[order.instrument]
        buying = order.side == Side.BUY
        order.gives = turn.balance
        if turn.balance == NIL:
            order.gives = reserve_balance(
                state, order.account_id, instrument.quote_id if buying else instrument.base_id
            )
        order.takes = reserve_balance(state, order.account_id, instrument.base_id if buying else instrument.quote_id)


@inlined
def place(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """Enter a checked order: match it, then let the rest stand or expire. A stop waits. `reason` is FOK_UNFILLABLE or
    NONE."""
    slot = take(state.pools[ORDERS], state.orders)
    write_order(state, command, slot)
    order = state.orders[slot]
    outcome.order_id = order.order_id
    if reason != Reason.NONE:
        expire(state, command, events, slot, False, reason)
    else:
        name_balances(state, order)
        order_stands(state.core[0], state.turn[0], command, events, order, EventKind.NEW, Reason.NONE)
        if is_stop(order.order_type):
            wait(state, slot)
        else:
            reason = engage(state, command, events, slot, False)
    tell(order, outcome, EventKind.NEW, np.int64(0), reason)


@inlined
def tell(order: Record, outcome: Record, kind: Any, cum: Any, reason: Any) -> None:
    """The outcome of a command whose order was a taker: `kind` if it neither traded nor ended. It had `cum` before."""
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
def wait(state: Tables, slot: Any) -> None:
    """Hold what a new stop needs, and let it wait for its price."""
    order = state.orders[slot]
    core = state.core[0]
    if core.ledger != 0:
        held = held_by_lots(state.instruments[order.instrument], order, order.quantity)
        release(core, state.balances[order.gives], -held)
    enlist(state, slot)
    rest(state, slot)


@kernel
def trigger(state: Tables, command: Record, events: Array, slot: Any) -> None:
    """Turn an elected stop into a market or limit order, and match it."""
    core = state.core[0]
    order = state.orders[slot]
    instrument = state.instruments[order.instrument]
    if core.ledger != 0:
        lots = order.quantity - order.cum
        release(core, state.balances[order.gives], held_by_lots(instrument, order, lots))
        take_open(state.balances[quote_balance(order)], open_notional(state, order, lots))
    order.order_type = OrderType.MARKET if order.order_type == OrderType.STOP else OrderType.LIMIT
    order.extra = U0
    order_stands(core, state.turn[0], command, events, order, EventKind.TRIGGERED, Reason.NONE)
    order.priority = core.event_sequence
    if order.tif == TimeInForce.FOK:
        book = state.books[opposite_book(order.instrument, order.side)]
        lots = order.quantity - order.cum
        if not fills_whole(state, book, order.side, order.price, lots, order.account_id, order.stp):
            expire(state, command, events, slot, True, Reason.FOK_UNFILLABLE)
            return
    engage(state, command, events, slot, True)


@kernel
def trigger_elected(state: Tables, command: Record, events: Array) -> Any:
    """Give every elected stop its turn, and those that these elect; False, and go on later, when room is lacking."""
    turn = state.turn[0]
    while turn.elected != NIL:
        slot = turn.elected
        order = state.orders[slot]
        # What rests may open a level.
        if left(state.pools[LEVELS], len(state.levels)) < 1 or left(state.pools[NODES], len(state.nodes)) < 1:
            turn.needed = 0
            return False
        space = len(events) - turn.written
        converted = OrderType.MARKET if order.order_type == OrderType.STOP else OrderType.LIMIT
        turn.needed = most_events(
            state, state.instruments[order.instrument], opposite_book(order.instrument, order.side), order.side,
            limit_price(converted, order.side, order.price), order.quantity, order.flags, order.stp, order.account,
            space,
        )  # fmt: skip
        if turn.needed > space:
            return False
        turn.elected = order.next
        order.next = 0
        trigger(state, command, events, slot)
    return True
