"""Where settled trades go: CSV, LMDB, PostgreSQL, Parquet, one or several, as the configuration says."""

from smrx.config import Config, SinkConfig
from smrx.settlement.errors import SinkError, SinkMismatch
from smrx.settlement.sinks.base import Checkpoint, Sink

__all__ = ["Checkpoint", "Sink", "SinkError", "SinkMismatch", "make_sink", "make_sinks"]


def make_sinks(config: Config) -> list[Sink]:
    """Return the sinks of [[settlement.sinks]], none of them open."""
    return [make_sink(sink) for sink in config.settlement.sinks]


def make_sink(config: SinkConfig) -> Sink:
    """Return one sink, not open. Raises SinkMismatch if it needs a package that is not installed."""
    # Each kind is imported when it is used: PostgreSQL and Parquet need packages that are extras.
    from smrx.settlement.sinks.csv_sink import CsvSink
    from smrx.settlement.sinks.csv_stream import Rotation

    return CsvSink(config.path or ".", Rotation(config.rotate_bytes, bool(config.rotate_daily)))
