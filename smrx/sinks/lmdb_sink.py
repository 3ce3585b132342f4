"""Store settled rows in LMDB, an embedded store with lookups: rows, indexes and checkpoint in one transaction.

Owns the environment in its directory, and a lock on it. Rows are kept in memory until commit(). When the map is full,
its size is doubled and the transaction repeated. Readers (lmdb_reader.py) see whole commits only.
"""

import os
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec
import numpy as np

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.durable_files import as_sink_errors, replace, sync_directory
from smrx.sinks.lmdb_layout import (
    DATA_FILE,
    FORMAT,
    MARKER,
    NUMBER,
    OPTIONS,
    STATE,
    TABLES,
    LmdbMarker,
    LmdbState,
    account_key,
    as_lmdb_errors,
    key,
    keys,
    missing_bytes,
    read_marker,
    write_with_growth,
)
from smrx.sinks.row_sink import RowSink
from smrx.sinks.rows import DEFINITION_ROW, TRADE_ROW, Rows, Tables, join
from smrx.sinks.sink_errors import SinkMismatch

#: Address space, not disk: the file grows with its content.
FIRST_MAP_BYTES: Final = 1 << 30
#: Trades added to the indexes at a time. Measured: an eighth of the cost of a thousand at a time, and a scan of the
#: rest still takes less than 10 ms.
INDEX_TRADES: Final = 32_768


class LmdbSink(RowSink):
    """One settlement in an LMDB environment."""

    def __init__(self, path: str | Path, *, map_bytes: int = FIRST_MAP_BYTES, index_trades: int = INDEX_TRADES) -> None:
        """Write to a directory; nothing is touched before open()."""
        self.path = Path(path).expanduser()
        super().__init__(f"LMDB {self.path}")
        self._map_bytes = map_bytes
        self._index_trades = index_trades
        self._env: Any = None
        self._tables: dict[bytes, Any] = {}
        self._waiting: list[Tables] = []
        self._state = LmdbState(FORMAT, None)

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""
        super().begin(checkpoint, rows)
        self._state = LmdbState(FORMAT, None, checkpoint.match_id)

    def _open(self) -> tuple[Checkpoint | None, Rows]:
        self._lock_directory(self.path, self.path / "settlement.lock")
        marker = read_marker(self.path)
        is_marked = marker is not None
        if is_marked:
            self._check_data()
        with as_lmdb_errors(self.name, "settled trades"):
            self._env = lmdb.open(str(self.path), map_size=self._map_bytes, max_dbs=len(TABLES))
            # Before any page is read: reading one beyond the end of the file ends the process.
            if marker is not None and marker.is_whole and missing_bytes(self._env, self.path):
                raise self._lost(f"is truncated: {missing_bytes(self._env, self.path):,} bytes are missing")
            self._extend()
            for name in TABLES:
                self._tables[name] = self._env.open_db(name, **OPTIONS.get(name, {}))
            with self._env.begin() as transaction:
                found = transaction.get(STATE, db=self._tables[b"meta"])
                stored = [bytes(value) for _, value in transaction.cursor(self._tables[b"definitions"])]
            if found is None:
                if is_marked:
                    raise self._lost("is empty")
                found = msgspec.json.encode(LmdbState(FORMAT, None))
                with self._env.begin(write=True) as transaction:
                    self._put(transaction, b"meta", [(STATE, found)])
        self._state = decode(found, LmdbState, FORMAT, self.name)
        with as_sink_errors(self.path):
            # LMDB syncs its file, but not the directory entry.
            sync_directory(self.path)
            if marker is None or not marker.is_whole:
                replace(self.path / MARKER, msgspec.json.encode(LmdbMarker(FORMAT, is_whole=True)))
        return self._state.checkpoint, np.frombuffer(b"".join(stored), DEFINITION_ROW)

    def _check_data(self) -> None:
        """Check that the file of the environment is there, because LMDB would create it."""
        try:
            size = (self.path / DATA_FILE).stat().st_size
        except FileNotFoundError:
            raise self._lost("is missing") from None
        if not size:
            raise self._lost("is empty")

    def _lost(self, what: str) -> SinkMismatch:
        return SinkMismatch(
            f"{self.path / DATA_FILE}: {what}, and {MARKER} says that settled rows are kept here; restore it from a "
            "copy, or move the directory away and settle again"
        )

    def _roll_back(self) -> None:
        """See RowSink; LMDB drops a transaction that was not committed."""

    def _append(self, tables: Tables) -> None:
        self._waiting.append(tables)

    def _commit(self, checkpoint: Checkpoint) -> None:
        with as_lmdb_errors(self.name, "settled trades"):
            write_with_growth(self._env, lambda: self._written(checkpoint))
            self._map_bytes = self._env.info()["map_size"]
        self._waiting = []

    def _close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env, self._tables, self._waiting = None, {}, []

    def _written(self, checkpoint: Checkpoint) -> bool:
        """Write the waiting rows in one transaction; return False, with nothing changed, if the map is full."""
        try:
            with self._env.begin(write=True) as transaction:
                for name, rows in zip((b"trades", b"movements", b"definitions"), join(self._waiting), strict=True):
                    if len(rows):
                        first = int(rows[0]["match_id" if name == b"trades" else "event_sequence"])
                        self._put(transaction, name, [(key(first), rows.tobytes())], append=True)
                state = LmdbState(FORMAT, checkpoint, self._state.indexed)
                if checkpoint.match_id - state.indexed >= self._index_trades:
                    self._index(transaction, state.indexed)
                    state.indexed = checkpoint.match_id
                self._put(transaction, b"meta", [(STATE, msgspec.json.encode(state))])
        except lmdb.MapFullError:
            return False
        self._extend()
        self._state = state
        return True

    def _extend(self) -> None:
        """Make the file as long as its pages; it nearly always is."""
        missing = missing_bytes(self._env, self.path)
        if missing:
            data = self.path / DATA_FILE
            with as_sink_errors(data):
                os.truncate(data, data.stat().st_size + missing)

    def _put(self, transaction: Any, name: bytes, items: list[tuple[bytes, bytes]], append: bool = False) -> None:
        with transaction.cursor(self._tables[name]) as cursor:
            cursor.putmulti(items, append=append)

    def _index(self, transaction: Any, indexed: int) -> None:
        """Add the trades after `indexed` to the indexes."""
        with transaction.cursor(self._tables[b"trades"]) as cursor:
            cursor.set_range(key(indexed + 1))
            blocks = [np.frombuffer(value, TRADE_ROW) for value in cursor.iternext(keys=False)]
        trades = np.concatenate(blocks)
        match_ids = np.concatenate([trades["match_id"]] * 2)
        orders = np.concatenate([trades["taker_order_id"], trades["maker_order_id"]])
        order = np.lexsort((match_ids, orders))
        self._put(transaction, b"orders", list(zip(keys(orders[order]), keys(match_ids[order]), strict=True)))
        accounts = np.concatenate([trades["taker_account"], trades["maker_account"]])
        order = np.lexsort((match_ids, accounts))
        accounts, match_ids = accounts[order], match_ids[order]
        begins = np.flatnonzero(np.diff(accounts, prepend=-1))
        pieces = []
        for begin, end in zip(begins, [*begins[1:], len(accounts)], strict=True):
            # An account that traded with itself is listed twice.
            own = np.unique(match_ids[begin:end])
            pieces.append((account_key(int(accounts[begin]), int(own[0])), own.astype(NUMBER).tobytes()))
        self._put(transaction, b"accounts", pieces)
