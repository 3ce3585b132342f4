"""Convert rows to CSV text and back: the columns of the three tables, in files as in COPY.

Symbols are written beside ids for readability; reading uses the ids. Called by the sinks and readers of CSV and
PostgreSQL.
"""

import csv
import io
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.sinks.csv_text import Column, Lines, Times, Words, csv_lines, quoted
from smrx.sinks.rows import (
    DEFINITION_FIELDS,
    DEFINITION_ROW,
    MOVEMENT_ROW,
    OPENING,
    TRADE_ROW,
    Catalogue,
    Rows,
    symbol_bytes,
    symbol_text,
    time_texts,
)
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind, Side

#: By the number of the side.
SIDES: Final = tuple(side.name for side in Side)
#: Kinds of movements, sorted by their numbers.
_KINDS: Final = {"OPENING": OPENING, "DEPOSITED": int(EventKind.DEPOSITED), "WITHDRAWN": int(EventKind.WITHDRAWN)}

#: The column of time_ns as ISO 8601, for readers whose numbers have fewer than 19 digits.
TIME: Final = "time"
TRADE_COLUMNS: Final = (
    "match_id", "event_sequence", "command_sequence", "time_ns", TIME, "instrument", "price_ticks", "quantity_lots",
    "notional", "taker_side", "taker_order_id", "taker_account", "taker_fee", "maker_order_id", "maker_account",
    "maker_fee", "instrument_id",
)  # fmt: skip
MOVEMENT_COLUMNS: Final = (
    "event_sequence", "command_sequence", "time_ns", TIME, "kind", "account", "asset", "amount", "available_after",
    "transfer_id", "asset_id",
)  # fmt: skip
_DEFINITION: Final = DEFINITION_ROW.names or ()
DEFINITION_COLUMNS: Final = (*_DEFINITION[:3], TIME, *_DEFINITION[3:])
_ALWAYS: Final = {"event_sequence", "command_sequence", "time_ns", "kind", "id"}


_Read = Callable[[str], Any]


def _number(text: str) -> int:
    return int(text) if text else 0


class Table(NamedTuple):
    """One kind of rows as text."""

    columns: tuple[str, ...]
    dtype: np.dtype[Any]
    #: Column of the text -> (column of the row, function that reads a cell), None for a column that is not read back.
    #: Other columns are integers of the same name; an empty cell is 0.
    special: dict[str, tuple[str, _Read] | None]

    def without_time(self) -> "Table":
        """Return the table without the column that repeats time_ns."""
        return self._replace(columns=tuple(column for column in self.columns if column != TIME))

    def parse(self, text: str, where: str) -> Rows:
        """Return the rows of whole lines, without a header. Raises SinkMismatch for other text."""
        try:
            cells = list(zip(*csv.reader(io.StringIO(text, newline="")), strict=True))
            if not cells:
                return np.empty(0, self.dtype)
            rows = np.zeros(len(cells[0]), self.dtype)
            for column, values in zip(self.columns, cells, strict=True):
                if column == TIME:
                    _check_times(rows["time_ns"], values)
                    continue
                target = self.special.get(column, (column, _number))
                if target is not None:
                    field, read = target
                    rows[field] = [read(value) for value in values]
        except (ValueError, KeyError, OverflowError, csv.Error) as error:
            raise SinkMismatch(f"{where}: does not hold settled rows: {error}") from None
        return rows


TRADES: Final = Table(
    TRADE_COLUMNS,
    TRADE_ROW,
    {"instrument": None, "instrument_id": ("instrument", int), "taker_side": ("taker_side", SIDES.index)},
)
MOVEMENTS: Final = Table(
    MOVEMENT_COLUMNS,
    MOVEMENT_ROW,
    {"asset": None, "asset_id": ("asset", int), "kind": ("kind", _KINDS.__getitem__)},
)
DEFINITIONS: Final = Table(
    DEFINITION_COLUMNS,
    DEFINITION_ROW,
    {"kind": ("kind", lambda text: int(EventKind[text])), "symbol": ("symbol", symbol_bytes)},
)


def _check_times(times_ns: NDArray[np.int64], texts: tuple[str, ...]) -> None:
    """Check that the times in words, read after the numbers, are the same. Raises ValueError."""
    for number, found, expected in zip(times_ns.tolist(), texts, time_texts(times_ns).tolist(), strict=True):
        if found != expected:
            raise ValueError(f"time_ns {number} is {expected}, found time {found!r}")


def trade_lines(trades: Rows, catalogue: Catalogue) -> Lines:
    """Return the lines of trades."""
    symbols = [catalogue.instruments[i].symbol for i in sorted(catalogue.instruments)]
    special: dict[str, Column] = {
        "instrument": Words(catalogue.places(trades), symbols),
        TIME: Times(trades["time_ns"]),
        "taker_side": Words(trades["taker_side"], SIDES),
        "instrument_id": trades["instrument"],
    }
    return csv_lines([special[name] if name in special else trades[name] for name in TRADE_COLUMNS])


def movement_lines(movements: Rows, catalogue: Catalogue) -> Lines:
    """Return the lines of movements of money. Raises SinkMismatch for an asset that no event defined."""
    ids, indexes = np.unique(movements["asset"], return_inverse=True)
    unknown = [int(i) for i in ids if int(i) not in catalogue.assets]
    if unknown:
        raise SinkMismatch(f"event {movements['event_sequence'][0]}: asset {unknown[0]}, which no event defined")
    special: dict[str, Column] = {
        TIME: Times(movements["time_ns"]),
        "kind": Words(np.searchsorted(list(_KINDS.values()), movements["kind"]), list(_KINDS)),
        "asset": Words(indexes, [catalogue.assets[int(i)].symbol for i in ids]),
        "asset_id": movements["asset"],
    }
    return csv_lines([special[name] if name in special else movements[name] for name in MOVEMENT_COLUMNS])


def definition_lines(definitions: Rows) -> Lines:
    """Return the lines of definitions; fields that a kind does not have are empty."""
    lines: list[bytes] = []
    for row, time_text in zip(definitions, time_texts(definitions["time_ns"]).tolist(), strict=True):
        kind = int(row["kind"])
        cells = []
        for name in DEFINITION_COLUMNS:
            if name == TIME:
                cells.append(time_text)
            elif name == "kind":
                cells.append(EventKind(kind).name)
            elif name not in _ALWAYS and name not in DEFINITION_FIELDS[kind]:
                cells.append("")
            else:
                cells.append(quoted(symbol_text(row[name])) if name == "symbol" else str(int(row[name])))
        lines.append((",".join(cells) + "\r\n").encode())
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    return Lines(np.frombuffer(b"".join(lines), np.uint8), ends)
