"""Settled CSV files read back as rows: only what the checkpoint says is settled. Called by the sink and the reports."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from smrx.engine.codes import EventKind
from smrx.settlement.errors import SinkError, SinkMismatch
from smrx.settlement.sinks.base import Checkpoint, decode
from smrx.settlement.sinks.csv_layout import (
    DEFINITION_COLUMNS,
    FORMAT,
    KINDS,
    KINDS_FROM,
    MOVEMENT_COLUMNS,
    SIDES,
    TRADE_COLUMNS,
    CsvCheckpoint,
    Stream,
    layout,
)
from smrx.settlement.sinks.rows import DEFINITION_ROW, MOVEMENT_ROW, TRADE_ROW, Rows

#: How much of a file is read in one go.
_PIECE_BYTES: Final = 1 << 24

_Value = Callable[[str], Any]


def _symbol(text: str) -> int:
    """The u64 of a symbol, even of one with characters that no symbol should have."""
    return int.from_bytes(text.encode("ascii", "replace")[:8].ljust(8, b"\0"), "little")


#: Column of the text -> (column of the row, how to read a cell); the others are integers under the same name.
_TRADES: Final[dict[str, tuple[str, _Value] | None]] = {
    "instrument": None,
    "instrument_id": ("instrument", int),
    "taker_side": ("taker_side", SIDES.index),
}
_MOVEMENTS: Final[dict[str, tuple[str, _Value] | None]] = {
    "asset": None,
    "asset_id": ("asset", int),
    "kind": ("kind", lambda text: KINDS.index(text) + KINDS_FROM),
}
_DEFINITIONS: Final[dict[str, tuple[str, _Value] | None]] = {
    "kind": ("kind", lambda text: int(EventKind[text])),
    "symbol": ("symbol", _symbol),
}


class CsvReader:
    """What a settlement's CSV files hold, up to the checkpoint at the time of opening."""

    def __init__(self, path: str | Path) -> None:
        """Read the checkpoint. Raises SinkError if there is none, SinkMismatch if it is not understood."""
        self.layout = layout(path)
        try:
            data = self.layout.checkpoint.read_bytes()
        except OSError as error:
            raise SinkError(
                f"{self.layout.checkpoint}: expected the checkpoint of settled CSV files, found: {error.strerror}"
            ) from None
        self._content = decode(data, CsvCheckpoint, FORMAT, str(self.layout.checkpoint))

    @property
    def checkpoint(self) -> Checkpoint | None:
        """How far it is settled."""
        return self._content.checkpoint

    def definitions(self) -> Rows:
        """Every definition."""
        return read_definitions(self.layout.directory, self._content.definitions)

    def movements(self) -> Iterator[Rows]:
        """Every movement of money, in order, in batches."""
        return _rows(self.layout.directory, self._content.movements, MOVEMENT_COLUMNS, MOVEMENT_ROW, _MOVEMENTS)

    def trades(self) -> Iterator[Rows]:
        """Every trade, in order, in batches."""
        return _rows(self.layout.directory, self._content.trades, TRADE_COLUMNS, TRADE_ROW, _TRADES)

    def close(self) -> None:
        """Nothing is held open."""


def read_definitions(directory: Path, stream: Stream) -> Rows:
    """Return the settled definitions. Raises SinkMismatch for a file that is none of ours or too short."""
    batches = list(_rows(directory, stream, DEFINITION_COLUMNS, DEFINITION_ROW, _DEFINITIONS))
    return np.concatenate([np.empty(0, DEFINITION_ROW), *batches])


def _rows(
    directory: Path,
    stream: Stream,
    columns: tuple[str, ...],
    dtype: np.dtype[Any],
    special: dict[str, tuple[str, _Value] | None],
) -> Iterator[Rows]:
    """Yield the rows of a table's files, in batches."""
    for name in [*stream.complete, stream.file]:
        if name is None:
            continue
        first = True
        for text in _pieces(directory / name, stream.bytes if name == stream.file else None):
            cells = list(zip(*csv.reader(io.StringIO(text, newline="")), strict=True))
            if not cells or len(cells) != len(columns):
                raise SinkMismatch(f"{directory / name}: expected {len(columns)} columns, found {len(cells)}")
            if first and tuple(column[0] for column in cells) != columns:
                raise SinkMismatch(f"{directory / name}: expected the columns {','.join(columns)}, found others")
            rows = np.zeros(len(cells[0]) - first, dtype)
            for column, values in zip(columns, cells, strict=True):
                target = special.get(column, (column, _number))
                if target is not None:
                    field, read = target
                    rows[field] = [read(value) for value in values[first:]]
            first = False
            yield rows


def _number(text: str) -> int:
    return int(text) if text else 0


def _pieces(path: Path, size: int | None) -> Iterator[str]:
    """Yield the text of a file, or of its first `size` bytes, in pieces of whole lines; no cell has a line end."""
    try:
        with path.open("rb") as file:
            left = path.stat().st_size if size is None else size
            rest = b""
            while left:
                data = file.read(min(left, _PIECE_BYTES))
                if not data:
                    raise SinkMismatch(f"{path}: expected {left} bytes more, which the checkpoint says are settled")
                left -= len(data)
                whole, _, rest = (rest + data).rpartition(b"\n") if left else (rest + data, b"", b"")
                if whole:
                    yield whole.decode("utf-8")
    except FileNotFoundError:
        raise SinkMismatch(f"{path}: expected settled rows, found no such file") from None
    except UnicodeDecodeError:
        raise SinkMismatch(f"{path}: expected UTF-8 text, found other bytes") from None
