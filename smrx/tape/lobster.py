"""Read LOBSTER files: the messages of one share's day, and the best levels of the book after each message.

Files are read as users have them: plain, gzip, xz or zstd (text_file.py), with blank lines, a header line, or the
seventh column of some days, which names a participant or is "null". Everything else must have exactly the documented
form; an error names the file, the line and the column. Times become integer picoseconds (the format allows 12 decimal
places), so nothing is rounded.
Format: https://lobsterdata.com/info/DataStructure.php
"""

import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError
from smrx.tape.text_file import read_lines


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

_LINE: Final = re.compile(
    r"([0-9]{1,5})(?:\.([0-9]{1,12}))?,([1-7]),(-?[0-9]{1,18}),([0-9]{1,12}),(-?[0-9]{1,12}),(-1|1|0)(?:,[A-Za-z]{0,8})?"
)
_ROW: Final = re.compile(r"-?[0-9]{1,12}(?:,-?[0-9]{1,12})*")
_CELL: Final = re.compile(r"-?[0-9]{1,12}")
_COLUMNS: Final = (
    ("time", r"[0-9]{1,5}(\.[0-9]{1,12})?", "seconds after midnight with at most 12 decimal places"),
    ("type", r"[1-7]", "an integer from 1 to 7"),
    ("order id", r"-?[0-9]{1,18}", "an integer"),
    ("size", r"[0-9]{1,12}", "an integer of 0 or more"),
    ("price", r"-?[0-9]{1,12}", "an integer (dollars x 10,000)"),
    ("direction", r"-1|1|0", "1 or -1"),
    ("participant", r"[A-Za-z]{0,8}", "null, a participant of at most 8 letters, or nothing"),
)
#: Columns that every message has; the last of _COLUMNS may be missing.
_REQUIRED: Final = 6
#: Names in a header line, in lower case without punctuation, that would tell one column from another.
_COLUMN_NAMES: Final = (
    {"time", "timestamp", "seconds"},
    {"type", "event", "eventtype", "messagetype", "msgtype"},
    {"id", "orderid", "orderreference", "orderreferencenumber"},
    {"size", "shares", "quantity", "qty", "volume"},
    {"price"},
    {"direction", "side", "buysell", "buysellindicator"},
    {"participant", "mpid", "attribution"},
)
_BOOK_NAMES: Final = (("ask", "price"), ("ask", "size"), ("bid", "price"), ("bid", "size"))
_NAME: Final = re.compile(r'"?[A-Za-z][\w .()/#-]*"?', re.ASCII)


class Recording(NamedTuple):
    """The messages of one share; books has a row for each message, or is None without an orderbook file."""

    name: str
    ticker: str
    messages: NDArray[np.void]
    #: A row: ask price, ask size, bid price, bid size of the best level, then of the next, ...
    books: NDArray[np.int64] | None
    #: Line of each message in its file, counted from 1; None where line and message have the same number.
    lines: NDArray[np.int64] | None = None

    @property
    def levels(self) -> int:
        """Levels of each side of the recorded book; 0 without an orderbook file."""
        return 0 if self.books is None else self.books.shape[1] // _COLUMNS_PER_LEVEL


def read(messages: str | Path, orderbook: str | Path | None = None, limit: int | None = None) -> Recording:
    """Return a recording, or its first `limit` messages; raises TapeError."""
    path = Path(messages)
    found, lines = _numbered_messages(path, limit)
    if not len(found):
        raise TapeError(f"{path}: the file is empty; expected at least one message")
    books = None
    if orderbook is not None:
        books = read_books(Path(orderbook), limit)
        if len(books) != len(found):
            raise TapeError(f"{orderbook}: {_count(len(books), 'row')} for the {len(found)} messages of {path.name}")
    name = re.sub(r"(\.csv)?(\.(gz|xz|zst|zstd))?$", "", path.name)
    return Recording(name, _ticker(name), found, books, lines)


def read_messages(path: Path, limit: int | None = None) -> NDArray[np.void]:
    """Return the MESSAGE records of a file; raises TapeError."""
    return _numbered_messages(path, limit)[0]


