"""Compute the balance digest, which compares books outside a node with the node's balances without sending them.

The digest is the number of balances that are not zero, and the sum of their hashes (mod 2^64). The hash of a balance is
the xxh3_64 of four words: 2, account | asset << 32, available, held. That is its hash in the state hash, so a node
maintains the sum from command to command instead of computing it. The order of the balances does not matter. The digest
detects bugs and damage; it is not cryptographic. Nodes are compared by their state hash.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# XXH3 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) of an input of 32 bytes, with seed 0 and the default secret.
_SECRET: Final = tuple(
    np.uint64(word) for word in (0xBE4BA423396CFEB8, 0x1CAD21F72C81017C, 0xDB979083E96DD4DE, 0x1F67B3B7A4A44072)
)
_PRIME64_1: Final = 0x9E3779B185EBCA87
_PRIME_MX1: Final = np.uint64(0x165667919E3779F9)
_START: Final = np.uint64(32 * _PRIME64_1 & 0xFFFF_FFFF_FFFF_FFFF)
#: The first word: a balance.
_TAG: Final = np.uint64(2)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFF_FFFF)
_R37: Final = np.uint64(37)
#: Balances hashed at once: their words stay in the cache.
_BLOCK: Final = 1 << 13

_Words = NDArray[np.uint64]


class Digest(NamedTuple):
    """The number of balances that are not zero, and the sum of their hashes."""

    balances: int
    value: int


def digest(owners: NDArray[Any], available: NDArray[Any], held: NDArray[Any]) -> Digest:
    """Return the digest of the balances; an owner is account << 32 | asset."""
    count = total = 0
    for start in range(0, len(owners), _BLOCK):
        block = slice(start, start + _BLOCK)
        nonzero = (available[block] | held[block]) != 0
        hashes = _hashes(*(column[block][nonzero].astype(np.uint64) for column in (owners, available, held)))
        count += len(hashes)
        total += int(hashes.sum(dtype=np.uint64))
    return Digest(count, total % (1 << 64))


def _hashes(owners: _Words, available: _Words, held: _Words) -> _Words:
    """Return the hash of each balance."""
    owners = (owners >> _HALF) | (owners << _HALF)
    total = _START + _multiply_fold(owners ^ _SECRET[1], _TAG ^ _SECRET[0])
    total += _multiply_fold(available ^ _SECRET[2], held ^ _SECRET[3])
    total = (total ^ (total >> _R37)) * _PRIME_MX1
    hashes: _Words = total ^ (total >> _HALF)
    return hashes


def _multiply_fold(left: _Words, right: Any) -> _Words:
    """Return the low word of each product of 128 bits, xor its high word."""
    upper, lower, above, below = left >> _HALF, left & _LOW, right >> _HALF, right & _LOW
    middle = upper * below + ((lower * below) >> _HALF)
    across = lower * above + (middle & _LOW)
    fold: _Words = (upper * above + (middle >> _HALF) + (across >> _HALF)) ^ (left * right)
    return fold
