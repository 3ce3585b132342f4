"""Check the terms of an order: price, quantity, display, notional, account limits, supported combinations.

PLACE and REPLACE share these checks, in the order of precedence of their reasons. Changes nothing. Called by
placing.py and replacing.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import AMOUNT_LIMIT, exceeds_open_notional
from smrx.engine.kernels.fees import QUOTE_BUDGET, is_priced, is_stop, unit_price
from smrx.engine.kernels.jit import Record, Tables, inlined, kernel
from smrx.wire.codes import (
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)

POST_ONLY: Final = int(OrderFlags.POST_ONLY)
BASIS_POINTS: Final = np.int64(10_000)
#: The most parts of an iceberg: each part causes up to three events, and one taker may fill them all.
#: Binance's ICEBERG_PARTS filter has the same purpose.
MAX_ICEBERG_PARTS: Final = np.int64(1_000)


@inlined
def part_of(amount: Any, basis_points: Any) -> Any:
    """Return floor(amount * basis_points / 10,000) without overflow."""
    parts = amount // BASIS_POINTS
    return parts * basis_points + (amount - parts * BASIS_POINTS) * basis_points // BASIS_POINTS


@inlined
def is_outside_band(instrument: Record, price: Any, reference: Any) -> Any:
    """Whether a price is farther from a reference than the instrument's band allows; reference 0 is none."""
    if reference == 0:
        return False
    return abs(price - reference) > part_of(reference, instrument.band_bp)


@inlined
def check_price(instrument: Record, order_type: Any, price: Any, stop_price: Any, is_new: Any) -> Any:
    """Check the limit price and, of a new order, the stop price, which later rules do not affect."""
    priced = is_priced(order_type)
    if priced:
        if price < 1:
            return Reason.INVALID_PRICE
        if price < instrument.min_price:
            return Reason.PRICE_BELOW_MINIMUM
        if price > instrument.max_price:
            return Reason.PRICE_ABOVE_MAXIMUM
    elif price != 0:
        return Reason.INVALID_PRICE
    reference = instrument.last_price
    if is_stop(order_type):
        reference = stop_price
        outside = reference < 1 or reference < instrument.min_price or reference > instrument.max_price
        if outside and is_new:
            return Reason.INVALID_STOP_PRICE
    if instrument.band_bp != 0 and priced and is_outside_band(instrument, price, reference):
        return Reason.PRICE_OUTSIDE_BAND
    return Reason.NONE


@inlined
def check_quantity(instrument: Record, quantity: Any, cum: Any, flags: Any) -> Any:
    """Check the quantity, which must exceed what is filled already."""
    if quantity <= cum:
        return Reason.INVALID_QUANTITY
    if (flags & QUOTE_BUDGET) != 0:
        return Reason.INVALID_QUANTITY if quantity >= AMOUNT_LIMIT else Reason.NONE
    if quantity < instrument.min_quantity:
        return Reason.QUANTITY_BELOW_MINIMUM
    if quantity > instrument.max_quantity:
        return Reason.QUANTITY_ABOVE_MAXIMUM
    return Reason.NONE


@inlined
def check_display(quantity: Any, display: Any) -> Any:
    """Check the display of an iceberg; a quantity of too many parts is rejected too."""
    # (quantity - 1) // MAX_ICEBERG_PARTS + 1 is the least display; the quantity is at least 1.
    if display >= quantity or display <= (quantity - 1) // MAX_ICEBERG_PARTS:
        return Reason.INVALID_DISPLAY
    return Reason.NONE


@inlined
def notional_of(instrument: Record, flags: Any, price: Any, quantity: Any) -> Any:
    """Return the quote units of the whole order; 0 if they are unknown before it trades."""
    if (flags & QUOTE_BUDGET) != 0:
        return quantity
    # A price is 0 where there is none.
    return unit_price(instrument, price) * quantity


