"""Describe the market of a tape (assets, instrument, accounts), and make the commands that set it up.

All ids follow from the market id, so tapes with different market ids can share a cluster. The setup may be sent again:
what exists is rejected as existing, a deposit is not made twice, and open orders of an earlier replay are cancelled.
Prices and quantities are ticks and lots of the instrument. This module is independent of tape formats.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.command_list import CommandList
from smrx.wire.records import (
    ASSET_COMMAND,
    ASSET_SYMBOL_SIZE,
    COMMAND,
    DETAILS,
    INSTRUMENT_DETAILS,
    TRANSFER_COMMAND,
    pack_symbol,
    unpack_symbol,
)

#: ISO 4217 gives the US dollar the number 840.
USD_ASSET: Final = 840
#: LOBSTER prices are in 1/10,000 dollar, which is the smallest unit of the dollar here.
USD_DECIMALS: Final = 4
#: A share is a lot of one unit.
MAX_QUANTITY_LOTS: Final = 10**8
#: One million dollars a share. Times MAX_QUANTITY_LOTS it is 10**18, below the engine's limit of 2**62.
MAX_PRICE_UNITS: Final = 10**10
#: A trillion dollars and a trillion shares per account: enough for thousands of replays, and far below 2**62 in total.
DEPOSIT_USD: Final = 10**16
DEPOSIT_SHARES: Final = 10**12
#: Accounts of one market; their ids are market_id * 100 + 1 and up.
MAX_ACCOUNTS: Final = 99
DEFAULT_MARKET_ID: Final = 10
#: Transfer ids are unique in the exchange; those of tapes begin with the bytes "TAPE".
_TRANSFERS: Final = int.from_bytes(b"TAPE", "big") << 32

#: Reject reasons of a setup command that was executed before.
ALREADY_DONE: Final = frozenset(
    {Reason.ASSET_EXISTS, Reason.INSTRUMENT_EXISTS, Reason.ACCOUNT_EXISTS, Reason.TRANSFER_ALREADY_DONE}
)

Commands = NDArray[np.void]


class TapeMarket(msgspec.Struct, frozen=True, kw_only=True):
    """One share quoted in dollars, and the accounts that trade it."""

    symbol: str
    base: str
    market_id: int = DEFAULT_MARKET_ID
    #: Units of the dollar in a tick: 100 for a tick of a cent.
    tick_units: int = 100
    accounts: int = 2

    @property
    def account_ids(self) -> range:
        first = self.market_id * 100 + 1
        return range(first, first + self.accounts)

    @property
    def instrument(self) -> int:
        return self.market_id

    def setup(self) -> CommandList:
        """Return the commands that prepare an empty exchange for the tape, or reset one that it was sent to before."""
        records = [
            _command(CommandKind.ADD_ASSET, ASSET_COMMAND, asset=self.market_id, symbol=pack_symbol(self.base)),
            _command(
                CommandKind.ADD_ASSET, ASSET_COMMAND, asset=USD_ASSET, symbol=pack_symbol("USD"), decimals=USD_DECIMALS
            ),
            _command(CommandKind.ADD_INSTRUMENT, instrument=self.instrument, details=1),
        ]
        records += [_command(CommandKind.OPEN_ACCOUNT, account=account) for account in self.account_ids]
        for account in self.account_ids:
            for asset, amount in ((self.market_id, DEPOSIT_SHARES), (USD_ASSET, DEPOSIT_USD)):
                transfer = _TRANSFERS | account << 1 | (asset == USD_ASSET)
                records.append(
                    _command(
                        CommandKind.DEPOSIT,
                        TRANSFER_COMMAND,
                        account=account,
                        asset=asset,
                        transfer_id=transfer,
                        amount=amount,
                    )
                )
        records += [
            _command(CommandKind.MASS_CANCEL, account=account, instrument=self.instrument)
            for account in self.account_ids
        ]
        return CommandList(np.concatenate(records), self._listing())

    def _listing(self) -> Commands:
        record = np.zeros(1, dtype=INSTRUMENT_DETAILS)
        record["symbol"] = pack_symbol(self.symbol)
        record["base_asset"], record["quote_asset"] = self.market_id, USD_ASSET
        record["lot_units"], record["scale_units"] = 1, self.tick_units
        record["max_price_ticks"] = MAX_PRICE_UNITS // self.tick_units
        record["max_quantity_lots"] = MAX_QUANTITY_LOTS
        return record.view(DETAILS)


def make_market(
    ticker: str, market_id: int = DEFAULT_MARKET_ID, tick_units: int = 100, accounts: int = 2
) -> TapeMarket:
    """Return the market of a share, quoted in USD; raises TapeError for an invalid ticker or market id."""
    if not 1 <= market_id <= 10**7 or market_id == USD_ASSET:
        raise TapeError(
            f"market id: expected 1 to {10**7} except {USD_ASSET} (the id of the dollar), found {market_id}"
        )
    symbol = f"{ticker}-USD"
    try:
        pack_symbol(ticker, ASSET_SYMBOL_SIZE)
        pack_symbol(symbol)
    except ValueError as error:
        raise TapeError(str(error)) from None
    return TapeMarket(symbol=symbol, base=ticker, market_id=market_id, tick_units=tick_units, accounts=accounts)


class ListedAsset(Protocol):
    """An asset in the form that a client returns."""

    @property
    def id(self) -> int: ...

    @property
    def symbol(self) -> str: ...

    @property
    def decimals(self) -> int: ...


class ListedInstrument(Protocol):
    """An instrument in the form that a client returns."""

    @property
    def id(self) -> int: ...

    @property
    def symbol(self) -> str: ...

    @property
    def base(self) -> ListedAsset: ...

    @property
    def quote(self) -> ListedAsset: ...

    @property
    def lot_units(self) -> int: ...

    @property
    def scale_units(self) -> int: ...


def find_id_conflict(
    setup: CommandList, assets: Iterable[ListedAsset], instruments: Iterable[ListedInstrument]
) -> str | None:
    """Describe the first id of a setup that the exchange uses for another asset or instrument; None if there is none.

    Orders and deposits with such an id would go to another market.
    """
    listed_assets = {asset.id: (asset.symbol, asset.decimals) for asset in assets}
    records = setup.records
    for command in records[records["kind"] == CommandKind.ADD_ASSET].view(ASSET_COMMAND):
        wanted = (unpack_symbol(command["symbol"]), int(command["decimals"]))
        found = listed_assets.get(int(command["asset"]), wanted)
        if found != wanted:
            return (
                f"asset id {int(command['asset'])} is in use for {found[0]} with {found[1]} decimals; "
                f"the tape needs it for {wanted[0]} with {wanted[1]}"
            )
    listed = {
        instrument.id: (
            instrument.symbol, instrument.base.id, instrument.quote.id, instrument.lot_units, instrument.scale_units
        )
        for instrument in instruments
    }  # fmt: skip
    for command in records[records["kind"] == CommandKind.ADD_INSTRUMENT]:
        details = setup.details.view(INSTRUMENT_DETAILS)[int(command["details"]) - 1]
        names = ("base_asset", "quote_asset", "lot_units", "scale_units")
        needed = (unpack_symbol(details["symbol"]), *(int(details[name]) for name in names))
        there = listed.get(int(command["instrument"]), needed)
        if there != needed:
            return (
                f"instrument id {int(command['instrument'])} is in use for {there[0]} (base, quote, lot and scale "
                f"{there[1:]}); the tape needs it for {needed[0]} ({needed[1:]})"
            )
    return None


def setup_failure(setup: CommandList, outcomes: NDArray[np.void]) -> str | None:
    """Describe the first rejected setup command, except those that were executed before; None if there is none."""
    for command, outcome in zip(setup.records, outcomes, strict=True):
        if outcome["status"] == OutcomeStatus.ACCEPTED or outcome["reason"] in ALREADY_DONE:
            continue
        kind = CommandKind(int(command["kind"])).name
        reason = Reason(int(outcome["reason"])).name if outcome["status"] == OutcomeStatus.REJECTED else "DUPLICATE"
        return f"{kind} of the tape's setup failed: {reason}"
    return None


def _command(kind: CommandKind, layout: "np.dtype[np.void]" = COMMAND, **fields: int | bytes) -> Commands:
    record = np.zeros(1, dtype=layout)
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    return record.view(COMMAND)
