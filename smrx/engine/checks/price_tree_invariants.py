"""Check the price trees of book.py, those of all books at once. Called by invariants.py alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.engine.checks.record_columns import StateColumns
from smrx.engine.state import LEVELS, NODES

_LEAF = np.uint32(1 << 31)
_U1 = np.uint64(1)

#: For each depth below the roots, the branches there: their books and their nodes.
_Layers = list[tuple[NDArray[Any], NDArray[Any]]]


def tree_violations(tables: StateColumns) -> Iterator[str]:
    """A price leads through the tree of its book to its level, and there is one node fewer than levels."""
    layers: _Layers = []
    violation = _descend(tables, layers) or _out_of_order(tables, layers)
    if violation:
        yield violation
    live = tables.state.pools["live"]
    if int(live[NODES]) != int(live[LEVELS]) - np.count_nonzero(tables.state.books["root"]):
        yield "nodes: their number does not match the levels"


def _descend(tables: StateColumns, layers: _Layers) -> str | None:
    """Go from all roots to all leaves, and collect the branches of each depth. Returns the first violation."""
    books, levels, nodes = tables.state.books, tables["levels"], tables["nodes"]
    book: NDArray[Any] = np.flatnonzero(books["root"])
    reference: NDArray[Any] = books["root"][book]
    parent: NDArray[Any] = np.zeros(len(book), dtype=np.uint32)
    above: NDArray[Any] = np.full(len(book), ~np.uint64(0))
    leaves = np.zeros(len(books), dtype=np.int64)
    met = 0
    while len(reference):
        met += len(reference)
        # Branches that join again would be visited exponentially often.
        if met > 2 * len(levels.slots):
            return "nodes: the trees have more branches than their levels need"
        leaf = reference >= _LEAF
        slot, home = reference[leaf] ^ _LEAF, book[leaf]
        inside = np.where(slot < len(levels), slot, 0)
        right = (slot != 0) & (inside == slot) & (levels["live"][inside] != 0)
        right &= (levels["parent"][inside] == parent[leaf]) & (levels["book"][inside] == home)
        if not right.all():
            return f"levels: a leaf of book {home[~right][0]} is invalid"
        leaves += np.bincount(home, minlength=len(books))
        node, book, parent, above = (column[~leaf] for column in (reference, book, parent, above))
        inside = np.where(node < len(nodes), node, 0)
        right = (node != 0) & (inside == node) & (nodes["live"][inside] != 0)
        if not right.all():
            return f"nodes: a branch of book {book[~right][0]} is invalid"
        bit = nodes["bit"][node]
        # Bits fall, and each is one bit: so no path is longer than a price has bits.
        right = (nodes["parent"][node] == parent) & (bit < above) & (bit != 0) & (bit & (bit - _U1) == 0)
        if not right.all():
            return f"nodes: a node of book {book[~right][0]} has the wrong parent or bit"
        layers.append((book, node))
        reference = np.concatenate([nodes["zero"][node], nodes["one"][node]])
        book, parent, above = np.tile(book, 2), np.tile(node, 2), np.tile(bit, 2)
    if (leaves != books["levels"]).any():
        return _misplaced(int(np.flatnonzero(leaves != books["levels"])[0]))
    return None


def _out_of_order(tables: StateColumns, layers: _Layers) -> str | None:
    """From the leaves up: below each node prices rise, and the highest bit in which they differ is the node's."""
    levels, nodes = tables["levels"], tables["nodes"]
    lowest, highest = (np.zeros(len(nodes), dtype=np.int64) for _ in range(2))

    def prices(reference: Any, of_nodes: Any) -> Any:
        leaf = reference >= _LEAF
        found = of_nodes[np.where(leaf, 0, reference)]
        found[leaf] = levels["price"][reference[leaf] ^ _LEAF]
        return found

    for book, node in reversed(layers):
        zero, one, bit = (nodes[field][node] for field in ("zero", "one", "bit"))
        lowest[node], highest[node] = prices(zero, lowest), prices(one, highest)
        differ = (lowest[node] ^ highest[node]).view(np.uint64)
        right = (prices(zero, highest) < prices(one, lowest)) & (differ & bit != 0) & (differ ^ bit < bit)
        if not right.all():
            return _misplaced(int(book[~right][0]))
    return None


def _misplaced(book: int) -> str:
    return f"nodes: the tree of book {book} does not have its levels in order of price"
