"""Convert between decimals and the integers of the exchange, exactly.

A price is a number of ticks, a quantity a number of lots, an amount a number of minimal units: each a whole number of
*steps*. Nothing is rounded: a value between two steps is an error. So is a float, because 0.1 as a float is not 0.1.
"""

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from smrx.client.client_errors import InvalidValue

#: A price, a quantity or an amount, as operations accept it.
Number = str | int | Decimal

#: More digits on each side of the point than any 64-bit count with 18 decimals needs.
_MAX_DIGITS: Final = 40
#: No exponents, because they turn short texts into huge numbers.
_DECIMAL: Final = re.compile(rf"[0-9]{{1,{_MAX_DIGITS}}}(\.[0-9]{{1,{_MAX_DIGITS}}})?", re.ASCII)
_LONG: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_WITH_EXPONENT: Final = re.compile(r"[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]+", re.ASCII)
_MAX_COUNT: Final = (1 << 63) - 1
_MAX_PLACES: Final = 60
#: Characters of a text whose number of steps is kept.
_MAX_CACHED: Final = 40


def exact(value: Number, what: str) -> Fraction:
    """Return the value of a positive decimal. Raises InvalidValue for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        kind = type(value).__name__
        raise InvalidValue(f'{what}: expected a decimal such as "0.5", found the {kind} {value!r}')
    if isinstance(value, str):
        is_valid = _DECIMAL.fullmatch(value) is not None
    elif isinstance(value, Decimal):
        short = value.is_finite() and len(value.as_tuple().digits) <= 2 * _MAX_DIGITS
        is_valid = short and abs(value.adjusted()) <= _MAX_DIGITS
    else:
        is_valid = True
    number = Fraction(value) if is_valid else Fraction(0)
    if number <= 0:
        raise InvalidValue(f"{what}: {_mismatch(value, is_valid)}")
    return number


def to_steps(value: Number, step: Fraction, what: str, step_name: str) -> int:
    """Return the value as a number of steps. Raises InvalidValue if it is not a multiple of the step."""
    count = exact(value, what) / step
    if count.denominator != 1:
        raise InvalidValue(f"{what}: expected a multiple of the {step_name} {to_text(step)}, found {_shown(value)}")
    if count.numerator > _MAX_COUNT:
        raise InvalidValue(f"{what}: expected at most {from_steps(_MAX_COUNT, step)}, found {_shown(value)}")
    return count.numerator


def steps_or_none(value: Number, numerator: int, denominator: int) -> int | None:
    """Return the value as a number of steps of numerator/denominator, from a cache; None if to_steps() must decide."""
    # Text and integers only: other values may have no hash.
    if (type(value) is str and len(value) <= _MAX_CACHED) or (type(value) is int and 0 < value < _MAX_COUNT):
        return _cached_steps(value, numerator, denominator)
    return None


@lru_cache(maxsize=1 << 15)
def _cached_steps(value: str | int, numerator: int, denominator: int) -> int | None:
    try:
        return to_steps(value, Fraction(numerator, denominator), "", "")
    except InvalidValue:
        return None


@lru_cache(maxsize=1 << 15)
def text_of_steps(count: int, numerator: int, denominator: int) -> str:
    """Return from_steps() of a step of numerator/denominator, from a cache."""
    return from_steps(count, Fraction(numerator, denominator))


def is_zero(value: Number) -> bool:
    """Return whether the value is 0, which some arguments use for "none"."""
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None and not Fraction(value)
    if isinstance(value, Decimal):
        return value.is_zero()
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def from_steps(count: int, step: Fraction) -> str:
    """Return `count` steps as an exact decimal with the places of the step."""
    return _text(count * step, places(step))


def to_text(value: Fraction) -> str:
    """Return a value as an exact decimal without trailing zeros, or as n/d if there is none."""
    return _text(value, places(value))


def places(step: Fraction) -> int | None:
    """Return the number of decimal places that every multiple of the step needs; None if it is not finite."""
    rest, twos, fives = step.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    needed = max(twos, fives)
    return needed if rest == 1 and needed <= _MAX_PLACES else None


def unit(decimals: int) -> Fraction:
    """Return the minimal unit of an asset with this many decimals."""
    return Fraction(1, 10**decimals)


def _text(value: Fraction, digits: int | None) -> str:
    if digits is None:
        return f"{value.numerator}/{value.denominator}"
    scaled = abs(value) * 10**digits
    assert scaled.denominator == 1
    text = str(scaled.numerator).rjust(digits + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{text[:-digits]}.{text[-digits:]}" if digits else sign + text


def _mismatch(value: Number, is_valid: bool) -> str:
    """Return why a value is not a positive decimal."""
    if not is_valid and isinstance(value, Decimal) and value.is_finite():
        # Compared, not expanded: Decimal("1e999999999") has more digits than memory.
        return (
            f"expected a decimal with at most {2 * _MAX_DIGITS} digits and an exponent of -{_MAX_DIGITS} to "
            f"{_MAX_DIGITS}, found {_shown(value)}"
        )
    if isinstance(value, str):
        if _WITH_EXPONENT.fullmatch(value):
            return f"expected a decimal above 0 written without an exponent, found {_shown(value)}"
        match = _LONG.fullmatch(value)
        if match is not None and not is_valid:
            found = f"{len(match[1])} before and {len(match[2] or '')} after it in {_shown(value)}"
            return f"expected a decimal with at most {_MAX_DIGITS} digits on each side of the point, found {found}"
    return f"expected a decimal above 0, found {_shown(value)}"


def _shown(value: Number) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
