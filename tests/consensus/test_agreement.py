"""A node whose state diverges is found at once, reported with the exact command, and fenced; no other node is."""

import pytest

from smrx.consensus import NotLeader, Replica
from smrx.consensus.agreement import Agreement, steps
from smrx.consensus.messages import HashReply, HashRequest
from tests.consensus.harness import ENTRY_HEAD, Clock, Cluster, Machine, Member


def cluster_in_agreement(clock: Clock, nodes: int = 3, replica_class: type[Replica] = Replica) -> Cluster:
    cluster = Cluster(clock, nodes=nodes, replica_class=replica_class)
    cluster.elect()
    cluster.commit(30)
    cluster.settle()
    cluster.run(0.3)
    assert {member.replica.agreement.state for member in cluster.members.values()} == {"AGREE"}
    assert {member.replica.agreement.sequence for member in cluster.members.values()} == {31}
    return cluster


def corrupt_at_next_command(cluster: Cluster, member: Member) -> int:
    """Damage a node's memory; return the sequence of the first command that shows it."""
    member.machine.corruption = 1
    first = member.machine.sequence + 1
    leader = cluster.leader()
    assert leader is not None
    cluster.submit(leader)
    return first


def test_corrupted_follower_fences_itself_and_is_reported(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock)
    leader = cluster.leader()
    assert leader is not None
    wrong, right = (member for member in cluster.members.values() if member is not leader)
    first = corrupt_at_next_command(cluster, wrong)
    start = clock.time
    cluster.run_until(lambda: wrong.replica.agreement.fenced is not None, 1.0)
    cluster.run_until(lambda: all(m.replica.agreement.diverged == {wrong.id: first} for m in (leader, right)), 1.0)
    assert clock.time - start < 0.3
    assert wrong.replica.agreement.fenced == (
        f"diverged at command {first}: nodes {min(leader.id, right.id)} and {max(leader.id, right.id)} hold another "
        f"state after it; stop it and run `smrx node --id {wrong.id} --rebuild`: it then catches up with the others"
    )
    assert (wrong.replica.agreement.state, wrong.replica.agreement.sequence) == ("DIVERGED", first)
    assert wrong.replica.agreement.first_divergent == first
    cluster.commit(20)
    cluster.run(0.3)
    assert leader.replica.agreement.state == right.replica.agreement.state == "AGREE"
    assert leader.replica.agreement.sequence >= first + 20
    assert leader.replica.agreement.first_divergent == first
    assert not wrong.replica.is_leader


def test_corrupted_leader_steps_down(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock)
    old = cluster.leader()
    assert old is not None
    first = corrupt_at_next_command(cluster, old)
    cluster.run_until(lambda: old.replica.agreement.fenced is not None, 1.0)
    with pytest.raises(NotLeader):
        old.replica.submit(ENTRY_HEAD)
    cluster.run(5)
    new = cluster.leader()
    assert new is not None
    assert new is not old
    cluster.commit(5)
    assert new.replica.agreement.diverged == {old.id: first}
    assert not old.replica.is_leader


def test_first_divergent_command_is_found_far_back(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock)
    leader = cluster.leader()
    assert leader is not None
    wrong = next(member for member in cluster.members.values() if member is not leader)
    # No node receives its hashes while it diverges by some thousand commands.
    silenced = {node: member.replica.agreement.observe for node, member in cluster.members.items()}
    for member in cluster.members.values():
        member.replica.agreement.observe = lambda *arguments: None  # type: ignore[method-assign]
    first = corrupt_at_next_command(cluster, wrong)
    cluster.commit(700)
    cluster.settle_sequences()
    for node, member in cluster.members.items():
        member.replica.agreement.observe = silenced[node]  # type: ignore[method-assign]
    cluster.run_until(lambda: leader.replica.agreement.diverged == {wrong.id: first}, 1.0)
    cluster.run_until(lambda: wrong.replica.agreement.first_divergent == first, 1.0)


def test_two_nodes_that_differ_both_fence_themselves(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock, nodes=2)
    leader = cluster.leader()
    assert leader is not None
    first = corrupt_at_next_command(cluster, leader)
    cluster.run_until(lambda: all(m.replica.agreement.fenced for m in cluster.members.values()), 3.0)
    for member in cluster.members.values():
        assert f"diverged at command {first}, and no majority" in str(member.replica.agreement.fenced)


