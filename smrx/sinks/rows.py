"""Convert events to the rows that sinks store: trades, movements of money and definitions, as columns of integers.

Owns the three record types and the conversion; the sinks differ only in where they put the rows. Whole batches at a
time, exact integers, no files. Called by the sinks, and by the reports, which read the same rows back.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.records import unpack_symbol

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
#: not have are 0.
DEFINITION_ROW: Final = np.dtype(
    [
        (name, "<u8" if name in {"event_sequence", "command_sequence", "symbol"} else "<i8")
        for name in (
            "event_sequence", "command_sequence", "time_ns", "kind", "id", "symbol", "decimals", "supply_cap",
            "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks", "max_quantity_lots",
            "taker_fee", "maker_fee", "band_bp", "min_price_ticks", "min_notional", "max_notional",
            "min_quantity_lots",
        )
    ]
)  # fmt: skip

#: Column of a row <- field of the event.
_TRADE: Final = {name: name for name in TRADE_ROW.names or ()} | {
    "event_sequence": "sequence",
    "taker_side": "side",
    "taker_order_id": "order_id",
    "taker_account": "account",
    "taker_fee": "cum_lots",
    "maker_order_id": "counter_order_id",
    "maker_account": "counter_account",
    "maker_fee": "leaves_lots",
}
del _TRADE["notional"]
_MOVEMENT: Final = {name: name for name in MOVEMENT_ROW.names or ()} | {
    "event_sequence": "sequence",
    "asset": "instrument",
    "transfer_id": "order_id",
    "amount": "quantity_lots",
    "available_after": "cum_lots",
}
_DEFINITION: Final = {
    "event_sequence": "sequence",
    "command_sequence": "command_sequence",
    "time_ns": "time_ns",
    "kind": "kind",
    "id": "instrument",
}
#: Fields of a definition beside those, by kind.
DEFINITION_FIELDS: Final[dict[int, dict[str, str]]] = {
    EventKind.ASSET_ADDED: {"symbol": "client_order_id", "decimals": "quantity_lots", "supply_cap": "price_ticks"},
    EventKind.INSTRUMENT_ADDED: {
        "symbol": "client_order_id",
        "base_asset": "order_id",
        "quote_asset": "counter_order_id",
        "lot_units": "account",
        "scale_units": "counter_account",
        "max_price_ticks": "price_ticks",
        "max_quantity_lots": "quantity_lots",
    },
    EventKind.RULES_SET: {
        "taker_fee": "account",
        "maker_fee": "counter_account",
        "band_bp": "cum_lots",
        "min_price_ticks": "client_order_id",
        "min_notional": "order_id",
        "max_notional": "price_ticks",
        "min_quantity_lots": "quantity_lots",
    },
}


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


def symbol_text(packed: int) -> str:
    """Return the text of a symbol; characters that no symbol should have show as "?"."""
    return "".join(character if " " <= character <= "~" else "?" for character in unpack_symbol(packed))


def packed_symbol(text: str) -> int:
    """Return the u64 of a symbol's text, also of one with characters that no symbol should have."""
    return int.from_bytes(text.encode("ascii", "replace")[:8].ljust(8, b"\0"), "little")


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
            kind, symbol = int(row["kind"]), symbol_text(int(row["symbol"]))
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
    """Return the rows of a batch of events, and add its definitions to the catalogue."""
    kinds = events["kind"]
    definitions = _definitions(events, kinds)
    catalogue.add(definitions)
    trades = _pick(events[kinds == EventKind.TRADE], TRADE_ROW, _TRADE)
    if len(trades):
        catalogue.price(trades)
    moved = (kinds == EventKind.DEPOSITED) | (kinds == EventKind.WITHDRAWN)
    return Tables(trades, _pick(events[moved], MOVEMENT_ROW, _MOVEMENT), definitions)


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


def _definitions(events: Rows, kinds: NDArray[np.uint8]) -> Rows:
    found = np.zeros(len(events), np.bool_)
    for kind in DEFINITION_FIELDS:
        found |= kinds == kind
    picked = events[found]
    rows = _pick(picked, DEFINITION_ROW, _DEFINITION)
    for row, event in zip(rows, picked, strict=True):
        for column, field in DEFINITION_FIELDS[int(event["kind"])].items():
            value = int(event[field])
            # The event holds the maker's fee as the u32 of its two's complement.
            row[column] = value - (1 << 32) if column == "maker_fee" and value >= 1 << 31 else value
    return rows
