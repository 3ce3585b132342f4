"""Where settled trades go: CSV, LMDB, PostgreSQL, Parquet, one or several, as the configuration says."""

from smrx.config import Config
from smrx.settlement.errors import SinkError, SinkMismatch
from smrx.settlement.sinks.base import Checkpoint, Sink

__all__ = ["Checkpoint", "Sink", "SinkError", "SinkMismatch", "make_sinks"]


def make_sinks(config: Config) -> list[Sink]:
    """Return the sinks of [[settlement.sinks]], none of them open."""
    raise NotImplementedError(config.cluster)
