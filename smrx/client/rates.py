"""Convert between fees and price bands as text and the integers of the exchange, exactly.

A rate is a decimal with a unit, such as "0.05%" or "5bps" (1 bp is 0.01%); only 0 needs no unit. A negative fee is a
rebate. Fees are in millionths of the notional, bands in hundredths of a percent. A value between two steps is an error.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from smrx.client.client_errors import InvalidValue
from smrx.client.decimals import to_text

#: A rate, as operations accept it: text with a unit, or 0.
Rate = str | int

#: 100% as a fee and as a band.
FEE_PARTS: Final = 1_000_000
BAND_PARTS: Final = 10_000

_RATE: Final = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?) ?(%|bps?)", re.ASCII)
_UNITS: Final = {"%": Fraction(1, 100), "bp": Fraction(1, 10_000), "bps": Fraction(1, 10_000)}


def fee(value: Rate, what: str) -> int:
    """Return a fee in millionths of the notional, from -1,000,000 to 1,000,000. Raises InvalidValue."""
    return _parts(value, what, FEE_PARTS, "0.0001%", lowest=-FEE_PARTS)


def band(value: Rate, what: str) -> int:
    """Return a price band in hundredths of a percent, from 0 (none) to 10,000. Raises InvalidValue."""
    return _parts(value, what, BAND_PARTS, "0.01%", lowest=0)


def fee_text(parts: int) -> str:
    """Return millionths as a percentage, the inverse of fee()."""
    return _percent(Fraction(parts, FEE_PARTS))


def band_text(parts: int) -> str:
    """Return hundredths of a percent as a percentage, the inverse of band()."""
    return _percent(Fraction(parts, BAND_PARTS))


def _percent(rate: Fraction) -> str:
    return f"{to_text(rate * 100)}%"


def _parts(value: Rate, what: str, full: int, step: str, lowest: int) -> int:
    found = _exact(value)
    if found is None:
        raise InvalidValue(f'{what}: expected a rate with a unit such as "0.05%" or "5bps", found {_shown(value)}')
    parts = found * full
    if parts.denominator != 1:
        raise InvalidValue(f"{what}: expected a multiple of {step}, found {_shown(value)}")
    if not lowest <= parts <= full:
        least = _percent(Fraction(lowest, full))
        raise InvalidValue(f"{what}: expected {least} to 100%, found {_shown(value)}")
    return parts.numerator


def _exact(value: Rate) -> Fraction | None:
    if isinstance(value, bool):
        return None
    if value in (0, "0"):
        return Fraction(0)
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else Fraction(Decimal(match[1])) * _UNITS[match[2]]


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
