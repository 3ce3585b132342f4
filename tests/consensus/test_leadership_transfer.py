"""A leader transfers its leadership at once, to a node with the whole log, or refuses."""

import pytest

from smrx.consensus import NotLeader
from smrx.consensus.messages import TimeoutNow
from tests.consensus.harness import Clock, Cluster, Member


def other(cluster: Cluster, leader: Member) -> Member:
    return next(member for member in cluster.members.values() if member is not leader)


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_transfer_takes_a_few_round_trips(clock: Clock, nodes: int) -> None:
    cluster = Cluster(clock, nodes=nodes)
    leader = cluster.elect()
    cluster.commit(10)
    cluster.settle()
    cluster.network.delay = (0.001, 0.001)
    successor = other(cluster, leader)
    assert leader.replica.transfer_leadership(successor.id) == successor.id
    start = clock.time
    leader.turn()
    cluster.run_until(lambda: successor.replica.is_leader)
    # TimeoutNow, vote request, vote: three messages, and no election timeout.
    assert clock.time - start < 0.02
    cluster.run_until(lambda: not leader.replica.is_leader)
    assert not leader.replica.is_transferring
    cluster.commit(10)
    cluster.settle()
    cluster.check_end()


def test_commands_are_refused_during_a_transfer_and_none_is_lost(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.01, 0.01)
    numbers = [cluster.submit(leader) for _ in range(5)]
    successor = cluster.members[leader.replica.transfer_leadership()]
    with pytest.raises(NotLeader):
        cluster.submit(leader)
    cluster.run_until(lambda: successor.replica.is_leader)
    cluster.settle()
    assert set(numbers) <= cluster.acknowledged
    assert all(set(numbers) <= set(member.machine.numbers) for member in cluster.members.values())


def test_transfer_chooses_the_node_with_the_longest_log(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    behind, ahead = (member for member in cluster.members.values() if member is not leader)
    cluster.network.isolate(behind.id, list(cluster.members))
    cluster.submit(leader)
    cluster.run(0.2)
    assert leader.replica.transfer_leadership() == ahead.id
    cluster.run_until(lambda: ahead.replica.is_leader)


def test_transfer_to_unresponsive_node_is_abandoned(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    gone = other(cluster, leader)
    cluster.network.isolate(gone.id, list(cluster.members))
    cluster.submit(leader)
    leader.turn()
    assert leader.replica.transfer_leadership(gone.id) == gone.id
    assert leader.replica.is_transferring
    cluster.run_until(lambda: not leader.replica.is_transferring, 1.0)
    assert leader.replica.is_leader
    cluster.commit(3)


def test_invalid_transfer_is_refused(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    follower = other(cluster, leader)
    with pytest.raises(NotLeader):
        follower.replica.transfer_leadership()
    with pytest.raises(ValueError, match="is not one of the other members with a vote"):
        leader.replica.transfer_leadership(leader.id)
    with pytest.raises(ValueError, match="node 9 is not one of"):
        leader.replica.transfer_leadership(9)
    cluster.crash(follower.id)
    cluster.run_until(
        lambda: not leader.replica.peer_status()[0].connected or not leader.replica.peer_status()[1].connected
    )
    with pytest.raises(ValueError, match=f"node {follower.id} is not connected"):
        leader.replica.transfer_leadership(follower.id)
    alone = Cluster(clock, nodes=1).members[1]
    alone.turn()
    with pytest.raises(ValueError, match="no other member is connected"):
        alone.replica.transfer_leadership()
    assert not leader.replica.is_transferring


def test_only_the_current_leader_can_send_timeout_now(clock: Clock) -> None:
    """A late or forged TimeoutNow must not depose a leader."""
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    first, second = (member for member in cluster.members.values() if member is not leader)
    term = leader.replica.term
    cluster.deliver(first.id, second.id, TimeoutNow())
    cluster.deliver(leader.id, second.id, TimeoutNow(), term=term - 1)
    cluster.run(0.3)
    assert leader.replica.is_leader
    assert leader.replica.term == term
    cluster.deliver(leader.id, second.id, TimeoutNow(), term=term)
    cluster.run_until(lambda: second.replica.is_leader)
    assert second.replica.term == term + 1
