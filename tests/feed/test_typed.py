"""Typed records are exact: every event of a market becomes one and back, byte for byte."""

import msgspec
import numpy as np
import pytest

from smrx.engine.codes import EventKind, OrderFlags, Reason, Side, TimeInForce
from smrx.engine.records import EVENT, pack_symbol
from smrx.feed import typed
from smrx.feed.typed import EventDecodeError
from tests.settlement.market import market_events


def one(kind: int, **fields: int) -> np.ndarray:
    event = np.zeros(1, EVENT)
    event["sequence"], event["kind"] = 9, kind
    for name, value in fields.items():
        event[name] = value
    return event


def test_every_event_of_a_market_survives_the_way_there_and_back() -> None:
    events = market_events()
    records = typed.decode(events)
    assert {type(record) for record in records} >= {typed.Trade, typed.PartialFill, typed.OrderExpired, typed.Rejected}
    assert typed.encode(records).tobytes() == events.tobytes()


def test_every_kind_has_its_class() -> None:
    classes = {type(typed.decode(one(kind, **_needed(kind)))[0]) for kind in EventKind}
    assert len(classes) == len(EventKind)


def _needed(kind: EventKind) -> dict[str, int]:
    """Fields for which 0 is no value."""
    order = {"side": 1, "order_type": 1, "tif": 1}
    symbol = {"client_order_id": pack_symbol("X")}
    if kind in (EventKind.ASSET_ADDED, EventKind.INSTRUMENT_ADDED):
        return symbol
    return order if kind <= EventKind.EXPIRED else {"side": 1} if kind == EventKind.TRADE else {}


def test_a_trade_under_its_own_names() -> None:
    event = one(
        EventKind.TRADE,
        command_sequence=5,
        time_ns=-1,
        session_id=2**64 - 1,
        request_id=3,
        side=Side.SELL,
        instrument=7,
        account=11,
        order_id=12,
        cum_lots=13,
        counter_account=21,
        counter_order_id=22,
        leaves_lots=-23,
        match_id=31,
        price_ticks=2**62,
        quantity_lots=41,
    )
    assert typed.decode(event) == [
        typed.Trade(
            sequence=9,
            command_sequence=5,
            time_ns=-1,
            session_id=2**64 - 1,
            request_id=3,
            match_id=31,
            instrument=7,
            price_ticks=2**62,
            quantity_lots=41,
            taker_side=Side.SELL,
            taker_account=11,
            taker_order_id=12,
            taker_fee=13,
            maker_account=21,
            maker_order_id=22,
            maker_fee=-23,
        )
    ]


def test_an_order_and_an_instrument_under_their_own_names() -> None:
    (order,) = typed.decode(one(EventKind.EXPIRED, side=1, order_type=2, tif=2, flags=1, reason=203, cum_lots=4))
    assert isinstance(order, typed.OrderExpired)
    assert (order.tif, order.flags, order.reason) == (TimeInForce.IOC, OrderFlags.POST_ONLY, Reason.NO_LIQUIDITY)
    (added,) = typed.decode(
        one(
            EventKind.INSTRUMENT_ADDED,
            instrument=1,
            client_order_id=pack_symbol("BTC-USD"),
            account=10,
            counter_account=20,
            order_id=1,
            counter_order_id=2,
        )
    )
    assert isinstance(added, typed.InstrumentAdded)
    assert (added.symbol, added.lot_units, added.scale_units) == ("BTC-USD", 10, 20)
    assert (added.base_asset, added.quote_asset) == (1, 2)


def test_a_rejection_carries_anything() -> None:
    event = one(EventKind.REJECTED, side=255, order_type=99, tif=77, stp=66, flags=255, reason=10, command_kind=200)
    (record,) = typed.decode(event)
    assert isinstance(record, typed.Rejected)
    assert (record.side, record.command_kind) == (255, 200)
    assert typed.encode([record]).tobytes() == event.tobytes()


def test_records_are_ready_for_json() -> None:
    (record,) = typed.decode(one(EventKind.ACCOUNT_OPENED, account=4))
    assert msgspec.json.decode(msgspec.json.encode(record)) == {
        "type": "AccountOpened",
        "sequence": 9,
        "command_sequence": 0,
        "time_ns": 0,
        "session_id": 0,
        "request_id": 0,
        "account": 4,
    }


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (one(99), "event 9: expected a known kind, found 99"),
        (one(EventKind.TRADE, side=3), "event 9: expected a known taker_side, found 3"),
        (one(EventKind.NEW, side=1, order_type=1, tif=1, flags=2), "event 9: expected a known flags, found 2"),
        (one(EventKind.ACCOUNT_OPENED, price_ticks=5), "event 9: expected price_ticks 0 in AccountOpened, found 5"),
        (one(EventKind.ASSET_ADDED, client_order_id=pack_symbol("A") | 0xFF00), "event 9: expected a known symbol"),
    ],
)
def test_what_is_no_event_is_refused(event: np.ndarray, message: str) -> None:
    with pytest.raises(EventDecodeError, match=message):
        typed.decode(event)
