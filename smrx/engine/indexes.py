"""Filling the indexes of a state from its records: after growth and after a restore."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .entry import fill_index
from .state import TABLES, State


def _pair(low: Any, high: Any) -> Any:
    return low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))


def _nothing(rows: Any) -> Any:
    return np.zeros(len(rows), dtype=np.uint32)


def keys_of(index: str, rows: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """The keys under which an index has the records of its table: a word, and half a word more."""
    names = {
        "session_index": "session_id",
        "account_index": "account_id",
        "asset_index": "asset_id",
        "instrument_index": "instrument_id",
        "order_index": "order_id",
        "transfer_index": "transfer_id",
    }
    if index == "balance_index":
        return _pair(rows["account_id"], rows["asset_id"]), _nothing(rows)
    if index == "client_index":
        return rows["client_order_id"], rows["account_id"]
    if index == "level_index":
        return rows["price"].astype(np.uint64), rows["book"]
    return rows[names[index]].astype(np.uint64), _nothing(rows)


def members(state: State, number: int, index: str) -> NDArray[np.uint32]:
    """The slots that an index must have: every one in use, and of orders by client id those that have one."""
    table = TABLES[number].name
    rows = getattr(state, table)[: int(state.pools["top"][number])]
    # Balances are never given back, and those that are not live yet are known to their orders.
    used = rows["live"] != 0 if table != "balances" else np.arange(len(rows)) > 0
    if index == "client_index":
        used = used & (rows["client_order_id"] != 0)
    return np.flatnonzero(used).astype(np.uint32)


def fill(state: State, number: int) -> None:
    """Fill the empty indexes of a table."""
    table = TABLES[number]
    for index in table.indexes:
        slots = members(state, number, index)
        keys, extras = keys_of(index, getattr(state, table.name)[slots])
        # Only interpreted kernels (see jit.py) would warn: words wrap on purpose.
        with np.errstate(over="ignore"):
            fill_index(
                getattr(state, index),
                np.ascontiguousarray(keys, dtype=np.uint64),
                np.ascontiguousarray(extras, dtype=np.uint32),
                slots,
            )


def fill_grown(old: State, new: State) -> None:
    """Fill the indexes of the tables that growth replaced."""
    for number, table in enumerate(TABLES):
        if getattr(old, table.name) is not getattr(new, table.name):
            fill(new, number)
