"""Commands by name, for tests, and one command as a line of text, for people.

`command` fills a record; the functions named after kinds say which fields matter. `describe` is the way back.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import CommandKind, OrderFlags, OrderType, Side, Stp, TimeInForce
from smrx.engine.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol, unpack_symbol

Commands = NDArray[np.void]
#: Session and request id of the sender.
Sender = tuple[int, int]


def command(kind: int, sender: Sender = (0, 0), **fields: int) -> Commands:
    """One command as an array of one; fields not named are 0."""
    record = np.zeros(1, dtype=COMMAND)
    record["kind"] = kind
    record["session_id"], record["request_id"] = sender
    for name, value in fields.items():
        record[name] = value
    return record


def place(
    sender: Sender,
    account: int,
    side: Side,
    quantity_lots: int,
    price_ticks: int = 0,
    *,
    instrument: int = 1,
    order_type: OrderType = OrderType.LIMIT,
    tif: TimeInForce = TimeInForce.GTC,
    stp: int = Stp.CANCEL_NEWEST,
    flags: int = OrderFlags.NONE,
    client_order_id: int = 0,
) -> Commands:
    return command(
        CommandKind.PLACE,
        sender,
        account=account,
        side=side,
        quantity_lots=quantity_lots,
        price_ticks=price_ticks,
        instrument=instrument,
        order_type=order_type,
        tif=tif,
        stp=stp,
        flags=flags,
        client_order_id=client_order_id,
    )


def open_session(session_id: int, account: int) -> Commands:
    return command(CommandKind.OPEN_SESSION, (session_id, 0), account=account)


def open_account(sender: Sender, account: int) -> Commands:
    return command(CommandKind.OPEN_ACCOUNT, sender, account=account)


def deposit(sender: Sender, account: int, asset: int, amount: int, transfer_id: int) -> Commands:
    return command(
        CommandKind.DEPOSIT, sender, account=account, instrument=asset, quantity_lots=amount, order_id=transfer_id
    )


def withdraw(sender: Sender, account: int, asset: int, amount: int, transfer_id: int) -> Commands:
    return command(
        CommandKind.WITHDRAW, sender, account=account, instrument=asset, quantity_lots=amount, order_id=transfer_id
    )


def add_asset(sender: Sender, asset: int, symbol: str, decimals: int = 0) -> Commands:
    return command(
        CommandKind.ADD_ASSET, sender, instrument=asset, client_order_id=pack_symbol(symbol), quantity_lots=decimals
    )


def add_instrument(
    sender: Sender,
    instrument: int,
    symbol: str,
    *,
    base_asset: int,
    quote_asset: int,
    lot_units: int = 1,
    scale_units: int = 1,
    max_price_ticks: int = 1_000_000,
    max_quantity_lots: int = 1_000_000,
) -> Commands:
    record = np.zeros(1, dtype=INSTRUMENT_COMMAND)
    record["kind"] = CommandKind.ADD_INSTRUMENT
    record["session_id"], record["request_id"] = sender
    record["instrument"], record["symbol"] = instrument, pack_symbol(symbol)
    record["base_asset"], record["quote_asset"] = base_asset, quote_asset
    record["lot_units"], record["scale_units"] = lot_units, scale_units
    record["max_price_ticks"], record["max_quantity_lots"] = max_price_ticks, max_quantity_lots
    return record.view(COMMAND)


def join(commands: list[Commands]) -> Commands:
    """One array of many commands."""
    return np.concatenate(commands) if commands else np.zeros(0, dtype=COMMAND)


def describe(record: np.void) -> str:
    """A command as one line: who sends it, its kind, and every field that is not 0."""
    kind = int(record["kind"])
    if kind == CommandKind.ADD_INSTRUMENT and not record.tobytes()[1:4].strip(b"\0"):
        record = np.frombuffer(record.tobytes(), dtype=INSTRUMENT_COMMAND)[0]
    names = record.dtype.names or ()
    shown = [
        _field(kind, name, int(record[name]))
        for name in names
        if name not in ("kind", "session_id", "request_id") and record[name] != 0
    ]
    sender = f"{int(record['session_id'])}/{int(record['request_id'])}"
    name = CommandKind(kind).name if kind in set(CommandKind) else f"KIND {kind}"
    return f"[{sender}] {name} {' '.join(shown)}".rstrip()


def _field(kind: int, name: str, value: int) -> str:
    enums = {"side": Side, "order_type": OrderType, "tif": TimeInForce, "stp": Stp}
    if kind == CommandKind.PLACE and name in enums and value in set(enums[name]):
        return enums[name](value).name
    if name == "symbol":
        return f"symbol={unpack_symbol(value)!r}"
    return f"{name}={value}"
