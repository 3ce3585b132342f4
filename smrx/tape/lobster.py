"""Read LOBSTER files: the messages of one share's day, and the best levels of the book after each message.

Files are plain or gzip, detected by their first bytes. A line must have exactly the documented form. Times become
integer picoseconds (the format allows 12 decimal places), so nothing is rounded.
Format: https://lobsterdata.com/info/DataStructure.php
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError


class Kind(IntEnum):
    """The second column of a message."""

    NEW = 1
    PARTIAL_CANCEL = 2
    DELETE = 3
    EXECUTION = 4
    HIDDEN_EXECUTION = 5
    CROSS_TRADE = 6
    HALT = 7


#: One line of a message file. price in 1/10,000 dollar; direction is that of the resting order: 1 buys, -1 sells.
MESSAGE: Final = np.dtype(
    [
        ("time_ps", "<i8"),
        ("kind", "<i8"),
        ("order_id", "<i8"),
        ("size", "<i8"),
        ("price", "<i8"),
        ("direction", "<i8"),
    ]
)

#: The price of a missing level: 9999999999 (ask) or -9999999999 (bid), with size 0.
NO_LEVEL: Final = 9_999_999_999
_COLUMNS_PER_LEVEL: Final = 4
_DAY_SECONDS: Final = 86_400

_LINE: Final = re.compile(r"(\d{1,5})(?:\.(\d{1,12}))?,([1-7]),(-?\d{1,18}),(\d{1,12}),(-?\d{1,12}),(-1|1|0)")
_ROW: Final = re.compile(r"-?\d{1,12}(?:,-?\d{1,12})*")
_COLUMNS: Final = (
    ("time", r"\d{1,5}(\.\d{1,12})?", "seconds after midnight with at most 12 decimal places"),
    ("type", r"[1-7]", "an integer from 1 to 7"),
    ("order id", r"-?\d{1,18}", "an integer"),
    ("size", r"\d{1,12}", "an integer of 0 or more"),
    ("price", r"-?\d{1,12}", "an integer (dollars x 10,000)"),
    ("direction", r"-1|1|0", "1 or -1"),
)


class Recording(NamedTuple):
    """The messages of one share; books has a row for each message, or is None without an orderbook file."""

    name: str
    ticker: str
    messages: NDArray[np.void]
    #: A row: ask price, ask size, bid price, bid size of the best level, then of the next, ...
    books: NDArray[np.int64] | None

    @property
    def levels(self) -> int:
        """Levels of each side of the recorded book; 0 without an orderbook file."""
        return 0 if self.books is None else self.books.shape[1] // _COLUMNS_PER_LEVEL


def read(messages: str | Path, orderbook: str | Path | None = None, limit: int | None = None) -> Recording:
    """Return a recording, or its first `limit` messages; raises TapeError."""
    path = Path(messages)
    found = read_messages(path, limit)
    if not len(found):
        raise TapeError(f"{path}: the file is empty; expected at least one message")
    books = None
    if orderbook is not None:
        books = read_books(Path(orderbook), limit)
        if len(books) != len(found):
            raise TapeError(f"{orderbook}: {len(books)} rows for the {len(found)} messages of {path.name}")
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Recording(name, _ticker(name), found, books)


def read_messages(path: Path, limit: int | None = None) -> NDArray[np.void]:
    """Return the MESSAGE records of a file; raises TapeError."""
    records = []
    previous = 0
    for number, line in _lines(path, limit):
        match = _LINE.fullmatch(line)
        if match is None:
            raise TapeError(f"{path}: line {number}: {_describe_error(line)}")
        seconds, fraction, kind, order_id, size, price, direction = match.groups()
        time_ps = int(seconds) * 10**12 + int((fraction or "").ljust(12, "0"))
        message = (time_ps, int(kind), int(order_id), int(size), int(price), int(direction))
        _check(path, number, message)
        if time_ps < previous:
            raise TapeError(f"{path}: line {number}: time {seconds}.{fraction} is before that of the previous line")
        previous = time_ps
        records.append(message)
    return np.array(records, dtype=MESSAGE)


def read_books(path: Path, limit: int | None = None) -> NDArray[np.int64]:
    """Return the rows of an orderbook file; raises TapeError."""
    rows: list[list[int]] = []
    width = 0
    for number, line in _lines(path, limit):
        if _ROW.fullmatch(line) is None:
            raise TapeError(f"{path}: line {number}: expected integers separated by commas, found {_quoted(line)}")
        row = [int(text) for text in line.split(",")]
        width = width or len(row)
        if len(row) != width or width % _COLUMNS_PER_LEVEL:
            expected = f"{width} columns as in line 1" if rows else "4 columns per level"
            raise TapeError(f"{path}: line {number}: expected {expected}, found {len(row)}")
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _check(path: Path, number: int, message: tuple[int, ...]) -> None:
    """Check what the form of a line leaves open: the time is within a day; an order has a side, a size and a price."""
    time_ps, kind, order_id, size, price, direction = message
    if time_ps >= _DAY_SECONDS * 10**12:
        raise TapeError(f"{path}: line {number}: time: {time_ps // 10**12} seconds is not within a day")
    if kind > Kind.EXECUTION:
        return
    for column, value, good in (
        ("size", size, size > 0),
        ("price", price, price > 0),
        ("order id", order_id, order_id > 0),
    ):
        if not good:
            raise TapeError(f"{path}: line {number}: {column}: must be positive for type {kind}, found {value}")
    if direction == 0:
        raise TapeError(f"{path}: line {number}: direction: must be 1 or -1 for type {kind}, found 0")


def _lines(path: Path, limit: int | None) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers from 1, without trailing white space."""
    text = _text(path)
    lines = text.splitlines()
    for number, line in enumerate(lines[:limit], 1):
        yield number, line.rstrip()


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("ascii")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TapeError(f"{path}: the gzip file is damaged or incomplete: {error}") from None
    except UnicodeDecodeError:
        raise TapeError(f"{path}: not a text file; expected CSV in ASCII, plain or gzip") from None
    except OSError as error:
        raise TapeError(f"{path}: cannot be read: {error.strerror}") from None


def _describe_error(line: str) -> str:
    found = line.split(",")
    if len(found) != len(_COLUMNS):
        names = ", ".join(name for name, _, _ in _COLUMNS)
        return f"expected 6 columns ({names}), found {len(found)}: {_quoted(line)}"
    for text, (name, pattern, expected) in zip(found, _COLUMNS, strict=True):
        if re.fullmatch(pattern, text) is None:
            return f"{name}: expected {expected}, found {_quoted(text)}"
    return f"expected a LOBSTER message, found {_quoted(line)}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _ticker(name: str) -> str:
    """Return the ticker of a file named TICKER_DATE_START_END_message_LEVELS; TAPE for any other name."""
    match = re.match(r"([A-Z.]{1,8})_\d{4}-\d\d-\d\d_", name)
    return match.group(1) if match else "TAPE"
