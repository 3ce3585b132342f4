"""Events as typed records, one class for each thing that happens, for consumers that read events one by one.

Exact both ways: decode() refuses an event that carries anything its kind does not name, and encode() gives back the
same 128 bytes. The records themselves are in smrx/feed/events.py and are offered here too. Fast consumers stay with
the arrays.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from smrx.feed.events import (
    AccountOpened,
    AccountResumed,
    AccountSuspended,
    AnyEvent,
    AssetAdded,
    CompleteFill,
    Deposited,
    Event,
    Fill,
    InstrumentAdded,
    Killed,
    LimitsSet,
    MassCancelled,
    Order,
    OrderAccepted,
    OrderCancelled,
    OrderEnded,
    OrderExpired,
    OrderReplaced,
    OrderTriggered,
    PartialFill,
    Rejected,
    Revived,
    RulesSet,
    SessionClosed,
    SessionDisconnected,
    SessionEnded,
    SessionOpened,
    Signed32,
    StatusSet,
    Ticked,
    Trade,
    Transfer,
    Withdrawn,
)
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT, pack_symbol, unpack_symbol

__all__ = [
    "AccountOpened",
    "AccountResumed",
    "AccountSuspended",
    "AnyEvent",
    "AssetAdded",
    "CompleteFill",
    "Deposited",
    "Event",
    "EventDecodeError",
    "Fill",
    "InstrumentAdded",
    "Killed",
    "LimitsSet",
    "MassCancelled",
    "Order",
    "OrderAccepted",
    "OrderCancelled",
    "OrderEnded",
    "OrderExpired",
    "OrderReplaced",
    "OrderTriggered",
    "PartialFill",
    "Rejected",
    "Revived",
    "RulesSet",
    "SessionClosed",
    "SessionDisconnected",
    "SessionEnded",
    "SessionOpened",
    "StatusSet",
    "Ticked",
    "Trade",
    "Transfer",
    "Withdrawn",
    "decode",
    "encode",
]


class EventDecodeError(ValueError):
    """The bytes are no event of this version; the message names the event's sequence and the field."""


_CLASSES: Final[dict[EventKind, type[AnyEvent]]] = {
    EventKind.NEW: OrderAccepted,
    EventKind.PARTIALLY_FILLED: PartialFill,
    EventKind.FILLED: CompleteFill,
    EventKind.CANCELLED: OrderCancelled,
    EventKind.REPLACED: OrderReplaced,
    EventKind.REJECTED: Rejected,
    EventKind.EXPIRED: OrderExpired,
    EventKind.TRADE: Trade,
    EventKind.DEPOSITED: Deposited,
    EventKind.WITHDRAWN: Withdrawn,
    EventKind.ACCOUNT_OPENED: AccountOpened,
    EventKind.SESSION_OPENED: SessionOpened,
    EventKind.SESSION_CLOSED: SessionClosed,
    EventKind.ASSET_ADDED: AssetAdded,
    EventKind.INSTRUMENT_ADDED: InstrumentAdded,
    EventKind.MASS_CANCELLED: MassCancelled,
    EventKind.ACCOUNT_SUSPENDED: AccountSuspended,
    EventKind.ACCOUNT_RESUMED: AccountResumed,
    EventKind.STATUS_SET: StatusSet,
    EventKind.LIMITS_SET: LimitsSet,
    EventKind.KILLED: Killed,
    EventKind.REVIVED: Revived,
    EventKind.TICKED: Ticked,
    EventKind.RULES_SET: RulesSet,
    EventKind.TRIGGERED: OrderTriggered,
    EventKind.SESSION_DISCONNECTED: SessionDisconnected,
}

_U32: Final = (1 << 32) - 1
_NAMES: Final[tuple[str, ...]] = tuple(EVENT.names or ())


class _Field(NamedTuple):
    name: str
    column: int
    convert: Callable[[int], Any] | None
    revert: Callable[[Any], int] | None


class _Layout(NamedTuple):
    """How one kind's record becomes its class and back."""

    build: type[AnyEvent]
    fields: tuple[_Field, ...]
    unnamed: tuple[int, ...]


def decode(events: NDArray[np.void]) -> list[AnyEvent]:
    """Return the typed records of an array of events, in order; raises EventDecodeError."""
    return [_decode_row(row) for row in events.tolist()]


def encode(events: Iterable[AnyEvent]) -> NDArray[np.void]:
    """Return the array of typed records, the inverse of decode()."""
    rows = []
    for event in events:
        kind = _KINDS[type(event)]
        row = [0] * len(_NAMES)
        row[_KIND] = kind
        for field in _LAYOUTS[kind].fields:
            value = getattr(event, field.name)
            row[field.column] = int(value) if field.revert is None else field.revert(value)
        rows.append(tuple(row))
    return np.array(rows, EVENT)


def _decode_row(row: tuple[int, ...]) -> AnyEvent:
    layout = _LAYOUTS.get(row[_KIND])
    if layout is None:
        raise EventDecodeError(f"event {row[0]}: expected a known kind, found {row[_KIND]}")
    for column in layout.unnamed:
        if row[column]:
            raise EventDecodeError(
                f"event {row[0]}: expected {_NAMES[column]} 0 in {layout.build.__name__}, found {row[column]}"
            )
    values: dict[str, Any] = {}
    for name, column, convert, _ in layout.fields:
        try:
            values[name] = row[column] if convert is None else convert(row[column])
        except (KeyError, ValueError):
            raise EventDecodeError(f"event {row[0]}: expected a known {name}, found {row[column]}") from None
    return layout.build(**values)


def _converters(hint: Any) -> tuple[Callable[[int], Any] | None, Callable[[Any], int] | None]:
    """How a column becomes a field of that type, and back; None where int() does."""
    if hint is str:
        return _symbol, pack_symbol
    if hint is Signed32:
        return (lambda value: value - ((value >> 31) << 32)), (lambda value: value & _U32)
    if isinstance(hint, type) and issubclass(hint, IntFlag):
        return _flags(hint), None
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return {int(member): member for member in hint}.__getitem__, None
    return None, None


def _symbol(value: int) -> str:
    text = unpack_symbol(value)
    if pack_symbol(text) != value:
        raise ValueError(value)
    return text


def _flags(kind: type[IntFlag]) -> Callable[[int], IntFlag]:
    known = sum(int(flag) for flag in kind)

    def convert(value: int) -> IntFlag:
        if value & ~known:
            raise ValueError(value)
        return kind(value)

    return convert


def _layout(build: type[AnyEvent]) -> _Layout:
    hints = get_type_hints(build)
    fields = tuple(
        _Field(name, _NAMES.index(build.columns.get(name, name)), *_converters(hints[name]))
        for name in build.__struct_fields__
    )
    named = {field.column for field in fields} | {_KIND}
    return _Layout(build, fields, tuple(i for i in range(len(_NAMES)) if i not in named))


_KIND: Final = _NAMES.index("kind")
_LAYOUTS: Final[dict[int, _Layout]] = {int(kind): _layout(build) for kind, build in _CLASSES.items()}
_KINDS: Final[dict[type[Event], int]] = {build: int(kind) for kind, build in _CLASSES.items()}
