"""`smrx settle run` from end to end: real sockets, a stub in the place of the nodes, the real command."""

import csv
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.cli import run
from smrx.config import Config, NodeConfig, dump
from smrx.engine.codes import EventKind
from smrx.settlement.verifier import Verifier
from tests.feed.stub import PATIENCE, StubNode

from .market import market_events

Events = NDArray[np.void]


def write_config(directory: Path, nodes: list[StubNode]) -> Path:
    config = Config(
        nodes=tuple(
            NodeConfig(id=node.node, port=10 * node.node, events_port=node.ports[0], retransmit_port=node.ports[1])
            for node in nodes
        )
    )
    path = directory / "cluster.toml"
    path.write_text(dump(config))
    return path


@contextmanager
def publishing(node: StubNode, script: Callable[[], None], repeat: Callable[[], None] | None = None) -> Iterator[None]:
    """Run a script on the stub's feed as soon as somebody subscribes, then `repeat` until the test is done."""
    done = threading.Event()

    def work() -> None:
        node.wait_subscribed()
        script()
        while repeat is not None and not done.wait(0.05):
            repeat()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def publish_all(node: StubNode, events: Events, *, losing: tuple[int, ...] = (), size: int = 100) -> None:
    """Publish events in frames of `size`; those numbered in `losing` get lost."""
    for i, start in enumerate(range(0, len(events), size)):
        node.publish(events[start : start + size], lose=i in losing)


def settle(tmp_path: Path, nodes: list[StubNode], *options: str) -> int:
    config = write_config(tmp_path, nodes)
    return run(["settle", "run", "--config", str(config), "--out", str(tmp_path), *options])


def rows(tmp_path: Path) -> list[list[str]]:
    with (tmp_path / "settled_trades.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def whole_commands(events: Events) -> int:
    """A place about the middle where a stream may end: not between a trade and its fills."""
    return int(np.flatnonzero(events["kind"] == EventKind.NEW)[500])


def expected_rows(events: Events) -> list[list[str]]:
    return [[str(value) for value in trade] for trade in Verifier().apply(events)]


def summary(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_every_trade_of_the_feed_is_settled_losses_healed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events, losing=(3, 4, 20, 30)), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5", "--json") == 0
    told, _ = summary(capsys)
    assert rows(tmp_path) == expected_rows(events)
    assert told["sequence"] == told["known_sequence"] == len(events)
    assert told["command_sequence"] == events["command_sequence"][-1]
    assert told["trades"] == told["trades_written"] == np.count_nonzero(events["kind"] == EventKind.TRADE)
    assert told["gaps"] == told["gaps_healed"] >= 1
    assert told["retransmitted"] >= 400
    assert told["supply"].keys() == {"BTC", "USD"}
    assert (told["error"], told["exit_code"]) == (None, 0)


def test_the_summary_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--until-sequence", "4000") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verified   events 1 to 4,000, commands 1 to ")
    assert "accounts own deposits less withdrawals exactly: BTC " in captured.out
    assert captured.err == ""


def test_it_ends_at_the_sequence_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    last = whole_commands(events)
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--until-sequence", str(last), "--json") == 0
    assert summary(capsys)[0]["sequence"] == last
    assert rows(tmp_path) == expected_rows(events[:last])


def test_a_late_start_reads_everything_again_and_a_restart_doubles_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = market_events()
    middle = whole_commands(events)
    for last, confirmed in ((middle, 0), (len(events), len(expected_rows(events[:middle])))):
        with StubNode() as node:
            publish_all(node, events[:last])
            with publishing(node, node.heartbeat, node.heartbeat):
                assert settle(tmp_path, [node], "--idle", "0.3", "--json") == 0
        told, _ = summary(capsys)
        assert told["sequence"] == last
        assert told["gaps"] == 0
        assert told["trades_confirmed"] == confirmed
        assert rows(tmp_path) == expected_rows(events[:last])


def test_a_gap_that_cannot_be_filled_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()

    def script() -> None:
        node.publish(events[:1000])
        node.publish(events[1000:1100], lose=True)
        node.forget()
        node.publish(events[1100:1200])

    with StubNode(node=2) as node, publishing(node, script):
        assert settle(tmp_path, [node], "--json") == 5
    told, error = summary(capsys)
    assert "events 1001 to 1100 are missing and cannot be had: node 2: holds 1101 to 1200" in error
    assert told["error"] in error
    assert (told["exit_code"], told["sequence"], told["known_sequence"]) == (5, 1000, 1200)
    assert rows(tmp_path) == expected_rows(events[:1000])


