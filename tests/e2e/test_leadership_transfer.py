"""Leadership transfer and a rolling restart while orders flow."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.local import LocalCluster

MakeCluster = Callable[..., LocalCluster]

#: Between two requests of a flow: some hundred a second meet every step of a restart, and leave the processors to it.
PAUSE_SECONDS = 0.003


class DepositFlow:
    """A client that makes deposits of one unit, one after another."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.deposits = 0
        self.faults: list[ClientError] = []
        self._cluster = cluster
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with Client(self._cluster.config) as client:
                client.add_asset("USD", 0)
                client.open_account(1)
                while not self._done.wait(PAUSE_SECONDS):
                    client.deposit(1, "USD", "1", self.deposits + 1)
                    self.deposits += 1
        except ClientError as error:
            self.faults.append(error)

    def start(self) -> None:
        self._thread.start()
        self._cluster.wait_for(lambda: self.deposits > 10, 60, "deposits")

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


@contextmanager
def flow(cluster: LocalCluster) -> Iterator[DepositFlow]:
    running = DepositFlow(cluster)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def check(cluster: LocalCluster, done: DepositFlow) -> None:
    assert done.faults == []
    with Client(cluster.config) as client:
        (balance,) = client.balances(1)
    assert str(balance.available) == str(done.deposits)


def test_leadership_transfer_under_load(make_cluster: MakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = make_cluster()
    command = ["--config", str(cluster.config_path), "cluster", "transfer"]
    with flow(cluster) as running:
        for _ in range(3):
            before = cluster.wait_leader()
            successor = before % 3 + 1
            moved_at = running.deposits
            assert cli.run([*command, str(successor)]) == Exit.OK
            cluster.wait_for(lambda at=moved_at: running.deposits > at + 5, 60, "deposits under the new leader")
            assert cluster.wait_leader() == successor
            assert re.search(
                rf"transferred from node {before} to node {successor}, observed after [0-9.]+ ms",
                capsys.readouterr().out,
            )
        assert cli.run([*command, str(successor), "--json"]) == Exit.OK
        assert json.loads(capsys.readouterr().out) == {"from": successor, "to": successor, "seen_after_ms": 0}
        assert cli.run([*command, "9"]) == Exit.USAGE
    check(cluster, running)


def test_rolling_restart_fails_no_request(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()

    def back(node: int) -> bool:
        status = cluster.statuses().get(node)
        return status is not None and status.role in ("leader", "follower") and status.agreement.state == "AGREE"

    with flow(cluster) as running:
        for node in (1, 2, 3):
            cluster.process(node).terminate()
            assert cluster.process(node).wait(60) == 0
            cluster.start_node(node)
            cluster.wait_for(lambda node=node: back(node), 60, f"node {node} back among the others")
    check(cluster, running)
