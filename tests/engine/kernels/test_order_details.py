"""Client order ids of any length, the terms of orders, and the events that carry them."""

import random
from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine
from smrx.engine.state import ORDER_DETAILS_TABLE
from smrx.wire.client_order_ids import id_form, pack_client_order_id
from smrx.wire.codes import COMMAND_TRAITS, CommandKind, CommandTraits, EventKind, OrderType, Reason, Side, TimeInForce
from smrx.wire.records import DETAILS, EVENT_FIELDS, EVENT_LAYOUTS, LONG_ID
from tests.commands import add_asset, add_instrument, apply, cancel, command, join, place, raw
from tests.engine.small_market import (
    SECOND,
    SmallMarket,
    events_of,
    in_own_layout,
    last_outcome,
    order_id,
    same_bytes,
)
from tests.property.choices import COLLIDING_IDS

LONG = "an id of more than eight characters"
#: The characters at the ends of what an id may have.
EDGES = "~ " * 32


def text_of(event: Any) -> str:
    """Return the text that a CLIENT_ORDER_ID event carries."""
    return str(in_own_layout(event)["client_order_id"].decode())


@pytest.mark.parametrize("text", ["1", " ", "12345678", "123456789", "x" * 63, EDGES])
def test_order_is_found_by_its_client_order_id(text: str) -> None:
    """Unique among the account's open orders, named in CANCEL and REPLACE, and free again when the order has ended."""
    market = SmallMarket()
    result = market.sell(1, 5, 100, client_order_id=text)
    order = order_id(result)
    form = id_form(text.encode())
    assert int(result.events["client_order_id"][0]) == form
    assert bool(form & LONG_ID) == (len(text) > 8)
    assert market.engine.inspect.orders()["client_order_id"].tolist() == [text.encode()]
    again = place(market.sender(1), 1, Side.SELL, 5, 100, client_order_id=text)
    assert market.rejected(again) == Reason.DUPLICATE_CLIENT_ORDER_ID
    other = order_id(market.sell(2, 5, 100, client_order_id=text))
    replace = command(
        CommandKind.REPLACE, market.sender(1), account=1, client_order_id=text, quantity_lots=4, price_ticks=100
    )
    assert events_of(market.send(replace)) == [("REPLACED", order)]
    market.check_state()
    restored = Engine.restore(market.engine.snapshot())
    ended = cancel(market.sender(1), 1, client_order_id=text)
    assert same_bytes(apply(restored, ended, 2), market.send(ended, 2))
    assert restored.snapshot() == market.engine.snapshot()
    assert market.open_ids() == [other]
    assert market.rejected(cancel(market.sender(1), 1, client_order_id=text)) == Reason.UNKNOWN_ORDER
    assert market.rejected(cancel(market.sender(3), 3, client_order_id=text)) == Reason.UNKNOWN_ORDER
    market.sell(1, 5, 100, client_order_id=text)
    market.check_state()


def test_events_that_follow_new() -> None:
    market = SmallMarket()
    terms = {"display_lots": 3, "expiry_ns": 9 * SECOND + 1}
    result = market.stop(1, Side.BUY, 10, 110, 115, tif=TimeInForce.GTD, client_order_id=LONG, **terms)
    stop = order_id(result)
    assert events_of(result) == [("NEW", stop), ("CLIENT_ORDER_ID", stop), ("ORDER_TERMS", stop)]
    new, text, terms_event = result.events
    assert int(new["following"]) == 2
    assert np.diff(result.events["sequence"].astype(np.int64)).tolist() == [1, 1]
    assert int(result.outcomes["event_count"][0]) == 3
    for event in (text, terms_event):
        assert [int(event[name]) for name in ("session_id", "request_id", "account", "instrument")] == [11, 1, 1, 1]
    assert text_of(text) == LONG
    shown = in_own_layout(terms_event)
    assert shown[["stop_price_ticks", "display_lots", "expiry_ns"]].item() == (110, 3, 9 * SECOND + 1)
    # Later events have the 64-bit form of the id and no terms.
    later = market.replace(1, stop, 9, 115)
    assert events_of(later) == [("REPLACED", stop)]
    assert later.events["client_order_id"].tolist() == [id_form(LONG.encode())]
    market.check_state()


