"""Track open orders, from NEW to their last event, and what each open lot holds. Compiled, exact integers.

A buy holds, for each open lot, price x scale and the taker's fee of that; a sell the base of the lot. Market buys and
pending stop buys hold nothing.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.follower.record_table import find, place, remove
from smrx.settlement.books.following import expect_following
from smrx.settlement.books.money import MAX_AMOUNT, fee_of, hold, set_numbers, signed
from smrx.settlement.books.posting_faults import Fault
from smrx.wire.codes import OrderFlags, OrderType, Reason, Side

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_LIMIT: Final = int(OrderType.LIMIT)
_MARKET: Final = int(OrderType.MARKET)
_STOP: Final = int(OrderType.STOP)
_STOP_LIMIT: Final = int(OrderType.STOP_LIMIT)
_QUOTE_BUDGET: Final = int(OrderFlags.QUOTE_BUDGET)
_FOK_UNFILLABLE: Final = int(Reason.FOK_UNFILLABLE)

# Plain integers, as kernels take them.
UNKNOWN_INSTRUMENT: Final = int(Fault.UNKNOWN_INSTRUMENT)
ORDER_OPEN: Final = int(Fault.ORDER_OPEN)
ORDER_NOT_OPEN: Final = int(Fault.ORDER_NOT_OPEN)
ORDER_IDENTITY: Final = int(Fault.ORDER_IDENTITY)
QUANTITY: Final = int(Fault.QUANTITY)
PRICE: Final = int(Fault.PRICE)
ORDER_SIDE: Final = int(Fault.ORDER_SIDE)
ORDER_DIFFERS: Final = int(Fault.ORDER_DIFFERS)
UNFILLABLE_FILLED: Final = int(Fault.UNFILLABLE_FILLED)
NOTHING_LEFT: Final = int(Fault.NOTHING_LEFT)
NOT_A_STOP: Final = int(Fault.NOT_A_STOP)
UNKNOWN_ACCOUNT: Final = int(Fault.UNKNOWN_ACCOUNT)
FOLLOWING_COUNT: Final = int(Fault.FOLLOWING_COUNT)


@kernel
def lot_hold(instrument: Any, side: Any, kind: Any, price: Any) -> Any:
    """Return what each open lot of an order holds."""
    if side == _SELL:
        return instrument.lot_units
    if kind == _MARKET or kind == _STOP:  # noqa: SIM109 - numba compiles this to two comparisons
        return 0
    worth = price * instrument.scale_units
    return worth + fee_of(worth, instrument.taker_fee)


@kernel
def known_order(tables: Any, row: Any, numbers: Any) -> Any:
    """Return the place of an event's open order, if account, instrument and side are the same; else -fault."""
    if row.following != 0:
        # The events that belong to an order have followed its NEW.
        set_numbers(numbers, 0, 0, 0, 0)
        return -FOLLOWING_COUNT
    at = find(tables.orders, row.order_id)
    if at < 0:
        return -ORDER_NOT_OPEN
    order = tables.orders[at]
    if order.account != row.account or order.instrument != row.instrument or order.side != row.side:
        set_numbers(numbers, order.account, order.instrument, order.side, 0)
        return -ORDER_IDENTITY
    return at


