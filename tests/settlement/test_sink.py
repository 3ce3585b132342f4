"""The CSV file holds every trade once, whatever happened to the process that wrote it."""

import csv
import errno
import itertools
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.settlement.errors import SinkContradiction, SinkError
from smrx.settlement.ledger import SettledTrade
from smrx.settlement.sink import COLUMNS, CsvSink, csv_path


def trade(match_id: int, quantity: int = 5) -> SettledTrade:
    return SettledTrade(
        match_id, 10 * match_id, 7 * match_id, 1_700_000_000_000_000_000, "BTC-USD", 100, quantity, 100 * quantity,
        "BUY", 7 * match_id, 1, 0, 3, 2, 0,
    )  # fmt: skip


TRADES = [trade(i) for i in range(1, 21)]


def settle(path: Path, trades: list[SettledTrade], batch: int = 3) -> CsvSink:
    with CsvSink(path) as sink:
        for start in range(0, len(trades), batch):
            sink.write(trades[start : start + batch])
        if trades:
            sink.check_rest(trades[-1].event_sequence)
    return sink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "settled_trades.csv"


def test_rows_are_rfc_4180_under_a_header(path: Path) -> None:
    settle(path, TRADES)
    data = path.read_bytes()
    assert data.startswith(
        b"match_id,event_sequence,command_sequence,time_ns,instrument,price_ticks,quantity_lots,notional,taker_side,"
        b"taker_order_id,taker_account,taker_fee,maker_order_id,maker_account,maker_fee\r\n"
        b"1,10,7,1700000000000000000,BTC-USD,100,5,500,BUY,7,1,0,3,2,0\r\n"
    )
    assert data.count(b"\r\n") == data.count(b"\n") == 21
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS
    assert rows[1:] == [[str(value) for value in trade] for trade in TRADES]


@pytest.mark.parametrize("done", [0, 1, 7, 20])
def test_a_second_run_confirms_what_is_there_and_adds_the_rest(path: Path, done: int) -> None:
    settle(path, TRADES[:done])
    sink = settle(path, TRADES, batch=4)
    assert (sink.confirmed, sink.written) == (done, 20 - done)
    assert settle(path.parent / "once.csv", TRADES).path.read_bytes() == path.read_bytes()


@given(data=st.data())
def test_a_file_torn_anywhere_is_completed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("torn") / "trades.csv"
    whole = settle(path, TRADES).path.read_bytes()
    kept = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:kept])
    sink = settle(path, TRADES, batch=data.draw(st.integers(1, 25)))
    assert path.read_bytes() == whole
    assert sink.confirmed == max(0, whole[:kept].count(b"\n") - 1)
    assert sink.confirmed + sink.written == 20


def test_another_trade_in_the_file_is_refused_and_the_file_left_alone(path: Path) -> None:
    settle(path, [*TRADES[:4], trade(5, quantity=6), *TRADES[5:8]])
    before = path.read_bytes()
    with pytest.raises(SinkContradiction, match=r"trade 5: the feed says '5,50,.*,100,5,.*, the file '5,50,.*,100,6,"):
        settle(path, TRADES)
    assert path.read_bytes() == before


def test_a_row_too_many_in_the_file_is_refused(path: Path) -> None:
    settle(path, [*TRADES[:4], trade(4), *TRADES[4:6]])
    with pytest.raises(SinkContradiction, match="trade 5: the feed says"):
        settle(path, TRADES)
    path.unlink()
    settle(path, TRADES[:6])
    with CsvSink(path) as sink:
        sink.write(TRADES[:5])
        assert sink.unconfirmed == 1
        sink.check_rest(59)
        with pytest.raises(SinkContradiction, match="holds a trade that the feed does not have: '6,60,"):
            sink.check_rest(60)


@pytest.mark.parametrize("content", [b"time,price\n1,2\n", b"\0" * 500, b"hello", b"match_id,event_sequence\r\n" * 40])
def test_another_kind_of_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SinkContradiction):
        CsvSink(path)
    assert path.read_bytes() == content


def test_garbage_in_the_place_of_a_row_is_refused(path: Path) -> None:
    settle(path, TRADES[:2])
    with path.open("ab") as file:
        file.write(b"garbage\r\n")
    with CsvSink(path) as sink:
        sink.write(TRADES[:2])
        with pytest.raises(SinkContradiction, match="expected a settled trade, found 'garbage'"):
            sink.check_rest(10**6)
        with pytest.raises(SinkContradiction, match="the file 'garbage'"):
            sink.write(TRADES[2:3])


def test_two_writers_of_one_file_are_one_too_many(path: Path) -> None:
    with CsvSink(path), pytest.raises(SinkError, match="another process settles into this file"):
        CsvSink(path)
    CsvSink(path).close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="expected a file that can be written"):
        CsvSink(tmp_path / "file" / "settled_trades.csv")


def test_a_full_disk_is_named_and_the_file_completed_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [700, 30]

    def write(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data[: room.pop(0)])

    real_write = os.write
    with CsvSink(path) as sink:
        monkeypatch.setattr("smrx.settlement.sink.os.write", write)
        with pytest.raises(SinkError, match="cannot write: No space left on device"):
            sink.write(TRADES)
        monkeypatch.undo()
    again = settle(path, TRADES)
    assert again.torn_bytes > 0
    assert again.confirmed > 0
    assert path.read_bytes() == settle(path.parent / "once.csv", TRADES).path.read_bytes()


def _write_forever(path: Path) -> None:
    with CsvSink(path) as sink:
        for i in itertools.count(1):
            sink.write([trade(i)])


def test_a_killed_writer_loses_and_doubles_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        before = path.stat().st_size if path.exists() else 0
        writer = context.Process(target=_write_forever, args=(path,))
        writer.start()
        while not path.exists() or path.stat().st_size < before + 20_000:
            assert writer.is_alive()
            writer.join(0.001)
        writer.kill()
        writer.join()
    rows = path.read_bytes().count(b"\n") - 1
    sink = settle(path, [trade(i) for i in range(1, rows + 51)], batch=1000)
    assert (sink.confirmed, sink.written) == (rows, 50)


def test_what_out_names(tmp_path: Path) -> None:
    assert csv_path("trades.csv") == Path("trades.csv")
    assert csv_path("books/trades.CSV") == Path("books/trades.CSV")
    assert csv_path("books") == Path("books/settled_trades.csv")
    (tmp_path / "odd.csv").mkdir()
    assert csv_path(tmp_path / "odd.csv") == tmp_path / "odd.csv" / "settled_trades.csv"
