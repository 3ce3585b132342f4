"""Read the state: records, lists and tables in a defined order. Changes nothing.

Owns the names and types of the columns that queries return. A query of one record, of one account or of a page takes
time that follows the size of its answer: it uses the indexes and lists of the state. A query of a whole table copies
and sorts it, which takes seconds for millions of records: it is for tools, tests and forked children, never for a
node's loop. Called by the node, the command line and the tests.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine.credential_record import Credential, credential_of
from smrx.engine.exposure import Position, positions
from smrx.engine.kernels import reading
from smrx.engine.kernels.compiled import addresses
from smrx.engine.state import (
    ACCOUNTS,
    BOOKS,
    NEVER,
    TABLES,
    State,
)
from smrx.wire.client_order_ids import id_form
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import (
    ADDRESS_SIZE,
    ASSET_SYMBOL_SIZE,
    CAPACITIES,
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

#: The most orders of an account's list that one page looks at: a quarter of a millisecond if none is in the cache.
MAX_STEPS: Final = 4096

#: Rows of a block of a listing.
_BLOCK: Final = 1 << 13
#: The arrays of a State that a listing reads, besides the small ones.
LISTED_ARRAYS: Final = {table: (table,) for table in DTYPES} | {"orders": ("orders", "order_details", "sessions")}
#: The small arrays of a State.
_ALWAYS: Final = ("core", "turn", "pools")

#: The numbers of the tables in State.pools.
_NUMBERS: Final = {table.name: number for number, table in enumerate(TABLES)}


class Page(NamedTuple):
    """Rows in the order of a listing, and whether there may be more behind them: ask again with the last one's id."""

    rows: NDArray[Any]
    more: bool


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

    def __init__(self, state: State, table: NDArray[np.uint64] | None = None) -> None:
        """`table`: the addresses of the state (kernels/compiled.py), if the caller has them."""
        self._state = state
        self._reader = reading.Reader(state, addresses(state, NO_DETAILS) if table is None else table)

    def _live(self, table: str, **wanted: int | None) -> NDArray[Any]:
        """Return copies of the live rows of a table that have these values, None for any.

        Rows are chosen before they are copied, so a few of a million orders cost a scan of three columns.
        """
        rows: NDArray[Any] = getattr(self._state, table)[: int(self._state.pools["top"][_NUMBERS[table]])]
        chosen = rows["live"] != 0
        for column, value in wanted.items():
            if value is not None:
                chosen &= rows[column] == value
        live: NDArray[Any] = rows[chosen]
        return live

    def _at(self, table: str, slots: NDArray[Any]) -> NDArray[Any]:
        """Return copies of the records in some slots."""
        rows: NDArray[Any] = getattr(self._state, table)
        # As words: NumPy copies records field by field, forty times slower.
        words = rows.view(np.uint64).reshape(len(rows), -1)[slots]
        found: NDArray[Any] = words.view(rows.dtype).reshape(len(slots))
        return found

    def _found(self, table: str, what: int, key: int, other: int = 0) -> NDArray[Any]:
        """Return the record with a key, as an array of one; an empty array if there is none."""
        slot = self._reader.find(what, key, other)
        live = slot and getattr(self._state, table)[slot]["live"]
        return self._at(table, np.array([slot] if live else [], np.uint32))

    def _columns(self, table: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows with the outside column names, in the same order."""
        found = np.zeros(len(rows), dtype=DTYPES[table])
        for outside, inside, _ in _COLUMNS[table]:
            found[outside] = rows[inside]
        if "symbol" in (found.dtype.names or ()):
            found["symbol"] = text_of(rows, "symbol")
        if table == "sessions":
            found["answers"] = 1 << rows["run"].astype(np.uint32)
        if table == "orders":
            self._add_order_columns(found, rows)
        return found

    def _add_order_columns(self, found: NDArray[Any], rows: NDArray[Any]) -> None:
        """Fill the columns of orders that are not in their records."""
        found["leaves_lots"] = found["quantity_lots"] - found["cum_lots"]
        # Slot 0 is an empty record: the details of an order without.
        details = self._at("order_details", rows["details"])
        for name in ("stop_price_ticks", "display_lots", "expiry_ns", "credential"):
            found[name] = details[name]
        texts = text_of(details, "client_order_id")
        found["client_order_id"] = np.where(texts != b"", texts, rows["client_order_id"].astype("<u8").view("S8"))
        found["session_id"] = self._state.sessions["session_id"][rows["session"]]

    def _table(self, table: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows with the outside column names, sorted by their first two columns."""
        found = self._columns(table, rows)
        first, second = found.dtype.names[:2] if found.dtype.names else ("", "")
        return found[np.lexsort((found[second], found[first]))]

    def warm_up(self) -> None:
        """Load the compiled code of all queries: a node does so before its first turn."""
        self.order(1)
        self.orders_of(0, limit=1)
        self.balances_of(0)
        self.transfers_of(0, limit=1)
        self.depth(0, 1)
        self.balance_damage(0, 1)

    # Queries in time that follows the size of the answer. A record is an array of one row, or of none.

    def order(self, order_id: int) -> NDArray[Any]:
        """Return an open order."""
        return self._columns("orders", self._found("orders", reading.ORDER_BY_ID, order_id))

    def client_order(self, account: int, client_order_id: str) -> NDArray[Any]:
        """Return the open order of an account with a client order id."""
        text = client_order_id.encode("ascii", "replace")
        if not 1 <= len(text) <= CLIENT_ORDER_ID_SIZE:
            return np.zeros(0, DTYPES["orders"])
        found = self._columns("orders", self._found("orders", reading.ORDER_BY_CLIENT_ID, id_form(text), account))
        # Two long ids may have the same form.
        named: NDArray[Any] = found[found["client_order_id"] == text]
        return named

    def orders_of(self, account: int, *, after: int = 0, limit: int, instrument: int | None = None) -> Page | None:
        """Return open orders of an account, pending stops included, oldest first: by order id.

        Up to `limit` of those with an id above `after`, which is 0 or that of an open order of the account; None if it
        is not. With `instrument` those of one only: of MAX_STEPS orders at most, so there may be fewer, even none, and
        still more behind.
        """
        if after:
            last = self._reader.find(reading.ORDER_BY_ID, after)
            if not last or int(self._state.orders[last]["account_id"]) != account:
                return None
            slot = int(self._state.orders[last]["newer"])
        else:
            slot = int(self._state.accounts[self._reader.find(reading.ACCOUNT, account)]["first"])
        found = np.empty(limit, np.uint32)
        steps = limit if instrument is None else max(limit, MAX_STEPS)
        count, following = self._reader.orders(slot, reading.ANY if instrument is None else instrument, steps, found)
        return Page(self._columns("orders", self._at("orders", found[:count])), following != 0)

    def open_order_count(self, account: int) -> int:
        """Return how many open orders an account has; 0 for an unknown one."""
        return int(self._state.accounts[self._reader.find(reading.ACCOUNT, account)]["orders"])

    def balance(self, account: int, asset: int) -> NDArray[Any]:
        """Return a balance."""
        return self._columns("balances", self._found("balances", reading.BALANCE, account, asset))

    def balances_of(self, account: int) -> NDArray[Any]:
        """Return the balances of an account by asset: one search for each asset."""
        found = np.empty(int(self._state.pools["top"][_NUMBERS["assets"]]), np.uint32)
        count = self._reader.balances(account, found)
        return self._table("balances", self._at("balances", found[:count]))

    def positions(self, account: int) -> list[Position]:
        """Return an account's position in each instrument where it owns the base or has an open order.

        Takes time that follows its number of open orders (open_order_count).
        """
        slots = np.empty(self.open_order_count(account), np.uint32)
        first = int(self._state.accounts[self._reader.find(reading.ACCOUNT, account)]["first"])
        self._reader.orders(first, reading.ANY, len(slots), slots)
        owned = np.empty(int(self._state.pools["top"][_NUMBERS["assets"]]), np.uint32)
        balances = self._at("balances", owned[: self._reader.balances(account, owned)])
        return positions(account, self._live("instruments"), balances, self._at("orders", slots))

    def arrays_outside(self, *tables: str) -> list[NDArray[Any]]:
        """Return the arrays of the state that listings of these tables do not read."""
        read = {*_ALWAYS, *(name for table in tables for name in LISTED_ARRAYS[table])}
        return [array for name, array in self._state._asdict().items() if name not in read]

    def balance_damage(self, first: int, last: int) -> tuple[int, int]:
        """Return what differences between the balances in some slots and their hashes change of the balance digest."""
        return self._reader.damage(first, last)

    def transfer(self, transfer_id: int) -> NDArray[Any]:
        """Return a deposit or withdrawal whose id is kept."""
        return self._columns("transfers", self._found("transfers", reading.TRANSFER, transfer_id))

    def transfers_of(self, account: int, *, before: int = 0, limit: int) -> Page:
        """Return the deposits and withdrawals of an account whose ids are kept, newest first.

        Up to `limit` of those older than the transfer `before`; of all, if it is 0. None are older than a transfer that
        is no longer kept.
        """
        if before:
            last = self._reader.find(reading.TRANSFER, before)
            is_own = int(self._state.transfers[last]["account_id"]) == account
            slot = int(self._state.transfer_links[last]) if last and is_own else 0
        else:
            slot = int(self._state.last_transfers[self._reader.find(reading.ACCOUNT, account)])
        newest = int(self._state.transfers[last]["sequence"]) if before and slot else NEVER
        found = np.empty(limit, np.uint32)
        count, following = self._reader.transfers(slot, account, newest, found)
        return Page(self._columns("transfers", self._at("transfers", found[:count])), following != 0)

    def account(self, account: int) -> NDArray[Any]:
        """Return an account."""
        return self._columns("accounts", self._found("accounts", reading.ACCOUNT, account))

    def accounts_from(self, *, after: int | None = None, limit: int) -> Page | None:
        """Return accounts in the order in which they were opened, the venue's first: up to `limit` behind one of them.

        None if `after` is not an account.
        """
        slot = 0 if after is None else self._reader.find(reading.ACCOUNT, after)
        if after is not None and not slot:
            return None
        # Accounts are never removed, so their slots are in this order, without gaps.
        end = min(slot + 1 + limit, int(self._state.pools["top"][ACCOUNTS]))
        rows = self._at("accounts", np.arange(slot + 1, end))
        return Page(self._columns("accounts", rows), end < int(self._state.pools["top"][ACCOUNTS]))

    def asset(self, asset: int) -> NDArray[Any]:
        """Return an asset."""
        return self._columns("assets", self._found("assets", reading.ASSET, asset))

    def instrument(self, instrument: int) -> NDArray[Any]:
        """Return an instrument."""
        return self._columns("instruments", self._found("instruments", reading.INSTRUMENT, instrument))

    def instrument_named(self, symbol: str) -> NDArray[Any]:
        """Return the instrument with a symbol. Takes a few nanoseconds for each instrument."""
        text = symbol.encode("ascii", "replace")
        if not 1 <= len(text) <= INSTRUMENT_SYMBOL_SIZE:
            return np.zeros(0, DTYPES["instruments"])
        words = np.frombuffer(text.ljust(INSTRUMENT_SYMBOL_SIZE, b"\0"), np.uint64)
        rows = self._state.instruments[: int(self._state.pools["top"][_NUMBERS["instruments"]])]
        same = rows["live"] != 0
        for at, word in enumerate(words):
            same &= rows[f"symbol_{at}"] == word
        return self._columns("instruments", self._at("instruments", np.flatnonzero(same)))

    def orders_ending_with(self, session_id: int) -> int:
        """Return the number of open orders that are cancelled with a session; 0 for an unknown one."""
        return int(self._state.sessions[self._reader.find(reading.SESSION, session_id)]["orders"])

    def session_owners(self) -> NDArray[Any]:
        """Return id, account, flags and whether it is closed of every session, in no order: a scan of four columns."""
        rows = self._state.sessions[: int(self._state.pools["top"][_NUMBERS["sessions"]])]
        slots = np.flatnonzero(rows["live"])
        names = ("session_id", "account", "flags", "closed")
        found = np.zeros(len(slots), np.dtype([(name, DTYPES["sessions"][name]) for name in names]))
        for outside, inside, _ in _COLUMNS["sessions"]:
            if outside in names:
                found[outside] = rows[inside][slots]
        return found

    def session(self, session_id: int) -> NDArray[Any]:
        """Return a session."""
        return self._columns("sessions", self._found("sessions", reading.SESSION, session_id))

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
        return BOOKS * self._reader.find(reading.INSTRUMENT, instrument)

    def _side(self, book: int, levels: int) -> Depth:
        """Return the best levels of one book."""
        found = np.empty(min(levels, int(self._state.books["levels"][book])), np.uint32)
        rows = self._at("levels", found[: self._reader.levels(book, found)])
        return list(zip(*(rows[name].tolist() for name in ("price", "quantity", "orders")), strict=True))

    def credential(self, number: int) -> Credential | None:
        """Return the credential with a number."""
        return self._credential(self._reader.find(reading.CREDENTIAL, number))

    def credential_of_key(self, key: bytes) -> Credential | None:
        """Return the credential to which a public key belongs, also if it is revoked."""
        found = self._credential(self._reader.find(reading.KEY, xxhash.xxh3_64_intdigest(key)))
        return found if found is not None and found.key == key else None

    def _credential(self, slot: int) -> Credential | None:
        return credential_of(self._state.credentials[slot]) if slot else None

    def account_firm(self, account: int) -> int | None:
        """Return the firm of an account, 0 for none; None for an unknown account."""
        slot = self._reader.find(reading.ACCOUNT, account)
        return int(self._state.accounts["firm"][slot]) if slot else None

    def accounts_of_firm(self, firm: int, start: int, most: int) -> tuple[NDArray[np.uint32], int]:
        """Return the accounts of a firm among `most` accounts from number `start` on, and the number to go on with.

        Accounts are numbered from 0 in the order in which they were opened. Reading one takes some nanoseconds.
        """
        end = min(int(self._state.pools["top"][ACCOUNTS]), start + 1 + most)
        rows = self._state.accounts[start + 1 : end]
        return rows["account_id"][rows["firm"] == firm], max(start, end - 1)

    # Queries of whole tables, for tools, tests and forked children.

    def listing(
        self, table: str, *, account: int | None = None, instrument: int | None = None
    ) -> Iterator[NDArray[Any]]:
        """Yield the rows of a table in blocks, in the order and with the columns of the query of the whole table.

        Those of one account or instrument only, if it has such a column. Needs 40 bytes of memory for each record, and
        reads LISTED_ARRAYS[table] only.
        """
        rows: NDArray[Any] = getattr(self._state, table)[: int(self._state.pools["top"][_NUMBERS[table]])]
        chosen = rows["live"] != 0
        for column, value in (("account_id", account), ("instrument_id", instrument)):
            if value is not None:
                chosen &= rows[column] == value
        slots = np.flatnonzero(chosen)
        inside = [name for _, name, _ in _COLUMNS[table][: 1 if table == "orders" else 2]]
        slots = slots[np.lexsort([rows[name][slots] for name in reversed(inside)])]
        for start in range(0, len(slots), _BLOCK):
            yield self._columns(table, self._at(table, slots[start : start + _BLOCK]))

    def small_listing(self, table: str, *, most: int, instrument: int | None = None) -> NDArray[Any] | None:
        """Return the rows that listing() yields, None if the table has ever had more than `most` at once."""
        if int(self._state.pools["top"][_NUMBERS[table]]) > most:
            return None
        blocks = list(self.listing(table, instrument=instrument))
        return np.concatenate(blocks) if blocks else np.zeros(0, DTYPES[table])

    def orders(self, account: int | None = None, instrument: int | None = None) -> NDArray[Any]:
        """Return open orders by id, pending stops included."""
        rows = self._live("orders", account_id=account, instrument_id=instrument)
        return self._columns("orders", rows[np.argsort(rows["order_id"])])

    def balances(self, account: int | None = None) -> NDArray[Any]:
        """Return balances by account, then asset."""
        return self._table("balances", self._live("balances", account_id=account))

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

    def capacity(self) -> dict[str, int]:
        """Return how many records of each kind the state may have at most."""
        core = self._state.core[0]
        return {name: int(core[f"max_{name}"]) for name in CAPACITIES}

    def records(self) -> dict[str, int]:
        """Return how many records of each kind count for the capacity."""
        counts = self.counts() | {"answers": int(self._state.core["kept_answers"][0])}
        return {name: counts[name] for name in CAPACITIES}

    def counts(self) -> dict[str, int]:
        """Return the number of live records of each kind; of balances, those reserved for an order included."""
        live = self._state.pools["live"].tolist()
        kinds = (
            "orders",
            "levels",
            "instruments",
            "transfers",
            "accounts",
            "assets",
            "balances",
            "sessions",
            "credentials",
        )
        return {kind: live[_NUMBERS[kind]] for kind in kinds}
