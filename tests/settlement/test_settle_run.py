"""`smrx settle run` from end to end: real sockets, a stub in place of the nodes, the real command."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from smrx.cli.settle_commands import status_line
from smrx.config import load
from smrx.follower.alarms import Alarms
from smrx.settlement.settlement_run import make_runner, make_settler
from smrx.sinks.csv_sink import CsvSink
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS
from tests.feed.stub import TIMEOUT_S, StubNode
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import (
    end_of_command,
    expected_rows,
    publish_all,
    publishing,
    rows,
    settle,
    summary,
    whole_commands,
    write_config,
)


def test_every_trade_is_settled_and_losses_are_healed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events, losing=(3, 4, 20, 30)), node.heartbeat):
        assert settle(tmp_path, [node], "--idle", "0.5", "--json") == 0
    result, _ = summary(capsys)
    assert rows(tmp_path) == expected_rows(events)
    assert result["sequence"] == result["known_sequence"] == len(events)
    assert result["command_sequence"] == events["command_sequence"][-1]
    assert result["trades"] == result["trades_written"] == np.count_nonzero(events["kind"] == EventKind.TRADE)
    assert result["gaps"] == result["gaps_healed"] >= 1
    assert result["retransmitted"] >= 400
    assert result["supply"].keys() == {"BTC", "USD"}
    assert (result["error"], result["exit_code"]) == (None, 0)


def test_summary_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--until-sequence", "4000") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verified   events 1 to 4,00")
    assert "balances equal deposits minus withdrawals: BTC " in captured.out
    assert captured.err == ""


def test_run_ends_at_the_requested_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    last = whole_commands(events)
    with StubNode() as node, publishing(node, lambda: publish_all(node, events), node.heartbeat):
        assert settle(tmp_path, [node], "--until-sequence", str(last), "--json") == 0
    assert summary(capsys)[0]["sequence"] == last
    assert rows(tmp_path) == expected_rows(events[:last])


def test_late_start_reads_everything_and_restart_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    middle = whole_commands(events)
    for first, last in ((1, middle), (middle + 1, len(events)), (len(events) + 1, len(events))):
        with StubNode() as node:
            publish_all(node, events[:last])
            with publishing(node, node.heartbeat, node.heartbeat):
                assert settle(tmp_path, [node], "--idle", "0.3", "--json") == 0
        result, _ = summary(capsys)
        assert result["sequence"] == result["committed"] == last
        assert result["gaps"] == 0
        assert result["retransmitted"] == last - first + 1
        assert result["trades_written"] == len(expected_rows(events[first - 1 : last]))
        assert rows(tmp_path) == expected_rows(events[:last])


def test_unfillable_gap_exits_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    held, lost = end_of_command(events, 1000), end_of_command(events, 1100)

    def script() -> None:
        node.publish(events[:held])
        node.publish(events[held:lost], lose=True)
        node.forget()
        node.publish(events[lost:1200])

    with StubNode(node=2) as node, publishing(node, script):
        assert settle(tmp_path, [node], "--json") == 5
    result, error = summary(capsys)
    assert (
        f"events {held + 1} to {lost} are missing and no node can send them: node 2: holds {lost + 1} to 1200" in error
    )
    assert result["error"] in error
    assert (result["exit_code"], result["sequence"], result["known_sequence"]) == (5, held, 1200)
    assert rows(tmp_path) == expected_rows(events[:held])


@pytest.mark.parametrize(
    ("column", "offset", "message"),
    [
        ("quantity_lots", 0, "the maker's fill has quantity_lots|both orders have left"),
        ("match_id", 0, "expected match id"),
        ("order_id", 1, "the maker's fill has order_id"),
    ],
)
def test_corrupted_trade_exits_with_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, offset: int, message: str
) -> None:
    events = market_events()
    row = int(np.flatnonzero(events["kind"] == EventKind.TRADE)[50]) + offset
    events[column][row] += 1
    with StubNode() as node, publishing(node, lambda: publish_all(node, events)):
        assert settle(tmp_path, [node], "--idle", "5") == 6
    error = capsys.readouterr().err
    # The error may name the trade or the fill that differs from it.
    assert any(f"smrx: event {sequence}: " in error for sequence in (row + 1, row + 2))
    assert re.search(message, error)
    settled = rows(tmp_path)
    # The trade itself may be written before its fill is refused; it is not committed.
    assert len(settled) <= 51
    assert settled == expected_rows(market_events())[: len(settled)]


def test_feed_that_ends_inside_a_trade_exits_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    row = int(np.flatnonzero(events["kind"] == EventKind.TRADE)[50])
    with StubNode() as node, publishing(node, lambda: publish_all(node, events[: row + 2])):
        assert settle(tmp_path, [node], "--idle", "0.3") == 6
    captured = capsys.readouterr()
    assert f"smrx: event {row + 2}: found a trade without the fills" in captured.err
    # How far it has committed depends on how many frames came together: never as far as the trade.
    first_line = captured.out.splitlines()[0]
    found = re.match(
        r"failed     verified and committed up to event ([\d,]+); what follows is not verified", first_line
    )
    assert found is not None
    assert int(found[1].replace(",", "")) <= row
    assert "none missing" not in captured.out


def test_forged_balance_exits_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    deposits = events.view(EVENT_LAYOUTS[EventKind.DEPOSITED])
    deposits["available_after"][int(np.flatnonzero(events["kind"] == EventKind.DEPOSITED)[30])] += 1
    with StubNode() as node, publishing(node, lambda: publish_all(node, events)):
        assert settle(tmp_path, [node], "--idle", "5") == 6
    assert "available after the transfer" in capsys.readouterr().err


def test_no_node_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubNode() as node:
        pass
    assert settle(tmp_path, [node], "--connect-timeout", "0.2") == 3
    assert "no node sent anything at tcp://127.0.0.1:" in capsys.readouterr().err


def test_files_in_use_exit_with_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = CsvSink(tmp_path)
    sink.open("local")
    with StubNode() as node:
        assert settle(tmp_path, [node]) == 9
    sink.close()
    assert "in use by another process" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--nodes", "one"), ("--nodes", "9"), ("--until-sequence", "0"), ("--idle", "-1")])
def test_wrong_options_exit_with_2(tmp_path: Path, options: tuple[str, str]) -> None:
    with StubNode() as node:
        assert settle(tmp_path, [node], *options) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_run_with_a_summary(tmp_path: Path, number: signal.Signals) -> None:
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
            deadline = time.monotonic() + 3 * TIMEOUT_S
            while (
                not (tmp_path / "trades.csv").exists() or (tmp_path / "trades.csv").read_bytes().count(b"\n") < wanted
            ):
                assert process.poll() is None
                assert time.monotonic() < deadline
                threading.Event().wait(0.02)
            process.send_signal(number)
            out, error = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert (process.returncode, error) == (0, f"stopped on {number.name}\n".encode())
    assert json.loads(out)["trades_written"] == wanted - 1


def test_status_line_shows_progress(tmp_path: Path) -> None:
    events = market_events()
    with StubNode() as node, publishing(node, lambda: publish_all(node, events, losing=(5,)), node.heartbeat):
        config = load(write_config(tmp_path, [node]))
        settler = make_settler(config.cluster, str(tmp_path / "books"), [CsvSink(tmp_path)])
        settler.open()
        runner = make_runner(config, settler, Alarms(config.cluster))
        try:
            runner.run(stop=lambda: False, until_sequence=len(events))
            line = status_line(runner).plain
        finally:
            runner.close()
            settler.close()
    assert line.startswith(f"settled {len(events):,} · lag 0 · ")
    assert "gaps healed 1 of 1 · attested by 1" in line
