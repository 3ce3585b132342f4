"""Store settled trades, movements and definitions as CSV files (RFC 4180), with a checkpoint file beside them.

Owns the files of one Layout and a lock on them. Rows are written at once and synced by commit(), which then replaces
the checkpoint: it names each file and how many of its bytes are settled. open() cuts off the rest. A file of trades
without a checkpoint is not this sink's, and is refused.
"""

import os
from pathlib import Path

import msgspec

from smrx.sinks.contract import Checkpoint, decode
from smrx.sinks.csv_layout import (
    FORMAT,
    CsvCheckpoint,
    Stream,
    is_file_of,
    layout,
    name_of,
)
from smrx.sinks.csv_reader import read_definitions
from smrx.sinks.csv_rows import (
    DEFINITION_COLUMNS,
    MOVEMENT_COLUMNS,
    TRADE_COLUMNS,
    definition_lines,
    movement_lines,
    trade_lines,
)
from smrx.sinks.csv_stream import CsvStream, Rotation
from smrx.sinks.durable_files import as_sink_errors, replace, sync_directory
from smrx.sinks.row_sink import RowSink
from smrx.sinks.rows import Rows, Tables
from smrx.sinks.sink_errors import SinkMismatch


class CsvSink(RowSink):
    """One settlement as CSV files."""

    def __init__(self, path: str | Path = ".", rotation: Rotation = Rotation()) -> None:  # noqa: B008 - immutable
        """Write to a .csv file, or to settled_trades.csv in a directory; nothing is touched before open()."""
        self.layout = layout(path)
        super().__init__(name_of(self.layout))
        self._rotation = rotation
        self._content: CsvCheckpoint | None = None
        self._streams: list[CsvStream] = []

    def _open(self) -> tuple[Checkpoint | None, Rows]:
        files = self.layout
        self._lock_directory(files.directory, files.lock)
        with as_sink_errors(files.directory):
            self._content = held = self._held()
            return held.checkpoint, read_definitions(files.directory, held.definitions)

    def _roll_back(self) -> None:
        files, held, never = self.layout, self._content, Rotation()
        assert held is not None
        with as_sink_errors(files.directory):
            for stem, columns, rotation, stream in (
                (files.trades, TRADE_COLUMNS, self._rotation, held.trades),
                (files.movements, MOVEMENT_COLUMNS, self._rotation, held.movements),
                (files.definitions, DEFINITION_COLUMNS, never, held.definitions),
            ):
                self._streams.append(CsvStream(files.directory, stem, columns, rotation, stream))
                if self._streams[-1].state.file is None and not rotation.daily:
                    self._streams[-1].begin()

    def _append(self, tables: Tables) -> None:
        catalogue = self._opened().catalogue
        trades, movements, definitions = self._streams
        with as_sink_errors(self.layout.directory):
            if len(tables.definitions):
                definitions.append(definition_lines(tables.definitions), tables.definitions["time_ns"])
            if len(tables.movements):
                movements.append(movement_lines(tables.movements, catalogue), tables.movements["time_ns"])
            if len(tables.trades):
                trades.append(trade_lines(tables.trades, catalogue), tables.trades["time_ns"])

    def _commit(self, checkpoint: Checkpoint) -> None:
        with as_sink_errors(self.layout.directory):
            for stream in self._streams:
                stream.sync()
            if any(stream.names_changed for stream in self._streams):
                sync_directory(self.layout.directory)
                for stream in self._streams:
                    stream.names_changed = False
            self._replace_checkpoint(checkpoint)

    def _close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._streams, self._content = [], None

    def _held(self) -> CsvCheckpoint:
        """Return the content of the checkpoint file; if there is none, create one in which nothing is settled."""
        files = self.layout
        try:
            data = files.checkpoint.read_bytes()
        except FileNotFoundError:
            for stem in files[1:]:
                for name in os.listdir(files.directory):
                    if is_file_of(stem, name):
                        raise SinkMismatch(
                            f"{files.directory / name}: exists without {files.checkpoint.name}; move it away or choose "
                            "another place"
                        ) from None
            empty = CsvCheckpoint(FORMAT, None, Stream(), Stream(), Stream())
            replace(files.checkpoint, _json(empty))
            return empty
        return decode(data, CsvCheckpoint, FORMAT, str(files.checkpoint))

    def _replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        streams = [stream.state for stream in self._streams]
        replace(self.layout.checkpoint, _json(CsvCheckpoint(FORMAT, checkpoint, *streams)))


def _json(content: CsvCheckpoint) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
