"""Settled trades, movements and definitions as CSV files (RFC 4180), with a checkpoint file beside them.

Owns the files of one Layout and a lock on them. Rows are written as they come and synced by commit(), which then
replaces the checkpoint: it names each file and how many of its bytes are settled. open() cuts off the rest. A file of
trades without a checkpoint is somebody else's and is left alone.
"""

import os
from pathlib import Path

import msgspec

from smrx.settlement.errors import SinkMismatch
from smrx.settlement.sinks.base import Checkpoint, decode
from smrx.settlement.sinks.csv_layout import FORMAT, CsvCheckpoint, Stream, is_file_of, layout, name_of
from smrx.settlement.sinks.csv_reader import read_definitions
from smrx.settlement.sinks.csv_stream import CsvStream, Rotation
from smrx.settlement.sinks.files import lock, make_directory, replace, sync_directory, telling
from smrx.settlement.sinks.intake import Intake
from smrx.settlement.sinks.rows import Rows, Tables
from smrx.settlement.sinks.tabular import (
    DEFINITION_COLUMNS,
    MOVEMENT_COLUMNS,
    TRADE_COLUMNS,
    definition_lines,
    movement_lines,
    trade_lines,
)


class CsvSink:
    """One settlement as CSV files."""

    def __init__(self, path: str | Path = ".", rotation: Rotation = Rotation()) -> None:  # noqa: B008 - immutable
        """Write to a .csv file, or to settled_trades.csv in a directory; nothing is touched before open()."""
        self.layout = layout(path)
        self.name = name_of(self.layout)
        self._rotation = rotation
        self._lock = -1
        self._streams: list[CsvStream] = []
        self._intake: Intake | None = None

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink. The directory is made if it is not there."""
        self.close()
        files = self.layout
        try:
            with telling(files.directory):
                make_directory(files.directory)
                self._lock = lock(files.lock, self.name)
                held = self._held()
                self._intake = Intake(
                    self.name, cluster, held.checkpoint, read_definitions(files.directory, held.definitions)
                )
                never = Rotation()
                for stem, columns, rotation, stream in (
                    (files.trades, TRADE_COLUMNS, self._rotation, held.trades),
                    (files.movements, MOVEMENT_COLUMNS, self._rotation, held.movements),
                    (files.definitions, DEFINITION_COLUMNS, never, held.definitions),
                ):
                    self._streams.append(CsvStream(files.directory, stem, columns, rotation, stream))
                    if self._streams[-1].state.file is None and not rotation.daily:
                        self._streams[-1].begin()
        except BaseException:
            self.close()
            raise
        return held.checkpoint

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""
        intake = self._opened()
        intake.begin(checkpoint, rows)
        self._append(rows, intake)

    def write(self, events: Rows) -> None:
        """See Sink."""
        intake = self._opened()
        tables = intake.take(events)
        if tables is not None:
            self._append(tables, intake)

    def _append(self, tables: Tables, intake: Intake) -> None:
        trades, movements, definitions = self._streams
        with telling(self.layout.directory):
            if len(tables.definitions):
                definitions.append(definition_lines(tables.definitions), tables.definitions["time_ns"])
            if len(tables.movements):
                movements.append(movement_lines(tables.movements, intake.catalogue), tables.movements["time_ns"])
            if len(tables.trades):
                trades.append(trade_lines(tables.trades, intake.catalogue), tables.trades["time_ns"])

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink."""
        intake = self._opened()
        if not intake.due(checkpoint):
            return
        with telling(self.layout.directory):
            for stream in self._streams:
                stream.sync()
            if any(stream.names_changed for stream in self._streams):
                sync_directory(self.layout.directory)
                for stream in self._streams:
                    stream.names_changed = False
            self._replace_checkpoint(checkpoint)
        intake.held = checkpoint

    def close(self) -> None:
        """See Sink."""
        for stream in self._streams:
            stream.close()
        self._streams = []
        self._intake = None
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    def _opened(self) -> Intake:
        if self._intake is None:
            raise ValueError(f"{self.name} is not open")
        return self._intake

    def _held(self) -> CsvCheckpoint:
        """What the checkpoint file says; one that says nothing is settled is begun where there is none."""
        files = self.layout
        try:
            data = files.checkpoint.read_bytes()
        except FileNotFoundError:
            for stem in files[1:]:
                for name in os.listdir(files.directory):
                    if is_file_of(stem, name):
                        raise SinkMismatch(
                            f"{files.directory / name}: expected none without {files.checkpoint.name}; move it away or "
                            "choose another place"
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
