"""Check the indexes of hash_index.py: every search finds its record. Plain NumPy; called by invariants.py."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.engine.checks.record_columns import StateColumns
from smrx.engine.checks.xxh3_rows import multiply_fold_rows
from smrx.engine.index_build import keys_of, members
from smrx.engine.state import MOVED, SIZE, TABLES, generation

_U32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFF_FFFF)
#: Searches in one batch: as many as fit into the cache.
_BATCH = 1 << 15

#: The keys of the records in some slots, and their second parts.
_KeysAt = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]


def index_violations(tables: StateColumns) -> Iterator[str]:
    """Every id in an index is that of a live record, and every live record is found by its id."""
    for table in TABLES:
        rows = tables[table.name]
        for index in table.indexes:
            array = getattr(tables.state, index)
            size, moved = int(array[SIZE]), int(array[MOVED])
            if size & (size - 1) or not 0 < 2 * size <= len(array) or (moved and 4 * size > len(array)):
                yield f"{index}: a generation with {size} cells"
                continue
            slots = members(index, table.name, rows)
            yield from _generation_violations(table.name, index, generation(array, size), rows, slots)
            if moved:
                entered = slots[slots < moved]
                yield from _generation_violations(table.name, index, generation(array, 2 * size), rows, entered)


def _generation_violations(
    table: str, index: str, cells: NDArray[Any], rows: Any, slots: NDArray[Any]
) -> Iterator[str]:
    """A generation of an index has these slots, and every search in it finds its record."""
    entries = np.sort(cells[cells != 0] & _LOW32)
    if not np.array_equal(entries, slots):
        yield f"{index}: its entries are not the live {table}"
        return
    # Every search must end at its own slot; the cells have no other slots, so no key is there twice.
    found = _found(cells, slots, partial(keys_of, index, rows))
    if (found == 0).any():
        yield f"{index}: a search stops before it finds its key"
    elif (found != slots).any():
        yield f"{index}: a key is there twice"


def _found(cells: NDArray[Any], slots: NDArray[Any], keys_at: _KeysAt) -> NDArray[np.uint32]:
    """Return the slot that a search for the key of each slot ends at; 0 if it reaches an empty cell."""
    found = np.zeros(len(slots), dtype=np.uint32)
    for start in range(0, len(slots), _BATCH):
        part = slice(start, start + _BATCH)
        _search(cells, slots[part], found[part], keys_at)
    return found


def _search(cells: NDArray[Any], slots: NDArray[Any], found: NDArray[np.uint32], keys_at: _KeysAt) -> None:
    """Search for some records at once, each from the cell where the search for its key begins."""
    keys, extras = keys_at(slots)
    hashes = _hashes(keys, extras)
    searching = np.arange(len(slots))
    at = (hashes & np.uint64(len(cells) - 1)).astype(np.int64)
    # An empty cell ends a search; in a table without one, its length does.
    for _ in range(len(cells)):
        if not len(searching):
            break
        cell = cells[at]
        slot = (cell & _LOW32).astype(np.uint32)
        hit = (cell != 0) & (cell >> _U32 == hashes[searching])
        # Another record with the same hash has another key; or the same key, which is a violation.
        (other,) = np.nonzero(hit & (slot != slots[searching]))
        their_keys, their_extras = keys_at(slot[other])
        hit[other] = (their_keys == keys[searching[other]]) & (their_extras == extras[searching[other]])
        found[searching[hit]] = slot[hit]
        on = ~hit & (cell != 0)
        searching, at = searching[on], (at[on] + 1) & (len(cells) - 1)


def _hashes(keys: NDArray[Any], extras: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hash of each key: hash_index.key_hash, computed independently."""
    word = keys ^ (extras.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))
    return multiply_fold_rows(word, np.uint64(0x9E3779B97F4A7C15)) & _LOW32
