"""Events as typed records, one class for each thing that happens, for consumers that read events one by one.

Owns the names under which the outside knows the fields of each kind. Exact both ways: decode() refuses an event that
carries anything its kind does not name, and encode() gives back the same 128 bytes. Fast consumers stay with the
arrays. Times in nanoseconds since 1970, prices in ticks, quantities in lots, money in minimal units.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, ClassVar, Final, NamedTuple, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import EventKind, OrderFlags, OrderType, Reason, Side, Stp, TimeInForce
from smrx.engine.records import EVENT, pack_symbol, unpack_symbol


class EventDecodeError(ValueError):
    """The bytes are no event of this version; the message names the event's sequence and the field."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event says."""

    #: Field -> column of the record, where the names differ.
    columns: ClassVar[dict[str, str]] = {}

    sequence: int
    command_sequence: int
    time_ns: int
    session_id: int
    request_id: int


class Order(Event, frozen=True, kw_only=True):
    """The order an event is about."""

    side: Side
    order_type: OrderType
    tif: TimeInForce
    stp: Stp
    flags: OrderFlags
    account: int
    instrument: int
    order_id: int
    client_order_id: int
    price_ticks: int
    quantity_lots: int


class OrderAccepted(Order, frozen=True, kw_only=True, tag="OrderAccepted"):
    """The order is live. `price_ticks` is 0 for a market order."""

    leaves_lots: int


class OrderReplaced(Order, frozen=True, kw_only=True, tag="OrderReplaced"):
    """The order after the change."""

    cum_lots: int
    leaves_lots: int


class OrderEnded(Order, frozen=True, kw_only=True):
    """An order died; the lots that died are quantity_lots - cum_lots."""

    reason: Reason
    cum_lots: int


class OrderCancelled(OrderEnded, frozen=True, kw_only=True, tag="OrderCancelled"):
    """It was cancelled on request."""


class OrderExpired(OrderEnded, frozen=True, kw_only=True, tag="OrderExpired"):
    """Its rest could not or may not rest."""


class Fill(Order, frozen=True, kw_only=True):
    """One order's share of a match: price and quantity of this fill, cum and leaves after it."""

    match_id: int
    cum_lots: int
    leaves_lots: int


class PartialFill(Fill, frozen=True, kw_only=True, tag="PartialFill"):
    """The order lives on."""


class CompleteFill(Fill, frozen=True, kw_only=True, tag="CompleteFill"):
    """Nothing of the order is left."""


class Rejected(Event, frozen=True, kw_only=True, tag="Rejected"):
    """A command was refused. Its fields as they were sent: they may hold anything."""

    reason: Reason
    command_kind: int
    side: int
    order_type: int
    tif: int
    stp: int
    flags: int
    account: int
    instrument: int
    order_id: int
    client_order_id: int
    price_ticks: int
    quantity_lots: int


class Trade(Event, frozen=True, kw_only=True, tag="Trade"):
    """One match of two orders, at the maker's price. Fees in quote units."""

    columns: ClassVar[dict[str, str]] = {
        "taker_side": "side",
        "taker_account": "account",
        "taker_order_id": "order_id",
        "taker_fee": "cum_lots",
        "maker_account": "counter_account",
        "maker_order_id": "counter_order_id",
        "maker_fee": "leaves_lots",
    }

    match_id: int
    instrument: int
    price_ticks: int
    quantity_lots: int
    taker_side: Side
    taker_account: int
    taker_order_id: int
    taker_fee: int
    maker_account: int
    maker_order_id: int
    maker_fee: int


class Transfer(Event, frozen=True, kw_only=True):
    """Money crossed the border of the venue."""

    columns: ClassVar[dict[str, str]] = {
        "asset": "instrument",
        "transfer_id": "order_id",
        "amount": "quantity_lots",
        "available_after": "cum_lots",
    }

    account: int
    asset: int
    transfer_id: int
    amount: int
    available_after: int


class Deposited(Transfer, frozen=True, kw_only=True, tag="Deposited"):
    """Into an account."""


