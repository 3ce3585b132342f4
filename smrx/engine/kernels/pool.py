"""Slots: taking one from a table and giving it back. Growth is not here: there is always a slot (see apply.py)."""

from typing import Any

import numpy as np

from smrx.engine.kernels.jit import Array, Record, inlined


@inlined
def take(pool: Record, table: Array) -> Any:
    """A free slot, the one given back last if there is any. Its record holds old values."""
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
def give_back(pool: Record, table: Array, slot: Any) -> None:
    record = table[slot]
    record.live = 0
    record.next = pool.free
    pool.free = slot
    pool.live = np.uint32(pool.live - 1)


@inlined
def left(pool: Record, length: Any) -> Any:
    """Records that a table of this length can still take."""
    return length - 1 - np.int64(pool.live)
