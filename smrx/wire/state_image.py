"""The opening state: what whoever keeps books must know to begin after some event, without the events before it.

One image of a node's state between two log entries: balances, open orders (pending stops and icebergs among them),
accounts, sessions, assets, instruments with their rules, and the place in the stream where all that was true. Equal
states give equal bytes, so nodes are compared by the digest. Made by the node, asked for through the admin socket in
parts, read by settlement. Rows are in the order of their ids. No sockets, no clock.
"""

from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.frames import ErrorCode, FrameError

FORMAT: Final = 1
#: Bytes of an image in one answer: below the admin protocol's bound.
PART_BYTES: Final = 4 << 20

#: The records of each table, little-endian and without gaps; the columns are those of the admin protocol's rows.
TABLES: Final[dict[str, np.dtype[Any]]] = {
    "accounts": np.dtype(
        [
            ("account", "<u4"), ("status", "u1"), ("max_open_orders", "<u4"), ("max_open_notional", "<i8"),
            ("max_order_notional", "<i8"), ("max_order_quantity", "<i8"), ("open_orders", "<u4"),
        ]
    ),
    "assets": np.dtype(
        [("asset", "<u4"), ("symbol", "<u8"), ("decimals", "u1"), ("cap", "<i8"), ("supply", "<i8")]
    ),
    "balances": np.dtype([("account", "<u4"), ("asset", "<u4"), ("available", "<i8"), ("held", "<i8")]),
    "instruments": np.dtype(
        [
            ("instrument", "<u4"), ("symbol", "<u8"), ("base_asset", "<u4"), ("quote_asset", "<u4"),
            ("lot_units", "<u4"), ("scale_units", "<u4"), ("max_price_ticks", "<i8"), ("max_quantity_lots", "<i8"),
            ("status", "u1"), ("last_price_ticks", "<i8"), ("band_bp", "<u2"), ("taker_fee", "<u4"),
            ("maker_fee", "<i4"), ("min_price_ticks", "<i8"), ("min_quantity_lots", "<i8"), ("min_notional", "<i8"),
            ("max_notional", "<i8"),
        ]
    ),
    "orders": np.dtype(
        [
            ("order_id", "<u8"), ("client_order_id", "<u8"), ("account", "<u4"), ("instrument", "<u4"), ("side", "u1"),
            ("order_type", "u1"), ("tif", "u1"), ("stp", "u1"), ("flags", "u1"), ("price_ticks", "<i8"),
            ("quantity_lots", "<i8"), ("cum_lots", "<i8"), ("shown_lots", "<i8"), ("extra", "<u8"),
            ("priority", "<u8"), ("session_id", "<u8"),
        ]
    ),
    "sessions": np.dtype(
        [
            ("session_id", "<u8"), ("account", "<u4"), ("flags", "u1"), ("last_request_id", "<u8"),
            ("open_orders", "<u4"),
        ]
    ),
}  # fmt: skip
#: The columns that name a row.
KEYS: Final = {
    "accounts": ("account",),
    "assets": ("asset",),
    "balances": ("account", "asset"),
    "instruments": ("instrument",),
    "orders": ("order_id",),
    "sessions": ("session_id",),
}


class Place(msgspec.Struct, frozen=True, array_like=True):
    """The place in the stream after which a state holds: the last event, its command, the last trade."""

    event_sequence: int
    command_sequence: int
    match_id: int
    time_ns: int  #: of the engine
    state_hash: int


class Opening(msgspec.Struct, frozen=True):
    """One image, decoded."""

    place: Place
    killed: bool
    tables: dict[str, NDArray[Any]]


class _Image(msgspec.Struct, array_like=True):
    format: int
    place: Place
    killed: bool
    tables: list[bytes]


def encode(opening: Opening) -> bytes:
    """Return the bytes of an image; its tables may have more columns than are sent."""
    tables = []
    for name, dtype in TABLES.items():
        rows = np.zeros(len(opening.tables[name]), dtype)
        for column in dtype.names or ():
            rows[column] = opening.tables[name][column]
        tables.append(rows.tobytes())
    return msgspec.msgpack.encode(_Image(FORMAT, opening.place, opening.killed, tables))


def decode(data: bytes) -> Opening:
    """Return what encode() was given; raises FrameError for bytes that are none of it."""
    try:
        image = msgspec.msgpack.decode(data, type=_Image)
        if image.format != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {image.format}")
        pairs = zip(TABLES.items(), image.tables, strict=True)
        tables: dict[str, NDArray[Any]] = {name: np.frombuffer(rows, dtype) for (name, dtype), rows in pairs}
    except (ValueError, msgspec.DecodeError) as error:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"opening state: {error}") from None
    return Opening(image.place, image.killed, tables)


def digest(data: bytes) -> str:
    """Return the digest of an image, in hex; it finds damage and mistakes, and is no proof against forgers."""
    return xxhash.xxh3_128_hexdigest(data)


def difference(found: Opening, expected: Opening) -> str:
    """Name the first thing in which two images differ; nothing if they do not."""
    if found.place != expected.place:
        return f"place {msgspec.to_builtins(found.place)}, expected {msgspec.to_builtins(expected.place)}"
    if found.killed != expected.killed:
        return f"kill switch {found.killed}, expected {expected.killed}"
    for table, keys in KEYS.items():
        pair = [{_name(row, keys): row for row in image.tables[table]} for image in (found, expected)]
        for name in sorted(pair[0].keys() | pair[1].keys()):
            rows = [rows.get(name) for rows in pair]
            if rows[0] is None or rows[1] is None or rows[0] != rows[1]:
                where = ", ".join(f"{key} {number}" for key, number in zip(keys, name, strict=True))
                return f"{table}, {where}: {_said(rows[0], rows[1])}, expected {_said(rows[1], rows[0])}"
    return ""


def _name(row: np.void, keys: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(row[key]) for key in keys)


def _said(row: np.void | None, other: np.void | None) -> str:
    """The columns of a row that differ from the other's."""
    if row is None:
        return "none"
    names = row.dtype.names or ()
    return ", ".join(f"{name} {row[name]}" for name in names if other is None or row[name] != other[name])
