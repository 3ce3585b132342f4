"""A binary heap of the open GTD orders, keyed by (expiry, order id).

Each order holds its place in the heap, so one that ends earlier is removed in logarithmic time. `core.next_expiry` is
the first expiry, so a command that expires nothing costs one comparison. Called by orders.py; expiry.py ends the
orders.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.jit import Record, Tables, inlined, kernel
from smrx.engine.state import NEVER


@inlined
def expiry_of(state: Tables, order: Record) -> Any:
    """Return the engine time, in nanoseconds, at which a GTD order ends."""
    return state.order_details[order.details].expiry_ns


@inlined
def expires_earlier(state: Tables, left: Record, right: Record) -> Any:
    """Whether one GTD order ends before another: by expiry, then by id."""
    first = expiry_of(state, left)
    second = expiry_of(state, right)
    return first < second or (first == second and left.order_id < right.order_id)


@inlined
def put_in_heap(state: Tables, at: Any, slot: Any) -> None:
    """Write a slot to a place of the heap."""
    state.heap[at] = slot
    state.orders[slot].place = np.uint32(at)


@kernel
def sift_up(state: Tables, at: Any, slot: Any) -> None:
    """Put a slot at a place or above it, below the first earlier parent."""
    order = state.orders[slot]
    while at > 1:
        parent = state.heap[at >> 1]
        if not expires_earlier(state, order, state.orders[parent]):
            break
        put_in_heap(state, at, parent)
        at >>= 1
    put_in_heap(state, at, slot)


@kernel
def sift_down(state: Tables, at: Any, slot: Any, count: Any) -> None:
    """Put a slot at a place or below it, above the first later children."""
    order = state.orders[slot]
    while 2 * at <= count:
        child = 2 * at
        if child < count and expires_earlier(
            state, state.orders[state.heap[child + 1]], state.orders[state.heap[child]]
        ):
            child += 1
        earlier = state.heap[child]
        if not expires_earlier(state, state.orders[earlier], order):
            break
        put_in_heap(state, at, earlier)
        at = child
    put_in_heap(state, at, slot)


@inlined
def update_next_expiry(state: Tables) -> None:
    """Set core.next_expiry from the first order of the heap."""
    core = state.core[0]
    core.next_expiry = expiry_of(state, state.orders[state.heap[1]]) if core.expiring != 0 else NEVER


@kernel
def schedule_expiry(state: Tables, slot: Any) -> None:
    """Add a GTD order to the heap."""
    core = state.core[0]
    core.expiring = np.uint32(core.expiring + 1)
    sift_up(state, np.int64(core.expiring), slot)
    update_next_expiry(state)


@kernel
def unschedule_expiry(state: Tables, slot: Any) -> None:
    """Remove an order from the heap; the last one takes its place."""
    core = state.core[0]
    order = state.orders[slot]
    at = np.int64(order.place)
    order.place = 0
    count = np.int64(core.expiring) - 1
    core.expiring = np.uint32(count)
    if at <= count:
        last = state.heap[count + 1]
        if at > 1 and expires_earlier(state, state.orders[last], state.orders[state.heap[at >> 1]]):
            sift_up(state, at, last)
        else:
            sift_down(state, at, last, count)
    state.heap[count + 1] = np.uint32(0)
    update_next_expiry(state)
