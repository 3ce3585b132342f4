"""What the sinks hold, read back: one reader a configured sink, all with the same questions. Nothing is changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from smrx.config import Config, SinkConfig
from smrx.settlement.sinks import place
from smrx.settlement.sinks.base import Checkpoint
from smrx.settlement.sinks.rows import Rows


class Reader(Protocol):
    """The rows of one sink as far as its checkpoint; see sinks/rows.py for the record types."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What the sink durably holds."""

    def definitions(self) -> Rows:
        """Every definition, in the order of the events."""

    def movements(self) -> Iterator[Rows]:
        """Every deposit and withdrawal, in order, in batches."""

    def trades(self) -> Iterator[Rows]:
        """Every trade, in order, in batches."""

    def close(self) -> None:
        """Let go of the place."""


def open_readers(config: Config) -> list[tuple[str, Reader]]:
    """Open a reader for every sink of the configuration; the names are for people. Raises SinkMismatch, SinkError."""
    directory = Path(config.settlement.directory).expanduser()
    return [_open(sink, directory) for sink in config.settlement.sinks]


def _open(config: SinkConfig, directory: Path) -> tuple[str, Reader]:
    path = place(config, directory)
    if config.kind == "lmdb":
        from smrx.settlement.sinks.lmdb_reader import LmdbReader

        return f"LMDB {path}", LmdbReader(path)
    if config.kind == "postgresql":
        from smrx.settlement.sinks.postgresql_reader import PostgresqlReader
        from smrx.settlement.sinks.postgresql_schema import DEFAULT_SCHEMA

        return "PostgreSQL", PostgresqlReader(config.dsn or "", config.schema or DEFAULT_SCHEMA)
    if config.kind == "parquet":
        from smrx.settlement.sinks.parquet_reader import ParquetReader

        return f"Parquet {path}", ParquetReader(path)
    from smrx.settlement.sinks.csv_reader import CsvReader

    return f"CSV {path}", CsvReader(path)
