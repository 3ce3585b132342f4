"""The base class of the sinks: the order of calls, the position in the stream, a lock.

A subclass implements how it opens its files or tables, appends rows, makes them durable, and closes. An error in open()
leaves the sink closed. Called as a Sink (contract.py).
"""

import os
from abc import ABC, abstractmethod
from pathlib import Path

from smrx.sinks.contract import Checkpoint
from smrx.sinks.durable_files import as_sink_errors, lock, make_directory
from smrx.sinks.rows import Rows, Tables
from smrx.sinks.sink_cursor import SinkCursor


class RowSink(ABC):
    """A Sink that stores rows."""

    def __init__(self, name: str) -> None:
        """name: for messages. Nothing is touched before open()."""
        self.name = name
        self._cursor: SinkCursor | None = None
        self._lock = -1

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self.close()
        try:
            held, definitions = self._open()
            self._cursor = SinkCursor(self.name, cluster, held, definitions)
            self._roll_back()
        except BaseException:
            self.close()
            raise
        return held

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""
        self._opened().begin(checkpoint, rows)
        self._append(rows)

    def write(self, events: Rows) -> None:
        """See Sink."""
        tables = self._opened().take(events)
        if tables is not None:
            self._append(tables)

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink."""
        intake = self._opened()
        if intake.due(checkpoint):
            self._commit(checkpoint)
            intake.held = checkpoint

    def close(self) -> None:
        """See Sink."""
        self._close()
        self._cursor = None
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    @abstractmethod
    def _open(self) -> tuple[Checkpoint | None, Rows]:
        """Open and lock the place, changing no settled data; return the checkpoint and the definitions it holds."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Remove what lies beyond the checkpoint; the place is known to be this cluster's."""

    @abstractmethod
    def _append(self, tables: Tables) -> None:
        """Append rows."""

    @abstractmethod
    def _commit(self, checkpoint: Checkpoint) -> None:
        """Make the appended rows durable, together with the checkpoint."""

    @abstractmethod
    def _close(self) -> None:
        """Close everything that is open. Raises nothing; may be called twice."""

    def _lock_directory(self, directory: Path, lock_file: Path) -> None:
        """Create a directory if it is missing, and lock it against other processes until close()."""
        with as_sink_errors(directory):
            make_directory(directory)
            self._lock = lock(lock_file, self.name)

    def _opened(self) -> SinkCursor:
        if self._cursor is None:
            raise ValueError(f"{self.name} is not open")
        return self._cursor
