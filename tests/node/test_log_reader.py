"""Replay of a stopped node's log: ranges, early stops, sequences, and requests outside of what the disk holds."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from smrx.config import Config
from smrx.consensus import MetaError, MetaStore
from smrx.consensus.disk_journal import FILE, DiskJournal, JournalError
from smrx.consensus.snapshot_files import FOLDER, Position, SnapshotError, SnapshotFiles
from smrx.consensus.storage import LmdbStorage, StorageError
from smrx.node.log_reader import (
    AfterLogEnd,
    BeforeLogStart,
    LogReader,
    LogReadError,
    ReplayedCommand,
    ReplayedTrade,
    open_log,
    open_node_log,
    replay_commands,
    replay_events,
    replay_trades,
    verify_log,
)
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.tape.generate import generate
from smrx.wire import batches
from smrx.wire.codes import CommandKind, EventKind
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND, DETAILS, ORDER_DETAILS


class Past(NamedTuple):
    """The commands and events of a node, to compare with its log."""

    config: Config
    commands: CommandList
    events: np.ndarray
    state: ReplicatedState

    @property
    def trades(self) -> np.ndarray:
        return self.events[self.events["kind"] == EventKind.TRADE]


def write_past(folder: Path, *, compacted: bool, lost: int = 0, unknown: int = 0) -> Past:
    """Write a node's directory after 1,500 commands, with a snapshot half way; `compacted`: the log starts there.

    The journal does not have the last `lost` entries of commands; who watched does. Of the last `unknown` ones the node
    does not know that they are committed.
    """
    config = Config(cluster="alpha", data_dir=str(folder), durability="disk")
    directory = config.node_dir(1)
    MetaStore(directory, cluster="alpha", node_id=1).close()
    journal = DiskJournal(LmdbStorage(directory / FILE), cluster="alpha", node_id=1, joined=False)
    files = SnapshotFiles(directory / FOLDER, cluster="alpha", node_id=1)
    tape = generate(1500, seed=3)
    opening = np.zeros(1, COMMAND)
    opening["kind"] = CommandKind.OPEN_SESSION
    rows, details = join([CommandList(opening), tape.setup, _with_long_ids(tape.flow)])
    rows["session_id"] = 9
    rows["request_id"] = np.arange(len(rows))
    state, events = ReplicatedState(1), []
    starts = range(0, len(rows), 40)
    for number, start in enumerate(starts):
        # Repeated requests in the eighth entry get no new sequence.
        part = CommandList(rows, details).part(start - 5 if number == 7 else start, start + 40)
        entry = batches.encode(part.records.tobytes(), 1000 + number, 0, 0, part.details.tobytes())
        index = journal.last_index + 1
        if number < len(starts) - lost:
            journal.add(entry, index, 4)
        state.apply(index, 4, entry)
        events.append(state.take_applied()[0].events)
        if number == 20:
            sequence, state_hash = state.position()
            files.write(Position(index, 4, sequence, state_hash), {"state": [state.snapshot()]})
            if compacted:
                journal.compact(index)
    journal.add(b"\x01", journal.last_index + 1, 5)
    journal.setRaftCommitIndex(journal.last_index - (unknown + 1 if unknown else 0))
    journal.add(batches.encode(b"", 1, 0, 0), journal.last_index + 1, 5)
    journal.sync()
    journal.close()
    return Past(config, CommandList(rows, details), np.concatenate(events), state)


def _with_long_ids(flow: CommandList) -> CommandList:
    """Give some orders of a tape a longer client order id."""
    records = flow.records.copy()
    long_ids: dict[bytes, int] = {}
    for record in records:
        text = int(record["client_order_id"]).to_bytes(8, "little").rstrip(b"\0")
        if text.endswith(b"7"):
            record["client_order_id"] = 0
            record["details"] = long_ids.setdefault(b"order number " + text, len(long_ids) + 1)
    details = np.zeros(len(long_ids), ORDER_DETAILS)
    details["client_order_id"] = list(long_ids)
    return CommandList(records, details.view(DETAILS))


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return write_past(tmp_path_factory.mktemp("past"), compacted=False)


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return write_past(tmp_path_factory.mktemp("compacted"), compacted=True)


@pytest.fixture
def history(past: Past) -> Iterator[LogReader]:
    with open_node_log(past.config, 1) as history:
        yield history


def test_every_command_is_replayed_once_with_its_sequence(past: Past, history: LogReader) -> None:
    found: list[ReplayedCommand] = []
    count = replay_commands(history, 1, None, found.append)
    assert count == len(found) == past.state.engine.sequence
    assert [one.sequence for one in found] == list(range(1, count + 1))
    for one, piece in zip(found, past.commands.pieces(), strict=True):
        # The number of the details is that in the entry; all other bytes are those that were sent.
        raw, details = one.command.tobytes(), b"" if one.details is None else one.details.tobytes()
        assert raw[:6] + raw[8:] + details == piece[:6] + piece[8:]
    assert 10 < sum(one.details is not None for one in found) < len(found) / 5
    assert all(int(one.outcome["sequence"]) == one.sequence for one in found)
    assert [one.log_index for one in found] == sorted(one.log_index for one in found)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (40, 41), (500, 503), (1200, 1300)])
def test_range_of_commands(history: LogReader, first: int, last: int) -> None:
    found: list[int] = []
    assert replay_commands(history, first, last, lambda one: found.append(one.sequence)) == last - first + 1
    assert found == list(range(first, last + 1))


def test_range_after_the_snapshot_starts_from_the_snapshot(past: Past, history: LogReader) -> None:
    applied: list[int] = []
    history.replay(lambda entry, _: applied.append(entry.log_index), lambda state: state.engine.sequence < 1300)
    assert applied[0] == history.snapshots[0].log_index + 1


def test_replay_of_commands_stops_when_the_callback_returns_false(history: LogReader) -> None:
    found: list[int] = []

    def until_77(one: ReplayedCommand) -> bool:
        found.append(one.sequence)
        return one.sequence < 77

    assert replay_commands(history, 50, None, until_77) == 28
    assert found == list(range(50, 78))


def test_every_trade_is_replayed_once_as_published(past: Past, history: LogReader) -> None:
    found: list[ReplayedTrade] = []
    assert replay_trades(history, 1, None, found.append) == len(past.trades) > 20
    assert [trade.event.tobytes() for trade in found] == [row.tobytes() for row in past.trades]
    assert [trade.match_id for trade in found] == past.trades["match_id"].tolist()


def test_range_of_trades_and_early_stop(history: LogReader) -> None:
    found: list[int] = []
    assert replay_trades(history, 5, 9, lambda trade: found.append(trade.match_id)) == 5
    assert found == [5, 6, 7, 8, 9]
    assert replay_trades(history, 5, None, lambda trade: False) == 1


def test_events_are_replayed_once_as_published(past: Past, history: LogReader) -> None:
    for first in (1, 700, len(past.events)):
        found: list[Applied] = []
        assert replay_events(history, first, found.append) == len(past.events) - first + 1
        assert b"".join(one.events.tobytes() for one in found) == past.events[first - 1 :].tobytes()
        assert found[-1].state_hash == past.state.position()[1]
    assert replay_events(history, len(past.events) + 1, found.append) == 0
    assert replay_events(history, 1, lambda applied: False) < 200


@pytest.mark.parametrize(("first", "last"), [(0, 5), (5, 4)])
def test_invalid_range_is_refused(history: LogReader, first: int, last: int) -> None:
    with pytest.raises(LogReadError, match="expected a range"):
        replay_commands(history, first, last, lambda one: None)


def test_range_before_the_oldest_state_is_refused(compacted: Past) -> None:
    with open_node_log(compacted.config, 1) as history:
        oldest = history.snapshots[0].metadata.sequence
        with pytest.raises(LogReadError, match=f"the oldest state on this disk is that of command {oldest} and trade"):
            replay_commands(history, oldest, None, lambda one: None)
        found: list[int] = []
        replay_commands(history, oldest + 1, None, lambda one: found.append(one.sequence))
        assert found == list(range(oldest + 1, compacted.state.engine.sequence + 1))


@pytest.mark.parametrize("sequence", [1, 40, 41, 279, 283, 320, 321, 840, 841, 1000])
def test_state_after_any_command_even_within_an_entry(past: Past, history: LogReader, sequence: int) -> None:
    state = history.state_after(sequence)
    assert state.position() == (sequence, past.state.hash_at(sequence))
    assert state.engine.event_sequence == np.searchsorted(past.events["command_sequence"], sequence, side="right")


def test_state_after_the_end_of_the_log_is_refused(past: Past, history: LogReader) -> None:
    last = past.state.engine.sequence
    with pytest.raises(
        AfterLogEnd, match=f"ends with command {last} and trade {len(past.trades)}; not known to be committed: 1 more"
    ):
        history.state_after(last + 1)


def test_uncommitted_entries_count_if_they_lead_to_the_attested_state(tmp_path: Path) -> None:
    past = write_past(tmp_path, compacted=False, unknown=3)
    last, state_hash = past.state.position()
    with open_node_log(past.config, 1) as history:
        known = replay_commands(history, 1, None, lambda one: None)
        assert known < last
        for attested in (0, state_hash ^ 1):
            with pytest.raises(AfterLogEnd, match=f"ends with command {known} .*; not known to be committed: .* more"):
                history.state_after(last, attested)
            assert replay_commands(history, 1, None, lambda one: None) == known
        assert history.state_after(last, state_hash).position() == (last, state_hash)
        assert replay_commands(history, 1, None, lambda one: None) == last


def test_state_before_the_oldest_one_is_refused(compacted: Past) -> None:
    with open_node_log(compacted.config, 1) as history:
        oldest = history.snapshots[0].metadata.sequence
        with pytest.raises(BeforeLogStart):
            history.state_after(oldest - 1)
        assert history.state_after(oldest).position() == (oldest, compacted.state.hash_at(oldest))


def test_log_of_any_node_is_opened_by_its_directory(past: Past, tmp_path: Path) -> None:
    copy = shutil.copytree(past.config.node_dir(1), tmp_path / "copy")
    with open_log(copy, "alpha") as history:
        assert history.node_id == 1
        assert replay_commands(history, 1, 3, lambda one: None) == 3
    other = "expected the journal of cluster 'beta', found that of cluster 'alpha'"
    with pytest.raises(JournalError, match=other), open_log(copy, "beta"):
        pass
    with pytest.raises(MetaError, match="the directory does not exist"), open_log(tmp_path / "none", "alpha"):
        pass


@pytest.mark.parametrize("which", ["past", "compacted"])
def test_correct_log_is_verified(which: str, request: pytest.FixtureRequest) -> None:
    past: Past = request.getfixturevalue(which)
    with open_node_log(past.config, 1) as history:
        found = verify_log(history)
    assert (found.sequence, found.state_hash) == past.state.position()
    assert (found.trades, found.snapshots, found.uncommitted, found.faults) == (len(past.trades), 1, 1, ())


def test_snapshot_of_another_state_is_found(tmp_path: Path) -> None:
    past = write_past(tmp_path, compacted=False)
    files = SnapshotFiles(past.config.node_dir(1) / FOLDER, cluster="alpha", node_id=1)
    other = ReplicatedState(1)
    files.write(Position(30, 4, 0, 0), {"state": [other.snapshot()]})
    with open_node_log(past.config, 1) as history:
        found = verify_log(history)
    assert len(found.faults) == 1
    assert "the log leads to command" in found.faults[0]


def test_log_of_a_running_node_is_refused(past: Past) -> None:
    meta = MetaStore(past.config.node_dir(1), cluster="alpha", node_id=1)
    with pytest.raises(MetaError, match="expected to be the only process here"), open_node_log(past.config, 1):
        pass
    meta.close()


def test_missing_data_directory_is_refused(past: Past) -> None:
    message = "the data directory of node 2 does not exist"
    with pytest.raises(MetaError, match=message), open_node_log(past.config, 2):
        pass


def test_node_without_a_journal_is_refused(tmp_path: Path) -> None:
    config = Config(cluster="alpha", data_dir=str(tmp_path))
    MetaStore(config.node_dir(1), cluster="alpha", node_id=1).close()
    with pytest.raises(StorageError, match="expected a journal, found none"), open_node_log(config, 1):
        pass


def test_damaged_log_is_refused(tmp_path: Path) -> None:
    past = write_past(tmp_path, compacted=False)
    path = past.config.node_dir(1) / FILE
    sound = path.read_bytes()
    at = sound.index(past.commands.records[700].tobytes()[8:])
    path.write_bytes(sound[:at] + b"\xff" + sound[at + 1 :])
    with pytest.raises(JournalError, match="is not what was written"), open_node_log(past.config, 1):
        pass
    path.write_bytes(sound)
    state = next((past.config.node_dir(1) / FOLDER).glob("snapshot-*/state"))
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match="its part state is not what was written"), open_node_log(past.config, 1):
        pass
