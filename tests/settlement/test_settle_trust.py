"""What settlement must catch, with real sockets and the real command: each fault made on purpose, and named."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from smrx.cli import run
from smrx.config import Settlement, SinkConfig
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.settlement.ledger import Ledger
from smrx.wire.admin import BalanceRow
from smrx.wire.balance_digest import Digest
from smrx.wire.codes import EventKind
from smrx.wire.frames import encode_events
from smrx.wire.records import TRADE_EVENT
from tests.feed.stub import TIMEOUT_S, StubNode
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import (
    Events,
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


@contextmanager
def cluster(count: int, scripts: dict[int, Callable[[StubNode], None]]) -> Iterator[list[StubNode]]:
    """Stubs 1..count; those with a script publish by it and then say where they stand."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(StubNode(node=node)) for node in range(1, count + 1)]
        for node in nodes:
            node.balances = lambda: Digest(0, 0)
            script = scripts.get(node.node)
            if script is not None:
                stack.enter_context(publishing(node, partial(script, node), node.heartbeat))
        yield nodes


def whole(events: Events, losing: tuple[int, ...] = ()) -> Callable[[StubNode], None]:
    """A script: publish everything, and say what the balances are."""

    def script(node: StubNode) -> None:
        ledger = Ledger()
        ledger.post(events)
        node.balances = ledger.balances_digest
        publish_all(node, events, losing=losing)

    return script


def forged(column: str, row: int) -> Events:
    events = market_events()
    events[column][row] ^= np.array(1, events.dtype[column])
    return events


