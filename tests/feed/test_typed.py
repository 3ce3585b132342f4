"""Typed records are exact: every event of a market becomes one and back, byte for byte."""

import msgspec
import numpy as np
import pytest

from smrx.feed import typed
from smrx.feed.typed import EventDecodeError
from smrx.wire.codes import (
    EventKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    SessionFlags,
    Side,
    TimeInForce,
)
from smrx.wire.records import EVENT, pack_symbol
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
    if kind == EventKind.STATUS_SET:
        return {"side": InstrumentStatus.HALTED}
    if kind == EventKind.TRIGGERED:
        return order
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


#: Every field of the kinds that came with the whole exchange, under the record's names and under its own.
NEW_KINDS = [
    (
        one(
            EventKind.TRIGGERED, side=2, order_type=2, tif=2, stp=3, flags=1, account=4, instrument=5, order_id=6,
            client_order_id=7, price_ticks=8, quantity_lots=9, cum_lots=10, leaves_lots=11, counter_order_id=12,
        ),
        typed.OrderTriggered,
        {"order_id": 6, "cum_lots": 10, "leaves_lots": 11, "extra": 12, "quantity_lots": 9},
    ),
    (one(EventKind.ACCOUNT_SUSPENDED, account=4), typed.AccountSuspended, {"account": 4}),
    (one(EventKind.ACCOUNT_RESUMED, account=4), typed.AccountResumed, {"account": 4}),
    (
        one(EventKind.LIMITS_SET, account=4, instrument=5, order_id=6, price_ticks=7, quantity_lots=8),
        typed.LimitsSet,
        {
            "account": 4, "max_open_orders": 5, "max_open_notional": 6, "max_order_notional": 7,
            "max_order_quantity": 8,
        },
    ),
    (
        one(
            EventKind.RULES_SET, instrument=1, account=2, counter_account=2**32 - 3, cum_lots=4, client_order_id=5,
            order_id=6, price_ticks=7, quantity_lots=8,
        ),
        typed.RulesSet,
        {
            "instrument": 1, "taker_fee": 2, "maker_fee": -3, "band_bp": 4, "min_price_ticks": 5, "min_notional": 6,
            "max_notional": 7, "min_quantity_lots": 8,
        },
    ),
    (
        one(EventKind.STATUS_SET, instrument=1, side=InstrumentStatus.CLOSED, quantity_lots=3),
        typed.StatusSet,
        {"instrument": 1, "status": InstrumentStatus.CLOSED, "orders": 3},
    ),
    (one(EventKind.KILLED), typed.Killed, {}),
    (one(EventKind.REVIVED), typed.Revived, {}),
    (one(EventKind.TICKED), typed.Ticked, {}),
    (
        one(EventKind.SESSION_OPENED, account=3, flags=1),
        typed.SessionOpened,
        {"account": 3, "flags": SessionFlags.CANCEL_ON_DISCONNECT},
    ),
    (one(EventKind.SESSION_CLOSED, account=3, quantity_lots=2), typed.SessionClosed, {"account": 3, "orders": 2}),
    (
        one(EventKind.SESSION_DISCONNECTED, account=3, quantity_lots=2),
        typed.SessionDisconnected,
        {"account": 3, "orders": 2},
    ),
    (
        one(EventKind.ASSET_ADDED, instrument=3, client_order_id=pack_symbol("BTC"), quantity_lots=8, price_ticks=21),
        typed.AssetAdded,
        {"asset": 3, "symbol": "BTC", "decimals": 8, "supply_cap": 21},
    ),
    (
        one(EventKind.REPLACED, side=1, order_type=1, tif=1, reason=Reason.SELF_TRADE, cum_lots=1, leaves_lots=2),
        typed.OrderReplaced,
        {"reason": Reason.SELF_TRADE, "cum_lots": 1, "leaves_lots": 2},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "fields"), NEW_KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_the_venue_and_time_do_under_their_own_names(
    event: np.ndarray, kind: type, fields: dict[str, object]
) -> None:
    (record,) = typed.decode(event)
    assert type(record) is kind
    assert {name: getattr(record, name) for name in fields} == fields
    assert typed.encode([record]).tobytes() == event.tobytes()


def test_the_extra_word_is_a_stop_price_or_what_is_shown_and_until_when() -> None:
    order = {"side": 1, "tif": 1, "counter_order_id": 5 << 32 | 7}
    (limit,) = typed.decode(one(EventKind.NEW, order_type=OrderType.LIMIT, **order))
    (stop,) = typed.decode(one(EventKind.NEW, order_type=OrderType.STOP_LIMIT, **order))
    assert isinstance(limit, typed.OrderAccepted)
    assert isinstance(stop, typed.OrderAccepted)
    assert (limit.display_lots, limit.expiry_s, limit.stop_price_ticks) == (7, 5, 0)
    assert (stop.display_lots, stop.expiry_s, stop.stop_price_ticks) == (0, 0, 5 << 32 | 7)


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
        (one(EventKind.NEW, side=1, order_type=1, tif=1, flags=4), "event 9: expected a known flags, found 4"),
        (one(EventKind.SESSION_OPENED, flags=2), "event 9: expected a known flags, found 2"),
        (one(EventKind.STATUS_SET, side=5), "event 9: expected a known status, found 5"),
        (one(EventKind.TICKED, account=1), "event 9: expected account 0 in Ticked, found 1"),
        (one(EventKind.ACCOUNT_OPENED, price_ticks=5), "event 9: expected price_ticks 0 in AccountOpened, found 5"),
        (one(EventKind.ASSET_ADDED, client_order_id=pack_symbol("A") | 0xFF00), "event 9: expected a known symbol"),
    ],
)
def test_what_is_no_event_is_refused(event: np.ndarray, message: str) -> None:
    with pytest.raises(EventDecodeError, match=message):
        typed.decode(event)
