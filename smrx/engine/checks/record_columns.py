"""The records of a state as columns, one for each field: the input of the checks.

A column is contiguous. Reading one field of a million records of 128 bytes reads all of them; so every table is read
once, in blocks that stay in the cache, and all its columns are made from it. Owns copies; never changes the state.
"""

from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.memory import CACHE_LINE
from smrx.engine.state import TABLES, State

#: Records read at once: half a megabyte of the longest ones, less than a core's own cache.
BLOCK: Final = 1 << 12

#: The place of a table in State.pools.
NUMBERS: Final = {table.name: number for number, table in enumerate(TABLES)}


def _rounded(size: int) -> int:
    """Round a size up to a cache line."""
    return -(-size // CACHE_LINE) * CACHE_LINE


class Columns:
    """The columns of a table up to the first slot never used. Slot 0 is included, so slots are positions."""

    def __init__(self, rows: NDArray[Any]) -> None:
        fields = [(name, rows.dtype[name]) for name in rows.dtype.names or ()]
        # One allocation for all of them: the system provides one large piece faster than many of middle size.
        ends = np.cumsum([_rounded(len(rows) * kind.itemsize) for _, kind in fields]).tolist()
        memory = np.empty(ends[-1], np.uint8)
        starts = [0, *ends[:-1]]
        self._columns = {
            name: memory[start : start + len(rows) * kind.itemsize].view(kind)
            for (name, kind), start in zip(fields, starts, strict=True)
        }
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            for name, column in self._columns.items():
                column[start : start + BLOCK] = block[name]

    def __len__(self) -> int:
        return len(self["live"])

    def __getitem__(self, field: str) -> NDArray[Any]:
        """A field of all records, by slot."""
        return self._columns[field]

    @cached_property
    def slots(self) -> NDArray[np.intp]:
        """The slots of the live records."""
        return np.flatnonzero(self["live"])

    def live(self, field: str) -> NDArray[Any]:
        """Return a field of the live records, in the order of `slots`."""
        column = self[field]
        # If all but slot 0 are live, they are a slice.
        return column[1:] if len(self.slots) == len(column) - 1 and not self["live"][0] else column[self.slots]


class StateColumns:
    """A state and the columns of its tables, each made on first use."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._tables: dict[str, Columns] = {}

    def __getitem__(self, table: str) -> Columns:
        if table not in self._tables:
            top = int(self.state.pools["top"][NUMBERS[table]])
            self._tables[table] = Columns(getattr(self.state, table)[:top])
        return self._tables[table]