def alarms(record: Path) -> list[dict[str, object]]:
    """Return the alarms that the hook has recorded."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def hook(tmp_path: Path) -> Settlement:
    """Return a configuration whose hook appends every alarm to a file."""
    script = tmp_path / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat >> {tmp_path / 'alarms'}\n")
    script.chmod(0o755)
    return Settlement(hook=str(script))


def test_majority_is_enough_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with cluster(3, {1: whole(events, losing=(3, 9)), 3: whole(events, losing=(9, 20))}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.8", "--json") == 0
    result, _ = summary(capsys)
    assert rows(tmp_path) == expected_rows(events)
    assert (result["sequence"], result["unverified"], result["attested_by"]) == (len(events), 0, [1, 3])
    assert result["balances_compared"] >= 1
    assert result["state_hash"] == "0000000000000007"


def test_less_than_a_majority_is_never_settled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smrx.follower.runner.UNATTESTED_TIMEOUT_S", 0.4)
    events = market_events()[:1000]
    with cluster(3, {2: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.2", "--json", settlement=hook(tmp_path)) == 10
    result, error = summary(capsys)
    assert (result["sequence"], result["unverified"], result["attested_by"]) == (0, 1000, [])
    assert "events 1 to 1000 have arrived and are not attested: 2 nodes" in error
    assert rows(tmp_path) == []
    assert "UNATTESTED" in [alarm["code"] for alarm in alarms(tmp_path / "alarms")]


def test_listening_to_less_than_a_majority_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with cluster(3, {}) as nodes:
        assert settle(tmp_path, nodes, "--nodes", "2") == 2
    assert "expected at least 2 of 3 nodes to listen to, which is a majority, found 1" in capsys.readouterr().err


def out_of_order(events: Events, frames: list[int]) -> Callable[[StubNode], None]:
    """Return a script that sends quarters of the events as frames in this order, once all are held."""

    def script(node: StubNode) -> None:
        with_all = Ledger()
        with_all.post(events)
        node.balances = with_all.balances_digest
        node.publish(events, lose=True)
        parts = np.array_split(events, 4)
        for frame in frames:
            node.send(encode_events(parts[frame], 0, 0))

    return script


@pytest.mark.parametrize(
    ("frames", "reordered", "duplicate"),
    [([0, 1, 2, 3], 0, 0), ([0, 2, 3, 1], 1, 0), ([0, 1, 0, 2, 1, 3], 0, 2), ([1, 0, 0, 3, 2], 2, 1)],
)
def test_reordered_and_repeated_frames_are_repaired_and_counted_apart(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    frames: list[int],
    reordered: int,
    duplicate: int,
) -> None:
    # What a node was asked for counts as its answer, so nothing is asked for here: the other nodes fill the gaps.
    monkeypatch.setattr(Sequencer, "requests", lambda self, now: ())
    events = market_events()
    sent = threading.Event()

    def third(node: StubNode) -> None:
        out_of_order(events, frames)(node)
        sent.set()

    def others(node: StubNode) -> None:
        # The run ends after what they send; by then the third has sent everything.
        assert sent.wait(TIMEOUT_S)
        whole(events)(node)

    with cluster(3, {1: others, 2: others, 3: third}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.8", "--json") == 0
    result, _ = summary(capsys)
    assert rows(tmp_path) == expected_rows(events)
    assert (result["reordered_frames"], result["duplicate_frames"]) == (reordered, duplicate)
    assert (result["sequence"], result["unverified"], result["alarms"]) == (len(events), 0, 0)


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_flipped_bit_of_one_node_excludes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: int) -> None:
    events = market_events()
    scripts = {node: whole(events) for node in (1, 2, 3)}

    def script(node: StubNode) -> None:
        publish_all(node, forged("price_ticks", 700))

    scripts[bad] = script
    with cluster(3, scripts) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.8", "--json", settlement=hook(tmp_path)) == 0
    result, _ = summary(capsys)
    assert rows(tmp_path) == expected_rows(events)
    assert result["excluded"] == [bad]
    output = [alarm for alarm in alarms(tmp_path / "alarms") if alarm["code"] == "COPIES_DIFFER"]
    assert bad in {alarm["node"] for alarm in output}
    assert {(alarm["sequence"], alarm["field"]) for alarm in output} == {(701, "price_ticks")}
    assert all(f"node {bad} sent " in str(alarm["message"]) for alarm in output)


def test_two_differing_nodes_without_a_third_exit_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    scripts = {1: whole(events), 2: lambda node: publish_all(node, forged("price_ticks", 700))}
    with cluster(2, scripts) as nodes:
        assert settle(tmp_path, nodes, "--idle", "5", "--json") == 6
    result, error = summary(capsys)
    assert "event 701: node" in error
    assert "price_ticks" in error
    assert result["sequence"] <= 700
    assert rows(tmp_path) == expected_rows(events)[: len(rows(tmp_path))]


def test_state_hash_of_a_minority_excludes_the_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    command = int(events["command_sequence"][999])

    def diverged(node: StubNode) -> None:
        node.hashes = dict.fromkeys(range(command, command + 100000), 8)
        whole(events)(node)

    with cluster(3, {1: whole(events), 2: diverged, 3: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.8", "--json", settlement=hook(tmp_path)) == 0
    result, _ = summary(capsys)
    assert (result["sequence"], result["excluded"]) == (len(events), [2])
    output = next(alarm for alarm in alarms(tmp_path / "alarms") if alarm["code"] == "STATES_DIFFER")
    assert output["node"] == 2
    assert int(str(output["sequence"])) >= command


def test_state_hashes_without_a_majority_exit_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()

    def diverged(node: StubNode) -> None:
        node.hashes = dict.fromkeys(range(100_000), 10 + node.node)
        whole(events)(node)

    with cluster(3, {1: diverged, 2: diverged, 3: diverged}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "5") == 6
    assert "no majority of nodes has the same state hash: node" in capsys.readouterr().err
    assert rows(tmp_path) == []


def wrong_balances(events: Events, account: int, asset: int) -> tuple[Ledger, tuple[BalanceRow, ...]]:
    """Return books in which an account owns one unit too much, and the balances a node answers from them."""
    ledger = Ledger()
    ledger.post(events)
    table = ledger._tables.balances
    table["total"][np.flatnonzero(table["key"] == (account << 32 | asset))] += 1
    output = (
        BalanceRow(account=b.account, asset=b.asset, available=b.available, held=b.held) for b in ledger.balances()
    )
    return ledger, tuple(output)


def test_wrong_balance_is_traced_to_account_and_first_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the middle all balances are equal; at the end one is not."""
    events = market_events()
    middle = whole_commands(events)
    ledger, output = wrong_balances(events, 3, 2)
    equal = Ledger()
    equal.post(events[:middle])

    def script(node: StubNode) -> None:
        node.balances = equal.balances_digest
        publish_all(node, events[:middle])
        node.heartbeat()
        node.balances, node.balance_rows = ledger.balances_digest, output
        publish_all(node, events[middle:])

    with cluster(1, {1: script}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "3", "--json", settlement=hook(tmp_path)) == 8
    result, error = summary(capsys)
    # Heartbeats before the run subscribes are lost: then only the last one is compared.
    compared = result["balances_compared"]
    touching = events[middle:] if compared else events
    makers = touching.view(TRADE_EVENT)["counter_account"]
    own = (touching["account"] == 3) | ((makers == 3) & (touching["kind"] == EventKind.TRADE))
    assert "account 3, USD: node 1 has" in error
    first = int(error.split("; event ")[1].split()[0])
    assert first in touching["sequence"][own]
    assert (f"since both were equal (event {middle})" in error) == (compared == 1)
    assert (result["exit_code"], compared in (0, 1)) == (8, True)
    (alarm,) = alarms(tmp_path / "alarms")
    assert (alarm["code"], alarm["node"], alarm["account"], alarm["asset"]) == ("BALANCES_DIFFER", 1, 3, 2)


