"""The compiled entry points, which Python calls, and the passing of the state to them.

A State has more than twenty arrays; unpacking them at every call would take longer than ten commands. So `apply_at`
gets one array of addresses and lengths, and makes the tables from it. Called by engine.py and index_build.py.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.apply import apply
from smrx.engine.kernels.hash_index import enter, key_hash
from smrx.engine.kernels.jit import INTERPRETED, Array, entry_point, fingerprint
from smrx.engine.kernels.numba_tables import InterpretedState, interpreted, state_of, table_of
from smrx.engine.state import State

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
            "credentials", "retention", "balances", "registry", "expiry_heap", "orders", "cancelling", "expiry",
            "sessions", "venue_controls", "order_checks", "collar", "stops", "matching", "placing", "replacing",
            "triggering", "lookahead", "apply", "compiled",
        )
    ),
)  # fmt: skip


def addresses(state: State, details: NDArray[Any]) -> NDArray[np.uint64]:
    """Return address and length of every array of a state, in its order, and of the details of commands.

    Valid until an array is replaced.
    """
    table = np.empty((len(state) + 1, 2), dtype=np.uint64)
    for row, array in zip(table, (*state, details), strict=True):
        row[:] = address_of(array)
    return table.reshape(-1)


def address_of(array: NDArray[Any]) -> tuple[int, int]:
    """Return address and length of an array."""
    return array.__array_interface__["data"][0], len(array)


def _compiled(source: int) -> tuple[Any, Any]:
    """Return the entry points. Their code depends on `source`, so they are compiled again when a kernel changes."""
    version = np.uint64(source)

    def apply_at(
        table: Array,
        commands: Array,
        done: int,
        time_ns: int,
        outcomes: Array,
        events: Array,
        words: Array,
        hashes: Array,
    ) -> Any:
        if version == np.uint64(len(table)):  # never true: it only makes the version part of the code
            return done
        return apply(
            state_of(table),
            table_of(commands),
            done,
            time_ns,
            table_of(outcomes),
            table_of(events),
            table_of(words),
            table_of(hashes),
        )

    def fill_index(cells: Array, size: int, keys: Array, extras: Array, slots: Array) -> None:
        if version != np.uint64(0):
            for at in range(len(keys)):
                enter(table_of(cells), np.uint64(size), key_hash(keys[at], extras[at]), slots[at])

    return entry_point(apply_at), entry_point(fill_index)


apply_at, fill_index = _compiled(fingerprint(*MODULES))


def apply_commands(
    state: State,
    table: Any,
    commands: Any,
    done: int,
    time_ns: int,
    outcomes: Any,
    events: Any,
    words: Any,
    hashes: Any,
    details: Any,
) -> int:
    """Run apply.apply, compiled, or interpreted if Numba is switched off. `words` are the events as u64 words.

    `table` are the addresses of the state and of `details`, which must be contiguous.
    """
    if not INTERPRETED:
        return int(apply_at(table, commands, done, time_ns, outcomes, events, words, hashes))
    with np.errstate(over="ignore"):
        tables = InterpretedState(state, details)
        inputs = [interpreted(array) for array in (commands, outcomes, events)]
        return int(apply(tables, inputs[0], done, np.int64(time_ns), inputs[1], inputs[2], words, hashes))


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