def test_order_without_details_has_one_event() -> None:
    market = SmallMarket()
    result = market.buy(1, 1, 5, client_order_id="12345678")
    assert [name for name, _ in events_of(result)] == ["NEW"]
    assert result.events["following"].tolist() == [0]
    # Details with nothing in them are like none.
    empty = raw(CommandKind.PLACE, market.sender(1), account=1, instrument=1, side=1, order_type=1, tif=1,
                price_ticks=5, quantity_lots=1, stop_price_ticks=0)  # fmt: skip
    assert empty.records["details"][0] == 1
    assert [name for name, _ in events_of(market.send(empty))] == ["NEW"]
    assert market.engine._state.pools["live"][ORDER_DETAILS_TABLE] == 0
    market.check_state()


def test_events_follow_before_trades() -> None:
    market = SmallMarket()
    ask = order_id(market.sell(1, 5, 100))
    result = market.buy(2, 9, 100, client_order_id=LONG, display_lots=2)
    bid = order_id(result)
    assert events_of(result) == [
        ("NEW", bid), ("CLIENT_ORDER_ID", bid), ("ORDER_TERMS", bid), ("TRADE", ask), ("FILLED", ask),
        ("PARTIALLY_FILLED", bid),
    ]  # fmt: skip
    market.check_state()


def test_fill_or_kill_that_cannot_fill_reports_its_id_with_its_end() -> None:
    market = SmallMarket()
    result = market.buy(1, 9, 100, tif=TimeInForce.FOK, client_order_id=LONG)
    order = order_id(result)
    assert events_of(result) == [("EXPIRED", order), ("CLIENT_ORDER_ID", order)]
    assert result.events["following"].tolist()[0] == 1
    assert text_of(result.events[1]) == LONG
    assert market.engine._state.pools["live"][ORDER_DETAILS_TABLE] == 0
    market.check_state()


def test_events_that_follow_a_rejection() -> None:
    market = SmallMarket()
    refused = place(market.sender(1), 1, Side.SELL, 0, 100, display_lots=5, client_order_id=LONG)
    result = apply(market.engine, refused, 1)
    assert [name for name, _ in events_of(result)] == ["REJECTED", "CLIENT_ORDER_ID", "ORDER_TERMS"]
    assert result.events["client_order_id"][0] == id_form(LONG.encode())
    assert text_of(result.events[1]) == LONG
    assert int(in_own_layout(result.events[2])["display_lots"]) == 5
    for kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        unknown = command(kind, market.sender(1), account=1, client_order_id=LONG)
        result = apply(market.engine, unknown, 1)
        assert [name for name, _ in events_of(result)] == ["REJECTED", "CLIENT_ORDER_ID"]
        assert result.events["following"].tolist()[0] == 1
    # Nothing follows the rejection of a malformed command.
    malformed = place(market.sender(1), 1, 9, 1, 100, display_lots=5, client_order_id=LONG)
    result = apply(market.engine, malformed, 1)
    assert [name for name, _ in events_of(result)] == ["REJECTED"]
    assert result.events[["following", "client_order_id"]].tolist() == [(0, 0)]
    market.check_state()


def test_nothing_follows_without_reports() -> None:
    market = SmallMarket(reports=False)
    assert len(market.stop(1, Side.BUY, 10, 110, 115, client_order_id=LONG).events) == 0
    refused = place(market.sender(1), 1, Side.SELL, 0, 100, client_order_id=LONG)
    assert events_of(apply(market.engine, refused, 1)) == [("REJECTED", 0)]


#: Texts of details that are no client order id.
MALFORMED_TEXTS = {
    "too short": b"12345678",
    "one character": b"1",
    "a gap": b"1234\x00567890",
    "a gap at the end of a word": b"1234567\x008901234",
    "a gap of a word": b"12345678" + bytes(8) + b"90",
    "a NUL first": b"\x00123456789",
    "a control character": b"1234567890\x1f",
    "a delete": b"\x7f1234567890",
    "not ASCII": b"1234567890\x80",
    "not ASCII at the end": b"x" * 63 + b"\xff",
}


