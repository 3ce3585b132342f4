"""Compute the balance digest, which compares books outside a node with the node's balances without sending them.

The digest is the sum, over every balance that is not zero, of a 64-bit hash of owner, available and held. The order of
the balances does not matter. The digest detects bugs and damage; it is not cryptographic. Nodes are compared by their
state hash.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The constants of splitmix64 (Steele, Lea, Flood 2014): every input bit changes about half of the output bits.
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


class Digest(NamedTuple):
    """The number of balances that are not zero, and the sum of their hashes."""

    balances: int
    value: int


def digest(owners: NDArray[Any], available: NDArray[Any], held: NDArray[Any]) -> Digest:
    """Return the digest of the balances; an owner is account << 32 | asset."""
    nonzero = (available | held) != 0
    columns = (column[nonzero].astype(np.uint64) for column in (owners, available, held))
    mixed = np.zeros(int(np.count_nonzero(nonzero)), np.uint64)
    for values in columns:
        mixed = _mix((mixed ^ values) + _GOLDEN)
    return Digest(len(mixed), int(mixed.sum(dtype=np.uint64)))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
