"""Fill the indexes of a state from its records, after growth and after a restore."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.compiled import fill_index
from smrx.engine.state import TABLES, State

#: A table by field: an array of records, or the Columns of record_columns.py.
Fields = Any

#: The key field of each index whose key is one field.
_IDS: Final = {
    "session_index": "session_id",
    "account_index": "account_id",
    "asset_index": "asset_id",
    "instrument_index": "instrument_id",
    "order_index": "order_id",
    "transfer_index": "transfer_id",
    "credential_index": "credential_id",
    "key_index": "key_form",
}


def keys_of(index: str, rows: Fields, slots: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Return the keys of the records in some slots of a table, in two parts: a u64 and a u32."""

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
    """Return the slots that an index must contain: all live ones; for client order ids, those that have one."""
    # Balance slots are never returned, and those that are not live yet are linked from orders.
    used = rows["live"] != 0 if table != "balances" else np.arange(len(rows)) > 0
    if index == "client_index":
        used = used & (rows["client_order_id"] != 0)
    return np.flatnonzero(used).astype(np.uint32)


def fill(state: State, number: int, rows: Fields = None) -> None:
    """Fill the empty indexes of a table; `rows` are its used records, if the caller has them as columns."""
    table = TABLES[number]
    if rows is None:
        rows = getattr(state, table.name)[: int(state.pools["top"][number])]
    for index in table.indexes:
        slots = members(index, table.name, rows)
        keys, extras = keys_of(index, rows, slots)
        # Interpreted kernels (see jit.py) would warn: words overflow on purpose.
        with np.errstate(over="ignore"):
            fill_index(getattr(state, index), keys, extras, slots)


def fill_grown(old: State, new: State) -> None:
    """Fill the indexes of the tables that growth replaced."""
    for number, table in enumerate(TABLES):
        if getattr(old, table.name) is not getattr(new, table.name):
            fill(new, number)
