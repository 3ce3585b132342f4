"""The calls that every peer makes and the fills that it returns, as arrays of numbers.

Does not import smrx.engine, so that a peer's process loads nothing else.
"""

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: One call: `number` is the number of the order to place or to cancel.
CALL: Final = np.dtype([("cancel", "?"), ("buy", "?"), ("price", "<i8"), ("lots", "<i8"), ("number", "<i8")])
#: One fill, in the order in which they happened.
FILL: Final = np.dtype([("maker", "<i8"), ("taker", "<i8"), ("price", "<i8"), ("lots", "<i8")])

Calls = NDArray[Any]
Fills = NDArray[Any]


class PeerUnavailable(Exception):
    """A peer cannot be measured here; the message gives the reason."""


class Peer(Protocol):
    """The adapter of an order book. Its constructor converts the calls, which is not measured."""

    version: str

    def play(self, first: int, last: int) -> None:
        """Make the calls from index `first` up to but not including `last`. This is measured."""

    def fills(self) -> Fills:
        """Return all fills so far. This is not measured."""


def as_fills(rows: list[tuple[int, int, int, int]]) -> Fills:
    """Return tuples of (maker, taker, price, lots) as an array."""
    return np.array(rows, dtype=FILL) if rows else np.zeros(0, FILL)