def test_wrong_balance_of_one_node_in_three_is_an_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    ledger, output = wrong_balances(events, 2, 1)

    def script(node: StubNode) -> None:
        node.balances, node.balance_rows = ledger.balances_digest, output
        publish_all(node, events)

    with cluster(3, {1: whole(events), 2: script, 3: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.8", "--json", settlement=hook(tmp_path)) == 0
    assert summary(capsys)[0]["committed"] == len(events)
    raised = [alarm for alarm in alarms(tmp_path / "alarms") if alarm["code"] == "BALANCES_DIFFER"]
    assert [(alarm["node"], alarm["account"], alarm["asset"]) for alarm in raised] == [(2, 2, 1)]


def test_replayed_old_feed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Quorum.__init__.__kwdefaults__ or {}, "old_feed_timeout_s", 0.5)
    events = market_events()
    old = events[: whole_commands(events)]
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
    settled = rows(tmp_path)
    with cluster(1, {1: whole(old)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "20") == 6
    error = capsys.readouterr().err
    assert f"the feed is older than what is settled, up to event {len(events)}" in error
    assert f"node 1 ends at event {len(old)}" in error
    assert rows(tmp_path) == settled


@pytest.mark.parametrize("hashes", [True, False])
def test_another_history_of_the_same_cluster_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hashes: bool
) -> None:
    events, other = market_events(), market_events(seed=2)
    last = whole_commands(events)
    with cluster(1, {1: whole(events[:last])}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
    settled = rows(tmp_path)

    def script(node: StubNode) -> None:
        node.hashes = dict.fromkeys(range(100_000), 8 if hashes else 7)
        whole(other)(node)

    with cluster(1, {1: script}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "5") == 6
    assert "node 1 has another history than the one settled so far" in capsys.readouterr().err
    assert rows(tmp_path) == settled


def test_checkpoint_of_another_cluster_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
        assert settle(tmp_path, nodes, "--idle", "0.3", cluster="elsewhere") == 9
    assert "expected a checkpoint of cluster 'elsewhere', found one of 'local'" in capsys.readouterr().err


def test_start_after_dropped_events_reports_the_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    last = whole_commands(events)

    def script(node: StubNode) -> None:
        node.publish(events[:last], lose=True)
        node.forget()
        node.publish(events[last:])

    with cluster(1, {1: script}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "5", settlement=hook(tmp_path)) == 5
    error = capsys.readouterr().err
    assert (
        f"events 1 to {last} are missing and no node can send them: node 1: holds {last + 1} to {len(events)}" in error
    )
    assert rows(tmp_path) == []
    assert [alarm["code"] for alarm in alarms(tmp_path / "alarms")] == ["GAP"]


def test_new_sink_gets_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The journal has what the new sink lacks up to the checkpoint."""
    events = market_events()
    last = whole_commands(events)
    with cluster(1, {1: whole(events[:last])}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
    for path in tmp_path.glob("settled_*"):
        path.unlink()
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3", "--json") == 0
    assert rows(tmp_path) == expected_rows(events)
    rest = len(expected_rows(events)) - len(expected_rows(events[:last]))
    assert f'"trades_written": {rest}' in capsys.readouterr().out


def test_verify_derives_everything_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
    options = ["--config", str(tmp_path / "cluster.toml"), "--out", str(tmp_path)]
    with cluster(1, {1: whole(events)}) as nodes:
        options[1] = str(write_config(tmp_path, nodes))
        for more, source in (([], "what is stored"), (["--from-nodes"], "the nodes' events")):
            capsys.readouterr()
            assert run(["settle", "verify", *options, *more]) == 0
            assert f"derived    everything up to event {len(events):,} from {source}" in capsys.readouterr().out
        trades = tmp_path / "settled_trades.csv"
        trades.write_bytes(_with_another_price(trades.read_bytes()))
        for more in ([], ["--from-nodes"]):
            assert run(["settle", "verify", *options, *more]) == 6
            assert "trade 20: expected " in capsys.readouterr().err


def test_verify_from_nodes_suggests_the_log_for_dropped_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = market_events()
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0

    forgotten = end_of_command(events, 100)

    def publish_and_drop(node: StubNode) -> None:
        node.publish(events[:forgotten], lose=True)
        node.forget()
        publish_all(node, events[forgotten:])

    with cluster(1, {1: publish_and_drop}) as nodes:
        options = ["--config", str(write_config(tmp_path, nodes)), "--out", str(tmp_path)]
        assert run(["settle", "verify", *options, "--from-nodes"]) == 5
    error = capsys.readouterr().err
    assert f"events 1 to {forgotten} are missing and no node can send them" in error
    assert "use --log to compare with the journal" in error


def test_several_sinks_are_settled_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    places = tuple(SinkConfig(kind=kind, path=str(tmp_path / kind)) for kind in ("csv", "lmdb"))
    settlement = Settlement(directory=str(tmp_path / "settled"), sinks=places)
    with cluster(1, {1: whole(events)}) as nodes:
        config = str(write_config(tmp_path, nodes, settlement=settlement))
        assert run(["settle", "run", "--config", config, "--idle", "0.3"]) == 0
    assert run(["settle", "verify", "--config", config, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.split("events/s\n")[1])
    assert (len(result["sinks"]), result["sequence"]) == (2, len(events))
    assert result["trades"] == len(expected_rows(events)) == len(rows(tmp_path / "csv"))


def test_verify_names_the_account_of_wrong_movements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = market_events()
    with cluster(1, {1: whole(events)}) as nodes:
        assert settle(tmp_path, nodes, "--idle", "0.3") == 0
    movements = tmp_path / "settled_movements.csv"
    movements.write_bytes(movements.read_bytes().replace(b",5000000,", b",5000001,", 1))
    assert run(["settle", "verify", "--config", str(tmp_path / "cluster.toml"), "--out", str(tmp_path)]) == 8
    assert "account 1, asset 1: the rows of CSV" in capsys.readouterr().err


def _with_another_price(table: bytes) -> bytes:
    lines = table.split(b"\r\n")
    cells = lines[20].split(b",")
    at = lines[0].split(b",").index(b"price_ticks")
    cells[at] = cells[at][:-1] + (b"0" if cells[at][-1:] != b"0" else b"1")
    lines[20] = b",".join(cells)
    return b"\r\n".join(lines)
