"""Provide what all operations share: look up names, submit a command, read pages of rows."""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.client import result_builders
from smrx.client.client_errors import InvalidValue, ProtocolError, Unavailable
from smrx.client.command_builders import u32
from smrx.client.instruments import Asset, Instrument, MarketCache
from smrx.client.io_steps import Sleep, Steps, Submit
from smrx.client.query_routing import QueryRouter
from smrx.client.read_levels import Level, at_level
from smrx.wire import admin
from smrx.wire.command_list import CommandList
from smrx.wire.frames import FrameError

P = TypeVar(
    "P",
    admin.OrderRow,
    admin.BalanceRow,
    admin.PositionRow,
    admin.TransferRow,
    admin.AccountRow,
    admin.AssetRow,
    admin.InstrumentRow,
    admin.CredentialRow,
)

#: Pause before a node is asked again for a listing that it is still writing.
_LISTING_S: Final = 0.005
#: How often a listing is begun again whose node has dropped it or does not answer any more.
_LISTING_ATTEMPTS: Final = 5

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

    def _repeated(self, command: CommandList, what: str) -> Steps[tuple[NDArray[np.void], int]]:
        """Send a command that cancels orders until none are left; return the last outcome and how many it cancelled."""
        cancelled = 0
        while True:
            outcome = yield from self._submit(CommandList(command.records.copy(), command.details), what)
            cancelled += int(outcome["cum_lots"][0])
            if not outcome["leaves_lots"][0]:
                return outcome, cancelled

    def _asset(self, symbol: str) -> Steps[Asset]:
        if self.market.asset(symbol) is None:
            yield from self._load()
        return self._known_asset(symbol)

    def _instrument(self, symbol: str, level: Level = "linearizable") -> Steps[Instrument]:
        if self.market.instrument(symbol) is None:
            yield from self._load(level)
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

    def _account_row(self, account: int, level: Level = "linearizable") -> Steps[admin.AccountRow]:
        request = admin.Accounts(account=u32(account, "account"))
        rows = yield from self._pages(request, admin.AccountsReply, level)
        for row in rows:
            if row.account == account:
                return row
        raise InvalidValue(f"account {account} does not exist; open it first")

    def _load(self, level: Level = "linearizable") -> Steps[None]:
        # Instruments first: their assets existed before them.
        instruments = yield from self._pages(admin.Instruments(), admin.InstrumentsReply, level)
        assets = yield from self._pages(admin.Assets(), admin.AssetsReply, level)
        self.market.add_rows(assets, instruments)

    def _pages(
        self, request: admin.AnyPage, reply_type: type[admin.PageReply[P]], level: Level = "linearizable"
    ) -> Steps[list[P]]:
        """Return the rows of all pages, as of one moment. Raises Unavailable if nodes drop the listing repeatedly."""
        first = at_level(msgspec.structs.replace(request, packed=True), level)
        for _ in range(_LISTING_ATTEMPTS):
            reply, address = yield from self._router.ask_where(first, reply_type)
            rows = _rows(reply)
            while reply.more:
                if not reply.view:
                    # A node of an earlier version, with a page at a time.
                    following = msgspec.structs.replace(first, offset=len(rows))
                    reply, address = yield from self._router.ask_where(following, reply_type)
                    found = _rows(reply)
                    rows += found
                    if not found:
                        return rows
                    continue
                # Of the state that the view shows: the first reply was new enough.
                following = msgspec.structs.replace(
                    first, view=reply.view, offset=len(rows), level="any", max_age_ms=None
                )
                next_page = yield from self._router.ask_again(address, following, reply_type)
                if next_page is None:
                    break
                found = _rows(next_page)
                reply = next_page
                rows += found
                if not found and reply.more:
                    yield Sleep(_LISTING_S)
            else:
                return rows
        raise Unavailable(f"the nodes dropped the listing of {type(request).__name__} {_LISTING_ATTEMPTS} times")


def _rows(reply: admin.PageReply[P]) -> list[P]:
    try:
        return list(admin.rows_of(reply))
    except FrameError as error:
        raise ProtocolError(f"node {reply.node_id}: {error}") from None


def _unknown(what: str, name: str | int, known: Sequence[str]) -> InvalidValue:
    if not known:
        return InvalidValue(f"{what} {name} does not exist: no {what} has been added yet")
    listed = ", ".join(known[:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
    return InvalidValue(f"{what}: expected one of {listed}, found {name}")
