"""Define how order history is stored in an LMDB environment. Written by history_store.py, read by history_reader.py.

Rows are kept in blocks, one for each commit, as the bytes of their records; keys are big-endian, so that they sort as
numbers. The indexes are written later, many updates at a time, because single puts at random places cost most of a
commit: updates after `indexed`, of which there are few, are found by a scan. The open orders are written from time to
time; the updates after that sequence lead from them to the present.

- updates   event sequence of the first row -> ORDER_UPDATEs
- details   sequence of the first row's update -> ORDER_DETAILs
- definitions   event sequence of the first row -> DEFINITION_ROWs
- orders    order id -> event sequences of its updates (sorted duplicates)
- placed    account, first event sequence -> event sequences of the first updates of its orders
- fills     account, first event sequence -> event sequences of its fills
- clients   account, 64-bit form of a client order id -> event sequences of first updates (sorted duplicates)
- meta      "state" -> HistoryState as JSON; "open" -> the open orders, with their schema
"""

from typing import Any, Final

import msgspec
import numpy as np

from smrx.history.history_rows import ORDER_UPDATE, Rows
from smrx.history.order_kernels import ORDER
from smrx.sinks.contract import Checkpoint
from smrx.sinks.lmdb_layout import key

FORMAT: Final = 1
TABLES: Final = (b"updates", b"details", b"definitions", b"orders", b"placed", b"fills", b"clients", b"meta")
_DUPLICATES: Final = {"dupsort": True, "dupfixed": True}
#: Options of the tables that have some.
OPTIONS: Final[dict[bytes, dict[str, Any]]] = {b"orders": _DUPLICATES, b"clients": _DUPLICATES}
STATE: Final = b"state"
OPEN: Final = b"open"
#: The tables of "open".
OPEN_TABLES: Final = {"orders": ORDER}
#: Keys and values of the indexes.
NUMBER: Final = np.dtype(">u8")
#: Keys of "clients".
CLIENT_KEY: Final = np.dtype([("account", ">u4"), ("form", ">u8")])


class HistoryState(msgspec.Struct, forbid_unknown_fields=True):
    """The content of "state"."""

    format: int
    checkpoint: Checkpoint | None
    indexed: int = 0  #: the last event whose update is in the indexes
    open_sequence: int = 0  #: the event after which "open" is the open orders
    orders: int = 0  #: orders stored, rejected ones included
    updates: int = 0
    fills: int = 0
    indexed_updates: int = 0  #: how many updates were stored when the indexes were written,
    open_updates: int = 0  #: and when the open orders were


class OpenOrders(msgspec.Struct, array_like=True):
    """The content of "open": tables and their schema (wire/record_schema.py)."""

    schema: bytes
    tables: list[bytes]


def blocks_from(cursor: Any, first: int) -> Rows:
    """Return the updates in the blocks from the one that begins with event `first` on."""
    blocks = cursor.iternext(keys=False) if cursor.set_range(key(first)) else ()
    return np.frombuffer(b"".join(blocks), ORDER_UPDATE)
