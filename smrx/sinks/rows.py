"""Convert events to the rows that sinks store: trades, movements of money and definitions, as columns of integers.

Owns the three record types and the conversion; the sinks differ only in where they put the rows. Whole batches at a
time, exact integers, no files. Called by the sinks, and by the reports, which read the same rows back.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS, INSTRUMENT_SYMBOL_SIZE, unpack_symbol

Rows = NDArray[np.void]

DAY_NS: Final = 86_400_000_000_000

#: One trade. Money (notional, fees) in minimal units of the instrument's quote asset.
TRADE_ROW: Final = np.dtype(
    [
        ("match_id", "<u8"), ("event_sequence", "<u8"), ("command_sequence", "<u8"), ("time_ns", "<i8"),
        ("price_ticks", "<i8"), ("quantity_lots", "<i8"), ("notional", "<i8"),
        ("taker_order_id", "<u8"), ("taker_fee", "<i8"), ("maker_order_id", "<u8"), ("maker_fee", "<i8"),
        ("instrument", "<u4"), ("taker_account", "<u4"), ("maker_account", "<u4"), ("taker_side", "<u4"),
    ]
)  # fmt: skip

#: The kind of a movement that is no event: what an account owned in the state image that the books start from.
OPENING: Final = 0

#: One deposit or withdrawal (`kind` is the event's), or an opening balance, in minimal units of the asset.
MOVEMENT_ROW: Final = np.dtype(
    [
        ("event_sequence", "<u8"), ("command_sequence", "<u8"), ("time_ns", "<i8"), ("transfer_id", "<u8"),
        ("amount", "<i8"), ("available_after", "<i8"), ("account", "<u4"), ("asset", "<u4"), ("kind", "<u8"),
    ]
)  # fmt: skip

#: An asset, an instrument or an instrument's rules, as they were set (`kind` is the event's). Fields that a kind does
#: not have are 0, a symbol that it does not have is empty.
DEFINITION_ROW: Final = np.dtype(
    [
        ("event_sequence", "<u8"), ("command_sequence", "<u8"), ("time_ns", "<i8"), ("kind", "<i8"), ("id", "<i8"),
        ("symbol", f"S{INSTRUMENT_SYMBOL_SIZE}"),
        *(
            (name, "<i8")
            for name in (
                "decimals", "supply_cap", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks",
                "max_quantity_lots", "taker_fee", "maker_fee", "band_bp", "min_price_ticks", "min_notional",
                "max_notional", "min_quantity_lots", "collar_bp", "collar_reference", "rule_flags",
            )
        ),
    ]
)  # fmt: skip

#: The table whose rows an event of a kind becomes; None for no row.
Store = Literal["trades", "movements", "definitions"]
STORES: Final[Mapping[EventKind, Store | None]] = {
    EventKind.NEW: None,
    EventKind.PARTIALLY_FILLED: None,
    EventKind.FILLED: None,
    EventKind.CANCELLED: None,
    EventKind.REPLACED: None,
    EventKind.REJECTED: None,
    EventKind.EXPIRED: None,
    EventKind.TRADE: "trades",
    EventKind.DEPOSITED: "movements",
    EventKind.WITHDRAWN: "movements",
    EventKind.ACCOUNT_OPENED: None,
    EventKind.ACCOUNT_SUSPENDED: None,
    EventKind.ACCOUNT_RESUMED: None,
    EventKind.SESSION_OPENED: None,
    EventKind.SESSION_CLOSED: None,
    EventKind.ASSET_ADDED: "definitions",
    EventKind.INSTRUMENT_ADDED: "definitions",
    EventKind.MASS_CANCELLED: None,
    EventKind.STATUS_SET: None,
    EventKind.LIMITS_SET: None,
    EventKind.KILLED: None,
    EventKind.REVIVED: None,
    EventKind.TICKED: None,
    EventKind.RULES_SET: "definitions",
    EventKind.TRIGGERED: None,
    EventKind.SESSION_DISCONNECTED: None,
    EventKind.VERSION_SET: None,
    EventKind.CLIENT_ORDER_ID: None,
    EventKind.ORDER_TERMS: None,
    EventKind.SESSION_EXPIRED: None,
    EventKind.RETENTION_SET: None,
    EventKind.CREDENTIAL_ADDED: None,
    EventKind.CREDENTIAL_SET: None,
    EventKind.CREDENTIAL_REVOKED: None,
    EventKind.CREDENTIAL_NETWORKS: None,
    EventKind.CAPACITY_SET: None,
}

_HEAD: Final = {"event_sequence": "sequence", "command_sequence": "command_sequence", "time_ns": "time_ns"}
#: Column of a row <- field of the event, in the layout of its kind.
_TRADE: Final = _HEAD | {
    "match_id": "match_id",
    "price_ticks": "price_ticks",
    "quantity_lots": "quantity_lots",
    "taker_order_id": "order_id",
    "taker_fee": "taker_fee",
    "maker_order_id": "counter_order_id",
    "maker_fee": "maker_fee",
    "instrument": "instrument",
    "taker_account": "account",
    "maker_account": "counter_account",
    "taker_side": "side",
}
_MOVEMENT: Final = _HEAD | {
    name: name for name in ("transfer_id", "amount", "available_after", "account", "asset", "kind")
}
_ASSET_FIELDS: Final = ("symbol", "decimals", "supply_cap")
_INSTRUMENT_FIELDS: Final = (
    "symbol", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks", "max_quantity_lots",
)  # fmt: skip
RULE_FIELDS: Final = (
    "taker_fee", "maker_fee", "band_bp", "min_price_ticks", "min_notional", "max_notional", "min_quantity_lots",
    "collar_bp", "collar_reference", "rule_flags",
)  # fmt: skip
#: Columns of a definition beside the first five, by kind; the event's fields have the same names.
DEFINITION_FIELDS: Final[Mapping[int, tuple[str, ...]]] = {
    EventKind.ASSET_ADDED: _ASSET_FIELDS,
    EventKind.INSTRUMENT_ADDED: _INSTRUMENT_FIELDS,
    EventKind.RULES_SET: RULE_FIELDS,
}
_DEFINED: Final = {
    EventKind.ASSET_ADDED: "asset",
    EventKind.INSTRUMENT_ADDED: "instrument",
    EventKind.RULES_SET: "instrument",
}


#: What store_codes() gives for each kind of event.
_UNKNOWN, _NO_ROW, _TRADES, _MOVEMENTS, _DEFINITIONS = range(5)
_STORE_CODES: Final[dict[Store | None, int]] = {
    None: _NO_ROW,
    "trades": _TRADES,
    "movements": _MOVEMENTS,
    "definitions": _DEFINITIONS,
}


def store_codes(stores: Mapping[EventKind, Store | None]) -> bytes:
    """Return for every value of `kind` a code of its table, 0 for a value that is not listed."""
    codes = bytearray(256)
    for kind, store in stores.items():
        codes[kind] = _STORE_CODES[store]
    return bytes(codes)


_CODES: Final = store_codes(STORES)


class Asset(NamedTuple):
    """An asset, counted in minimal units of 10^-decimals."""

    id: int
    symbol: str
    decimals: int


class Instrument(NamedTuple):
    """An instrument: the factors that convert lots and ticks into money."""

    id: int
    symbol: str
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int


class Tables(NamedTuple):
    """The rows of a batch of events, each table in the order of the events."""

    trades: Rows
    movements: Rows
    definitions: Rows


def symbol_text(symbol: bytes) -> str:
    """Return the text of a symbol; characters that no symbol should have show as "?"."""
    return "".join(character if " " <= character <= "~" else "?" for character in unpack_symbol(symbol))


def symbol_bytes(text: str) -> bytes:
    """Return the bytes of a symbol's text, also of one with characters that no symbol should have."""
    return text.encode("ascii", "replace")[:INSTRUMENT_SYMBOL_SIZE]