def test_fenced_node_agrees_again_after_restart(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock)
    leader = cluster.leader()
    assert leader is not None
    wrong = next(member for member in cluster.members.values() if member is not leader)
    corrupt_at_next_command(cluster, wrong)
    cluster.run_until(lambda: wrong.replica.agreement.fenced is not None, 1.0)
    cluster.crash(wrong.id)
    cluster.restart(wrong.id)
    cluster.commit(3)
    cluster.check_end()
    cluster.run(0.3)
    assert wrong.replica.agreement.state == "AGREE"
    assert leader.replica.agreement.diverged == {}


def test_external_fence_ends_leadership(clock: Clock) -> None:
    cluster = cluster_in_agreement(clock)
    leader = cluster.leader()
    assert leader is not None
    leader.replica.agreement.fence("memory damaged")
    leader.turn()
    assert not leader.replica.is_leader
    cluster.run(3)
    assert cluster.leader() not in (None, leader)


def test_missing_report_is_not_agreement(clock: Clock) -> None:
    cluster = Cluster(clock)
    assert {member.replica.agreement.state for member in cluster.members.values()} == {"NOT COMPARED"}
    alone = Cluster(clock, nodes=1).members[1]
    alone.turn()
    assert alone.replica.agreement.state == "NOT COMPARED"


def test_lagging_node_is_shown_as_behind(clock: Clock) -> None:
    machine = Machine()
    agreement = Agreement(1, [2, 3], machine, lambda node, body: None, lambda node: True)
    agreement.observe(2, 50, 1234, now=1.0)
    agreement.tick(1.1)
    assert agreement.state == "NOT COMPARED"
    agreement.tick(2.0)
    assert agreement.state == "BEHIND"


def test_reported_hash_is_kept_until_it_can_be_compared(clock: Clock) -> None:
    machine, other = Machine(), Machine()
    asked: list[object] = []
    agreement = Agreement(1, [2, 3], machine, lambda node, body: asked.append(body), lambda node: True)
    other.corruption = 1
    other.apply(2, 1, ENTRY_HEAD + bytes(8))
    agreement.observe(2, *other.position(), now=1.0)
    machine.apply(2, 1, ENTRY_HEAD + bytes(8))
    agreement.tick(1.1)
    assert agreement.first_divergent == 1


def test_divergence_is_unnoticed_without_comparison(clock: Clock) -> None:
    class Trusting(Replica):
        """Ignores the hashes of the others."""

        def tick(self) -> None:
            self.agreement.observe = lambda *arguments: None  # type: ignore[method-assign]
            super().tick()

    cluster = Cluster(clock, replica_class=Trusting)
    cluster.elect()
    leader = cluster.leader()
    assert leader is not None
    corrupt_at_next_command(cluster, leader)
    cluster.run(3)
    assert all(member.replica.agreement.fenced is None for member in cluster.members.values())
    assert len({member.machine.position() for member in cluster.members.values()}) == 2


def test_request_without_hashes_in_reply_is_not_repeated_in_a_loop() -> None:
    machine = Machine()
    for number in range(10):
        machine.apply(number, 1, ENTRY_HEAD + number.to_bytes(8, "little"))
    asked: list[HashRequest] = []
    agreement = Agreement(1, [2, 3], machine, lambda node, body: asked.append(body), lambda node: True)  # type: ignore[arg-type]
    agreement.observe(2, 8, 12345, now=1.0)
    for _ in range(100):
        agreement.answered(2, HashReply([(sequence, None) for sequence in asked[-1].sequences]), now=1.01)
    assert len(asked) <= 4


@pytest.mark.parametrize(
    ("first", "last", "most", "expected"),
    [(5, 4, 10, []), (5, 5, 10, [5]), (1, 4, 4, [1, 2, 3, 4]), (1, 100, 4, [25, 50, 75, 100])],
)
def test_steps_are_evenly_spread(first: int, last: int, most: int, expected: list[int]) -> None:
    assert steps(first, last, most) == expected
