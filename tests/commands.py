"""Build commands by name for tests, and describe a command as one line of text.

`command` fills a record; the functions named after kinds list the fields that matter. `describe` is the reverse.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import (
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import (
    COMMAND,
    INSTRUMENT_COMMAND,
    LIMITS_COMMAND,
    RULES_COMMAND,
    pack_symbol,
    unpack_symbol,
)

Commands = NDArray[np.void]
#: Session and request id of the sender.
Sender = tuple[int, int]


def command(kind: int, sender: Sender = (0, 0), **fields: int) -> Commands:
    """Return one command as an array of one; fields not named are 0."""
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
    stop_ticks: int = 0,
    display_lots: int = 0,
    expiry_seconds: int = 0,
) -> Commands:
    """Return a PLACE; stop_ticks for STOP and STOP_LIMIT, display_lots for an iceberg, expiry_seconds for GTD."""
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
        order_id=stop_ticks or display_lots | expiry_seconds << 32,
    )


def open_session(session_id: int, account: int, flags: int = 0) -> Commands:
    return command(CommandKind.OPEN_SESSION, (session_id, 0), account=account, flags=flags)


def disconnect(session_id: int) -> Commands:
    return command(CommandKind.DISCONNECT, (session_id, 0))


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


def add_asset(sender: Sender, asset: int, symbol: str, decimals: int = 0, cap: int = 0) -> Commands:
    return command(
        CommandKind.ADD_ASSET,
        sender,
        instrument=asset,
        client_order_id=pack_symbol(symbol),
        quantity_lots=decimals,
        price_ticks=cap,
    )


def set_status(sender: Sender, instrument: int, status: InstrumentStatus) -> Commands:
    return command(CommandKind.SET_STATUS, sender, instrument=instrument, side=status)


def set_limits(sender: Sender, account: int, **limits: int) -> Commands:
    """Return a SET_LIMITS with the names of LIMITS_COMMAND; limits not named are removed."""
    return _with_own_names(LIMITS_COMMAND, CommandKind.SET_LIMITS, sender, account=account, **limits)


def set_rules(sender: Sender, instrument: int, **rules: int) -> Commands:
    """Return a SET_RULES with the names of RULES_COMMAND; rules not named are removed."""
    return _with_own_names(RULES_COMMAND, CommandKind.SET_RULES, sender, instrument=instrument, **rules)


def _with_own_names(names: np.dtype[np.void], kind: CommandKind, sender: Sender, **fields: int) -> Commands:
    """Return a command whose 64 bytes have field names of their own."""
    record = np.zeros(1, dtype=names)
    record["kind"] = kind
    record["session_id"], record["request_id"] = sender
    for name, value in fields.items():
        record[name] = value
    return record.view(COMMAND)


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
    return _with_own_names(
        INSTRUMENT_COMMAND,
        CommandKind.ADD_INSTRUMENT,
        sender,
        instrument=instrument,
        symbol=pack_symbol(symbol),
        base_asset=base_asset,
        quote_asset=quote_asset,
        lot_units=lot_units,
        scale_units=scale_units,
        max_price_ticks=max_price_ticks,
        max_quantity_lots=max_quantity_lots,
    )


def join(commands: list[Commands]) -> Commands:
    """Return many commands as one array."""
    return np.concatenate(commands) if commands else np.zeros(0, dtype=COMMAND)


#: The kinds with field names of their own, and the bytes without a name: if one is set, COMMAND's names are shown.
_OWN_NAMES = {
    CommandKind.ADD_INSTRUMENT: (INSTRUMENT_COMMAND, [1, 2, 3]),
    CommandKind.SET_LIMITS: (LIMITS_COMMAND, [*range(1, 8), *range(32, 40)]),
    CommandKind.SET_RULES: (RULES_COMMAND, [1]),
}


def describe(record: np.void) -> str:
    """Return a command as one line: its sender, its kind, and every field that is not 0."""
    kind = int(record["kind"])
    if kind in _OWN_NAMES:
        dtype, unnamed = _OWN_NAMES[CommandKind(kind)]
        data = record.tobytes()
        if not any(data[place] for place in unnamed):
            record = np.frombuffer(data, dtype=dtype)[0]
    names = record.dtype.names or ()
    shown = [
        _field(record, kind, name)
        for name in names
        if name not in ("kind", "session_id", "request_id") and record[name] != 0
    ]
    sender = f"{int(record['session_id'])}/{int(record['request_id'])}"
    name = CommandKind(kind).name if kind in set(CommandKind) else f"KIND {kind}"
    return f"[{sender}] {name} {' '.join(shown)}".rstrip()


def _field(record: np.void, kind: int, name: str) -> str:
    value = int(record[name])
    enums = {"side": Side, "order_type": OrderType, "tif": TimeInForce, "stp": Stp}
    if kind == CommandKind.PLACE and name in enums and value in set(enums[name]):
        return enums[name](value).name
    if kind == CommandKind.PLACE and name == "flags":
        return "|".join(flag.name or "" for flag in OrderFlags if value & flag) or f"flags={value}"
    if kind == CommandKind.PLACE and name == "order_id":
        if record["order_type"] in (OrderType.STOP, OrderType.STOP_LIMIT):
            return f"stop={value}"
        return f"display={value & 0xFFFFFFFF} expiry={value >> 32}s"
    if kind == CommandKind.SET_STATUS and name == "side" and value in set(InstrumentStatus):
        return InstrumentStatus(value).name
    if name == "symbol":
        return f"symbol={unpack_symbol(value)!r}"
    return f"{name}={value}"
