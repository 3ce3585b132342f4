"""Read the state: tables and books in a defined order. Changes nothing.

Called by the node's admin service, the command line and the tests.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.exposure import Position, positions
from smrx.engine.state import (
    BOOKS,
    INSTRUMENTS,
    LEVELS,
    NEVER,
    ORDERS,
    TABLES,
    TRANSFERS,
    State,
)
from smrx.wire.records import (
    ADDRESS_SIZE,
    ASSET_SYMBOL_SIZE,
    CLIENT_ORDER_ID_SIZE,
    INSTRUMENT_SYMBOL_SIZE,
    KEY_SIZE,
    NETWORKS,
)

#: The columns of each table: name in the result, name in the state, type.
_COLUMNS: Final[dict[str, list[tuple[str, str, str]]]] = {
    "orders": [
        ("order_id", "order_id", "<u8"),
        ("account", "account_id", "<u4"),
        ("instrument", "instrument_id", "<u4"),
        ("side", "side", "u1"),
        ("order_type", "order_type", "u1"),
        ("tif", "tif", "u1"),
        ("stp", "stp", "u1"),
        ("flags", "flags", "u1"),
        ("price_ticks", "price", "<i8"),
        ("quantity_lots", "quantity", "<i8"),
        ("cum_lots", "cum", "<i8"),
        ("shown_lots", "shown", "<i8"),  # of an iceberg
        ("priority", "priority", "<u8"),
    ],
    "balances": [
        ("account", "account_id", "<u4"),
        ("asset", "asset_id", "<u4"),
        ("available", "available", "<i8"),
        ("held", "held", "<i8"),
    ],
    "accounts": [
        ("account", "account_id", "<u4"),
        ("status", "status", "u1"),
        ("max_open_orders", "max_open_orders", "<u4"),
        ("max_open_notional", "max_open_notional", "<i8"),
        ("max_order_notional", "max_order_notional", "<i8"),
        ("max_order_quantity", "max_order_quantity", "<i8"),
        ("open_orders", "orders", "<u4"),
        ("firm", "firm", "<u4"),  # 0 for none
    ],
    "assets": [
        ("asset", "asset_id", "<u4"),
        ("decimals", "decimals", "u1"),
        ("cap", "cap", "<i8"),
        ("supply", "supply", "<i8"),
    ],
    "instruments": [
        ("instrument", "instrument_id", "<u4"),
        ("base_asset", "base_id", "<u4"),
        ("quote_asset", "quote_id", "<u4"),
        ("lot_units", "lot_units", "<u4"),
        ("scale_units", "scale_units", "<u4"),
        ("max_price_ticks", "max_price", "<i8"),
        ("max_quantity_lots", "max_quantity", "<i8"),
        ("status", "status", "u1"),
        ("last_price_ticks", "last_price", "<i8"),  # 0 before the first trade
        ("band_bp", "band_bp", "<u2"),
        ("taker_fee", "taker_fee", "<u4"),
        ("maker_fee", "maker_fee", "<i4"),
        ("min_price_ticks", "min_price", "<i8"),
        ("min_quantity_lots", "min_quantity", "<i8"),
        ("min_notional", "min_notional", "<i8"),
        ("max_notional", "max_notional", "<i8"),
        ("collar_bp", "collar_bp", "<u2"),
        ("collar_reference", "collar_reference", "u1"),
        ("rule_flags", "rule_flags", "u1"),
    ],
    "sessions": [
        ("session_id", "session_id", "<u8"),
        ("account", "account_id", "<u4"),
        ("flags", "flags", "u1"),
        ("closed", "closed", "u1"),
        ("last_request_id", "last_request_id", "<u8"),
        ("answers", "run", "<u4"),  # how many it keeps
        ("last_active_ns", "last_active_ns", "<i8"),
        ("open_orders", "orders", "<u4"),  # those that are cancelled with the session
        ("credential", "credential_id", "<u4"),  # that it belongs to; 0 for none
    ],
    "credentials": [
        ("number", "credential_id", "<u4"),
        ("permissions", "permissions", "<u4"),
        ("scope", "scope", "u1"),
        ("subject", "subject", "<u4"),
        ("expires_ns", "expires_ns", "<i8"),
        ("revoked", "revoked", "u1"),
        ("prefixes", "prefixes", "<u4"),
    ],
    "transfers": [
        ("transfer_id", "transfer_id", "<u8"),
        ("account", "account_id", "<u4"),
        ("asset", "asset_id", "<u4"),
        ("kind", "kind", "u1"),
        ("amount", "amount", "<i8"),
        ("time_ns", "time_ns", "<i8"),
    ],
}
#: Columns that come from elsewhere or are text, behind the others of their table.
_MORE: Final[dict[str, list[tuple[str, str]]]] = {
    "orders": [
        ("client_order_id", f"S{CLIENT_ORDER_ID_SIZE}"),
        ("leaves_lots", "<i8"),
        ("stop_price_ticks", "<i8"),
        ("display_lots", "<i8"),
        ("expiry_ns", "<i8"),
        ("session_id", "<u8"),  # of the session whose end cancels it; 0 for none
        ("credential", "<u4"),  # of the person behind it, whom a gateway named; 0 for none
    ],
    "credentials": [("key", f"V{KEY_SIZE}"), ("networks", f"V{NETWORKS * ADDRESS_SIZE}")],
    "assets": [("symbol", f"S{ASSET_SYMBOL_SIZE}")],
    "instruments": [("symbol", f"S{INSTRUMENT_SYMBOL_SIZE}")],
}
DTYPES: Final = {
    table: np.dtype([*((outside, kind) for outside, _, kind in columns), *_MORE.get(table, ())])
    for table, columns in _COLUMNS.items()
}

#: (price_ticks, quantity_lots, orders) of a price, best first.
Depth = list[tuple[int, int, int]]


def text_of(rows: NDArray[Any], field: str) -> NDArray[Any]:
    """Return a text that is stored as words `field_0`, `field_1` ... of each row."""
    names = [name for name in rows.dtype.names or () if name.startswith(f"{field}_")]
    words = np.stack([rows[name] for name in names], axis=1)
    return words.view(f"S{8 * len(names)}").reshape(len(rows))


class Retention(NamedTuple):
    """How long the state keeps silent sessions and transfer ids, and how many of these."""

    session_silence_s: int
    transfer_age_s: int
    transfers: int


class Inspect:
    """Queries of an engine's state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _live(self, table: str, **wanted: int | None) -> NDArray[Any]:
        """Return copies of the live rows of a table that have these values, None for any.

        Rows are chosen before they are copied, so a few of a million orders cost a scan of three columns.
        """
        number = next(number for number, known in enumerate(TABLES) if known.name == table)
        rows: NDArray[Any] = getattr(self._state, table)[: int(self._state.pools["top"][number])]
        chosen = rows["live"] != 0
        for column, value in wanted.items():
            if value is not None:
                chosen &= rows[column] == value
        live: NDArray[Any] = rows[chosen]
        return live

    def _table(self, table: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows with the outside column names, sorted by their first two columns."""
        found = np.zeros(len(rows), dtype=DTYPES[table])
        for outside, inside, _ in _COLUMNS[table]:
            found[outside] = rows[inside]
        if "symbol" in (found.dtype.names or ()):
            found["symbol"] = text_of(rows, "symbol")
        if table == "sessions":
            found["answers"] = 1 << rows["run"].astype(np.uint32)
        first, second = found.dtype.names[:2] if found.dtype.names else ("", "")
        return found[np.lexsort((found[second], found[first]))]

    def depth(self, instrument: int, levels: int) -> tuple[Depth, Depth]:
        """Return the best bids and the best asks; both empty for an unknown instrument."""
        number = self._book(instrument)
        return self._side(number, levels), self._side(number + 1, levels)

    def stops(self, instrument: int, levels: int) -> tuple[Depth, Depth]:
        """Return the pending sell and buy stops by stop price, those first that a moving price reaches first."""
        number = self._book(instrument)
        return self._side(number + 2, levels), self._side(number + 3, levels)

    def _book(self, instrument: int) -> int:
        """Return the number of the instrument's first book; if it is unknown, of books that are always empty."""
        known = self._state.instruments
        slots = np.flatnonzero((known["instrument_id"] == instrument) & (known["live"] != 0))
        return BOOKS * int(slots[0]) if len(slots) else 0

    def _side(self, book: int, levels: int) -> Depth:
        """Return the best levels of one book."""
        found: Depth = []
        at = int(self._state.books["best"][book])
        while at and len(found) < levels:
            level = self._state.levels[at]
            found.append((int(level["price"]), int(level["quantity"]), int(level["orders"])))
            at = int(level["worse"])
        return found

    def orders(self, account: int | None = None, instrument: int | None = None) -> NDArray[Any]:
        """Return open orders by id, pending stops included."""
        rows = self._live("orders", account_id=account, instrument_id=instrument)
        rows = rows[np.argsort(rows["order_id"])]
        found = self._table("orders", rows)
        found["leaves_lots"] = found["quantity_lots"] - found["cum_lots"]
        # Slot 0 is an empty record: the details of an order without.
        details = self._state.order_details[rows["details"]]
        for name in ("stop_price_ticks", "display_lots", "expiry_ns", "credential"):
            found[name] = details[name]
        texts = text_of(details, "client_order_id")
        found["client_order_id"] = np.where(texts != b"", texts, rows["client_order_id"].astype("<u8").view("S8"))
        found["session_id"] = self._state.sessions["session_id"][rows["session"]]
        return found

    def balances(self, account: int | None = None) -> NDArray[Any]:
        """Return balances by account, then asset."""
        return self._table("balances", self._live("balances", account_id=account))

    def positions(self, account: int) -> list[Position]:
        """Return an account's position in each instrument where it owns the base or has an open order."""
        balances, orders = (self._live(table, account_id=account) for table in ("balances", "orders"))
        return positions(account, self._live("instruments"), balances, orders)

    def balance_arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return every balance, unordered: owner (account << 32 | asset), available, held."""
        rows = self._live("balances")
        owners = (rows["account_id"].astype(np.uint64) << np.uint64(32)) | rows["asset_id"]
        return owners, rows["available"], rows["held"]

    def accounts(self) -> NDArray[Any]:
        """Return the accounts by id."""
        return self._table("accounts", self._live("accounts"))

    def assets(self) -> NDArray[Any]:
        """Return the assets by id."""
        return self._table("assets", self._live("assets"))

    def instruments(self) -> NDArray[Any]:
        """Return the instruments by id."""
        return self._table("instruments", self._live("instruments"))

    def sessions(self) -> NDArray[Any]:
        """Return the sessions by id."""
        return self._table("sessions", self._live("sessions"))

    def credentials(self) -> NDArray[Any]:
        """Return the credentials by number, with those that are revoked or expired."""
        rows = self._live("credentials")
        rows = rows[np.argsort(rows["credential_id"])]
        found = self._table("credentials", rows)
        for name, words in (("key", KEY_SIZE // 8), ("networks", NETWORKS * ADDRESS_SIZE // 8)):
            columns = np.stack([rows[f"{name}_{at}"] for at in range(words)], axis=1)
            found[name] = np.ascontiguousarray(columns).view(f"V{8 * words}").reshape(len(rows))
        return found

    @property
    def retention(self) -> Retention:
        """What SET_RETENTION sets."""
        core = self._state.core[0]
        return Retention(*(int(core[name]) for name in Retention._fields))

    def transfers(self, account: int) -> NDArray[Any]:
        """Return the deposits and withdrawals of an account by transfer id."""
        return self._table("transfers", self._live("transfers", account_id=account))

    @property
    def killed(self) -> bool:
        """Whether the kill switch is on: then no order is placed or replaced."""
        return bool(self._state.core["killed"][0])

    @property
    def next_expiry_ns(self) -> int | None:
        """The engine time at which the next command may end a GTD order or a silent session; None if there is none.

        It is exact for orders. A session that was active since may make it too early.
        """
        core = self._state.core
        expiry = min(int(core["next_expiry"][0]), int(core["next_session_end"][0]))
        return None if expiry == NEVER else expiry

    def counts(self) -> dict[str, int]:
        """Return the number of live records of each kind."""
        live = self._state.pools["live"]
        counted = {
            "orders": int(live[ORDERS]),
            "levels": int(live[LEVELS]),
            "instruments": int(live[INSTRUMENTS]),
            "transfers": int(live[TRANSFERS]),
        }
        return counted | {name: len(self._live(name)) for name in ("accounts", "assets", "balances", "sessions")}
