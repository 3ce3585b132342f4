"""Filling the indexes of a state from its records: after growth and after a restore."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.compiled import fill_index
from smrx.engine.state import TABLES, State

#: The columns of a table, by field: an array of records, or the Columns of record_columns.py.
Fields = Any

#: The field under which an index has its records, where it is one field.
_IDS: Final = {
    "session_index": "session_id",
    "account_index": "account_id",
    "asset_index": "asset_id",
    "instrument_index": "instrument_id",
    "order_index": "order_id",
    "transfer_index": "transfer_id",
}


def keys_of(index: str, rows: Fields, slots: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """The keys under which an index has the records in some slots of its table: a word, and half a word more."""

    def of(field: str, kind: Any = np.uint64) -> NDArray[Any]:
        column: NDArray[Any] = rows[field][slots].astype(kind)
        return column

    if index == "client_index":
        return of("client_order_id"), of("account_id", np.uint32)
    if index == "level_index":
        return of("price"), of("book", np.uint32)
    nothing = np.zeros(len(slots), dtype=np.uint32)
    if index == "balance_index":
        return of("account_id") | (of("asset_id") << np.uint64(32)), nothing
    return of(_IDS[index]), nothing


def members(index: str, table: str, rows: Fields) -> NDArray[np.uint32]:
    """The slots that an index must have: every one in use, and of orders by client id those that have one."""
    # Balances are never given back, and those that are not live yet are known to their orders.
    used = rows["live"] != 0 if table != "balances" else np.arange(len(rows)) > 0
    if index == "client_index":
        used = used & (rows["client_order_id"] != 0)
    return np.flatnonzero(used).astype(np.uint32)


def fill(state: State, number: int, rows: Fields = None) -> None:
    """Fill the empty indexes of a table; `rows` are its used records, where the caller has them field by field."""
    table = TABLES[number]
    if rows is None:
        rows = getattr(state, table.name)[: int(state.pools["top"][number])]
    for index in table.indexes:
        slots = members(index, table.name, rows)
        keys, extras = keys_of(index, rows, slots)
        # Only interpreted kernels (see jit.py) would warn: words wrap on purpose.
        with np.errstate(over="ignore"):
            fill_index(getattr(state, index), keys, extras, slots)


def fill_grown(old: State, new: State) -> None:
    """Fill the indexes of the tables that growth replaced."""
    for number, table in enumerate(TABLES):
        if getattr(old, table.name) is not getattr(new, table.name):
            fill(new, number)
