"""Row 1: a snapshot frame proves nothing about the receiver's log, so its commit index must not commit that log."""

import pytest

from smrx.consensus import ConsensusError, Replica
from tests.consensus import stock
from tests.consensus.harness import Clock, Cluster, simulated


def deposed_leader_meets_a_snapshot(clock: Clock, replica_class: type[Replica]) -> Cluster:
    """A leader is cut off with a tail of its own, the others go on and compact; then the cut heals."""
    cluster = Cluster(clock, replica_class=replica_class, compaction_entries=8, chunk_bytes=50)
    old = cluster.elect()
    cluster.settle()
    cluster.network.isolate(old.id, cluster.ids)
    for _ in range(30):
        cluster.submit(old)
    cluster.run_until(lambda: not old.replica.is_leader)
    cluster.run_until(lambda: cluster.leader() is not None)
    cluster.commit(60)
    cluster.network.heal()
    cluster.commit()
    cluster.check_end()
    return cluster


def test_the_tail_of_a_deposed_leader_is_not_committed() -> None:
    with simulated(3) as clock:
        cluster = deposed_leader_meets_a_snapshot(clock, Replica)
    assert all(member.machine.numbers[-1] == cluster.log[max(cluster.log)][1][2] for member in cluster.members.values())


def test_without_the_answer_it_is() -> None:
    with simulated(3) as clock, pytest.raises(ConsensusError, match="where another node applied"):
        deposed_leader_meets_a_snapshot(clock, stock.TrustsAnyCommitIndex)
