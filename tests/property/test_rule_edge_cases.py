"""Edge cases of the rules that random flow would seldom reach: sums near 2^62, long cascades, many GTD orders.

The engine and the oracle must agree on each tape.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from smrx.engine import Engine
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)
from tests import commands as make
from tests.oracle import Oracle
from tests.property.choices import COLLIDING_IDS, VENUE_SESSION
from tests.property.comparison import difference, run, state_differences
from tests.property.flow import START_NS, Batch, Tape, market_setup, venue_requests
from tests.raw_credentials import revoke_credential

BUY, SELL = Side.BUY, Side.SELL
I62 = (1 << 62) - 1
SECONDS = START_NS // 1_000_000_000
IOC: dict[str, Any] = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC}
BUDGET: dict[str, Any] = {**IOC, "flags": OrderFlags.QUOTE_BUDGET}


class Script:
    """Commands in sequence, each its session's next request, after the market setup of the random flow."""

    def __init__(self) -> None:
        self.commands = market_setup()
        self.requests = {VENUE_SESSION: venue_requests()}
        self.transfers = 1_000

    def sender(self, session: int) -> make.Sender:
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def send_as_venue(self, builder: Any, *args: Any, **named: Any) -> None:
        self.commands.append(builder(self.sender(VENUE_SESSION), *args, **named))

    def fund(self, account: int, asset: int, amount: int) -> None:
        self.transfers += 1
        self.send_as_venue(make.deposit, account, asset, amount, self.transfers)

    def place(self, account: int, side: Side, lots: int, price: int = 0, **named: Any) -> None:
        self.commands.append(make.place(self.sender(10 + account), account, side, lots, price, **named))

    def stop(self, account: int, side: Side, lots: int, stop: int, price: int = 0, **named: Any) -> None:
        kind = OrderType.STOP_LIMIT if price else OrderType.STOP
        tif = named.pop("tif", TimeInForce.GTC if price else TimeInForce.IOC)
        self.place(account, side, lots, price, order_type=kind, tif=tif, stop_ticks=stop, **named)

    def send_as_account(self, kind: CommandKind, account: int, **fields: Any) -> None:
        self.commands.append(make.command(kind, self.sender(10 + account), account=account, **fields))

    def list_with_full_supply(self, number: int, max_price: int, max_quantity: int = 1, scale: int = 1) -> None:
        """Add an instrument whose quote asset has the largest supply, half of it in each of two accounts."""
        self.send_as_venue(make.add_asset, number, f"Q{number}")
        self.send_as_venue(
            make.add_instrument, number, f"I{number}", base_asset=3, quote_asset=number, scale_units=scale,
            max_price_ticks=max_price, max_quantity_lots=max_quantity,
        )  # fmt: skip
        self.fund(1, number, I62 // 2)
        self.fund(2, number, I62 // 2)


def large_notional_sums(script: Script) -> None:
    """Open notional of sells, which no funds bound, beyond 2^63; and a limit that it exceeds."""
    script.list_with_full_supply(9, 1 << 61)
    for _ in range(9):
        script.place(3, SELL, 1, 1 << 61, instrument=9)
    script.send_as_venue(make.set_limits, 3, max_open_notional=I62)
    script.place(3, SELL, 1, 1, instrument=9)
    script.send_as_account(CommandKind.MASS_CANCEL, 3, instrument=9)
    script.place(3, SELL, 1, 1 << 61, instrument=9)
    script.place(3, SELL, 1, (1 << 61) - 1, instrument=9)
    script.place(3, SELL, 1, 1, instrument=9)


def large_fees(script: Script) -> None:
    """Fees of notionals near 2^58, whose product with a rate does not fit into 64 bits."""
    script.list_with_full_supply(9, 1 << 59, 3)
    for taker, maker in ((333_333, -333_333), (1_000_000, 999_999), (1, -1), (999_999, 7)):
        script.send_as_venue(make.set_rules, 9, taker_fee=taker, maker_fee=maker)
        script.place(2, SELL, 2, (1 << 57) - 12_345, instrument=9)
        script.place(1, BUY, 1, 1 << 58, instrument=9)
        script.place(1, BUY, 3, instrument=9, **IOC)
        script.place(2, SELL, 1, (1 << 57) - 1, instrument=9)
        script.place(1, BUY, I62, instrument=9, **BUDGET)
        script.send_as_account(CommandKind.MASS_CANCEL, 1)
        script.send_as_account(CommandKind.MASS_CANCEL, 2)


def large_budgets(script: Script) -> None:
    """The largest possible budgets, for lots at a price of 1."""
    script.list_with_full_supply(9, 1, 1 << 40)
    script.fund(2, 3, 10_000)
    script.send_as_venue(make.set_rules, 9, taker_fee=7)
    script.place(2, SELL, 9_000, 1, instrument=9)
    script.place(1, BUY, 1, instrument=9, **BUDGET)
    script.place(1, BUY, 2, instrument=9, **BUDGET)
    script.place(1, BUY, 8_001, instrument=9, **BUDGET)
    script.place(1, BUY, I62, instrument=9, **BUDGET)
    script.place(1, BUY, I62 + 1, instrument=9, **BUDGET)
    script.place(1, BUY, -1, instrument=9, **BUDGET)


def large_bands(script: Script) -> None:
    """A price band around prices near 2^61."""
    script.list_with_full_supply(9, 1 << 61)
    script.send_as_venue(make.set_rules, 9, band_bp=9_999)
    script.place(2, SELL, 1, 1 << 60, instrument=9)
    script.place(1, BUY, 1, 1 << 60, instrument=9)
    width = (1 << 60) * 9_999 // 10_000
    for price in ((1 << 60) + width, (1 << 60) + width + 1, (1 << 60) - width, (1 << 60) - width - 1):
        script.place(2, SELL, 1, min(price, 1 << 61), instrument=9)
        script.stop(2, SELL, 1, 1 << 59, max(1, price >> 1), instrument=9)
    for stop in (0, 1, (1 << 61) + 1, (1 << 63) - 1, -(1 << 63)):
        script.stop(2, SELL, 1, stop, instrument=9)


def bounds_of_rules(script: Script) -> None:
    """The product that rules must keep below 2^62, at its bound and far beyond 64 bits."""
    shapes = [(1 << 31, (1 << 31) - 1, 1), (1 << 60, 2, 1), (1, 1 << 61, 1), (1 << 30, 1, (1 << 32) - 1)]
    for number, (price, lots, scale) in enumerate([*shapes, (3, 1 << 60, 1)], start=20):
        script.list_with_full_supply(number, price, lots, scale)
        for fee in (0, 1, 250_000, 333_333, 999_999, 1_000_000):
            script.send_as_venue(make.set_rules, number, taker_fee=fee, maker_fee=-fee)
    for field in ("min_notional", "max_notional", "min_price_ticks", "min_quantity_lots"):
        for value in (-1, -(1 << 63), 20, 21, 50, 51, I62, I62 + 1, (1 << 63) - 1):
            script.send_as_venue(make.set_rules, 1, **{field: value})
    for field in ("max_open_notional", "max_order_notional", "max_order_quantity"):
        for value in (-1, -(1 << 63), 1, I62, I62 + 1, (1 << 63) - 1):
            script.send_as_venue(make.set_limits, 1, **{field: value})
    script.send_as_venue(make.set_limits, 1, max_open_orders=(1 << 32) - 1)
    script.send_as_venue(make.set_rules, 1, maker_fee=-(1 << 31), taker_fee=1_000_000)
    script.send_as_venue(make.set_rules, 1, maker_fee=(1 << 31) - 1, taker_fee=(1 << 32) - 1)


def long_cascade(script: Script) -> None:
    """Three hundred stops, each triggered by the trade of the one before, and as many triggered by one trade."""
    script.send_as_venue(make.add_instrument, 9, "STOPS", base_asset=3, quote_asset=1)
    for account in (1, 2, 3, 4):
        script.fund(account, 3, 4_000)
        script.fund(account, 1, 4_000_000)
    for step in range(300):
        script.place(1, BUY, 1, 1_000 - step, instrument=9)
        script.stop(2 + step % 2, SELL, 1, 1_000 - step, instrument=9, stp=Stp.NONE)
    script.place(4, SELL, 1, 1_000, instrument=9)
    for step in range(300):
        script.place(1, SELL, 1, 2_000 + step % 7, instrument=9, display_lots=0)
        script.stop(2 + step % 3, BUY, 1, 1_500 + step * 37 % 101, 2_003, instrument=9)
    script.place(1, SELL, 1, 1_601, instrument=9)
    script.place(4, BUY, 1, 1_601, instrument=9)
    script.send_as_venue(make.set_status, 9, InstrumentStatus.CLOSED)


def many_refreshes(script: Script) -> None:
    """Icebergs of a thousand parts against each other, and fill-or-kill orders that search all of them."""
    script.send_as_venue(make.add_instrument, 9, "ICE", base_asset=3, quote_asset=1)
    for account in (1, 2, 3):
        script.fund(account, 3, 6_000)
        script.fund(account, 1, 400_000)
    script.place(1, SELL, 1_000, 10, instrument=9, display_lots=1)
    script.place(2, SELL, 3_000, 10, instrument=9, display_lots=3)
    script.place(2, SELL, 3_001, 10, instrument=9, display_lots=3)
    script.place(2, SELL, 10, 10, instrument=9, display_lots=(1 << 63) - 1)
    script.place(3, BUY, 4_001, 10, instrument=9, tif=TimeInForce.FOK)
    script.place(3, BUY, 1_500, 10, instrument=9, tif=TimeInForce.FOK)
    script.place(3, SELL, 7, 10, instrument=9)
    for stp in Stp:
        script.place(3, BUY, 100, 10, instrument=9, tif=TimeInForce.FOK, stp=stp)
    script.place(3, SELL, 700, 10, instrument=9, display_lots=1)
    script.place(3, BUY, 30, 10, instrument=9, stp=Stp.DECREMENT)
    script.place(3, BUY, 2_000, 10, instrument=9, stp=Stp.CANCEL_OLDEST, display_lots=5)


def many_gtd_orders(script: Script) -> None:
    """Expiries in no order, many of them equal, and the latest possible; some cancelled or filled before."""
    for number in range(400):
        expiry = SECONDS + 1 + number * 7 % 23
        script.place(
            1 + number % 4, BUY, 1, 1 + number % 5, tif=TimeInForce.GTD, expiry_seconds=expiry,
            client_order_id=number + 1, display_lots=0,
        )  # fmt: skip
        if number % 5 == 0:
            script.send_as_account(CommandKind.CANCEL, 1 + number % 4, client_order_id=number + 1)
        if number % 7 == 0:
            script.place(1 + (number + 1) % 4, SELL, 2, 4)
    for expiry in (0, 1, SECONDS, SECONDS + 30):
        script.place(1, BUY, 1, 1, tif=TimeInForce.GTD, expiry_seconds=expiry)
    for expiry_ns in (-1, -(1 << 63), START_NS, START_NS + 1, (1 << 63) - 1):
        script.place(1, BUY, 1, 1, tif=TimeInForce.GTD, expiry_ns=expiry_ns)


def largest_display(script: Script) -> None:
    """Displays and quantities near 2^61."""
    most = (1 << 61) - 1
    script.send_as_venue(make.add_asset, 9, "BASE")
    script.send_as_venue(
        make.add_instrument, 9, "LARGE", base_asset=9, quote_asset=1, max_price_ticks=1, max_quantity_lots=most
    )
    for account in (1, 2):
        script.fund(account, 9, most)
    script.fund(3, 1, most)
    script.place(1, SELL, most, 1, instrument=9, display_lots=most - 1)
    script.place(2, SELL, most, 1, instrument=9, display_lots=most // 1_000 + 1)
    script.place(2, SELL, most, 1, instrument=9, display_lots=most // 1_000)
    for display in (most, (1 << 62), (1 << 63) - 1, -1, -(1 << 63)):
        script.place(2, SELL, most, 1, instrument=9, display_lots=display)
    script.place(3, BUY, most, 1, instrument=9, tif=TimeInForce.FOK)
    script.place(3, BUY, most, 1, instrument=9)


def expiring_stops(script: Script) -> None:
    """Stops that expire pending, at the time of the trade that would trigger them, and after they have triggered."""
    for number in range(60):
        expiry = START_NS + (1 + number % 7) * 1_000_000_000 + number % 3
        how: dict[str, Any] = {
            "tif": TimeInForce.GTD,
            "expiry_ns": expiry,
            "client_order_id": f"an expiring stop {number}",
        }
        if number % 3:
            display = {"display_lots": 1 + number % 2} if number % 3 == 2 else {}
            script.stop(1 + number % 4, SELL, 3, 8 - number % 5, 8 - number % 4, **how, **display)
        else:
            script.stop(1 + number % 4, BUY, 1, 12 + number % 5, **how)
    for price in (8, 6, 13, 5):
        script.place(1, BUY, 2, price)
        script.place(2, SELL, 2, price)
    script.place(1, BUY, 40, 8)


def colliding_ids(script: Script) -> None:
    """Ids with the same 64-bit form: one of them may be open in an account, and the other one does not name it."""
    first, second = COLLIDING_IDS
    for account in (1, 2, 1):
        for name in (first, second):
            script.place(account, BUY, 1, 2, client_order_id=name)
    for name in (second, first, second):
        script.send_as_account(CommandKind.REPLACE, 1, client_order_id=name, price_ticks=3, quantity_lots=4)
        script.send_as_account(CommandKind.CANCEL, 1, client_order_id=name)
        script.send_as_account(CommandKind.CANCEL, 1, client_order_id=name)
        script.send_as_account(CommandKind.REPLACE, 2, client_order_id=name, price_ticks=3, quantity_lots=1)
        script.place(1, BUY, 1, 3, client_order_id=name)
    script.place(3, SELL, 3, 3)
    for name in (first, second, first[:-1], second[:8], first.lower()):
        script.place(2, BUY, 1, 1, client_order_id=name)
        script.send_as_account(CommandKind.CANCEL, 2, client_order_id=name)


def ids_of_every_length(script: Script) -> None:
    """Ids of 1 to 64 characters, each a part of the next; all are open at once, then cancelled in another order."""
    text = "".join(chr(0x20 + at % 95) for at in range(64))
    for length in range(1, 65):
        script.place(1 + length % 4, BUY, 1, 1, client_order_id=text[:length])
    for length in sorted(range(1, 65), key=lambda length: length * 29 % 67):
        script.send_as_account(CommandKind.CANCEL, 1 + length % 4, client_order_id=text[:length])


#: The last session id without a credential.
LAST_SESSION = (1 << 32) - 1


def many_session_orders(script: Script) -> None:
    """Orders of sessions with cancel on disconnect, replaced and filled in between; a reused session id."""
    script.commands.append(make.open_session(LAST_SESSION, 1, SessionFlags.CANCEL_ON_DISCONNECT))
    for number in range(60):
        who = (LAST_SESSION, number + 1)
        script.commands.append(make.place(who, 1, BUY, 1, 1 + number % 9, client_order_id=number + 1))
        if number % 3 == 0:
            script.send_as_account(CommandKind.REPLACE, 1, client_order_id=number + 1, price_ticks=2, quantity_lots=2)
        if number % 4 == 0:
            script.place(2, SELL, 1, 4)
    script.commands.append(make.disconnect(LAST_SESSION))
    script.commands.append(make.place((LAST_SESSION, 61), 1, BUY, 1, 1))
    script.commands.append(make.command(CommandKind.CLOSE_SESSION, (LAST_SESSION, 62)))
    script.commands.append(make.open_session(LAST_SESSION, 2))
    script.commands.append(make.disconnect(LAST_SESSION))
    script.commands.append(make.disconnect(0))


def orders_of_a_firms_session(script: Script) -> None:
    """Orders of two accounts and several persons by one session, which ends with all of them, oldest first."""
    session = 31 << 32 | 9
    script.commands.append(make.open_session(session, 1, SessionFlags.CANCEL_ON_DISCONNECT))
    for number in range(60):
        account, person = (1, 21) if number % 2 else (3, 24)
        placed = make.place(
            script.sender(session), account, BUY, 1, 1 + number % 7, credential=person if number % 3 else 0
        )
        script.commands.append(placed)
        if number % 5 == 0:
            script.place(2, SELL, 1, 6)
        if number == 30:
            script.commands.append(make.disconnect(session))
        if number == 40:
            script.send_as_venue(revoke_credential, 24)
    script.commands.append(make.command(CommandKind.CLOSE_SESSION, script.sender(session)))
    script.commands.append(make.open_session(session, 1))
    script.send_as_venue(revoke_credential, 31)
    script.commands.append(make.place(script.sender(session), 1, BUY, 1, 1))
    script.commands.append(make.disconnect(session))


def self_trades_of_every_kind(script: Script) -> None:
    """Every mode against plain and hidden own orders, larger, smaller and equal, for every type of taker."""
    for stp in Stp:
        for lots in (3, 6, 7, 12):
            for how in (IOC, {"tif": TimeInForce.FOK}, {"tif": TimeInForce.IOC}, {"tif": TimeInForce.GTC}, BUDGET):
                script.place(1, SELL, 6, 3, display_lots=2)
                script.place(2, SELL, 1, 3)
                script.place(1, SELL, 4, 4)
                price = 4 if "order_type" not in how else 0
                script.place(1, BUY, lots * (12 if how is BUDGET else 1), price, stp=stp, **how)
                script.send_as_account(CommandKind.MASS_CANCEL, 1)
                script.send_as_account(CommandKind.MASS_CANCEL, 2)


#: The event that each edge case must reach, and how often at least.
EDGE_CASES: list[tuple[Callable[[Script], None], EventKind, int]] = [
    (large_notional_sums, EventKind.NEW, 10),
    (large_fees, EventKind.TRADE, 5),
    (large_budgets, EventKind.TRADE, 3),
    (large_bands, EventKind.NEW, 6),
    (bounds_of_rules, EventKind.RULES_SET, 20),
    (long_cascade, EventKind.TRIGGERED, 590),
    (many_refreshes, EventKind.TRADE, 1_500),
    (many_gtd_orders, EventKind.EXPIRED, 250),
    (largest_display, EventKind.TRADE, 2),
    (expiring_stops, EventKind.EXPIRED, 40),
    (colliding_ids, EventKind.CLIENT_ORDER_ID, 12),
    (ids_of_every_length, EventKind.CANCELLED, 64),
    (many_session_orders, EventKind.CANCELLED, 40),
    (orders_of_a_firms_session, EventKind.CANCELLED, 30),
    (self_trades_of_every_kind, EventKind.TRADE, 50),
]


@pytest.mark.parametrize(("edge_case", "kind", "least"), EDGE_CASES, ids=lambda value: getattr(value, "__name__", None))
def test_engine_and_oracle_agree(edge_case: Callable[[Script], None], kind: EventKind, least: int) -> None:
    script = Script()
    edge_case(script)
    late = make.command(CommandKind.TICK)
    tape = Tape(
        [
            Batch(START_NS, make.join(script.commands)),
            *(Batch(START_NS + seconds * 1_000_000_000, late) for seconds in (5, 10, 40, 1 << 33)),
        ]
    )
    oracle, expected = run(Oracle(), tape)
    engine, found = run(Engine(), tape)
    report = difference(tape, expected, found)
    assert report is None, report
    assert state_differences(oracle, engine) == []
    assert Counter(expected.events["kind"].tolist())[kind] >= least
