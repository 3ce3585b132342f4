"""Keep the books in arrays: open-addressing hash tables of records, each found by one integer key.

The size of a table is a power of two, it is at most half full, and `key` 0 marks an empty place. Linear probing without
tombstones: a removal moves later records up. The same functions serve every table; numba compiles them for each record
type. compiled_books.py grows the tables.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.event_rows import signed_words
from smrx.wire.records import ASSET_SYMBOL_SIZE, INSTRUMENT_SYMBOL_SIZE

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
ASSET_TEXT: Final = np.dtype(
    [
        ("key", "<i8"), ("symbol", f"S{ASSET_SYMBOL_SIZE}"), ("decimals", "<i8"), ("supply", "<i8"), ("cap", "<i8"),
    ]
)  # fmt: skip
INSTRUMENT_TEXT: Final = np.dtype(
    [
        ("key", "<i8"), ("symbol", f"S{INSTRUMENT_SYMBOL_SIZE}"), ("base", "<i8"), ("quote", "<i8"),
        ("lot_units", "<i8"), ("scale_units", "<i8"), ("max_price", "<i8"), ("max_quantity", "<i8"),
        ("taker_fee", "<i8"), ("maker_fee", "<i8"), ("open_orders", "<i8"),
    ]
)  # fmt: skip
#: The same with each symbol as words, as kernels take them.
ASSET: Final = signed_words(ASSET_TEXT)
INSTRUMENT: Final = signed_words(INSTRUMENT_TEXT)
#: `due`: 0, or which fill must come next: 1 the maker's, 2 the taker's. `following`: how many events that belong to the
#: last one must come next; see following.py.
CORE: Final = np.dtype(
    [
        ("sequence", "<i8"), ("command", "<i8"), ("time_ns", "<i8"), ("trades", "<i8"), ("due", "<i8"),
        ("following", "<i8"), ("orders", "<i8"), ("balances", "<i8"), ("accounts", "<i8"), ("assets", "<i8"),
        ("instruments", "<i8"),
    ]
)  # fmt: skip


class Tables(NamedTuple):
    """All tables of the books; a plain tuple of arrays, as kernels require."""

    orders: NDArray[Any]
    balances: NDArray[Any]
    accounts: NDArray[Any]
    assets: NDArray[Any]
    instruments: NDArray[Any]
    core: NDArray[Any]
    last: NDArray[Any]  #: the last trade, whose fills may be due; the last event that others follow


TYPES: Final = {
    "orders": ORDER,
    "balances": BALANCE,
    "accounts": ACCOUNT,
    "assets": ASSET,
    "instruments": INSTRUMENT,
}
#: The places in Tables.last; one array, because every array costs time in every call of a kernel.
TRADE_PLACE: Final = 0
LEADER_PLACE: Final = 1


def live(table: NDArray[Any]) -> NDArray[Any]:
    """Return the records of a table, in no particular order."""
    found: NDArray[Any] = table[table["key"] != 0]
    return found


@kernel
def home(table: Any, key: Any) -> Any:
    """Return the place where the search for a key starts."""
    word = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((word ^ (word >> np.uint64(29))) & np.uint64(len(table) - 1))


@kernel
def find(table: Any, key: Any) -> Any:
    """Return the place of a key, or -1."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        if table[at].key == key:
            return at
        at = (at + 1) & mask
    return -1


@kernel
def place(table: Any, key: Any) -> Any:
    """Return the empty place for a key that is not in the table; the caller writes the key there."""
    mask = len(table) - 1
    at = home(table, key)
    while table[at].key != 0:
        at = (at + 1) & mask
    return at


@kernel
def remove(table: Any, at: Any) -> None:
    """Empty a place, and move up the records that would no longer be found behind it."""
    mask = len(table) - 1
    empty = at
    following = (empty + 1) & mask
    while table[following].key != 0:
        # A record whose search starts at or before the emptied place, cyclically, must move there.
        if ((following - home(table, table[following].key)) & mask) >= ((following - empty) & mask):
            table[empty] = table[following]
            empty = following
        following = (following + 1) & mask
    table[empty].key = 0


@kernel
def copy_all(table: Any, records: Any) -> None:
    """Add records, whose keys are not in the table yet."""
    for i in range(len(records)):
        table[place(table, records[i].key)] = records[i]
