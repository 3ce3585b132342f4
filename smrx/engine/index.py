"""Maps from a key to a slot: open addressing, linear probing, no tombstones.

A key is a word and a half: 64 bits and 32 bits more (an order's client id and its account, a price and its book).
A table is a power of two of cells, at most half full (state.py sees to it), so a probe always ends at an empty cell.
"""

from typing import Any, Final

import numpy as np

from .jit import NIL, U1, Array, inlined, kernel, multiply_fold

#: 2^64 / golden ratio, and a second odd number to keep the two parts of a key apart.
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xD6E8FEB86659FD93)
#: The second part of keys that have none.
NO_EXTRA: Final = NIL


@inlined
def home(cells: Array, key: Any, extra: Any) -> Any:
    """The cell where the search for a key begins."""
    # Both halves of the product, so that keys that differ only in their high bits, as some clients' ids do, are told
    # apart too.
    return multiply_fold(key ^ (np.uint64(extra) * _SECOND), _GOLDEN) & np.uint64(len(cells) - 1)


@inlined
def find(cells: Array, key: Any, extra: Any) -> Any:
    """The slot of a key, or 0."""
    mask = np.uint64(len(cells) - 1)
    at = home(cells, key, extra)
    while True:
        cell = cells[at]
        if cell.slot == NIL or (cell.key == key and cell.extra == extra):
            return cell.slot
        at = (at + U1) & mask


@kernel
def insert(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Add a key that is not there."""
    mask = np.uint64(len(cells) - 1)
    at = home(cells, key, extra)
    while cells[at].slot != NIL:
        at = (at + U1) & mask
    cell = cells[at]
    cell.key = key
    cell.extra = extra
    cell.slot = slot


@kernel
def remove(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Take out a key that is there, with its slot, and close the hole so that no later search stops at it."""
    mask = np.uint64(len(cells) - 1)
    hole = home(cells, key, extra)
    while cells[hole].slot != slot:
        hole = (hole + U1) & mask
    at = (hole + U1) & mask
    while cells[at].slot != NIL:
        first = home(cells, cells[at].key, cells[at].extra)
        # It may move into the hole if the hole lies on its way from its home.
        if ((at - first) & mask) >= ((at - hole) & mask):
            cells[hole].key = cells[at].key
            cells[hole].extra = cells[at].extra
            cells[hole].slot = cells[at].slot
            hole = at
        at = (at + U1) & mask
    cells[hole].key = np.uint64(0)
    cells[hole].extra = NIL
    cells[hole].slot = NIL
