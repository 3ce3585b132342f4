"""Define the rows of order history: an update for each event of an order's life, and what few orders have besides.

Prices in ticks, quantities in lots, money (notional, fees) in minimal units of the instrument's quote asset, times in
nanoseconds since 1970 by the exchange's clock.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import CLIENT_ORDER_ID_SIZE

Rows = NDArray[np.void]

#: The state of an order after an event. The average price is notional / (filled lots x the instrument's scale).
ORDER_UPDATE: Final = np.dtype(
    [
        ("event_sequence", "<u8"), ("command_sequence", "<u8"), ("time_ns", "<i8"), ("order_id", "<u8"),
        ("client_order_id", "<u8"),  # the 64-bit form; the text of a longer id is in its ORDER_DETAIL
        ("price_ticks", "<i8"), ("quantity_lots", "<i8"),  # of an order by budget: quote units
        ("filled_lots", "<i8"), ("notional", "<i8"), ("fees", "<i8"),  # of all its fills; negative fees are rebates
        ("match_id", "<u8"), ("last_price_ticks", "<i8"), ("last_lots", "<i8"), ("last_fee", "<i8"),  # of a fill
        ("created_ns", "<i8"),
        ("account", "<u4"), ("instrument", "<u4"), ("reason", "<u2"), ("status", "u1"), ("side", "u1"),
        ("order_type", "u1"), ("tif", "u1"), ("flags", "u1"), ("kind", "u1"),  # of the event
        ("is_maker", "u1"), ("is_first", "u1"), ("reserved_2", "<u2"), ("reserved_4", "<u4"),
    ]
)  # fmt: skip

#: What an order has that most do not have: a client order id of more than 8 characters, or terms. Each event that
#: follows an order's first one is a row; fields that its kind does not have are 0 or empty.
ORDER_DETAIL: Final = np.dtype(
    [
        ("update_sequence", "<u8"),  # the event of the order's first update
        ("order_id", "<u8"), ("client_order_id", f"S{CLIENT_ORDER_ID_SIZE}"), ("stop_price_ticks", "<i8"),
        ("display_lots", "<i8"), ("expiry_ns", "<i8"), ("credential", "<u4"), ("reserved", "<u4"),
    ]
)  # fmt: skip


class HistoryRows(NamedTuple):
    """The rows of a batch of events."""

    updates: Rows  #: ORDER_UPDATE, by event sequence
    details: Rows  #: ORDER_DETAIL, by event sequence
    definitions: Rows  #: DEFINITION_ROW of sinks/rows.py: assets, instruments and their rules


class ForbiddenTransition(NamedTuple):
    """An event that the status of its order forbids. It changes nothing, and is reported."""

    event_sequence: int
    order_id: int
    status: int  #: of the order before it
    kind: int  #: of the event
