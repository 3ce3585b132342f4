"""Decimals convert exactly in both directions, or raise an error that names the step."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.client import decimals, instruments
from smrx.client.client_errors import InvalidValue
from smrx.client.instruments import Asset, Instrument

BTC, USD = Asset(1, "BTC", 8), Asset(2, "USD", 6)

counts = st.integers(1, (1 << 63) - 1)
steps = st.builds(lambda digits, places: Fraction(digits, 10**places), st.integers(1, 10**9), st.integers(0, 18))


@given(counts, steps)
def test_text_round_trips(count: int, step: Fraction) -> None:
    text = decimals.from_steps(count, step)
    assert decimals.to_steps(text, step, "price", "tick") == count
    assert decimals.to_steps(Decimal(text), step, "price", "tick") == count
    assert Fraction(text) == count * step


@given(counts, steps, st.integers(1, 10**6))
def test_value_between_two_steps_is_rejected(count: int, step: Fraction, part: int) -> None:
    value = count * step + step * Fraction(part, 10**6 + 3)
    places = decimals.places(value)
    text = decimals.to_text(value if places is not None else count * step + step / 2)
    if len(text) <= 40:
        with pytest.raises(
            InvalidValue, match=f"price: expected a multiple of the tick {decimals.to_text(step)}, found"
        ):
            decimals.to_steps(text, step, "price", "tick")


@given(st.text(max_size=20))
def test_any_text_is_a_decimal_or_an_error(text: str) -> None:
    try:
        value = decimals.exact(text, "price")
    except InvalidValue:
        return
    assert value == Fraction(Decimal(text))
    assert value > 0


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_any_decimal_is_exact_or_an_error(number: Decimal) -> None:
    try:
        value = decimals.exact(number, "price")
    except InvalidValue:
        return
    assert Decimal(value.numerator) / Decimal(value.denominator) == number or value == Fraction(number)


@pytest.mark.parametrize(
    "value",
    [
        0.1, True, None, b"1", "", " 1", "1 ", "+1", "-1", "0", "0.0", ".5", "5.", "1_000", "1,000", "1e3", "NaN",
        "inf", "٣", "0x10", "1.2.3", "9" * 41, Decimal("-1"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"),
        Decimal("1e99"), 0, -5,
    ],
)  # fmt: skip
def test_value_that_is_not_a_positive_decimal_is_rejected(value: object) -> None:
    with pytest.raises(InvalidValue, match="price: expected a decimal"):
        decimals.exact(value, "price")  # type: ignore[arg-type]  # the error under test


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("1" + "0" * 44, "at most 40 digits on each side of the point, found 45 before and 0 after it in 1000"),
        ("1." + "0" * 41, "at most 40 digits on each side of the point, found 1 before and 41 after it in 1.00"),
        ("1E3", "above 0 written without an exponent, found 1E3"),
        ("1e-3", "above 0 written without an exponent, found 1e-3"),
        (Decimal("1e45"), "at most 80 digits and an exponent of -40 to 40, found 1E[+]45"),
        (Decimal("1e999999"), "at most 80 digits and an exponent of -40 to 40, found 1E[+]999999"),
        ("0" * 40, "above 0, found 0000"),
        (Decimal(0), "above 0, found 0"),
    ],
)
def test_error_names_the_limit_that_a_value_exceeds(value: str | Decimal, limit: str) -> None:
    with pytest.raises(InvalidValue, match=f"quantity: expected a decimal (with )?{limit}"):
        decimals.exact(value, "quantity")


def test_count_above_64_bits_is_rejected_with_the_maximum() -> None:
    with pytest.raises(InvalidValue, match=r"expected at most 92233720368547758\.07, found 92233720368547758\.08"):
        decimals.to_steps("92233720368547758.08", Fraction(1, 100), "price", "tick")
    with pytest.raises(InvalidValue, match="found an integer of 16610 bits"):
        decimals.to_steps(10**5000, Fraction(1, 100), "price", "tick")


def test_text_has_the_decimal_places_of_the_step() -> None:
    assert decimals.from_steps(5_000_000, Fraction(1, 100)) == "50000.00"
    assert decimals.from_steps(5, Fraction(25)) == "125"
    assert decimals.from_steps(3, Fraction(1, 40)) == "0.075"
    assert decimals.from_steps(-3, Fraction(1, 100)) == "-0.03"
    assert decimals.from_steps(0, Fraction(1, 100)) == "0.00"
    assert decimals.to_text(Fraction(1, 3)) == "1/3", "no decimal is exact"


@given(
    st.integers(0, 18), st.integers(0, 18), st.integers(1, (1 << 32) - 1), st.integers(1, (1 << 32) - 1), counts, counts
)
def test_notional_is_ticks_times_lots_times_scale(
    base_decimals: int, quote_decimals: int, lot_units: int, scale_units: int, ticks: int, lots: int
) -> None:
    base, quote = Asset(1, "B", base_decimals), Asset(2, "Q", quote_decimals)
    instrument = Instrument(1, "B-Q", base, quote, lot_units, scale_units, 1, 1, 1)
    assert ticks * instrument.tick * lots * instrument.lot * 10**quote_decimals == ticks * lots * scale_units


def test_scales_are_derived_from_tick_and_lot() -> None:
    scales = instruments.scales(BTC, USD, "0.01", "0.0001", "100000", "1000")
    assert (scales.lot_units, scales.scale_units) == (10_000, 1)
    instrument = Instrument(1, "BTC-USD", BTC, USD, scales.lot_units, scales.scale_units, 1, 1, 1)
    assert (instrument.tick, instrument.lot) == (Fraction(1, 100), Fraction(1, 10_000))


@pytest.mark.parametrize(
    ("tick", "lot", "maxima", "message"),
    [
        ("0.001", "0.0001", (None, None), r"tick: one tick times one lot .* USD, 0\.000001, .* = 0\.0000001"),
        ("0.01", "0.000000001", (None, None), r"lot: expected a multiple of the minimal unit of BTC, 0\.00000001"),
        ("0.01", "100", (None, None), "lot: expected"),
        ("0.01", "0.0001", ("99999999999", "99999999"), r"below 2\^62 minimal units, found \d+ USD and \d+ BTC"),
        ("0.01", "0.0001", ("0.001", None), "max_price: expected a multiple of the tick 0.01"),
        ("0.01", "0.0001", ("9999999999999999", "1000000"), r"below 2\^62"),
    ],
)
def test_scales_that_are_not_integers_are_rejected(
    tick: str, lot: str, maxima: tuple[str | None, str | None], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        instruments.scales(BTC, USD, tick, lot, *maxima)


@given(st.integers(0, 18), st.integers(0, 18), st.integers(0, 12), st.integers(0, 12), st.none() | st.just("1000"))
def test_default_maximums_are_accepted_by_the_exchange(
    base_decimals: int, quote_decimals: int, tick_places: int, lot_places: int, max_price: str | None
) -> None:
    base, quote = Asset(1, "B", base_decimals), Asset(2, "Q", quote_decimals)
    tick, lot = (decimals.to_text(Fraction(1, 10**places)) for places in (tick_places, lot_places))
    try:
        scales = instruments.scales(base, quote, tick, lot, max_price, None)
    except InvalidValue:
        return
    assert scales.max_price_ticks >= 1
    assert scales.max_quantity_lots >= 1
    assert scales.max_price_ticks * scales.max_quantity_lots * scales.scale_units < 1 << 62
    assert scales.max_quantity_lots * scales.lot_units < 1 << 62


@pytest.mark.parametrize(
    ("value", "zero"),
    [
        *((zero, True) for zero in (0, "0", "0.000", Decimal(0), Decimal("0E+9"))),
        *((other, False) for other in (1, "0.01", "", "-0", "0e5", "x", Decimal("NaN"), Decimal("sNaN"), False, 0.0)),
    ],
)
def test_is_zero(value: decimals.Number, zero: bool) -> None:
    assert decimals.is_zero(value) is zero