@inlined
def check_terms(
    state: Tables, instrument: Record, order_type: Any, tif: Any, flags: Any, details: Record, price: Any,
    quantity: Any, cum: Any, is_new: Any,
) -> Any:  # fmt: skip
    """Check an order's terms against its instrument; `cum` lots of it are filled already. `details` are the order's.

    Stop price and expiry are checked only when the order is new.
    """
    reason = check_price(instrument, order_type, price, details.stop_price_ticks, is_new)
    if reason != Reason.NONE:
        return reason
    reason = check_quantity(instrument, quantity, cum, flags)
    if reason != Reason.NONE:
        return reason
    if details.display_lots != 0:
        reason = check_display(quantity, details.display_lots)
        if reason != Reason.NONE:
            return reason
    if (
        is_new
        and tif == TimeInForce.GTD
        and order_type != OrderType.MARKET
        and details.expiry_ns <= state.core[0].time_ns
    ):
        return Reason.INVALID_EXPIRY
    if (instrument.min_notional | instrument.max_notional) == 0:
        return Reason.NONE
    return check_notional(instrument, order_type, flags, price, quantity)


@kernel
def check_notional(instrument: Record, order_type: Any, flags: Any, price: Any, quantity: Any) -> Any:
    """Check the notional against the instrument's bounds."""
    if is_priced(order_type) or (flags & QUOTE_BUDGET) != 0:
        notional = notional_of(instrument, flags, price, quantity)
        if notional < instrument.min_notional:
            return Reason.NOTIONAL_BELOW_MINIMUM
        if instrument.max_notional != 0 and notional > instrument.max_notional:
            return Reason.NOTIONAL_ABOVE_MAXIMUM
    return Reason.NONE


@inlined
def may_rest(order_type: Any, tif: Any) -> Any:
    """Whether an order may stay open: GTC, GTD, or a pending stop."""
    return tif == TimeInForce.GTC or tif == TimeInForce.GTD or is_stop(order_type)


@inlined
def has_limits(account: Record) -> Any:
    """Whether an account has any limit."""
    limits = account.max_open_notional | account.max_order_notional | account.max_order_quantity
    return (limits | np.int64(account.max_open_orders)) != 0


@kernel
def check_account_limits(
    state: Tables, account: Record, balance: Any, order_type: Any, tif: Any, flags: Any, notional: Any, quantity: Any,
    old_orders: Any, old_notional: Any,
) -> Any:  # fmt: skip
    """Check an order against its account's limits.

    `old_orders` and `old_notional` are what the account has open for the order already (REPLACE), else 0. `balance` is
    the slot of the account's balance in the quote asset.
    """
    is_budget = (flags & QUOTE_BUDGET) != 0
    rests = may_rest(order_type, tif)
    others = np.int64(account.orders) - old_orders
    if account.max_open_orders != 0 and rests and others >= np.int64(account.max_open_orders):
        return Reason.OPEN_ORDERS_LIMIT
    if account.max_order_quantity != 0 and not is_budget and quantity > account.max_order_quantity:
        return Reason.ORDER_QUANTITY_LIMIT
    if account.max_order_notional != 0 and notional > account.max_order_notional:
        return Reason.ORDER_NOTIONAL_LIMIT
    if account.max_open_notional == 0 or not rests or not is_priced(order_type) or state.core[0].ledger == 0:
        return Reason.NONE
    passes = exceeds_open_notional(state.balances[balance], old_notional, notional, account.max_open_notional)
    return Reason.OPEN_NOTIONAL_LIMIT if passes else Reason.NONE


@inlined
def is_unsupported(command: Record, display: Any) -> Any:
    """Whether the venue does not offer this combination of order type, time in force, flags, STP and display."""
    tif = command.tif
    rests = tif == TimeInForce.GTC or tif == TimeInForce.GTD
    if command.order_type == OrderType.LIMIT:
        if rests:
            return (command.flags & QUOTE_BUDGET) != 0
        return command.flags != 0 or display != 0
    if command.order_type == OrderType.STOP_LIMIT:
        return command.flags != 0 or (display != 0 and not rests)
    if (command.flags & POST_ONLY) != 0:
        return True
    if tif != TimeInForce.IOC and (tif != TimeInForce.GTD or command.order_type != OrderType.STOP):
        return True
    if command.flags == 0:
        return False
    return command.order_type != OrderType.MARKET or command.side != Side.BUY or command.stp == Stp.DECREMENT
