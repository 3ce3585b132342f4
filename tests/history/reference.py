"""The life of orders, derived from events a second time in plain Python: what the compiled projection must equal."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.history.history_rows import ORDER_UPDATE
from smrx.history.order_status import OrderStatus
from smrx.wire.codes import CommandKind, EventKind
from smrx.wire.records import EVENT_LAYOUTS

#: An order in the middle of its life, as its fields of ORDER_UPDATE.
Order = dict[str, Any]
_KEPT = (
    "client_order_id",
    "price_ticks",
    "quantity_lots",
    "account",
    "instrument",
    "side",
    "order_type",
    "tif",
    "flags",
)


class Lives(NamedTuple):
    """What the events say of orders."""

    updates: NDArray[np.void]
    open_orders: dict[int, Order]


def lives(events: NDArray[np.void]) -> Lives:
    """Return the updates of all orders, and those that are open at the end."""
    scales: dict[int, int] = {}
    orders: dict[int, Order] = {}
    rows: list[tuple[Any, ...]] = []
    trade: Any = None
    for event in events:
        kind = EventKind(int(event["kind"]))
        if kind is EventKind.INSTRUMENT_ADDED:
            scales[int(event["instrument"])] = int(_as(kind, event)["scale_units"])
        elif kind is EventKind.TRADE:
            trade = _as(kind, event)
        elif kind is EventKind.NEW:
            orders[int(event["order_id"])] = order = _begun(event)
            rows.append(_row(event, order, OrderStatus.NEW, is_first=1))
        elif kind is EventKind.REJECTED and event["command_kind"] == CommandKind.PLACE:
            rows.append(_row(event, _begun(event), OrderStatus.REJECTED, is_first=1))
        elif kind in (EventKind.PARTIALLY_FILLED, EventKind.FILLED):
            order = orders[int(event["order_id"])]
            is_maker = int(event["order_id"] == trade["counter_order_id"])
            fee = int(trade["maker_fee" if is_maker else "taker_fee"])
            price, lots = int(event["price_ticks"]), int(event["quantity_lots"])
            order["filled_lots"] += lots
            order["notional"] += price * lots * scales[int(event["instrument"])]
            order["fees"] += fee
            status = OrderStatus.FILLED if kind is EventKind.FILLED else OrderStatus.PARTIALLY_FILLED
            fill = {"match_id": event["match_id"], "last_price_ticks": price, "last_lots": lots, "last_fee": fee}
            rows.append(_row(event, order, status, is_maker=is_maker, **fill))
        elif kind in (EventKind.CANCELLED, EventKind.EXPIRED):
            status = OrderStatus.CANCELLED if kind is EventKind.CANCELLED else OrderStatus.EXPIRED
            known = orders.get(int(event["order_id"]))
            rows.append(_row(event, known or _begun(event), status, is_first=int(known is None)))
        elif kind in (EventKind.REPLACED, EventKind.TRIGGERED):
            order = orders[int(event["order_id"])]
            if kind is EventKind.REPLACED:
                order |= {name: event[name] for name in ("price_ticks", "quantity_lots")}
            else:
                order["order_type"] = event["order_type"]
            status = OrderStatus.PARTIALLY_FILLED if order["filled_lots"] else OrderStatus.NEW
            rows.append(_row(event, order, status))
        if kind in (EventKind.FILLED, EventKind.CANCELLED, EventKind.EXPIRED):
            orders.pop(int(event["order_id"]), None)
    return Lives(np.array(rows, ORDER_UPDATE), orders)


def _as(kind: EventKind, event: np.void) -> Any:
    return np.frombuffer(event.tobytes(), EVENT_LAYOUTS[kind])[0]


def _begun(event: np.void) -> Order:
    kept = {name: event[name] for name in _KEPT}
    return kept | {"created_ns": event["time_ns"], "filled_lots": 0, "notional": 0, "fees": 0}


def _row(event: np.void, order: Order, status: OrderStatus, **more: Any) -> tuple[Any, ...]:
    fields = {
        "event_sequence": event["sequence"],
        "status": int(status),
        **{name: event[name] for name in ("command_sequence", "time_ns", "order_id", "reason", "kind")},
        **order,
        **more,
    }
    return tuple(fields.get(name, 0) for name in ORDER_UPDATE.names or ())