@pytest.mark.parametrize(
    ("column", "offset", "message"),
    [
        ("quantity_lots", 0, "the maker's fill has quantity_lots"),
        ("match_id", 0, "expected match id"),
        ("order_id", 1, "the maker's fill has order_id"),
    ],
)
def test_a_corrupted_trade_ends_with_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, offset: int, message: str
) -> None:
    events = market_events()
    row = int(np.flatnonzero(events["kind"] == EventKind.TRADE)[50]) + offset
    events[column][row] += 1
    with StubNode() as node, publishing(node, lambda: publish_all(node, events)):
        assert settle(tmp_path, [node], "--idle", "5") == 6
    error = capsys.readouterr().err
    # The trade and the fill that differs from it stand side by side: either may be named.
    assert any(f"smrx: event {sequence}: " in error for sequence in (row + 1, row + 2))
    assert message in error
    settled = rows(tmp_path)
    assert len(settled) <= 50
    assert settled == expected_rows(market_events())[: len(settled)]


def test_a_feed_that_ends_in_the_middle_of_a_trade_ends_with_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = market_events()
    row = int(np.flatnonzero(events["kind"] == EventKind.TRADE)[50])
    with StubNode() as node, publishing(node, lambda: publish_all(node, events[: row + 2])):
        assert settle(tmp_path, [node], "--idle", "0.3") == 6
    assert f"smrx: event {row + 1}: found a trade without the fills" in capsys.readouterr().err
    assert len(rows(tmp_path)) == 50


def test_a_forged_balance_ends_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    events["cum_lots"][int(np.flatnonzero(events["kind"] == EventKind.DEPOSITED)[30])] += 1
    with StubNode() as node, publishing(node, lambda: publish_all(node, events)):
        assert settle(tmp_path, [node], "--idle", "5") == 6
    assert "available after the transfer" in capsys.readouterr().err


def test_nodes_that_differ_end_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, other = market_events(), market_events()
    other["client_order_id"][700] += 1
    with (
        StubNode(node=1) as one,
        StubNode(node=2) as two,
        publishing(one, lambda: publish_all(one, events)),
        publishing(two, lambda: publish_all(two, other)),
    ):
        assert settle(tmp_path, [one, two], "--idle", "5") == 6
    assert "event 701: node" in capsys.readouterr().err


def test_a_file_of_another_exchange_ends_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, code in ((1, 0), (2, 6)):
        events = market_events(seed=seed)
        with (
            StubNode() as node,
            publishing(node, lambda node=node, events=events: publish_all(node, events), node.heartbeat),
        ):
            assert settle(tmp_path, [node], "--idle", "0.3") == code
    assert "trade 1: the feed says" in capsys.readouterr().err
    assert rows(tmp_path) == expected_rows(market_events(seed=1))


def test_no_node_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubNode() as node:
        pass
    assert settle(tmp_path, [node], "--connect-timeout", "0.2") == 3
    assert "expected a node's feed at tcp://127.0.0.1:" in capsys.readouterr().err


def test_a_file_in_use_ends_with_7(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from smrx.settlement.sink import CsvSink

    with StubNode() as node, CsvSink(tmp_path / "settled_trades.csv"):
        assert settle(tmp_path, [node]) == 7
    assert "another process settles into this file" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--nodes", "one"), ("--nodes", "9"), ("--until-sequence", "0"), ("--idle", "-1")])
def test_wrong_options_end_with_2(tmp_path: Path, options: tuple[str, str]) -> None:
    with StubNode() as node:
        assert settle(tmp_path, [node], *options) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_a_summary(tmp_path: Path, number: signal.Signals) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events, losing=(5,)), node.heartbeat):
        command = [sys.executable, "-m", "smrx", "settle", "run", "--out", str(tmp_path / "trades.csv"), "--json"]
        process = subprocess.Popen(
            [*command, "--config", str(write_config(tmp_path, [node]))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            wanted = len(expected_rows(events)) + 1
            deadline = time.monotonic() + 3 * PATIENCE
            while (
                not (tmp_path / "trades.csv").exists() or (tmp_path / "trades.csv").read_bytes().count(b"\n") < wanted
            ):
                assert process.poll() is None
                assert time.monotonic() < deadline
                threading.Event().wait(0.02)
            process.send_signal(number)
            out, error = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, error) == (0, b"")
    assert json.loads(out)["trades_written"] == wanted - 1
