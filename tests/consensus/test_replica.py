"""The replica in the ordinary case: it elects, commits, applies, in one round trip and without idle chatter."""

from collections.abc import Iterator

import pytest

from tests.consensus.harness import Clock, Cluster, simulated


@pytest.fixture
def clock() -> Iterator[Clock]:
    with simulated(1) as clock:
        yield clock


def test_three_nodes_elect_and_commit(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.commit(20)
    cluster.settle()
    assert [member.machine.numbers for member in cluster.members.values()] == [list(range(1, 22))] * 3
    assert {member.replica.role for member in cluster.members.values()} == {"leader", "follower"}


def test_a_node_without_peers_leads_at_once(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=1)
    member = cluster.members[1]
    member.turn()
    assert member.replica.is_leader
    cluster.submit(member)
    member.turn()
    assert member.machine.numbers == [1]
