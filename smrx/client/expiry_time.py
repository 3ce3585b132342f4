"""Convert the expiry time of an order to nanoseconds since 1970, exactly.

A time without an offset from UTC is an error, and so is a fraction of a nanosecond. No clock.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from smrx.client.client_errors import InvalidValue

#: A time with its offset from UTC, as a datetime or in ISO 8601, or seconds since 1970; both texts may have a fraction
#: of up to nine digits.
ExpiryTime = datetime | int | str

_SECOND_NS: Final = 1_000_000_000
#: Nanoseconds since 1970 fit in 63 bits until a few months later.
_MAX_NS: Final = int(datetime(2262, 1, 1, tzinfo=UTC).timestamp()) * _SECOND_NS
_EXAMPLE: Final = 'such as "2030-01-31T17:00:00Z", or seconds since 1970'
_SECONDS: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?", re.ASCII)
_FRACTION: Final = re.compile(r"(.{11}[0-9]{2}:[0-9]{2}:[0-9]{2})[.,]([0-9]{1,9})(?![0-9])(.*)", re.ASCII)
_TOO_FINE: Final = re.compile(r"[.,][0-9]{7}", re.ASCII)


def nanoseconds(value: ExpiryTime, what: str = "expires") -> int:
    """Return the time in nanoseconds since 1970, before the year 2262. Raises InvalidValue."""
    if isinstance(value, str):
        found = _parse(value, what)
    elif isinstance(value, datetime):
        found = _from_datetime(value, what)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value * _SECOND_NS
    else:
        raise InvalidValue(f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {value!r}")
    if not 1 <= found <= _MAX_NS:
        raise InvalidValue(f"{what}: expected a time from 1970 to {text(_MAX_NS)}, found {value}")
    return found


def text(time_ns: int) -> str:
    """Return nanoseconds since 1970 as a time in ISO 8601, in UTC, with the digits of the second that are not 0."""
    second, fraction = divmod(time_ns, _SECOND_NS)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z"


def _parse(value: str, what: str) -> int:
    match = _SECONDS.fullmatch(value)
    if match is not None:
        return int(match[1]) * _SECOND_NS + _fraction_ns(match[2] or "")
    # The fraction is read here, because datetime drops what is below a microsecond.
    parts = _FRACTION.fullmatch(value)
    whole, digits = (parts[1] + parts[3], parts[2]) if parts else (value, "")
    try:
        if _TOO_FINE.search(whole):
            raise ValueError
        return _from_datetime(datetime.fromisoformat(whole), what) + _fraction_ns(digits)
    except InvalidValue:
        raise
    except ValueError:
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise InvalidValue(f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {shown!r}") from None


def _fraction_ns(digits: str) -> int:
    return int(digits.ljust(9, "0"))


def _from_datetime(moment: datetime, what: str) -> int:
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValue(
            f"{what}: expected a time with its UTC offset {_EXAMPLE}, found {moment.isoformat()} without one"
        )
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
