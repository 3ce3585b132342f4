"""An account's position in each instrument: base and quote balance, and what its open orders would change of them.

Pure, and in plain integers, because the notional of many sell orders may exceed 64 bits. Called by inspect.py.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import Side

_HALF: Final = 32
_LOW: Final = (1 << _HALF) - 1


class Position(NamedTuple):
    """An account in an instrument. Balances are in minimal units, and of the whole account: instruments share them.

    Open lots are those that may still trade, hidden lots of icebergs and pending stops included. The notional is their
    cost at their limit prices, without fees, in minimal units of the quote asset, as it counts against the account's
    limit of open notional; a stop without a limit price counts as 0.
    """

    account: int
    instrument: int
    base_available: int
    base_held: int
    quote_available: int
    quote_held: int
    buy_orders: int
    buy_lots: int
    buy_notional: int
    sell_orders: int
    sell_lots: int
    sell_notional: int


def positions(account: int, instruments: NDArray[Any], balances: NDArray[Any], orders: NDArray[Any]) -> list[Position]:
    """Return the account's positions by instrument: where it owns the base asset or has an open order.

    Takes the live records of the state: all instruments, and the account's own balances and orders.
    """
    money = {int(row["asset_id"]): (int(row["available"]), int(row["held"])) for row in balances}
    with_orders = np.unique(orders["instrument_id"])
    owned = [asset for asset, units in money.items() if any(units)]
    chosen = instruments[np.isin(instruments["instrument_id"], with_orders) | np.isin(instruments["base_id"], owned)]
    found = []
    for listed in chosen[np.argsort(chosen["instrument_id"])]:
        own = orders[orders["instrument_id"] == listed["instrument_id"]]
        sides = [_open(own[own["side"] == side], int(listed["scale_units"])) for side in (Side.BUY, Side.SELL)]
        base, quote = (money.get(int(listed[name]), (0, 0)) for name in ("base_id", "quote_id"))
        found.append(Position(account, int(listed["instrument_id"]), *base, *quote, *sides[0], *sides[1]))
    return found


def _open(orders: NDArray[Any], scale_units: int) -> tuple[int, int, int]:
    """Return the number of the orders, their open lots and their notional."""
    leaves = orders["quantity"] - orders["cum"]
    # The notional of one order is below 2^62, or the order would have been rejected.
    return len(orders), _sum(leaves), _sum(orders["price"] * np.int64(scale_units) * leaves)


def _sum(values: NDArray[np.int64]) -> int:
    """Return the exact sum of numbers that are not negative, however large it is."""
    return (int((values >> _HALF).sum()) << _HALF) + int((values & _LOW).sum())
