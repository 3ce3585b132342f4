"""Store order history in LMDB: rows, indexes, open orders and checkpoint in one transaction. Implements Sink.

Owns the environment in its directory, a lock on it, and the projection. Rows are kept in memory until commit(). When
the map is full, its size is doubled and the transaction repeated. Readers (history_reader.py) see whole commits only.
"""

import logging
import os
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec
import numpy as np

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
from smrx.history.history_rows import ORDER_UPDATE, HistoryRows, Rows
from smrx.history.order_history import OrderHistory, orders_after
from smrx.history.order_status import OrderStatus
from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.durable_files import as_sink_errors, lock, make_directory, sync_directory
from smrx.sinks.lmdb_layout import account_key, as_lmdb_errors, key, keys, write_with_growth
from smrx.sinks.rows import DEFINITION_ROW, Tables
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.record_schema import SchemaError, decode_tables, encode_tables

log = logging.getLogger(__name__)

#: Address space, not disk: the file grows with its content.
FIRST_MAP_BYTES: Final = 1 << 30
#: Updates added to the indexes at a time.
INDEX_UPDATES: Final = 32_768
#: The open orders are written again after so many updates, and at least after a multiple of their number.
OPEN_UPDATES: Final = 1 << 18
_UPDATES_PER_OPEN_ORDER: Final = 4


