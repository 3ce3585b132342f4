"""Rotation of a node key while orders flow."""

import threading
from pathlib import Path

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.config import load
from smrx.local import LocalCluster
from tests.e2e.test_leadership_transfer import PAUSE_SECONDS

#: How long a node may take to stop: a transfer of leadership takes half a second.
STOP_SECONDS = 30


def restart(cluster: LocalCluster, node: int) -> None:
    """Stop and start a node, and wait until it agrees with the others."""
    cluster.process(node).terminate()
    cluster.process(node).wait(STOP_SECONDS)
    cluster.start_node(node)

    def back() -> bool:
        statuses = cluster.statuses()
        mine = statuses.get(node)
        return mine is not None and mine.role in ("leader", "follower") and mine.agreement.state == "AGREE"

    cluster.wait_for(back, 60, f"node {node} back among the others")


def test_key_rotation_under_load(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    path = str(cluster.config_path)
    assert cli.run(["--config", path, "cluster", "keygen"]) == Exit.OK
    cluster.config = load(path)
    assert cluster.config.curve
    done = threading.Event()
    faults: list[ClientError] = []
    deposits = 0

    def flow() -> None:
        nonlocal deposits
        try:
            with Client(cluster.config, timeout=30) as client:
                client.add_asset("USD", 2)
                client.open_account(1)
                while not done.wait(PAUSE_SECONDS):
                    client.deposit(1, "USD", "1", deposits + 1)
                    deposits += 1
        except ClientError as error:
            faults.append(error)

    with cluster:
        cluster.wait_leader()
        assert cli.run(["--config", path, "cluster", "keygen", "--rotate", "--node", "2"]) == Exit.OK
        # Clients learn of the new key before the node uses it, too.
        cluster.config = load(path)
        old, new = cluster.config.node(2).public_keys
        thread = threading.Thread(target=flow)
        thread.start()
        try:
            for node in (1, 2, 3):
                restart(cluster, node)
            secret = cluster.config.secret_key_path(2)
            secret.with_name(secret.name + ".next").replace(secret)
            restart(cluster, 2)
            cluster.config_path.write_text(cluster.config_path.read_text().replace(f'"{old}", ', ""))
            assert load(path).node(2).public_keys == (new,)
            for node in (1, 2, 3):
                restart(cluster, node)
        finally:
            done.set()
            # The client gives up by itself if nothing answers for 30 s.
            thread.join(2 * STOP_SECONDS)
        assert not thread.is_alive()
        assert faults == []
        assert deposits > 0
        with Client(cluster.config) as client:
            (balance,) = client.balances(1)
            assert str(balance.available) == f"{deposits}.00"
