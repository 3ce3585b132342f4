"""Lay out the tables of the books: records in hash tables (follower/record_table.py). compiled_books.py grows them."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import ASSET_SYMBOL_SIZE, INSTRUMENT_SYMBOL_SIZE, signed_words

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
