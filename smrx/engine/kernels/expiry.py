"""GTD orders by the time at which they end: a binary heap of their slots, keyed by (expiry, order id).

Each order knows its place in the heap, so one that goes before its time is taken out in logarithmic time; core keeps
the first expiry, so a command that ends nothing pays for one comparison. Called by orders.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import U32, Record, Tables, inlined, kernel
from smrx.engine.state import NEVER

NS: Final = np.int64(1_000_000_000)


@inlined
def expiry_ns(extra: Any) -> Any:
    """Engine time at which an order with this extra word ends, in nanoseconds."""
    return np.int64(extra >> U32) * NS


@inlined
def is_earlier(left: Record, right: Record) -> Any:
    """Whether one GTD order ends before another: by expiry, then by id."""
    first = left.extra >> U32
    second = right.extra >> U32
    return first < second or (first == second and left.order_id < right.order_id)


@inlined
def put(state: Tables, at: Any, slot: Any) -> None:
    state.heap[at] = slot
    state.orders[slot].place = np.uint32(at)


@kernel
def rise(state: Tables, at: Any, slot: Any) -> None:
    """Put a slot at a place or above it, where its parent is earlier."""
    order = state.orders[slot]
    while at > 1:
        parent = state.heap[at >> 1]
        if not is_earlier(order, state.orders[parent]):
            break
        put(state, at, parent)
        at >>= 1
    put(state, at, slot)


@kernel
def sink(state: Tables, at: Any, slot: Any, count: Any) -> None:
    """Put a slot at a place or below it, where its children are later."""
    order = state.orders[slot]
    while 2 * at <= count:
        child = 2 * at
        if child < count and is_earlier(state.orders[state.heap[child + 1]], state.orders[state.heap[child]]):
            child += 1
        earlier = state.heap[child]
        if not is_earlier(state.orders[earlier], order):
            break
        put(state, at, earlier)
        at = child
    put(state, at, slot)


@inlined
def note_first(state: Tables) -> None:
    core = state.core[0]
    core.next_expiry = expiry_ns(state.orders[state.heap[1]].extra) if core.expiring != 0 else NEVER


@kernel
def schedule(state: Tables, slot: Any) -> None:
    """Add a GTD order to the heap."""
    core = state.core[0]
    core.expiring = np.uint32(core.expiring + 1)
    rise(state, np.int64(core.expiring), slot)
    note_first(state)


@kernel
def unschedule(state: Tables, slot: Any) -> None:
    """Take an order out of the heap; the last one fills its place."""
    core = state.core[0]
    order = state.orders[slot]
    at = np.int64(order.place)
    order.place = 0
    count = np.int64(core.expiring) - 1
    core.expiring = np.uint32(count)
    if at <= count:
        last = state.heap[count + 1]
        if at > 1 and is_earlier(state.orders[last], state.orders[state.heap[at >> 1]]):
            rise(state, at, last)
        else:
            sink(state, at, last, count)
    state.heap[count + 1] = np.uint32(0)
    note_first(state)
