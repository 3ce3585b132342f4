"""A cluster of real processes: trading, kills, restarts, late nodes, corruption, metrics and start-up errors."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cluster.cluster_checks import equal_logs, read_events
from smrx.cli.exit_codes import Exit
from smrx.client import AsyncClient, Client
from smrx.client.admin_client import open_admin_client
from smrx.config import Limits, dump
from smrx.local import LocalCluster
from smrx.wire.codes import EventKind

MakeCluster = Callable[..., LocalCluster]


def open_market(client: Client) -> None:
    client.add_asset("BTC", 8)
    client.add_asset("USD", 6)
    client.add_instrument("BTC-USD", "BTC", "USD", tick="0.01", lot="0.0001", max_price="1000000", max_quantity="1000")
    for account in (1, 2):
        client.open_account(account)
        client.deposit(account, "BTC", "100", 10 * account)
        client.deposit(account, "USD", "10000000", 10 * account + 1)


def wait_role(cluster: LocalCluster, node: int, role: str) -> None:
    cluster.wait_for(
        lambda: getattr(cluster.statuses().get(node), "role", None) == role, 60, f"node {node} as a {role}"
    )


def smrx(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_orders_trade_and_all_nodes_reach_the_same_state(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with Client(cluster.config) as client:
        open_market(client)
        client.place_limit("BTC-USD", "sell", "50000.00", "0.5", account=1)
        taken = client.place_limit("BTC-USD", "buy", "50000.00", "0.2", account=2)
        assert taken.state == "Filled"
        book = client.depth("BTC-USD")
        assert [(str(level.price), str(level.quantity)) for level in book.asks] == [("50000.00", "0.3000")]
    with open_admin_client(cluster.config, 1.0) as ask:
        state = equal_logs(ask, [1, 2, 3])
    assert state.trades == 1
    for node in (1, 2, 3):
        events = read_events(cluster.config, [node], state.event_sequence)
        assert events["sequence"].tolist() == list(range(1, state.event_sequence + 1))
        assert (events["kind"] == EventKind.TRADE).sum() == 1


async def _ask_async(cluster: LocalCluster) -> list[int]:
    async with AsyncClient(cluster.config) as client:
        await client.open_account(7)
        return await client.accounts()


@pytest.mark.asyncio
async def test_async_client_on_a_real_cluster(make_cluster: MakeCluster) -> None:
    assert 7 in await _ask_async(make_cluster())


def test_killed_leader_is_replaced_and_rejoins(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with Client(cluster.config) as client:
        open_market(client)
        for round_number in range(3):
            first = cluster.wait_leader()
            order = client.place_limit("BTC-USD", "buy", "100.00", "1", account=1)
            cluster.kill(first)
            # The client finds the new leader and repeats the request.
            cancelled = client.cancel(order.order_id, account=1)
            assert cancelled.state == "Cancelled", round_number
            cluster.start_node(first)
            with open_admin_client(cluster.config, 1.0) as ask:
                equal_logs(ask, [1, 2, 3], 30)
            wait_role(cluster, first, "follower")


def test_node_far_behind_restores_a_snapshot_under_load(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(limits=Limits(compaction_entries=20))
    with Client(cluster.config) as client:
        open_market(client)
        absent = next(node for node in (1, 2, 3) if node != cluster.wait_leader())
        cluster.kill(absent)
        for _ in range(100):
            order = client.place_limit("BTC-USD", "buy", "100.00", "1", account=1)
            client.cancel(order.order_id, account=1)
        cluster.start_node(absent)
        client.place_limit("BTC-USD", "buy", "100.00", "1", account=1)
    with open_admin_client(cluster.config, 1.0) as ask:
        equal_logs(ask, [1, 2, 3], 30)
    assert "installed the state" in cluster.log_path(absent).read_text()


def test_without_a_majority_nothing_is_acknowledged_and_status_says_why(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with Client(cluster.config) as client:
        client.open_account(1)
    alone = cluster.wait_leader()
    for node in (1, 2, 3):
        if node != alone:
            cluster.kill(node)
    waiting = "waiting for a majority to be connected (1 of 3 members are)"

    def is_waiting() -> bool:
        return getattr(cluster.statuses().get(alone), "waiting", None) == waiting

    cluster.wait_for(is_waiting, 60, f"node {alone} {waiting}")
    assert cluster.leader() is None
    status = smrx(cluster, "cluster", "status", "--json")
    assert status.returncode == Exit.UNAVAILABLE
    agreement = {node["node_id"]: node["agreement"] for node in json.loads(status.stdout)["nodes"]}
    assert sum(text == "UNREACHABLE" for text in agreement.values()) == 2


def test_all_nodes_restarted_at_once_do_not_start_empty(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with Client(cluster.config) as client:
        client.open_account(1)
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start()
    waiting = cluster.wait_for(
        lambda: [s.waiting for s in cluster.statuses().values() if s.waiting and "holds state" in s.waiting],
        20,
        "nodes that wait for state",
    )
    assert waiting[0] == "waiting for a majority that holds state"
    assert cluster.leader() is None


def test_paused_leader_is_replaced_and_agrees_when_resumed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with Client(cluster.config) as client:
        client.open_account(1)
        paused = cluster.wait_leader()
        cluster.signal(paused, signal.SIGSTOP)
        client.open_account(2)
        cluster.signal(paused, signal.SIGCONT)
        client.open_account(3)
    with open_admin_client(cluster.config, 1.0) as ask:
        equal_logs(ask, [1, 2, 3], 20)


def test_metrics_and_health_over_http(shared_cluster: LocalCluster) -> None:
    leader = shared_cluster.wait_leader()
    host, port = shared_cluster.config.node(leader).metrics_bind

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=30) as reply:
            return str(reply.read().decode())

    assert shared_cluster.wait_for(lambda: "smrx_leader 1.0" in get("/metrics"), 60, "the leader's metrics")
    assert json.loads(get("/health"))["role"] == "leader"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("/nothing")


@pytest.mark.parametrize("port", ["port", "orders_port", "events_port", "admin_port", "metrics_port"])
def test_port_in_use_has_a_message_and_an_exit_code(tmp_path: Path, port: str) -> None:
    cluster = LocalCluster(tmp_path)
    number = getattr(cluster.config.nodes[0], port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))
        other.listen()
        result = smrx(cluster, "node", "--id", "1", "--quiet")
    assert result.returncode == Exit.RESOURCE
    assert result.stderr.count("\n") == 1
    assert str(number) in result.stderr
    assert "Traceback" not in result.stderr


def test_data_directory_of_another_node_or_cluster_is_refused(tmp_path: Path, make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.stop()
    theirs = cluster.config.node_dir(1)
    theirs.rename(theirs.with_name("node-9"))
    cluster.config.node_dir(2).rename(theirs)
    result = smrx(cluster, "node", "--id", "1", "--quiet")
    assert result.returncode == Exit.RESOURCE
    assert "expected the data of node 1, found that of node 2" in result.stderr
    other = msgspec.structs.replace(cluster.config, cluster="another")
    cluster.config_path.write_text(dump(other))
    result = smrx(cluster, "node", "--id", "3", "--quiet")
    assert result.returncode == Exit.RESOURCE
    assert "cluster 'another'" in result.stderr


def test_second_process_of_a_node_is_refused(shared_cluster: LocalCluster) -> None:
    result = smrx(shared_cluster, "node", "--id", "2", "--quiet")
    assert result.returncode == Exit.RESOURCE
    assert "expected to be the only process here" in result.stderr
    assert shared_cluster.running(2)
