"""Notionals, fees, what an order must hold, and how many lots money buys. Pure arithmetic.

Rates are millionths of the notional. SET_RULES and ADD_INSTRUMENT ensure that no result reaches 2^62; products that
might overflow on the way are computed in parts. Called by order_checks.py, orders.py and matching.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import Record, either, inlined, kernel
from smrx.wire.codes import OrderFlags, OrderType, Side

RATE_UNIT: Final = np.int64(1_000_000)
#: Numba supports IntEnum, not IntFlag.
QUOTE_BUDGET: Final = int(OrderFlags.QUOTE_BUDGET)


@kernel
def fee(notional: Any, rate: Any) -> Any:
    """Return ceil(notional * rate / 10^6), exact and without overflow; a rebate is negative and rounded towards 0."""
    millions = notional // RATE_UNIT
    rest = notional - millions * RATE_UNIT
    # -(-a // b) is the ceiling, for either sign of the rate.
    return millions * rate - (-(rest * rate)) // RATE_UNIT


@inlined
def unit_price(instrument: Record, price: Any) -> Any:
    """Return the quote units that one lot costs at a price."""
    return price * np.int64(instrument.scale_units)


@inlined
def fee_or_zero(notional: Any, rate: Any) -> Any:
    """Return the fee of a notional; the branch is nearly always the same and saves two divisions."""
    return fee(notional, rate) if rate != 0 else np.int64(0)


@inlined
def hold_amount(instrument: Record, side: Any, price: Any, lots: Any) -> Any:
    """Return what so many lots of an open order hold.

    A sell holds its base units. A buy holds what its lots cost if each fills by itself at the limit, with the taker's
    fee, in quote units. A buy without a limit price (0), pending or not, holds nothing.
    """
    unit = unit_price(instrument, price)
    buy = unit + fee_or_zero(unit, instrument.taker_fee)
    # Without a branch: the side of an order is not predictable.
    return lots * either(side == Side.SELL, np.int64(instrument.lot_units), buy)


@inlined
def order_hold(instrument: Record, order: Record, lots: Any) -> Any:
    """Return what so many lots of an order hold."""
    return hold_amount(instrument, order.side, order.price, lots)


@inlined
def affordable_lots(money: Any, unit: Any, rate: Any) -> Any:
    """Return the most lots at `unit` each whose notional and fee do not exceed the money."""
    if rate != 0:
        # For integers, notional + ceil(notional * rate / 10^6) <= money means notional <= money * 10^6 / (10^6 + rate).
        divisor = RATE_UNIT + rate
        quotient = money // divisor
        money = quotient * RATE_UNIT + (money - quotient * divisor) * RATE_UNIT // divisor
    return money // unit


@inlined
def is_priced(order_type: Any) -> Any:
    """Whether an order has a limit price."""
    return order_type == OrderType.LIMIT or order_type == OrderType.STOP_LIMIT


@inlined
def is_stop(order_type: Any) -> Any:
    """Whether an order is a pending stop."""
    return order_type >= OrderType.STOP
