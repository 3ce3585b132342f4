"""Carry the rows of a page as records: their bytes as the state has them, and a description of the fields.

A reply with a thousand orders takes 0.16 ms to make, and 2.7 ms with one msgpack struct each. The fields are described
by name and type, so a reader takes those that it knows. Raises FrameError for anything else.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.wire.admin.admin_replies import (
    AccountsReply,
    AssetsReply,
    BalancesReply,
    CredentialsReply,
    InstrumentsReply,
    OrdersReply,
    PageReply,
    PositionsReply,
    TransfersReply,
)
from smrx.wire.admin.admin_rows import (
    AccountRow,
    AssetRow,
    BalanceRow,
    CredentialRow,
    InstrumentRow,
    OrderRow,
    PositionRow,
    TransferRow,
)
from smrx.wire.frames import ErrorCode, FrameError

Row = TypeVar("Row", bound=msgspec.Struct)

#: The types that a field may have: integers and text of up to 255 bytes.
_TYPES: Final = frozenset({"|u1", "|i1", *(f"<{kind}{size}" for kind in "ui" for size in (2, 4, 8))})
_TEXTS: Final = frozenset(f"|S{size}" for size in range(1, 256))
_MAX_COLUMNS: Final = 64

_ROW_TYPES: Final[dict[type, Any]] = {
    OrdersReply: OrderRow,
    BalancesReply: BalanceRow,
    PositionsReply: PositionRow,
    TransfersReply: TransferRow,
    AccountsReply: AccountRow,
    AssetsReply: AssetRow,
    InstrumentsReply: InstrumentRow,
    CredentialsReply: CredentialRow,
}

_columns: dict[Any, tuple[tuple[str, str], ...]] = {}


def pack(records: NDArray[Any]) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Return (columns, data) of records without padding."""
    columns = _columns.get(records.dtype)
    if columns is None:
        fields: Mapping[str, Any] = records.dtype.fields or {}
        columns = _columns[records.dtype] = tuple((name, field[0].str) for name, field in fields.items())
    return columns, records.tobytes()


def rows_of(reply: "PageReply[Row]") -> tuple[Row, ...]:
    """Return the rows of a reply, packed or not. Raises FrameError."""
    if not reply.columns:
        return reply.rows
    if len(reply.columns) > _MAX_COLUMNS or not all(kind in _TYPES or kind in _TEXTS for _, kind in reply.columns):
        raise FrameError(
            ErrorCode.MALFORMED_FRAME, f"page: expected columns of integers and text, found {reply.columns}"
        )
    if type(reply) not in _ROW_TYPES:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"page: {type(reply).__name__} has no records")
    try:
        records = np.frombuffer(reply.data, np.dtype([(name, kind) for name, kind in reply.columns]))
        return rows(records, _ROW_TYPES[type(reply)])
    except (ValueError, TypeError) as error:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"page: {error}") from None


def rows(records: NDArray[Any], row_type: type[Row]) -> tuple[Row, ...]:
    """Return a struct for each record."""
    known = get_type_hints(row_type)
    names = records.dtype.names or ()
    taken = [name for name in names if name in known]
    columns = [
        [text.decode("ascii", "replace") for text in records[name].tolist()]
        if records.dtype[name].kind == "S"
        else records[name].tolist()
        for name in taken
    ]
    return tuple(row_type(**dict(zip(taken, values, strict=True))) for values in zip(*columns, strict=True))
