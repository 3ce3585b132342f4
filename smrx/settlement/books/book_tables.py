"""The arrays the books are kept in: open-addressing tables of records, each found by one integer key.

A table is a power of two of records, at most half full; `key` 0 is an empty place. Linear probing, no tombstones: what
is removed is closed over. The same functions serve every table; numba compiles them for each record type. Growing is
compiled_books.py's.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import kernel
from smrx.wire.records import EVENT

#: An event with every word signed: numba makes a float of int64 with uint64, and nothing here needs the 64th bit.
_NAMES: Final = EVENT.names or ()
_FIELDS: Final[Any] = EVENT.fields
_LAYOUT: Final[Any] = {
    "names": list(_NAMES),
    "formats": [_FIELDS[name][0].str.replace("u8", "i8") for name in _NAMES],
    "offsets": [_FIELDS[name][1] for name in _NAMES],
    "itemsize": EVENT.itemsize,
}
ROW: Final = np.dtype(_LAYOUT)

#: `per_lot` is what each open lot holds; `budget` what a market order by budget may still spend.
ORDER: Final = np.dtype(
    [
        ("key", "<i8"), ("price", "<i8"), ("leaves", "<i8"), ("cum", "<i8"), ("per_lot", "<i8"),
        ("budget", "<i8"), ("account", "<u4"), ("instrument", "<u4"), ("side", "u1"), ("type", "u1"),
        ("by_budget", "u1"), ("reserved", "u1", 5),
    ]
)  # fmt: skip
#: `key` is account << 32 | asset; assets begin at 1. `touched` is the first event since the last equal comparison.
BALANCE: Final = np.dtype([("key", "<i8"), ("total", "<i8"), ("held", "<i8"), ("touched", "<i8")])
#: `key` is the account's id + 1: account 0 is the venue.
ACCOUNT: Final = np.dtype([("key", "<i8")])
ASSET: Final = np.dtype([("key", "<i8"), ("symbol", "<i8"), ("decimals", "<i8"), ("supply", "<i8"), ("cap", "<i8")])
INSTRUMENT: Final = np.dtype(
    [
        ("key", "<i8"), ("symbol", "<i8"), ("base", "<i8"), ("quote", "<i8"), ("lot_units", "<i8"),
        ("scale_units", "<i8"), ("max_price", "<i8"), ("max_quantity", "<i8"), ("taker_fee", "<i8"),
        ("maker_fee", "<i8"), ("open_orders", "<i8"),
    ]
)  # fmt: skip
#: `due`: 0, or which fill must come next: 1 the maker's, 2 the taker's.
CORE: Final = np.dtype(
    [
        ("sequence", "<i8"), ("command", "<i8"), ("time_ns", "<i8"), ("trades", "<i8"), ("due", "<i8"),
        ("orders", "<i8"), ("balances", "<i8"), ("accounts", "<i8"), ("assets", "<i8"), ("instruments", "<i8"),
    ]
)  # fmt: skip


class Tables(NamedTuple):
    """Everything the books know; a plain tuple of arrays, as kernels take it."""

    orders: NDArray[Any]
    balances: NDArray[Any]
    accounts: NDArray[Any]
    assets: NDArray[Any]
    instruments: NDArray[Any]
    core: NDArray[Any]
    trade: NDArray[Any]  #: the last trade, whose fills may be due


TYPES: Final = {
    "orders": ORDER,
    "balances": BALANCE,
    "accounts": ACCOUNT,
    "assets": ASSET,
    "instruments": INSTRUMENT,
}


def live(table: NDArray[Any]) -> NDArray[Any]:
    """The records of a table, in no particular order."""
    found: NDArray[Any] = table[table["key"] != 0]
    return found


@kernel
def home(table: Any, key: Any) -> Any:
    """Where the search for a key begins."""
    word = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((word ^ (word >> np.uint64(29))) & np.uint64(len(table) - 1))


@kernel
def find(table: Any, key: Any) -> Any:
    """The place of a key, or -1."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        if table[at].key == key:
            return at
        at = (at + 1) & mask
    return -1


@kernel
def place(table: Any, key: Any) -> Any:
    """The empty place where a key that is not there belongs; whoever asks puts the key there."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        at = (at + 1) & mask
    return at


@kernel
def remove(table: Any, at: Any) -> None:
    """Empty a place, and move up what would no longer be found behind it."""
    mask = len(table) - 1
    hole = at
    following = (hole + 1) & mask
    while table[following].key != 0:
        # What began its search at or before the hole, going round, must not be cut off from it.
        if ((following - home(table, table[following].key)) & mask) >= ((following - hole) & mask):
            table[hole] = table[following]
            hole = following
        following = (following + 1) & mask
    table[hole].key = 0


@kernel
def copy_all(table: Any, records: Any) -> None:
    """Put records with keys that are not there into a table."""
    for i in range(len(records)):
        table[place(table, records[i].key)] = records[i]
