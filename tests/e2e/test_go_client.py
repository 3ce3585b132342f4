"""A client in Go, written from docs/protocol.md alone, places and cancels an order on a cluster of real processes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from smrx.client import Client
from smrx.local import LocalCluster
from smrx.wire.codes import EventKind, OutcomeStatus

SOURCE = Path(__file__).resolve().parent.parent / "go_client"
GO = shutil.which("go")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GO is None:
        pytest.skip("Go is not installed: the Go client is not built")
    built = tmp_path_factory.mktemp("go") / "client"
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOCACHE": str(built.parent / "cache")}
    done = subprocess.run(
        [GO, "build", "-o", str(built), "."],
        cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return built


def test_go_client_places_and_cancels_an_order(program: Path, shared_cluster: LocalCluster) -> None:
    with Client(shared_cluster.config) as client:
        client.add_asset("GOBASE", 8)
        client.add_asset("GOQUOTE", 6)
        client.add_instrument(
            "GOBASE-GOQUOTE-SPOT", "GOBASE", "GOQUOTE", tick="0.01", lot="0.0001", max_price="1000000",
            max_quantity="1000",
        )  # fmt: skip
        client.open_account(4001)
        client.deposit(4001, "GOQUOTE", "1000", 4001)
        instrument = next(found.id for found in client.instruments() if found.symbol == "GOBASE-GOQUOTE-SPOT")
        # Any node answers the first PING: the client finds the leader by itself.
        for node in shared_cluster.config.nodes:
            address = node.orders_address.removeprefix("tcp://")
            done = subprocess.run(
                [str(program), address, "4001", str(instrument)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            opened, placed, cancelled, again = (line.split() for line in done.stdout.splitlines())
            accepted = str(int(OutcomeStatus.ACCEPTED))
            assert opened[:3] == ["OPEN_SESSION", "status", accepted]
            assert placed[:5] == ["PLACE", "status", accepted, "event_kind", str(int(EventKind.NEW))]
            assert cancelled[:5] == ["CANCEL", "status", accepted, "event_kind", str(int(EventKind.CANCELLED))]
            assert cancelled[-1] == placed[-1] != "0"
            assert again[2:] == cancelled[1:]
        assert client.orders(account=4001) == []


def test_go_client_without_a_cluster_says_what_failed(program: Path) -> None:
    done = subprocess.run(
        [str(program), "127.0.0.1:1", "1", "1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
