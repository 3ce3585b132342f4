"""Edge cases that random flow would seldom reach, as tables; the engine and the oracle must agree on each."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine
from smrx.wire.codes import CommandKind, OrderFlags, OrderType, Side, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, DETAILS_LAYOUTS
from tests.commands import (
    Commands,
    add_asset,
    add_instrument,
    command,
    deposit,
    join,
    open_account,
    open_session,
    place,
    raw,
    withdraw,
)
from tests.oracle import Oracle
from tests.property.choices import VENUE_SESSION
from tests.property.comparison import difference, run, state_differences
from tests.property.flow import Batch, Tape, market_setup, venue_requests

U64, U32, I62 = (1 << 64) - 1, (1 << 32) - 1, (1 << 62) - 1
#: The venue's next request id after the market is set up.
NEXT = venue_requests() + 1


def every_kind_and_field() -> list[Commands]:
    """Return each kind, known or not, with one field set and all others 0."""
    fields = [name for name in COMMAND.names or () if name not in ("kind", "session_id", "request_id")]
    commands: list[Commands] = []
    request = NEXT
    for kind, field, value in itertools.product(range(27), fields, (1, 2, 3, 5, 255)):
        if kind == CommandKind.OPEN_SESSION:
            commands.append(raw(kind, (1_000 + len(commands), 0), **{field: value}))
        else:
            commands.append(raw(kind, (VENUE_SESSION, request), **{field: value}))
            request += 1
    return commands


def every_kind_and_field_of_details() -> list[Commands]:
    """Return each kind that may have details, with one field of them set and all others 0, named bytes or not."""
    commands: list[Commands] = []
    for kind, layout in DETAILS_LAYOUTS.items():
        fields = [(name, layout) for name in layout.names or ()]
        fields += [(name, DETAILS) for name in DETAILS.names or () if name not in (layout.names or ())]
        for (field, where), value in itertools.product(fields, (1, 2, 255, -1)):
            data = np.zeros(1, where)
            is_text = where[field].kind in "SV"
            data[field] = b"A" * abs(value) if is_text else np.array(value, np.int64).astype(where[field])
            records = raw(kind, (VENUE_SESSION, NEXT + len(commands)), instrument=1, account=1).records
            records["details"] = 1
            commands.append(CommandList(records, data.view(DETAILS)))
    return commands


def every_term_of_every_kind_of_order() -> list[Commands]:
    """Return orders of each type and time in force, with each set of terms, needed or not."""
    choices = itertools.product(range(1, 6), range(1, 6), (0, 10, -1), (0, 1, 5, -1), (0, 3, -1), (False, True))
    return [
        raw(
            CommandKind.PLACE, (11, request), account=1, instrument=1, side=2, order_type=order_type, tif=tif, stp=1,
            price_ticks=0 if order_type in (2, 3) else 9, quantity_lots=5, stop_price_ticks=stop, display_lots=display,
            expiry_ns=expiry, client_order_id_text=f"a long id {request}".encode() if named else b"",
        )
        for request, (order_type, tif, stop, display, expiry, named) in enumerate(choices, start=1)
    ]  # fmt: skip


def every_kind_of_order() -> list[Commands]:
    choices = itertools.product(range(4), range(6), range(6), (0, 1, 4, 5), range(5), (0, 3))
    return [
        command(
            CommandKind.PLACE, (11, request), account=1, instrument=1, side=side, order_type=order_type, tif=tif,
            stp=stp, flags=flags, price_ticks=price, quantity_lots=1,
        )
        for request, (side, order_type, tif, stp, flags, price) in enumerate(choices, start=1)
    ]  # fmt: skip


def every_kind_without_a_session() -> list[Commands]:
    return [command(kind, sender) for kind in range(256) for sender in ((0, 0), (555, 1))]


def symbols() -> list[Commands]:
    """Return valid and empty symbols, and some with a byte that is not allowed, or not at that place."""
    texts = (
        b"",
        b"A",
        b"\0A",
        b"A\0B",
        b"ABCDEFGH",
        b"ABCDEFGHI",
        b"ABCDEFGHIJKLMNOP",
        b"ABCDEFGHIJKLMNO\x80",
        b"ABCDEFGH\0I",
        b"ABCDEFGHIJKLMNo",
        b"\xff" * 8,
        b"A-./_Z09",
        b"AB a",
        b"a",
        b"A@",
        b"A[",
        b"A:",
        b"A,",
        b"A`",
        b"\x80",
    )
    longer = (b"ABCDEFGHIJKLMNOPQRSTUVWX", b"ABCDEFGHIJKLMNOPQ", b"ABCDEFGHIJKLMNOPQRSTUVW\x80", b"\0" * 23 + b"A")
    commands: list[Commands] = []
    for text in texts:
        who = (VENUE_SESSION, NEXT + len(commands))
        commands.append(raw(CommandKind.ADD_ASSET, who, asset=50 + len(commands), symbol=text))
    for text in (*texts, *longer):
        commands.append(
            raw(
                CommandKind.ADD_INSTRUMENT, (VENUE_SESSION, NEXT + len(commands)), instrument=50 + len(commands),
                symbol=text, base_asset=2, quote_asset=1, lot_units=1, scale_units=1, max_price_ticks=9,
                max_quantity_lots=9,
            )
        )  # fmt: skip
    return commands


def malformed_ids() -> list[Commands]:
    """Return orders and cancels with a character of each value at each end of an id, and with NULs between."""
    commands: list[Commands] = []
    for character, place_of in itertools.product(range(256), (0, 7)):
        word = bytearray(b"a" * (place_of + 1))
        word[place_of] = character
        commands.append(placed_with(len(commands), client_order_id=int.from_bytes(word, "little")))
    for character, place_of in itertools.product((0, 1, 0x1F, 0x20, 0x7E, 0x7F, 0x80, 0xFF), range(64)):
        for length in (9, 64):
            text = bytearray(b"a" * length)
            if place_of < length:
                text[place_of] = character
                commands.append(placed_with(len(commands), client_order_id_text=bytes(text)))
    for length in range(1, 10):
        own: dict[str, Any] = {"client_order_id_text": b"a" * length}
        for fields in (own, {"client_order_id": ord("a"), **own}):
            commands.append(placed_with(len(commands), **fields))
            commands.append(raw(CommandKind.CANCEL, (11, 1 + len(commands)), account=1, **fields))
    return commands


def placed_with(number: int, **fields: Any) -> Commands:
    return raw(
        CommandKind.PLACE, (11, 1 + number), account=1, instrument=1, side=1, order_type=1, tif=2, stp=1,
        price_ticks=1, quantity_lots=1, **fields,
    )  # fmt: skip


def session_openings() -> list[Commands]:
    """Return resumptions with other fields set, and openings of a used session with and without its next request id."""
    return [
        command(CommandKind.OPEN_SESSION, (11, 5), account=1, side=7),
        command(CommandKind.OPEN_SESSION, (11, 9), account=2),
        command(CommandKind.OPEN_SESSION, (11, 1), account=2),
        place((11, 1), 1, Side.BUY, 1, 1),
        place((11, 2), 1, Side.BUY, 1, 1),
        command(CommandKind.CLOSE_SESSION, (11, 2)),
        command(CommandKind.CLOSE_SESSION, (11, 3)),
        open_session(11, 2),
        place((11, 1), 2, Side.BUY, 1, 1),
    ]


def largest_numbers() -> list[Commands]:
    return [
        open_session(U64, 1),
        place((U64, U64), 1, Side.BUY, 1, 1),
        place((U64, 1), 1, Side.BUY, 1, 1, client_order_id="~" * 8),
        command(CommandKind.CANCEL, (U64, 2), account=1, client_order_id="~" * 64),
        raw(CommandKind.CANCEL, (U64, 3), account=1, client_order_id=U64),
        open_account((VENUE_SESSION, NEXT), U32),
        add_asset((VENUE_SESSION, NEXT + 1), U32, "Z" * 16, 18),
        deposit((VENUE_SESSION, NEXT + 2), U32, U32, I62, U64),
        deposit((VENUE_SESSION, NEXT + 3), U32, U32, 1, 5),
        withdraw((VENUE_SESSION, NEXT + 4), U32, U32, I62, 1 << 63),
        deposit((VENUE_SESSION, NEXT + 5), U32, U32, I62, 5),
    ]


def largest_instruments() -> list[Commands]:
    """Return products around 2^62 and far beyond 2^64, which could overflow."""
    shapes = [
        (U32, U32, 1 << 15, (1 << 15) - 1),
        (U32, U32, (1 << 63) - 1, (1 << 63) - 1),
        (1, 1, I62, 1),
        (1, 1, I62 + 1, 1),
        (4, 4, I62, I62),
        (1, 1, 1 << 31, 1 << 31),
        (1, 1, (1 << 31) - 1, 1 << 31),
        (1, 4, 1 << 60, 16),  # 2^66
        (1 << 31, 1, 1, 1 << 31),
        (1 << 31, 1, 1, (1 << 31) - 1),
        (8, 1, 1, 1 << 61),  # 2^64 exactly
    ]
    return [
        add_instrument(
            (VENUE_SESSION, NEXT + index), 70 + index, "BIG", base_asset=3, quote_asset=1, lot_units=lot,
            scale_units=scale, max_price_ticks=price, max_quantity_lots=quantity,
        )
        for index, (lot, scale, price, quantity) in enumerate(shapes)
    ]  # fmt: skip


def trades_at_the_bound() -> list[Commands]:
    """Return an order worth the largest supply, filled in two parts at better prices."""
    price = (1 << 31) - 1
    return [
        add_asset((VENUE_SESSION, NEXT), 8, "MUCH"),
        add_instrument(
            (VENUE_SESSION, NEXT + 1), 9, "ETH/MUCH", base_asset=3, quote_asset=8, scale_units=1 << 30,
            max_price_ticks=price, max_quantity_lots=2,
        ),
        deposit((VENUE_SESSION, NEXT + 2), 1, 8, I62, 900),
        place((12, 1), 2, Side.SELL, 1, price - 1, instrument=9),
        place((11, 1), 1, Side.BUY, 2, price, instrument=9),
        place((13, 1), 3, Side.SELL, 2, price, instrument=9),
        place((11, 2), 1, Side.BUY, 2, order_type=OrderType.MARKET, tif=TimeInForce.IOC, instrument=9),
    ]  # fmt: skip


def stopped_takers() -> list[Commands]:
    """Return takers that two causes could stop: their own order, their funds, the end of the book."""
    market_buy: dict[str, Any] = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC}
    return [
        place((12, 1), 2, Side.SELL, 10, 20),
        place((11, 1), 1, Side.SELL, 1, 20),
        withdraw((11, 2), 1, 1, 900, 500),
        place((11, 3), 1, Side.BUY, 50, **market_buy),
        place((11, 4), 1, Side.BUY, 1, 20, flags=OrderFlags.POST_ONLY),
        open_account((VENUE_SESSION, NEXT), 9),
        open_session(19, 9),
        place((19, 1), 9, Side.BUY, 1, **market_buy),
        place((19, 2), 9, Side.SELL, 1, **market_buy),
        command(CommandKind.MASS_CANCEL, (11, 5), account=1),
        place((19, 3), 9, Side.BUY, 1, **market_buy),
    ]


def long_sweep() -> list[Commands]:
    """Return a thousand small asks, most of them taken by one order, the rest cancelled by two mass cancels."""
    commands = [
        add_instrument((VENUE_SESSION, NEXT), 9, "DEEP", base_asset=3, quote_asset=1),
        deposit((VENUE_SESSION, NEXT + 1), 1, 1, 1_000_000, 900),
        *(deposit((VENUE_SESSION, NEXT + account), account, 3, 1_000, 900 + account) for account in (2, 3)),
    ]
    for number in range(1_000):
        account, request = 2 + number % 2, 1 + number // 2
        # Prices and client order ids neither rise nor fall.
        price = 1 + number * 37 % 61
        commands.append(
            place(
                (10 + account, request),
                account,
                Side.SELL,
                1,
                price,
                instrument=9,
                client_order_id=1 + number * 7 % 1009,
            )
        )
    return [
        *commands,
        place((11, 1), 1, Side.BUY, 1_001, 61, instrument=9, tif=TimeInForce.FOK),
        place((11, 2), 1, Side.BUY, 700, 61, instrument=9, tif=TimeInForce.FOK),
        command(CommandKind.MASS_CANCEL, (12, 501), account=2, side=Side.SELL),
        command(CommandKind.MASS_CANCEL, (13, 501), account=3, instrument=9),
    ]


@pytest.mark.parametrize(
    "edge_case",
    [
        every_kind_and_field,
        every_kind_and_field_of_details,
        every_term_of_every_kind_of_order,
        malformed_ids,
        every_kind_of_order,
        every_kind_without_a_session,
        symbols,
        session_openings,
        largest_numbers,
        largest_instruments,
        trades_at_the_bound,
        stopped_takers,
        long_sweep,
    ],
)
@pytest.mark.parametrize("rules", [2, 1])
def test_engine_and_oracle_agree(edge_case: Callable[[], list[Commands]], rules: int) -> None:
    commands = join(edge_case())
    # The setup with version 1 of the rules has fewer requests.
    of_venue = commands.records["session_id"] == VENUE_SESSION
    commands.records["request_id"][of_venue] -= np.uint64(venue_requests() - venue_requests(rules))
    tape = Tape([Batch(1, join(market_setup(rules))), Batch(2, commands)], rules)
    oracle, expected = run(Oracle(rules), tape)
    engine, found = run(Engine(rules=rules), tape)
    report = difference(tape, expected, found)
    assert report is None, report
    assert state_differences(oracle, engine) == []
