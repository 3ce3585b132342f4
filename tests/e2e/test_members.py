"""Nodes join and leave a running cluster while orders flow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from smrx.cli.exit_codes import Exit
from smrx.config import dump, load
from smrx.local import LocalCluster
from tests.e2e.test_leadership_transfer import check, flow

MakeCluster = Callable[..., LocalCluster]


def smrx(cluster: LocalCluster, *arguments: str, code: Exit = Exit.OK) -> str:
    """Run an operator's command; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), *arguments],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code is Exit.OK else done.stderr


def three_of_four(make_cluster: MakeCluster) -> LocalCluster:
    """Start nodes 1 to 3 of a cluster of four; the cluster file names all four afterwards."""
    cluster = make_cluster(nodes=4, start=False)
    four = cluster.config
    cluster.config = msgspec.structs.replace(four, nodes=four.nodes[:3])
    cluster.config_path.write_text(dump(cluster.config))
    cluster.start()
    cluster.wait_leader()
    cluster.config = four
    cluster.config_path.write_text(dump(four))
    return cluster


def test_nodes_join_and_leave_under_load(make_cluster: MakeCluster) -> None:
    cluster = three_of_four(make_cluster)
    with flow(cluster) as running:
        assert "did not become a voter" in smrx(cluster, "cluster", "add", "4", "--timeout", "1", code=Exit.UNAVAILABLE)
        cluster.start_node(4)
        assert "node 4 is now a voting member; members: 1, 2, 3, 4" in smrx(cluster, "cluster", "add", "4")
        assert "already" in smrx(cluster, "cluster", "add", "4")
        smrx(cluster, "cluster", "transfer", "4")
        # Removing the leader transfers leadership first.
        report = json.loads(smrx(cluster, "cluster", "remove", "4", "--json"))
        assert report["voters"] == [1, 2, 3]
        assert cluster.process(4).wait(20) == 0
        smrx(cluster, "cluster", "remove", "2")
        assert cluster.process(2).wait(20) == 0
        moved = running.deposits
        cluster.wait_for(lambda: running.deposits > moved + 5, 60, "deposits with two nodes")
    check(cluster, running)


def test_dead_node_is_replaced_by_an_empty_one(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with flow(cluster) as running:
        dead = next(i for i in (1, 2, 3) if i != cluster.wait_leader())
        cluster.kill(dead)
        shutil.rmtree(cluster.config.node_dir(dead))
        smrx(cluster, "cluster", "remove", str(dead))
        assert f"node {dead}: not a member (members: " in smrx(cluster, "cluster", "status")
        cluster.start_node(dead)
        smrx(cluster, "cluster", "add", str(dead))
        status = json.loads(smrx(cluster, "cluster", "status", "--json"))
        assert all(node["member"] for node in status["nodes"])
        assert [node["agreement_text"].split()[0] for node in status["nodes"]] == ["AGREE"] * 3
    check(cluster, running)


@pytest.mark.parametrize("command", [["add", "9"], ["transfer", "9"]])
def test_node_not_in_the_cluster_file_is_refused(make_cluster: MakeCluster, command: list[str]) -> None:
    cluster = make_cluster(nodes=1)
    assert "its nodes are 1" in smrx(cluster, "cluster", *command, code=Exit.USAGE)
    assert "not a member" in smrx(cluster, "cluster", "remove", "9")
    assert "is the only voter" not in smrx(cluster, "cluster", "status")
    assert load(Path(cluster.config_path)) == cluster.config
