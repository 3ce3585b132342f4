"""Fees and price bands as people write them, as the integers the exchange counts in: exact, or refused.

A rate is a decimal with its unit, "0.05%" or "5bps" (a hundredth of a percent each), a negative one a rebate; only 0
needs no unit. Fees count in millionths of the notional, bands in hundredths of a percent. Nothing is rounded.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from smrx.client.client_errors import InvalidValue
from smrx.client.decimals import to_text

#: What the verbs accept as a rate: text with its unit, or a plain 0.
Rate = str | int

#: A fee of everything, and of nothing.
FEE_PARTS: Final = 1_000_000
BAND_PARTS: Final = 10_000

_RATE: Final = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?) ?(%|bps?)", re.ASCII)
_UNITS: Final = {"%": Fraction(1, 100), "bp": Fraction(1, 10_000), "bps": Fraction(1, 10_000)}


def fee(value: Rate, what: str) -> int:
    """Return a fee in millionths of the notional, from -1,000,000 to 1,000,000; raises InvalidValue."""
    return _parts(value, what, FEE_PARTS, "0.0001%", lowest=-FEE_PARTS)


def band(value: Rate, what: str) -> int:
    """Return a price band in hundredths of a percent, from 0 (none) to 10,000; raises InvalidValue."""
    return _parts(value, what, BAND_PARTS, "0.01%", lowest=0)


def fee_text(parts: int) -> str:
    """Return millionths as a percentage, the inverse of fee()."""
    return _percent(Fraction(parts, FEE_PARTS))


def band_text(parts: int) -> str:
    """Return hundredths of a percent as a percentage, the inverse of band()."""
    return _percent(Fraction(parts, BAND_PARTS))


def _percent(rate: Fraction) -> str:
    return f"{to_text(rate * 100)}%"


def _parts(value: Rate, what: str, whole: int, step: str, lowest: int) -> int:
    found = _exact(value)
    if found is None:
        raise InvalidValue(f'{what}: expected a rate with its unit such as "0.05%" or "5bps", found {_shown(value)}')
    parts = found * whole
    if parts.denominator != 1:
        raise InvalidValue(f"{what}: expected a multiple of {step}, found {_shown(value)}")
    if not lowest <= parts <= whole:
        least = _percent(Fraction(lowest, whole))
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
