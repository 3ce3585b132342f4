"""The price collar of market orders, and their value before they trade.

A market order, and a stop order that becomes one, trades at most collar_bp away from its reference: the best opposite
price when it is matched, or the last trade price. Without a reference there is no collar. The rest expires with
COLLAR_REACHED. Called by placing.py, matching.py and triggering.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.fees import QUOTE_BUDGET, unit_price
from smrx.engine.kernels.jit import NIL, Record, Tables, inlined, kernel
from smrx.engine.kernels.order_checks import part_of
from smrx.engine.state import NEVER
from smrx.wire.codes import CollarReference, OrderType, Reason, RuleFlags, Side

#: The limit price of a market buy without a collar.
NO_LIMIT: Final = np.int64(NEVER)
MIN_NOTIONAL_OF_MARKET: Final = int(RuleFlags.MIN_NOTIONAL_OF_MARKET)
MAX_NOTIONAL_OF_MARKET: Final = int(RuleFlags.MAX_NOTIONAL_OF_MARKET)


@inlined
def taker_limit(state: Tables, instrument: Record, book: Record, order_type: Any, side: Any, price: Any) -> Any:
    """Return the worst price at which an order may take from a book; for a market order, that of its collar."""
    if order_type == OrderType.LIMIT or order_type == OrderType.STOP_LIMIT:
        return price
    if instrument.collar_bp != 0:
        return collar_limit(state, instrument, book, side)
    return NO_LIMIT if side == Side.BUY else np.int64(0)


@kernel
def collar_limit(state: Tables, instrument: Record, book: Record, side: Any) -> Any:
    """Return the worst price of a market order on an instrument with a collar."""
    reference = instrument.last_price
    if instrument.collar_reference == CollarReference.BEST_PRICE:
        # Slot 0 is an empty record: without a best price the reference is 0.
        reference = state.levels[book.best].price
    width = part_of(reference, instrument.collar_bp)
    if side == Side.BUY:
        return reference + width if reference != 0 else NO_LIMIT
    return reference - width


@kernel
def check_market_notional(state: Tables, instrument: Record, book: Record, command: Record) -> Any:
    """Check a market order by lots against the bounds of the notional, valued at the best opposite price."""
    if command.order_type != OrderType.MARKET or command.flags == QUOTE_BUDGET or book.best == NIL:
        return Reason.NONE
    notional = unit_price(instrument, state.levels[book.best].price) * command.quantity_lots
    if (instrument.rule_flags & MIN_NOTIONAL_OF_MARKET) != 0 and notional < instrument.min_notional:
        return Reason.NOTIONAL_BELOW_MINIMUM
    most = instrument.max_notional
    if (instrument.rule_flags & MAX_NOTIONAL_OF_MARKET) != 0 and most != 0 and notional > most:
        return Reason.NOTIONAL_ABOVE_MAXIMUM
    return Reason.NONE
