"""The compiled entry points, which Python calls, and the passing of the state to them.

A State has more than twenty arrays; unpacking them at every call would take longer than ten commands. So `apply_at`
gets the address of a list of addresses and lengths, of the state's arrays and of the buffers of a call, and makes the
tables from it; only the commands, which are others in each call, come as an array. Called by engine.py and
index_build.py.
"""

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, NamedTuple

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

from smrx.engine.kernels.apply import EVENT_WORDS, apply
from smrx.engine.kernels.hash_index import enter, key_hash
from smrx.engine.kernels.jit import INTERPRETED, Array, entry_point, fingerprint
from smrx.engine.kernels.layouts import AHEAD, AHEAD_RECORDS
from smrx.engine.kernels.numba_tables import (
    CALL_DTYPES,
    InterpretedState,
    TableType,
    interpreted,
    state_at,
    table_of,
)
from smrx.engine.state import INDEXES, State, in_use
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, EVENT, OUTCOME

OUTCOME_WORDS: Final = OUTCOME.itemsize // 8

#: Every module whose source is compiled into the entry points.
MODULES: Final = (
    "smrx.wire.codes",
    "smrx.wire.records",
    "smrx.engine.state",
    *(
        f"{__package__}.{name}"
        for name in (
            "jit", "xxh3", "layouts", "numba_tables", "hash_index", "order_details", "lookup", "pool", "book",
            "state_hash", "emit", "fees", "rules_version", "command_traits", "command_checks", "activity", "answers",
            "credential_rules", "retention", "balances", "registry", "expiry_heap", "orders", "cancelling", "expiry",
            "sessions", "venue_controls", "order_checks", "collar", "stops", "matching", "placing", "replacing",
            "triggering", "capacity", "lookahead", "apply", "compiled",
        )
    ),
)  # fmt: skip


def addresses(state: State, details: NDArray[Any]) -> NDArray[np.uint64]:
    """Return address and length of every array of a state, in its order, and of the details of commands.

    Of an index, those of the generation in use. Valid until an array is replaced, or such a generation.
    """
    arrays = (in_use(array) if name in INDEXES else array for name, array in state._asdict().items())
    return np.array([address_of(array) for array in (*arrays, details)], np.uint64).reshape(-1)


def address_of(array: NDArray[Any]) -> tuple[int, int]:
    """Return address and length of an array."""
    return array.ctypes.data, len(array)


def address_of_words(words: NDArray[np.uint64]) -> int:
    """Return the address of an array of words that are not read-only, in a quarter of the time."""
    seen: Any = words
    return ctypes.addressof(ctypes.c_char.from_buffer(seen)) if len(words) else 0


def _compiled(source: int) -> tuple[Any, Any]:
    """Return the entry points. Their code depends on `source`, so they are compiled again when a kernel changes."""
    version = np.uint64(source)

    # The condition on the version is always true: it only makes the version part of the code.
    def apply_at(table: int, commands: Array, done: int, time_ns: int, first: int, first_event: int) -> Any:
        if version != np.uint64(0):
            return apply(state_at(table), commands, done, time_ns, first, first_event)
        return done

    def fill_index(cells: Array, keys: Array, extras: Array, slots: Array) -> None:
        if version != np.uint64(0):
            for at in range(len(keys)):
                enter(table_of(cells), key_hash(keys[at], extras[at]), slots[at])

    return entry_point(apply_at), entry_point(fill_index)


apply_at, fill_index = _compiled(fingerprint(*MODULES))


@cache
def _apply_function() -> Callable[..., int]:
    """Compile apply_at, or load the compiled code; return what Python calls.

    Not by the dispatcher of Numba, which would look at the types of the arguments in each call.
    """
    commands = TableType(from_dtype(COMMAND))
    function: Callable[..., int] = apply_at.compile((types.int64, commands, *(types.int64,) * 4))
    return function


class Buffers(NamedTuple):
    """Where apply writes: contiguous words."""

    outcomes: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    events: NDArray[np.uint64]


class ApplyCall:
    """apply.apply with a state, details and buffers: compiled, or interpreted if Numba is switched off.

    A call of it passes one array, without a reference to it, and numbers: Numba takes longer to look at the type of
    another array than apply takes for a command.
    """

    def __init__(self, state: State) -> None:
        """Valid until an array of the state is replaced. Before the first run comes use_buffers."""
        self._state = state
        self._table = np.concatenate([addresses(state, NO_DETAILS), np.zeros(2 * (len(CALL_DTYPES) - 1), np.uint64)])
        # Writing an item of a memoryview takes a tenth of the time of writing one of an array.
        self._rows = self._table.data
        self._first = 2 * len(state)
        self._ahead = np.zeros(AHEAD_RECORDS, AHEAD)
        self._rows[-2], self._rows[-1] = address_of(self._ahead)
        self.details = NO_DETAILS
        #: Takes the commands, done, time_ns, first and first_event, see apply.apply. Raises TypeError for commands that
        #: are not contiguous; the caller checks their dimensions.
        self.run: Callable[[NDArray[Any], int, int, int, int], int] = (
            self._interpret if INTERPRETED else partial(_apply_function(), self._table.ctypes.data)
        )

    def use_state(self) -> None:
        """Use other generations of indexes than before."""
        self._table[: self._first] = addresses(self._state, NO_DETAILS)[: self._first]

    # Rows are in the order of numba_tables.CALL_DTYPES.

    def use_details(self, details: NDArray[Any]) -> None:
        """Replace the details, which are contiguous."""
        self.details = details
        at = self._first
        self._rows[at], self._rows[at + 1] = address_of(details)

    def use_buffers(self, buffers: Buffers) -> None:
        """Replace the buffers. The caller keeps them alive until a call has returned."""
        if INTERPRETED:
            self._buffers = buffers
        outcomes, hashes, words = buffers
        at = self._first + 2
        rows = self._rows
        rows[at], rows[at + 1] = address_of_words(outcomes), len(outcomes) // OUTCOME_WORDS
        rows[at + 2], rows[at + 3] = address_of_words(hashes), len(hashes)
        events = address_of_words(words)
        rows[at + 4], rows[at + 5] = events, len(words) // EVENT_WORDS
        rows[at + 6], rows[at + 7] = events, len(words)

    def _interpret(self, commands: NDArray[Any], done: int, time_ns: int, first: int, first_event: int) -> int:
        outcomes, hashes, words = self._buffers
        tables = InterpretedState(
            self._state, self.details, outcomes=outcomes.view(OUTCOME), hashes=hashes, events=words.view(EVENT),
            words=words, ahead=self._ahead,
        )  # fmt: skip
        rows = interpreted(commands.view(COMMAND))
        with np.errstate(over="ignore"):
            return int(apply(tables, rows, done, np.int64(time_ns), first, first_event))


def compiled_before() -> bool:
    """Whether this machine has the compiled engine already; if not, the first command takes about a minute longer."""
    if INTERPRETED or apply_at.overloads:
        return True
    # Numba has no public function for this. Its cache index contains the fingerprint of the source.
    try:
        index = apply_at._cache._cache_file._load_index()
        return any(key[2] == apply_at._cache._index_key(key[0], apply_at.targetctx.codegen())[2] for key in index)
    except (AttributeError, IndexError):
        return False
