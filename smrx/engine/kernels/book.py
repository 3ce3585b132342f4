"""Keep price levels and their queues: the books of every instrument, of orders by price and of stops by stop price.

A level is found by its price through an index, the best level through its book, the neighbours of a level through
links. A binary radix tree over the bits of the price finds the neighbours of a new level: a level is a leaf, a node
separates its prices by one bit, and bits fall on the way down. So no path is longer than a price has bits, and few are
much longer than the logarithm of the number of levels where prices are close together. The shape of the tree depends
on its prices alone, not on their history. Nothing here uses accounts or balances.

A reference in a tree is a level's slot with LEAF set, or a node's slot.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.hash_index import insert, remove
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    U1,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_level
from smrx.engine.kernels.pool import return_slot, take_slot
from smrx.engine.state import BOOKS, LEVELS, NODES
from smrx.wire.codes import OrderType

LEAF: Final = np.uint32(1 << 31)
SLOT_MASK: Final = np.uint32((1 << 31) - 1)

_SHIFTS: Final = tuple(np.uint64(1 << power) for power in range(6))


@inlined
def is_leaf(reference: Any) -> Any:
    """Whether a reference in a tree is a level."""
    return (reference & LEAF) != 0


@inlined
def highest_bit(word: Any) -> Any:
    """Return the highest bit of a word that is not 0, alone."""
    word |= word >> _SHIFTS[0]
    word |= word >> _SHIFTS[1]
    word |= word >> _SHIFTS[2]
    word |= word >> _SHIFTS[3]
    word |= word >> _SHIFTS[4]
    word |= word >> _SHIFTS[5]
    return word ^ (word >> U1)


@inlined
def set_parent(levels: Array, nodes: Array, reference: Any, parent: Any) -> None:
    """Set the parent of a leaf or a node."""
    if is_leaf(reference):
        levels[np.uint32(reference & SLOT_MASK)].parent = parent
    else:
        nodes[reference].parent = parent


@inlined
def replace_child(book: Record, nodes: Array, parent: Any, old: Any, new: Any) -> None:
    """Replace a reference under a parent by another; parent 0 is the root."""
    if parent == NIL:
        book.root = new
    elif nodes[parent].one == old:
        nodes[parent].one = new
    else:
        nodes[parent].zero = new


@kernel
def nearest_leaf(nodes: Array, root: Any, key: Any) -> Any:
    """Return the leaf that a price leads to: its own if it has one, else one that shares its leading bits."""
    reference = root
    while not is_leaf(reference):
        node = nodes[reference]
        reference = node.one if (key & node.bit) != U0 else node.zero
    return np.uint32(reference & SLOT_MASK)


@kernel
def insert_level(book: Record, levels: Array, nodes: Array, pool: Record, slot: Any) -> None:
    """Insert a level into the tree of a book that has others, and link it to its neighbours."""
    level = levels[slot]
    key = np.uint64(level.price)
    near = nearest_leaf(nodes, book.root, key)
    bit = highest_bit(key ^ np.uint64(levels[near].price))
    # From there upwards: a price is seldom far from the others.
    reference = np.uint32(near | LEAF)
    parent = levels[near].parent
    while parent != NIL and nodes[parent].bit < bit:
        reference = parent
        parent = nodes[parent].parent
    # The new price is above, or below, every price under `reference`; the nearest of them is its neighbour.
    above = (key & bit) != U0
    edge = reference
    while not is_leaf(edge):
        edge = nodes[edge].one if above else nodes[edge].zero
    leaf = np.uint32(slot | LEAF)
    new = take_slot(pool, nodes)
    node = nodes[new]
    node.bit = bit
    node.zero = reference if above else leaf
    node.one = leaf if above else reference
    node.parent = parent
    set_parent(levels, nodes, reference, new)
    level.parent = new
    replace_child(book, nodes, parent, reference, new)
    link_neighbours(book, levels, slot, np.uint32(edge & SLOT_MASK), above)


@inlined
def link_neighbours(book: Record, levels: Array, slot: Any, neighbour: Any, above: Any) -> None:
    """Link a level to `neighbour`, which its price is above or below, and to the level on its other side."""
    level = levels[slot]
    # A book number with the low bit set is asks (or buy stops), where the lower price is better.
    if above != ((level.book & 1) != 0):
        level.worse = neighbour
        level.better = levels[neighbour].better
        levels[neighbour].better = slot
        if level.better == NIL:
            book.best = slot
        else:
            levels[level.better].worse = slot
    else:
        level.better = neighbour
        level.worse = levels[neighbour].worse
        levels[neighbour].worse = slot
        if level.worse != NIL:
            levels[level.worse].better = slot


@kernel
def open_level(state: Tables, number: Any, price: Any) -> Any:
    """Add a level for a price that has none; return its slot."""
    book = state.books[number]
    levels = state.levels
    slot = take_slot(state.pools[LEVELS], levels)
    level = levels[slot]
    level.price = price
    level.quantity = 0
    level.orders = 0
    level.first = 0
    level.last = 0
    level.better = 0
    level.worse = 0
    level.parent = 0
    level.book = number
    insert(state.level_index, np.uint64(price), np.uint32(number), slot)
    if book.root == NIL:
        book.root = np.uint32(slot | LEAF)
        book.best = slot
    else:
        insert_level(book, levels, state.nodes, state.pools[NODES], slot)
    book.levels = np.uint32(book.levels + 1)
    return slot


@kernel
def close_level(state: Tables, slot: Any) -> None:
    """Remove a level that has no orders left."""
    levels = state.levels
    nodes = state.nodes
    level = levels[slot]
    book = state.books[level.book]
    remove(state.level_index, np.uint64(level.price), level.book, slot)
    if level.better == NIL:
        book.best = level.worse
    else:
        levels[level.better].worse = level.worse
    if level.worse != NIL:
        levels[level.worse].better = level.better
    parent = level.parent
    if parent == NIL:
        book.root = 0
    else:
        # Remove the leaf and its node; the other branch moves up.
        node = nodes[parent]
        other = node.zero if node.one == np.uint32(slot | LEAF) else node.one
        set_parent(levels, nodes, other, node.parent)
        replace_child(book, nodes, node.parent, parent, other)
        return_slot(state.pools[NODES], nodes, parent)
    book.levels = np.uint32(book.levels - 1)
    return_slot(state.pools[LEVELS], levels, slot)


@inlined
def resting_book_number(order: Record) -> Any:
    """Return the number of the book that an order rests in."""
    return np.uint32(BOOKS * np.int64(order.instrument) + np.int64(order.side) - 1)


@inlined
def stop_book_number(order: Record) -> Any:
    """Return the number of the book of a pending stop. The best buy stop is the lowest, as for asks."""
    return np.uint32(BOOKS * np.int64(order.instrument) + 4 - np.int64(order.side))


@inlined
def display_of(state: Tables, order: Record) -> Any:
    """Return the most lots that an iceberg in its book shows; 0 for any other order, also a pending stop."""
    if order.details != NIL and order.order_type == OrderType.LIMIT:
        return state.order_details[order.details].display_lots
    return np.int64(0)


@inlined
def visible_lots(order: Record) -> Any:
    """Return the lots of an order that its level counts."""
    return order.shown if order.shown != 0 else order.quantity - order.cum


@inlined
def append_to_queue(state: Tables, at: Any, slot: Any) -> None:
    """Link an order behind the last one of a level."""
    level = state.levels[at]
    order = state.orders[slot]
    order.before = level.last
    order.next = 0
    if level.last == NIL:
        level.first = slot
    else:
        state.orders[level.last].next = slot
    level.last = slot


@inlined
def unlink_from_queue(state: Tables, level: Record, slot: Any) -> None:
    """Remove an order from the links of its queue."""
    orders = state.orders
    before = orders[slot].before
    following = orders[slot].next
    # Without a branch, because an order's position in its queue is unpredictable: where a neighbour is missing, the
    # link is written to the order itself, which is not read again.
    orders[before if before != NIL else slot].next = following
    orders[following if following != NIL else slot].before = before
    level.first = following if before == NIL else level.first
    level.last = before if following == NIL else level.last


@inlined
def enqueue(state: Tables, number: Any, price: Any, slot: Any) -> None:
    """Put an order at the end of the queue of a price in a book."""
    order = state.orders[slot]
    at = find_level(state, number, price)
    if at == NIL:
        at = open_level(state, number, price)
    level = state.levels[at]
    order.level = at
    append_to_queue(state, at, slot)
    level.orders = np.uint32(level.orders + 1)
    level.quantity += visible_lots(order)
    book = state.books[number]
    book.orders = np.uint32(book.orders + 1)
    if order.shown != 0:
        book.icebergs = np.uint32(book.icebergs + 1)


@inlined
def dequeue(state: Tables, slot: Any) -> None:
    """Remove an order from its queue, with its remaining lots; close the level if it is empty then."""
    order = state.orders[slot]
    level = state.levels[order.level]
    book = state.books[level.book]
    unlink_from_queue(state, level, slot)
    level.orders = np.uint32(level.orders - 1)
    level.quantity -= visible_lots(order)
    book.orders = np.uint32(book.orders - 1)
    if display_of(state, order) != 0:
        book.icebergs = np.uint32(book.icebergs - 1)
    if level.orders == NIL:
        close_level(state, order.level)


@kernel
def refresh_iceberg(state: Tables, slot: Any) -> None:
    """Show the next lots of an iceberg that shows none, at the end of its queue."""
    order = state.orders[slot]
    level = state.levels[order.level]
    order.shown = min(display_of(state, order), order.quantity - order.cum)
    level.quantity += order.shown
    unlink_from_queue(state, level, slot)
    append_to_queue(state, order.level, slot)
