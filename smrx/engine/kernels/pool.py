"""Take slots from a table and return them. Tables grow elsewhere: a kernel always finds a free slot (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.jit import Array, Record, inlined


@inlined
def take_slot(pool: Record, table: Array) -> Any:
    """Return a free slot, the one returned last if there is one. Its record holds old values."""
    slot = pool.free
    if slot != 0:
        pool.free = table[slot].next
    else:
        slot = pool.top
        pool.top = np.uint32(slot + 1)
    pool.live = np.uint32(pool.live + 1)
    table[slot].live = 1
    return slot


@inlined
def append_slot(pool: Record, table: Array) -> Any:
    """Return the next slot of a table whose records are never removed; its record is empty."""
    slot = pool.top
    pool.top = np.uint32(slot + 1)
    pool.live = np.uint32(pool.live + 1)
    table[slot].live = 1
    return slot


@inlined
def return_slot(pool: Record, table: Array, slot: Any) -> None:
    """Put a slot on the free list of its table."""
    record = table[slot]
    record.live = 0
    record.next = pool.free
    pool.free = slot
    pool.live = np.uint32(pool.live - 1)


@inlined
def slots_left(pool: Record, length: Any) -> Any:
    """Return how many more records a table of this length can take."""
    return length - 1 - np.int64(pool.live)
