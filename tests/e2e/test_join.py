"""Books that start from a state image beside a real cluster whose nodes no longer hold the earlier events."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster import corruptible_node
from cluster.order_flow import OrderFlow
from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.config import Limits
from smrx.follower.checkpoint_store import CheckpointStore
from smrx.local import LocalCluster
from smrx.settlement.ledger import Ledger
from smrx.settlement.ledger_factory import LedgerFactory
from smrx.tape.generate import generate
from smrx.wire.admin import Balances, BalancesReply

MakeCluster = Callable[..., LocalCluster]

#: Fewer than the events before the books start, more than those after.
RING = 8_000


class Settle:
    """`smrx settle` processes that use one folder."""

    def __init__(self, cluster: LocalCluster, out: Path) -> None:
        self._command = ["--config", str(cluster.config_path), "settle"]
        self.out = out

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "smrx", *self._command, *arguments, "--out", str(self.out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = Exit.OK) -> str:
        """Run to the end; return the output, or the error message."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = cli.run([*self._command, *arguments, "--out", str(self.out)])
        assert found == code, err.getvalue() + out.getvalue()
        return out.getvalue() if code == Exit.OK else err.getvalue()

    def checkpoint(self) -> dict[str, Any]:
        path = self.out / "settlement" / "checkpoint.json"
        return dict(json.loads(path.read_bytes())["checkpoint"]) if path.exists() else {}

    def further_than(self, sequence: int) -> bool | None:
        return int(self.checkpoint().get("event_sequence", 0)) > sequence or None

    def books(self, cluster: LocalCluster) -> Ledger:
        store = CheckpointStore(self.out / "settlement", LedgerFactory(), Ledger)
        assert store.open(cluster.config.cluster) is not None
        ledger = store.base()
        ledger.post(store.journal())
        store.close()
        return ledger


def newest(cluster: LocalCluster) -> int:
    return max(status.event_sequence for status in cluster.statuses().values())


def caught_up(cluster: LocalCluster, node: int) -> bool | None:
    statuses = cluster.statuses()
    return (node in statuses and statuses[node].event_sequence == newest(cluster)) or None


def owned(cluster: LocalCluster) -> list[tuple[int, int, int, int]]:
    """Return the balances of all accounts as the cluster reports them."""
    with open_admin_client(cluster.config, 5.0) as ask:
        reply = ask(cluster.leader() or 1, Balances())
    assert isinstance(reply, BalancesReply)
    return [(row.account, row.asset, row.available, row.held) for row in reply.rows if row.available or row.held]


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_books_from_a_state_image_balance_exactly(make_cluster: MakeCluster, tmp_path: Path, durability: str) -> None:
    cluster = make_cluster(durability=durability, limits=Limits(event_ring=RING))
    tape = generate(12_000, seed=1)
    ends = (0, 9_000, 9_600, 10_600, 12_000)
    before, meanwhile, first, second = (tape.flow.part(*part) for part in pairwise(ends))
    with Client(cluster.config, account=0) as client:
        client.submit(*tape.setup)
    flow = OrderFlow(cluster.config, before, rate=6_000.0)
    flow.start()
    flow.wait_for(len(before.records), 60)
    assert newest(cluster) > RING
    restarted = (cluster.leader() or 1) % 3 + 1
    cluster.kill(restarted)
    cluster.start_node(restarted)
    cluster.wait_for(partial(caught_up, cluster, restarted), 60, "the restarted node to hold what the others do")

    settle = Settle(cluster, tmp_path / "out")
    error = settle.run("run", "--idle", "1", code=Exit.GAP)
    assert "events 1 to" in error
    assert "start with the present state with --join" in error
    assert settle.checkpoint() == {}

    flow = OrderFlow(cluster.config, meanwhile, rate=200.0)
    flow.start()
    verifier = settle.start("run", "--join")
    try:
        cluster.wait_for(lambda: settle.checkpoint().get("origin"), 60, "books to begin")
        origin = settle.checkpoint()["origin"]
        flow.wait_for(len(meanwhile.records), 60)
        flow = OrderFlow(cluster.config, first, rate=3_000.0)
        flow.start()
        cluster.wait_for(partial(settle.further_than, origin["event_sequence"]), 60, "settlement to go on")
    finally:
        verifier.kill()
        verifier.communicate()
    assert origin["event_sequence"] > 1
    assert len(origin["attested_by"]) >= 2
    assert origin["members"] == 3
    flow.wait_for(len(first.records), 60)
    flow = OrderFlow(cluster.config, second, rate=3_000.0)
    flow.start()
    flow.wait_for(len(second.records), 60)
    last = newest(cluster)
    report = json.loads(settle.run("run", "--join", "--until-sequence", str(last), "--json"))
    assert (report["sequence"], report["origin"], report["excluded"]) == (last, origin, [])
    books = settle.books(cluster)
    assert [(b.account, b.asset, b.available, b.held) for b in books.balances() if b.total] == owned(cluster)
    books.check_sums()

    for arguments in (["verify"], ["verify", "--from-nodes"]):
        output = settle.run(*arguments)
        assert f"everything from event {origin['event_sequence'] + 1:,} up to event {last:,}" in output
        assert f"books begin after event {origin['event_sequence']:,}" in output
    lines = (tmp_path / "out" / "settled_trades.csv").read_bytes().count(b"\n")
    assert lines == 1 + books.trades - origin["match_id"]
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        assert cli.run(["settle", "report", "--path", str(tmp_path / "out"), "--json"]) == Exit.OK
    found = json.loads(report.getvalue())
    assert found["origin"] == origin
    assert any(float(row["opening"]) > 0 for row in found["balances"])


def test_differing_state_images_are_named_and_a_minority_is_refused(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(program=corruptible_node.PROGRAM)
    with Client(cluster.config, account=0) as client:
        client.submit(*generate(10, seed=1).setup)
    account, asset, available, _ = owned(cluster)[0]
    bad = (cluster.leader() or 1) % 3 + 1
    assert corruptible_node.corrupt(cluster.config, bad, account, asset, 1)
    one = Settle(cluster, tmp_path / "one")
    process = one.start("run", "--join", "--idle", "0.5", "--json")
    out, error = process.communicate(timeout=60)
    assert process.returncode == Exit.OK, error
    assert f"node {bad} gives another state image" in error
    assert f"balances, account {account}, asset {asset}: available {available + 1}, expected" in error
    assert bad not in json.loads(out)["origin"]["attested_by"]

    other = bad % 3 + 1
    assert corruptible_node.corrupt(cluster.config, other, account, asset, 2)
    # A node may give the image of the first run again as long as its command is the last.
    with Client(cluster.config, account=0) as client:
        client.open_account(5)
    two = Settle(cluster, tmp_path / "two")
    error = two.run("run", "--join", code=Exit.DIVERGED)
    assert "2 of 3 nodes must give the same state image, and they differ" in error
    assert two.checkpoint() == {}
    for node in (bad, other):
        cluster.kill(node)
    error = two.run("run", "--join", "--connect-timeout", "1", code=Exit.UNATTESTED)
    assert "2 of 3 nodes must give the same state image, and did not within 1 s" in error
    assert f"node {bad}: no answer" in error
    assert two.checkpoint() == {}
