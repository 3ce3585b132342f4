"""Lookups in the LMDB of a settlement: a trade by match id, the trades of an order or an account, and everything.

One snapshot: what was committed when it was opened, whatever is written meanwhile. Called by the reports and by whoever
wants to look up a trade. Order of results: by match id.
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
    FORMAT,
    NUMBER,
    OPTIONS,
    STATE,
    TABLES,
    LmdbState,
    account_key,
    key,
)
from smrx.sinks.rows import DEFINITION_ROW, MOVEMENT_ROW, TRADE_ROW, Rows, of_account
from smrx.sinks.sink_errors import SinkError

#: The size that the environment has by itself.
_MAP_BYTES: Final = 0


class LmdbReader:
    """A snapshot of a settlement's LMDB. Use as a context manager, or close() it: it keeps old pages in use."""

    def __init__(self, path: str | Path) -> None:
        """Open what an LmdbSink wrote. Raises SinkError if it is not there, SinkMismatch if it is not understood."""
        place = Path(path).expanduser()
        self.name = f"LMDB {place}"
        try:
            self._env = lmdb.open(
                str(place), map_size=_MAP_BYTES, max_dbs=len(TABLES), readonly=True, create=False, max_readers=126
            )
            try:
                # Without `create`, a table that is not there is an error.
                self._tables = {name: self._open(name) for name in TABLES}
                self._transaction = self._env.begin()
                found = self._transaction.get(STATE, db=self._tables[b"meta"])
                state = LmdbState(FORMAT, None) if found is None else decode(bytes(found), LmdbState, FORMAT, self.name)
            except BaseException:
                self._env.close()
                raise
        except lmdb.Error as error:
            raise SinkError(f"{place}: expected the LMDB environment of a settlement, found: {error}") from None
        self.checkpoint: Checkpoint | None = state.checkpoint
        self._indexed = state.indexed

    def __enter__(self) -> "LmdbReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the snapshot."""
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
        """One trade; None if there is none of that id."""
        if not 1 <= match_id < 1 << 64:
            return None
        found = self._fetch(np.array([match_id], np.uint64))
        return found[0] if len(found) else None

    def trades_of_order(self, order_id: int) -> Rows:
        """The trades of an order, as taker or as maker."""
        with self._transaction.cursor(self._tables[b"orders"]) as cursor:
            found = b"".join(cursor.iternext_dup()) if cursor.set_key(key(order_id)) else b""
        rest = self._rest()
        rest = rest[(rest["taker_order_id"] == order_id) | (rest["maker_order_id"] == order_id)]
        return np.concatenate([self._fetch(np.frombuffer(found, NUMBER)), rest])

    def trades_of_account(self, account: int) -> Iterator[Rows]:
        """The trades of an account, as taker or as maker, in batches."""
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
        """Yield the blocks of a table from the one with the key `first` on."""
        with self._transaction.cursor(self._tables[name]) as cursor:
            if cursor.set_range(key(first)):
                for value in cursor.iternext(keys=False):
                    yield np.frombuffer(value, dtype)

    def _rest(self) -> Rows:
        """The trades that the indexes do not know yet."""
        return np.concatenate([np.empty(0, TRADE_ROW), *self._blocks(b"trades", TRADE_ROW, self._indexed + 1)])

    def _fetch(self, match_ids: NDArray[Any]) -> Rows:
        """The trades of ascending match ids; those that do not exist are left out."""
        wanted = match_ids.astype(np.uint64)
        found: list[Rows] = [np.empty(0, TRADE_ROW)]
        with self._transaction.cursor(self._tables[b"trades"]) as cursor:
            while len(wanted):
                # The block that holds the first one: the last that begins at or before it.
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
