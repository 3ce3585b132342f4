"""The LMDB store and its reader: what was committed is read back, once, after crashes, in pages, by every key."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.history.history_reader import HistoryReader
from smrx.history.history_store import HistoryStore
from smrx.history.order_status import OrderStatus
from smrx.history.order_views import OrderViews
from smrx.sinks.contract import Checkpoint, Origin
from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from smrx.wire.codes import EventKind
from tests.history.reference import lives
from tests.settlement.market import ACCOUNTS, market_events

EVENTS = market_events()
EXPECTED = lives(EVENTS)
COMMANDS = EVENTS["command_sequence"]
#: The number of events after each command.
ENDS = np.flatnonzero(np.diff(COMMANDS, append=COMMANDS[-1] + 1)) + 1


def checkpoint(events: int) -> Checkpoint:
    last = EVENTS[events - 1]
    trades = int(np.count_nonzero(EVENTS["kind"][:events] == EventKind.TRADE))
    return Checkpoint("test", int(last["sequence"]), int(last["command_sequence"]), trades, 7)


def store(path: Path) -> HistoryStore:
    """Return a store that writes its indexes and its open orders often."""
    return HistoryStore(path, index_updates=300, open_updates=200)


def fill(into: HistoryStore, ends: NDArray[np.int64], start: int = 0) -> None:
    """Write and commit the events up to each of these places."""
    for end in ends.tolist():
        into.write(EVENTS[start:end])
        into.commit(checkpoint(end))
        start = end


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of all events, in commits of forty commands."""
    path = tmp_path_factory.mktemp("history")
    writer = store(path)
    assert writer.open("test") is None
    fill(writer, np.append(ENDS[39:-1:40], ENDS[-1]))
    writer.close()
    return path


@pytest.fixture
def reader(full: Path) -> Iterator[HistoryReader]:
    with HistoryReader(full) as opened:
        yield opened


def test_every_order_is_read_back_with_its_whole_life(reader: HistoryReader) -> None:
    updates = EXPECTED.updates
    assert reader.counts == (
        np.count_nonzero(updates["is_first"]), len(updates), np.count_nonzero(updates["match_id"])
    )  # fmt: skip
    for order_id in np.unique(updates["order_id"][updates["order_id"] != 0]).tolist():
        assert reader.updates(order_id).tobytes() == updates[updates["order_id"] == order_id].tobytes()
    assert not len(reader.updates(999_999))


