"""Exact sums of amounts, whatever their size: a batch is added up by numpy, batches by Python's integers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def sums(keys: NDArray[np.uint64], amounts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield each distinct key and the exact sum of its amounts, whatever its size."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    keys, amounts = keys[order], amounts[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    # In two halves, so that no sum of a batch needs more than 64 bits.
    low = np.add.reduceat(amounts & np.int64(0xFFFF_FFFF), begins)
    high = np.add.reduceat(amounts >> np.int64(32), begins)
    for key, upper, lower in zip(keys[begins].tolist(), high.tolist(), low.tolist(), strict=True):
        yield key, (upper << 32) + lower


def total_of(amounts: NDArray[np.int64]) -> int:
    """The exact sum of amounts."""
    return next((total for _, total in sums(np.zeros(len(amounts), np.uint64), amounts)), 0)
