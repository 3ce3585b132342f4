"""The compiled entry points: what Python calls, and how it hands over the state without cost.

A State has more than twenty arrays; unpacking them at every call would take longer than ten commands. So `apply_at`
gets one array of addresses and lengths and makes the arrays of them. Called by core.py alone.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import carray, types
from numba.core.typing.typeof import typeof
from numpy.typing import NDArray

from .index import insert
from .jit import INTERPRETED, Array, entry_point, fingerprint, pointer
from .machine import apply
from .state import (
    ACCOUNT, ASSET, BALANCE, BOOK, CELL, CORE, INSTRUMENT, LEVEL, NODE, ORDER, POOL, RING_SIZE, SESSION, TRANSFER,
    TURN, State,
)  # fmt: skip

MODULES: Final = tuple(
    f"{__package__}.{name}"
    for name in (
        "codes", "records", "jit", "xxh3", "state", "index", "pool", "book", "digest", "emit", "refusals", "ledger",
        "registry", "orders", "matching", "machine", "entry",
    )
)  # fmt: skip


def addresses(state: State) -> NDArray[np.uint64]:
    """Address and length of every array of a state, in its order. They hold until an array is replaced."""
    table = np.empty((len(state), 2), dtype=np.uint64)
    for row, array in zip(table, state, strict=True):
        row[0] = array.__array_interface__["data"][0]
        row[1] = len(array)
    return table.reshape(-1)


def _compiled(source: int) -> tuple[Callable[..., int], Callable[..., None]]:
    """The entry points, compiled again whenever the source of any kernel changed (see jit.fingerprint)."""
    version = np.uint64(source)

    def apply_at(
        table: Array, commands: Array, done: int, time_ns: int, outcomes: Array, events: Array, words: Array, hashes: Array
    ) -> int:
        if version == np.uint64(len(table)):  # never so: it only makes the version a part of the compiled code
            return done
        state = State(
            carray(pointer(table[0]), (np.int64(table[1]),), CORE),
            carray(pointer(table[2]), (np.int64(table[3]),), TURN),
            carray(pointer(table[4]), (np.int64(table[5]),), POOL),
            carray(pointer(table[6]), (np.int64(table[7]),), SESSION),
            carray(pointer(table[8]), (np.int64(table[9]),), CELL),
            carray(pointer(table[10]), (np.int64(table[11]),), ACCOUNT),
            carray(pointer(table[12]), (np.int64(table[13]),), CELL),
            carray(pointer(table[14]), (np.int64(table[15]),), ASSET),
            carray(pointer(table[16]), (np.int64(table[17]),), CELL),
            carray(pointer(table[18]), (np.int64(table[19]),), INSTRUMENT),
            carray(pointer(table[20]), (np.int64(table[21]),), CELL),
            carray(pointer(table[22]), (np.int64(table[23]),), BOOK),
            carray(pointer(table[24]), (np.int64(table[25]),), LEVEL),
            carray(pointer(table[26]), (np.int64(table[27]),), CELL),
            carray(pointer(table[28]), (np.int64(table[29]),), NODE),
            carray(pointer(table[30]), (np.int64(table[31]),), ORDER),
            carray(pointer(table[32]), (np.int64(table[33]),), CELL),
            carray(pointer(table[34]), (np.int64(table[35]),), CELL),
            carray(pointer(table[36]), (np.int64(table[37]),), BALANCE),
            carray(pointer(table[38]), (np.int64(table[39]),), CELL),
            carray(pointer(table[40]), (np.int64(table[41]),), TRANSFER),
            carray(pointer(table[42]), (np.int64(table[43]),), CELL),
            carray(pointer(table[44]), (np.int64(table[45]),), np.uint64),
        )
        return apply(state, commands, done, time_ns, outcomes, events, words, hashes)

    def fill_index(cells: Array, keys: Array, extras: Array, slots: Array) -> None:
        if version != np.uint64(0):
            for at in range(len(keys)):
                insert(cells, keys[at], extras[at], slots[at])

    return entry_point(apply_at), entry_point(fill_index)


apply_at, fill_index = _compiled(fingerprint(*MODULES))


def call(
    state: State, table: Any, commands: Any, done: int, time_ns: int, outcomes: Any, events: Any, hashes: Any
) -> int:
    """machine.apply, compiled, or interpreted if Numba is switched off."""
    words = events.view(np.uint64)
    if not INTERPRETED:
        return apply_at(table, commands, done, time_ns, outcomes, events, words, hashes)
    with np.errstate(over="ignore"):
        views = [array.view(np.recarray) for array in (commands, outcomes, events)]
        return int(apply(state, views[0], done, np.int64(time_ns), views[1], views[2], words, hashes))


def compiled_before() -> bool:
    """Whether this machine has the compiled engine already; if not, the first command takes some seconds longer."""
    if INTERPRETED or apply_at.overloads:
        return True
    # Numba offers no public way to ask. Its index of compiled code is empty when there is none for this source.
    index = apply_at._cache._cache_file._load_index()
    return bool(index)

