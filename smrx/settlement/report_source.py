"""Where a report reads: the settlement's own sinks, or a path. Called by `smrx settle report`."""

from pathlib import Path
from typing import Final

from smrx.config import Config, SinkConfig
from smrx.settlement.errors import SinkError
from smrx.settlement.report import Source
from smrx.settlement.sinks import needs, place
from smrx.settlement.sinks.csv_layout import layout

#: Of several sinks the one that answers soonest.
_PREFERENCE: Final = ("lmdb", "postgresql", "parquet", "csv")


def open_source(config: Config, kind: str | None = None) -> Source:
    """Open a configured sink for reading: the first of a kind, or that which answers soonest.

    Raises SinkError if there is none of that kind or it has nothing, SinkMismatch if it is not understood.
    """
    sinks = [sink for sink in config.settlement.sinks if kind in (None, sink.kind)]
    if not sinks:
        have = ", ".join(sink.kind for sink in config.settlement.sinks)
        raise SinkError(f"settlement.sinks: expected one of kind {kind}, found {have}")
    best = min(sinks, key=lambda sink: _PREFERENCE.index(sink.kind))
    return _open(best, place(best, Path(config.settlement.directory).expanduser()))


def open_path(path: Path) -> Source:
    """Open what was settled at a path: a .csv file or a directory, whatever kind of sink wrote there.

    Raises SinkError if there is nothing of the kind, SinkMismatch if it is not understood.
    """
    kind = "csv"
    if (path / "data.mdb").exists():
        kind = "lmdb"
    elif (path / "manifest.json").exists():
        kind = "parquet"
    elif not layout(path).checkpoint.exists():
        raise SinkError(f"{path}: expected the directory of a sink or a .csv file beside its checkpoint, found neither")
    return _open(SinkConfig(kind=kind), path)  # type: ignore[arg-type]


def _open(sink: SinkConfig, path: Path) -> Source:
    if sink.kind == "lmdb":
        from smrx.settlement.sinks.lmdb_reader import LmdbReader

        return LmdbReader(path)
    if sink.kind == "postgresql":
        with needs("postgres", "psycopg"):
            from smrx.settlement.sinks.postgresql_reader import PostgresqlReader
            from smrx.settlement.sinks.postgresql_schema import DEFAULT_SCHEMA
        return PostgresqlReader(sink.dsn or "", sink.schema or DEFAULT_SCHEMA)
    if sink.kind == "parquet":
        with needs("parquet", "pyarrow"):
            from smrx.settlement.sinks.parquet_reader import ParquetReader
        return ParquetReader(path)
    from smrx.settlement.sinks.csv_reader import CsvReader

    return CsvReader(path)
