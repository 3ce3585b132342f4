"""LOBSTER files: exact values, and errors that have the file, the line and the reason."""

import builtins
import gzip
import importlib
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    "change",
    [
        pytest.param(lambda text: text.replace("\n", ",null\n"), id="seventh column null"),
        pytest.param(lambda text: text.replace("\n", ",\n"), id="seventh column empty"),
        pytest.param(lambda text: text.replace("\n", ",NITE\n", 1), id="seventh column of one line"),
        pytest.param(lambda text: text + "\n", id="blank last line"),
        pytest.param(lambda text: text.replace("\n", "\n \n\n"), id="blank lines"),
        pytest.param(lambda text: text.rstrip("\n"), id="last line without end"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(lambda text: text.replace("\n", "\r"), id="CR"),
        pytest.param(lambda text: "time,type,order_id,size,price,direction\n" + text, id="header"),
        pytest.param(lambda text: 'Time,"Event Type",Order ID,Size,Price,Direction,MPID\n' + text, id="quoted header"),
        pytest.param(lambda text: "\n\na,b,c,d,e,f\r\n" + text, id="header with unknown names after blank lines"),
        pytest.param(lambda text: "\ufeff" + text, id="byte-order mark"),
        pytest.param(lambda text: "\ufefftime,type,id,size,price,side\r\n" + text + "\r\n", id="all of it"),
    ],
)
def test_messages_are_read_as_users_have_them(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(change(GOOD).encode())
    assert lobster.read_messages(path).tolist() == [
        (34_200_017_459_617_000, 5, 0, 1, 2_238_200, -1),
        (34_200_189_607_670_000, 1, 11_885_113, 21, 2_238_100, 1),
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text + "\n", id="blank last line"),
        pytest.param(lambda text: text.replace("\n", "\r\n\r\n"), id="CRLF and blank lines"),
        pytest.param(lambda text: "ask_price_1,ask_size_1,bid_price_1,bid_size_1\n" + text, id="header"),
        pytest.param(lambda text: "\ufeff" + text, id="byte-order mark"),
    ],
)
def test_rows_are_read_as_users_have_them(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "b.csv"
    path.write_bytes(change(ROWS).encode())
    assert lobster.read_books(path).tolist() == [[2239500, 100, 2231800, 100], [2239500, 100, 2238100, 21]]


def _zstd(data: bytes) -> bytes:
    try:
        module: Any = importlib.import_module("compression.zstd")
    except ImportError:
        module = pytest.importorskip("zstandard")
    found: bytes = module.compress(data)
    return found


PACKERS = [
    pytest.param(gzip.compress, "gzip", id="gzip"),
    pytest.param(lzma.compress, "xz", id="xz"),
    pytest.param(_zstd, "zstd", id="zstd"),
]


@pytest.mark.parametrize(("pack", "name"), PACKERS)
def test_compression_is_detected_by_the_first_bytes(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    path = tmp_path / "AMZN_2012-06-21_34200000_57600000_message_1.csv"
    first, second = GOOD.splitlines(keepends=True)
    # Two members, as `cat a.gz b.gz` makes them, and a byte-order mark in the first.
    path.write_bytes(pack(b"\xef\xbb\xbf" + first.encode()) + pack(second.encode()))
    found = lobster.read(path)
    assert (found.ticker, len(found.messages)) == ("AMZN", 2)


@pytest.mark.parametrize(("pack", "name"), PACKERS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data + b"rest", lambda data: data[:6] + b"x" * 90]
)
def test_damaged_compression_is_reported_with_the_lines_before(
    tmp_path: Path, pack: Callable[[bytes], bytes], name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(damage(pack(GOOD.encode() * 500)))
    with pytest.raises(TapeError, match=rf"m\.csv: the {name} file is damaged or incomplete: .*; \d+ lines could"):
        lobster.read_messages(path)


def test_lines_before_damage_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(gzip.compress(GOOD.encode()) + b"rest")
    with pytest.raises(TapeError, match="; 2 lines could be read before that"):
        lobster.read_messages(path)


def test_zstd_without_a_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(name: str) -> Any:
        raise builtins.ImportError(name)

    monkeypatch.setattr(importlib, "import_module", no_module)
    path = tmp_path / "m.csv"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(TapeError) as error:
        lobster.read_messages(path)
    assert str(error.value) == f'{path}: a zstd file; install the extra that reads it: pip install "smrx[zstd]"'


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.xz", ".csv.zst", ""])
def test_name_of_a_recording_has_no_suffix(tmp_path: Path, suffix: str) -> None:
    assert lobster.read(write(tmp_path / f"AB.C_1{suffix}", GOOD)).name == "AB.C_1"


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "a,b,c,d,e,f\n\n" + GOOD.replace("\n", "\n\n"))
    found = lobster.read(path).lines
    assert found is not None
    assert found.tolist() == [3, 5]
    path.write_text(path.read_text(encoding="ascii") + "x", encoding="ascii")
    with pytest.raises(TapeError, match="line 7: expected 6 columns"):
        lobster.read(path)


def test_limit_counts_messages_and_not_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "a,b,c,d,e,f\n\n" + GOOD + "x\n")
    assert len(lobster.read_messages(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (
            "time,type,order_id,price,size,direction",
            "line 1, column 4: expected size, but the header says 'price'; put",
        ),
        ("id,time,type,size,price,direction", "line 1, column 1: expected time, but the header says 'id';"),
    ],
)
def test_header_with_another_order_is_refused(tmp_path: Path, header: str, sentence: str) -> None:
    path = write(tmp_path / "m.csv", f"{header}\n{GOOD}")
    with pytest.raises(TapeError) as error:
        lobster.read_messages(path)
    assert str(error.value).startswith(f"{path}: {sentence}")