def _numbered_messages(path: Path, limit: int | None) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return the MESSAGE records of a file and the line of each."""
    records: list[tuple[int, ...]] = []
    numbers: list[int] = []
    previous = 0
    for number, line in islice(_lines(path, _check_message_header), limit):
        match = _LINE.fullmatch(line)
        if match is None:
            raise _error(path, number, *_describe(line), len(records), "message")
        seconds, fraction, kind, order_id, size, price, direction = match.groups()
        time_ps = int(seconds) * 10**12 + int((fraction or "").ljust(12, "0"))
        message = (time_ps, int(kind), int(order_id), int(size), int(price), int(direction))
        problem_at = _problem(message)
        if problem_at is not None:
            raise _error(path, number, *problem_at, len(records), "message")
        if time_ps < previous:
            problem = f"{line.split(',', 1)[0]} is before the time of the previous message"
            raise _error(path, number, 0, problem, len(records), "message")
        previous = time_ps
        records.append(message)
        numbers.append(number)
    return np.array(records, dtype=MESSAGE), np.array(numbers, dtype=np.int64)


def read_books(path: Path, limit: int | None = None) -> NDArray[np.int64]:
    """Return the rows of an orderbook file; raises TapeError."""
    rows: list[list[int]] = []
    width = first = 0
    for number, line in islice(_lines(path, _check_book_header), limit):
        if _ROW.fullmatch(line) is None:
            cells = line.split(",")
            column = next(i for i, cell in enumerate(cells) if _CELL.fullmatch(cell) is None)
            problem = f"expected integers separated by commas, found {_quoted(cells[column])}"
            raise _error(path, number, column, problem, len(rows), "row")
        row = list(map(int, line.split(",")))
        if not rows:
            width, first = len(row), number
        if len(row) != width or width % _COLUMNS_PER_LEVEL:
            expected = f"{width} columns as in line {first}" if rows else "4 columns per level"
            raise _error(path, number, None, f"expected {expected}, found {len(row)}", len(rows), "row")
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _problem(message: tuple[int, ...]) -> tuple[int, str] | None:
    """Check what the form of a line leaves open: the time is within a day; an order has a side, a size and a price.

    Return the index of the first column that is wrong, and what is.
    """
    time_ps, kind, order_id, size, price, direction = message
    if time_ps >= _DAY_SECONDS * 10**12:
        return 0, f"{time_ps // 10**12} seconds is not within a day"
    if kind > Kind.EXECUTION:
        return None
    for column, value in ((2, order_id), (3, size), (4, price)):
        if value <= 0:
            return column, f"must be positive for type {kind}, found {value}"
    return (5, f"must be 1 or -1 for type {kind}, found 0") if direction == 0 else None


def _lines(path: Path, check_header: Callable[[Path, int, list[str]], None]) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers from 1, without white space at the end, blank lines and a header line."""
    lines = read_lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    cells = lines[first].strip().split(",") if first < len(lines) else []
    if len(cells) >= _COLUMNS_PER_LEVEL and all(_NAME.fullmatch(cell.strip()) for cell in cells):
        check_header(path, first + 1, [cell.strip().strip('"') for cell in cells])
        first += 1
    for number, line in enumerate(islice(lines, first, None), first + 1):
        text = line.rstrip()
        if text:
            yield number, text


def _check_message_header(path: Path, number: int, names: list[str]) -> None:
    """Raise TapeError if a header names the columns in another order."""
    order = ", ".join(name for name, _, _ in _COLUMNS[:_REQUIRED])
    for place, name in enumerate(names[: len(_COLUMNS)]):
        plain = re.sub(r"[^a-z]", "", name.lower())
        if any(plain in known for known in _COLUMN_NAMES) and plain not in _COLUMN_NAMES[place]:
            raise TapeError(
                f"{path}: line {number}, column {place + 1}: expected {_COLUMNS[place][0]}, but the header says "
                f"{_quoted(name)}; put the columns in the order {order}"
            )


def _check_book_header(path: Path, number: int, names: list[str]) -> None:
    """Raise TapeError if a header names the columns in another order."""
    for place, name in enumerate(names):
        side, what = _BOOK_NAMES[place % _COLUMNS_PER_LEVEL]
        others = {"ask": "bid", "bid": "ask", "price": "size", "size": "price"}
        plain = name.lower()
        if any(others[word] in plain and word not in plain for word in (side, what)):
            raise TapeError(
                f"{path}: line {number}, column {place + 1}: expected {side} {what}, but the header says "
                f"{_quoted(name)}; put the columns in the order ask price, ask size, bid price, bid size for each level"
            )


def _error(path: Path, number: int, column: int | None, problem: str, count: int, noun: str) -> TapeError:
    """Return the error of a line; `column` is an index from 0, and `count` the number of messages or rows before."""
    where = f"line {number}"
    if column is not None:
        where += f", column {column + 1}"
        if noun == "message":
            where += f" ({_COLUMNS[column][0]})"
    return TapeError(f"{path}: {where}: {problem}; {_count(count, noun)} read before it")


def _describe(line: str) -> tuple[int | None, str]:
    """Return the index of the column that makes a line invalid, and what was expected."""
    found = line.split(",")
    if not _REQUIRED <= len(found) <= len(_COLUMNS):
        names = ", ".join(name for name, _, _ in _COLUMNS[:_REQUIRED])
        return None, f"expected 6 columns ({names}) or a participant as well, found {len(found)}: {_quoted(line)}"
    for place, (text, (_, pattern, expected)) in enumerate(zip(found, _COLUMNS, strict=False)):
        if re.fullmatch(pattern, text) is None:
            return place, f"expected {expected}, found {_quoted(text)}"
    return None, f"expected a LOBSTER message, found {_quoted(line)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _ticker(name: str) -> str:
    """Return the ticker of a file named TICKER_DATE_START_END_message_LEVELS; TAPE for any other name."""
    match = re.match(r"([A-Z.]{1,8})_\d{4}-\d\d-\d\d_", name)
    return match.group(1) if match else "TAPE"