@pytest.mark.parametrize("account", ACCOUNTS)
def test_pages_of_an_account_hold_each_order_once(reader: HistoryReader, account: int) -> None:
    updates = EXPECTED.updates
    own = updates[updates["account"] == account]
    for rows, whole, first_only in (
        (reader.placed, own[own["is_first"] == 1], True),
        (reader.fills, own[own["match_id"] != 0], False),
    ):
        found = np.concatenate(list(rows(account)))
        assert found.tobytes() == whole[::-1].tobytes(), first_only
        # A page that continues before an event of any place.
        for at in (1, len(whole) // 3, len(whole) - 1):
            before = int(whole["event_sequence"][at])
            assert np.concatenate(list(rows(account, before))).tobytes() == whole[:at][::-1].tobytes()
        assert not list(rows(account, int(whole["event_sequence"][0])))
    assert not list(reader.placed(77))


def test_orders_are_found_by_client_order_id(reader: HistoryReader) -> None:
    views = OrderViews(reader)
    firsts = EXPECTED.updates[EXPECTED.updates["is_first"] == 1]
    named = firsts[(firsts["client_order_id"] != 0) & (firsts["order_id"] != 0)]
    assert len(named) > 100
    for row in named:
        text = reader.text_of(row)
        assert text.startswith("market order")
        assert int(row["order_id"]) in views.by_client_order_id(int(row["account"]), text)
        assert not views.by_client_order_id(77, text)
    assert not views.by_client_order_id(1, "no such order")


def test_open_orders_are_those_without_an_end(reader: HistoryReader) -> None:
    assert reader.open_orders()["key"].tolist() == sorted(EXPECTED.open_orders)
    assert len(reader.open_orders(ACCOUNTS[0])) < len(EXPECTED.open_orders)


def test_views_show_decimals_and_filter(reader: HistoryReader) -> None:
    views = OrderViews(reader)
    filled = views.orders(ACCOUNTS[0], statuses=frozenset({OrderStatus.FILLED}), symbol="BTC-USD", limit=10).orders
    assert len(filled) == 10
    for order in filled:
        found = views.timeline(order.order_id)
        assert found is not None
        shown, steps = found
        assert shown == order
        assert (order.status, order.symbol, steps[0].event) == ("Filled", "BTC-USD", "NEW")
        fills = [step.fill for step in steps if step.fill is not None]
        # A lot is 10 of 10^8 units, a tick 3 cents a lot: 300,000 dollars.
        assert sum(round(float(one.quantity) * 10**7) for one in fills) == round(float(order.filled) * 10**7)
        worth = sum(round(float(one.quantity) * 10**7) * int(one.price) // 300_000 * 3 for one in fills)
        assert round(float(order.notional) * 100) == worth
        assert order.average_price is not None
        assert abs(float(order.average_price) * float(order.filled) - float(order.notional)) < 1e-6


@pytest.mark.parametrize("cut", [1, 7, len(ENDS) // 2, len(ENDS) - 2])
def test_reopened_store_continues_where_it_was(tmp_path: Path, cut: int) -> None:
    writer = store(tmp_path)
    writer.open("test")
    fill(writer, ENDS[[cut]])
    # Written and not committed: lost.
    writer.write(EVENTS[ENDS[cut] : ENDS[cut + 1]])
    writer.close()
    assert writer.open("test") == checkpoint(ENDS[cut])
    # Events that it holds are skipped.
    fill(writer, ENDS[[-1]])
    writer.close()
    with HistoryReader(tmp_path) as found:
        assert found.counts[1] == len(EXPECTED.updates)
        assert found.open_orders()["key"].tolist() == sorted(EXPECTED.open_orders)


def write_on(path: Path, progress: int) -> None:
    """Write what the history lacks, a commit for ten commands; report each on a pipe."""
    writer = store(path)
    held = writer.open("test")
    start = 0 if held is None else held.event_sequence
    ends = np.append(ENDS[9:-1:10], ENDS[-1])
    for end in ends[ends > start].tolist():
        fill(writer, np.array([end]), start)
        start = end
        os.write(progress, end.to_bytes(8, "big"))


def forked_writer(path: Path) -> tuple[int, int]:
    """Start write_on() in a process; return its id and the pipe of its reports."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            write_on(path, writing)
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def test_killed_writer_loses_and_doubles_nothing(tmp_path: Path) -> None:
    for commits in (20, 70, 50, len(ENDS)):
        child, reports = forked_writer(tmp_path)
        reached = 0
        for _ in range(commits):
            report = os.read(reports, 8)
            if not report:
                break
            reached = int.from_bytes(report, "big")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reports)
        with HistoryReader(tmp_path) as found:
            assert found.checkpoint is not None
            held = found.checkpoint.event_sequence
            assert held >= reached > 0
            assert found.counts[1] == np.count_nonzero(EXPECTED.updates["event_sequence"] <= held)
    with HistoryReader(tmp_path) as found:
        assert found.counts[1] == len(EXPECTED.updates)
        ids = EXPECTED.updates["order_id"]
        for order_id in np.unique(ids[ids != 0])[::17].tolist():
            assert len(found.updates(order_id)) == np.count_nonzero(ids == order_id)


def test_small_map_grows(tmp_path: Path) -> None:
    writer = HistoryStore(tmp_path, map_bytes=1 << 16)
    writer.open("test")
    fill(writer, ENDS[[-1]])
    writer.close()
    with HistoryReader(tmp_path) as found:
        assert found.counts[1] == len(EXPECTED.updates)


def test_reader_follows_a_map_that_grows(tmp_path: Path) -> None:
    (said, says), (heard, hears) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        # LMDB allows one view of a file in a process, so the writer is another one.
        try:
            writer = HistoryStore(tmp_path, map_bytes=1 << 17)
            writer.open("test")
            fill(writer, ENDS[[20]])
            os.write(says, b"1")
            os.read(heard, 1)
            fill(writer, np.append(ENDS[30:-1:400], ENDS[-1]), int(ENDS[20]))
            writer.close()
        finally:
            os._exit(0)
    assert os.read(said, 1)
    with HistoryReader(tmp_path) as found:
        assert found.sequence == ENDS[20]
        os.write(hears, b"1")
        os.waitpid(child, 0)
        assert (tmp_path / "data.mdb").stat().st_size > 1 << 17
        found.refresh()
        assert found.sequence == ENDS[-1]
        assert found.counts[1] == len(EXPECTED.updates)
        assert found.open_orders()["key"].tolist() == sorted(EXPECTED.open_orders)
    for end in (said, says, heard, hears):
        os.close(end)


def test_what_does_not_fit_is_refused(full: Path, tmp_path: Path) -> None:
    writer = store(tmp_path)
    writer.open("test")
    with pytest.raises(SinkMismatch, match="expected event 1 or one before it, found 3"):
        writer.write(EVENTS[2:5])
    with pytest.raises(SinkMismatch, match="expected a checkpoint at event 0, found"):
        writer.commit(checkpoint(100))
    origin = Origin(9, 9, 0, 7, "", (1, 2), 3)
    with pytest.raises(SinkMismatch, match="order history begins with event 1"):
        writer.begin(origin.checkpoint("test"), Tables(*(np.empty(0, np.uint8),) * 3))
    with pytest.raises(SinkError, match="in use"):
        store(tmp_path).open("test")
    writer.close()
    with pytest.raises(SinkMismatch, match="expected data of cluster 'other', found cluster 'test'"):
        store(full).open("other")
    with pytest.raises(SinkError, match="is not the LMDB environment of an order history"):
        HistoryReader(tmp_path / "nothing")


def test_forbidden_event_is_reported_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = EVENTS.copy()
    at = int(np.flatnonzero(wrong["kind"] == EventKind.CANCELLED)[3])
    wrong["order_id"][at] = 999_999
    writer = store(tmp_path)
    writer.open("test")
    writer.write(wrong)
    writer.close()
    assert f"event {at + 1}: order 999999 is Unknown, and CANCELLED is not possible then" in caplog.text
