"""What is particular to LMDB: lookups, whether the indexes know a trade already or not, and a map that grows."""

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from smrx.settlement.readers import open_path
from smrx.sinks.lmdb_reader import LmdbReader
from smrx.sinks.lmdb_sink import LmdbSink
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.records import TRADE_EVENT
from tests.sinks.places import run
from tests.sinks.stream import checkpoint, expected, stream

EVENTS = stream()
TRADES = EVENTS[EVENTS["kind"] == EventKind.TRADE].view(TRADE_EVENT)


@pytest.mark.parametrize("index_trades", [1, 40, 10_000])
def test_lookups_by_match_order_and_account(tmp_path: Path, index_trades: int) -> None:
    sink = LmdbSink(tmp_path, index_trades=index_trades)
    run(sink, EVENTS, [(end, True) for end in range(30, 601, 30)])
    sink.close()
    by_match = {row[0]: row for row in expected(EVENTS, len(EVENTS)).trades}
    with LmdbReader(tmp_path) as reader:
        for match_id, row in by_match.items():
            found = reader.trade(match_id)
            assert found is not None
            assert found.item() == row
        for missing in (0, -1, len(by_match) + 1, 1 << 63, 1 << 64):
            assert reader.trade(missing) is None
        orders = np.unique(np.concatenate([TRADES["order_id"], TRADES["counter_order_id"]])).tolist()
        assert len(orders) > 50
        for order in [*orders, 10**9]:
            own = (TRADES["order_id"] == order) | (TRADES["counter_order_id"] == order)
            assert reader.trades_of_order(order)["match_id"].tolist() == TRADES["match_id"][own].tolist()
        for account in (1, 2, 3, 4, 0, (1 << 32) - 1):
            own = (TRADES["account"] == account) | (TRADES["counter_account"] == account)
            rows = np.concatenate(list(reader.trades_of_account(account)))
            assert rows["match_id"].tolist() == TRADES["match_id"][own].tolist()


def test_full_map_grows(tmp_path: Path) -> None:
    sink = LmdbSink(tmp_path, map_bytes=1 << 16)
    run(sink, EVENTS, [(len(EVENTS), True)])
    sink.close()
    assert (tmp_path / "data.mdb").stat().st_size > 1 << 16
    assert run(sink, EVENTS, []) == len(EVENTS)
    sink.close()


def test_reader_sees_one_state_during_writes(tmp_path: Path) -> None:
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    process = os.fork()
    if process == 0:
        # LMDB opens an environment once in a process: the writer is another one.
        code = 1
        try:
            sink = LmdbSink(tmp_path)
            run(sink, EVENTS, [(100, True)])
            os.write(to_parent, b"1")
            os.read(from_parent, 1)
            sink.write(EVENTS[100:300])
            sink.commit(checkpoint(EVENTS, 300))
            sink.close()
            code = 0
        finally:
            os._exit(code)
    assert os.read(from_child, 1) == b"1"
    with LmdbReader(tmp_path) as reader:
        os.write(to_child, b"2")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        assert reader.checkpoint == checkpoint(EVENTS, 100)
        assert [row for rows in reader.trades() for row in rows.tolist()] == expected(EVENTS, 100).trades
    with LmdbReader(tmp_path) as reader:
        assert [row for rows in reader.trades() for row in rows.tolist()] == expected(EVENTS, 300).trades
    for file in (from_child, to_parent, from_parent, to_child):
        os.close(file)


def _remove(path: Path) -> None:
    (path / "data.mdb").unlink()


def _empty(path: Path) -> None:
    (path / "data.mdb").write_bytes(b"")


def _replace(path: Path) -> None:
    """Put a new environment in the place of the settled one."""
    (path / "data.mdb").unlink()
    with lmdb.open(str(path), max_dbs=6) as environment:
        environment.open_db(b"meta")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_remove, "is missing, and"), (_empty, "is empty, and"), (_replace, "is empty, and")],
)
def test_lost_environment_is_not_taken_for_a_new_one(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    run(sink := LmdbSink(tmp_path), EVENTS, [(300, True)])
    sink.close()
    damage(tmp_path)
    for _ in range(2):
        with pytest.raises(
            SinkMismatch, match=rf"data\.mdb: {message} settlement\.json says that settled rows are kept"
        ):
            sink.open("test")
    with pytest.raises(SinkError, match="is not the LMDB environment of a settlement"):
        open_path(tmp_path)
    # Without the marker, as when the whole directory was moved away, it is a new one.
    (tmp_path / "settlement.json").unlink()
    assert sink.open("test") is None
    sink.close()


def test_environment_whose_marker_was_lost_gets_it_again(tmp_path: Path) -> None:
    """A crash may come between the first commit of LMDB and the marker."""
    run(sink := LmdbSink(tmp_path), EVENTS, [(300, True)])
    sink.close()
    (tmp_path / "settlement.json").unlink()
    assert sink.open("test") == checkpoint(EVENTS, 300)
    sink.close()
    assert (tmp_path / "settlement.json").exists()


def test_directory_without_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="is not the LMDB environment of a settlement"):
        LmdbReader(tmp_path / "nowhere")
    (tmp_path / "data.mdb").write_bytes(b"not LMDB" * 2000)
    with pytest.raises(SinkMismatch, match="is not an LMDB environment of settled trades"):
        LmdbSink(tmp_path).open("test")
    with pytest.raises((SinkError, SinkMismatch)):
        LmdbReader(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_truncated_file_is_found(tmp_path: Path, kept: float) -> None:
    """LMDB opens such a file, and the process ends with a signal when it reads a page beyond the end."""
    sink = LmdbSink(tmp_path)
    run(sink, EVENTS, [(end, True) for end in range(30, 601, 30)])
    sink.close()
    data = tmp_path / "data.mdb"
    page = 4096
    os.truncate(data, max(2, int(data.stat().st_size * kept) // page) * page)
    with pytest.raises(SinkMismatch, match=r"data.mdb: is truncated: [0-9,]+ bytes are missing, and settlement.json"):
        LmdbSink(tmp_path).open("test")
    with pytest.raises(SinkError, match="is truncated"):
        LmdbReader(tmp_path)


def test_file_of_an_earlier_version_may_end_before_its_last_page(tmp_path: Path) -> None:
    sink = LmdbSink(tmp_path)
    run(sink, EVENTS, [(len(EVENTS), True)])
    sink.close()
    (tmp_path / "settlement.json").write_text('{"format": 2}', encoding="utf-8")
    assert run(sink, EVENTS, []) == len(EVENTS)
    sink.close()
    assert '"is_whole":true' in (tmp_path / "settlement.json").read_text(encoding="utf-8")
