"""Settled trades as a CSV file (RFC 4180) that only ever grows, each trade in it once.

Owns the file and a lock on it. On a file that exists it starts by comparing: the trades it is given are looked up in
the file, row by row, and only what comes after the last row is appended. A last row without its line end was torn by a
crash and is cut off. A file that says something else than the trades is never changed. Called by the runner.
"""

import csv
import fcntl
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from smrx.settlement.errors import SinkContradiction, SinkError
from smrx.settlement.ledger import SettledTrade

FILE_NAME: Final = "settled_trades.csv"
COLUMNS: Final = SettledTrade._fields

#: How much of a file is looked at in one go.
_PIECE_BYTES: Final = 1 << 16
_EVENT_SEQUENCE: Final = COLUMNS.index("event_sequence")


def csv_path(out: str | Path) -> Path:
    """Return the file that `out` names: itself if it ends in .csv, else settled_trades.csv in that directory."""
    path = Path(out).expanduser()
    return path if path.suffix.lower() == ".csv" and not path.is_dir() else path / FILE_NAME


class CsvSink:
    """One file of settled trades. Use as a context manager, or close() it."""

    def __init__(self, path: str | Path) -> None:
        """Open or begin the file, its directory included.

        Raises SinkError if that cannot be done or another process has it open, SinkContradiction if it is a file of
        something else.
        """
        self.path = Path(path)
        self.confirmed = 0  #: trades found in the file as they were given
        self.written = 0  #: trades appended
        self.torn_bytes = 0  #: bytes of a torn last row that were cut off
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a write that failed must not be tried again by close().
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise SinkError(f"{self.path}: expected a file that can be written, found: {error.strerror}") from None
        try:
            self._lock()
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "CsvSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, trades: Sequence[SettledTrade]) -> None:
        """Take in the trades that follow the last ones: compare what the file has, append at once what it has not.

        Raises SinkContradiction, with nothing written, when the file has other trades; SinkError when writing fails.
        """
        if not trades:
            return
        rows = _rows(trades)
        known = min(len(rows), self._end - self._position)
        if known:
            self._compare(rows[:known], trades)
            self._position += known
            if known == len(rows):
                self.confirmed += len(trades)
                return
            already = rows[:known].count(b"\n")
            self.confirmed += already
            self.written -= already
        self._append(rows[known:])
        self.written += len(trades)

    @property
    def unconfirmed(self) -> int:
        """Trades of the file that were not given yet."""
        rows = 0
        for start in range(self._position, self._end, _PIECE_BYTES):
            rows += self._read(start, min(_PIECE_BYTES, self._end - start)).count(b"\n")
        return rows

    def check_rest(self, sequence: int) -> None:
        """Check that the file holds no other trade up to event `sequence`, up to which all trades have been given.

        Raises SinkContradiction if it does.
        """
        rest = self._read(self._position, min(_PIECE_BYTES, self._end - self._position))
        if not rest:
            return
        row = rest.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
        fields = row.split(",")
        if len(fields) != len(COLUMNS) or not fields[_EVENT_SEQUENCE].isdecimal():
            raise SinkContradiction(f"{self.path}: expected a settled trade, found {row!r}")
        if int(fields[_EVENT_SEQUENCE]) <= sequence:
            raise SinkContradiction(f"{self.path}: holds a trade that the feed does not have: {row!r}")

    def close(self) -> None:
        """Make what was written durable and let go of the file."""
        if not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise SinkError(f"{self.path}: cannot write: {error.strerror}") from None
            finally:
                self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SinkError(f"{self.path}: another process settles into this file; choose another one") from None

    def _begin(self) -> None:
        header = _line(COLUMNS)
        size = self._file.seek(0, os.SEEK_END)
        if size < len(header):
            if self._read(0, size) != header[:size]:
                raise SinkContradiction(f"{self.path}: expected a file of settled trades, found another one")
            self._cut(0, size)
            self._append(header)
            self._position = self._end = len(header)
            return
        found = self._read(0, len(header))
        if found != header:
            raise SinkContradiction(
                f"{self.path}: expected the columns {','.join(COLUMNS)}, found "
                f"{found.decode('utf-8', 'replace').splitlines()[0]!r}"
            )
        self._position = len(header)
        self._end = self._whole_rows(size)
        self._cut(self._end, size)

    def _whole_rows(self, size: int) -> int:
        """Where the last whole row ends."""
        end = size
        while end > 0:
            start = max(0, end - _PIECE_BYTES)
            at = self._read(start, end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def _cut(self, end: int, size: int) -> None:
        if size > end:
            self.torn_bytes = size - end
            self._file.truncate(end)

    def _compare(self, rows: bytes, trades: Sequence[SettledTrade]) -> None:
        found = self._read(self._position, len(rows))
        if found == rows:
            return
        pairs = zip(rows.split(b"\r\n"), found.split(b"\r\n"), strict=False)
        at, (expected, actual) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise SinkContradiction(
            f"{self.path}: trade {trades[at].match_id}: the feed says {expected.decode()!r}, the file "
            f"{actual.decode('utf-8', 'replace')!r}; move the file away if it belongs to another exchange"
        )

    def _read(self, start: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, start)

    def _append(self, rows: bytes) -> None:
        try:
            while rows:
                rows = rows[os.write(self._file.fileno(), rows) :]
        except OSError as error:
            raise SinkError(f"{self.path}: cannot write: {error.strerror}") from None


def _rows(trades: Sequence[SettledTrade]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(trades)
    return text.getvalue().encode()


def _line(fields: Sequence[str]) -> bytes:
    return (",".join(fields) + "\r\n").encode()