def test_orderbook_header_with_another_order_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b.csv", f"bid_price_1,bid_size_1,ask_price_1,ask_size_1\n{ROWS}")
    with pytest.raises(TapeError, match="line 1, column 1: expected ask price, but the header says 'bid_price_1'; put"):
        lobster.read_books(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("34200.1,1,1,1,100", ": expected 6 columns (time, type, order id, size, price, direction) or a participant "),
        ("34200.1,1,1,1,100,1,null,", ": expected 6 columns (time, type, order id, size, price, direction) or"),
        ("34200.1,1,1,1,100,1,7", ", column 7 (participant): expected null, a participant of at most 8 letters, or"),
        ("34200.1234567890123,1,1,1,100,1", ", column 1 (time): expected seconds after midnight with at most 12 dec"),
        ("3.42e4,1,1,1,100,1", ", column 1 (time): expected seconds after midnight"),
        ("34200.1,8,1,1,100,1", ", column 2 (type): expected an integer from 1 to 7, found '8'"),
        ("34200.1,1,x,1,100,1", ", column 3 (order id): expected an integer, found 'x'"),
        ("34200.1,1,1,1.5,100,1", ", column 4 (size): expected an integer of 0 or more, found '1.5'"),
        ("34200.1,1,1,1_0,100,1", ", column 4 (size): expected an integer of 0 or more, found '1_0'"),
        ("34200.1,1,1,1,,1", ", column 5 (price): expected an integer (dollars x 10,000), found ''"),
        ("34200.1,1,1,1,100,2", ", column 6 (direction): expected 1 or -1, found '2'"),
        ("34200.1,1,1,0,100,1", ", column 4 (size): must be positive for type 1, found 0"),
        ("34200.1,3,1,1,-100,1", ", column 5 (price): must be positive for type 3, found -100"),
        ("34200.1,4,0,1,100,1", ", column 3 (order id): must be positive for type 4, found 0"),
        ("34200.1,1,1,1,100,0", ", column 6 (direction): must be 1 or -1 for type 1, found 0"),
        ("34199.1,1,1,1,100,1", ", column 1 (time): 34199.1 is before the time of the previous message"),
        ("86400,1,1,1,100,1", ", column 1 (time): 86400 seconds is not within a day"),
    ],
)
def test_invalid_line_is_reported(tmp_path: Path, line: str, sentence: str) -> None:
    path = write(tmp_path / "m.csv", f"{GOOD}{line}\n")
    with pytest.raises(TapeError) as error:
        lobster.read_messages(path)
    assert str(error.value).startswith(f"{path}: line 3{sentence}")
    assert str(error.value).endswith("; 2 messages read before it")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("1,2,3\n", "line 1: expected 4 columns per level, found 3; 0 rows read before it"),
        ("\n1,2,3,4\n1,2,3\n", "line 3: expected 4 columns as in line 2, found 3; 1 row read before it"),
        (
            "1,2,3,4\n1,2,x,4\n",
            "line 2, column 3: expected integers separated by commas, found 'x'; 1 row read before it",
        ),
        ("1,2,3,4\n", "1 row for the 2 messages of m.csv"),
        ("\n", "0 rows for the 2 messages of m.csv"),
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
        (GOOD.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"PK\x03\x04rest", "a zip file; unpack it first"),
        (b"7z\xbc\xaf\x27\x1crest", "a 7z file; unpack it first"),
        (GOOD.encode() + b"34201,\xe9\n", "line 3, column 2: not a text file in ASCII: byte 0xe9"),
        (b"\x00\x01\x02", "line 1: expected 6 columns"),
        (b"", "the file is empty"),
        (b"\n\r\n", "the file is empty"),
        (b"a,b,c,d,e,f\n", "the file is empty"),
        pytest.param(gzip.compress(b""), "the file is empty", id="empty gzip"),
    ],
)
def test_file_of_another_format_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    with pytest.raises(TapeError, match=sentence):
        lobster.read(path)


def test_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="cannot be read: Is a directory"):
        lobster.read(tmp_path)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match=r"none\.csv: cannot be read: No such file"):
        lobster.read(tmp_path / "none.csv")
