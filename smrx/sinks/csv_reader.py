"""Read settled CSV files back as rows, as far as the checkpoint. Called by the sink and the reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.csv_layout import (
    FORMAT,
    CsvCheckpoint,
    Stream,
    header,
    header_problem,
    layout,
    name_of,
)
from smrx.sinks.csv_rows import DEFINITIONS, MOVEMENTS, TRADES, Table
from smrx.sinks.rows import DEFINITION_ROW, Rows, of_account
from smrx.sinks.sink_errors import SinkError, SinkMismatch

#: How much of a file is read in one go.
_PIECE_BYTES: Final = 1 << 24
#: As much of a file as its header can be, and more.
_HEADER_CHARACTERS: Final = 4096


class CsvReader:
    """The CSV files of a settlement, up to the checkpoint at the time of opening."""

    def __init__(self, path: str | Path) -> None:
        """Read the checkpoint. Raises SinkError if there is none, SinkMismatch if it is not understood."""
        self.layout = layout(path)
        self.name = name_of(self.layout)
        try:
            data = self.layout.checkpoint.read_bytes()
        except OSError as error:
            raise SinkError(
                f"{self.layout.checkpoint}: cannot read the checkpoint of settled CSV files: {error.strerror}"
            ) from None
        self._content = decode(data, CsvCheckpoint, FORMAT, str(self.layout.checkpoint))
        self.checkpoint: Checkpoint | None = self._content.checkpoint

    def definitions(self) -> Rows:
        """Every definition, in order."""
        return read_definitions(self.layout.directory, self._content.definitions)

    def movements(self) -> Iterator[Rows]:
        """Every movement of money, in order, in batches."""
        return _rows(self.layout.directory, self._content.movements, MOVEMENTS)

    def trades(self, account: int | None = None) -> Iterator[Rows]:
        """Every trade, or those of an account as taker or maker, in order, in batches."""
        for rows in _rows(self.layout.directory, self._content.trades, TRADES):
            yield rows if account is None else of_account(rows, account)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def read_definitions(directory: Path, stream: Stream) -> Rows:
    """Return the settled definitions. Raises SinkMismatch for a file with other content, or too short."""
    return np.concatenate([np.empty(0, DEFINITION_ROW), *_rows(directory, stream, DEFINITIONS)])


def _rows(directory: Path, stream: Stream, table: Table) -> Iterator[Rows]:
    """Yield the rows of a table's files, in batches."""
    first_line = header(table.columns).decode()
    for name in stream.complete if stream.file is None else [*stream.complete, stream.file]:
        pieces = _pieces(directory / name, stream.bytes if name == stream.file else None)
        first = next(pieces, "")
        problem = header_problem(first[:_HEADER_CHARACTERS].encode(), table.columns)
        if problem is not None:
            raise SinkMismatch(f"{directory / name}: {problem}")
        yield table.parse(first[len(first_line) :], str(directory / name))
        for piece in pieces:
            yield table.parse(piece, str(directory / name))


def _pieces(path: Path, size: int | None) -> Iterator[str]:
    """Yield the text of a file, or of its first `size` bytes, in pieces of whole lines; no cell has a line break."""
    try:
        with path.open("rb") as file:
            left = path.stat().st_size if size is None else size
            rest = b""
            while left:
                data = file.read(min(left, _PIECE_BYTES))
                if not data:
                    raise SinkMismatch(f"{path}: {left} bytes that the checkpoint names as settled are missing")
                left -= len(data)
                whole, _, rest = (rest + data).rpartition(b"\n") if left else (rest + data, b"", b"")
                if whole:
                    yield whole.decode("utf-8")
    except FileNotFoundError:
        raise SinkMismatch(f"{path}: the file with settled rows is missing") from None
    except OSError as error:
        raise SinkError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SinkMismatch(f"{path}: is not UTF-8 text: byte 0x{error.object[error.start]:02x}") from None
