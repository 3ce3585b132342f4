"""Hash maps from a key to a slot: open addressing, linear probing, no tombstones.

A key is 64 bits and 32 more (an order's client id and its account, a price and its book). It is stored in the record
itself; a cell is one word, with the slot in its low half and 32 bits of the key's hash in its high half. The low bits
of that hash give the cell where the search for the key begins. So eight cells share a cache line, and only a record
with the right hash is read. The number of cells is a power of two, and at most a quarter of them are used (see
state.index_size), so a probe always ends at an empty cell, three of four at once.

The array of an index has space for several generations of it: that with N cells begins at cell N, so the next one, with
2 N, begins where it ends. A kernel sees the one in use. The array begins with a header: SIZE is N, and MOVED the first
slot that is not entered into the next generation yet, 0 while there is none; index_growth.py makes it. Searches use the
generation in use; a key is added to and removed from both.
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
from smrx.engine.kernels.numba_tables import table_at
from smrx.engine.state import HEADER, MOVED

#: 2^64 / golden ratio, and a second odd number to keep the two parts of a key apart.
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xD6E8FEB86659FD93)
#: The second part of a key that has none.
NO_EXTRA: Final = NIL


@inlined
def key_hash(key: Any, extra: Any) -> Any:
    """Return the 32 bits of a key's hash that its cell stores."""
    # Both halves of the product, so that keys that differ only in their high bits, as some client ids do, get
    # different hashes too.
    return multiply_fold(key ^ (np.uint64(extra) * _SECOND), _GOLDEN) & LOW32


@inlined
def find(cells: Array, records: Array, matches: Any, key: Any, extra: Any) -> Any:
    """Return the slot of the record that `matches` (a kernel) the key, or 0."""
    mask = np.uint64(len(cells) - 1)
    wanted = key_hash(key, extra)
    at = wanted & mask
    while True:
        cell = cells[at]
        slot = np.uint32(cell & LOW32)
        if slot == NIL or ((cell >> U32) == wanted and matches(records[slot], key, extra)):
            return slot
        at = (at + U1) & mask


@inlined
def enter(cells: Array, hashed: Any, slot: Any) -> None:
    """Add a slot by the hash of its key."""
    mask = np.uint64(len(cells) - 1)
    at = hashed & mask
    while cells[at] != U0:
        at = (at + U1) & mask
    cells[at] = (hashed << U32) | np.uint64(slot)


@inlined
def leave(cells: Array, hashed: Any, slot: Any) -> None:
    """Remove a slot, and close the hole, so that no later search stops at it."""
    mask = np.uint64(len(cells) - 1)
    own = (hashed << U32) | np.uint64(slot)
    hole = hashed & mask
    while cells[hole] != own:
        hole = (hole + U1) & mask
    at = (hole + U1) & mask
    cell = cells[at]
    while cell != U0:
        first = cell >> U32
        # The entry may move into the hole if its search passes the hole.
        if ((at - first) & mask) >= ((at - hole) & mask):
            cells[hole] = cell
            hole = at
        at = (at + U1) & mask
        cell = cells[at]
    cells[hole] = U0


@inlined
def moved(cells: Array) -> Any:
    """Return the first slot that is not in the next generation yet; 0 if there is none."""
    return table_at(cells, -len(cells), HEADER)[MOVED]


@kernel
def insert_next(cells: Array, hashed: Any, slot: Any) -> None:
    """Add a slot to the next generation, unless it will be entered there later."""
    if np.uint64(slot) < moved(cells):
        enter(table_at(cells, len(cells), 2 * len(cells)), hashed, slot)


@kernel
def remove_next(cells: Array, hashed: Any, slot: Any) -> None:
    """Remove a slot from the next generation, unless it is not there yet."""
    if np.uint64(slot) < moved(cells):
        leave(table_at(cells, len(cells), 2 * len(cells)), hashed, slot)


@kernel
def insert(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Add a key that is not in the index."""
    hashed = key_hash(key, extra)
    enter(cells, hashed, slot)
    if moved(cells) != U0:
        insert_next(cells, hashed, slot)


@inlined
def remove(cells: Array, key: Any, extra: Any, slot: Any) -> None:
    """Remove a key that is in the index."""
    hashed = key_hash(key, extra)
    leave(cells, hashed, slot)
    if moved(cells) != U0:
        remove_next(cells, hashed, slot)
