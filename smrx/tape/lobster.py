"""Reads LOBSTER files: the messages of one share's day, and the book after each of them.

Plain or gzip, told by the first bytes. A line is accepted only in exactly the documented form; times become integer
picoseconds (12 decimal places, all that the format allows), so nothing is rounded. Knows nothing of commands.
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

#: What stands for a price where a side has fewer levels: 9999999999 (ask) and -9999999999 (bid), with size 0.
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
    """One share's flow; books has a row for each message, or is None where there is no orderbook file."""

    name: str
    ticker: str
    messages: NDArray[np.void]
    #: A row: ask price, ask size, bid price, bid size of the best level, then of the next, ...
    books: NDArray[np.int64] | None

    @property
    def levels(self) -> int:
        """Levels a side of the recorded book; 0 without one."""
        return 0 if self.books is None else self.books.shape[1] // _COLUMNS_PER_LEVEL


def read(messages: str | Path, orderbook: str | Path | None = None, limit: int | None = None) -> Recording:
    """Return a recording, or its first `limit` messages; raises TapeError."""
    path = Path(messages)
    found = read_messages(path, limit)
    if not len(found):
        raise TapeError(f"{path}: expected at least one message, found an empty file")
    books = None
    if orderbook is not None:
        books = read_books(Path(orderbook), limit)
        if len(books) != len(found):
            raise TapeError(
                f"{orderbook}: expected a row for each of the {len(found)} messages of {path.name}, found {len(books)}"
            )
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Recording(name, _ticker(name), found, books)


def read_messages(path: Path, limit: int | None = None) -> NDArray[np.void]:
    """Return the MESSAGE records of a file; raises TapeError."""
    records = []
    previous = 0
    for number, line in _lines(path, limit):
        match = _LINE.fullmatch(line)
        if match is None:
            raise TapeError(f"{path}: line {number}: {_what_is_wrong(line)}")
        seconds, fraction, kind, order_id, size, price, direction = match.groups()
        time_ps = int(seconds) * 10**12 + int((fraction or "").ljust(12, "0"))
        message = (time_ps, int(kind), int(order_id), int(size), int(price), int(direction))
        _check(path, number, message)
        if time_ps < previous:
            raise TapeError(
                f"{path}: line {number}: time: expected none before the line above, found {seconds}.{fraction}"
            )
        previous = time_ps
        records.append(message)
    return np.array(records, dtype=MESSAGE)


def read_books(path: Path, limit: int | None = None) -> NDArray[np.int64]:
    """Return the rows of an orderbook file; raises TapeError."""
    rows: list[list[int]] = []
    width = 0
    for number, line in _lines(path, limit):
        if _ROW.fullmatch(line) is None:
            raise TapeError(f"{path}: line {number}: expected integers between commas, found {_shown(line)}")
        row = [int(text) for text in line.split(",")]
        width = width or len(row)
        if len(row) != width or width % _COLUMNS_PER_LEVEL:
            expected = f"{width} columns as in line 1" if rows else "4 columns a level"
            raise TapeError(f"{path}: line {number}: expected {expected}, found {len(row)}")
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _check(path: Path, number: int, message: tuple[int, ...]) -> None:
    """What the form of a line does not say: an order has a side, a size and a price."""
    time_ps, kind, order_id, size, price, direction = message
    if time_ps >= _DAY_SECONDS * 10**12:
        raise TapeError(
            f"{path}: line {number}: time: expected below {_DAY_SECONDS} seconds, found {time_ps // 10**12}"
        )
    if kind > Kind.EXECUTION:
        return
    for column, value, good in (
        ("size", size, size > 0),
        ("price", price, price > 0),
        ("order id", order_id, order_id > 0),
    ):
        if not good:
            raise TapeError(f"{path}: line {number}: {column}: expected more than 0 for type {kind}, found {value}")
    if direction == 0:
        raise TapeError(f"{path}: line {number}: direction: expected 1 or -1 for type {kind}, found 0")


def _lines(path: Path, limit: int | None) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1; a blank line at the end of the file is none."""
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
        raise TapeError(f"{path}: expected a whole gzip file, found: {error}") from None
    except UnicodeDecodeError:
        raise TapeError(f"{path}: expected lines of ASCII text (CSV, plain or gzip), found other bytes") from None
    except OSError as error:
        raise TapeError(f"{path}: expected a readable file, found: {error.strerror}") from None


def _what_is_wrong(line: str) -> str:
    found = line.split(",")
    if len(found) != len(_COLUMNS):
        names = ", ".join(name for name, _, _ in _COLUMNS)
        return f"expected 6 columns ({names}), found {len(found)}: {_shown(line)}"
    for text, (name, pattern, expected) in zip(found, _COLUMNS, strict=True):
        if re.fullmatch(pattern, text) is None:
            return f"{name}: expected {expected}, found {_shown(text)}"
    return f"expected a LOBSTER message, found {_shown(line)}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _ticker(name: str) -> str:
    """LOBSTER names its files TICKER_DATE_START_END_message_LEVELS; any other name gives TAPE."""
    match = re.match(r"([A-Z.]{1,8})_\d{4}-\d\d-\d\d_", name)
    return match.group(1) if match else "TAPE"
