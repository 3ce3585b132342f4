"""The projection of order history: the state of every open order, and an update for each event of an order's life.

Owns the tables of open orders. Pure: events in, rows out; no files, no sockets, no clock. Called by the store.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.follower.record_table import filled, live, table_size
from smrx.history import order_kernels
from smrx.history.history_rows import ORDER_DETAIL, ORDER_UPDATE, ForbiddenTransition, HistoryRows, Rows
from smrx.history.order_kernels import (
    CORE,
    EVENT_ROW,
    FAULT_NUMBERS,
    INSTRUMENT,
    ORDER,
    UPDATE_ROW,
    OrderTables,
    copy_records,
)
from smrx.history.order_status import OrderStatus
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import definitions_of
from smrx.wire.codes import EventKind
from smrx.wire.record_words import concatenate_records
from smrx.wire.records import EVENT_LAYOUTS

#: Events taken in one call; the tables are grown for so many before it.
_PIECE: Final = 4096
_TEXT: Final = EVENT_LAYOUTS[EventKind.CLIENT_ORDER_ID]
_TERMS: Final = EVENT_LAYOUTS[EventKind.ORDER_TERMS]


class OrderHistory:
    """The open orders that follow from the events."""

    def __init__(self) -> None:
        #: Events that the status of their order forbade; the caller reports and clears them.
        self.forbidden: list[ForbiddenTransition] = []
        self._tables = order_kernels.empty_tables()
        self._scratch = np.zeros(1, ORDER)
        self._counts = np.zeros(2, np.int64)

    @property
    def sequence(self) -> int:
        """The last event taken."""
        return int(self._tables.core["sequence"][0])

    @property
    def open_orders(self) -> int:
        """The number of open orders."""
        return int(self._tables.core["orders"][0])

    def orders(self) -> Rows:
        """Return the open orders (ORDER), by id."""
        rows = live(self._tables.orders)
        return rows[np.argsort(rows["key"])]

    @classmethod
    def at(cls, checkpoint: Checkpoint, orders: Rows, definitions: Rows) -> "OrderHistory":
        """Return the history at a checkpoint, with the open orders (ORDER) and all definitions up to there."""
        added = definitions[definitions["kind"] == EventKind.INSTRUMENT_ADDED]
        instruments = np.zeros(len(added), INSTRUMENT)
        instruments["key"], instruments["scale_units"] = added["id"], added["scale_units"]
        core = np.zeros(1, CORE)
        core["sequence"], core["command"] = checkpoint.event_sequence, checkpoint.command_sequence
        core["orders"], core["instruments"] = len(orders), len(instruments)
        history = cls()
        history._tables = OrderTables(filled(orders, 0, copy_records), filled(instruments, 0, copy_records), core)
        return history

    def take(self, events: NDArray[np.void]) -> HistoryRows:
        """Take the events that follow the last one (EVENT, whole commands) and return the rows that they give."""
        rows = np.ascontiguousarray(events).view(EVENT_ROW)
        pieces = [self._take(rows[start : start + _PIECE]) for start in range(0, len(rows), _PIECE)]
        updates = concatenate_records(pieces) if pieces else np.empty(0, ORDER_UPDATE)
        return HistoryRows(updates, _details(events), definitions_of(events))

    def _take(self, rows: NDArray[np.void]) -> Rows:
        self._make_room(len(rows))
        # One more than can be written: a kernel writes an update before it knows that there is none.
        out = np.zeros(len(rows) + 1, UPDATE_ROW)
        faults = np.zeros((len(rows), FAULT_NUMBERS), np.int64)
        order_kernels.take_events(self._tables, rows, self._scratch, out, faults, self._counts)
        written, refused = self._counts.tolist()
        self.forbidden += [ForbiddenTransition(*numbers) for numbers in faults[:refused].tolist()]
        return out[:written].view(ORDER_UPDATE)

    def _make_room(self, events: int) -> None:
        """Grow the tables, so that they are at most half full after so many events."""
        tables = self._tables
        orders, instruments = self.open_orders + events, int(tables.core["instruments"][0]) + events
        if table_size(orders) > len(tables.orders):
            self._tables = self._tables._replace(orders=filled(live(tables.orders), orders, copy_records))
        if table_size(instruments) > len(tables.instruments):
            self._tables = self._tables._replace(
                instruments=filled(live(tables.instruments), instruments, copy_records)
            )


def orders_after(orders: Rows, updates: Rows) -> Rows:
    """Return the open orders (ORDER) that the updates lead to from these ones, by id."""
    # The last update of each order says everything about it.
    reversed_ids = updates["order_id"][::-1]
    _, at = np.unique(reversed_ids, return_index=True)
    last = updates[len(updates) - 1 - at]
    kept = orders[~np.isin(orders["key"], last["order_id"].view(np.int64))]
    still = last[(last["status"] == OrderStatus.NEW) | (last["status"] == OrderStatus.PARTIALLY_FILLED)]
    opened = np.zeros(len(still), ORDER)
    opened["key"] = still["order_id"]
    for name in set(ORDER.names or ()) - {"key", "reserved"}:
        opened[name] = still[name]
    rows = np.concatenate([kept, opened])
    return rows[np.argsort(rows["key"])]


def _details(events: NDArray[np.void]) -> Rows:
    """Return what follows the first events of orders: long client order ids, and terms."""
    kinds = events["kind"]
    at = np.flatnonzero((kinds == EventKind.CLIENT_ORDER_ID) | (kinds == EventKind.ORDER_TERMS))
    rows = np.zeros(len(at), ORDER_DETAIL)
    if not len(at):
        return rows
    is_text = kinds[at] == EventKind.CLIENT_ORDER_ID
    texts, terms = events[at[is_text]].view(_TEXT), events[at[~is_text]].view(_TERMS)
    # Terms follow the text of the same order; both follow the event that they belong to.
    follows_text = np.zeros(len(at), bool)
    follows_text[1:] = ~is_text[1:] & is_text[:-1] & (at[1:] == at[:-1] + 1)
    rows["update_sequence"] = events["sequence"][at] - 1 - follows_text
    rows["order_id"] = events["order_id"][at]
    rows["client_order_id"][is_text] = texts["client_order_id"]
    for name in ("stop_price_ticks", "display_lots", "expiry_ns", "credential"):
        rows[name][~is_text] = terms[name]
    return rows