class HistoryStore:
    """The history of one cluster's orders in an LMDB environment."""

    def __init__(
        self,
        path: str | Path,
        *,
        map_bytes: int = FIRST_MAP_BYTES,
        index_updates: int = INDEX_UPDATES,
        open_updates: int = OPEN_UPDATES,
    ) -> None:
        """Write to a directory; nothing is touched before open()."""
        self.path = Path(path).expanduser()
        self.name = f"history {self.path}"
        self.history = OrderHistory()
        self._map_bytes = map_bytes
        self._index_updates = index_updates
        self._open_updates = open_updates
        self._lock = -1
        self._env: Any = None
        self._tables: dict[bytes, Any] = {}
        self._waiting: list[HistoryRows] = []
        self._state = HistoryState(FORMAT, None)
        self._cluster = ""

    @property
    def updates(self) -> int:
        """The number of updates stored durably."""
        return self._state.updates

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self.close()
        try:
            self._open(cluster)
        except BaseException:
            self.close()
            raise
        return self._state.checkpoint

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink. A state image says nothing of orders that are over, so there is no history to begin with."""
        raise SinkMismatch(
            f"{self.name}: order history begins with event 1, not after event {checkpoint.event_sequence:,}; run "
            "without --join, or without history"
        )

    def write(self, events: Rows) -> None:
        """See Sink."""
        if not len(events):
            return
        first = int(events["sequence"][0])
        if first > self.history.sequence + 1:
            raise SinkMismatch(
                f"{self.name}: expected event {self.history.sequence + 1} or one before it, found {first}"
            )
        events = events[self.history.sequence + 1 - first :]
        if not len(events):
            return
        self._waiting.append(self.history.take(events))
        for event in self.history.forbidden:
            status, kind = OrderStatus(event.status), EventKind(event.kind)
            log.error(
                "event %d: order %d is %s, and %s is not possible then; the event is left out of the history",
                event.event_sequence, event.order_id, status.label, kind.name,
            )  # fmt: skip
        self.history.forbidden.clear()

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink."""
        held = self._state.checkpoint
        if checkpoint.cluster != self._cluster:
            raise SinkMismatch(f"{self.name}: expected cluster {self._cluster!r}, found {checkpoint.cluster!r}")
        if held is not None and checkpoint.event_sequence <= held.event_sequence:
            return
        if checkpoint.event_sequence != self.history.sequence:
            raise SinkMismatch(
                f"{self.name}: expected a checkpoint at event {self.history.sequence}, found "
                f"{checkpoint.event_sequence}"
            )
        with as_lmdb_errors(self.name, "order history"):
            write_with_growth(self._env, lambda: self._written(checkpoint))
            self._map_bytes = self._env.info()["map_size"]
        self._waiting = []

    def close(self) -> None:
        """See Sink."""
        if self._env is not None:
            self._env.close()
        self._env, self._tables, self._waiting = None, {}, []
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    def _open(self, cluster: str) -> None:
        with as_sink_errors(self.path):
            make_directory(self.path)
            self._lock = lock(self.path / "history.lock", self.name)
        with as_lmdb_errors(self.name, "order history"):
            self._env = lmdb.open(str(self.path), map_size=self._map_bytes, max_dbs=len(TABLES))
            self._tables = {name: self._env.open_db(name, **OPTIONS.get(name, {})) for name in TABLES}
            with self._env.begin() as transaction:
                found = transaction.get(STATE, db=self._tables[b"meta"])
                self._state = HistoryState(FORMAT, None)
                if found is not None:
                    self._state = decode(bytes(found), HistoryState, FORMAT, self.name)
                self._cluster = cluster
                held = self._state.checkpoint
                if held is not None and held.cluster != cluster:
                    raise SinkMismatch(
                        f"{self.name}: expected data of cluster {cluster!r}, found cluster {held.cluster!r}; choose "
                        "another place"
                    )
                self.history = OrderHistory() if held is None else self._resume(transaction, held)
        with as_sink_errors(self.path):
            # LMDB syncs its file, but not the directory entry.
            sync_directory(self.path)

    def _resume(self, transaction: Any, held: Checkpoint) -> OrderHistory:
        """Return the projection at the checkpoint: the open orders that were written, and the updates since then."""
        try:
            saved = msgspec.msgpack.decode(transaction.get(OPEN, db=self._tables[b"meta"]) or b"", type=OpenOrders)
            tables = decode_tables(saved.schema, saved.tables, OPEN_TABLES)
        except (msgspec.MsgspecError, SchemaError) as error:
            raise SinkMismatch(f"{self.name}: the open orders cannot be read: {error}") from None
        with transaction.cursor(self._tables[b"definitions"]) as cursor:
            definitions = np.frombuffer(b"".join(cursor.iternext(keys=False)), DEFINITION_ROW)
        updates = self._updates_after(transaction, self._state.open_sequence)
        return OrderHistory.at(held, orders_after(tables["orders"], updates), definitions)

    def _updates_after(self, transaction: Any, sequence: int) -> Rows:
        with transaction.cursor(self._tables[b"updates"]) as cursor:
            return blocks_from(cursor, sequence + 1)

    def _written(self, checkpoint: Checkpoint) -> bool:
        """Write the waiting rows in one transaction; return False, with nothing changed, if the map is full."""
        updates = np.frombuffer(b"".join(rows.updates.tobytes() for rows in self._waiting), ORDER_UPDATE)
        state = msgspec.structs.replace(self._state, checkpoint=checkpoint)
        state.updates += len(updates)
        state.orders += int(np.count_nonzero(updates["is_first"]))
        state.fills += int(np.count_nonzero(updates["match_id"]))
        try:
            with self._env.begin(write=True) as transaction:
                if len(updates):
                    first = int(updates["event_sequence"][0])
                    self._put(transaction, b"updates", [(key(first), updates.tobytes())], append=True)
                for _, details, definitions in self._waiting:
                    if len(details):
                        first = int(details["update_sequence"][0])
                        self._put(transaction, b"details", [(key(first), details.tobytes())], append=True)
                    if len(definitions):
                        first = int(definitions["event_sequence"][0])
                        self._put(transaction, b"definitions", [(key(first), definitions.tobytes())], append=True)
                if state.updates - state.indexed_updates >= self._index_updates:
                    self._index(transaction, state.indexed)
                    state.indexed, state.indexed_updates = checkpoint.event_sequence, state.updates
                if self._is_open_due(state):
                    self._put_open(transaction)
                    state.open_sequence, state.open_updates = checkpoint.event_sequence, state.updates
                self._put(transaction, b"meta", [(STATE, msgspec.json.encode(state))])
        except lmdb.MapFullError:
            return False
        self._state = state
        return True

    def _is_open_due(self, state: HistoryState) -> bool:
        """Return whether to write the open orders."""
        since = state.updates - state.open_updates
        due = max(self._open_updates, _UPDATES_PER_OPEN_ORDER * self.history.open_orders)
        return since >= due or not state.open_sequence

    def _put_open(self, transaction: Any) -> None:
        data = msgspec.msgpack.encode(OpenOrders(*encode_tables({"orders": self.history.orders()})))
        self._put(transaction, b"meta", [(OPEN, data)])

    def _index(self, transaction: Any, indexed: int) -> None:
        """Add the updates after event `indexed` to the indexes."""
        updates = self._updates_after(transaction, indexed)
        sequences = updates["event_sequence"]
        order = np.lexsort((sequences, updates["order_id"]))
        items = zip(keys(updates["order_id"][order]), keys(sequences[order]), strict=True)
        self._put(transaction, b"orders", list(items))
        firsts = updates[updates["is_first"] == 1]
        self._put_by_account(transaction, b"placed", firsts)
        self._put_by_account(transaction, b"fills", updates[updates["match_id"] != 0])
        named = firsts[firsts["client_order_id"] != 0]
        clients = np.empty(len(named), CLIENT_KEY)
        clients["account"], clients["form"] = named["account"], named["client_order_id"]
        order = np.lexsort((named["event_sequence"], clients["form"], clients["account"]))
        names = clients[order].view(f"V{CLIENT_KEY.itemsize}").tolist()
        self._put(transaction, b"clients", list(zip(names, keys(named["event_sequence"][order]), strict=True)))

    def _put_by_account(self, transaction: Any, name: bytes, updates: Rows) -> None:
        """Add the event sequences of updates to an index by account, a piece for each account."""
        order = np.lexsort((updates["event_sequence"], updates["account"]))
        accounts, sequences = updates["account"][order], updates["event_sequence"][order]
        begins = np.flatnonzero(np.diff(accounts, prepend=-1))
        pieces = [
            (account_key(int(accounts[begin]), int(sequences[begin])), sequences[begin:end].astype(NUMBER).tobytes())
            for begin, end in zip(begins, [*begins[1:], len(accounts)], strict=True)
        ]
        self._put(transaction, name, pieces)

    def _put(self, transaction: Any, name: bytes, items: list[tuple[bytes, bytes]], append: bool = False) -> None:
        with transaction.cursor(self._tables[name]) as cursor:
            cursor.putmulti(items, append=append)
