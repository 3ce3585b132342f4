"""Build the small market of the cluster, recovery and snapshot benchmarks, and number commands for one session."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[Any]

#: Any number except 0: no other client uses the cluster.
SESSION: Final = 0x5EED
INSTRUMENT: Final = 1
_BASE_ASSET: Final = 1
_QUOTE_ASSET: Final = 2


def market_commands(accounts: int, deposit_units: int) -> Commands:
    """Return the commands that list BTC-USD, open accounts 1 to `accounts` and deposit both assets into each."""
    setup = np.zeros(3, COMMAND)
    setup["kind"] = [CommandKind.ADD_ASSET, CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT]
    setup["instrument"] = [_BASE_ASSET, _QUOTE_ASSET, INSTRUMENT]
    setup["client_order_id"][:2] = [pack_symbol("BTC"), pack_symbol("USD")]
    setup["quantity_lots"][:2] = [8, 2]
    instrument = setup[2:3].view(INSTRUMENT_COMMAND)
    instrument["symbol"] = pack_symbol("BTC-USD")
    instrument["base_asset"], instrument["quote_asset"] = _BASE_ASSET, _QUOTE_ASSET
    instrument["lot_units"], instrument["scale_units"] = 1, 1
    instrument["max_price_ticks"], instrument["max_quantity_lots"] = 1 << 24, 1 << 30
    names = np.arange(1, accounts + 1, dtype=np.uint32)
    opened = np.zeros(accounts, COMMAND)
    opened["kind"], opened["account"] = CommandKind.OPEN_ACCOUNT, names
    deposits = np.zeros(2 * accounts, COMMAND)
    deposits["kind"], deposits["account"] = CommandKind.DEPOSIT, np.tile(names, 2)
    deposits["instrument"] = np.repeat([_BASE_ASSET, _QUOTE_ASSET], accounts)
    deposits["order_id"] = np.arange(1, 2 * accounts + 1)
    deposits["quantity_lots"] = deposit_units
    return np.concatenate([setup, opened, deposits])


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
