"""Cancel-on-disconnect with real processes: a killed client loses its open orders, a live one keeps them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smrx.client import Client
from smrx.config import Timing
from smrx.local import LocalCluster

#: Short, so that the test is fast, but many heartbeat intervals even on a loaded machine.
DISCONNECT_MS = 1500
DEADLINE_S = 30.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a client process and return once its orders are placed; it is killed after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def client(
        cluster: LocalCluster, account: int, cancel_on_disconnect: bool, *prices: str
    ) -> subprocess.Popen[bytes]:
        option = "yes" if cancel_on_disconnect else "no"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.e2e.order_placing_client", str(cluster.config_path)),
                *(str(account), option, *prices),
            ],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield client
    for process in processes:
        process.kill()
        with process:  # Waits, and closes the pipes.
            pass


def open_market(cluster: LocalCluster) -> None:
    with Client(cluster.config) as venue:
        venue.add_asset("BTC", 8)
        venue.add_asset("USD", 6)
        venue.add_instrument("BTC-USD", "BTC", "USD", tick="0.01", lot="0.0001", max_price="10000", max_quantity="1000")
        for account in (1, 2):
            venue.open_account(account)
            venue.deposit(account, "USD", "100000", account)


def prices(cluster: LocalCluster) -> dict[int, list[str | None]]:
    """Return the prices of the open orders by account."""
    with Client(cluster.config) as venue:
        found = venue.orders(all_accounts=True)
    return {account: [order.price for order in found if order.account == account] for account in (1, 2)}


def assert_for(seconds: float, cluster: LocalCluster, expected: dict[int, list[str | None]]) -> None:
    """Check repeatedly for some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert prices(cluster) == expected
        time.sleep(0.05)


def wait_for(cluster: LocalCluster, expected: dict[int, list[str | None]]) -> None:
    cluster.wait_for(lambda: prices(cluster) == expected, DEADLINE_S, f"open orders {expected}")


def test_only_the_killed_client_loses_its_orders(make_cluster: Callable[..., LocalCluster], start: Start) -> None:
    cluster = make_cluster(nodes=1, timing=Timing(disconnect_ms=DISCONNECT_MS))
    open_market(cluster)
    leaving = start(cluster, 1, True, "100.00", "101.00")
    staying = start(cluster, 2, True, "102.00")
    careless = start(cluster, 1, False, "103.00")
    everything = {1: ["100.00", "101.00", "103.00"], 2: ["102.00"]}
    # Idle for longer than the session timeout: only the heartbeats keep the session.
    assert_for(1.5 * DISCONNECT_MS / 1000, cluster, everything)
    leaving.kill()
    careless.kill()
    killed_at = time.monotonic()
    wait_for(cluster, {1: ["103.00"], 2: ["102.00"]})
    assert time.monotonic() - killed_at >= 0.7 * DISCONNECT_MS / 1000, "cancelled before it was silent for long enough"
    # Closing the session cancels its orders at once.
    staying.communicate(timeout=DEADLINE_S)
    wait_for(cluster, {1: ["103.00"], 2: []})


def test_new_leader_cancels_orders_of_a_client_killed_before(
    make_cluster: Callable[..., LocalCluster], start: Start
) -> None:
    cluster = make_cluster(timing=Timing(disconnect_ms=DISCONNECT_MS))
    open_market(cluster)
    leaving = start(cluster, 1, True, "100.00")
    start(cluster, 2, True, "102.00")
    leader = cluster.wait_leader()
    cluster.kill(leader)
    cluster.wait_leader(other_than=leader)
    assert_for(1.5 * DISCONNECT_MS / 1000, cluster, {1: ["100.00"], 2: ["102.00"]})
    leaving.kill()
    wait_for(cluster, {1: [], 2: ["102.00"]})
