"""Maps from a key to a slot: open addressing, linear probing, no tombstones.

A key is a word and a half: 64 bits and 32 bits more (an order's client id and its account, a price and its book). It
stands in the record that it names; a cell is one word, with the slot in its low half and in its high half 32 bits of
the key's hash, whose low bits say where the search for the key begins. So eight cells share a cache line, and only a
record with the right hash is looked at. A table is a power of two of cells, at most a quarter of them used (state.py
sees to it): a probe always ends at an empty cell, and three of four at once.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import (
    LOW32,
    NIL,
    U0,
    U1,
    U32,
    Array,
    inlined,
    kernel,
    multiply_fold,
)

#: 2^64 / golden ratio, and a second odd number to keep the two parts of a key apart.
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xD6E8FEB86659FD93)
#: The second part of keys that have none.
NO_EXTRA: Final = NIL


@inlined
def key_hash(key: Any, extra: Any) -> Any:
    """The 32 bits of a key that its cell has."""
    # Both halves of the product, so that keys that differ only in their high bits, as some clients' ids do, are told
    # apart too.
    return multiply_fold(key ^ (np.uint64(extra) * _SECOND), _GOLDEN) & LOW32


@inlined
def find(cells: Array, records: Array, has: Any, key: Any, extra: Any) -> Any:
    """The slot of the record that `has` (a kernel) the key, or 0."""
    mask = np.uint64(len(cells) - 1)
    wanted = key_hash(key, extra)
    at = wanted & mask
    while True:
        cell = cells[at]
        slot = np.uint32(cell & LOW32)
        if slot == NIL or ((cell >> U32) == wanted and has(records[slot], key, extra)):
            return slot
        at = (at + U1) & mask


@kernel
def insert(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Add a key that is not there."""
    mask = np.uint64(len(cells) - 1)
    hashed = key_hash(key, extra)
    at = hashed & mask
    while cells[at] != U0:
        at = (at + U1) & mask
    cells[at] = (hashed << U32) | np.uint64(slot)


@kernel
def remove(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Take out a key that is there, with its slot, and close the hole so that no later search stops at it."""
    mask = np.uint64(len(cells) - 1)
    hashed = key_hash(key, extra)
    own = (hashed << U32) | np.uint64(slot)
    hole = hashed & mask
    while cells[hole] != own:
        hole = (hole + U1) & mask
    at = (hole + U1) & mask
    cell = cells[at]
    while cell != U0:
        first = cell >> U32
        # It may move into the hole if the hole lies on its way from where its search begins.
        if ((at - first) & mask) >= ((at - hole) & mask):
            cells[hole] = cell
            hole = at
        at = (at + U1) & mask
        cell = cells[at]
    cells[hole] = U0
