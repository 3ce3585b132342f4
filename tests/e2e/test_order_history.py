"""Order history beside a real cluster: an order is open, partly filled, cancelled; the writer is killed between."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.local import LocalCluster
from tests.e2e.test_cluster import open_market

#: Longer than what a command carries itself.
NAME = "the order of this test"

MakeCluster = Callable[..., LocalCluster]


def smrx(cluster: LocalCluster, *arguments: str, code: Exit = Exit.OK) -> Any:
    """Run a command; return its answer, or what it wrote on stderr if it fails with `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), *arguments],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code is Exit.OK else done.stderr


@contextmanager
def writer(cluster: LocalCluster, out: Path) -> Iterator[None]:
    """Run `smrx settle run --history` and kill it at the end."""
    command = [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), "settle", "run", "--out", str(out)]
    with subprocess.Popen([*command, "--history", str(out / "history")], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def service(cluster: LocalCluster, directory: Path) -> Iterator[str]:
    """Run `smrx history serve` on a free port; yield its address."""
    command = [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), "history", "serve", "--port", "0"]
    with subprocess.Popen([*command, "--history", str(directory)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process.stderr.readline().split()[-1]
        finally:
            process.terminate()


def asked(url: str) -> Any:
    """Return an answer of the service; ask again while what is wanted is still to come."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise


def test_life_of_an_order_is_told_across_kills(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster, out = make_cluster(nodes=1), tmp_path / "out"
    with Client(cluster.config, account=0) as client, service(cluster, out / "history") as url:
        open_market(client)
        placed = client.place_limit("BTC-USD", "sell", "50000.00", "1.0", account=1, client_order_id=NAME)

        def order() -> Any:
            """Return the order, as history has it once it holds everything that has happened so far."""
            named = urllib.parse.urlencode({"account": 1, "client_order_id": NAME})
            wanted = f"{url}/v1/orders/by-client-order-id?{named}&min_sequence={client.status().event_sequence}"
            return asked(wanted)["order"]

        with writer(cluster, out):
            shown = order()
            assert (shown["order_id"], shown["status"], shown["price"]) == (placed.order_id, "New", "50000.00")
            client.place_limit("BTC-USD", "buy", "50000.00", "0.25", account=2)
            shown = order()
            assert (shown["status"], shown["filled"], shown["average_price"]) == ("PartiallyFilled", "0.2500", "50000")
            client.replace("BTC-USD", "49000.00", "1.0", order_id=placed.order_id, account=1)
            client.place_limit("BTC-USD", "buy", "49000.00", "0.25", account=2)
        # What happened while the writer was dead, and what it had not committed, is read by the next one.
        client.cancel(placed.order_id, account=1)
        with writer(cluster, out):
            shown = order()
    assert (shown["status"], shown["filled"], shown["average_price"]) == ("Cancelled", "0.5000", "49500")
    place = ["--history", str(out / "history"), "--json"]
    life = smrx(cluster, "history", "order", str(placed.order_id), *place)
    kinds = [step["event"] for step in life["timeline"]]
    assert kinds == ["NEW", "PARTIALLY_FILLED", "REPLACED", "PARTIALLY_FILLED", "CANCELLED"]
    listed = smrx(cluster, "history", "orders", "--account", "2", "--status", "filled", "--limit", "1", *place)
    assert [one["status"] for one in listed["orders"]] == ["Filled"]
    rest = smrx(cluster, "history", "orders", "--account", "2", "--before", str(listed["next"]), *place)
    assert (len(rest["orders"]), rest["next"]) == (1, None)
    fills = smrx(cluster, "history", "fills", "--account", "1", *place)["fills"]
    assert [(fill["price"], fill["quantity"], fill["liquidity"]) for fill in fills] == [
        ("49000.00", "0.2500", "maker"),
        ("50000.00", "0.2500", "maker"),
    ]
    assert "has no such order" in smrx(cluster, "history", "order", "999999", *place, code=Exit.REFUSED)
    late = ["--min-sequence", "999999", "--timeout", "0.1"]
    assert "not yet event 999,999" in smrx(
        cluster, "history", "fills", "--account", "1", *place, *late, code=Exit.UNAVAILABLE
    )
