"""Write one table as CSV files: append rows, rotate files by size or day, truncate to what is settled.

A file ends with the first row that makes it `rotate_bytes` long, or before the first row of another day. Both depend on
the rows alone, so a table written twice gives the same files. Called by csv_sink.py, which keeps the checkpoint.
"""

import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.sinks.csv_layout import Stream, file_name, header, header_problem, is_file_of
from smrx.sinks.csv_text import Lines
from smrx.sinks.durable_files import read_all, write_all
from smrx.sinks.rows import DAY_NS
from smrx.sinks.sink_errors import SinkMismatch


class Rotation(NamedTuple):
    """When a new file is started."""

    bytes: int | None = None
    daily: bool = False


class CsvStream:
    """The files of one table, open for appending. Raises OSError when a file cannot be written."""

    def __init__(self, directory: Path, stem: str, columns: tuple[str, ...], rotation: Rotation, held: Stream) -> None:
        """Open the last file and truncate what is not settled. Raises SinkMismatch if settled rows are missing."""
        self._directory = directory
        self._stem = stem
        self._columns = columns
        self._header = header(columns)
        self._rotation = rotation
        self.state = msgspec.structs.replace(held, complete=list(held.complete))
        self._file = -1
        self._unsynced: list[int] = []
        self.names_changed = False  #: files were made or removed since the last sync()
        self._remove_unsettled()
        if held.file is not None:
            self._reopen(directory / held.file)

    def append(self, lines: Lines, times_ns: NDArray[np.int64]) -> None:
        """Append lines; times_ns are the times of their rows."""
        count = len(lines.ends)
        days = times_ns // DAY_NS
        row, begin = 0, 0
        while row < count:
            day = int(days[row])
            self._rotate_if_due(day)
            until = count
            if self._rotation.daily:
                other = days[row:] != day
                until = row + int(other.argmax()) if other.any() else count
            if self._rotation.bytes is not None:
                room = self._rotation.bytes - self.state.bytes
                until = min(until, max(row, int(np.searchsorted(lines.ends, begin + room))) + 1)
            end = int(lines.ends[until - 1])
            self._write(lines.text[begin:end])
            self.state.day = int(days[until - 1])
            row, begin = until, end

    def sync(self) -> None:
        """Make the rows durable; the caller syncs the directory if names_changed is set."""
        while self._unsynced:
            os.fsync(self._unsynced[0])
            file = self._unsynced.pop(0)
            if file != self._file:
                os.close(file)

    def close(self) -> None:
        """Close the files."""
        for file in {*self._unsynced, self._file} - {-1}:
            os.close(file)
        self._unsynced, self._file = [], -1

    def begin(self, day: int | None = None) -> None:
        """Start a new file with its header."""
        if self.state.file is not None:
            self.state.complete.append(self.state.file)
        rotated = self._rotation.bytes is not None
        number = len(self.state.complete) + 1 if rotated else None
        name = file_name(self._stem, number, day if self._rotation.daily else None)
        if name in self.state.complete:
            raise SinkMismatch(
                f"{self._directory / name}: exists already, because the rotation was changed and changed back; choose "
                "another place"
            )
        if self._file != -1 and self._file not in self._unsynced:
            os.close(self._file)
        self._file = -1
        self._file = os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.names_changed = True
        self.state.file, self.state.bytes = name, 0
        self._write(np.frombuffer(self._header, np.uint8))

    def _write(self, data: NDArray[np.uint8]) -> None:
        if self._file not in self._unsynced:
            self._unsynced.append(self._file)
        write_all(self._file, data)
        self.state.bytes += len(data)

    def _rotate_if_due(self, day: int) -> None:
        state = self.state
        full = self._rotation.bytes is not None and state.bytes >= self._rotation.bytes
        empty = state.bytes <= len(self._header)
        if state.file is None or (not empty and (full or (self._rotation.daily and day != state.day))):
            self.begin(day)

    def _remove_unsettled(self) -> None:
        known = {*self.state.complete, self.state.file}
        for name in sorted(os.listdir(self._directory)):
            if is_file_of(self._stem, name) and name not in known:
                os.unlink(self._directory / name)
                self.names_changed = True

    def _reopen(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            raise SinkMismatch(f"{path}: the file with {self.state.bytes} settled bytes is missing") from None
        size = os.fstat(self._file).st_size
        # The header first: other line ends make a file shorter, too, and a byte-order mark makes it longer.
        start = read_all(self._file, 0, len(self._header))
        problem = None if self._header.startswith(start) else header_problem(start, self._columns)
        if problem is not None:
            raise SinkMismatch(f"{path}: {problem}")
        if size < self.state.bytes:
            raise SinkMismatch(f"{path}: expected at least {self.state.bytes} settled bytes, found {size}")
        if size > self.state.bytes:
            os.ftruncate(self._file, self.state.bytes)
            self._unsynced.append(self._file)
        os.lseek(self._file, self.state.bytes, os.SEEK_SET)