@pytest.mark.parametrize("text", MALFORMED_TEXTS.values(), ids=MALFORMED_TEXTS)
def test_malformed_long_id(text: bytes) -> None:
    market = SmallMarket()
    order = {"account": 1, "instrument": 1, "side": 1, "order_type": 1, "tif": 1, "price_ticks": 5, "quantity_lots": 1}
    for kind, fields in (
        (CommandKind.PLACE, order),
        (CommandKind.CANCEL, {"account": 1}),
        (CommandKind.REPLACE, {"account": 1, "price_ticks": 5, "quantity_lots": 1}),
    ):
        sent = raw(kind, market.sender(1), **fields, client_order_id_text=text)
        assert market.rejected(sent) == Reason.INVALID_CLIENT_ORDER_ID, kind.name


@pytest.mark.parametrize("seed", range(2))
def test_short_id_check_equals_the_definition(seed: int) -> None:
    """Words of bytes near the ends of the allowed range, each compared with the rule spelled out."""
    source = random.Random(seed)
    market = SmallMarket()
    bytes_near = [0, 0, 1, 0x1F, 0x20, 0x21, 0x5E, 0x7E, 0x7F, 0x80, 0x9F, 0xA0, 0xFE, 0xFF]
    words = [bytes(source.choice(bytes_near) for _ in range(8)) for _ in range(2_000)]
    words += [bytes([0x20 + at] * length + [0] * (8 - length)) for length in range(9) for at in (0, 0x5E)]
    sent = [
        raw(CommandKind.CANCEL, market.sender(1), account=1, client_order_id=int.from_bytes(word, "little"))
        for word in words
    ]
    reasons = apply(market.engine, join(sent), 1).outcomes["reason"].tolist()
    for word, reason in zip(words, reasons, strict=True):
        text = word.rstrip(b"\0")
        valid = all(0x20 <= byte <= 0x7E for byte in text)
        expected = Reason.INVALID_ID if not text else Reason.UNKNOWN_ORDER if valid else Reason.INVALID_CLIENT_ORDER_ID
        assert reason == expected, word


def test_order_is_named_by_exactly_one_id() -> None:
    market = SmallMarket()
    order = order_id(market.sell(1, 5, 100, client_order_id=LONG))
    short = pack_client_order_id("short")[0]
    for kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        for fields in (
            {},
            {"client_order_id_text": b""},
            {"order_id": order, "client_order_id": short},
            {"order_id": order, "client_order_id_text": LONG.encode()},
            {"client_order_id": short, "client_order_id_text": LONG.encode()},
        ):
            assert market.rejected(raw(kind, market.sender(1), account=1, **fields)) == Reason.INVALID_ID, fields
    both = raw(
        CommandKind.PLACE, market.sender(1), account=1, instrument=1, side=1, order_type=1, tif=1, price_ticks=5,
        quantity_lots=1, client_order_id=short, client_order_id_text=LONG.encode(),
    )  # fmt: skip
    assert market.rejected(both) == Reason.INVALID_CLIENT_ORDER_ID
    # The id of the order stands in the command, and details have nothing to add.
    named = raw(CommandKind.CANCEL, market.sender(1), account=1, order_id=order, client_order_id_text=b"")
    assert last_outcome(market.send(named))[0] == "CANCELLED"


TERMS = ("stop_price_ticks", "display_lots", "expiry_ns")
RESERVED = (
    "trailing_offset_ticks", "peg_offset_ticks", "order_list_id", "peg_reference", "reserved_117", "reserved_118",
    "reserved_120",
)  # fmt: skip
#: The terms that each order type uses, an expiry with GTD only.
USED = {
    OrderType.LIMIT: {"display_lots", "expiry_ns"},
    OrderType.MARKET: set(),
    OrderType.STOP: {"stop_price_ticks", "expiry_ns"},
    OrderType.STOP_LIMIT: {"stop_price_ticks", "display_lots", "expiry_ns"},
}


