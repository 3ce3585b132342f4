"""A market on the oracle, and short forms of its results, for tests with hand-computed numbers."""

from typing import Any

from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderType,
    OutcomeStatus,
    Reason,
    Side,
    TimeInForce,
)
from tests import commands as make
from tests.oracle import Oracle, Result

BUY, SELL = Side.BUY, Side.SELL
USD, BTC = 1, 2
ALICE, BOB, CAROL = 1, 2, 3


class OracleMarket:
    """An oracle with an instrument (lot 10 units, scale 3) and three accounts of 10,000 USD and 1,000 BTC units."""

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.requests: dict[int, int] = {}
        self.transfers = 0
        self.send(make.open_session(100, 0))
        self.send_as_venue(make.add_asset, USD, "USD", 2)
        self.send_as_venue(make.add_asset, BTC, "BTC", 8)
        self.send_as_venue(
            make.add_instrument, 1, "BTC/USD", base_asset=BTC, quote_asset=USD, lot_units=10, scale_units=3,
            max_price_ticks=1_000, max_quantity_lots=500,
        )  # fmt: skip
        for account in (ALICE, BOB, CAROL):
            self.send_as_venue(make.open_account, account)
            self.send(make.open_session(100 + account, account))
            self.deposit(account, USD, 10_000)
            self.deposit(account, BTC, 1_000)

    def sender(self, session: int) -> tuple[int, int]:
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def send(self, commands: make.Commands, time_ns: int = 0) -> Result:
        result: Result = make.apply(self.oracle, commands, time_ns)
        return result

    def send_as_venue(self, builder: Any, *args: Any, **named: Any) -> Result:
        return self.send(builder(self.sender(100), *args, **named))

    def deposit(self, account: int, asset: int, amount: int) -> Result:
        self.transfers += 1
        return self.send_as_venue(make.deposit, account, asset, amount, self.transfers)

    def place(self, account: int, side: Side, lots: int, price: int = 0, **named: Any) -> Result:
        return self.send(make.place(self.sender(100 + account), account, side, lots, price, **named))

    def place_market(self, account: int, side: Side, lots: int) -> Result:
        return self.place(account, side, lots, order_type=OrderType.MARKET, tif=TimeInForce.IOC)

    def send_as_account(self, kind: CommandKind, account: int, **fields: Any) -> Result:
        return self.send(make.command(kind, self.sender(100 + account), account=account, **fields))

    def balance(self, account: int, asset: int) -> tuple[int, int]:
        balance = self.oracle.state.balances[account, asset]
        return balance.available, balance.held

    def depth(self) -> Any:
        return self.oracle.inspect.depth(1, 10)


def order_id(result: Result) -> int:
    return int(result.outcomes[0]["order_id"])


def event_kinds(result: Result) -> list[EventKind]:
    return [EventKind(int(kind)) for kind in result.events["kind"]]


def last_outcome(result: Result) -> tuple[EventKind, Reason, int, int]:
    outcome = result.outcomes[0]
    return (
        EventKind(int(outcome["event_kind"])),
        Reason(int(outcome["reason"])),
        int(outcome["cum_lots"]),
        int(outcome["leaves_lots"]),
    )


def rejected(result: Result) -> Reason:
    assert result.outcomes[0]["status"] == OutcomeStatus.REJECTED
    assert event_kinds(result)[0] is EventKind.REJECTED
    assert len(result.events) == 1 + result.events[0]["following"]
    assert result.events[0]["reason"] == result.outcomes[0]["reason"]
    return Reason(int(result.outcomes[0]["reason"]))
