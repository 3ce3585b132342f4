"""Idle connections do not use up the descriptors of a node: they are bounded, reported and closed."""

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx import Client
from smrx.local import LocalCluster

LIMIT = 256
#: Runs smrx with few descriptors.
FEW_DESCRIPTORS = (
    sys.executable,
    "-c",
    "import os, resource, sys\n"
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'smrx', *sys.argv[1:]])",
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path)
    cluster.programs = dict.fromkeys((1, 2, 3), FEW_DESCRIPTORS)
    with cluster:
        cluster.wait_leader()
        yield cluster


def connect(address: str, count: int) -> list[socket.socket]:
    """Open connections and say nothing; stop at the first that fails."""
    host, port = address.removeprefix("tcp://").split(":")
    opened = []
    for _ in range(count):
        try:
            opened.append(socket.create_connection((host, int(port)), timeout=1.0))
        except OSError:
            break
    return opened


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_idle_connections_leave_room_for_clients_members_and_operators(cluster: LocalCluster) -> None:
    leader = cluster.wait_leader()
    node = cluster.config.node(leader)
    descriptors = Path(f"/proc/{cluster.process(leader).pid}/fd")
    with Client(cluster.config) as venue:
        venue.open_account(1)
        outsiders: list[socket.socket] = []
        for address in (node.orders_address, node.admin_address, node.raft_address):
            outsiders += connect(address, 2 * LIMIT)
        try:
            # The client that is connected is served, the leader keeps its followers, and the node answers operators.
            venue.open_account(2)
            assert cluster.wait_leader() == leader
            cluster.wait_for(lambda: len(list(descriptors.iterdir())) < LIMIT * 3 // 4, 60, "free descriptors")
            with Client(cluster.config) as another:
                another.open_account(3)
                assert another.accounts() == [0, 1, 2, 3]
        finally:
            for connection in outsiders:
                connection.close()
    log = cluster.log_path(leader).read_text()
    assert "has its most connections" in log
    host, port = node.metrics_bind
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    (refused,) = (line for line in lines if line.startswith('smrx_connections_refused_total{port="orders"}'))
    assert float(refused.split()[-1]) > 0
