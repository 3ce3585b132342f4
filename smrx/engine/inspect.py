"""Reading the state: tables and books as they stand, in an order that means something. Changes nothing.

Called by the node's admin service, the command line and the tests.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .state import INSTRUMENTS, LEVELS, ORDERS, TABLES, TRANSFERS, State

#: The columns of each table: name outside, name inside, type.
_COLUMNS: Final[dict[str, list[tuple[str, str, str]]]] = {
    "orders": [
        ("order_id", "order_id", "<u8"),
        ("client_order_id", "client_order_id", "<u8"),
        ("account", "account_id", "<u4"),
        ("instrument", "instrument_id", "<u4"),
        ("side", "side", "u1"),
        ("order_type", "order_type", "u1"),
        ("tif", "tif", "u1"),
        ("flags", "flags", "u1"),
        ("price_ticks", "price", "<i8"),
        ("quantity_lots", "quantity", "<i8"),
        ("cum_lots", "cum", "<i8"),
    ],
    "balances": [
        ("account", "account_id", "<u4"),
        ("asset", "asset_id", "<u4"),
        ("available", "available", "<i8"),
        ("held", "held", "<i8"),
    ],
    "accounts": [("account", "account_id", "<u4"), ("status", "status", "u1")],
    "assets": [
        ("asset", "asset_id", "<u4"),
        ("symbol", "symbol", "<u8"),
        ("decimals", "decimals", "u1"),
        ("supply", "supply", "<i8"),
    ],
    "instruments": [
        ("instrument", "instrument_id", "<u4"),
        ("symbol", "symbol", "<u8"),
        ("base_asset", "base_id", "<u4"),
        ("quote_asset", "quote_id", "<u4"),
        ("lot_units", "lot_units", "<u4"),
        ("scale_units", "scale_units", "<u4"),
        ("max_price_ticks", "max_price", "<i8"),
        ("max_quantity_lots", "max_quantity", "<i8"),
        ("status", "status", "u1"),
    ],
    "sessions": [
        ("session_id", "session_id", "<u8"),
        ("account", "account_id", "<u4"),
        ("last_request_id", "last_request_id", "<u8"),
    ],
}
DTYPES: Final = {
    table: np.dtype([(outside, kind) for outside, _, kind in columns]) for table, columns in _COLUMNS.items()
}
ORDERS_DTYPE: Final = np.dtype([*DTYPES["orders"].descr, ("leaves_lots", "<i8")])

#: (price_ticks, quantity_lots, orders) of a price, best first.
Depth = list[tuple[int, int, int]]


class Inspect:
    """The questions one may ask of an engine's state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _live(self, table: str) -> NDArray[Any]:
        number = next(number for number, known in enumerate(TABLES) if known.name == table)
        rows: NDArray[Any] = getattr(self._state, table)[: int(self._state.pools["top"][number])]
        live: NDArray[Any] = rows[rows["live"] != 0]
        return live

    def _table(self, table: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows with the outside names, in the order of their first columns."""
        found = np.zeros(len(rows), dtype=DTYPES[table] if table != "orders" else ORDERS_DTYPE)
        for outside, inside, _ in _COLUMNS[table]:
            found[outside] = rows[inside]
        first, second = found.dtype.names[:2] if found.dtype.names else ("", "")
        return found[np.lexsort((found[second], found[first]))]

    def depth(self, instrument: int, levels: int) -> tuple[Depth, Depth]:
        """The best bids and the best asks; empty for an unknown instrument."""
        known = self._state.instruments
        slots = np.flatnonzero((known["instrument_id"] == instrument) & (known["live"] != 0))
        if not len(slots):
            return [], []
        return self._side(2 * int(slots[0]), levels), self._side(2 * int(slots[0]) + 1, levels)

    def _side(self, book: int, levels: int) -> Depth:
        found: Depth = []
        at = int(self._state.books["best"][book])
        while at and len(found) < levels:
            level = self._state.levels[at]
            found.append((int(level["price"]), int(level["quantity"]), int(level["orders"])))
            at = int(level["worse"])
        return found

    def orders(self, account: int | None = None, instrument: int | None = None) -> NDArray[Any]:
        """Open orders by id."""
        rows = self._live("orders")
        if account is not None:
            rows = rows[rows["account_id"] == account]
        if instrument is not None:
            rows = rows[rows["instrument_id"] == instrument]
        found = self._table("orders", rows)
        found["leaves_lots"] = found["quantity_lots"] - found["cum_lots"]
        return found

    def balances(self, account: int | None = None) -> NDArray[Any]:
        """Balances by account, then asset."""
        rows = self._live("balances")
        return self._table("balances", rows if account is None else rows[rows["account_id"] == account])

    def balance_words(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Every balance in no order: owner (account << 32 | asset), available, held."""
        rows = self._live("balances")
        owners = (rows["account_id"].astype(np.uint64) << np.uint64(32)) | rows["asset_id"]
        return owners, rows["available"], rows["held"]

    def accounts(self) -> NDArray[Any]:
        return self._table("accounts", self._live("accounts"))

    def assets(self) -> NDArray[Any]:
        return self._table("assets", self._live("assets"))

    def instruments(self) -> NDArray[Any]:
        return self._table("instruments", self._live("instruments"))

    def sessions(self) -> NDArray[Any]:
        return self._table("sessions", self._live("sessions"))

    def counts(self) -> dict[str, int]:
        """How many live records there are of each kind."""
        live = self._state.pools["live"]
        counted = {
            "orders": int(live[ORDERS]),
            "levels": int(live[LEVELS]),
            "instruments": int(live[INSTRUMENTS]),
            "transfers": int(live[TRANSFERS]),
        }
        return counted | {name: len(self._live(name)) for name in ("accounts", "assets", "balances", "sessions")}
