"""Each kind of sink with a place of its own: create it, read it back, run events into it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from smrx.settlement.readers import Reader
from smrx.sinks import Sink
from smrx.sinks.csv_reader import CsvReader
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.csv_stream import Rotation
from smrx.sinks.lmdb_reader import LmdbReader
from smrx.sinks.lmdb_sink import LmdbSink
from smrx.sinks.parquet_reader import ParquetReader
from smrx.sinks.parquet_sink import ParquetSink
from smrx.sinks.postgresql_reader import PostgresqlReader
from smrx.sinks.postgresql_sink import PostgresqlSink
from tests.sinks.stream import CLUSTER, Content, Events, checkpoint, shown

KINDS = ("csv", "csv rotated", "lmdb", "parquet", "postgresql")
#: A step of a run: events up to this one are written, and committed or not.
Step = tuple[int, bool]


class Place:
    """One place of one kind. `dsn` is used by postgresql only, each place with a schema of its own."""

    def __init__(self, kind: str, path: Path, dsn: str = "") -> None:
        self.kind = kind
        self.path = path
        self.dsn = dsn
        self.schema = f"s{abs(hash(str(path))):x}"

    def sink(self) -> Sink:
        """Return a sink for this place, with limits so small that they are reached."""
        if self.kind == "csv":
            return CsvSink(self.path)
        if self.kind == "csv rotated":
            return CsvSink(self.path, Rotation(bytes=2000, daily=True))
        if self.kind == "lmdb":
            return LmdbSink(self.path, map_bytes=1 << 17, index_trades=40)
        if self.kind == "parquet":
            return ParquetSink(self.path, rotate_trades=30, daily=True)
        return PostgresqlSink(self.dsn, self.schema)

    def reader(self) -> Reader:
        """Return a reader of what the place holds now."""
        if self.kind.startswith("csv"):
            return CsvReader(self.path)
        if self.kind == "lmdb":
            return LmdbReader(self.path)
        if self.kind == "parquet":
            return ParquetReader(self.path)
        return PostgresqlReader(self.dsn, self.schema)

    def content(self) -> tuple[Content, int]:
        """Return everything the place holds, and the event up to which it is settled."""
        with closing(self.reader()) as reader:
            definitions = [(*row[:5], shown(row[5]), *row[6:]) for row in reader.definitions().tolist()]
            content = Content(
                [row for rows in reader.trades() for row in rows.tolist()],
                [row for rows in reader.movements() for row in rows.tolist()],
                definitions,
            )
            return content, reader.checkpoint.event_sequence if reader.checkpoint else 0

    def files(self) -> dict[str, bytes]:
        """Return the content of the settled files."""
        ends = (".csv", ".parquet", ".rows", ".json")
        return {path.name: path.read_bytes() for path in sorted(self.path.iterdir()) if path.name.endswith(ends)}


def run(sink: Sink, events: Events, steps: Sequence[Step], overlap: int = 0, acknowledge: Any = None) -> int:
    """Open a sink and continue from its checkpoint; return the event it held. The sink stays open."""
    held = sink.open(CLUSTER)
    begin = held.event_sequence if held else 0
    at = begin
    for end, commit in steps:
        if end > at:
            sink.write(np.array(events[max(0, at - overlap) : end]))
            at = end
        if commit and at == end:
            sink.commit(checkpoint(events, end))
            if acknowledge is not None:
                acknowledge(end)
    return begin
