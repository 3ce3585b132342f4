"""What every peer is asked to do, and what it must answer, in plain numbers.

Knows nothing of our engine, so that the process of a peer has nothing else in it.
"""

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: One call: `number` is the order's own, or that of the order to cancel.
CALL: Final = np.dtype([("cancel", "?"), ("buy", "?"), ("price", "<i8"), ("lots", "<i8"), ("number", "<i8")])
#: One fill, in the order in which they happened.
FILL: Final = np.dtype([("maker", "<i8"), ("taker", "<i8"), ("price", "<i8"), ("lots", "<i8")])

Calls = NDArray[Any]
Fills = NDArray[Any]


class Absent(Exception):
    """A peer that cannot be measured here, with the reason in one sentence."""


class Peer(Protocol):
    """An order book behind its adapter. Making one converts the calls; nothing of that is measured."""

    version: str

    def play(self, first: int, last: int) -> None:
        """Do the calls from number `first` to `last` (without it); this is what is measured."""

    def fills(self) -> Fills:
        """Every fill so far. Not measured."""


def as_fills(rows: list[tuple[int, int, int, int]]) -> Fills:
    """Fills of (maker, taker, price, lots)."""
    return np.array(rows, dtype=FILL) if rows else np.zeros(0, FILL)
