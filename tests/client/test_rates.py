"""Fees, bands and expiries as people write them: exact, or refused with what was expected."""

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
def test_a_fee_counts_in_millionths(text: str | int, parts: int) -> None:
    assert rates.fee(text, "fee") == parts


@given(st.integers(-rates.FEE_PARTS, rates.FEE_PARTS))
def test_the_text_of_a_fee_gives_the_fee_again(parts: int) -> None:
    assert rates.fee(rates.fee_text(parts), "fee") == parts


@given(st.integers(0, rates.BAND_PARTS))
def test_the_text_of_a_band_gives_the_band_again(parts: int) -> None:
    assert rates.band(rates.band_text(parts), "band") == parts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.05", "fee: expected a rate with its unit such as .*, found 0.05"),
        (5, "with its unit .*, found 5"),
        (0.0005, "with its unit .*, found 0.0005"),
        (True, "with its unit"),
        ("", "with its unit"),
        ("%", "with its unit"),
        ("--1%", "with its unit"),
        ("+1%", "with its unit"),
        ("1e-3%", "with its unit"),
        (".5%", "with its unit"),
        ("٥%", "with its unit"),
        ("1%%", "with its unit"),
        ("0.5 percent", "with its unit"),
        ("9" * 70, r"found 9{57}\.\.\."),
        ("0.00001%", "fee: expected a multiple of 0.0001%, found 0.00001%"),
        ("0.001bps", "expected a multiple of 0.0001%"),
        ("100.0001%", "fee: expected -100% to 100%, found 100.0001%"),
        ("-10001bps", "expected -100% to 100%"),
    ],
)
def test_what_is_no_fee_is_refused(value: str | int, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        rates.fee(value, "fee")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-1%", "band: expected 0% to 100%, found -1%"),
        ("101%", "band: expected 0% to 100%"),
        ("0.001%", "band: expected a multiple of 0.01%"),
        ("10", "with its unit"),
    ],
)
def test_what_is_no_band_is_refused(value: str, message: str) -> None:
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
def test_a_moment_counts_in_seconds_wherever_it_was_written(value: expiry_time.Moment) -> None:
    assert expiry_time.seconds(value) == 1_900_000_000
    assert expiry_time.text(1_900_000_000) == "2030-03-17T17:46:40Z"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tomorrow", "expires: expected a time with its offset such as .*, found 'tomorrow'"),
        ("", "expected a time with its offset"),
        ("x" * 100, r"found 'x{57}\.\.\.'"),
        ("2030-03-17T17:46:40", "found 2030-03-17T17:46:40 without one"),
        ("2030-03-17", "without one"),
        ("2030-13-17T17:46:40Z", "expected a time with its offset"),
        ("2030-03-17T17:46:40.5Z", "expected a whole second, found 2030-03-17T17:46:40.5"),
        ("-5", "expected a time with its offset"),
        ("+90s", "expected a time with its offset"),
        (datetime(2030, 3, 17), "without one"),
        (datetime(2030, 3, 17, 0, 0, 0, 1, tzinfo=UTC), "expected a whole second"),
        (1.9e9, "found 1900000000.0"),
        (True, "found True"),
        (None, "found None"),
        (0, "expected a time from 1970 to 2106-02-07T06:28:15Z, found 0"),
        (-1, "found -1"),
        (1 << 32, "found 4294967296"),
        ("1969-12-31T23:59:59Z", "expected a time from 1970"),
        ("0001-01-01T00:00:00+14:00", "expected a time from 1970"),
        ("9999-12-31T23:59:59-14:00", "expected a time from 1970"),
    ],
)
def test_what_is_no_moment_is_refused(value: expiry_time.Moment, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        expiry_time.seconds(value)


def test_every_reason_has_words_of_its_own() -> None:
    assert set(REASON_TEXTS) == set(Reason)
    assert len(set(REASON_TEXTS.values())) == len(REASON_TEXTS)
    assert all(reason_text(int(reason)) == text for reason, text in REASON_TEXTS.items())
    assert reason_text(9999) == "reason 9999, which this version does not know"