@pytest.mark.parametrize("order_type", OrderType)
@pytest.mark.parametrize("tif", TimeInForce)
def test_terms_that_an_order_does_not_use_must_be_0(order_type: OrderType, tif: TimeInForce) -> None:
    market = SmallMarket()
    for name in (*TERMS, *RESERVED):
        sent = raw(
            CommandKind.PLACE, market.sender(1), account=1, instrument=1, side=1, order_type=order_type, tif=tif,
            **{name: 1},
        )  # fmt: skip
        unused = name not in USED[order_type] or (name == "expiry_ns" and tif != TimeInForce.GTD)
        assert (market.rejected(sent) == Reason.RESERVED_NOT_ZERO) == unused, name


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind != CommandKind.PLACE])
def test_details_that_a_kind_does_not_have_are_rejected(kind: CommandKind) -> None:
    market = SmallMarket()

    def rejected(number: int, **fields: int) -> Reason:
        sender = (99, 0) if kind == CommandKind.OPEN_SESSION else market.sender(0)
        sent = raw(kind, sender, **fields)
        sent.records["details"] = number
        return market.rejected(sent._replace(details=sent.details if len(sent.details) else np.zeros(1, DETAILS)))

    assert rejected(2) == Reason.INVALID_DETAILS
    if kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        for name in TERMS:
            assert rejected(1, **{name: 1}) == Reason.RESERVED_NOT_ZERO
    elif CommandTraits.MUST_HAVE_DETAILS in COMMAND_TRAITS[kind]:
        assert rejected(0) == Reason.INVALID_DETAILS
    else:
        assert rejected(1) == Reason.INVALID_DETAILS


def test_commands_of_one_call_have_their_own_details() -> None:
    """A command names its details by number; the calls before and after it, with others or none, change nothing."""
    market, single = SmallMarket(), SmallMarket()
    sent = [
        place(market.sender(1), 1, Side.SELL, 10, 100 + at, client_order_id=f"{LONG} {at}" if at % 3 else at + 1,
              display_lots=at % 4)
        for at in range(100)
    ]  # fmt: skip
    whole = market.send(join(sent))
    parts = [single.send(one) for one in sent]
    assert b"".join(part.events.tobytes() for part in parts) == whole.events.tobytes()
    assert single.engine.state_hash == market.engine.state_hash
    # No details are left over for a call without any.
    stale = sent[1]._replace(details=sent[0].details[:0])
    stale.records["session_id"], stale.records["request_id"] = market.sender(1)
    assert market.rejected(stale) == Reason.INVALID_DETAILS


def test_details_may_be_strided_and_of_any_alignment() -> None:
    market, other = SmallMarket(), SmallMarket()
    sent = join([place(market.sender(1), 1, Side.SELL, 10, 100, client_order_id=f"{LONG} {at}") for at in range(4)])
    data = b"x" + sent.details.tobytes()
    shifted = sent._replace(details=np.frombuffer(data, sent.details.dtype, offset=1))
    doubled = sent._replace(details=np.repeat(sent.details, 2)[::2])
    expected = market.send(sent)
    assert same_bytes(other.send(shifted), expected)
    assert same_bytes(SmallMarket().send(doubled), expected)


def test_long_id_with_the_form_of_another_is_a_duplicate_and_does_not_name_it() -> None:
    first, second = COLLIDING_IDS
    assert id_form(first.encode()) == id_form(second.encode())
    market = SmallMarket()
    one = order_id(market.sell(1, 5, 100, client_order_id=first))
    again = place(market.sender(1), 1, Side.SELL, 5, 100, client_order_id=second)
    assert market.rejected(again) == Reason.DUPLICATE_CLIENT_ORDER_ID
    order_id(market.sell(2, 5, 100, client_order_id=second))
    assert market.rejected(cancel(market.sender(1), 1, client_order_id=second)) == Reason.UNKNOWN_ORDER
    assert events_of(market.send(cancel(market.sender(1), 1, client_order_id=first))) == [("CANCELLED", one)]
    order_id(market.sell(1, 5, 100, client_order_id=second))
    market.check_state()


