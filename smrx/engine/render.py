"""Render books, events, outcomes and tables as aligned text, for the command line and test transcripts.

Numbers appear as the records hold them, in ticks, lots and minimal units. Never reads a state.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderType,
    OutcomeStatus,
    Permission,
    Reason,
    Scope,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import EVENT, EVENT_FIELDS, EVENT_LAYOUTS

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
    "scope": Scope,
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


def _fields(kind: EventKind | None, event: Any) -> str:
    """Render the fields of an event that are not 0 as name=value, codes by their names."""
    codes = _NAMES | ({"status": InstrumentStatus} if kind == EventKind.STATUS_SET else {})
    has_order_id = "client_order_id" in EVENT_FIELDS.get(kind, ()) if kind else False
    parts = []
    for name in event.dtype.names:
        value = event[name].item()
        if not value or name in _LEADING_FIELDS:
            continue
        if event.dtype[name].kind == "V":
            # A key, addresses and the lengths of their prefixes.
            value = bytes(value).hex()
        elif isinstance(value, bytes):
            value = _text(value)
        elif name == "permissions":
            value = "|".join(flag.name or "" for flag in Permission if flag & value)
        elif name in codes:
            value = code_name(codes[name], value)
        elif name == "client_order_id" and has_order_id:
            value = client_order_id(value)
        parts.append(f"{name}={value}")
    return " ".join(parts)


def client_order_id(form: int) -> str:
    """Render the 64-bit form of a client order id: the id itself, or # and its hash if it has more characters."""
    text = short_id_text(form)
    return f"#{form:016x}" if text is None else text


def _text(value: bytes) -> str:
    """Render a text field."""
    return value.decode("ascii", "replace")


def _in_own_layout(event: Any) -> tuple[EventKind | None, Any]:
    """Return the kind of an event, None if it is unknown, and the event with the field names of its kind."""
    kind = EventKind(int(event["kind"])) if int(event["kind"]) in set(EventKind) else None
    return kind, np.frombuffer(event.tobytes(), EVENT_LAYOUTS[kind] if kind else EVENT)[0]


def events(records: NDArray[Any]) -> str:
    """Render each event as a line: its numbers, its kind, and every field that is not 0."""
    rows = [
        (
            code_name(EventKind, int(record["kind"])),
            int(record["sequence"]),
            int(record["command_sequence"]),
            int(record["time_ns"]),
            _fields(*_in_own_layout(record)),
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
    "side": lambda value: code_name(Side, value),
    "order_type": lambda value: code_name(OrderType, value),
    "tif": lambda value: code_name(TimeInForce, value),
    "stp": lambda value: code_name(Stp, value),
}


def table(rows: NDArray[Any], **cells: Callable[[int], str]) -> str:
    """Render a table of `inspect` under the names of its columns."""
    names = rows.dtype.names or ()
    show = _CELLS | cells
    return aligned(names, ([_cell(row[name].item(), show.get(name, str)) for name in names] for row in rows))


def _cell(value: int | bytes, show: Callable[[int], str]) -> str:
    """Render a value: text as it is, a number by `show`."""
    return _text(value) if isinstance(value, bytes) else show(value)


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
