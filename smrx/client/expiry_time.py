"""Convert the expiry time of an order to seconds since 1970.

A time with a fraction of a second, or without an offset from UTC, is an error. No clock.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from smrx.client.client_errors import InvalidValue

#: A time with its offset from UTC, as a datetime or in ISO 8601, or seconds since 1970.
ExpiryTime = datetime | int | str

_MAX_SECONDS: Final = (1 << 32) - 1
_EXAMPLE: Final = 'such as "2030-01-31T17:00:00Z", or whole seconds since 1970'


def seconds(value: ExpiryTime, what: str = "expires") -> int:
    """Return the time in seconds since 1970, 1 to 2^32 - 1. Raises InvalidValue."""
    if isinstance(value, str):
        found = int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else _parse(value, what)
    elif isinstance(value, datetime):
        found = _from_datetime(value, what)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        raise InvalidValue(f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {value!r}")
    if not 1 <= found <= _MAX_SECONDS:
        raise InvalidValue(f"{what}: expected a time from 1970 to {text(_MAX_SECONDS)}, found {value}")
    return found


def text(second: int) -> str:
    """Return seconds since 1970 as a time in ISO 8601, in UTC."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse(value: str, what: str) -> int:
    try:
        return _from_datetime(datetime.fromisoformat(value), what)
    except InvalidValue:
        raise
    except ValueError:
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise InvalidValue(f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {shown!r}") from None


def _from_datetime(moment: datetime, what: str) -> int:
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValue(
            f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {moment.isoformat()} without one"
        )
    if moment.microsecond:
        raise InvalidValue(f"{what}: expected a whole second, found {moment.isoformat()}")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
