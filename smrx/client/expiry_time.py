"""When an order expires: a moment as people give it, as the whole second since 1970 the exchange counts in.

Exact or refused: a fraction of a second and a time without its offset from UTC are no such moment. No clock.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from smrx.client.client_errors import InvalidValue

#: What the verbs accept: a time with its offset, as a datetime or in ISO 8601, or seconds since 1970.
Moment = datetime | int | str

_LAST: Final = (1 << 32) - 1
_EXAMPLE: Final = 'such as "2030-01-31T17:00:00Z", or whole seconds since 1970'


def seconds(value: Moment, what: str = "expires") -> int:
    """Return the moment in seconds since 1970, 1 to 2^32 - 1; raises InvalidValue."""
    if isinstance(value, str):
        found = int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else _parsed(value, what)
    elif isinstance(value, datetime):
        found = _of(value, what)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        raise InvalidValue(f"{what}: expected a time with its offset {_EXAMPLE}, found {value!r}")
    if not 1 <= found <= _LAST:
        raise InvalidValue(f"{what}: expected a time from 1970 to {text(_LAST)}, found {value}")
    return found


def text(second: int) -> str:
    """Return a second since 1970 in ISO 8601, in UTC."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(value: str, what: str) -> int:
    try:
        return _of(datetime.fromisoformat(value), what)
    except InvalidValue:
        raise
    except ValueError:
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise InvalidValue(f"{what}: expected a time with its offset {_EXAMPLE}, found {shown!r}") from None


def _of(moment: datetime, what: str) -> int:
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValue(
            f"{what}: expected a time with its offset {_EXAMPLE}, found {moment.isoformat()} without one"
        )
    if moment.microsecond:
        raise InvalidValue(f"{what}: expected a whole second, found {moment.isoformat()}")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
