"""Parquet: files by count and by day, their columns, and the tail."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from smrx.sinks.parquet_reader import ParquetReader
from smrx.sinks.parquet_sink import ParquetSink
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.sinks.places import run
from tests.sinks.stream import expected, stream

EVENTS = stream()
STEPS = [(end, True) for end in range(20, len(EVENTS) + 1, 20)]
TRADES = expected(EVENTS, len(EVENTS)).trades


def test_files_are_named_by_the_range_they_hold(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, rotate_trades=100)
    run(sink, EVENTS, STEPS)
    assert [path.name for path in sorted(tmp_path.glob("trades-*.parquet"))] == [
        "trades-000000000001-000000000100.parquet",
        "trades-000000000101-000000000200.parquet",
    ]
    sink.close()
    names = sorted(path.name for path in tmp_path.glob("trades-*"))
    assert names[2:] == [f"trades-000000000201-{len(TRADES):012d}.parquet"], "closed, the tail is a file"
    found = pq.read_table(tmp_path / names[1])
    assert found.column("match_id").to_pylist() == list(range(101, 201))
    assert found.column("notional").to_pylist() == [row[6] for row in TRADES[100:200]]
    assert set(found.column("taker_side").to_pylist()) == {"BUY", "SELL"}
    assert "A1-A2" in found.column("instrument_symbol").to_pylist()
    assert str(found.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert found.column("time").cast("int64").to_pylist() == found.column("time_ns").to_pylist()


def test_daily_file_holds_one_day(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, daily=True)
    run(sink, EVENTS, STEPS)
    sink.close()
    files = sorted(tmp_path.glob("trades-*.parquet"))
    days = [np.unique(pq.read_table(file).column("time_ns").to_numpy() // 86_400_000_000_000) for file in files]
    assert all(len(day) == 1 for day in days)
    assert len(np.unique(days)) == len(files) > 3


def test_files_do_not_depend_on_the_commits(tmp_path: Path) -> None:
    for name, steps in (("many", STEPS), ("one", STEPS[-1:])):
        sink = ParquetSink(tmp_path / name, rotate_trades=50, daily=True)
        run(sink, EVENTS, steps)
        sink.close()
    many, one = ({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.parquet")} for name in ("many", "one"))
    assert many == one


@pytest.mark.parametrize(
    ("pattern", "message"), [("trades-*100.parquet", "cannot read settled rows"), ("trades-tail-*", "settled bytes")]
)
def test_missing_file_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    sink = ParquetSink(tmp_path, rotate_trades=100)
    run(sink, EVENTS, STEPS)
    next(tmp_path.glob(pattern)).unlink()
    with pytest.raises(SinkMismatch, match=message):
        list(ParquetReader(tmp_path).trades())


def test_unrelated_files_are_not_touched(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot read the manifest of a settlement"):
        ParquetReader(tmp_path)
    (tmp_path / "trades-000000000001-000000000009.parquet").write_text("mine")
    with pytest.raises(SinkMismatch, match=r"exists without manifest.json; move it away"):
        ParquetSink(tmp_path).open("test")
