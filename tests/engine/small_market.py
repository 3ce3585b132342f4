"""A small market on the engine for tests: request ids are assigned automatically, one call sends one command."""

from typing import Any

import numpy as np

from smrx.engine import Engine, Result
from smrx.engine.state import NEVER
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderType,
    Permission,
    Reason,
    Scope,
    Side,
    TimeInForce,
)
from smrx.wire.records import EVENT_LAYOUTS
from tests.commands import (
    Commands,
    add_asset,
    add_credential,
    add_instrument,
    apply,
    command,
    deposit,
    open_account,
    open_session,
    place,
    session_of,
    set_limits,
    set_rules,
)

VENUE = 1
#: Base and quote asset, and how much every account has of each.
BASE, QUOTE = 1, 2
FUNDS = 1 << 40
MAX_PRICE = 1 << 50
#: Nanoseconds.
SECOND = 1_000_000_000


class SmallMarket:
    """An engine with one instrument and funded accounts 1, 2, 3, each with its own session 10 + account."""

    def __init__(self, traders: int = 3, **sizes: Any) -> None:
        self.engine = Engine(**sizes)
        self.requests: dict[int, int] = {}
        self.send(open_session(VENUE, 0))
        self.send(add_asset(self.sender(0), BASE, "BASE"))
        self.send(add_asset(self.sender(0), QUOTE, "QUOTE"))
        self.send(
            add_instrument(
                self.sender(0), 1, "BASE/Q", base_asset=BASE, quote_asset=QUOTE,
                max_price_ticks=MAX_PRICE, max_quantity_lots=1 << 11,
            )
        )  # fmt: skip
        for account in range(1, traders + 1):
            self.send(open_account(self.sender(0), account))
            self.send(deposit(self.sender(0), account, BASE, FUNDS, 10 * account))
            self.send(deposit(self.sender(0), account, QUOTE, FUNDS, 10 * account + 1))
            self.send(open_session(10 + account, account))

    def next_order_expiry(self) -> int | None:
        """Return when the first GTD order expires, whatever else ends before."""
        expiry = int(self.engine._state.core["next_expiry"][0])
        return None if expiry == NEVER else expiry

    def sender(self, account: int) -> tuple[int, int]:
        """Return the account's session and its next request id."""
        session = 10 + account if account else VENUE
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def send(self, commands: Commands, time_ns: int = 1) -> Result:
        """Apply commands that must all be accepted."""
        result: Result = apply(self.engine, commands, time_ns)
        assert (result.outcomes["status"] == 1).all(), result.outcomes
        return result

    def buy(self, account: int, lots: int, price: int, **more: Any) -> Result:
        """Place a buy order."""
        return self.send(place(self.sender(account), account, Side.BUY, lots, price, **more))

    def sell(self, account: int, lots: int, price: int, **more: Any) -> Result:
        """Place a sell order."""
        return self.send(place(self.sender(account), account, Side.SELL, lots, price, **more))

    def cancel(self, account: int, order_id: int) -> Result:
        """Cancel an order."""
        return self.send(command(CommandKind.CANCEL, self.sender(account), account=account, order_id=order_id))

    def replace_command(self, account: int, order_id: int, lots: int, price: int) -> Commands:
        """Return a REPLACE with a new total quantity and a new price."""
        return command(
            CommandKind.REPLACE, self.sender(account), account=account, order_id=order_id, quantity_lots=lots,
            price_ticks=price,
        )  # fmt: skip

    def replace(self, account: int, order_id: int, lots: int, price: int) -> Result:
        """Replace an order."""
        return self.send(self.replace_command(account, order_id, lots, price))

    def stop(self, account: int, side: Side, lots: int, stop_ticks: int, price: int = 0, **more: Any) -> Result:
        """Place a stop order, or a stop-limit order if it has a price."""
        kind = OrderType.STOP_LIMIT if price else OrderType.STOP
        tif = more.pop("tif", TimeInForce.GTC if price else TimeInForce.IOC)
        terms = {"order_type": kind, "tif": tif, "stop_ticks": stop_ticks, **more}
        return self.send(place(self.sender(account), account, side, lots, price, **terms))

    def send_as_venue(self, kind: CommandKind, time_ns: int = 1, **fields: int) -> Result:
        """Send a command from the venue's session."""
        return self.send(command(kind, self.sender(0), **fields), time_ns)

    def set_rules(self, **rules: int) -> Result:
        """Set the rules of the instrument."""
        return self.send(set_rules(self.sender(0), 1, **rules))

    def set_limits(self, account: int, **limits: int) -> Result:
        """Set the limits of an account."""
        return self.send(set_limits(self.sender(0), account, **limits))

    def tick(self, seconds: int) -> Result:
        """Set the engine time to so many seconds since 1970."""
        return self.send(command(CommandKind.TICK), seconds * SECOND)

    def rejected(self, commands: Commands) -> Reason:
        """Send a command that must be rejected with its own event and change no balance or order; return the reason."""
        before = self.engine.inspect.balances().tobytes(), self.engine.inspect.orders().tobytes()
        result: Result = apply(self.engine, commands, 1)
        assert result.outcomes["status"].tolist() == [2], result.outcomes
        assert result.events["kind"][0] == EventKind.REJECTED
        assert len(result.events) == 1 + int(result.events["following"][0])
        assert (self.engine.inspect.balances().tobytes(), self.engine.inspect.orders().tobytes()) == before
        assert result.events["reason"][0] == result.outcomes["reason"][0]
        return Reason(int(result.outcomes["reason"][0]))

    def balance_change(self, account: int, asset: int) -> tuple[int, int]:
        """Return the change of an account's balance since the start, held amounts included, and the held amount."""
        rows = self.engine.inspect.balances(account)
        row = rows[rows["asset"] == asset]
        available, held = (int(row[name].sum()) for name in ("available", "held"))
        return available + held - (FUNDS if account else 0), held

    def depth(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return (price, shown lots, orders) of bids and asks, the best first."""
        return self.engine.inspect.depth(1, 100)

    def open_ids(self) -> list[int]:
        """Return the ids of all open orders."""
        ids: list[int] = self.engine.inspect.orders()["order_id"].tolist()
        return ids

    def check_state(self) -> None:
        """Assert all invariants and the content hash."""
        assert self.engine.check_invariants() == []
        assert self.engine.content_hash() == self.engine.recompute_content_hash()


def events_of(result: Result) -> list[tuple[str, int]]:
    """Return kind and order id of each event; for a trade, the maker's id."""
    return [
        (EventKind(int(event["kind"])).name, int(event["counter_order_id" if event["kind"] == 8 else "order_id"]))
        for event in result.events
    ]


def in_own_layout(event: Any) -> Any:
    """Return an event with the field names of its kind."""
    return np.frombuffer(event.tobytes(), EVENT_LAYOUTS[EventKind(int(event["kind"]))])[0]


def fills(result: Result) -> list[tuple[int, int, int]]:
    """Return (maker's order id, price, lots) of every trade."""
    trades = result.events[result.events["kind"] == EventKind.TRADE]
    names = ("counter_order_id", "price_ticks", "quantity_lots")
    return [(int(trade[names[0]]), int(trade[names[1]]), int(trade[names[2]])) for trade in trades]


def order_id(result: Result) -> int:
    """Return the order that the last command created or changed."""
    return int(result.outcomes["order_id"][-1])


def last_outcome(result: Result) -> tuple[str, str, int, int]:
    """Return event kind, reason, cum and leaves of the last outcome."""
    last = result.outcomes[-1]
    return (
        EventKind(int(last["event_kind"])).name,
        Reason(int(last["reason"])).name,
        int(last["cum_lots"]),
        int(last["leaves_lots"]),
    )


def busy_market(**rules: int) -> SmallMarket:
    """Return a market with orders on both sides, some trades and a freed slot, under these rules of the instrument."""
    market = SmallMarket()
    if rules:
        market.set_rules(**rules)
    for step in range(12):
        market.buy(1 + step % 3, 2 + step, 90 - step % 4, client_order_id=100 + step)
        market.sell(1 + (step + 1) % 3, 2 + step, 110 + step % 4)
    market.buy(3, 3, 110)
    first = int(market.engine.inspect.orders()["order_id"][0])
    market.cancel(int(market.engine.inspect.orders()["account"][0]), first)
    assert market.engine.trade_count > 0
    assert market.engine.check_invariants() == []
    return market


def full_market() -> SmallMarket:
    """Return a busy market with records of every kind in use.

    Also rules, limits, icebergs, stops, GTD orders, firms, credentials, their sessions and a person behind an order.
    """
    market = busy_market(taker_fee=20, maker_fee=-10, band_bp=5000)
    market.set_limits(2, max_open_orders=100, max_order_notional=1 << 40)
    for account in (1, 2, 3):
        market.sell(account, 9, 120 + account, display_lots=2)
        market.buy(account, 3, 70 + account, tif=TimeInForce.GTD, expiry_seconds=1000 + account)
        market.stop(account, Side.BUY, 2, 130 + account, 140)
    market.buy(2, 1, 110)
    market.send(open_account(market.sender(0), 4, 77))
    market.send(add_credential(market.sender(0), 6, Permission.TRADE, 1, networks=("10.0.0.0/8",), expires_ns=1 << 62))
    market.send(add_credential(market.sender(0), 5, Permission.TRADE | Permission.GATEWAY, scope=Scope.ALL))
    market.send(open_session(session_of(5, 1), 1))
    market.send(place((session_of(5, 1), 1), 1, Side.BUY, 1, 60, credential=6))
    market.check_state()
    return market


def same_bytes(left: Result, right: Result) -> bool:
    """Whether two results have the same bytes."""
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(left, right, strict=True))
