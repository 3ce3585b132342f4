"""Real processes with wrong clocks: orders with an expiry time, who leads, and what the operator is told."""

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.local import LocalCluster
from smrx.wire.admin import NodeStatus

MakeCluster = Callable[..., LocalCluster]

YEAR = 31_556_952
DAY = 86_400


class Clocks:
    """A cluster of nodes whose clocks a test can shift."""

    def __init__(self, make_cluster: MakeCluster, *, unbounded: bool = False) -> None:
        self.cluster = make_cluster(start=False)
        for node in self.cluster.config.nodes:
            self.shift(node.id, 0)
            self.cluster.programs[node.id] = (
                *(sys.executable, "-m", "tests.e2e.shifted_clock_node", str(self._file(node.id))),
                *(("--unbounded",) if unbounded else ()),
            )
        self.cluster.start()
        self.cluster.wait_leader()
        self.cluster.wait_for(lambda: len(self.cluster.statuses()) == 3, 60, "three nodes")

    def _file(self, node: int) -> Path:
        return self.cluster.directory / f"shift-{node}"

    def shift(self, node: int, seconds: float) -> None:
        """Let the clock of a node be so many seconds ahead from now on."""
        written = self._file(node).with_suffix(".new")
        written.write_text(str(seconds), encoding="ascii")
        written.replace(self._file(node))

    def status(self, node: int) -> NodeStatus | None:
        return self.cluster.statuses().get(node)

    def wait_fault(self, node: int, words: str) -> None:
        """Wait until a node reports a fault of its clock with these words."""

        def reports() -> bool:
            status = self.status(node)
            return status is not None and status.clock_fault is not None and words in status.clock_fault

        self.cluster.wait_for(reports, 60, f"node {node} to report that its clock is {words!r}")


@pytest.fixture
def market(make_cluster: MakeCluster) -> Clocks:
    clocks = Clocks(make_cluster)
    with Client(clocks.cluster.config) as client:
        open_market(client)
    return clocks


def open_market(client: Client) -> None:
    client.add_asset("BTC", 8)
    client.add_asset("USD", 6)
    client.add_instrument("BTC-USD", "BTC", "USD", tick="0.01", lot="0.0001", max_price="1000000", max_quantity="1000")
    client.open_account(1)
    client.deposit(1, "USD", "10000000", 1)


def place(client: Client, price: str, seconds: int) -> str:
    """Place an order that expires in some seconds; return its state."""
    return client.place_limit("BTC-USD", "buy", price, "0.1", account=1, expires=int(time.time()) + seconds).state


def open_prices(client: Client) -> set[str]:
    return {str(order.price) for order in client.orders(account=1)}


def wait_expired(clocks: Clocks, client: Client, price: str) -> None:
    clocks.cluster.wait_for(lambda: price not in open_prices(client), 60, f"the expiry of the order at {price}")


@pytest.mark.parametrize("shift", [70 * YEAR, -50 * YEAR])
def test_leader_whose_clock_jumps_moves_no_time_and_leads_no_longer(
    market: Clocks, shift: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = market.cluster
    first = cluster.wait_leader()
    with Client(cluster.config) as client:
        assert place(client, "100.00", DAY) == "New"
        market.shift(first, shift)
        assert place(client, "101.00", DAY) == "New"
        second = cluster.wait_leader(other_than=first)
        assert place(client, "102.00", 3) == "New"
        wait_expired(market, client, "102.00")
        assert open_prices(client) == {"100.00", "101.00"}
        market.wait_fault(first, "ahead of the majority clock" if shift > 0 else "behind the majority clock")
        status = market.status(second)
        assert status is not None
        assert status.clock_fault is None
        assert abs(status.time_ns / 1e9 - time.time()) < DAY
        peers = {peer.node_id: peer.clock_offset_s for peer in status.peers}
        assert peers[first] == pytest.approx(shift, abs=5)

        report(market, first, shift, capsys)
        market.shift(first, 0)
        cluster.wait_for(lambda: getattr(market.status(first), "clock_fault", "") is None, 60, "a right clock")
        assert cluster.leader() == second
    log = cluster.log_path(first).read_text(encoding="utf-8")
    assert log.count("the majority clock; it leads only if no other member can") == 1
    assert log.count("its clock agrees with the majority's again") == 1


def report(market: Clocks, node: int, shift: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Check what an operator sees of a wrong clock."""
    command = ["--config", str(market.cluster.config_path), "cluster"]
    assert cli.run([*command, "status"]) == Exit.OK
    years = f"{abs(shift) // YEAR}.0 years {'ahead of' if shift > 0 else 'behind'} the majority clock"
    assert f"node {node}: its clock is {years}" in " ".join(capsys.readouterr().out.split())
    assert cli.run([*command, "status", "--json"]) == Exit.OK
    (row,) = (row for row in json.loads(capsys.readouterr().out)["nodes"] if row["node_id"] == node)
    assert row["clock_offset_s"] == pytest.approx(shift, abs=5)
    assert years in row["clock_fault"]
    assert cli.run([*command, "transfer", str(node)]) != Exit.OK
    assert f"the clock of node {node} is {years}" in " ".join(capsys.readouterr().err.split())

    host, port = market.cluster.config.node(node).metrics_bind

    def metrics() -> str:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as reply:
            return str(reply.read().decode())

    market.cluster.wait_for(lambda: "smrx_clock_fault 1.0" in metrics(), 60, "the metric of the fault")
    assert "smrx_clock_offset_seconds" in metrics()


def test_node_that_restarts_with_a_wrong_clock_says_so_and_follows(market: Clocks) -> None:
    cluster = market.cluster
    leader = cluster.wait_leader()
    wrong = leader % 3 + 1
    cluster.kill(wrong)
    market.shift(wrong, 10 * YEAR)
    cluster.start_node(wrong)
    market.wait_fault(wrong, "10.0 years ahead of the majority clock")
    with Client(cluster.config) as client:
        assert place(client, "100.00", DAY) == "New"
        # Of the two that are left, one has the wrong clock: neither is known to be wrong, and the earlier one counts.
        cluster.kill(leader)
        cluster.wait_leader(other_than=leader)
        market.wait_fault(wrong, "no majority of the clocks agrees")
        assert place(client, "101.00", DAY) == "New"
        assert place(client, "102.00", 3) == "New"
        wait_expired(market, client, "102.00")
        assert open_prices(client) == {"100.00", "101.00"}
        cluster.start_node(leader)
        cluster.wait_for(lambda: cluster.leader() not in (None, wrong), 60, "a leader with a right clock")


def test_unbounded_clock_expires_every_order(make_cluster: MakeCluster) -> None:
    """The fault that the tests above look for, put back."""
    clocks = Clocks(make_cluster, unbounded=True)
    with Client(clocks.cluster.config) as client:
        open_market(client)
        assert place(client, "100.00", DAY) == "New"
        first = clocks.cluster.wait_leader()
        clocks.shift(first, 70 * YEAR)
        wait_expired(clocks, client, "100.00")
        clocks.wait_fault(first % 3 + 1, "the time of its state is 70.0 years ahead of the majority clock")