class Withdrawn(Transfer, frozen=True, kw_only=True, tag="Withdrawn"):
    """Out of an account."""


class AccountOpened(Event, frozen=True, kw_only=True, tag="AccountOpened"):
    """An account exists."""

    account: int


class SessionOpened(Event, frozen=True, kw_only=True, tag="SessionOpened"):
    """A client may send commands."""

    account: int


class SessionClosed(Event, frozen=True, kw_only=True, tag="SessionClosed"):
    """The session is gone."""

    account: int


class AssetAdded(Event, frozen=True, kw_only=True, tag="AssetAdded"):
    """An asset exists; decimals are for display only."""

    columns: ClassVar[dict[str, str]] = {
        "asset": "instrument",
        "symbol": "client_order_id",
        "decimals": "quantity_lots",
    }

    asset: int
    symbol: str
    decimals: int


class InstrumentAdded(Event, frozen=True, kw_only=True, tag="InstrumentAdded"):
    """An instrument trades: one lot is `lot_units` of base, one tick x one lot is `scale_units` of quote."""

    columns: ClassVar[dict[str, str]] = {
        "symbol": "client_order_id",
        "base_asset": "order_id",
        "quote_asset": "counter_order_id",
        "lot_units": "account",
        "scale_units": "counter_account",
        "max_price_ticks": "price_ticks",
        "max_quantity_lots": "quantity_lots",
    }

    instrument: int
    symbol: str
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int


class MassCancelled(Event, frozen=True, kw_only=True, tag="MassCancelled"):
    """A mass cancel is done; the orders' own events came before. instrument 0: all of them."""

    columns: ClassVar[dict[str, str]] = {"orders": "quantity_lots"}

    account: int
    instrument: int
    side: Side
    orders: int


AnyEvent = (
    OrderAccepted
    | OrderReplaced
    | OrderCancelled
    | OrderExpired
    | PartialFill
    | CompleteFill
    | Rejected
    | Trade
    | Deposited
    | Withdrawn
    | AccountOpened
    | SessionOpened
    | SessionClosed
    | AssetAdded
    | InstrumentAdded
    | MassCancelled
)

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
}

_NAMES: Final[tuple[str, ...]] = tuple(EVENT.names or ())


class _Field(NamedTuple):
    name: str
    column: int
    convert: Callable[[int], Any] | None


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
            row[field.column] = pack_symbol(value) if isinstance(value, str) else int(value)
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
    for name, column, convert in layout.fields:
        try:
            values[name] = row[column] if convert is None else convert(row[column])
        except (KeyError, ValueError):
            raise EventDecodeError(f"event {row[0]}: expected a known {name}, found {row[column]}") from None
    return layout.build(**values)


def _converter(hint: object) -> Callable[[int], Any] | None:
    if hint is str:
        return _symbol
    if hint is OrderFlags:
        return _flags
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return {int(member): member for member in hint}.__getitem__
    return None


def _symbol(value: int) -> str:
    text = unpack_symbol(value)
    if pack_symbol(text) != value:
        raise ValueError(value)
    return text


def _flags(value: int) -> OrderFlags:
    if value & ~int(OrderFlags.POST_ONLY):
        raise ValueError(value)
    return OrderFlags(value)


def _layout(build: type[AnyEvent]) -> _Layout:
    hints = get_type_hints(build)
    fields = tuple(
        _Field(name, _NAMES.index(build.columns.get(name, name)), _converter(hints[name]))
        for name in build.__struct_fields__
    )
    named = {field.column for field in fields} | {_KIND}
    return _Layout(build, fields, tuple(i for i in range(len(_NAMES)) if i not in named))


_KIND: Final = _NAMES.index("kind")
_LAYOUTS: Final[dict[int, _Layout]] = {int(kind): _layout(build) for kind, build in _CLASSES.items()}
_KINDS: Final[dict[type[Event], int]] = {build: int(kind) for kind, build in _CLASSES.items()}
