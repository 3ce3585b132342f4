"""Build the small market of the cluster, recovery and snapshot benchmarks, and number commands for one session."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import ASSET_COMMAND, COMMAND, DETAILS, INSTRUMENT_DETAILS, TRANSFER_COMMAND, pack_symbol

Commands = NDArray[Any]

#: Any number except 0: no other client uses the cluster.
SESSION: Final = 0x5EED
INSTRUMENT: Final = 1
_BASE_ASSET: Final = 1
_QUOTE_ASSET: Final = 2


def market_commands(accounts: int, deposit_units: int) -> CommandList:
    """Return the commands that list BTC-USD, open accounts 1 to `accounts` and deposit both assets into each."""
    setup = np.zeros(3, COMMAND)
    setup["kind"] = [CommandKind.ADD_ASSET, CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT]
    assets = setup[:2].view(ASSET_COMMAND)
    assets["asset"] = [_BASE_ASSET, _QUOTE_ASSET]
    assets["symbol"] = [pack_symbol("BTC"), pack_symbol("USD")]
    assets["decimals"] = [8, 2]
    setup["instrument"][2], setup["details"][2] = INSTRUMENT, 1
    instrument = np.zeros(1, INSTRUMENT_DETAILS)
    instrument["symbol"] = pack_symbol("BTC-USD")
    instrument["base_asset"], instrument["quote_asset"] = _BASE_ASSET, _QUOTE_ASSET
    instrument["lot_units"], instrument["scale_units"] = 1, 1
    instrument["max_price_ticks"], instrument["max_quantity_lots"] = 1 << 24, 1 << 30
    names = np.arange(1, accounts + 1, dtype=np.uint32)
    opened = np.zeros(accounts, COMMAND)
    opened["kind"], opened["account"] = CommandKind.OPEN_ACCOUNT, names
    deposits = np.zeros(2 * accounts, TRANSFER_COMMAND)
    deposits["kind"], deposits["account"] = CommandKind.DEPOSIT, np.tile(names, 2)
    deposits["asset"] = np.repeat([_BASE_ASSET, _QUOTE_ASSET], accounts)
    deposits["transfer_id"] = np.arange(1, 2 * accounts + 1)
    deposits["amount"] = deposit_units
    return CommandList(np.concatenate([setup, opened, deposits.view(COMMAND)]), instrument.view(DETAILS))


def open_session() -> Commands:
    """Return the command that opens the benchmark's session, which comes first."""
    row = np.zeros(1, COMMAND)
    row["kind"], row["session_id"] = CommandKind.OPEN_SESSION, SESSION
    return row


class SessionNumbering:
    """Number commands for the benchmark's session; request ids count up without gaps."""

    def __init__(self) -> None:
        self.last_request = 0

    def number(self, rows: Commands) -> None:
        """Set session and request ids of commands that are sent next, in order."""
        requests = rows["kind"] != CommandKind.OPEN_SESSION
        rows["session_id"] = SESSION
        rows["request_id"] = np.where(requests, self.last_request + np.cumsum(requests), 0)
        self.last_request += int(np.count_nonzero(requests))
