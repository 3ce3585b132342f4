"""Make an index larger a little at a time, while it is used: no call of the engine waits for a whole table.

An index array has space for several generations (kernels/hash_index.py). The next one is made ready in three steps:
its memory is touched, so that the system provides it; the records are entered, slot by slot, while the kernels enter
and remove what changes in both generations; then searches use the new generation, and the memory of the old one is
returned. What a call of step() does is bounded. Which generation is in use changes no outcome and no hash. Owns the
progress of one index. Called by engine.py after each batch of commands.
"""

from collections.abc import Iterator
from typing import Any, Final

from numpy.typing import NDArray

from smrx.engine.index_build import enter_slots
from smrx.engine.memory import release
from smrx.engine.state import MOVED, SIZE, TABLES, State, generation

#: Cells touched or released at once, 256 KiB: a few hundredths of a millisecond, one if the machine has to find the
#: memory.
_CELLS: Final = 1 << 15
#: Cells in the smallest page of memory.
_PAGE_CELLS: Final = 512
#: Slots entered by one call, and as many again for each command. So many times fewer commands than a table has records
#: complete its index, long before the table is full again.
_SLOTS: Final = 512
_SLOTS_PER_COMMAND: Final = 4
#: The most slots entered by one call: about a millisecond.
_MOST_SLOTS: Final = 1 << 13


class IndexGrowth:
    """The making of the next generation of an index."""

    def __init__(self, state: State, number: int, index: str, size: int) -> None:
        """`number` is that of the table in State.pools; `size` the number of cells of the next generation."""
        self.index = index
        #: Whether the next generation is in use: the addresses that kernels use must be made again.
        self.is_used = False
        self._cells: NDArray[Any] = getattr(state, index)
        self._number = number
        self._size = size
        self._budget = 0
        self._rows: NDArray[Any] = self._cells[:0]
        self._work = self._steps()

    def step(self, state: State, commands: int) -> bool:
        """Do the work of one call that applied so many commands; return whether there is more to do."""
        self._rows = getattr(state, TABLES[self._number].name)[: int(state.pools["top"][self._number])]
        self._budget = min(_SLOTS + _SLOTS_PER_COMMAND * commands, _MOST_SLOTS)
        more = next(self._work, None) is not None
        self._rows = self._cells[:0]
        return more

    def finish(self, state: State) -> None:
        """Do all that is left at once: the table is full again."""
        while self.step(state, _MOST_SLOTS):
            pass

    def _steps(self) -> Iterator[bool]:
        cells, size = self._cells, self._size
        for start in range(size, 2 * size, _CELLS):
            cells[start : min(start + _CELLS, 2 * size) : _PAGE_CELLS] = 0
            yield True
        assert size == 2 * int(cells[SIZE]), "the next generation has twice as many cells"
        cells[MOVED] = 1
        while not self._enter():
            yield True
        old = int(cells[SIZE])
        cells[SIZE] = size
        cells[MOVED] = 0
        self.is_used = True
        yield True
        for start in range(old, 2 * old, _CELLS):
            release(cells, start, min(start + _CELLS, 2 * old))
            yield True

    def _enter(self) -> bool:
        """Enter the next slots into the new generation; return whether all are there."""
        first = int(self._cells[MOVED])
        rows = self._rows[first : first + self._budget]
        cells = generation(self._cells, self._size)
        enter_slots(cells, self.index, TABLES[self._number].name, rows, first)
        self._cells[MOVED] = first + len(rows)
        return first + len(rows) == len(self._rows)
