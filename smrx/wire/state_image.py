"""Encode and decode a state image: the state from which books start in the middle of the event stream.

A state image is one node's state between two log entries: balances, open orders (pending stops and icebergs included),
accounts, sessions, assets, instruments with their rules, and the position in the event stream at which all of it held.
Equal states encode to equal bytes on nodes of one version, so nodes are compared by digest. A node builds the image and
serves it in parts through its admin socket; settlement reads it. Rows are in the order of their ids.

An image carries the schema of its tables (record_schema.py): books that began with the image of an earlier version
still read it. No sockets, no clock.
"""

from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.frames import ErrorCode, FrameError
from smrx.wire.record_schema import decode_tables, encode_tables
from smrx.wire.records import ASSET_SYMBOL_SIZE, CLIENT_ORDER_ID_SIZE, INSTRUMENT_SYMBOL_SIZE

FORMAT: Final = 2
#: Bytes of an image in one reply; below the size limit of the admin protocol.
PART_BYTES: Final = 4 << 20

#: The record of each table, little-endian, without padding. Columns are named as in the rows of the admin protocol.
TABLES: Final[dict[str, np.dtype[Any]]] = {
    "accounts": np.dtype(
        [
            ("account", "<u4"), ("status", "u1"), ("max_open_orders", "<u4"), ("max_open_notional", "<i8"),
            ("max_order_notional", "<i8"), ("max_order_quantity", "<i8"), ("open_orders", "<u4"),
        ]
    ),
    "assets": np.dtype(
        [
            ("asset", "<u4"), ("symbol", f"S{ASSET_SYMBOL_SIZE}"), ("decimals", "u1"), ("cap", "<i8"),
            ("supply", "<i8"),
        ]
    ),
    "balances": np.dtype([("account", "<u4"), ("asset", "<u4"), ("available", "<i8"), ("held", "<i8")]),
    "instruments": np.dtype(
        [
            ("instrument", "<u4"), ("symbol", f"S{INSTRUMENT_SYMBOL_SIZE}"), ("base_asset", "<u4"),
            ("quote_asset", "<u4"), ("lot_units", "<u4"), ("scale_units", "<u4"), ("max_price_ticks", "<i8"),
            ("max_quantity_lots", "<i8"), ("status", "u1"), ("last_price_ticks", "<i8"), ("band_bp", "<u2"),
            ("collar_bp", "<u2"), ("collar_reference", "u1"), ("rule_flags", "u1"), ("taker_fee", "<u4"),
            ("maker_fee", "<i4"), ("min_price_ticks", "<i8"), ("min_quantity_lots", "<i8"), ("min_notional", "<i8"),
            ("max_notional", "<i8"),
        ]
    ),
    "orders": np.dtype(
        [
            ("order_id", "<u8"), ("client_order_id", f"S{CLIENT_ORDER_ID_SIZE}"), ("account", "<u4"),
            ("instrument", "<u4"), ("side", "u1"), ("order_type", "u1"), ("tif", "u1"), ("stp", "u1"), ("flags", "u1"),
            ("price_ticks", "<i8"), ("quantity_lots", "<i8"), ("cum_lots", "<i8"), ("shown_lots", "<i8"),
            ("stop_price_ticks", "<i8"), ("display_lots", "<i8"), ("expiry_ns", "<i8"), ("priority", "<u8"),
            ("session_id", "<u8"),
        ]
    ),
    "sessions": np.dtype(
        [
            ("session_id", "<u8"), ("account", "<u4"), ("flags", "u1"), ("last_request_id", "<u8"),
            ("open_orders", "<u4"), ("closed", "u1"), ("answers", "<u4"), ("last_active_ns", "<i8"),
        ]
    ),
}  # fmt: skip
#: The columns that identify a row.
KEYS: Final = {
    "accounts": ("account",),
    "assets": ("asset",),
    "balances": ("account", "asset"),
    "instruments": ("instrument",),
    "orders": ("order_id",),
    "sessions": ("session_id",),
}


class StreamPosition(msgspec.Struct, frozen=True, array_like=True):
    """The position in the event stream that a state corresponds to: the last event, its command, the last trade."""

    event_sequence: int
    command_sequence: int
    match_id: int
    time_ns: int  #: engine time
    state_hash: int


class StateImage(msgspec.Struct, frozen=True):
    """A decoded state image."""

    position: StreamPosition
    killed: bool
    tables: dict[str, NDArray[Any]]


class _EncodedImage(msgspec.Struct, array_like=True):
    format: int
    position: StreamPosition
    killed: bool
    schema: bytes
    tables: list[bytes]


def encode(image: StateImage) -> bytes:
    """Return the encoded image. Columns of its tables that TABLES does not list are left out."""
    tables = {}
    for name, dtype in TABLES.items():
        tables[name] = np.zeros(len(image.tables[name]), dtype)
        for column in dtype.names or ():
            tables[name][column] = image.tables[name][column]
    return msgspec.msgpack.encode(_EncodedImage(FORMAT, image.position, image.killed, *encode_tables(tables)))


def decode(data: bytes) -> StateImage:
    """Return the image that encode() of this or another version was given. Raises FrameError for any other bytes."""
    try:
        image = msgspec.msgpack.decode(data, type=_EncodedImage)
        if image.format != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {image.format}")
        tables = decode_tables(image.schema, image.tables, TABLES)
    except (ValueError, msgspec.DecodeError) as error:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"state image: {error}") from None
    return StateImage(image.position, image.killed, tables)


def digest(data: bytes) -> str:
    """Return the digest of an encoded image in hex. It detects damage and bugs; it is not cryptographic."""
    return xxhash.xxh3_128_hexdigest(data)


def difference(found: StateImage, expected: StateImage) -> str:
    """Describe the first difference between two images; return "" if they are equal."""
    if found.position != expected.position:
        return f"position {msgspec.to_builtins(found.position)}, expected {msgspec.to_builtins(expected.position)}"
    if found.killed != expected.killed:
        return f"kill switch {found.killed}, expected {expected.killed}"
    for table, keys in KEYS.items():
        pair = [{_key(row, keys): row for row in image.tables[table]} for image in (found, expected)]
        for key in sorted(pair[0].keys() | pair[1].keys()):
            rows = [rows.get(key) for rows in pair]
            if rows[0] is None or rows[1] is None or rows[0] != rows[1]:
                where = ", ".join(f"{column} {number}" for column, number in zip(keys, key, strict=True))
                return f"{table}, {where}: {_differing(rows[0], rows[1])}, expected {_differing(rows[1], rows[0])}"
    return ""


def _key(row: np.void, keys: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(row[key]) for key in keys)


def _differing(row: np.void | None, other: np.void | None) -> str:
    """Return the columns of `row` that differ from `other`, as text."""
    if row is None:
        return "none"
    names = row.dtype.names or ()
    return ", ".join(f"{name} {row[name]}" for name in names if other is None or row[name] != other[name])
