"""Name the CSV files of a settlement, and define the checkpoint file beside them.

Written by csv_sink.py, read by csv_reader.py.
"""

import datetime
import re
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from smrx.sinks.contract import Checkpoint

FILE_NAME: Final = "settled_trades.csv"
FORMAT: Final = 1


class Stream(msgspec.Struct, forbid_unknown_fields=True):
    """The files of one table, and how much of the last one is settled."""

    file: str | None = None  #: the last file; None before its first row
    bytes: int = 0
    day: int = 0  #: of the last file's rows, in days since 1970
    complete: list[str] = []  #: the files before it, in order


class CsvCheckpoint(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the checkpoint file."""

    format: int
    checkpoint: Checkpoint | None
    trades: Stream
    movements: Stream
    definitions: Stream


class Layout(NamedTuple):
    """The names of the files of one settlement."""

    directory: Path
    trades: str  #: stems, without .csv
    movements: str
    definitions: str

    @property
    def checkpoint(self) -> Path:
        return self.directory / f"{self.trades}.checkpoint.json"

    @property
    def lock(self) -> Path:
        return self.directory / f"{self.trades}.lock"


def layout(out: str | Path) -> Layout:
    """Return the files for `out`: a .csv file, or the directory of settled_trades.csv."""
    path = Path(out).expanduser()
    if path.suffix.lower() != ".csv" or path.is_dir():
        path /= FILE_NAME
    stem = path.name[: -len(".csv")]
    others = [
        stem.replace("trades", table) if "trades" in stem else f"{stem}_{table}"
        for table in ("movements", "definitions")
    ]
    return Layout(path.parent, stem, *others)


def name_of(files: Layout) -> str:
    """Return the name of the settlement for messages."""
    return f"CSV {files.directory / files.trades}.csv"


def file_name(stem: str, number: int | None, day: int | None) -> str:
    """Return the name of one file of a table: with its day and its number if files are rotated by them."""
    parts = [stem]
    if day is not None:
        parts.append((datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat())
    if number is not None:
        parts.append(f"{number:06d}")
    return "-".join(parts) + ".csv"


def is_file_of(stem: str, name: str) -> bool:
    """Return whether file_name() gives this name for some number and day."""
    return re.fullmatch(re.escape(stem) + r"(-\d{4}-\d\d-\d\d)?(-\d{6,})?\.csv", name) is not None


def header(columns: tuple[str, ...]) -> bytes:
    """Return the first line of a file."""
    return (",".join(columns) + "\r\n").encode()
