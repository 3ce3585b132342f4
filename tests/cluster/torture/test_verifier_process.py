"""The verifier of a run: its books stay correct while nodes lose old events, and another joins after a gap."""

import random
from pathlib import Path

import pytest

from cluster.torture import cluster_under_test
from cluster.torture.cluster_under_test import ClusterUnderTest
from cluster.torture.record_pipe import PipeReader
from cluster.torture.verifier_process import VerifierProcess
from smrx.client import Client
from smrx.config import Limits
from smrx.sim import workload

DEADLINE_S = 60.0


def trade(cluster: ClusterUnderTest, seed: int) -> int:
    """Send orders of two accounts, about one log entry each; return the last event."""
    chance = random.Random(seed)
    for account in (1, 2):
        with Client(cluster.config, account=account) as client:
            for _ in range(40):
                client.submit(*workload.orders(chance, account, 2))
    return max(status.event_sequence for status in cluster.statuses().values())


def restart_all(cluster: ClusterUnderTest) -> None:
    """Restart every node, one after another; each restores the state and no events."""
    for node in cluster.node_ids:
        cluster.kill(node)
        cluster.start_node(node)

        def is_member(node: int = node) -> bool:
            status = cluster.statuses().get(node)
            return status is not None and status.role in ("leader", "follower")

        cluster.wait_for(is_member, DEADLINE_S, f"node {node} to restore the state")


def test_verifier_ends_at_gap_and_another_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_under_test, "LIMITS", Limits(snapshot_commands=2_000, compaction_entries=10))
    reported: list[str] = []
    with PipeReader() as pipes, ClusterUnderTest(tmp_path / "cluster", 3, "memory", pipes) as cluster:
        cluster.wait_leader(DEADLINE_S)
        with Client(cluster.config, account=0) as client:
            client.submit(*workload.setup([1, 2]))
        with VerifierProcess(cluster, reported.append) as verifier:
            before = trade(cluster, 1)
            cluster.wait_for(lambda: verifier.committed >= before, DEADLINE_S, "everything to be settled")
            verifier.kill()
            missed = trade(cluster, 2)
            restart_all(cluster)
            verifier.start()

            def joined() -> bool:
                verifier.check()
                return verifier.committed >= missed

            cluster.wait_for(joined, DEADLINE_S, "another verifier to join")
            after = trade(cluster, 3)
            verifier.finish(after)
            assert verifier.committed >= after
    assert any(f"settled up to event {before} and ended: " in line for line in reported)
    for incarnation in cluster.incarnations:
        assert incarnation.stream.ended.wait(DEADLINE_S)
    result = verifier.audit(cluster.incarnations)
    assert result.verifiers == 2
    assert result.sequence >= after
    assert result.trades > 0
