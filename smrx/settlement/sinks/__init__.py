"""Where settled trades go: CSV, LMDB, PostgreSQL, Parquet, one or several, as the configuration says."""

from pathlib import Path

from smrx.config import Config, SinkConfig
from smrx.settlement.errors import SinkError, SinkMismatch
from smrx.settlement.sinks.base import Checkpoint, Sink

__all__ = ["Checkpoint", "Sink", "SinkError", "SinkMismatch", "make_sink", "make_sinks", "place"]


def make_sinks(config: Config) -> list[Sink]:
    """Return the sinks of [[settlement.sinks]], none of them open. Raises SinkMismatch if a package is missing."""
    directory = Path(config.settlement.directory).expanduser()
    return [make_sink(sink, directory) for sink in config.settlement.sinks]


def make_sink(config: SinkConfig, directory: Path) -> Sink:
    """Return one sink, not open; its path begins in `directory`. Raises SinkMismatch if a package is missing."""
    # Each kind is imported when it is used: PostgreSQL and Parquet need packages that are extras.
    from smrx.settlement.sinks.csv_sink import CsvSink
    from smrx.settlement.sinks.csv_stream import Rotation

    path = place(config, directory)
    return CsvSink(path, Rotation(config.rotate_bytes, bool(config.rotate_daily)))


def place(config: SinkConfig, directory: Path) -> Path:
    """Where a sink of files is."""
    return directory / Path(config.path or ".").expanduser()
