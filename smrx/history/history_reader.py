"""Look up orders in the LMDB environment of an order history: by id, by client order id, by account.

Reads one consistent view: what was committed when it was opened, whatever is written meanwhile. Lists are sorted from
the newest order to the oldest, by the event of the order's first update, which is also the cursor of a page. Called by
the command line.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.history.history_layout import (
    CLIENT_KEY,
    FORMAT,
    NUMBER,
    OPEN,
    OPEN_TABLES,
    OPTIONS,
    STATE,
    TABLES,
    HistoryState,
    OpenOrders,
    blocks_from,
)
from smrx.history.history_rows import ORDER_DETAIL, ORDER_UPDATE, Rows
from smrx.history.order_history import orders_after
from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.lmdb_layout import account_key, key
from smrx.sinks.rows import DEFINITION_ROW, Catalogue
from smrx.sinks.sink_errors import SinkError
from smrx.wire.client_order_ids import id_form, short_id_text
from smrx.wire.record_schema import decode_tables

#: Take the size that the environment has.
_MAP_BYTES: Final = 0
_LAST: Final = (1 << 64) - 1
#: Orders read at a time for a list; few pages need more.
_CHUNK: Final = 64


class HistoryReader:
    """A consistent view of an order history. A context manager, or call close(): it keeps old pages in use."""

    def __init__(self, path: str | Path) -> None:
        """Open what a HistoryStore wrote. Raises SinkError if it is not there, SinkMismatch if it is not understood."""
        place = Path(path).expanduser()
        self.name = f"history {place}"
        self._place = place
        try:
            self._env = lmdb.open(
                str(place), map_size=_MAP_BYTES, max_dbs=len(TABLES), readonly=True, create=False, max_readers=126
            )
            try:
                # Without `create`, a missing table is an error.
                self._tables = {name: self._env.open_db(name, create=False, **OPTIONS.get(name, {})) for name in TABLES}
                self._transaction = self._env.begin()
                self._load()
            except BaseException:
                self._env.close()
                raise
        except lmdb.Error as error:
            raise SinkError(f"{place}: is not the LMDB environment of an order history: {error}") from None

    def refresh(self) -> None:
        """Move to what is committed now. Rows that were read before stay valid. Raises SinkError, SinkMismatch."""
        self._transaction.abort()
        try:
            self._transaction = self._env.begin()
        except lmdb.MapResizedError:
            # The writer has made the map larger.
            self._env.set_mapsize(_MAP_BYTES)
            self._transaction = self._env.begin()
        if self._transaction.id() != self._id:
            self._load()

    def _load(self) -> None:
        self._id = self._transaction.id()
        found = self._transaction.get(STATE, db=self._tables[b"meta"])
        if found is None:
            raise SinkError(f"{self._place}: holds no order history yet")
        self._state = decode(bytes(found), HistoryState, FORMAT, self.name)
        #: The updates that the indexes do not cover yet.
        self._tail = self._updates_after(self._state.indexed)
        self._tail_ids = self._tail["order_id"].copy()

    def __enter__(self) -> "HistoryReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the view."""
        self._transaction.abort()
        self._env.close()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The place in the stream at which every answer is true."""
        return self._state.checkpoint

    @property
    def sequence(self) -> int:
        """The last event that the history holds, 0 before the first."""
        return 0 if self._state.checkpoint is None else self._state.checkpoint.event_sequence

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of orders, of updates and of fills."""
        return self._state.orders, self._state.updates, self._state.fills

    def catalogue(self) -> Catalogue:
        """Return the assets and instruments."""
        with self._transaction.cursor(self._tables[b"definitions"]) as cursor:
            rows = np.frombuffer(b"".join(cursor.iternext(keys=False)), DEFINITION_ROW)
        known = Catalogue()
        known.add(rows)
        return known

    def updates(self, order_id: int) -> Rows:
        """Return the updates of an order (ORDER_UPDATE), the first one first; none if it is not known."""
        newer = self._tail[self._tail_ids == order_id] if order_id else self._tail[:0]
        return self._joined(b"orders", key(order_id), newer)

    def details(self, first_update: int) -> Rows:
        """Return what belongs to an order by the event of its first update: at most two rows of ORDER_DETAIL."""
        with self._transaction.cursor(self._tables[b"details"]) as cursor:
            value = _value_at_or_before(cursor, key(first_update))
        rows = np.frombuffer(value, ORDER_DETAIL)
        found: Rows = rows[rows["update_sequence"] == first_update]
        return found

    def placed(self, account: int, before: int | None = None) -> Iterator[Rows]:
        """Yield the orders of an account by their first updates, newest first; only those before event `before`."""
        return self._by_account(b"placed", account, before, self._tail["is_first"] == 1)

    def fills(self, account: int, before: int | None = None) -> Iterator[Rows]:
        """Yield the fills of an account, newest first; only those before event `before`."""
        return self._by_account(b"fills", account, before, self._tail["match_id"] != 0)

    def by_client_order_id(self, account: int, text: str) -> Rows:
        """Return the first updates of the account's orders with this client order id, the oldest first."""
        form = id_form(text.encode("ascii", "replace"))
        name = np.array([(account, form)], CLIENT_KEY).tobytes()
        tail = self._tail
        newer = tail[(tail["is_first"] == 1) & (tail["account"] == account) & (tail["client_order_id"] == form)]
        found = self._joined(b"clients", name, newer)
        return found[[self.text_of(row) == text for row in found]]

    def open_orders(self, account: int | None = None) -> Rows:
        """Return the open orders (ORDER), of one account or of all, by id."""
        data: bytes | None = self._transaction.get(OPEN, db=self._tables[b"meta"])
        saved = msgspec.msgpack.decode(data or b"", type=OpenOrders)
        stored = decode_tables(saved.schema, saved.tables, OPEN_TABLES)["orders"]
        orders = orders_after(stored, self._updates_after(self._state.open_sequence))
        return orders if account is None else orders[orders["account"] == account]

    def latest(self, order_id: int) -> np.void:
        """Return the last update of a known order."""
        updates = self.updates(order_id)
        last: np.void = updates[-1]
        return last

    def text_of(self, update: np.void) -> str:
        """Return the client order id of an order, by its first update; "" for none."""
        short = short_id_text(int(update["client_order_id"]))
        if short is not None:
            return short
        details = self.details(int(update["event_sequence"]))
        return b"".join(details["client_order_id"].tolist()).decode("ascii", "replace")

    def _updates_after(self, sequence: int) -> Rows:
        with self._transaction.cursor(self._tables[b"updates"]) as cursor:
            return blocks_from(cursor, sequence + 1)

    def _joined(self, index: bytes, name: bytes, newer: Rows) -> Rows:
        """Return the updates that an index with duplicates names, and then newer ones."""
        with self._transaction.cursor(self._tables[index]) as cursor:
            found = list(cursor.iternext_dup()) if cursor.set_key(name) else []
        older = self._at(np.frombuffer(b"".join(found), NUMBER))
        # As bytes: NumPy compares the fields of records before it joins them.
        return np.frombuffer(older.tobytes() + newer.tobytes(), ORDER_UPDATE) if len(newer) else older

    def _by_account(self, index: bytes, account: int, before: int | None, in_tail: NDArray[np.bool_]) -> Iterator[Rows]:
        last = _LAST if before is None else before - 1
        tail = self._tail[in_tail & (self._tail["account"] == account) & (self._tail["event_sequence"] <= last)]
        if len(tail):
            yield tail[::-1]
        with self._transaction.cursor(self._tables[index]) as cursor:
            found = _set_at_or_before(cursor, account_key(account, last))
            while found and bytes(cursor.key()).startswith(account.to_bytes(4, "big")):
                sequences = np.frombuffer(cursor.value(), NUMBER)
                sequences = sequences[sequences <= last]
                for end in range(len(sequences), 0, -_CHUNK):
                    yield self._at(sequences[max(0, end - _CHUNK) : end])[::-1]
                found = cursor.prev()

    def _at(self, sequences: NDArray[Any]) -> Rows:
        """Return the updates of these events, in their order."""
        rows = np.empty(len(sequences), ORDER_UPDATE)
        with self._transaction.cursor(self._tables[b"updates"]) as cursor:
            block = np.empty(0, ORDER_UPDATE)
            for i, sequence in enumerate(sequences.tolist()):
                if not (len(block) and block["event_sequence"][0] <= sequence <= block["event_sequence"][-1]):
                    block = np.frombuffer(_value_at_or_before(cursor, key(sequence)), ORDER_UPDATE)
                rows[i] = block[np.searchsorted(block["event_sequence"], sequence)]
        return rows


def _set_at_or_before(cursor: Any, wanted: bytes) -> bool:
    """Move to a key or to the last one before it; return False if there is none."""
    if not cursor.set_range(wanted):
        return bool(cursor.last())
    return bytes(cursor.key()) == wanted or bool(cursor.prev())


def _value_at_or_before(cursor: Any, wanted: bytes) -> bytes:
    """Return the value of a key or of the last one before it; b"" if there is none."""
    return bytes(cursor.value()) if _set_at_or_before(cursor, wanted) else b""
