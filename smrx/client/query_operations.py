"""The operations that only read: balances, positions, orders, books, accounts, assets, instruments, node status.

Each takes a `level`: how new the state has to be that it shows (read_levels.py). By default it has everything that any
client had an answer to when the read began.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.client import result_builders, update_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.instruments import Asset, Instrument
from smrx.client.io_steps import Steps
from smrx.client.operation_base import OperationBase
from smrx.client.read_levels import Level, at_level
from smrx.client.results import AccountState, Balance, Book, OpenOrder, Position, Update
from smrx.wire import admin


class QueryOperations(OperationBase):
    """Operations that only read."""

    def balances(
        self, account: int | None = None, *, all_accounts: bool = False, level: Level = "linearizable"
    ) -> Steps[list[Balance]]:
        """Return the balances of an account, by default the client's own, or of all accounts."""
        request = admin.Balances(account=None if all_accounts else self._own(account))
        rows = yield from self._pages(request, admin.BalancesReply, level)
        if any(self.market.asset(row.asset) is None for row in rows):
            yield from self._load(level)
        found = []
        for row in rows:
            asset = self._known_asset(row.asset)
            found.append(
                Balance(
                    account=row.account,
                    asset=asset.symbol,
                    available=asset.text(row.available),
                    held=asset.text(row.held),
                    available_units=row.available,
                    held_units=row.held,
                )
            )
        return found

    def positions(self, account: int | None = None, *, level: Level = "linearizable") -> Steps[list[Position]]:
        """Return the positions of an account, by default the client's own, one for each instrument."""
        rows = yield from self._pages(admin.Positions(account=self._own(account)), admin.PositionsReply, level)
        if any(self.market.instrument(row.instrument) is None for row in rows):
            yield from self._load(level)
        return [result_builders.position(row, self._known_instrument(row.instrument)) for row in rows]

    def orders(
        self,
        symbol: str | None = None,
        *,
        account: int | None = None,
        all_accounts: bool = False,
        level: Level = "linearizable",
    ) -> Steps[list[OpenOrder]]:
        """Return the open orders of an account, by default the client's own, or of all accounts; oldest first."""
        instrument = None
        if symbol is not None:
            instrument = (yield from self._instrument(symbol, level)).id
        request = admin.Orders(account=None if all_accounts else self._own(account), instrument=instrument)
        rows = yield from self._pages(request, admin.OrdersReply, level)
        if any(self.market.instrument(row.instrument) is None for row in rows):
            yield from self._load(level)
        return [result_builders.open_order(row, self._known_instrument(row.instrument)) for row in rows]

    def depth(self, symbol: str, levels: int = 10, *, level: Level = "linearizable") -> Steps[Book]:
        """Return the best levels of an instrument's book."""
        if not 1 <= levels <= admin.MAX_LEVELS:
            raise InvalidValue(f"levels: expected 1 to {admin.MAX_LEVELS}, found {levels}")
        instrument = yield from self._instrument(symbol, level)
        request = at_level(admin.Depth(instrument=instrument.id, levels=levels), level)
        reply = yield from self._router.ask(request, admin.DepthReply)
        return Book(
            symbol=symbol,
            sequence=reply.sequence,
            age_ms=reply.age_ms,
            bids=result_builders.levels(reply.bids, instrument),
            asks=result_builders.levels(reply.asks, instrument),
        )

    def updates_of(self, events: NDArray[np.void]) -> Steps[list[Update]]:
        """Return the updates that the events of a private stream make."""
        instruments, assets = update_builders.names_of(events)
        if any(self.market.instrument(number) is None for number in instruments) or any(
            self.market.asset(number) is None for number in assets
        ):
            yield from self._load()
        return update_builders.updates(events, self.market.instrument, self.market.asset)

    def accounts(self, *, level: Level = "linearizable") -> Steps[list[int]]:
        """Return the ids of all accounts."""
        rows = yield from self._pages(admin.Accounts(), admin.AccountsReply, level)
        return [row.account for row in rows]

    def account_state(self, account: int | None = None, *, level: Level = "linearizable") -> Steps[AccountState]:
        """Return the status, open orders and limits of an account, by default the client's own."""
        row = yield from self._account_row(self._own(account), level)
        return result_builders.account_state(row)

    def assets(self, *, level: Level = "linearizable") -> Steps[list[Asset]]:
        """Return all assets."""
        yield from self._load(level)
        return self.market.assets

    def instruments(self, *, level: Level = "linearizable") -> Steps[list[Instrument]]:
        """Return all instruments with their status, rules and last price."""
        yield from self._load(level)
        return self.market.instruments

    def status(self, node_id: int | None = None) -> Steps[admin.NodeStatus]:
        """Return the status of a node of the configuration, or of the first node that answers."""
        if node_id is None:
            return (yield from self._router.ask(admin.Status(), admin.NodeStatus))
        return (yield from self._router.ask_node(node_id, admin.Status(), admin.NodeStatus))
