"""A cluster on the IPv6 loopback address: every port listens there, and every kind of client reaches it."""

import asyncio
import json
import socket
import urllib.request
from collections.abc import Iterator

import pytest

from smrx import AsyncClient, Client, cli
from smrx.cli.exit_codes import Exit
from smrx.feed.subscriber import Subscriber
from smrx.local import LocalCluster


def has_ipv6() -> bool:
    """Return whether this machine has the address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address ::1")


@pytest.fixture(scope="module", params=["::1", "[::1]"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("ipv6"), host=request.param) as cluster:
        cluster.wait_leader()
        yield cluster


def test_orders_events_and_admin_requests_travel_over_ipv6(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = cluster.wait_leader()
    with Client(cluster.config) as venue:
        venue.open_account(1)
        assert venue.accounts() == [0, 1]
    with Subscriber.from_config(cluster.config) as feed:
        events = feed.poll(30.0)
        assert len(events)
        assert events["sequence"][0] == 1

    async def open_another() -> None:
        async with AsyncClient(cluster.config) as client:
            await client.open_account(2)

    asyncio.run(open_another())
    assert cli.run(["--config", str(cluster.config_path), "cluster", "status", "--json"]) == Exit.OK
    assert {row["node_id"] for row in json.loads(capsys.readouterr().out)["nodes"]} == {1, 2, 3}
    host, port = cluster.config.node(leader).metrics_bind
    with urllib.request.urlopen(f"http://[{host}]:{port}/metrics", timeout=30) as reply:
        assert "smrx_term" in reply.read().decode()


def test_clients_that_know_one_order_address_find_the_leader(cluster: LocalCluster) -> None:
    follower = next(node for node in cluster.config.nodes if node.id != cluster.wait_leader())
    assert follower.orders_address.startswith("tcp://[::1]:")
    with Client([follower.orders_address]) as client:
        assert client.accounts()
