"""A small market for tests of the engine: requests numbered by themselves, one call a command."""

from typing import Any

import numpy as np

from smrx.engine import Engine, Result
from smrx.engine.codes import CommandKind, Side
from tests.commands import (
    Commands,
    add_asset,
    add_instrument,
    command,
    deposit,
    open_account,
    open_session,
    place,
)

VENUE = 1
#: Base and quote asset, and how much every account has of each.
BASE, QUOTE = 1, 2
FUNDS = 1 << 40
MAX_PRICE = 1 << 50


class Desk:
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

    def sender(self, account: int) -> tuple[int, int]:
        """The account's session, and its next request id."""
        session = 10 + account if account else VENUE
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def send(self, commands: Commands, time_ns: int = 1) -> Result:
        """Apply commands, all of which must be accepted."""
        result = self.engine.apply(commands, time_ns)
        assert (result.outcomes["status"] == 1).all(), result.outcomes
        return result

    def buy(self, account: int, lots: int, price: int, **more: Any) -> Result:
        return self.send(place(self.sender(account), account, Side.BUY, lots, price, **more))

    def sell(self, account: int, lots: int, price: int, **more: Any) -> Result:
        return self.send(place(self.sender(account), account, Side.SELL, lots, price, **more))

    def cancel(self, account: int, order_id: int) -> Result:
        return self.send(command(CommandKind.CANCEL, self.sender(account), account=account, order_id=order_id))


def busy_desk() -> Desk:
    """A desk with a book on both sides, trades behind it, and a slot given back."""
    desk = Desk()
    for step in range(12):
        desk.buy(1 + step % 3, 2 + step, 90 - step % 4, client_order_id=100 + step)
        desk.sell(1 + (step + 1) % 3, 2 + step, 110 + step % 4)
    desk.buy(3, 3, 110)
    first = int(desk.engine.inspect.orders()["order_id"][0])
    desk.cancel(int(desk.engine.inspect.orders()["account"][0]), first)
    assert desk.engine.trade_count > 0
    assert desk.engine.check_invariants() == []
    return desk


def same(left: Result, right: Result) -> bool:
    """Whether two results are the same bytes."""
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(left, right, strict=True))
