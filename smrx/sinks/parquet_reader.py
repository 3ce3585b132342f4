"""Read settled Parquet files and tails back as rows, as the manifest names them. Called by the sink and the reports."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.parquet_layout import (
    FORMAT,
    MANIFEST,
    TABLES,
    Manifest,
    Part,
    Table,
    from_arrow,
)
from smrx.sinks.rows import Rows, of_account
from smrx.sinks.sink_errors import SinkError, SinkMismatch


class ParquetReader:
    """The Parquet directory of a settlement, as the manifest described it at the time of opening."""

    def __init__(self, path: str | Path) -> None:
        """Read the manifest. Raises SinkError if there is none, SinkMismatch if it is not understood."""
        self._path = Path(path).expanduser()
        self.name = f"Parquet {self._path}"
        manifest = self._path / MANIFEST
        try:
            data = manifest.read_bytes()
        except OSError as error:
            raise SinkError(f"{manifest}: cannot read the manifest of a settlement: {error.strerror}") from None
        self._content = decode(data, Manifest, FORMAT, str(manifest))
        self.checkpoint: Checkpoint | None = self._content.checkpoint

    def definitions(self) -> Rows:
        """Every definition, in order."""
        return np.concatenate(list(read_table(self._path, TABLES[2], self._content.definitions)))

    def movements(self) -> Iterator[Rows]:
        """Every movement of money, in order, in batches."""
        return read_table(self._path, TABLES[1], self._content.movements)

    def trades(self, account: int | None = None) -> Iterator[Rows]:
        """Every trade, or those of an account as taker or maker, in order, in batches."""
        for rows in read_table(self._path, TABLES[0], self._content.trades):
            yield rows if account is None else of_account(rows, account)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def read_table(directory: Path, table: Table, part: Part) -> Iterator[Rows]:
    """Yield the settled rows of a table, in batches. Raises SinkMismatch for a missing file or other content."""
    for name in part.files:
        try:
            found = pq.read_table(directory / name)
        except (OSError, pa.ArrowException) as error:
            raise SinkMismatch(f"{directory / name}: cannot read settled rows: {error}") from None
        yield from_arrow(table, found)
    yield read_tail(directory, table, part)


def read_tail(directory: Path, table: Table, part: Part) -> Rows:
    """Return the settled rows of a table that are in no Parquet file yet."""
    if not part.tail_bytes:
        return np.empty(0, table.dtype)
    path = directory / table.tail(part.tail)
    try:
        with path.open("rb") as file:
            data = file.read(part.tail_bytes)
    except FileNotFoundError:
        data = b""
    if len(data) < part.tail_bytes:
        raise SinkMismatch(f"{path}: expected {part.tail_bytes} settled bytes, found {len(data)}")
    return np.frombuffer(data, table.dtype)
