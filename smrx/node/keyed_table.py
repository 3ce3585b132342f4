"""Count things by key in an array, so that compiled code can count for many frames at once.

A table with open addressing: a row for each key, found by a hash with secret factors, so that no client can choose keys
that collide. A row is never removed by itself: when the table is half full, the rows that are idle are left out, and
what is in use after that decides whether the table becomes larger or begins anew. The columns are in entry_kernels.py,
which finds the rows. Called by client_limits.py.
"""

import secrets
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.node import compiled_entry
from smrx.node.entry_kernels import IN_USE, KEY, TABLE_NUMBERS, TABLE_WORDS, USED

_FACTOR_BITS: Final = 30
_SIGN: Final = 1 << 63


class KeyedTable:
    """Two numbers for each key of 64 bits."""

    def __init__(self, rows: int = 1 << 13) -> None:
        """`rows`: a power of two."""
        self.cells: NDArray[np.int64] = np.zeros((rows, TABLE_WORDS), np.int64)
        self.numbers: NDArray[np.int64] = np.zeros(TABLE_NUMBERS, np.int64)
        self.numbers[1:] = [secrets.randbits(_FACTOR_BITS) | 1 for _ in range(TABLE_NUMBERS - 1)]

    def __len__(self) -> int:
        """Return the rows in use, idle ones included."""
        return int(self.numbers[IN_USE])

    def row(self, key: int) -> NDArray[np.int64]:
        """Return a view of the row of a key, which is entered if it has none."""
        found: NDArray[np.int64] = self.cells[compiled_entry.find_row(self.cells, self.numbers, signed(key))]
        return found

    def has_space(self, keys: int) -> bool:
        """Return whether so many more keys can be entered."""
        return bool(2 * (self.numbers[IN_USE] + keys) <= len(self.cells))

    def make_space(
        self, keys: int, is_idle: Callable[[NDArray[np.int64]], NDArray[np.bool_]], most_rows: int | None = None
    ) -> None:
        """Make space for so many more keys.

        is_idle(rows) says which rows may be left out. Where more than `most_rows` would be needed, all of them are.
        """
        used = self.cells[self.cells[:, USED] != 0]
        kept = used[~is_idle(used)]
        rows = len(self.cells)
        while 2 * (len(kept) + keys) > rows:
            rows *= 2
        if most_rows is not None and rows > most_rows:
            kept, rows = kept[:0], len(self.cells)
        self.cells = np.zeros((rows, TABLE_WORDS), np.int64)
        self.numbers[IN_USE] = 0
        for key, *values in kept.tolist():
            self.cells[compiled_entry.find_row(self.cells, self.numbers, key), KEY + 2 :] = values[1:]


def signed(key: int) -> int:
    """Return the number of 64 bits with a sign that has the same bits."""
    return key - (1 << 64) if key >= _SIGN else key
