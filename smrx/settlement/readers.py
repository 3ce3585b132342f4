"""Read back what the sinks hold: one reader for each kind, all with the same methods. Readers change nothing.

Called by the reports, and by the commands that verify what is stored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from smrx.config import Config, SinkConfig
from smrx.sinks import needs, place
from smrx.sinks.contract import Checkpoint
from smrx.sinks.csv_layout import layout
from smrx.sinks.rows import Rows
from smrx.sinks.sink_errors import SinkError

#: Of several sinks the one that answers fastest.
_PREFERENCE: Final = ("lmdb", "postgresql", "parquet", "csv")


class Reader(Protocol):
    """The rows of one sink up to its checkpoint: one consistent state, whatever is settled meanwhile.

    The record types are in sinks/rows.py. Every method may raise SinkMismatch for rows that are missing or changed.
    """

    checkpoint: Checkpoint | None
    name: str  #: kind and place, for messages

    def definitions(self) -> Rows:
        """Every definition, in the order of the events."""

    def movements(self) -> Iterator[Rows]:
        """Every deposit and withdrawal, in order, in batches."""

    def trades(self, account: int | None = None) -> Iterator[Rows]:
        """Every trade, or those of an account as taker or maker, in order, in batches."""

    def close(self) -> None:
        """Close everything that is open."""


def open_readers(config: Config) -> list[tuple[str, Reader]]:
    """Open a reader for every sink of the configuration, with its name. Raises SinkMismatch, SinkError."""
    directory = Path(config.settlement.directory).expanduser()
    readers = [open_reader(sink, directory) for sink in config.settlement.sinks]
    return [(reader.name, reader) for reader in readers]


def open_best(config: Config, kind: str | None = None) -> Reader:
    """Open the configured sink of a kind, or the one that answers fastest.

    Raises SinkError if there is none of that kind or it is empty, SinkMismatch if it cannot be read.
    """
    sinks = [sink for sink in config.settlement.sinks if kind in (None, sink.kind)]
    if not sinks:
        have = ", ".join(sink.kind for sink in config.settlement.sinks)
        raise SinkError(f"settlement.sinks: none of kind {kind} is configured; configured: {have}")
    best = min(sinks, key=lambda sink: _PREFERENCE.index(sink.kind))
    return open_reader(best, Path(config.settlement.directory).expanduser())


def open_path(path: Path) -> Reader:
    """Open what was settled at a path: a .csv file or a directory of any kind of sink.

    Raises SinkError if there is nothing settled, SinkMismatch if it cannot be read.
    """
    if any((path / name).exists() for name in ("data.mdb", "settlement.json")):
        return open_reader(SinkConfig(kind="lmdb"), path)
    if (path / "manifest.json").exists():
        return open_reader(SinkConfig(kind="parquet"), path)
    if not layout(path).checkpoint.exists():
        raise SinkError(f"{path}: is neither the directory of a sink nor a .csv file beside its checkpoint")
    return open_reader(SinkConfig(kind="csv"), path)


def open_reader(sink: SinkConfig, directory: Path) -> Reader:
    """Open one sink for reading; a relative path starts in `directory`. Raises SinkError if empty, SinkMismatch."""
    path = place(sink, directory)
    if sink.kind == "lmdb":
        from smrx.sinks.lmdb_reader import LmdbReader

        return LmdbReader(path)
    if sink.kind == "postgresql":
        with needs("postgres", "psycopg"):
            from smrx.sinks.postgresql_reader import PostgresqlReader
            from smrx.sinks.postgresql_schema import DEFAULT_SCHEMA
        return PostgresqlReader(sink.dsn or "", sink.schema or DEFAULT_SCHEMA)
    if sink.kind == "parquet":
        with needs("parquet", "pyarrow"):
            from smrx.sinks.parquet_reader import ParquetReader
        return ParquetReader(path)
    from smrx.sinks.csv_reader import CsvReader

    return CsvReader(path)
