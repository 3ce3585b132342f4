"""What anybody may look at: balances, orders, books, accounts, listings, and how nodes are. Changes nothing."""

from smrx.client import result_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.instruments import Asset, Instrument
from smrx.client.io_steps import Steps
from smrx.client.operation_base import OperationBase
from smrx.client.results import AccountState, Balance, Book, OpenOrder, Position
from smrx.wire import admin


class QueryOperations(OperationBase):
    """The verbs that only read."""

    def balances(self, account: int | None = None, *, all_accounts: bool = False) -> Steps[list[Balance]]:
        """What an account owns (its own where none is named), or everyone."""
        request = admin.Balances(account=None if all_accounts else self._own(account))
        rows = yield from self._pages(request, admin.BalancesReply)
        if any(self.market.asset(row.asset) is None for row in rows):
            yield from self._load()
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

    def positions(self, account: int | None = None) -> Steps[list[Position]]:
        """What an account (its own where none is named) has in each instrument: balances, and open quantities."""
        rows = yield from self._pages(admin.Positions(account=self._own(account)), admin.PositionsReply)
        if any(self.market.instrument(row.instrument) is None for row in rows):
            yield from self._load()
        return [result_builders.position(row, self._known_instrument(row.instrument)) for row in rows]

    def orders(
        self, symbol: str | None = None, *, account: int | None = None, all_accounts: bool = False
    ) -> Steps[list[OpenOrder]]:
        """Open orders of an account (its own where none is named), or everyone's, oldest first."""
        instrument = None
        if symbol is not None:
            instrument = (yield from self._instrument(symbol)).id
        request = admin.Orders(account=None if all_accounts else self._own(account), instrument=instrument)
        rows = yield from self._pages(request, admin.OrdersReply)
        if any(self.market.instrument(row.instrument) is None for row in rows):
            yield from self._load()
        return [result_builders.open_order(row, self._known_instrument(row.instrument)) for row in rows]

    def depth(self, symbol: str, levels: int = 10) -> Steps[Book]:
        """The best levels of a book."""
        if not 1 <= levels <= admin.MAX_LEVELS:
            raise InvalidValue(f"levels: expected 1 to {admin.MAX_LEVELS}, found {levels}")
        instrument = yield from self._instrument(symbol)
        request = admin.Depth(instrument=instrument.id, levels=levels)
        reply = yield from self._router.ask(request, admin.DepthReply)
        return Book(
            symbol=symbol,
            sequence=reply.sequence,
            bids=result_builders.levels(reply.bids, instrument),
            asks=result_builders.levels(reply.asks, instrument),
        )

    def accounts(self) -> Steps[list[int]]:
        """Every account."""
        rows = yield from self._pages(admin.Accounts(), admin.AccountsReply)
        return [row.account for row in rows]

    def account_state(self, account: int | None = None) -> Steps[AccountState]:
        """Status, open orders and limits of an account (its own where none is named)."""
        row = yield from self._account_row(self._own(account))
        return result_builders.account_state(row)

    def assets(self) -> Steps[list[Asset]]:
        """Every asset."""
        yield from self._load()
        return self.market.assets

    def instruments(self) -> Steps[list[Instrument]]:
        """Every instrument, with its status, its rules and its last price."""
        yield from self._load()
        return self.market.instruments

    def barrier(self) -> Steps[admin.BarrierReply]:
        """Return when everything submitted before, by anybody, is applied on the leader."""
        return (yield from self._router.ask(admin.Barrier(), admin.BarrierReply))

    def status(self, node_id: int | None = None) -> Steps[admin.NodeStatus]:
        """How a node is: one of the configuration, or whichever answers first."""
        if node_id is None:
            return (yield from self._router.ask(admin.Status(), admin.NodeStatus))
        return (yield from self._router.ask_node(node_id, admin.Status(), admin.NodeStatus))
