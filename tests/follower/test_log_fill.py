"""`smrx settle run --from-log` settles events that no node holds any more, from the journal of a stopped node."""

from pathlib import Path

import numpy as np
import pytest

from smrx.cli.exit_codes import Exit
from smrx.node.log_reader import open_node_log, verify_log
from tests.feed.stub import StubNode
from tests.node.test_log_reader import Past, write_past
from tests.settlement.settle_helpers import (
    end_of_command,
    expected_rows,
    publish_all,
    publishing,
    rows,
    settle,
    summary,
)

#: Entries of commands that came after the node was stopped.
LATER = 5


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return write_past(tmp_path_factory.mktemp("past"), compacted=False, lost=LATER)


@pytest.fixture(scope="module")
def end(past: Past) -> int:
    """The last command of the log."""
    with open_node_log(past.config, 1) as history:
        return verify_log(history).sequence


def true_hashes(past: Past) -> dict[int, int]:
    """The state hash after every command."""
    return {command: past.state.hash_at(command) or 0 for command in range(1, past.state.engine.sequence + 1)}


def publish_and_drop(node: StubNode, past: Past, hashes: dict[int, int]) -> None:
    """Let a node publish everything, and hold all but about the first thousand events."""
    node.hashes = hashes
    dropped = end_of_command(past.events, 1000)
    publish_all(node, past.events[:dropped])
    node.forget()
    publish_all(node, past.events[dropped:])


def run(tmp_path: Path, past: Past, node: StubNode, *options: str) -> int:
    log = ("--from-log", str(past.config.node_dir(1)))
    return settle(tmp_path, [node], *log, "--idle", "0.5", *options, cluster="alpha")


@pytest.fixture
def lost_all(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run from the nodes alone ends with a gap, and suggests where the events may be."""
    with StubNode() as node:
        publish_and_drop(node, past, true_hashes(past))
        with publishing(node, node.heartbeat, node.heartbeat):
            assert settle(tmp_path, [node], "--idle", "0.5", cluster="alpha") == Exit.GAP
    assert "read it with --from-log" in capsys.readouterr().err


def follow(tmp_path: Path, past: Past, hashes: dict[int, int], *options: str, refused: bool = False) -> int:
    with StubNode() as node:
        publish_and_drop(node, past, hashes)
        if refused:  # The run ends before it subscribes to the feed.
            return run(tmp_path, past, node, *options)
        with publishing(node, node.heartbeat, node.heartbeat):
            return run(tmp_path, past, node, *options)


@pytest.mark.usefixtures("lost_all")
def test_dropped_events_are_settled_from_the_log_and_the_rest_from_the_nodes(
    past: Past, end: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = int(np.searchsorted(past.events["command_sequence"], end, side="right"))
    assert 1000 < last < len(past.events)
    assert follow(tmp_path, past, true_hashes(past), "--json") == 0
    result, message = summary(capsys)
    assert f"settled events 1 to {last:,} from the log of node 1" in message
    assert "attested by node 1" in message
    assert (result["sequence"], result["retransmitted"]) == (len(past.events), len(past.events) - last)
    assert result["trades"] == result["trades_written"] == len(past.trades)
    assert rows(tmp_path) == expected_rows(past.events)
    # A second run takes nothing from the log, and continues.
    assert follow(tmp_path, past, true_hashes(past), "--json") == 0
    result, message = summary(capsys)
    assert f"ends with event {last:,}, which is already settled" in message
    assert (result["sequence"], result["trades_written"]) == (len(past.events), 0)


def test_books_continue_from_the_log(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    middle = int(np.flatnonzero(np.diff(past.events["command_sequence"]))[400]) + 1
    with StubNode() as node:
        node.hashes = true_hashes(past)
        publish_all(node, past.events[:middle])
        with publishing(node, node.heartbeat, node.heartbeat):
            assert settle(tmp_path, [node], "--idle", "0.5", cluster="alpha") == 0
    capsys.readouterr()
    assert follow(tmp_path, past, true_hashes(past)) == 0
    assert f"settled events {middle + 1:,} to " in capsys.readouterr().err
    assert rows(tmp_path) == expected_rows(past.events)


def test_log_end_contradicted_by_nodes_is_refused(
    past: Past, end: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow(tmp_path, past, true_hashes(past) | {end: 5}, refused=True) == Exit.DIVERGED
    error = capsys.readouterr().err
    assert f"after command {end}, the nodes have another state there: node 1 0000000000000005" in error
    assert rows(tmp_path) == []


def test_log_end_without_majority_is_refused(
    past: Past, end: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = true_hashes(past)
    del known[end]
    assert follow(tmp_path, past, known, "--connect-timeout", "0.3", refused=True) == Exit.UNATTESTED
    assert "1 of 1 nodes must attest its end" in capsys.readouterr().err
    assert rows(tmp_path) == []


def test_log_without_a_running_cluster_is_refused(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubNode() as node:
        pass
    assert run(tmp_path, past, node, "--connect-timeout", "0.3") == Exit.UNAVAILABLE
    assert "no node answers to attest the end" in capsys.readouterr().err


def test_log_of_another_history_is_refused(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    middle = int(np.flatnonzero(np.diff(past.events["command_sequence"]))[400]) + 1
    command = int(past.events["command_sequence"][middle - 1])
    with StubNode() as node:
        node.hashes = true_hashes(past) | {command: 5}
        publish_all(node, past.events[:middle])
        with publishing(node, node.heartbeat, node.heartbeat):
            assert settle(tmp_path, [node], "--idle", "0.5", cluster="alpha") == 0
    before = rows(tmp_path)
    capsys.readouterr()
    assert follow(tmp_path, past, true_hashes(past), refused=True) == Exit.DIVERGED
    assert "it is another history" in capsys.readouterr().err
    assert rows(tmp_path) == before


def test_join_and_from_log_exclude_each_other(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubNode() as node:
        assert run(tmp_path, past, node, "--join") == Exit.USAGE
    assert "cannot be combined" in capsys.readouterr().err