def test_details_are_freed_with_their_order() -> None:
    """Cancelled, filled, expired and triggered orders leave no details; the table does not grow."""
    market = SmallMarket(orders=16)
    size = len(market.engine._state.order_details)
    for at in range(200):
        one = order_id(market.sell(1, 4, 100, client_order_id=f"{LONG} {at}"))
        market.sell(1, 4, 100, display_lots=1)
        market.cancel(1, one)
        market.buy(2, 4, 100)
    assert len(market.engine._state.order_details) == size
    stop = order_id(market.stop(1, Side.BUY, 5, 101, 50))
    assert market.engine._state.pools["live"][ORDER_DETAILS_TABLE] == 1
    market.sell(2, 1, 101)
    market.buy(3, 1, 101)
    assert market.open_ids() == [stop]
    assert market.engine._state.pools["live"][ORDER_DETAILS_TABLE] == 0
    market.check_state()


def test_table_of_details_grows() -> None:
    market = SmallMarket(orders=1)
    for at in range(50):
        market.sell(1, 4, 100 + at % 3, client_order_id=f"{LONG} {at}", display_lots=1 + at % 2)
    assert len(set(market.engine.inspect.orders()["client_order_id"].tolist())) == 50
    market.check_state()


@pytest.mark.parametrize("length", [1, 8, 9, 16, 17, 24])
def test_symbols_of_any_length(length: int) -> None:
    market = SmallMarket()
    symbol = "ABCDEFGHIJ-./_0123456789"[:length]
    result = market.send(
        add_instrument(market.sender(0), 7, symbol, base_asset=1, quote_asset=2, max_quantity_lots=9, lot_units=3)
    )
    event = in_own_layout(result.events[0])
    assert event[["instrument", "symbol", "base_asset", "quote_asset", "lot_units", "scale_units"]].item() == (
        7, symbol.encode(), 1, 2, 3, 1,
    )  # fmt: skip
    assert market.engine.inspect.instruments()["symbol"].tolist()[1] == symbol.encode()
    if length <= 16:
        event = in_own_layout(market.send(add_asset(market.sender(0), 9, symbol, decimals=4)).events[0])
        assert event[["asset", "symbol", "decimals"]].item() == (9, symbol.encode(), 4)
        assert market.engine.inspect.assets()["symbol"].tolist()[-1] == symbol.encode()
    market.check_state()
    assert Engine.restore(market.engine.snapshot()).state_hash == market.engine.state_hash


@pytest.mark.parametrize("symbol", [b"", b"a", b"A B", b"A\0B", b"\0A", b"ABCDEFGH\0I", b"ABCDEFGHIJKLMNO,"])
def test_malformed_symbols(symbol: bytes) -> None:
    market = SmallMarket()
    for kind in (CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT):
        assert market.rejected(raw(kind, market.sender(0), symbol=symbol)) == Reason.INVALID_ID
    late = raw(CommandKind.ADD_INSTRUMENT, market.sender(0), symbol=b"ABCDEFGH" + bytes(8) + b"I")
    assert market.rejected(late) == Reason.INVALID_ID


def test_events_have_nothing_but_their_fields() -> None:
    """Every byte of every event is 0 or a field of its kind, although the buffers are not cleared."""
    dirt = [np.full(1 << 20, 0xEE, np.uint8) for _ in range(8)]
    del dirt
    market = SmallMarket()
    results = [
        market.set_rules(taker_fee=1_000, maker_fee=-500, min_price_ticks=2),
        market.stop(1, Side.BUY, 10, 110, 115, client_order_id=LONG),
        market.set_limits(1, max_open_orders=99, max_open_notional=1 << 60),
        market.send(add_asset(market.sender(0), 9, "ABCDEFGHIJKLMNOP", decimals=4, cap=7)),
        market.sell(2, 1, 110),
        market.buy(3, 1, 110),
        market.tick(5),
    ]
    header = ("sequence", "command_sequence", "time_ns", "kind", "session_id", "request_id")
    for event in np.concatenate([result.events for result in results]):
        kind = EventKind(int(event["kind"]))
        own = in_own_layout(event)
        rebuilt = np.zeros(1, EVENT_LAYOUTS[kind])
        for name in (*header, *EVENT_FIELDS[kind]):
            rebuilt[name] = own[name]
        assert rebuilt.tobytes() == event.tobytes(), kind.name
