"""Books, events, outcomes and tables as aligned text, for people: the command line and test transcripts.

Numbers stand as the records have them, in ticks, lots and minimal units. Never reads a state.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import zip_longest
from typing import Any, Final

from numpy.typing import NDArray

from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderType,
    OutcomeStatus,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import unpack_symbol

Levels = Sequence[tuple[int, int, int]]

_NAMES: Final[dict[str, type[IntEnum]]] = {
    "kind": EventKind,
    "event_kind": EventKind,
    "command_kind": CommandKind,
    "reason": Reason,
    "side": Side,
    "order_type": OrderType,
    "tif": TimeInForce,
    "stp": Stp,
}
#: Fields that a line of an event begins with, so that lines of one command stand together.
_FIRST: Final = ("sequence", "command_sequence", "time_ns", "kind")


def name_of(enumeration: type[IntEnum], value: int) -> str:
    """The name of a code, or its number where it has none."""
    return enumeration(value).name if value in set(enumeration) else str(value)


def aligned(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 0) -> str:
    """Rows under a header; the first `left` columns to the left, the others to the right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(text.rstrip() for text in texts)


def book(bids: Levels, asks: Levels) -> str:
    """Bids to the left, asks to the right, the best on top."""
    rows = [
        (*(reversed(bid) if bid else ("", "", "")), "|", *(ask or ("", "", ""))) for bid, ask in zip_longest(bids, asks)
    ]
    return aligned(("orders", "lots", "bid", "|", "ask", "lots", "orders"), rows)


def _fields(record: Any, skip: Sequence[str]) -> str:
    """What a record says that is not 0: name=value, codes by their names."""
    parts = []
    for name in record.dtype.names:
        value = int(record[name])
        if value and name not in skip:
            parts.append(f"{name}={name_of(_NAMES[name], value) if name in _NAMES else value}")
    return " ".join(parts)


def events(records: NDArray[Any]) -> str:
    """A line an event: its numbers, its kind, and every field that says something."""
    rows = [
        (
            name_of(EventKind, int(record["kind"])),
            int(record["sequence"]),
            int(record["command_sequence"]),
            int(record["time_ns"]),
            _fields(record, _FIRST),
        )
        for record in records
    ]
    lines = aligned(("event", "sequence", "command", "time_ns"), (row[:4] for row in rows), left=1).split("\n")
    return "\n".join([lines[0], *(f"{line}  {row[4]}".rstrip() for line, row in zip(lines[1:], rows, strict=True))])


def outcomes(records: NDArray[Any]) -> str:
    """A line an outcome."""
    return aligned(
        ("status", "state", "reason", "session", "request", "sequence", "order", "events", "cum", "leaves"),
        (
            (
                name_of(OutcomeStatus, int(record["status"])),
                name_of(EventKind, int(record["event_kind"])) if record["event_kind"] else "",
                name_of(Reason, int(record["reason"])) if record["reason"] else "",
                *(int(record[name]) for name in ("session_id", "request_id", "sequence", "order_id", "event_count")),
                int(record["cum_lots"]),
                int(record["leaves_lots"]),
            )
            for record in records
        ),
        left=3,
    )


#: What the cells of a column of a table show.
_CELLS: Final[dict[str, Callable[[int], str]]] = {
    "symbol": unpack_symbol,
    "side": lambda value: name_of(Side, value),
    "order_type": lambda value: name_of(OrderType, value),
    "tif": lambda value: name_of(TimeInForce, value),
    "stp": lambda value: name_of(Stp, value),
}


def table(rows: NDArray[Any], **cells: Callable[[int], str]) -> str:
    """A table of `inspect` under the names of its columns."""
    names = rows.dtype.names or ()
    show = _CELLS | cells
    return aligned(names, ([show.get(name, str)(int(row[name])) for name in names] for row in rows))


def balances(rows: NDArray[Any]) -> str:
    return table(rows)


def orders(rows: NDArray[Any]) -> str:
    return table(rows)


def accounts(rows: NDArray[Any]) -> str:
    return table(rows, status=lambda value: name_of(AccountStatus, value))


def instruments(rows: NDArray[Any]) -> str:
    return table(rows, status=lambda value: name_of(InstrumentStatus, value))
