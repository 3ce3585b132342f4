"""The CSV files of a settlement: their names, columns, and the checkpoint beside them. Written by csv_sink.py, read by
csv_reader.py.
"""

import datetime
import re
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from smrx.engine.codes import EventKind, Side
from smrx.settlement.errors import SinkMismatch
from smrx.settlement.sinks.base import Checkpoint
from smrx.settlement.sinks.rows import DEFINITION_FIELDS, DEFINITION_ROW, Catalogue, Rows, symbol_text
from smrx.settlement.sinks.text import Column, Lines, Words, csv_lines, quoted

FILE_NAME: Final = "settled_trades.csv"
FORMAT: Final = 1
DAY_NS: Final = 86_400_000_000_000

#: By the number of the side.
SIDES: Final = tuple(side.name for side in Side)
#: By the number of the kind of event, from DEPOSITED on.
KINDS: Final = ("DEPOSITED", "WITHDRAWN")
KINDS_FROM: Final = int(EventKind.DEPOSITED)

TRADE_COLUMNS: Final = (
    "match_id", "event_sequence", "command_sequence", "time_ns", "instrument", "price_ticks", "quantity_lots",
    "notional", "taker_side", "taker_order_id", "taker_account", "taker_fee", "maker_order_id", "maker_account",
    "maker_fee", "instrument_id",
)  # fmt: skip
MOVEMENT_COLUMNS: Final = (
    "event_sequence", "command_sequence", "time_ns", "kind", "account", "asset", "amount", "available_after",
    "transfer_id", "asset_id",
)  # fmt: skip
DEFINITION_COLUMNS: Final = DEFINITION_ROW.names or ()
_ALWAYS: Final = {"event_sequence", "command_sequence", "time_ns", "kind", "id"}


class Stream(msgspec.Struct, forbid_unknown_fields=True):
    """One table: the files that are complete, and how much of the last one is settled."""

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
    """Return the files that `out` names: a .csv file, or the directory of settled_trades.csv."""
    path = Path(out).expanduser()
    if path.suffix.lower() != ".csv" or path.is_dir():
        path /= FILE_NAME
    stem = path.name[: -len(".csv")]
    others = [
        stem.replace("trades", table) if "trades" in stem else f"{stem}_{table}"
        for table in ("movements", "definitions")
    ]
    return Layout(path.parent, stem, *others)


def file_name(stem: str, number: int | None, day: int | None) -> str:
    """The name of one file of a table, by its number and its day where files are rotated by them."""
    parts = [stem]
    if day is not None:
        parts.append((datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat())
    if number is not None:
        parts.append(f"{number:06d}")
    return "-".join(parts) + ".csv"


def is_file_of(stem: str, name: str) -> bool:
    """Whether a name is one that file_name() gives."""
    return re.fullmatch(re.escape(stem) + r"(-\d{4}-\d\d-\d\d)?(-\d{6,})?\.csv", name) is not None


def header(columns: tuple[str, ...]) -> bytes:
    """The first line of a file."""
    return (",".join(columns) + "\r\n").encode()


def trade_lines(trades: Rows, catalogue: Catalogue) -> Lines:
    """The lines of trades."""
    symbols = [catalogue.instruments[i].symbol for i in sorted(catalogue.instruments)]
    special: dict[str, Column] = {
        "instrument": Words(catalogue.places(trades), symbols),
        "taker_side": Words(trades["taker_side"], SIDES),
        "instrument_id": trades["instrument"],
    }
    return csv_lines([special[name] if name in special else trades[name] for name in TRADE_COLUMNS])


def movement_lines(movements: Rows, catalogue: Catalogue) -> Lines:
    """The lines of movements of money. Raises SinkMismatch for an asset that no event defined."""
    ids, indexes = np.unique(movements["asset"], return_inverse=True)
    unknown = [int(i) for i in ids if int(i) not in catalogue.assets]
    if unknown:
        raise SinkMismatch(f"event {movements['event_sequence'][0]}: asset {unknown[0]}, which no event defined")
    special: dict[str, Column] = {
        "kind": Words(movements["kind"] - np.uint64(KINDS_FROM), KINDS),
        "asset": Words(indexes, [catalogue.assets[int(i)].symbol for i in ids]),
        "asset_id": movements["asset"],
    }
    return csv_lines([special[name] if name in special else movements[name] for name in MOVEMENT_COLUMNS])


def definition_lines(definitions: Rows) -> Lines:
    """The lines of definitions; what a kind does not have is left empty."""
    lines: list[bytes] = []
    for row in definitions:
        kind = int(row["kind"])
        cells = []
        for name in DEFINITION_COLUMNS:
            value = int(row[name])
            if name == "kind":
                cells.append(EventKind(kind).name)
            elif name not in _ALWAYS and name not in DEFINITION_FIELDS[kind]:
                cells.append("")
            else:
                cells.append(quoted(symbol_text(value)) if name == "symbol" else str(value))
        lines.append((",".join(cells) + "\r\n").encode())
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    return Lines(np.frombuffer(b"".join(lines), np.uint8), ends)
