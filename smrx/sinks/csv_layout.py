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
FORMAT: Final = 2


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


def header_problem(start: bytes, columns: tuple[str, ...]) -> str | None:
    """Return what makes the first bytes of a file differ from the header, and what to do; None if nothing does."""
    expected = header(columns)
    if start.startswith(expected):
        return None
    return f"{_difference(start, columns)}; settled rows must stay byte for byte: restore the file from a copy"


def _difference(start: bytes, columns: tuple[str, ...]) -> str:
    if not start:
        return "expected settled rows, found an empty file"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "expected UTF-8 text, found a byte-order mark of UTF-16, as a spreadsheet or an editor writes it"
    if start.startswith(b"\xef\xbb\xbf"):
        return "expected no byte-order mark, found one, as a spreadsheet or an editor writes it"
    line, end, _ = start.partition(b"\n")
    found = line.rstrip(b"\r").decode("utf-8", "replace").split(",")
    for number, (name, other) in enumerate(zip(columns, found, strict=False), 1):
        if name != other:
            shown = other if len(other) <= 40 else other[:37] + "..."
            return f"expected the columns {','.join(columns)}, found {shown!r} as column {number} instead of {name!r}"
    if len(found) != len(columns):
        return f"expected the columns {','.join(columns)} ({len(columns)}), found {len(found)} columns"
    if end and not line.endswith(b"\r"):
        return "expected line ends CRLF, found LF (the columns match), as editors and version control write them"
    return "expected line ends CRLF, found others (the columns match)"
