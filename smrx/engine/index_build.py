"""Fill the indexes of a state from its records: after growth and after a restore, whole or a part at a time."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.compiled import fill_index
from smrx.engine.state import ACCOUNTS, TABLES, TRANSFERS, State, in_use

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


def members(index: str, table: str, rows: Fields, first: int = 0) -> NDArray[np.uint32]:
    """Return which of some records an index must contain: all live ones; for client order ids, those that have one.

    `first` is the slot of the first record; the places returned are relative to it.
    """
    # Balance slots are never returned, and those that are not live yet are linked from orders.
    used = rows["live"] != 0 if table != "balances" else np.arange(first, first + len(rows)) > 0
    if index == "client_index":
        used = used & (rows["client_order_id"] != 0)
    return np.flatnonzero(used).astype(np.uint32)


def fill(state: State, number: int, rows: Fields = None) -> None:
    """Fill the empty indexes of a table; `rows` are its used records, if the caller has them as columns."""
    table = TABLES[number]
    if rows is None:
        rows = getattr(state, table.name)[: int(state.pools["top"][number])]
    for index in table.indexes:
        enter_slots(in_use(getattr(state, index)), index, table.name, rows, 0)


def enter_slots(cells: NDArray[Any], index: str, table: str, rows: Fields, first: int) -> None:
    """Enter records of a table, from a slot on, into a generation of an index."""
    places = members(index, table, rows, first)
    keys, extras = keys_of(index, rows, places)
    # Interpreted kernels (see jit.py) would warn: words overflow on purpose.
    with np.errstate(over="ignore"):
        fill_index(cells, keys, extras, places + np.uint32(first))


def fill_replaced(old: State, new: State) -> None:
    """Fill the indexes that growth replaced by empty ones."""
    for number, table in enumerate(TABLES):
        rows = getattr(new, table.name)[: int(new.pools["top"][number])]
        for index in table.indexes:
            if getattr(old, index) is not getattr(new, index):
                enter_slots(in_use(getattr(new, index)), index, table.name, rows, 0)


def fill_transfer_lists(state: State) -> None:
    """Link the transfers of each account, see kernels/retention.py."""
    transfers = state.transfers[: int(state.pools["top"][TRANSFERS])]
    accounts = state.accounts[: int(state.pools["top"][ACCOUNTS])]
    slots = np.flatnonzero(transfers["live"]).astype(np.uint32)
    owners, sequences = transfers["account_id"][slots], transfers["sequence"][slots]
    order = np.lexsort((sequences, owners))
    slots, owners = slots[order], owners[order]
    same = owners[1:] == owners[:-1]
    state.transfer_links[slots[1:]] = np.where(same, slots[:-1], 0)
    # The last of each account; an account that does not exist has no list. Slot 0 is empty and looks like account 0.
    last = np.append(~same, True)[: len(slots)]
    ids = 1 + np.argsort(accounts["account_id"][1:], kind="stable")
    places = np.searchsorted(accounts["account_id"][ids], owners[last])
    places = np.minimum(places, len(ids) - 1)
    known = accounts["account_id"][ids[places]] == owners[last]
    state.last_transfers[ids[places[known]]] = slots[last][known]


def fill_session_lists(state: State, orders: Fields) -> None:
    """Link the orders that end with each session."""
    slots = np.flatnonzero((orders["live"] != 0) & (orders["session"] != 0)).astype(np.uint32)
    slots = slots[np.lexsort((orders["order_id"][slots], orders["session"][slots]))]
    owners = orders["session"][slots]
    same = owners[1:] == owners[:-1]
    state.session_links["older"][slots[1:]] = np.where(same, slots[:-1], 0)
    state.session_links["newer"][slots[:-1]] = np.where(same, slots[1:], 0)
    first, last = np.append(True, ~same)[: len(slots)], np.append(~same, True)[: len(slots)]
    state.session_lists["first"][owners[first]] = slots[first]
    state.session_lists["last"][owners[last]] = slots[last]
