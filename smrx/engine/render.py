"""Render books, events, outcomes and tables as aligned text, for the command line and test transcripts.

Numbers appear as the records hold them, in ticks, lots and minimal units. Never reads a state.
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
#: Fields that the line of an event begins with; they are not repeated after them.
_LEADING_FIELDS: Final = ("sequence", "command_sequence", "time_ns", "kind")


def code_name(enumeration: type[IntEnum], value: int) -> str:
    """Return the name of a code, or its number if it has no name."""
    return enumeration(value).name if value in set(enumeration) else str(value)


def aligned(header: Sequence[str], rows: Iterable[Sequence[object]], left_aligned: int = 0) -> str:
    """Align rows under a header; the first `left_aligned` columns to the left, the others to the right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        "  ".join(
            cell.ljust(width) if column < left_aligned else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(text.rstrip() for text in texts)


def book(bids: Levels, asks: Levels) -> str:
    """Render bids on the left and asks on the right, the best on top."""
    rows = [
        (*(reversed(bid) if bid else ("", "", "")), "|", *(ask or ("", "", ""))) for bid, ask in zip_longest(bids, asks)
    ]
    return aligned(("orders", "lots", "bid", "|", "ask", "lots", "orders"), rows)


def _fields(record: Any, skip: Sequence[str]) -> str:
    """Render the fields of a record that are not 0 as name=value, codes by their names."""
    parts = []
    for name in record.dtype.names:
        value = int(record[name])
        if value and name not in skip:
            parts.append(f"{name}={code_name(_NAMES[name], value) if name in _NAMES else value}")
    return " ".join(parts)


def events(records: NDArray[Any]) -> str:
    """Render each event as a line: its numbers, its kind, and every field that is not 0."""
    rows = [
        (
            code_name(EventKind, int(record["kind"])),
            int(record["sequence"]),
            int(record["command_sequence"]),
            int(record["time_ns"]),
            _fields(record, _LEADING_FIELDS),
        )
        for record in records
    ]
    lines = aligned(("event", "sequence", "command", "time_ns"), (row[:4] for row in rows), left_aligned=1).split("\n")
    return "\n".join([lines[0], *(f"{line}  {row[4]}".rstrip() for line, row in zip(lines[1:], rows, strict=True))])


def outcomes(records: NDArray[Any]) -> str:
    """Render each outcome as a line."""
    return aligned(
        ("status", "state", "reason", "session", "request", "sequence", "order", "events", "cum", "leaves"),
        (
            (
                code_name(OutcomeStatus, int(record["status"])),
                code_name(EventKind, int(record["event_kind"])) if record["event_kind"] else "",
                code_name(Reason, int(record["reason"])) if record["reason"] else "",
                *(int(record[name]) for name in ("session_id", "request_id", "sequence", "order_id", "event_count")),
                int(record["cum_lots"]),
                int(record["leaves_lots"]),
            )
            for record in records
        ),
        left_aligned=3,
    )


#: How the cells of a column are rendered.
_CELLS: Final[dict[str, Callable[[int], str]]] = {
    "symbol": unpack_symbol,
    "side": lambda value: code_name(Side, value),
    "order_type": lambda value: code_name(OrderType, value),
    "tif": lambda value: code_name(TimeInForce, value),
    "stp": lambda value: code_name(Stp, value),
}


def table(rows: NDArray[Any], **cells: Callable[[int], str]) -> str:
    """Render a table of `inspect` under the names of its columns."""
    names = rows.dtype.names or ()
    show = _CELLS | cells
    return aligned(names, ([show.get(name, str)(int(row[name])) for name in names] for row in rows))


def balances(rows: NDArray[Any]) -> str:
    """Render balances."""
    return table(rows)


def orders(rows: NDArray[Any]) -> str:
    """Render orders."""
    return table(rows)


def accounts(rows: NDArray[Any]) -> str:
    """Render accounts."""
    return table(rows, status=lambda value: code_name(AccountStatus, value))


def instruments(rows: NDArray[Any]) -> str:
    """Render instruments."""
    return table(rows, status=lambda value: code_name(InstrumentStatus, value))
