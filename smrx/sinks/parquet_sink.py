"""Store settled rows as Parquet files, with a manifest that names the files and the checkpoint.

Owns the files of its directory that match its names, and a lock on it. commit() appends rows to the tail file of their
table; a tail with `rotate_trades` rows, or with rows of an earlier day, becomes a Parquet file named by the range of
its rows, so that the same file is written again after a crash. Then the manifest is replaced. open() removes files that
the manifest does not name. close() writes the tails as Parquet files, too.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.durable_files import as_sink_errors, replace, sync_directory, write_all
from smrx.sinks.parquet_layout import (
    FORMAT,
    MANIFEST,
    TABLES,
    Manifest,
    Part,
    to_arrow,
)
from smrx.sinks.parquet_reader import read_table, read_tail
from smrx.sinks.row_sink import RowSink
from smrx.sinks.rows import DAY_NS, Rows, Tables, join
from smrx.sinks.sink_errors import SinkMismatch

#: About 5 MB a file, and 10 MB of memory for a tail.
ROTATE_TRADES: Final = 100_000


class ParquetSink(RowSink):
    """One settlement as Parquet files in a directory."""

    def __init__(self, path: str | Path, *, rotate_trades: int = ROTATE_TRADES, daily: bool = False) -> None:
        """Write to a directory; nothing is touched before open()."""
        self.path = Path(path).expanduser()
        super().__init__(f"Parquet {self.path}")
        self._rotate_trades = rotate_trades
        self._daily = daily
        self._waiting: list[Tables] = []
        self._parts: list[Part] = []
        self._tails: list[list[Rows]] = []  #: rows of the tails, by table, in pieces that are not empty
        self._obsolete: list[str] = []
        self._consistent = False  #: parts and tails are those of the manifest

    def _open(self) -> tuple[Checkpoint | None, Rows]:
        self._lock_directory(self.path, self.path / "settlement.lock")
        with as_sink_errors(self.path):
            held = self._held()
            self._parts = [held.trades, held.movements, held.definitions]
            return held.checkpoint, np.concatenate(list(read_table(self.path, TABLES[2], held.definitions)))

    def _roll_back(self) -> None:
        with as_sink_errors(self.path):
            self._remove_unsettled()
            tails = [read_tail(self.path, *pair) for pair in zip(TABLES, self._parts, strict=True)]
        self._tails = [[tail] if len(tail) else [] for tail in tails]
        self._consistent = True

    def _append(self, tables: Tables) -> None:
        self._waiting.append(tables)

    def _commit(self, checkpoint: Checkpoint) -> None:
        self._consistent = False
        with as_sink_errors(self.path):
            for i, rows in enumerate(join(self._waiting)):
                if len(rows):
                    self._grow(i, rows)
            self._finish(checkpoint)
        self._waiting = []

    def _close(self) -> None:
        """See RowSink. Write the settled rows of the tails as files, if that is possible now."""
        try:
            if self._cursor is not None and self._consistent and any(self._tails):
                self._consistent = False
                for i, tail in enumerate(self._tails):
                    if tail:
                        self._make_file(i, np.concatenate(tail))
                        self._drop_tail(i)
                self._finish(self._cursor.held)
        except OSError:
            # The tails stay; the next open() reads them.
            self._consistent = False
        self._waiting, self._parts, self._tails, self._obsolete = [], [], [], []
        self._consistent = False

    def _held(self) -> Manifest:
        try:
            data = (self.path / MANIFEST).read_bytes()
        except FileNotFoundError:
            for name in self._ours():
                raise SinkMismatch(
                    f"{self.path / name}: exists without {MANIFEST}; move it away or choose another place"
                ) from None
            empty = Manifest(FORMAT, None, Part(), Part(), Part())
            replace(self.path / MANIFEST, _json(empty))
            return empty
        return decode(data, Manifest, FORMAT, str(self.path / MANIFEST))

    def _ours(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if any(table.owns(name) for table in TABLES))

    def _remove_unsettled(self) -> None:
        known = {name for part in self._parts for name in part.files}
        known |= {table.tail(part.tail) for table, part in zip(TABLES, self._parts, strict=True) if part.tail_bytes}
        for name in self._ours():
            if name not in known:
                os.unlink(self.path / name)

    def _grow(self, i: int, rows: Rows) -> None:
        """Append rows to a table: to its tail, and full tails or those of an earlier day to files."""
        tail = self._tails[i]
        tail.append(rows)
        another_day = self._daily and tail[0]["time_ns"][0] // DAY_NS != rows["time_ns"][-1] // DAY_NS
        if sum(map(len, tail)) < self._rotate_trades and not another_day:
            self._write_tail(i, rows)
            return
        rest = np.concatenate(tail)
        while end := self._end(rest):
            self._make_file(i, rest[:end])
            rest = rest[end:]
        self._drop_tail(i)
        self._write_tail(i, rest)
        self._tails[i] = [rest] if len(rest) else []

    def _end(self, rows: Rows) -> int:
        """Return how many of the rows make the next file; 0 if they do not fill one yet."""
        end = self._rotate_trades if len(rows) >= self._rotate_trades else 0
        if self._daily and len(rows):
            days = rows["time_ns"] // DAY_NS
            other = np.flatnonzero(days[: end or len(rows)] != days[0])
            end = int(other[0]) if len(other) else end
        return end

    def _make_file(self, i: int, rows: Rows) -> None:
        table = TABLES[i]
        sink = pa.BufferOutputStream()
        pq.write_table(to_arrow(table, rows, self._opened().catalogue), sink, compression="zstd")
        name = table.file(rows)
        replace(self.path / name, sink.getvalue())
        self._parts[i].files.append(name)

    def _drop_tail(self, i: int) -> None:
        """Start another tail; the rows of this one are in files."""
        part = self._parts[i]
        if part.tail_bytes:
            self._obsolete.append(TABLES[i].tail(part.tail))
        part.tail, part.tail_bytes = part.tail + 1, 0

    def _write_tail(self, i: int, rows: Rows) -> None:
        """Append rows to a table's tail, and make them durable."""
        part = self._parts[i]
        if not len(rows):
            return
        file = os.open(self.path / TABLES[i].tail(part.tail), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(file, part.tail_bytes)
            os.lseek(file, part.tail_bytes, os.SEEK_SET)
            write_all(file, rows.tobytes())
            os.fsync(file)
        finally:
            os.close(file)
        part.tail_bytes += rows.nbytes

    def _finish(self, checkpoint: Checkpoint | None) -> None:
        """Replace the manifest, then remove the files it no longer names."""
        sync_directory(self.path)
        replace(self.path / MANIFEST, _json(Manifest(FORMAT, checkpoint, *self._parts)))
        while self._obsolete:
            os.unlink(self.path / self._obsolete.pop())
        self._consistent = True


def _json(content: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
