"""Generate the commands of simulated clients: the setup of an exchange, then orders that match, and some invalid ones.

Pure: a random generator in, command records out. The session fills in session and request id.
"""

import random
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[np.void]

BASE: Final = 1
QUOTE: Final = 2
INSTRUMENT: Final = 1
#: A narrow price range, so that orders match.
_PRICES: Final = (95, 105)
_RECORD: Final = struct.Struct("<BBBBBBHQQIIQQqq")


def setup(accounts: list[int]) -> Commands:
    """Return the first commands of the venue: two assets, one market, accounts with balances."""
    instrument = np.zeros(1, INSTRUMENT_COMMAND)
    instrument["kind"] = CommandKind.ADD_INSTRUMENT
    instrument["instrument"], instrument["symbol"] = INSTRUMENT, pack_symbol("A-B")
    instrument["base_asset"], instrument["quote_asset"] = BASE, QUOTE
    instrument["lot_units"] = instrument["scale_units"] = 1
    instrument["max_price_ticks"] = instrument["max_quantity_lots"] = 1_000
    raw = [
        _command(CommandKind.ADD_ASSET, instrument=BASE, client_order_id=pack_symbol("A")),
        _command(CommandKind.ADD_ASSET, instrument=QUOTE, client_order_id=pack_symbol("B")),
        instrument.tobytes(),
    ]
    for account in accounts:
        raw.append(_command(CommandKind.OPEN_ACCOUNT, account=account))
        raw.append(_command(CommandKind.DEPOSIT, account=account, instrument=BASE, quantity=2_000, order_id=account))
        raw.append(
            _command(CommandKind.DEPOSIT, account=account, instrument=QUOTE, quantity=200_000, order_id=account + 1000)
        )
    return _to_array(raw)


def orders(rng: random.Random, account: int, count: int) -> Commands:
    """Return random commands of a trader."""
    return _to_array([_order(rng, account) for _ in range(count)])


def _order(rng: random.Random, account: int) -> bytes:
    draw = rng.random()
    if draw < 0.62:
        return _place(rng, account)
    client_order_id = rng.randrange(1, 12)
    if draw < 0.78:
        return _command(CommandKind.CANCEL, account=account, client_order_id=client_order_id)
    if draw < 0.92:
        return _command(
            CommandKind.REPLACE, account=account, client_order_id=client_order_id,
            price=rng.randint(*_PRICES), quantity=rng.randrange(1, 12),
        )  # fmt: skip
    if draw < 0.96:
        return _command(CommandKind.MASS_CANCEL, account=account, side=rng.randrange(3))
    # Malformed, or of an unknown kind: rejected, and the request id is used up all the same.
    return _command(rng.choice((200, int(CommandKind.PLACE))), account=account, side=9)


def _place(rng: random.Random, account: int) -> bytes:
    side = rng.choice((Side.BUY, Side.SELL))
    client_order_id, quantity = rng.randrange(12), rng.randrange(1, 12)
    if rng.random() < 0.1:
        return _command(
            CommandKind.PLACE, account=account, instrument=INSTRUMENT, side=side, order_type=OrderType.MARKET,
            tif=TimeInForce.IOC, stp=Stp.CANCEL_NEWEST, client_order_id=client_order_id, quantity=quantity,
        )  # fmt: skip
    tif = rng.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
    flags = OrderFlags.POST_ONLY if tif == TimeInForce.GTC and rng.random() < 0.1 else OrderFlags.NONE
    return _command(
        CommandKind.PLACE, account=account, instrument=INSTRUMENT, side=side, order_type=OrderType.LIMIT, tif=tif,
        stp=rng.choice(tuple(Stp)), flags=flags, client_order_id=client_order_id,
        price=rng.randint(*_PRICES), quantity=quantity,
    )  # fmt: skip


def _command(
    kind: int,
    *,
    side: int = 0,
    order_type: int = 0,
    tif: int = 0,
    stp: int = 0,
    flags: int = 0,
    account: int = 0,
    instrument: int = 0,
    client_order_id: int = 0,
    order_id: int = 0,
    price: int = 0,
    quantity: int = 0,
) -> bytes:
    return _RECORD.pack(
        kind,
        side,
        order_type,
        tif,
        stp,
        flags,
        0,
        0,
        0,
        account,
        instrument,
        client_order_id,
        order_id,
        price,
        quantity,
    )


def _to_array(raw: list[bytes]) -> Commands:
    return np.frombuffer(b"".join(raw), COMMAND)
