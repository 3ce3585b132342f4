"""What every sink does around its own files or tables: the order of calls, its place in the stream, a lock.

A sink says how it takes hold of its place, adds rows, makes them durable and lets go; whatever fails while it is opened
leaves it closed. Implemented by the four sinks, called as a Sink (contract.py).
"""

import os
from abc import ABC, abstractmethod
from pathlib import Path

from smrx.sinks.contract import Checkpoint
from smrx.sinks.durable_files import lock, make_directory, telling
from smrx.sinks.intake import Intake
from smrx.sinks.rows import Rows, Tables


class RowSink(ABC):
    """A Sink that is given rows."""

    def __init__(self, name: str) -> None:
        """`name` is for people; nothing is touched before open()."""
        self.name = name
        self._intake: Intake | None = None
        self._lock = -1

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink."""
        self.close()
        try:
            held, definitions = self._hold()
            self._intake = Intake(self.name, cluster, held, definitions)
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
        self._let_go()
        self._intake = None
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    @abstractmethod
    def _hold(self) -> tuple[Checkpoint | None, Rows]:
        """Take hold of the place; return what it durably holds, and its definitions. Nothing settled is changed."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Give up what is beyond the checkpoint: the place is known to be this cluster's."""

    @abstractmethod
    def _append(self, tables: Tables) -> None:
        """Add rows after those that are there."""

    @abstractmethod
    def _commit(self, checkpoint: Checkpoint) -> None:
        """Make what was added durable, with the checkpoint."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close whatever is open. Raises nothing; may be called twice."""

    def _lock_directory(self, directory: Path, lock_file: Path) -> None:
        """Make a directory if it is not there, and keep every other process out of it until close()."""
        with telling(directory):
            make_directory(directory)
            self._lock = lock(lock_file, self.name)

    def _opened(self) -> Intake:
        if self._intake is None:
            raise ValueError(f"{self.name} is not open")
        return self._intake