def time_texts(times_ns: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return times of the engine as ISO 8601 in UTC, to the nanosecond."""
    texts: NDArray[np.str_] = np.char.add(np.datetime_as_string(times_ns.astype("<M8[ns]")), "Z")
    return texts


def time_text(time_ns: int) -> str:
    """Return one time as time_texts() does, in a tenth of the time."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


class Catalogue:
    """The assets and instruments known so far."""

    def __init__(self) -> None:
        self.assets: dict[int, Asset] = {}
        self.instruments: dict[int, Instrument] = {}
        self._ids = np.empty(0, np.uint32)
        self._scales = np.empty(0, np.int64)

    def add(self, definitions: Rows) -> None:
        """Add definitions; those of rules change nothing here."""
        for row in definitions:
            kind, symbol = int(row["kind"]), symbol_text(row["symbol"])
            identity = int(row["id"])
            if kind == EventKind.ASSET_ADDED:
                self.assets[identity] = Asset(identity, symbol, int(row["decimals"]))
            elif kind == EventKind.INSTRUMENT_ADDED:
                fields = (int(row[name]) for name in Instrument._fields[2:])
                self.instruments[identity] = Instrument(identity, symbol, *fields)
        if len(definitions):
            known = sorted(self.instruments)
            self._ids = np.array(known, np.uint32)
            self._scales = np.array([self.instruments[i].scale_units for i in known], np.int64)

    def places(self, trades: Rows) -> NDArray[np.intp]:
        """Return the index of each trade's instrument among all instruments sorted by id.

        Raises SinkMismatch for an instrument that was never defined.
        """
        wanted = trades["instrument"]
        places = np.searchsorted(self._ids, wanted)
        known = places < len(self._ids)
        known[known] = self._ids[places[known]] == wanted[known]
        if not known.all():
            row = trades[int(np.argmin(known))]
            raise SinkMismatch(
                f"event {row['event_sequence']}: a trade in instrument {row['instrument']}, which no event defined"
            )
        return places

    def price(self, trades: Rows) -> None:
        """Set the notional of trades. It is exact: the exchange accepts no order of 2^62 units or more."""
        trades["notional"] = trades["price_ticks"] * trades["quantity_lots"] * self._scales[self.places(trades)]


def extract(events: Rows, catalogue: Catalogue) -> Tables:
    """Return the rows of a batch of events, and add its definitions to the catalogue.

    Raises SinkMismatch for a kind of event that STORES does not list.
    """
    # Bytes are translated and searched many times faster than arrays are indexed.
    codes = events["kind"].tobytes().translate(_CODES)
    at = codes.find(_UNKNOWN)
    if at >= 0:
        event = events[at]
        raise SinkMismatch(
            f"event {event['sequence']}: has kind {event['kind']}, which this version of smrx does not know; use a "
            "newer smrx"
        )

    def stored(code: int) -> Rows:
        return events[np.frombuffer(codes, np.uint8) == code] if code in codes else events[:0]

    definitions = _definitions(stored(_DEFINITIONS))
    catalogue.add(definitions)
    trades = _pick(stored(_TRADES).view(EVENT_LAYOUTS[EventKind.TRADE]), TRADE_ROW, _TRADE)
    if len(trades):
        catalogue.price(trades)
    moved = stored(_MOVEMENTS).view(EVENT_LAYOUTS[EventKind.DEPOSITED])
    return Tables(trades, _pick(moved, MOVEMENT_ROW, _MOVEMENT), definitions)


def definitions_of(events: Rows) -> Rows:
    """Return the definitions in a batch of events as rows (DEFINITION_ROW)."""
    codes = events["kind"].tobytes().translate(_CODES)
    if _DEFINITIONS not in codes:
        return np.empty(0, DEFINITION_ROW)
    return _definitions(events[np.frombuffer(codes, np.uint8) == _DEFINITIONS])


def of_account(trades: Rows, account: int) -> Rows:
    """The trades in which an account was taker or maker."""
    own: Rows = trades[(trades["taker_account"] == account) | (trades["maker_account"] == account)]
    return own


def join(batches: Sequence[Tables]) -> Tables:
    """Return the rows of many batches as one."""
    dtypes = (TRADE_ROW, MOVEMENT_ROW, DEFINITION_ROW)
    tables = zip(*batches, strict=True) if batches else ((), (), ())
    return Tables(*(np.concatenate([np.empty(0, dtype), *rows]) for dtype, rows in zip(dtypes, tables, strict=True)))


def _pick(events: Rows, dtype: np.dtype[Any], fields: dict[str, str]) -> Rows:
    rows = np.zeros(len(events), dtype)
    for column, field in fields.items():
        rows[column] = events[field]
    return rows


def _definitions(events: Rows) -> Rows:
    rows = _pick(events, DEFINITION_ROW, _HEAD | {"kind": "kind"})
    for kind, fields in DEFINITION_FIELDS.items():
        own = np.flatnonzero(events["kind"] == kind)
        picked = events[own].view(EVENT_LAYOUTS[EventKind(kind)])
        rows["id"][own] = picked[_DEFINED[EventKind(kind)]]
        for name in fields:
            rows[name][own] = picked[name]
    return rows
