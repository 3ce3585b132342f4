"""Fees, bands and expiry times convert exactly, or raise an error that names what was expected."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.client import expiry_time, rates
from smrx.client.client_errors import InvalidValue
from smrx.client.reasons import REASON_TEXTS, reason_text
from smrx.wire.codes import Reason

HOUR_EAST = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.05%", 500),
        ("5bps", 500),
        ("5 bps", 500),
        ("1bp", 100),
        ("-0.01%", -100),
        ("0.0001%", 1),
        ("0.01bp", 1),
        ("100%", 1_000_000),
        ("-100%", -1_000_000),
        ("0%", 0),
        ("0", 0),
        (0, 0),
    ],
)
def test_fee_is_in_millionths(text: str | int, parts: int) -> None:
    assert rates.fee(text, "fee") == parts


@given(st.integers(-rates.FEE_PARTS, rates.FEE_PARTS))
def test_fee_text_round_trips(parts: int) -> None:
    assert rates.fee(rates.fee_text(parts), "fee") == parts


@given(st.integers(0, rates.BAND_PARTS))
def test_band_text_round_trips(parts: int) -> None:
    assert rates.band(rates.band_text(parts), "band") == parts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.05", "fee: expected a rate with a unit such as .*, found 0.05"),
        (5, "with a unit .*, found 5"),
        (0.0005, "with a unit .*, found 0.0005"),
        (True, "with a unit"),
        ("", "with a unit"),
        ("%", "with a unit"),
        ("--1%", "with a unit"),
        ("+1%", "with a unit"),
        ("1e-3%", "with a unit"),
        (".5%", "with a unit"),
        ("٥%", "with a unit"),
        ("1%%", "with a unit"),
        ("0.5 percent", "with a unit"),
        ("9" * 70, r"found 9{57}\.\.\."),
        ("0.00001%", "fee: expected a multiple of 0.0001%, found 0.00001%"),
        ("0.001bps", "expected a multiple of 0.0001%"),
        ("100.0001%", "fee: expected -100% to 100%, found 100.0001%"),
        ("-10001bps", "expected -100% to 100%"),
    ],
)
def test_invalid_fee_is_rejected(value: str | int, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        rates.fee(value, "fee")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-1%", "band: expected 0% to 100%, found -1%"),
        ("101%", "band: expected 0% to 100%"),
        ("0.001%", "band: expected a multiple of 0.01%"),
        ("10", "with a unit"),
    ],
)
def test_invalid_band_is_rejected(value: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        rates.band(value, "band")


@pytest.mark.parametrize(
    "value",
    [
        1_900_000_000,
        "1900000000",
        "2030-03-17T17:46:40Z",
        "2030-03-17T17:46:40+00:00",
        "2030-03-17 18:46:40+01:00",
        datetime(2030, 3, 17, 17, 46, 40, tzinfo=UTC),
        datetime(2030, 3, 17, 18, 46, 40, tzinfo=HOUR_EAST),
    ],
)
def test_expiry_time_may_be_in_any_time_zone(value: expiry_time.ExpiryTime) -> None:
    assert expiry_time.nanoseconds(value) == 1_900_000_000_000_000_000
    assert expiry_time.text(1_900_000_000_000_000_000) == "2030-03-17T17:46:40Z"


@pytest.mark.parametrize(
    ("value", "nanoseconds", "text"),
    [
        ("2030-03-17T17:46:40.5Z", 500_000_000, "2030-03-17T17:46:40.5Z"),
        ("2030-03-17T18:46:40.000000001+01:00", 1, "2030-03-17T17:46:40.000000001Z"),
        ("2030-03-17 17:46:40,123456789Z", 123_456_789, "2030-03-17T17:46:40.123456789Z"),
        ("1900000000.10", 100_000_000, "2030-03-17T17:46:40.1Z"),
        (datetime(2030, 3, 17, 17, 46, 40, 7, tzinfo=UTC), 7_000, "2030-03-17T17:46:40.000007Z"),
    ],
)
def test_expiry_time_has_nanoseconds(value: expiry_time.ExpiryTime, nanoseconds: int, text: str) -> None:
    found = expiry_time.nanoseconds(value)
    assert found - 1_900_000_000_000_000_000 == nanoseconds
    assert expiry_time.text(found) == text
    assert expiry_time.nanoseconds(text) == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tomorrow", "expires: expected a time with its UTC offset such as .*, found 'tomorrow'"),
        ("", "expected a time with its UTC offset"),
        ("x" * 100, r"found 'x{57}\.\.\.'"),
        ("2030-03-17T17:46:40", "found 2030-03-17T17:46:40 without one"),
        ("2030-03-17", "without one"),
        ("2030-13-17T17:46:40Z", "expected a time with its UTC offset"),
        ("2030-03-17T17:46:40.1234567891Z", "expected a time with its UTC offset"),
        ("1900000000.1234567891", "expected a time with its UTC offset"),
        ("-5", "expected a time with its UTC offset"),
        ("+90s", "expected a time with its UTC offset"),
        (datetime(2030, 3, 17), "without one"),
        (1.9e9, "found 1900000000.0"),
        (True, "found True"),
        (None, "found None"),
        (0, "expected a time from 1970 to 2262-01-01T00:00:00Z, found 0"),
        (-1, "found -1"),
        (1 << 34, "found 17179869184"),
        ("1" * 21, "expected a time with its UTC offset"),
        ("1969-12-31T23:59:59Z", "expected a time from 1970"),
        ("0001-01-01T00:00:00+14:00", "expected a time from 1970"),
        ("9999-12-31T23:59:59-14:00", "expected a time from 1970"),
    ],
)
def test_invalid_expiry_time_is_rejected(value: expiry_time.ExpiryTime, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        expiry_time.nanoseconds(value)


def test_every_reason_has_its_own_text() -> None:
    assert set(REASON_TEXTS) == set(Reason)
    assert len(set(REASON_TEXTS.values())) == len(REASON_TEXTS)
    assert all(reason_text(int(reason)) == text for reason, text in REASON_TEXTS.items())
    assert reason_text(9999) == "reason 9999, unknown to this version"
