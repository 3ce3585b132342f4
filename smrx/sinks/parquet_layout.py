"""Define the Parquet files of a settlement: their names, their columns, and the manifest.

Written by parquet_sink.py, read by parquet_reader.py.

A file `trades-<first match id>-<last match id>.parquet` is created complete and never changes; files of other tables
are named by event sequence. Rows that do not fill a file yet are in the table's tail file: the bytes of the rows, as
many as the manifest names.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smrx.sinks.contract import Checkpoint
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
)
from smrx.wire.codes import EventKind, Side

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """One table: its files, and how many bytes of its tail are settled."""

    files: list[str] = []
    tail: int = 0  #: the number of the tail file
    tail_bytes: int = 0


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the manifest."""

    format: int
    checkpoint: Checkpoint | None
    trades: Part
    movements: Part
    definitions: Part


class Table(NamedTuple):
    """One kind of rows."""

    name: str
    dtype: np.dtype[Any]
    key: str  #: the column that names the files

    def file(self, rows: Rows) -> str:
        """Return the name of the file with these rows."""
        return f"{self.name}-{int(rows[0][self.key]):012d}-{int(rows[-1][self.key]):012d}.parquet"

    def tail(self, number: int) -> str:
        """Return the name of a tail file."""
        return f"{self.name}-tail-{number:06d}.rows"

    def owns(self, name: str) -> bool:
        """Return whether a file name belongs to this table, also one that a crash left behind."""
        return re.fullmatch(self.name + r"-(\d{12,}-\d{12,}\.parquet(\.new)?|tail-\d{6,}\.rows)", name) is not None


TABLES: Final = (
    Table("trades", TRADE_ROW, "match_id"),
    Table("movements", MOVEMENT_ROW, "event_sequence"),
    Table("definitions", DEFINITION_ROW, "event_sequence"),
)


class _Word(NamedTuple):
    """The conversion of a column that stores a word for each value."""

    text: Callable[[Any], str]
    value: Callable[[str], int | bytes]


_KIND: Final = _Word(
    lambda value: "OPENING" if value == OPENING else EventKind(value).name,
    lambda text: OPENING if text == "OPENING" else int(EventKind[text]),
)
_WORDS: Final[dict[tuple[str, str], _Word]] = {
    ("trades", "taker_side"): _Word(lambda value: Side(value).name, lambda text: int(Side[text])),
    ("movements", "kind"): _KIND,
    ("definitions", "kind"): _KIND,
    ("definitions", "symbol"): _Word(symbol_text, symbol_bytes),
}


_TIME: Final = pa.timestamp("ns", tz="UTC")


def to_arrow(table: Table, rows: Rows, catalogue: Catalogue) -> pa.Table:
    """Return rows as an Arrow table: numbers as they are, with symbols beside the ids, and `time` beside time_ns."""
    columns: dict[str, pa.Array] = {}
    for name in table.dtype.names or ():
        word = _WORDS.get((table.name, name))
        columns[name] = pa.array(np.ascontiguousarray(rows[name])) if word is None else _words(rows[name], word.text)
        if table.name == "definitions" and any(name in fields for fields in DEFINITION_FIELDS.values()):
            has = np.array([name in DEFINITION_FIELDS[int(kind)] for kind in rows["kind"]], np.bool_)
            columns[name] = pc.if_else(pa.array(has), columns[name], None)
        if name == "time_ns":
            columns["time"] = columns[name].cast(_TIME)
    if table.name == "trades":
        columns["instrument_symbol"] = _words(rows["instrument"], lambda value: catalogue.instruments[value].symbol)
    if table.name == "movements":
        columns["asset_symbol"] = _words(rows["asset"], lambda value: catalogue.assets[value].symbol)
    return pa.table(columns)


def _words(values: Any, word: Callable[[Any], str]) -> pa.Array:
    """Return a column of words; each distinct word is made once."""
    distinct, places = np.unique(values, return_inverse=True)
    texts = pa.array([word(value) for value in distinct.tolist()], pa.string())
    return texts.take(pa.array(places))


def from_arrow(table: Table, found: pa.Table) -> Rows:
    """Return an Arrow table as rows, the inverse of to_arrow(). What a kind of definition does not have becomes 0."""
    rows = np.zeros(found.num_rows, table.dtype)
    for name in table.dtype.names or ():
        column = found.column(name)
        word = _WORDS.get((table.name, name))
        if word is not None:
            distinct = column.unique().to_pylist()
            values = {text: word.value(text) for text in distinct if text is not None}
            nothing = b"" if table.dtype[name].kind == "S" else 0
            rows[name] = [values.get(text, nothing) for text in column.to_pylist()]
        else:
            rows[name] = pc.fill_null(column, 0).to_numpy()
    return rows
