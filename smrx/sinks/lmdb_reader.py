"""Look up trades in the LMDB environment of a settlement: by match id, by order, by account, or all of them.

Reads one consistent view: what was committed when it was opened, whatever is written meanwhile. Results are in the
order of match ids. Called by the reports.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb
import numpy as np
from numpy.typing import NDArray

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.lmdb_layout import (
    DATA_FILE,
    FORMAT,
    NUMBER,
    OPTIONS,
    STATE,
    TABLES,
    LmdbState,
    account_key,
    key,
    missing_bytes,
    read_marker,
)
from smrx.sinks.rows import DEFINITION_ROW, MOVEMENT_ROW, TRADE_ROW, Rows, of_account
from smrx.sinks.sink_errors import SinkError

#: Take the size that the environment has.
_MAP_BYTES: Final = 0


class LmdbReader:
    """A consistent view of a settlement's LMDB. A context manager, or call close(): it keeps old pages in use."""

    def __init__(self, path: str | Path) -> None:
        """Open what an LmdbSink wrote. Raises SinkError if it is not there, SinkMismatch if it is not understood."""
        place = Path(path).expanduser()
        self.name = f"LMDB {place}"
        try:
            self._env = lmdb.open(
                str(place), map_size=_MAP_BYTES, max_dbs=len(TABLES), readonly=True, create=False, max_readers=126
            )
            try:
                marker = read_marker(place)
                if marker is not None and marker.is_whole and missing_bytes(self._env, place):
                    missing = missing_bytes(self._env, place)
                    raise SinkError(f"{place / DATA_FILE}: is truncated: {missing:,} bytes are missing")
                # Without `create`, a missing table is an error.
                self._tables = {name: self._open(name) for name in TABLES}
                self._transaction = self._env.begin()
                found = self._transaction.get(STATE, db=self._tables[b"meta"])
                if found is None:
                    raise SinkError(f"{place}: is not the LMDB environment of a settlement: it is empty")
                state = decode(bytes(found), LmdbState, FORMAT, self.name)
            except BaseException:
                self._env.close()
                raise
        except lmdb.Error as error:
            raise SinkError(f"{place}: is not the LMDB environment of a settlement: {error}") from None
        self.checkpoint: Checkpoint | None = state.checkpoint
        self._indexed = state.indexed

    def __enter__(self) -> "LmdbReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the view."""
        self._transaction.abort()
        self._env.close()

    def definitions(self) -> Rows:
        """Every definition, in order."""
        return np.concatenate([np.empty(0, DEFINITION_ROW), *self._blocks(b"definitions", DEFINITION_ROW)])

    def movements(self) -> Iterator[Rows]:
        """Every movement of money, in order, in batches."""
        return self._blocks(b"movements", MOVEMENT_ROW)

    def trades(self, account: int | None = None) -> Iterator[Rows]:
        """Every trade, or those of an account as taker or maker, in order, in batches."""
        return self._blocks(b"trades", TRADE_ROW) if account is None else self.trades_of_account(account)

    def trade(self, match_id: int) -> np.void | None:
        """Return one trade; None if there is none of that id."""
        if not 1 <= match_id < 1 << 64:
            return None
        found = self._fetch(np.array([match_id], np.uint64))
        return found[0] if len(found) else None

    def trades_of_order(self, order_id: int) -> Rows:
        """Return the trades of an order, as taker or maker."""
        with self._transaction.cursor(self._tables[b"orders"]) as cursor:
            found = b"".join(cursor.iternext_dup()) if cursor.set_key(key(order_id)) else b""
        rest = self._rest()
        rest = rest[(rest["taker_order_id"] == order_id) | (rest["maker_order_id"] == order_id)]
        return np.concatenate([self._fetch(np.frombuffer(found, NUMBER)), rest])

    def trades_of_account(self, account: int) -> Iterator[Rows]:
        """Yield the trades of an account, as taker or maker, in batches."""
        with self._transaction.cursor(self._tables[b"accounts"]) as cursor:
            last = account_key(account, (1 << 64) - 1)
            if cursor.set_range(account_key(account, 0)):
                for piece, value in cursor:
                    if piece > last:
                        break
                    yield self._fetch(np.frombuffer(value, NUMBER))
        yield of_account(self._rest(), account)

    def _open(self, name: bytes) -> Any:
        return self._env.open_db(name, create=False, **OPTIONS.get(name, {}))

    def _blocks(self, name: bytes, dtype: np.dtype[Any], first: int = 0) -> Iterator[Rows]:
        """Yield the blocks of a table, from the key `first` on."""
        with self._transaction.cursor(self._tables[name]) as cursor:
            if cursor.set_range(key(first)):
                for value in cursor.iternext(keys=False):
                    yield np.frombuffer(value, dtype)

    def _rest(self) -> Rows:
        """Return the trades that are not in the indexes yet."""
        return np.concatenate([np.empty(0, TRADE_ROW), *self._blocks(b"trades", TRADE_ROW, self._indexed + 1)])

    def _fetch(self, match_ids: NDArray[Any]) -> Rows:
        """Return the trades of ascending match ids; those that do not exist are omitted."""
        wanted = match_ids.astype(np.uint64)
        found: list[Rows] = [np.empty(0, TRADE_ROW)]
        with self._transaction.cursor(self._tables[b"trades"]) as cursor:
            while len(wanted):
                # The block that holds the first one: the last that starts at or before it.
                at = key(int(wanted[0]))
                if (not cursor.set_range(at) or cursor.key() != at) and not cursor.prev():
                    break
                block = np.frombuffer(cursor.value(), TRADE_ROW)
                here = int(np.searchsorted(wanted, block["match_id"][-1], side="right"))
                if not here:
                    break
                found.append(block[(wanted[:here] - block["match_id"][0]).astype(np.intp)])
                wanted = wanted[here:]
        return np.concatenate(found)
