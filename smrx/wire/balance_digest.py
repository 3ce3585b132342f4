"""The digest of all balances, by which books kept outside are compared with a node's without sending them.

Sum, over every balance that is not zero, of a 64-bit mixture of owner, available and held. The order of the balances
does not matter. It finds mistakes and damage; it is no proof against somebody who makes up balances to fit it (the
state hash, on which a majority agrees, is what nodes are held to).
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The constants of splitmix64 (Steele, Lea, Flood 2014): every input bit changes about half of the output bits.
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


class Digest(NamedTuple):
    """How many `balances` are not zero, and what they add up to once mixed."""

    balances: int
    value: int


def digest(owners: NDArray[Any], available: NDArray[Any], held: NDArray[Any]) -> Digest:
    """Return the digest of balances; an owner is account << 32 | asset."""
    counted = (available | held) != 0
    words = (column[counted].astype(np.uint64) for column in (owners, available, held))
    mixed = np.zeros(int(np.count_nonzero(counted)), np.uint64)
    for word in words:
        mixed = _mix((mixed ^ word) + _GOLDEN)
    return Digest(len(mixed), int(mixed.sum(dtype=np.uint64)))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
