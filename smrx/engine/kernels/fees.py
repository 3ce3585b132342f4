"""What trades cost: notionals, fees, what an order must hold, and how many lots money buys. Pure arithmetic.

Rates are millionths of the notional. SET_RULES and ADD_INSTRUMENT see to it that no number here reaches 2^62; products
that might are taken apart. Called by order_checks.py, orders.py and matching.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import Record, inlined, kernel
from smrx.wire.codes import OrderFlags, OrderType, Side

MILLION: Final = np.int64(1_000_000)
#: Numba knows IntEnum, not IntFlag.
QUOTE_BUDGET: Final = int(OrderFlags.QUOTE_BUDGET)


@kernel
def fee(notional: Any, rate: Any) -> Any:
    """ceil(notional * rate / 10^6), exactly, without a product that wraps; a rebate is below 0 and nearer to it."""
    millions = notional // MILLION
    rest = notional - millions * MILLION
    # -(-a // b) is the ceiling, for either sign of the rate.
    return millions * rate - (-(rest * rate)) // MILLION


@inlined
def unit_price(instrument: Record, price: Any) -> Any:
    """Quote units that one lot costs at a price."""
    return price * np.int64(instrument.scale_units)


@inlined
def charged(notional: Any, rate: Any) -> Any:
    """The fee of a notional; a branch that is nearly always the same saves two divisions."""
    return fee(notional, rate) if rate != 0 else np.int64(0)


@inlined
def hold_of(instrument: Record, side: Any, price: Any, lots: Any) -> Any:
    """What so many lots of an open order hold.

    A sell holds its base units. A buy holds what its lots cost if each is filled by itself at the limit: in quote
    units, with the taker's fee. A buy without a limit price (0), pending or not, holds nothing.
    """
    if side == Side.SELL:
        return lots * np.int64(instrument.lot_units)
    unit = unit_price(instrument, price)
    return lots * (unit + charged(unit, instrument.taker_fee))


@inlined
def held_by_lots(instrument: Record, order: Record, lots: Any) -> Any:
    return hold_of(instrument, order.side, order.price, lots)


@inlined
def lots_for(money: Any, unit: Any, rate: Any) -> Any:
    """The most lots at `unit` each whose notional and fee are not more than the money."""
    if rate != 0:
        # notional + ceil(notional * rate / 10^6) <= money, as all are whole: notional <= money * 10^6 / (10^6 + rate)
        divisor = MILLION + rate
        whole = money // divisor
        money = whole * MILLION + (money - whole * divisor) * MILLION // divisor
    return money // unit


@inlined
def is_priced(order_type: Any) -> Any:
    """Whether an order has a limit price."""
    return order_type == OrderType.LIMIT or order_type == OrderType.STOP_LIMIT


@inlined
def is_stop(order_type: Any) -> Any:
    return order_type >= OrderType.STOP
