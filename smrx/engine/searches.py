"""What must always hold of the indexes of index.py: every search finds. Plain NumPy; called by invariants.py alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import View
from .indexes import keys_of, members
from .state import TABLES
from .xxh3_rows import folded

_U32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFF_FFFF)
#: Searches at once: as many as keep what is noted of them in the cache.
_TOGETHER = 1 << 15


def indexes(view: View) -> Iterator[str]:
    """Every id in an index is that of a live record, and every live record is found by its id."""
    for table in TABLES:
        for index in table.indexes:
            cells = getattr(view.state, index)
            slots = members(index, table.name, view[table.name])
            keys, extras = keys_of(index, view[table.name], slots)
            # Each search ends at a cell with the slot searched for, and no cell is left over: so there is no other.
            entries = np.count_nonzero(cells["slot"])
            if entries != len(slots) or (_found(cells, keys, extras) != slots).any():
                yield f"{index}: {_fault(cells, keys, extras, slots, table.name)}"


def _found(cells: NDArray[Any], keys: Any, extras: Any) -> NDArray[np.uint32]:
    """The slot that a search for each key ends at; 0 where it comes to an empty cell."""
    # A cell is two words: its key, and its slot above its extra.
    words = cells.view("<u8").reshape(-1, 2)
    found = np.zeros(len(keys), dtype=np.uint32)
    for start in range(0, len(keys), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        _search(words, keys[part], extras[part], found[part])
    return found


def _search(words: NDArray[Any], keys: Any, extras: Any, found: NDArray[np.uint32]) -> None:
    """Search for some keys at once, each from its home on."""
    searching = np.arange(len(keys))
    at = _homes(keys, extras, len(words))
    # An empty cell ends a search; in a table without one, its length does.
    for _ in range(len(words)):
        if not len(searching):
            break
        key, rest = words[at].T
        slot = (rest >> _U32).astype(np.uint32)
        hit = (key == keys[searching]) & (rest & _LOW32 == extras[searching])
        found[searching[hit]] = slot[hit]
        on = ~hit & (slot != 0)
        searching, at = searching[on], (at[on] + 1) & (len(words) - 1)


def _homes(keys: Any, extras: Any, size: int) -> NDArray[np.int64]:
    """The cell where the search for each key begins: the definition of index.home, by other means."""
    word = keys ^ (extras.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))
    return (folded(word, np.uint64(0x9E3779B97F4A7C15)) & np.uint64(size - 1)).astype(np.int64)


def _fault(cells: NDArray[Any], keys: Any, extras: Any, slots: Any, table: str) -> str:
    """What is wrong with an index in which something is."""
    rows = cells[cells["slot"] != 0]
    expected = sorted(zip(keys.tolist(), extras.tolist(), slots.tolist(), strict=True))
    found = sorted(zip(rows["key"].tolist(), rows["extra"].tolist(), rows["slot"].tolist(), strict=True))
    if expected != found:
        return f"it does not have the live {table}"
    if len({entry[:2] for entry in found}) != len(found):
        return "a key is there twice"
    return "a search stops before it finds its key"
