"""Derive the updates of orders from events, one event after the other. Compiled, exact integers.

A TRADE carries the fees of both parties; the fills of the maker and of the taker follow it, in that order. An event
that the status of its order forbids changes nothing and is returned as a fault.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import entry_point, fingerprint, kernel, view_as
from smrx.follower.record_table import copy_all, find, is_compiled, place, remove, table_size
from smrx.history.history_rows import ORDER_UPDATE
from smrx.history.order_status import OrderStatus, transition_codes
from smrx.wire.codes import CommandKind, EventKind
from smrx.wire.records import EVENT_LAYOUTS, signed_words

EVENT_ROW: Final = signed_words(EVENT_LAYOUTS[EventKind.NEW])
TRADE_ROW_WORDS: Final = signed_words(EVENT_LAYOUTS[EventKind.TRADE])
INSTRUMENT_ROW_WORDS: Final = signed_words(EVENT_LAYOUTS[EventKind.INSTRUMENT_ADDED])
UPDATE_ROW: Final = signed_words(ORDER_UPDATE)

#: An open order; `key` is its id.
ORDER: Final = np.dtype(
    [
        ("key", "<i8"), ("client_order_id", "<i8"), ("price_ticks", "<i8"), ("quantity_lots", "<i8"),
        ("filled_lots", "<i8"), ("notional", "<i8"), ("fees", "<i8"), ("created_ns", "<i8"),
        ("account", "<u4"), ("instrument", "<u4"), ("status", "u1"), ("side", "u1"), ("order_type", "u1"),
        ("tif", "u1"), ("flags", "u1"), ("reserved", "u1", 3),
    ]
)  # fmt: skip
#: `scale_units`: quote units that one tick x one lot is worth.
INSTRUMENT: Final = np.dtype([("key", "<i8"), ("scale_units", "<i8")])
#: Where the projection stands. The fees are those of the last trade, whose fills may follow.
CORE: Final = np.dtype(
    [
        ("sequence", "<i8"), ("command", "<i8"), ("orders", "<i8"), ("instruments", "<i8"),
        ("taker_order", "<i8"), ("taker_fee", "<i8"), ("maker_fee", "<i8"),
    ]
)  # fmt: skip
#: event sequence, order id, status, kind
FAULT_NUMBERS: Final = 4

_CODES: Final = transition_codes()
_UNKNOWN: Final = int(OrderStatus.UNKNOWN)
_NEW_STATUS: Final = int(OrderStatus.NEW)
_PARTIAL: Final = int(OrderStatus.PARTIALLY_FILLED)
_NEW: Final = int(EventKind.NEW)
_PARTIALLY_FILLED: Final = int(EventKind.PARTIALLY_FILLED)
_FILLED: Final = int(EventKind.FILLED)
_REPLACED: Final = int(EventKind.REPLACED)
_TRIGGERED: Final = int(EventKind.TRIGGERED)
_REJECTED: Final = int(EventKind.REJECTED)
_TRADE: Final = int(EventKind.TRADE)
_INSTRUMENT_ADDED: Final = int(EventKind.INSTRUMENT_ADDED)
_PLACE: Final = int(CommandKind.PLACE)
#: Whether a kind is about an order, by kind.
_IS_ORDER: Final = (_CODES != 0).any(axis=0).astype(np.uint8)


class OrderTables(NamedTuple):
    """The open orders, the instruments and where the projection stands; a plain tuple of arrays, as kernels require."""

    orders: NDArray[Any]
    instruments: NDArray[Any]
    core: NDArray[Any]


@kernel
def begin_order(order: Any, row: Any) -> None:
    """Fill in an order from its first event."""
    order.client_order_id = row.client_order_id
    order.price_ticks = row.price_ticks
    order.quantity_lots = row.quantity_lots
    order.filled_lots = 0
    order.notional = 0
    order.fees = 0
    order.created_ns = row.time_ns
    order.account = row.account
    order.instrument = row.instrument
    order.side = row.side
    order.order_type = row.order_type
    order.tif = row.tif
    order.flags = row.flags


@kernel
def write_update(out: Any, order: Any, row: Any, status: Any) -> None:
    """Write the state of an order after an event, without a fill."""
    out.event_sequence = row.sequence
    out.command_sequence = row.command_sequence
    out.time_ns = row.time_ns
    out.order_id = row.order_id
    out.client_order_id = order.client_order_id
    out.price_ticks = order.price_ticks
    out.quantity_lots = order.quantity_lots
    out.filled_lots = order.filled_lots
    out.notional = order.notional
    out.fees = order.fees
    out.match_id = 0
    out.last_price_ticks = 0
    out.last_lots = 0
    out.last_fee = 0
    out.created_ns = order.created_ns
    out.account = order.account
    out.instrument = order.instrument
    out.reason = row.reason
    out.status = status
    out.side = order.side
    out.order_type = order.order_type
    out.tif = order.tif
    out.flags = order.flags
    out.kind = row.kind
    out.is_maker = 0
    out.is_first = 0


@kernel
def add_fill(tables: Any, order: Any, row: Any, out: Any) -> None:
    """Add a fill to an order, and write the update."""
    core = tables.core[0]
    is_maker = row.order_id != core.taker_order
    fee = core.maker_fee if is_maker else core.taker_fee
    listed = find(tables.instruments, np.int64(row.instrument))
    scale = tables.instruments[listed].scale_units if listed >= 0 else 0
    order.filled_lots += row.quantity_lots
    order.notional += row.price_ticks * row.quantity_lots * scale
    order.fees += fee
    write_update(out, order, row, order.status)
    out.match_id = row.match_id
    out.last_price_ticks = row.price_ticks
    out.last_lots = row.quantity_lots
    out.last_fee = fee
    out.is_maker = 1 if is_maker else 0


@kernel
def update_order(tables: Any, row: Any, scratch: Any, out: Any) -> Any:
    """Take one event of an order and write its update; return the order's status before, or -1 if it is not forbidden.

    `scratch` is a table of one order, for those that begin and end with one event.
    """
    at = find(tables.orders, row.order_id) if row.order_id != 0 else -1
    before = tables.orders[at].status if at >= 0 else _UNKNOWN
    after = _CODES[before, row.kind]
    if after == _UNKNOWN:
        return np.int64(before)
    if before == _UNKNOWN:
        if row.kind == _NEW:
            at = place(tables.orders, row.order_id)
            order = tables.orders[at]
            order.key = row.order_id
            tables.core[0].orders += 1
        else:
            order = scratch[0]
        begin_order(order, row)
        order.status = after
        write_update(out, order, row, after)
        out.is_first = 1
        return np.int64(-1)
    order = tables.orders[at]
    order.status = after
    if row.kind == _PARTIALLY_FILLED or row.kind == _FILLED:
        add_fill(tables, order, row, out)
    else:
        if row.kind == _REPLACED:
            order.price_ticks = row.price_ticks
            order.quantity_lots = row.quantity_lots
        elif row.kind == _TRIGGERED:
            order.order_type = row.order_type
        write_update(out, order, row, after)
    if after != _NEW_STATUS and after != _PARTIAL:
        remove(tables.orders, at)
        tables.core[0].orders -= 1
    return np.int64(-1)


@kernel
def take_event(tables: Any, row: Any, scratch: Any, out: Any) -> Any:
    """Take one event; return -2 if it wrote no update, -1 if it wrote one, else the status that forbids it."""
    core = tables.core[0]
    core.sequence = row.sequence
    core.command = row.command_sequence
    if row.kind == _TRADE:
        made = view_as(row, TRADE_ROW_WORDS)
        core.taker_order = made.order_id
        core.taker_fee = made.taker_fee
        core.maker_fee = made.maker_fee
        return np.int64(-2)
    if row.kind == _INSTRUMENT_ADDED:
        added = view_as(row, INSTRUMENT_ROW_WORDS)
        key = np.int64(added.instrument)
        at = find(tables.instruments, key)
        if at < 0:
            at = place(tables.instruments, key)
            core.instruments += 1
        tables.instruments[at].key = key
        tables.instruments[at].scale_units = added.scale_units
        return np.int64(-2)
    if not _IS_ORDER[row.kind] or (row.kind == _REJECTED and row.command_kind != _PLACE):
        return np.int64(-2)
    return update_order(tables, row, scratch, out)


def _compiled(source: int) -> tuple[Any, Any]:
    """Return the entry points, compiled again whenever the source of any kernel changes (see jit.fingerprint)."""
    version = np.uint64(source)

    def take_events(tables: Any, rows: Any, scratch: Any, out: Any, faults: Any, counts: Any) -> None:
        """Take events in order. counts: updates written to `out`, forbidden events written to `faults`."""
        if version == np.uint64(len(rows)):  # never true: it makes the version a part of the compiled code
            return
        written, refused = 0, 0
        for i in range(len(rows)):
            status = take_event(tables, rows[i], scratch, out[written])
            if status == -1:
                written += 1
            elif status >= 0:
                faults[refused, 0] = rows[i].sequence
                faults[refused, 1] = rows[i].order_id
                faults[refused, 2] = status
                faults[refused, 3] = rows[i].kind
                refused += 1
        counts[0], counts[1] = written, refused

    def copy_records(table: Any, records: Any) -> None:
        if version != np.uint64(0):
            copy_all(table, records)

    return entry_point(take_events), entry_point(copy_records)


#: Every module whose source is compiled into the entry points.
_MODULES: Final = (
    "smrx.history.order_kernels",
    "smrx.history.order_status",
    "smrx.history.history_rows",
    "smrx.follower.record_table",
    "smrx.wire.codes",
    "smrx.wire.records",
    "smrx.engine.kernels.jit",
)
take_events, copy_records = _compiled(fingerprint(*_MODULES))


def compiled_before() -> bool:
    """Return whether the compiled projection is in the cache; if not, compiling it takes some seconds."""
    return is_compiled(take_events)


def empty_tables() -> OrderTables:
    """Return the tables before event 1."""
    return OrderTables(np.zeros(table_size(0), ORDER), np.zeros(table_size(0), INSTRUMENT), np.zeros(1, CORE))


def warm_up() -> None:
    """Compile the projection, or load it from the cache."""
    tables = empty_tables()
    for table in (tables.orders, tables.instruments):
        copy_records(table, np.zeros(0, table.dtype))
    faults, counts = np.zeros((0, FAULT_NUMBERS), np.int64), np.zeros(2, np.int64)
    take_events(tables, np.zeros(0, EVENT_ROW), np.zeros(1, ORDER), np.zeros(1, UPDATE_ROW), faults, counts)
