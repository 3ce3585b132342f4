"""Durability on disk with real processes: all nodes killed at once, a full disk, damaged files."""

import contextlib
import io
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import corruptible_node
from cluster.client_record import ClientRecord
from cluster.cluster_checks import equal_logs, read_events
from cluster.order_flow import OrderFlow
from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.config import Limits
from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.consensus.snapshot_files import FOLDER, describe
from smrx.local import LocalCluster
from smrx.tape.generate import generate
from smrx.tape.tape_market import setup_failure

MakeCluster = Callable[..., LocalCluster]


def test_all_nodes_killed_at_once_lose_no_acknowledged_command(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(durability="disk", limits=Limits(snapshot_commands=3000, compaction_entries=100))
    tape = generate(12_000, seed=5)
    with Client(cluster.config, account=0) as client:
        assert setup_failure(tape.setup, client.submit(*tape.setup)) is None
    flow = OrderFlow(cluster.config, tape.flow, rate=4000)
    flow.start()
    for share in (3, 2):
        flow.wait_for(len(tape.commands) // share, 180)
        for node in (1, 2, 3):
            cluster.process(node).kill()
        for node in (1, 2, 3):
            cluster.process(node).wait()
        cluster.start()
        cluster.wait_leader()
    record = flow.finish(180)
    with open_admin_client(cluster.config, 1.0) as ask:
        state = equal_logs(ask, [1, 2, 3], 30)
    for node in (1, 2, 3):
        assert record.check(read_events(cluster.config, [node], state.event_sequence)) == []
        snapshots = cluster.config.node_dir(node) / FOLDER
        assert describe(snapshots / "latest").metadata.sequence > 0


def written_bytes(cluster: LocalCluster) -> dict[int, int]:
    """Return the bytes that each node's process has written to storage, as the system counts them."""
    found = {}
    for node in cluster.config.nodes:
        lines = Path(f"/proc/{cluster.process(node.id).pid}/io").read_text(encoding="ascii").splitlines()
        found[node.id] = int(dict(line.split(": ") for line in lines)["write_bytes"])
    return found


def transfer_money(cluster: LocalCluster, first: int) -> None:
    with Client(cluster.config) as client:
        for name in range(first, first + 200):
            client.deposit(5, "USD", "1", name)


def open_account(cluster: LocalCluster) -> None:
    with Client(cluster.config) as client:
        client.add_asset("USD", 0)
        client.open_account(5)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs a system that counts what processes write")
def test_memory_mode_writes_no_bytes(make_cluster: MakeCluster) -> None:
    control = make_cluster(nodes=1, durability="disk")
    open_account(control)
    before = written_bytes(control)
    transfer_money(control, 1)
    if written_bytes(control) == before:
        pytest.skip("the system does not count what is written to this folder")
    control.stop()
    cluster = make_cluster()
    open_account(cluster)
    for attempt in range(5):
        terms = {status.term for status in cluster.statuses().values()}
        before = written_bytes(cluster)
        transfer_money(cluster, 1 + 200 * attempt)
        after = written_bytes(cluster)
        # An election writes term and vote.
        if len(terms) == 1 and {status.term for status in cluster.statuses().values()} == terms:
            break
    else:
        pytest.fail("expected orders without an election, found one in each attempt")
    assert after == before


def smrx(cluster: LocalCluster, *arguments: str, code: int = Exit.OK, out: bool = False) -> str:
    """Run a command with the cluster's configuration; return its output, or on failure its error message.

    `out`: return the output in either case.
    """
    out_stream, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out_stream), contextlib.redirect_stderr(err):
        found = cli.run(["--config", str(cluster.config_path), *arguments])
    assert found == code, err.getvalue() + out_stream.getvalue()
    return out_stream.getvalue() if out or code == Exit.OK else err.getvalue()


def role(cluster: LocalCluster, node: int) -> str | None:
    status = cluster.statuses().get(node)
    return None if status is None else status.role


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def play(cluster: LocalCluster, commands: int, seed: int = 7) -> ClientRecord:
    """Set up a small market and wait for every outcome."""
    tape = generate(commands, seed=seed)
    with Client(cluster.config, account=0) as client:
        assert setup_failure(tape.setup, client.submit(*tape.setup)) is None
    flow = OrderFlow(cluster.config, tape.flow, chunk=100)
    flow.start()
    return flow.finish(60)


def test_log_of_a_stopped_node_is_read_backed_up_and_restored(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(durability="disk")
    record = play(cluster, 3000)
    taken = json.loads(smrx(cluster, "snapshot", "take", "--node", "2", "--json"))
    assert taken["sequence"] >= record.last_sequence
    folder = tmp_path / "backup"
    copy = json.loads(smrx(cluster, "snapshot", "backup", str(folder), "--json"))
    assert "expected to be the only process here" in smrx(cluster, "log", "verify", "--node", "1", code=Exit.RESOURCE)
    with open_admin_client(cluster.config, 1.0) as ask:
        state = equal_logs(ask, [1, 2, 3], 30)
    cluster.stop()
    for node in (1, 2, 3):
        verified = json.loads(smrx(cluster, "log", "verify", "--node", str(node), "--json"))
        assert (verified["sequence"], verified["trades"]) == (state.sequence, state.trades)
        assert verified["state_hash"] == f"{state.state_hash:016x}"
    trades = lines(smrx(cluster, "log", "replay", "--node", "1", "--from", "3", "--to", "9"))
    assert [trade["match_id"] for trade in trades] == list(range(3, 10))
    assert all(trade["kind"] == "TRADE" for trade in trades)
    commands = lines(smrx(cluster, "log", "dump", "--node", "3", "--from", "100", "--limit", "5"))
    assert [command["sequence"] for command in commands] == [100, 101, 102, 103, 104]
    listed = json.loads(smrx(cluster, "snapshot", "list", "--json"))
    assert {row["node_id"] for row in listed["snapshots"]} >= {2, copy["node_id"]}
    assert all(found["valid"] for found in json.loads(smrx(cluster, "snapshot", "verify", "--json")))

    restored = LocalCluster(tmp_path / "restored", durability="disk")
    smrx(restored, "snapshot", "restore", str(folder))
    assert "nothing was restored" in smrx(restored, "snapshot", "restore", str(folder), code=Exit.RESOURCE)
    with restored:
        restored.wait_leader()
        with open_admin_client(restored.config, 1.0) as ask:
            again = equal_logs(ask, [1, 2, 3], 30)
        assert (again.sequence, again.state_hash) == (copy["sequence"], int(copy["state_hash"], 16))
        with Client(restored.config) as client:
            client.open_account(77)
            assert 77 in client.accounts()


def test_restored_cluster_may_use_memory_mode(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(nodes=1)
    with Client(cluster.config) as client:
        client.open_account(5)
    smrx(cluster, "snapshot", "backup", str(tmp_path / "backup"))
    cluster.stop()
    restored = LocalCluster(tmp_path / "restored", nodes=1)
    smrx(restored, "snapshot", "restore", str(tmp_path / "backup"))
    with restored:
        restored.wait_leader()
        with Client(restored.config) as client:
            assert 5 in client.accounts()
        # After its first start in memory mode, the cluster no longer uses the restored files.
        restored.kill(1)
        restored.start_node(1)
        restored.wait_for(lambda: [s.role for s in restored.statuses().values()] == ["learner"], 60, "a learner")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit to limit another process")
def test_full_disk_stops_a_node_and_loses_no_acknowledged_command(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=1, durability="disk")
    tape = generate(30_000, seed=9)
    with Client(cluster.config, account=0) as client:
        assert setup_failure(tape.setup, client.submit(*tape.setup)) is None
    flow = OrderFlow(cluster.config, tape.flow, chunk=200)
    # A limit on the file size acts as a full disk.
    resource.prlimit(cluster.process(1).pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    flow.start()
    assert cluster.process(1).wait(60) == Exit.DISK
    *_, message = cluster.log_path(1).read_text().splitlines()
    assert message.startswith("smrx: ")
    assert "nothing acknowledged is lost: make room or repair the disk, and start the node again" in message
    assert flow.acknowledged < len(tape.commands)
    cluster.start_node(1)
    record = flow.finish(180)
    with open_admin_client(cluster.config, 1.0) as ask:
        state = equal_logs(ask, [1], 30)
    assert record.check(read_events(cluster.config, [1], state.event_sequence)) == []


def test_diverged_node_names_the_rebuild_command(make_cluster: MakeCluster) -> None:
    limits = Limits(snapshot_commands=500, compaction_entries=40)
    cluster = make_cluster(durability="disk", limits=limits, program=corruptible_node.PROGRAM)
    play(cluster, 2000)
    victim = next(node for node in (1, 2, 3) if node != cluster.wait_leader())
    with Client(cluster.config) as client, open_admin_client(cluster.config, 1.0) as ask:
        client.open_account(78)
        client.deposit(78, "USD", "1", 78_000)
        equal_logs(ask, [1, 2, 3], 30)
        (usd,) = (asset.id for asset in client.assets() if asset.symbol == "USD")
        assert corruptible_node.corrupt(cluster.config, victim, 78, usd, 1)
        client.deposit(78, "USD", "1", 78_001)

        def fenced() -> str | None:
            status = cluster.statuses().get(victim)
            return None if status is None else status.fenced

        message = cluster.wait_for(fenced, 60, f"node {victim} fenced")
        assert f"`smrx node --id {victim} --rebuild`" in message
        assert f"smrx node --id {victim} --rebuild" in smrx(cluster, "cluster", "status", code=Exit.DIVERGED, out=True)
        assert "expected to be the only process here" in smrx(
            cluster, "node", "--id", str(victim), "--rebuild", "--yes", code=Exit.RESOURCE
        )
        cluster.process(victim).terminate()
        cluster.process(victim).wait()
        # The command that the message names.
        cluster.start_node(victim, "--rebuild", "--yes")
        cluster.wait_for(lambda: role(cluster, victim) == "follower", 60, "the rebuilt node as a follower")
        client.deposit(78, "USD", "1", 78_002)
        equal_logs(ask, [1, 2, 3], 30)

        def agreed() -> bool:
            status = cluster.statuses().get(victim)
            return (
                status is not None
                and status.fenced is None
                and status.agreement.state == "AGREE"
                and not status.diverged
            )

        cluster.wait_for(agreed, 60, f"node {victim} in agreement")


def test_damaged_node_is_reported_and_rebuilt(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(durability="disk", limits=Limits(snapshot_commands=500, compaction_entries=40))
    play(cluster, 2000)
    victim = next(node for node in (1, 2, 3) if node != cluster.wait_leader())
    cluster.kill(victim)
    journal = cluster.config.node_dir(victim) / JOURNAL
    damaged = bytearray(journal.read_bytes())
    for at in range(2 * 4096, len(damaged), 1000):
        damaged[at] ^= 0xFF
    journal.write_bytes(damaged)
    message = smrx(cluster, "node", "--id", str(victim), "--quiet", code=Exit.RESOURCE)
    assert message.count("\n") == 1
    assert f"{JOURNAL}" in message
    assert journal.read_bytes() == bytes(damaged), "a damaged file was changed"
    cluster.start_node(victim, "--rebuild", "--yes")
    with Client(cluster.config) as client:
        client.open_account(78)
    with open_admin_client(cluster.config, 1.0) as ask:
        equal_logs(ask, [1, 2, 3], 30)
    cluster.wait_for(lambda: role(cluster, victim) == "follower", 60, "the rebuilt node as a follower")
    assert "removed" in cluster.log_path(victim).read_text()
