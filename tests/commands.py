"""Build commands by name for tests, and describe a command as one line of text.

Every builder returns a CommandList: one command, and its details if it needs them. `command` fills a record; the
functions named after kinds list the fields that matter. `describe` is the reverse. `apply` applies such a list.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.wire.client_order_ids import pack_client_order_id, short_id_text
from smrx.wire.codes import (
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Permission,
    Scope,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.networks import pack_networks
from smrx.wire.records import (
    CAPACITIES,
    COMMAND,
    COMMAND_FIELDS,
    COMMAND_LAYOUTS,
    CREDENTIAL_SHIFT,
    DETAILS,
    DETAILS_LAYOUTS,
    MAX_CAPACITY,
    MAX_KEPT_ANSWERS,
)

Commands = CommandList
#: Session and request id of the sender.
Sender = tuple[int, int]
#: A client order id as text, or a number, which stands for its decimal text; 0 and "" for none.
ClientOrderId = str | int
NANOSECONDS = 1_000_000_000

#: The kinds whose client order id is text.
_OF_ORDERS = (CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE)


def command(kind: int, sender: Sender = (0, 0), **fields: Any) -> Commands:
    """Return one command; fields not named are 0.

    Names are those of the kind's layout, of its details, or of COMMAND, the first that has them. The details exist if a
    field of them is named, or if the kind must have them. The client order id of an order is a ClientOrderId;
    `raw` makes malformed ones.
    """
    own = _id_fields(fields.pop("client_order_id", 0)) if kind in _OF_ORDERS else {}
    return raw(kind, sender, **fields, **own)


def _id_fields(client_order_id: ClientOrderId) -> dict[str, Any]:
    """Return the fields of a command and its details that carry a client order id."""
    text = str(client_order_id or "")
    word, long_text = pack_client_order_id(text) if text else (0, b"")
    return {"client_order_id": word, **({"client_order_id_text": long_text} if long_text else {})}


def raw(kind: int, sender: Sender = (0, 0), **fields: Any) -> Commands:
    """Return one command with the values as they are; `client_order_id_text` is that of the details."""
    known = CommandKind(kind) if kind in set(CommandKind) else None
    layout = COMMAND if known is None else COMMAND_LAYOUTS[known]
    details_layout = None if known is None else DETAILS_LAYOUTS.get(known)
    records, details = np.zeros(1, layout), None
    records["kind"] = kind
    if "session_id" in (layout.names or ()):
        records["session_id"], records["request_id"] = sender
    if known is not None and details_layout is not None and known not in _OF_ORDERS:
        details = np.zeros(1, details_layout)
    for name, value in fields.items():
        inner = "client_order_id" if name == "client_order_id_text" else name
        if name == inner and name in (layout.names or ()):
            records[name] = value
        elif details_layout is not None and inner in (details_layout.names or ()):
            details = np.zeros(1, details_layout) if details is None else details
            details[inner] = value
        else:
            records.view(COMMAND)[name] = value
    records = records.view(COMMAND)
    if details is None:
        return CommandList(records)
    if "details" not in fields:
        records["details"] = 1
    return CommandList(records, details.view(DETAILS))


def apply(machine: Any, commands: Commands, time_ns: int) -> Any:
    """Return what an engine or an oracle returns for the commands."""
    return machine.apply(commands.records, time_ns, commands.details)


def place(
    sender: Sender,
    account: int,
    side: int,
    quantity_lots: int,
    price_ticks: int = 0,
    *,
    instrument: int = 1,
    order_type: int = OrderType.LIMIT,
    tif: int = TimeInForce.GTC,
    stp: int = Stp.CANCEL_NEWEST,
    flags: int = OrderFlags.NONE,
    client_order_id: ClientOrderId = 0,
    stop_ticks: int = 0,
    display_lots: int = 0,
    expiry_seconds: int = 0,
    expiry_ns: int = 0,
    credential: int = 0,
) -> Commands:
    """Return a PLACE; stop_ticks for STOP and STOP_LIMIT, display_lots for an iceberg, either expiry for GTD.

    `credential` is the person whom a gateway names.
    """
    terms = {
        "stop_price_ticks": stop_ticks,
        "display_lots": display_lots,
        "expiry_ns": expiry_ns or expiry_seconds * NANOSECONDS,
        "credential": credential,
    }
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
        **{name: value for name, value in terms.items() if value},
    )


def cancel(
    sender: Sender, account: int, order_id: int = 0, client_order_id: ClientOrderId = 0, credential: int = 0
) -> Commands:
    person = {"credential": credential} if credential else {}
    return command(
        CommandKind.CANCEL, sender, account=account, order_id=order_id, client_order_id=client_order_id, **person
    )


def open_session(session_id: int, account: int, flags: int = 0, answers: int = 0) -> Commands:
    return command(CommandKind.OPEN_SESSION, (session_id, 0), account=account, flags=flags, answers=answers)


def disconnect(session_id: int) -> Commands:
    return command(CommandKind.DISCONNECT, (session_id, 0))


def open_account(sender: Sender, account: int, firm: int = 0) -> Commands:
    return command(CommandKind.OPEN_ACCOUNT, sender, account=account, firm=firm)


def key_of(number: int) -> bytes:
    """Return a key for the credential with a number."""
    return number.to_bytes(4, "little") * 8


def add_credential(
    sender: Sender,
    number: int,
    permissions: int = Permission.READ | Permission.TRADE,
    subject: int = 0,
    *,
    scope: int = Scope.ACCOUNT,
    key: bytes = b"",
    networks: Iterable[str] = (),
    expires_ns: int = 0,
) -> Commands:
    """Return an ADD_CREDENTIAL; without a key it gets key_of its number."""
    places, prefixes = pack_networks(networks)
    return command(
        CommandKind.ADD_CREDENTIAL, sender, number=number, key=key or key_of(number), permissions=int(permissions),
        scope=scope, subject=subject, networks=places, prefixes=prefixes, expires_ns=expires_ns,
    )  # fmt: skip


def set_credential(
    sender: Sender, number: int, permissions: int, *, networks: Iterable[str] = (), expires_ns: int = 0
) -> Commands:
    places, prefixes = pack_networks(networks)
    return command(
        CommandKind.SET_CREDENTIAL, sender, number=number, permissions=int(permissions), networks=places,
        prefixes=prefixes, expires_ns=expires_ns,
    )  # fmt: skip


def revoke_credential(sender: Sender, number: int) -> Commands:
    return command(CommandKind.REVOKE_CREDENTIAL, sender, number=number)


def session_of(credential: int, session: int) -> int:
    """Return a session id of a credential."""
    return credential << CREDENTIAL_SHIFT | session


def deposit(sender: Sender, account: int, asset: int, amount: int, transfer_id: int) -> Commands:
    return command(CommandKind.DEPOSIT, sender, account=account, asset=asset, amount=amount, transfer_id=transfer_id)


def withdraw(sender: Sender, account: int, asset: int, amount: int, transfer_id: int) -> Commands:
    return command(CommandKind.WITHDRAW, sender, account=account, asset=asset, amount=amount, transfer_id=transfer_id)


def add_asset(sender: Sender, asset: int, symbol: str, decimals: int = 0, cap: int = 0) -> Commands:
    return command(
        CommandKind.ADD_ASSET,
        sender,
        asset=asset,
        symbol=symbol.encode("ascii"),
        decimals=decimals,
        supply_cap=cap,
    )


def set_status(sender: Sender, instrument: int, status: InstrumentStatus) -> Commands:
    return command(CommandKind.SET_STATUS, sender, instrument=instrument, status=status)


def set_limits(sender: Sender, account: int, **limits: int) -> Commands:
    """Return a SET_LIMITS with the names of LIMITS_COMMAND; limits not named are removed."""
    return command(CommandKind.SET_LIMITS, sender, account=account, **limits)


def set_capacity(sender: Sender, **numbers: int) -> Commands:
    """Return a SET_CAPACITY; the numbers not named are the largest."""
    most = {name: MAX_KEPT_ANSWERS if name == "answers" else MAX_CAPACITY for name in CAPACITIES}
    return command(CommandKind.SET_CAPACITY, sender, **{**most, **numbers})


def set_rules(sender: Sender, instrument: int, **rules: int) -> Commands:
    """Return a SET_RULES with the names of RULES_DETAILS; rules not named are removed."""
    return command(CommandKind.SET_RULES, sender, instrument=instrument, **rules)


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
    return command(
        CommandKind.ADD_INSTRUMENT,
        sender,
        instrument=instrument,
        symbol=symbol.encode("ascii"),
        base_asset=base_asset,
        quote_asset=quote_asset,
        lot_units=lot_units,
        scale_units=scale_units,
        max_price_ticks=max_price_ticks,
        max_quantity_lots=max_quantity_lots,
    )


def join(commands: list[Commands]) -> Commands:
    """Return many commands as one list; a command that names missing details names missing ones there, too."""
    if not commands:
        return CommandList(np.zeros(0, COMMAND))
    total, before = sum(len(part.details) for part in commands), 0
    moved = []
    for part in commands:
        records = part.records.copy()
        numbers = part.records["details"]
        records["details"][numbers != 0] += np.uint16(before)
        records["details"][numbers > len(part.details)] = total + 1
        before += len(part.details)
        moved.append(records)
    return CommandList(np.concatenate(moved), np.concatenate([part.details for part in commands]))


def part(commands: Commands, first: int, last: int | None = None) -> Commands:
    """Return some of the commands, with all details."""
    return CommandList(commands.records[first:last], commands.details)


def describe(record: np.void, details: NDArray[np.void] = NO_DETAILS) -> str:
    """Return a command as one line: its sender, its kind, and every field that is not 0.

    `details` are those of its list. Where a byte without a name in the kind's layout is set, COMMAND's names are shown.
    """
    kind = int(record["kind"])
    known = CommandKind(kind) if kind in set(CommandKind) else None
    number = int(record["details"])
    shown = []
    if known is not None:
        shown += _values(_in_layout(record, known), known)
        if number and number <= len(details) and known in DETAILS_LAYOUTS:
            shown += _values(np.frombuffer(details[number - 1].tobytes(), DETAILS_LAYOUTS[known])[0], known)
        elif number:
            shown.append(f"details={number}")
    else:
        shown += _values(record, known) + ([f"details={number}"] if number else [])
    sender = f"{int(record['session_id'])}/{int(record['request_id'])}"
    name = known.name if known is not None else f"KIND {kind}"
    return f"[{sender}] {name} {' '.join(shown)}".rstrip()


def _in_layout(record: np.void, kind: CommandKind) -> np.void:
    """Return the record with the names of its kind, or of COMMAND if a field without a name there is set."""
    layout = COMMAND_LAYOUTS[kind]
    own: np.void = np.frombuffer(record.tobytes(), layout)[0]
    rebuilt = np.zeros(1, layout)
    for name in ("kind", "details", "session_id", "request_id", *COMMAND_FIELDS[kind]):
        rebuilt[name] = own[name]
    return own if rebuilt.tobytes() == record.tobytes() else record


def _values(record: np.void, kind: CommandKind | None) -> list[str]:
    hidden = ("kind", "session_id", "request_id", "details")
    return [
        _value(record, kind, name)
        for name in record.dtype.names or ()
        if name not in hidden and any(record[name].tobytes())
    ]


def _value(record: np.void, kind: CommandKind | None, name: str) -> str:
    if isinstance(record[name], np.void):
        return f"{name}={bytes(record[name]).hex()}"
    if isinstance(record[name], bytes):
        return f"{name}={bytes(record[name])!r}"
    value = int(record[name])
    enums = {"side": Side, "order_type": OrderType, "tif": TimeInForce, "stp": Stp}
    if kind is CommandKind.PLACE and name in enums and value in set(enums[name]):
        return enums[name](value).name
    if kind is CommandKind.PLACE and name == "flags":
        return "|".join(flag.name or "" for flag in OrderFlags if value & flag) or f"flags={value}"
    if kind is CommandKind.SET_STATUS and name == "status" and value in set(InstrumentStatus):
        return InstrumentStatus(value).name
    if kind in _OF_ORDERS and name == "client_order_id":
        return f"client_order_id={short_id_text(value) or value!r}"
    return f"{name}={value}"