@kernel
def new(tables: Any, row: Any, numbers: Any) -> Any:
    """Post NEW."""
    listed = find(tables.instruments, signed(row.instrument))
    if listed < 0:
        return UNKNOWN_INSTRUMENT
    if find(tables.orders, row.order_id) >= 0 or row.order_id == 0:
        return ORDER_OPEN
    if find(tables.accounts, row.account + 1) < 0:
        return UNKNOWN_ACCOUNT
    if row.side != _BUY and row.side != _SELL:
        return ORDER_SIDE
    instrument = tables.instruments[listed]
    by_budget = (row.flags & _QUOTE_BUDGET) != 0
    if by_budget:
        if row.quantity_lots < 1 or row.quantity_lots > MAX_AMOUNT or row.leaves_lots != 0:
            set_numbers(numbers, MAX_AMOUNT, 0, 0, 0)
            return QUANTITY
    elif row.quantity_lots < 1 or row.quantity_lots > instrument.max_quantity or row.leaves_lots != row.quantity_lots:
        set_numbers(numbers, instrument.max_quantity, 0, 0, 0)
        return QUANTITY
    priced = row.order_type == _LIMIT or row.order_type == _STOP_LIMIT
    if priced:
        if row.price_ticks < 1 or row.price_ticks > instrument.max_price:
            return PRICE
    elif row.price_ticks != 0:
        return PRICE
    at = place(tables.orders, row.order_id)
    order = tables.orders[at]
    order.key = row.order_id
    order.price = row.price_ticks
    order.leaves = 0 if by_budget else row.quantity_lots
    order.cum = 0
    order.per_lot = lot_hold(instrument, row.side, row.order_type, row.price_ticks)
    order.budget = row.quantity_lots if by_budget else 0
    order.account = row.account
    order.instrument = row.instrument
    order.side = row.side
    order.type = row.order_type
    order.by_budget = 1 if by_budget else 0
    tables.core[0].orders += 1
    instrument.open_orders += 1
    if row.following != 0:
        fault = expect_following(tables, row, numbers)
        if fault != 0:
            return fault
    return hold(tables, order, order.per_lot * order.leaves, row.sequence, numbers)


@kernel
def close(tables: Any, at: Any) -> None:
    """Remove an order."""
    order = tables.orders[at]
    tables.instruments[find(tables.instruments, signed(order.instrument))].open_orders -= 1
    tables.core[0].orders -= 1
    remove(tables.orders, at)


@kernel
def repeats(row: Any, order: Any, price: Any, quantity: Any, leaves: Any, numbers: Any) -> Any:
    """Check that an event has the order's price and quantities."""
    if (
        row.price_ticks != price
        or row.quantity_lots != quantity
        or row.cum_lots != order.cum
        or row.leaves_lots != leaves
    ):
        set_numbers(numbers, price, quantity, order.cum, leaves)
        return ORDER_DIFFERS
    return 0


@kernel
def end(tables: Any, row: Any, numbers: Any) -> Any:
    """Post CANCELLED or EXPIRED."""
    if row.reason == _FOK_UNFILLABLE and row.order_id == row.command_sequence and find(tables.orders, row.order_id) < 0:
        # It was never open: no NEW, no hold.
        return UNFILLABLE_FILLED if row.cum_lots != 0 else expect_following(tables, row, numbers)
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    fault = repeats(row, order, order.price, order.cum + order.leaves, 0, numbers)
    if fault == 0:
        fault = hold(tables, order, -order.per_lot * order.leaves, row.sequence, numbers)
    close(tables, at)
    return fault


@kernel
def replace(tables: Any, row: Any, numbers: Any) -> Any:
    """Post REPLACED."""
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    instrument = tables.instruments[find(tables.instruments, signed(order.instrument))]
    fault = repeats(row, order, row.price_ticks, row.quantity_lots, row.quantity_lots - order.cum, numbers)
    if fault != 0:
        return fault
    priced = order.type == _LIMIT or order.type == _STOP_LIMIT
    if row.leaves_lots < 1 or row.quantity_lots > instrument.max_quantity or order.by_budget:
        return NOTHING_LEFT
    if (row.price_ticks < 1 or row.price_ticks > instrument.max_price) if priced else row.price_ticks != 0:
        return PRICE
    before = order.per_lot * order.leaves
    order.price, order.leaves = row.price_ticks, row.leaves_lots
    order.per_lot = lot_hold(instrument, order.side, order.type, order.price)
    return hold(tables, order, order.per_lot * order.leaves - before, row.sequence, numbers)


@kernel
def trigger(tables: Any, row: Any, numbers: Any) -> Any:
    """Post TRIGGERED: a pending stop becomes a limit or market order."""
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    becomes = _MARKET if order.type == _STOP else _LIMIT
    if (order.type != _STOP and order.type != _STOP_LIMIT) or row.order_type != becomes:
        return NOT_A_STOP
    order.type = row.order_type
    return repeats(row, order, order.price, order.cum + order.leaves, order.leaves, numbers)
