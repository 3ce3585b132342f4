"""Provide what all operations share: look up names, submit a command, read pages of rows."""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.client import result_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.command_builders import u32
from smrx.client.instruments import Asset, Instrument, MarketCache
from smrx.client.io_steps import Steps, Submit
from smrx.client.query_routing import QueryRouter
from smrx.wire import admin
from smrx.wire.command_list import CommandList

P = TypeVar(
    "P",
    admin.OrderRow,
    admin.BalanceRow,
    admin.PositionRow,
    admin.TransferRow,
    admin.AccountRow,
    admin.AssetRow,
    admin.InstrumentRow,
)

#: Known names listed in the error about an unknown one.
_NAMES_SHOWN: Final = 10


class OperationBase:
    """The account of the client, the market cache and the query router."""

    def __init__(self, account: int, router: QueryRouter) -> None:
        self.account = account
        self.market = MarketCache()
        self._router = router

    def _own(self, account: int | None) -> int:
        return self.account if account is None else u32(account, "account")

    def _submit(self, command: CommandList, what: str) -> Steps[NDArray[np.void]]:
        """Send one command and return its outcome. Raises Refused."""
        outcome: NDArray[np.void] = yield Submit(command)
        result_builders.check(outcome, what)
        return outcome

    def _asset(self, symbol: str) -> Steps[Asset]:
        if self.market.asset(symbol) is None:
            yield from self._load()
        return self._known_asset(symbol)

    def _instrument(self, symbol: str) -> Steps[Instrument]:
        if self.market.instrument(symbol) is None:
            yield from self._load()
        return self._known_instrument(symbol)

    def _known_asset(self, name: str | int) -> Asset:
        asset = self.market.asset(name)
        if asset is None:
            raise _unknown("asset", name, [known.symbol for known in self.market.assets])
        return asset

    def _known_instrument(self, name: str | int) -> Instrument:
        instrument = self.market.instrument(name)
        if instrument is None:
            raise _unknown("instrument", name, [known.symbol for known in self.market.instruments])
        return instrument

    def _account_row(self, account: int) -> Steps[admin.AccountRow]:
        rows = yield from self._pages(admin.Accounts(account=u32(account, "account")), admin.AccountsReply)
        for row in rows:
            if row.account == account:
                return row
        raise InvalidValue(f"account {account} does not exist; open it first")

    def _load(self) -> Steps[None]:
        # Instruments first: their assets existed before them.
        instruments = yield from self._pages(admin.Instruments(), admin.InstrumentsReply)
        assets = yield from self._pages(admin.Assets(), admin.AssetsReply)
        self.market.add_rows(assets, instruments)

    def _pages(self, request: admin.AnyPage, reply_type: type[admin.PageReply[P]]) -> Steps[list[P]]:
        rows: list[P] = []
        more = True
        while more:
            reply = yield from self._router.ask(msgspec.structs.replace(request, offset=len(rows)), reply_type)
            rows += reply.rows
            more = reply.more and bool(reply.rows)
        return rows


def _unknown(what: str, name: str | int, known: Sequence[str]) -> InvalidValue:
    if not known:
        return InvalidValue(f"{what} {name} does not exist: no {what} has been added yet")
    listed = ", ".join(known[:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
    return InvalidValue(f"{what}: expected one of {listed}, found {name}")
