"""Build command records from the arguments of an operation; check each value before anything is sent."""

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from struct import Struct
from typing import Any, Final, TypeVar

import numpy as np

from smrx.client import decimals
from smrx.client.client_errors import InvalidValue
from smrx.client.decimals import Number
from smrx.client.instruments import Asset, Instrument
from smrx.wire.client_order_ids import pack_client_order_id
from smrx.wire.codes import CommandKind, InstrumentStatus, Side, Stp, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, COMMAND_LAYOUTS, DETAILS, DETAILS_LAYOUTS, pack_symbol

SideLike = Side | str
TifLike = TimeInForce | str
StpLike = Stp | str
StatusLike = InstrumentStatus | str
#: A client order id: 1 to 64 printable ASCII characters, or a number, which stands for its decimal text.
ClientOrderId = str | int

E = TypeVar("E", bound=IntEnum)

_OF_ORDERS: Final = frozenset((CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE))
#: COMMAND as the struct module writes it, which takes a third of the time of NumPy for one record; and its fields.
_COMMAND: Final = Struct("<6BHQQIIQQqq")
_NO_FIELDS: Final = dict.fromkeys(COMMAND.names or (), 0)
assert _COMMAND.size == COMMAND.itemsize
#: Limits and notionals must be below this.
_MONEY_LIMIT = 1 << 62


def command(
    kind: CommandKind, details: Mapping[str, int | bytes] | None = None, /, **fields: int | bytes
) -> CommandList:
    """Return a command with the given fields of its kind's layout, and `details`; the other fields are 0.

    The command of an order has no details if all fields of `details` are 0.
    """
    if kind in _OF_ORDERS and not (details and any(details.values())):
        data = _COMMAND.pack(*{**_NO_FIELDS, "kind": kind, **fields}.values())
        return CommandList(np.frombuffer(data, COMMAND))
    record: np.ndarray[Any, np.dtype[np.void]] = np.zeros(1, COMMAND_LAYOUTS[kind])
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    if not details:
        return CommandList(record.view(COMMAND))
    more = np.zeros(1, DETAILS_LAYOUTS[kind])
    for name, value in details.items():
        more[name] = value
    record["details"] = 1
    return CommandList(record.view(COMMAND), more.view(DETAILS))


def u32(value: int, what: str) -> int:
    """Return an id or a count of 32 bits. Raises InvalidValue."""
    return _unsigned(value, what, 32)


def u64(value: int, what: str) -> int:
    """Return an id of 64 bits. Raises InvalidValue."""
    return _unsigned(value, what, 64)


def _unsigned(value: int, what: str, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise InvalidValue(f"{what}: expected an integer from 0 to 2^{bits} - 1, found {value!r}")
    return value


def symbol(text: str, size: int) -> bytes:
    """Return a symbol of at most `size` characters. Raises InvalidValue."""
    try:
        return pack_symbol(text, size)
    except ValueError as error:
        raise InvalidValue(str(error)) from None


def client_id_text(value: ClientOrderId | None) -> str:
    """Return a client order id as text; "" for None, 0 and "". Raises InvalidValue."""
    if value is None or value == "":
        return ""
    text = value if isinstance(value, str) else str(u64(value, "client_order_id") or "")
    try:
        if text:
            pack_client_order_id(text)
    except ValueError as error:
        raise InvalidValue(str(error)) from None
    return text


def client_id_fields(text: str) -> tuple[int, bytes]:
    """Return the field of a command, and that of its details, for a text of client_id_text()."""
    return pack_client_order_id(text) if text else (0, b"")


def order_key(order_id: int | None, client_order_id: ClientOrderId | None) -> tuple[int, str]:
    """Return the (order id, client order id) that name an order. Raises InvalidValue unless exactly one is given."""
    key = u64(order_id or 0, "order_id"), client_id_text(client_order_id)
    if bool(key[0]) == bool(key[1]):
        raise InvalidValue(f"expected either order_id or client_order_id, found {'both' if key[0] else 'neither'}")
    return key


def named_order(
    kind: CommandKind, order_id: int | None, client_order_id: ClientOrderId | None, /, **fields: int | bytes
) -> CommandList:
    """Return a command for an open order named by one of its ids. Raises InvalidValue."""
    number, text = order_key(order_id, client_order_id)
    word, long_text = client_id_fields(text)
    return command(kind, {"client_order_id": long_text}, order_id=number, client_order_id=word, **fields)


def side(value: SideLike) -> Side:
    """Return BUY or SELL. Raises InvalidValue."""
    found = enum_member(value, Side, "side")
    if found is Side.ANY:
        raise InvalidValue("side: expected BUY or SELL, found ANY")
    return found


def enum_member(value: "E | str", kind: type[E], what: str) -> E:
    """Return the member with this name in any case, with "-" or "_". Raises InvalidValue with the list of names."""
    if isinstance(value, kind):
        return value
    names: dict[str, E] = _members(kind)
    found = names.get(value.upper().replace("-", "_")) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue(f"{what}: expected one of {', '.join(names)}, found {value!r}")
    return found


@cache
def _members(kind: type[IntEnum]) -> dict[str, Any]:
    return {member.name: member for member in kind if member.name != "ANY"}


def amount_or_current(value: Number | None, current: int, asset: Asset | None, what: str) -> int:
    """Return an amount in minimal units of the asset; `current` if the value is None.

    Without an asset the value is a number of minimal units. Raises InvalidValue.
    """
    if value is None or decimals.is_zero(value):
        return current if value is None else 0
    if asset is not None:
        units = asset.units(value, what)
    else:
        units = decimals.to_steps(value, decimals.unit(0), what, "minimal unit")
    return _below_limit(units, what)


def lots_or_current(value: Number | None, current: int, instrument: Instrument | None, what: str) -> int:
    """Return a quantity in lots of the instrument; otherwise like amount_or_current()."""
    if value is None or decimals.is_zero(value):
        return current if value is None else 0
    if instrument is not None:
        lots = instrument.quantity_lots(value, what)
    else:
        lots = decimals.to_steps(value, decimals.unit(0), what, "lot")
    return _below_limit(lots, what)


def _below_limit(count: int, what: str) -> int:
    if count >= _MONEY_LIMIT:
        raise InvalidValue(f"{what}: expected less than 2^62 minimal units or lots, found {count}")
    return count
