"""The market a tape plays on: its assets, instrument and accounts, and the commands that set it up.

Ids follow from one number, so that two tapes share a cluster by having different numbers. Setting up twice is harmless:
what exists is refused as existing, a deposit made is not made again, and open orders of an earlier play are cancelled.
Prices and quantities are the instrument's ticks and lots; nothing here knows a tape format.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol, unpack_symbol

#: ISO 4217 gives the US dollar the number 840.
USD_ASSET: Final = 840
#: A LOBSTER price is in 1/10,000 dollar, so that is the dollar's minimal unit here.
USD_DECIMALS: Final = 4
#: One share is one lot is one unit.
MAX_QUANTITY_LOTS: Final = 10**8
#: With MAX_QUANTITY_LOTS and any scale it gives 10**18, below the engine's bound of 2**62: one million dollars a share.
MAX_PRICE_UNITS: Final = 10**10
#: A trillion dollars and a trillion shares an account: thousands of plays of a day's flow, far below 2**62 in sum.
DEPOSIT_USD: Final = 10**16
DEPOSIT_SHARES: Final = 10**12
#: Accounts of one market: their ids are market_id * 100 + 1 and up.
MAX_ACCOUNTS: Final = 99
DEFAULT_MARKET_ID: Final = 10
#: Transfer ids are one namespace for the whole exchange; those of tapes begin with the bytes "TAPE".
_TRANSFERS: Final = int.from_bytes(b"TAPE", "big") << 32

#: Refusals that mean "this part of the setup is there already".
ALREADY_THERE: Final = frozenset(
    {Reason.ASSET_EXISTS, Reason.INSTRUMENT_EXISTS, Reason.ACCOUNT_EXISTS, Reason.TRANSFER_ALREADY_DONE}
)

Commands = NDArray[np.void]


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """One share, quoted in dollars, and the accounts that trade it."""

    symbol: str
    base: str
    market_id: int = DEFAULT_MARKET_ID
    #: Minimal dollar units in one tick: 100 where the tick is a cent.
    tick_units: int = 100
    accounts: int = 2

    @property
    def account_ids(self) -> range:
        first = self.market_id * 100 + 1
        return range(first, first + self.accounts)

    @property
    def instrument(self) -> int:
        return self.market_id

    def setup(self) -> Commands:
        """The commands that make an empty exchange ready for the tape, and a used one ready again."""
        records = [
            _command(CommandKind.ADD_ASSET, instrument=self.market_id, client_order_id=pack_symbol(self.base)),
            _command(
                CommandKind.ADD_ASSET,
                instrument=USD_ASSET,
                client_order_id=pack_symbol("USD"),
                quantity_lots=USD_DECIMALS,
            ),
            self._listing(),
        ]
        records += [_command(CommandKind.OPEN_ACCOUNT, account=account) for account in self.account_ids]
        for account in self.account_ids:
            for asset, amount in ((self.market_id, DEPOSIT_SHARES), (USD_ASSET, DEPOSIT_USD)):
                transfer = _TRANSFERS | account << 1 | (asset == USD_ASSET)
                records.append(
                    _command(
                        CommandKind.DEPOSIT, account=account, instrument=asset, order_id=transfer, quantity_lots=amount
                    )
                )
        records += [
            _command(CommandKind.MASS_CANCEL, account=account, instrument=self.instrument)
            for account in self.account_ids
        ]
        return np.concatenate(records)

    def _listing(self) -> Commands:
        record = np.zeros(1, dtype=INSTRUMENT_COMMAND)
        record["kind"] = CommandKind.ADD_INSTRUMENT
        record["instrument"], record["symbol"] = self.instrument, pack_symbol(self.symbol)
        record["base_asset"], record["quote_asset"] = self.market_id, USD_ASSET
        record["lot_units"], record["scale_units"] = 1, self.tick_units
        record["max_price_ticks"] = MAX_PRICE_UNITS // self.tick_units
        record["max_quantity_lots"] = MAX_QUANTITY_LOTS
        return record.view(COMMAND)


def market_for(ticker: str, market_id: int = DEFAULT_MARKET_ID, tick_units: int = 100, accounts: int = 2) -> Market:
    """The market of a share by its ticker, quoted in USD; raises TapeError where ticker or number cannot be used."""
    if not 1 <= market_id <= 10**7 or market_id == USD_ASSET:
        raise TapeError(f"market id: expected 1 to {10**7} and not {USD_ASSET} (the dollar's), found {market_id}")
    # A symbol has 8 characters at most; a long ticker goes without the dash, then without the currency.
    symbol = next((text for text in (f"{ticker}-USD", f"{ticker}USD") if len(text) <= 8), ticker)
    try:
        pack_symbol(symbol)
        pack_symbol(ticker)
    except ValueError as error:
        raise TapeError(str(error)) from None
    return Market(symbol=symbol, base=ticker, market_id=market_id, tick_units=tick_units, accounts=accounts)


class ListedAsset(Protocol):
    """An asset as a client lists it."""

    @property
    def id(self) -> int: ...

    @property
    def symbol(self) -> str: ...

    @property
    def decimals(self) -> int: ...


class ListedInstrument(Protocol):
    """An instrument as a client lists it."""

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


def mismatch(setup: Commands, assets: Iterable[ListedAsset], instruments: Iterable[ListedInstrument]) -> str | None:
    """The first id of a setup that stands for something else on an exchange, as a sentence; or None.

    Orders and money sent to such an id would reach somebody else's market.
    """
    listed_assets = {asset.id: (asset.symbol, asset.decimals) for asset in assets}
    for command in setup[setup["kind"] == CommandKind.ADD_ASSET]:
        wanted = (unpack_symbol(int(command["client_order_id"])), int(command["quantity_lots"]))
        found = listed_assets.get(int(command["instrument"]), wanted)
        if found != wanted:
            return (
                f"asset {int(command['instrument'])}: expected {wanted[0]} with {wanted[1]} decimals, "
                f"found {found[0]} with {found[1]}"
            )
    listed = {
        instrument.id: (
            instrument.symbol, instrument.base.id, instrument.quote.id, instrument.lot_units, instrument.scale_units
        )
        for instrument in instruments
    }  # fmt: skip
    for command in setup[setup["kind"] == CommandKind.ADD_INSTRUMENT].view(INSTRUMENT_COMMAND):
        names = ("base_asset", "quote_asset", "lot_units", "scale_units")
        needed = (unpack_symbol(int(command["symbol"])), *(int(command[name]) for name in names))
        there = listed.get(int(command["instrument"]), needed)
        if there != needed:
            return (
                f"instrument {int(command['instrument'])}: expected {needed[0]} (base, quote, lot and scale "
                f"{needed[1:]}), found {there[0]} ({there[1:]})"
            )
    return None


def setup_failure(setup: Commands, outcomes: NDArray[np.void]) -> str | None:
    """The first setup command that was refused for another reason than being done already, as a sentence; or None."""
    for command, outcome in zip(setup, outcomes, strict=True):
        if outcome["status"] == OutcomeStatus.ACCEPTED or outcome["reason"] in ALREADY_THERE:
            continue
        kind = CommandKind(int(command["kind"])).name
        reason = Reason(int(outcome["reason"])).name if outcome["status"] == OutcomeStatus.REJECTED else "a duplicate"
        return f"{kind} of the tape's setup: expected to be accepted or there already, found {reason}"
    return None


def _command(kind: CommandKind, **fields: int) -> Commands:
    record = np.zeros(1, dtype=COMMAND)
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    return record
