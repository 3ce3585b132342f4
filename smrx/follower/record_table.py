"""Find, add and remove records in open-addressing hash tables of records, each with one integer key. Compiled.

The size of a table is a power of two, it is at most half full, and `key` 0 marks an empty place. Linear probing without
tombstones: a removal moves later records up. The same functions serve every table of every projection; numba compiles
them for each record type. Who owns a table makes room in it (table_size) before it adds records.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import kernel

#: The initial size of a table.
FIRST_SIZE: Final = 1 << 10


def table_size(records: int) -> int:
    """Return the number of places of a table for so many records."""
    return 1 << max(FIRST_SIZE - 1, 2 * records - 1).bit_length()


def is_compiled(entry_point: Any) -> bool:
    """Return whether the machine code of an entry point is loaded or in the cache of this machine."""
    if entry_point.overloads:
        return True
    # Numba has no public interface for this. Its cache index contains the fingerprint of the source.
    try:
        index = entry_point._cache._cache_file._load_index()
        return any(key[2] == entry_point._cache._index_key(key[0], entry_point.targetctx.codegen())[2] for key in index)
    except (AttributeError, IndexError):
        return False


def live(table: NDArray[Any]) -> NDArray[Any]:
    """Return the records of a table, in no particular order."""
    found: NDArray[Any] = table[table["key"] != 0]
    return found


def filled(records: NDArray[Any], count: int, copy_records: Callable[[Any, Any], None]) -> NDArray[Any]:
    """Return a table of these records with room for `count` in all; copy_records is a compiled copy_all()."""
    table = np.zeros(table_size(max(count, len(records))), records.dtype)
    copy_records(table, records)
    return table


@kernel
def home(table: Any, key: Any) -> Any:
    """Return the place where the search for a key starts."""
    word = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((word ^ (word >> np.uint64(29))) & np.uint64(len(table) - 1))


@kernel
def find(table: Any, key: Any) -> Any:
    """Return the place of a key, or -1."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        if table[at].key == key:
            return at
        at = (at + 1) & mask
    return -1


@kernel
def place(table: Any, key: Any) -> Any:
    """Return the empty place for a key that is not in the table; the caller writes the key there."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        at = (at + 1) & mask
    return at


@kernel
def remove(table: Any, at: Any) -> None:
    """Empty a place, and move up the records that would no longer be found behind it."""
    mask = len(table) - 1
    empty = at
    following = (empty + 1) & mask
    while table[following].key != 0:
        # A record whose search starts at or before the emptied place, cyclically, must move there.
        if ((following - home(table, table[following].key)) & mask) >= ((following - empty) & mask):
            table[empty] = table[following]
            empty = following
        following = (following + 1) & mask
    table[empty].key = 0


@kernel
def copy_all(table: Any, records: Any) -> None:
    """Add records, whose keys are not in the table yet."""
    for i in range(len(records)):
        table[place(table, records[i].key)] = records[i]
