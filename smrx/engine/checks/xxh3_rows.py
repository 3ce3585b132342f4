"""The xxh3 of many short rows of words at once, with NumPy, for the checks.

A call of the xxhash package costs more than a hash; a million calls cost most of a second. Shares only the constants
of the specification with the kernels' xxh3.py, so that each checks the other. Called by full_hash.py and
index_invariants.py.
"""

from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine.kernels.xxh3 import BITFLIP_HIGH, BITFLIP_LOW, PRIME64_1, PRIME_MX1, S

Words = NDArray[np.uint64]

#: Fewer rows than this are faster to hash one by one.
_MIN_ROWS: Final = 64
_MAX_WORDS: Final = 16
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFF_FFFF)
_R37: Final = np.uint64(37)


def hash_rows(rows: Words) -> Words:
    """Return the xxh3_64 of each row of a matrix of 2 to 16 words."""
    count, length = rows.shape
    if not 2 <= length <= _MAX_WORDS:
        raise ValueError(f"rows: expected 2 to {_MAX_WORDS} words, found {length}")
    if count < _MIN_ROWS:
        return np.array([xxhash.xxh3_64_intdigest(row.astype("<u8").tobytes()) for row in rows], dtype=np.uint64)
    columns = [np.ascontiguousarray(column) for column in rows.T]
    return _short(columns) if length == 2 else _middle(columns)


def _short(columns: list[Words]) -> Words:
    """Hash inputs of 16 bytes."""
    low, high = columns[0] ^ BITFLIP_LOW, columns[1] ^ BITFLIP_HIGH
    return _avalanche(np.uint64(16) + low.byteswap() + high + multiply_fold_rows(low, high))


def _middle(columns: list[Words]) -> Words:
    """Hash inputs of 17 to 128 bytes: pairs of words from both ends to the middle, where they may overlap."""
    length = len(columns)
    total = np.full(len(columns[0]), 8 * length, dtype=np.uint64) * PRIME64_1
    for pair in range((length + 3) // 4):
        key = 4 * pair
        for at, secret in ((2 * pair, key), (length - 2 * pair - 2, key + 2)):
            total += multiply_fold_rows(columns[at] ^ S[secret], columns[at + 1] ^ S[secret + 1])
    return _avalanche(total)


def _avalanche(words: Words) -> Words:
    words = words ^ (words >> _R37)
    words *= PRIME_MX1
    return words ^ (words >> _HALF)


def multiply_fold_rows(left: Words, right: Any) -> Words:
    """Return the low word of each 128-bit product, xor its high word, computed in 32-bit halves."""
    upper, lower = left >> _HALF, left & _LOW
    above, below = right >> _HALF, right & _LOW
    middle = upper * below + ((lower * below) >> _HALF)
    across = lower * above + (middle & _LOW)
    high = upper * above + (middle >> _HALF) + (across >> _HALF)
    fold: Words = left * right ^ high
    return fold
