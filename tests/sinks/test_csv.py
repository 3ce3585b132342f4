"""CSV: the text, the names of the files, and unrelated files."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.sinks.csv_layout import layout
from smrx.sinks.csv_reader import CsvReader
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.csv_stream import Rotation
from smrx.sinks.csv_text import Times, Words, csv_lines
from smrx.sinks.rows import time_texts
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from smrx.wire.codes import EventKind
from tests.sinks.ledger_market import DAY_1_NS, hand_market
from tests.sinks.places import Place, run
from tests.sinks.stream import checkpoint, stream

EVENTS = stream()


def settle(sink: CsvSink, steps: int = 100) -> None:
    run(sink, EVENTS, [(end, True) for end in range(steps, len(EVENTS) + 1, steps)])
    sink.close()


def test_columns_and_a_row_of_each_file(tmp_path: Path) -> None:
    events = hand_market()
    sink = CsvSink(tmp_path)
    sink.open("test")
    sink.write(events)
    sink.commit(checkpoint(events, len(events)))
    sink.close()
    trades = (tmp_path / "settled_trades.csv").read_bytes().split(b"\r\n")
    assert trades[:2] == [
        b"match_id,event_sequence,command_sequence,time_ns,time,instrument,price_ticks,quantity_lots,notional,"
        b"taker_side,"
        b"taker_order_id,taker_account,taker_fee,maker_order_id,maker_account,maker_fee,instrument_id",
        b"1,9,9,%d,2026-01-01T00:00:00.000000008Z,BTC-USD,30000,10,300000,BUY,101,1,300,201,2,-150,10" % (DAY_1_NS + 8),
    ]
    assert trades[-1] == b"", "the last line is ended"
    assert (tmp_path / "settled_movements.csv").read_bytes().split(b"\r\n")[1] == (
        b"6,6,%d,2026-01-01T00:00:00.000000005Z,DEPOSITED,1,USD,1000000,0,501,2" % (DAY_1_NS + 5)
    )
    assert (tmp_path / "settled_definitions.csv").read_bytes().split(b"\r\n")[1] == (
        b"1,1,%d,2026-01-01T00:00:00.000000000Z,ASSET_ADDED,1,BTC,8,0,,,,,,,,,,,,,,,," % DAY_1_NS
    )


def test_other_csv_readers_read_the_files(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path))
    with (tmp_path / "settled_trades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    trades = EVENTS[EVENTS["kind"] == EventKind.TRADE]
    assert [int(row["match_id"]) for row in rows] == trades["match_id"].tolist()
    assert {row["instrument"] for row in rows} == {"A1-A2", '"A,B"', "A??B", "", "??A", "TWENTY-FOUR/CHARACTERS.A"}
    assert {row["taker_side"] for row in rows} == {"BUY", "SELL"}
    assert {None} not in [set(row) for row in rows]


@given(
    st.lists(
        st.tuples(
            # The least is no time for NumPy.
            st.integers(1 - (1 << 63), (1 << 63) - 1),
            st.integers(0, (1 << 64) - 1),
            st.integers(0, 2),
            st.integers(0, 255),
        ),
        max_size=20,
    ),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=3, max_size=3),
)
def test_formatted_text_is_read_back_by_a_csv_reader(rows: list[tuple[int, int, int, int]], words: list[str]) -> None:
    signed, unsigned, places, small = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    times = np.array(signed, np.int64)
    lines = csv_lines(
        [
            Times(times),
            np.array(signed, np.int64),
            Words(np.array(places, np.int64), words),
            np.array(unsigned, np.uint64),
            np.array(small, np.uint8),
        ]
    )
    text = lines.text.tobytes()
    found = list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))
    assert found == [
        [time, str(a), words[c], str(b), str(d)] for time, (a, b, c, d) in zip(time_texts(times), rows, strict=True)
    ]
    assert lines.ends.tolist()[-1:] == [len(text)][: len(rows)]
    assert all(text[end - 2 : end] == b"\r\n" for end in lines.ends.tolist())


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (951_782_399_999_999_999, "2000-02-28T23:59:59.999999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
        (4_107_542_400_000_000_001, "2100-03-01T00:00:00.000000001Z"),
        ((1 << 63) - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_time_is_written_to_the_nanosecond(time_ns: int, text: str) -> None:
    assert csv_lines([Times(np.array([time_ns], np.int64))]).text.tobytes() == text.encode() + b"\r\n"


def test_time_beside_another_number_is_refused(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path))
    file = tmp_path / "settled_trades.csv"
    text = file.read_bytes()
    at = text.index(b"T", text.index(b"\r\n"))
    file.write_bytes(text[: at + 1] + (b"0" if text[at + 1 : at + 2] == b"1" else b"1") + text[at + 2 :])
    with pytest.raises(SinkMismatch, match=r"does not hold settled rows: time_ns \d+ is 20.*Z, found time '20.*Z'"):
        list(CsvReader(tmp_path).trades())


def test_index_without_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="expected indexes of 2 words"):
        csv_lines([Words(np.array([0, 2]), ["a", "b"])])


def test_files_are_rotated_by_size(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path, Rotation(bytes=3000)))
    files = sorted(tmp_path.glob("settled_trades-*.csv"))
    assert [file.name for file in files[:2]] == ["settled_trades-000001.csv", "settled_trades-000002.csv"]
    assert len(files) > 5
    for file in files[:-1]:
        data = file.read_bytes()
        assert data.startswith(b"match_id,")
        last = data[: data[:-2].rindex(b"\r\n") + 2]
        assert len(last) < 3000 <= len(data), "it ends with the row that fills it"
    assert [path.name for path in tmp_path.glob("settled_definitions*")] == ["settled_definitions.csv"]


def test_files_are_rotated_by_day(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path, Rotation(daily=True)))
    files = sorted(tmp_path.glob("settled_trades-*.csv"))
    days = set()
    for file in files:
        with file.open(newline="") as opened:
            times = {np.datetime64(int(row["time_ns"]), "ns").astype("datetime64[D]") for row in csv.DictReader(opened)}
        assert file.name == f"settled_trades-{next(iter(times))}.csv"
        assert len(times) == 1
        days |= times
    assert len(files) == len(days) > 3


def test_rotation_may_be_changed_later(tmp_path: Path) -> None:
    for end, rotation in ((200, Rotation()), (400, Rotation(bytes=2000, daily=True)), (600, Rotation(bytes=1500))):
        run(sink := CsvSink(tmp_path, rotation), EVENTS, [(end, True)])
        sink.close()
    rows = np.concatenate(list(CsvReader(tmp_path).trades()))
    assert rows["match_id"].tolist() == list(range(1, len(rows) + 1))
    assert len(rows) == (EVENTS["kind"] == EventKind.TRADE).sum()


def test_files_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "settled_trades.csv").write_text("mine")
    with pytest.raises(SinkMismatch, match=r"settled_trades.csv: exists without settled_trades.checkpoint.json"):
        CsvSink(tmp_path).open("test")
    assert (tmp_path / "settled_trades.csv").read_text() == "mine"


def test_unrelated_files_are_not_touched(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path, Rotation(bytes=3000)))
    for name in ("settled_trades-backup.csv", "settled_trades-000001.csv.gz", "notes.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "settled_trades-009999.csv").write_text("what a crash left")
    settle(CsvSink(tmp_path, Rotation(bytes=3000)))
    assert (tmp_path / "settled_trades-backup.csv").read_text() == "mine"
    assert not (tmp_path / "settled_trades-009999.csv").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "settled_trades.csv").unlink(), "settled bytes is missing"),
        (lambda path: (path / "settled_trades.csv").write_bytes(b"match_id,"), "expected at least"),
        (lambda path: (path / "settled_trades.csv").write_bytes(b"x" * 100_000), "expected the columns match_id"),
        (lambda path: (path / "settled_definitions.csv").write_bytes(b"x" * 10**5), "expected the columns event_sequ"),
        (lambda path: (path / "settled_trades.checkpoint.json").write_text("{}"), "is not the checkpoint of a sink"),
        (lambda path: _set_format(path, 3), "expected format 2, found 3; use a newer smrx"),
    ],
)
def test_missing_or_changed_files_are_named(tmp_path: Path, damage: object, message: str) -> None:
    settle(CsvSink(tmp_path))
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(SinkMismatch, match=message):
        CsvSink(tmp_path).open("test")


HEADER_CHANGES = [
    pytest.param(
        lambda data: data.replace(b"\r\n", b"\n"),
        r"expected line ends CRLF, found LF \(the columns match\), as editors .*; .*restore the file from a copy",
        id="LF",
    ),
    pytest.param(
        lambda data: b"\xef\xbb\xbf" + data,
        "expected no byte-order mark, found one, .*; .*restore the file from a copy",
        id="byte-order mark",
    ),
    pytest.param(
        lambda data: data.replace(b"time_ns", b"clock", 1),
        "found 'clock' as column 4 instead of 'time_ns'; settled rows must stay",
        id="name",
    ),
    pytest.param(
        lambda data: data.replace(b",", b";"),
        "found 'match_id;event_sequence;.*\\.\\.\\.' as column 1 instead of",
        id="semicolons",
    ),
    pytest.param(
        lambda data: data.replace(b"instrument_id\r\n", b"instrument_id,note\r\n", 1),
        r"\(17\), found 18 columns",
        id="more",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), HEADER_CHANGES)
def test_sink_and_reader_say_what_differs_in_a_changed_file(
    tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    settle(CsvSink(tmp_path))
    file = tmp_path / "settled_trades.csv"
    data = change(file.read_bytes())
    file.write_bytes(data)
    with pytest.raises(SinkMismatch, match=sentence):
        CsvSink(tmp_path).open("test")
    with pytest.raises(SinkMismatch, match=sentence):
        list(CsvReader(tmp_path).trades())
    assert file.read_bytes() == data, "a refused file is not changed"


def test_file_in_utf_16_is_named(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path))
    file = tmp_path / "settled_trades.csv"
    file.write_bytes(file.read_text(encoding="ascii").encode("utf-16"))
    with pytest.raises(SinkMismatch, match="found a byte-order mark of UTF-16"):
        CsvSink(tmp_path).open("test")
    with pytest.raises(SinkMismatch, match="is not UTF-8 text: byte 0xff"):
        list(CsvReader(tmp_path).trades())


def test_emptied_file_is_named(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path, Rotation(bytes=3000)))
    (tmp_path / "settled_trades-000001.csv").write_bytes(b"")
    with pytest.raises(SinkMismatch, match=r"000001\.csv: expected settled rows, found an empty file"):
        list(CsvReader(tmp_path).trades())


def test_directory_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    settle(CsvSink(tmp_path))
    (tmp_path / "settled_trades.csv").unlink()
    (tmp_path / "settled_trades.csv").mkdir()
    with pytest.raises(SinkError, match=r"settled_trades\.csv: cannot be read: Is a directory"):
        list(CsvReader(tmp_path).trades())


def _set_format(path: Path, number: int) -> None:
    file = path / "settled_trades.checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": number, "colour": "blue"}))


def test_reader_names_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot read the checkpoint of settled CSV files"):
        CsvReader(tmp_path)
    settle(CsvSink(tmp_path))
    file = tmp_path / "settled_trades.csv"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"BUY", b"BYE", 1))
    with pytest.raises(SinkMismatch, match="does not hold settled rows"):
        list(CsvReader(tmp_path).trades())
    file.write_bytes(whole[:-50])
    with pytest.raises(SinkMismatch, match="that the checkpoint names as settled are missing"):
        list(CsvReader(tmp_path).trades())


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"file/below: cannot be written: Not a directory"):
        CsvSink(tmp_path / "file" / "below").open("test")


def test_path_selects_file_or_directory(tmp_path: Path) -> None:
    assert layout("books") == (Path("books"), "settled_trades", "settled_movements", "settled_definitions")
    assert layout("books/t.CSV") == (Path("books"), "t", "t_movements", "t_definitions")
    (tmp_path / "odd.csv").mkdir()
    assert layout(tmp_path / "odd.csv").directory == tmp_path / "odd.csv"


def test_open_twice_keeps_one_file_open(tmp_path: Path) -> None:
    sink = Place("csv", tmp_path).sink()
    with pytest.raises(ValueError, match="is not open"):
        sink.write(EVENTS[:1])
    with pytest.raises(ValueError, match="is not open"):
        sink.commit(checkpoint(EVENTS, 1))
