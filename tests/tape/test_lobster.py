"""LOBSTER files: exact values, and errors that have the file, the line and the reason."""

import gzip
from pathlib import Path

import pytest

from smrx.tape import lobster
from smrx.tape.tape_error import TapeError
from tests.tape import synthetic_recording

GOOD = "34200.017459617,5,0,1,2238200,-1\n34200.18960767,1,11885113,21,2238100,1\n"
ROWS = "2239500,100,2231800,100\n2239500,100,2238100,21\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="ascii")
    return path


def test_message_is_read_exactly(tmp_path: Path) -> None:
    found = lobster.read_messages(write(tmp_path / "m.csv", GOOD))
    assert found[1].item() == (34_200_189_607_670_000, 1, 11_885_113, 21, 2_238_100, 1)


@pytest.mark.parametrize(
    ("time", "picoseconds"),
    [
        ("34200", 34_200 * 10**12),
        ("34200.1", 34_200_100_000_000_000),
        ("57599.999999999999", 57_599_999_999_999_999),
        ("34200.000000000001", 34_200_000_000_000_001),
    ],
)
def test_time_is_read_with_all_digits(tmp_path: Path, time: str, picoseconds: int) -> None:
    found = lobster.read_messages(write(tmp_path / "m.csv", f"{time},1,1,1,100,1\n"))
    assert found["time_ps"][0] == picoseconds


def test_gzip_is_detected_by_its_first_bytes(tmp_path: Path) -> None:
    plain = lobster.read_messages(write(tmp_path / "m.gz", GOOD))
    packed = tmp_path / "m.csv"
    packed.write_bytes(gzip.compress(GOOD.encode()))
    assert lobster.read_messages(packed).tobytes() == plain.tobytes()


def test_carriage_returns_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert len(lobster.read_messages(path)) == 2


def test_recording_has_a_row_for_each_message(tmp_path: Path) -> None:
    messages = write(tmp_path / "AMZN_2012-06-21_34200000_57600000_message_1.csv", GOOD)
    found = lobster.read(messages, write(tmp_path / "b.csv", ROWS))
    assert (found.ticker, found.levels, len(found.messages)) == ("AMZN", 1, 2)
    assert found.books is not None
    assert found.books.tolist() == [[2239500, 100, 2231800, 100], [2239500, 100, 2238100, 21]]


def test_limit_applies_to_both_files(tmp_path: Path) -> None:
    made = synthetic_recording.write(tmp_path, messages=200)
    found = lobster.read(made.messages, made.orderbook, limit=50)
    assert found.books is not None
    assert (len(found.messages), len(found.books)) == (50, 50)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("34200.1,1,1,1,100", "expected 6 columns (time, type, order id, size, price, direction), found 5"),
        ("34200.1234567890123,1,1,1,100,1", "time: expected seconds after midnight with at most 12 decimal places"),
        ("3.42e4,1,1,1,100,1", "time: expected seconds after midnight"),
        ("34200.1,8,1,1,100,1", "type: expected an integer from 1 to 7, found '8'"),
        ("34200.1,1,x,1,100,1", "order id: expected an integer, found 'x'"),
        ("34200.1,1,1,1.5,100,1", "size: expected an integer of 0 or more, found '1.5'"),
        ("34200.1,1,1,1_0,100,1", "size: expected an integer of 0 or more, found '1_0'"),
        ("34200.1,1,1,1,,1", "price: expected an integer (dollars x 10,000), found ''"),
        ("34200.1,1,1,1,100,2", "direction: expected 1 or -1, found '2'"),
        ("34200.1,1,1,0,100,1", "size: must be positive for type 1, found 0"),
        ("34200.1,3,1,1,-100,1", "price: must be positive for type 3, found -100"),
        ("34200.1,4,0,1,100,1", "order id: must be positive for type 4, found 0"),
        ("34200.1,1,1,1,100,0", "direction: must be 1 or -1 for type 1, found 0"),
        ("34199.1,1,1,1,100,1", "time 34199.1 is before that of the previous line"),
        ("86400,1,1,1,100,1", "time: 86400 seconds is not within a day"),
    ],
)
def test_invalid_line_is_reported(tmp_path: Path, line: str, sentence: str) -> None:
    path = write(tmp_path / "m.csv", f"{GOOD}{line}\n")
    with pytest.raises(TapeError) as error:
        lobster.read_messages(path)
    assert str(error.value).startswith(f"{path}: line 3: {sentence}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("1,2,3\n", "line 1: expected 4 columns per level, found 3"),
        ("1,2,3,4\n1,2,3\n", "line 2: expected 4 columns as in line 1, found 3"),
        ("1,2,3,4\n1,2,3,x\n", "line 2: expected integers separated by commas, found '1,2,3,x'"),
        ("1,2,3,4\n", "1 rows for the 2 messages of m.csv"),
    ],
)
def test_invalid_row_is_reported(tmp_path: Path, rows: str, sentence: str) -> None:
    path = write(tmp_path / "b.csv", rows)
    with pytest.raises(TapeError) as error:
        lobster.read(write(tmp_path / "m.csv", GOOD), path)
    assert str(error.value) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x1f\x8b\x08garbage", "the gzip file is damaged or incomplete"),
        (gzip.compress(GOOD.encode())[:-9], "the gzip file is damaged or incomplete"),
        (b"\xff\xfe", "not a text file"),
        (b"", "the file is empty"),
    ],
)
def test_file_of_another_format_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    with pytest.raises(TapeError, match=sentence):
        lobster.read(path)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match=r"none\.csv: cannot be read: No such file"):
        lobster.read(tmp_path / "none.csv")
