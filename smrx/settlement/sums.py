"""Add up amounts exactly, whatever their size: numpy adds within a batch, Python's integers across batches."""

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
    # In two halves, so that no sum within a batch exceeds 64 bits.
    low = np.add.reduceat(amounts & np.int64(0xFFFF_FFFF), begins)
    high = np.add.reduceat(amounts >> np.int64(32), begins)
    for key, upper, lower in zip(keys[begins].tolist(), high.tolist(), low.tolist(), strict=True):
        yield key, (upper << 32) + lower


def total_of(amounts: NDArray[np.int64]) -> int:
    """Return the exact sum of amounts."""
    return next((total for _, total in sums(np.zeros(len(amounts), np.uint64), amounts)), 0)
