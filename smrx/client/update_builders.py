"""Build updates from the events that a node sends for some accounts. No I/O. Called by both clients."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.client.instruments import Asset, Instrument
from smrx.client.results import Update
from smrx.wire.codes import EventKind, OrderFlags, Reason, Side
from smrx.wire.records import CLIENT_ORDER_ID_EVENT, EVENT_LAYOUTS, LONG_ID, SHORT_ID_SIZE, TRADE_EVENT, TRANSFER_EVENT

_KINDS: Final = {int(kind): kind for kind in EventKind}
_REASONS: Final = {int(reason): reason for reason in Reason}
#: Of an order by budget, the quantity in these is an amount of the quote asset.
_BEFORE_FILLS: Final = (EventKind.NEW, EventKind.REPLACED, EventKind.TRIGGERED, EventKind.REJECTED)
_TRANSFERS: Final = (EventKind.DEPOSITED, EventKind.WITHDRAWN)
#: Kinds with the fields of an order.
_ORDERS: Final = (
    EventKind.NEW,
    EventKind.PARTIALLY_FILLED,
    EventKind.FILLED,
    EventKind.CANCELLED,
    EventKind.REPLACED,
    EventKind.EXPIRED,
    EventKind.TRIGGERED,
    EventKind.REJECTED,
)

InstrumentOf = Callable[[int], Instrument | None]
AssetOf = Callable[[int], Asset | None]


def names_of(events: NDArray[np.void]) -> tuple[set[int], set[int]]:
    """Return the numbers of the instruments and assets whose names and units the updates of events need."""
    kinds, numbers = events["kind"], events["instrument"]
    orders = np.isin(kinds, np.array([*_ORDERS, EventKind.TRADE]))
    transfers = np.isin(kinds, np.array(_TRANSFERS))
    return set(numbers[orders].tolist()) - {0}, set(numbers[transfers].tolist())


def updates(events: NDArray[np.void], instrument_of: InstrumentOf, asset_of: AssetOf) -> list[Update]:
    """Return the updates of a private stream: one for each event, two for a TRADE with both sides in the stream."""
    return [update for row in range(len(events)) for update in _updates(events[row : row + 1], instrument_of, asset_of)]


def _updates(event: NDArray[np.void], instrument_of: InstrumentOf, asset_of: AssetOf) -> list[Update]:
    kind = _KINDS.get(int(event["kind"][0]))
    if kind is EventKind.TRADE:
        return _trade(event, instrument_of)
    fields = _common(event, kind)
    if kind in _ORDERS:
        fields |= _order(event, instrument_of(int(event["instrument"][0])))
    elif kind in _TRANSFERS:
        fields |= _transfer(event.view(TRANSFER_EVENT), asset_of(int(event["instrument"][0])))
    elif kind is EventKind.CLIENT_ORDER_ID:
        text = bytes(event.view(CLIENT_ORDER_ID_EVENT)["client_order_id"][0])
        fields |= {"client_order_id": text.decode("ascii", "replace"), "order_id": int(event["order_id"][0])}
    elif kind is EventKind.ORDER_TERMS:
        fields["order_id"] = int(event["order_id"][0])
    return [Update(**fields)]


def _common(event: NDArray[np.void], kind: EventKind | None) -> dict[str, Any]:
    reason = int(event["reason"][0])
    names = EVENT_LAYOUTS[kind].names or () if kind is not None else ()
    return {
        "sequence": int(event["sequence"][0]),
        "command_sequence": int(event["command_sequence"][0]),
        "time_ns": int(event["time_ns"][0]),
        "kind": f"KIND_{int(event['kind'][0])}" if kind is None else kind.name,
        "account": int(event["account"][0]),
        "symbol": None,
        "side": None,
        "order_id": 0,
        "client_order_id": None,
        "price": None,
        "quantity": None,
        "filled": None,
        "remaining": None,
        "reason": (_REASONS[reason].name if reason in _REASONS else f"REASON_{reason}") if reason else None,
        "match_id": 0,
        "maker": False,
        "fee": None,
        "amount": None,
        "available": None,
        "credential": int(event.view(EVENT_LAYOUTS[kind])["credential"][0])
        if kind is not None and "credential" in names
        else 0,
        "price_ticks": 0,
        "quantity_lots": 0,
        "cum_lots": 0,
        "leaves_lots": 0,
    }


def _order(event: NDArray[np.void], instrument: Instrument | None) -> dict[str, Any]:
    price, lots, cum, leaves = (
        int(event[name][0]) for name in ("price_ticks", "quantity_lots", "cum_lots", "leaves_lots")
    )
    side, form = int(event["side"][0]), int(event["client_order_id"][0])
    found: dict[str, Any] = {
        "side": Side(side).name if side in (Side.BUY, Side.SELL) else None,
        "order_id": int(event["order_id"][0]),
        "client_order_id": None
        if form & LONG_ID
        else form.to_bytes(SHORT_ID_SIZE, "little").rstrip(b"\0").decode("ascii", "replace"),
        "match_id": int(event["match_id"][0]),
        "price_ticks": price,
        "quantity_lots": lots,
        "cum_lots": cum,
        "leaves_lots": leaves,
    }
    if instrument is not None:
        is_budget = bool(event["flags"][0] & OrderFlags.QUOTE_BUDGET) and int(event["kind"][0]) in _BEFORE_FILLS
        found |= {
            "symbol": instrument.symbol,
            "price": instrument.price_text(price) if price else None,
            "quantity": instrument.quote.text(lots) if is_budget else instrument.quantity_text(lots),
            "filled": instrument.quantity_text(cum),
            "remaining": instrument.quantity_text(leaves),
        }
    return found


def _trade(event: NDArray[np.void], instrument_of: InstrumentOf) -> list[Update]:
    """Return an update for each own side. The order of a side that is not in the stream is 0."""
    trade = event.view(TRADE_EVENT)
    instrument = instrument_of(int(trade["instrument"][0]))
    taker_side = Side(int(trade["side"][0]))
    sides = [
        (False, int(trade["account"][0]), int(trade["order_id"][0]), int(trade["taker_fee"][0])),
        (True, int(trade["counter_account"][0]), int(trade["counter_order_id"][0]), int(trade["maker_fee"][0])),
    ]
    price, lots = int(trade["price_ticks"][0]), int(trade["quantity_lots"][0])
    found = []
    for is_maker, account, order_id, fee in sides:
        if not order_id:
            continue
        opposite = Side.SELL if taker_side is Side.BUY else Side.BUY
        fields = _common(event, EventKind.TRADE) | {
            "account": account,
            "side": (opposite if is_maker else taker_side).name,
            "order_id": order_id,
            "match_id": int(trade["match_id"][0]),
            "maker": is_maker,
            "price_ticks": price,
            "quantity_lots": lots,
        }
        if instrument is not None:
            fields |= {
                "symbol": instrument.symbol,
                "price": instrument.price_text(price),
                "quantity": instrument.quantity_text(lots),
                "fee": instrument.quote.text(fee),
            }
        found.append(Update(**fields))
    return found


def _transfer(event: NDArray[np.void], asset: Asset | None) -> dict[str, Any]:
    if asset is None:
        return {}
    return {
        "symbol": asset.symbol,
        "amount": asset.text(int(event["amount"][0])),
        "available": asset.text(int(event["available_after"][0])),
    }
