"""A small market that trades at random: the events of a few thousand commands, made by the oracle."""

import random
from functools import cache

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, OrderFlags, OrderType, Side, TimeInForce
from smrx.wire.records import EVENT
from tests.commands import (
    Commands,
    add_asset,
    add_instrument,
    apply,
    command,
    deposit,
    join,
    open_account,
    open_session,
    place,
    withdraw,
)
from tests.oracle.oracle import Oracle

ACCOUNTS = (1, 2, 3, 4)
START_NS = 1_700_000_000_000_000_000


class _Traffic:
    """Commands of the venue's session, with the right request ids."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = random.Random(seed)
        self.requests = 0
        self.open_orders = np.zeros(0, EVENT)
        self.transfers = 0

    def sender(self) -> tuple[int, int]:
        self.requests += 1
        return 7, self.requests

    def setup(self) -> list[Commands]:
        commands = [
            open_session(7, 0),
            add_asset(self.sender(), 1, "BTC", 8),
            add_asset(self.sender(), 2, "USD", 2),
            add_instrument(self.sender(), 1, "BTC-USD", base_asset=1, quote_asset=2, lot_units=10, scale_units=3),
            add_instrument(self.sender(), 2, "BTC/USD", base_asset=1, quote_asset=2),
        ]
        for account in ACCOUNTS:
            commands.append(open_account(self.sender(), account))
            commands += [self.deposit(account, asset, 5_000_000) for asset in (1, 2)]
        return commands

    def deposit(self, account: int, asset: int, amount: int) -> Commands:
        self.transfers += 1
        return deposit(self.sender(), account, asset, amount, self.transfers)

    def any_command(self) -> Commands:
        choose = self.random
        account = choose.choice(ACCOUNTS)
        what = choose.random()
        if what < 0.6:
            return self.place(account)
        if what < 0.9 and len(self.open_orders):
            order = choose.choice(self.open_orders)
            fields = {"account": int(order["account"]), "order_id": int(order["order_id"])}
            if what < 0.75:
                return command(CommandKind.CANCEL, self.sender(), **fields)
            fields |= {"price_ticks": int(order["price_ticks"]), "quantity_lots": int(order["quantity_lots"]) - 1}
            return command(CommandKind.REPLACE, self.sender(), **fields)
        if what < 0.91:
            return command(CommandKind.MASS_CANCEL, self.sender(), account=account, instrument=choose.choice((0, 1)))
        asset = choose.choice((1, 2))
        if what < 0.96:
            return self.deposit(account, asset, choose.randrange(0, 100_000))
        self.transfers += 1
        return withdraw(self.sender(), account, asset, choose.randrange(1, 1_000_000), self.transfers)

    def place(self, account: int) -> Commands:
        choose = self.random
        side = choose.choice((Side.BUY, Side.SELL))
        instrument, quantity = choose.choice((1, 1, 1, 2)), choose.randrange(1, 40)
        if choose.random() < 0.1:
            return place(
                self.sender(),
                account,
                side,
                quantity,
                instrument=instrument,
                order_type=OrderType.MARKET,
                tif=TimeInForce.IOC,
            )
        tif = choose.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
        post_only = tif == TimeInForce.GTC and choose.random() < 0.2
        # So that events of their own follow some orders: a long id, or terms, or both.
        name = f"market order {self.requests}" if self.names.random() < 0.2 else 0
        is_iceberg = tif == TimeInForce.GTC and quantity > 1 and self.names.random() < 0.2
        return place(
            self.sender(),
            account,
            side,
            quantity,
            100 + choose.randrange(-6, 7),
            instrument=instrument,
            tif=tif,
            flags=OrderFlags.POST_ONLY if post_only else OrderFlags.NONE,
            client_order_id=name,
            display_lots=quantity // 2 if is_iceberg else 0,
        )


@cache
def oracle(commands: int = 2500, seed: int = 1) -> tuple[Oracle, bytes]:
    """Run a market; return the oracle at its end and the bytes of all its events."""
    traffic, machine = _Traffic(seed), Oracle()
    batches = [apply(machine, join(traffic.setup()), START_NS).events]
    for turn in range(commands // 10):
        traffic.open_orders = machine.inspect.orders()
        batch = join([traffic.any_command() for _ in range(10)])
        batches.append(apply(machine, batch, START_NS + turn * 1_000_000).events)
    return machine, np.concatenate(batches).tobytes()


def market_events(commands: int = 2500, seed: int = 1) -> NDArray[np.void]:
    """Return the events of a market; the caller owns them."""
    return np.frombuffer(oracle(commands, seed)[1], EVENT).copy()
