"""Store settled trades in CSV, LMDB, PostgreSQL or Parquet; one sink or several, as the configuration says.

contract.py defines what every sink guarantees, rows.py the rows. Each kind has a layout, a sink and a reader.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smrx.config import Config, SinkConfig
from smrx.sinks.contract import Checkpoint, Sink
from smrx.sinks.sink_errors import SinkError, SinkMismatch

__all__ = ["Checkpoint", "Sink", "SinkError", "SinkMismatch", "make_sink", "make_sinks", "needs", "place"]


def make_sinks(config: Config) -> list[Sink]:
    """Return the sinks of [[settlement.sinks]], none of them open. Raises SinkMismatch if a package is missing."""
    directory = Path(config.settlement.directory).expanduser()
    return [make_sink(sink, directory) for sink in config.settlement.sinks]


def make_sink(config: SinkConfig, directory: Path) -> Sink:
    """Return one sink, not open; a relative path starts in `directory`. Raises SinkMismatch if a package is missing."""
    # Each kind is imported when it is used: PostgreSQL and Parquet need optional packages.
    path = place(config, directory)
    if config.kind == "lmdb":
        from smrx.sinks.lmdb_sink import LmdbSink

        return LmdbSink(path)
    if config.kind == "postgresql":
        with needs("postgres", "psycopg"):
            from smrx.sinks.postgresql_schema import DEFAULT_SCHEMA
            from smrx.sinks.postgresql_sink import PostgresqlSink
        return PostgresqlSink(config.dsn or "", config.schema or DEFAULT_SCHEMA)
    if config.kind == "parquet":
        with needs("parquet", "pyarrow"):
            from smrx.sinks.parquet_sink import ROTATE_TRADES, ParquetSink
        return ParquetSink(path, rotate_trades=config.rotate_trades or ROTATE_TRADES, daily=bool(config.rotate_daily))
    from smrx.sinks.csv_sink import CsvSink
    from smrx.sinks.csv_stream import Rotation

    return CsvSink(path, Rotation(config.rotate_bytes, bool(config.rotate_daily)))


@contextmanager
def needs(extra: str, package: str) -> Iterator[None]:
    """Turn the import error of a missing package into SinkMismatch, which names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise SinkMismatch(
            f"settlement.sinks: the package {package} is not installed; install it with: pip install smrx[{extra}]"
        ) from None


def place(config: SinkConfig, directory: Path) -> Path:
    """Return the directory or file of a sink that keeps files."""
    return directory / Path(config.path or ".").expanduser()
