"""Build command records from the arguments of an operation; check each value before anything is sent."""

from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from smrx.client import decimals
from smrx.client.client_errors import InvalidValue
from smrx.client.decimals import Number
from smrx.client.instruments import Asset, Instrument
from smrx.wire.codes import CommandKind, InstrumentStatus, Side, Stp, TimeInForce
from smrx.wire.records import COMMAND, pack_symbol

SideLike = Side | str
TifLike = TimeInForce | str
StpLike = Stp | str
StatusLike = InstrumentStatus | str

E = TypeVar("E", bound=IntEnum)

#: Limits and notionals must be below this.
_MONEY_LIMIT = 1 << 62


def command(kind: CommandKind, layout: np.dtype[np.void] = COMMAND, /, **fields: int) -> NDArray[np.void]:
    """Return a command record with the given fields of the layout; the other fields are 0."""
    record = np.zeros(1, layout)
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    return record.view(COMMAND)


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


def symbol(text: str) -> int:
    """Return a symbol packed in a u64. Raises InvalidValue."""
    try:
        return pack_symbol(text)
    except ValueError as error:
        raise InvalidValue(str(error)) from None


def order_key(order_id: int | None, client_order_id: int | None) -> dict[str, int]:
    """Return the field that identifies an order. Raises InvalidValue unless exactly one id is given."""
    given = {"order_id": order_id, "client_order_id": client_order_id}
    key = {name: u64(value, name) for name, value in given.items() if value}
    if len(key) != 1:
        raise InvalidValue(f"expected either order_id or client_order_id, found {'both' if key else 'neither'}")
    return key


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
    names = {member.name: member for member in kind if member.name != "ANY"}
    found = names.get(value.upper().replace("-", "_")) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue(f"{what}: expected one of {', '.join(names)}, found {value!r}")
    return found


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
