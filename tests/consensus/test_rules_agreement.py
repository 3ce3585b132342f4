"""The next version of the rules needs every member, and a node that lacks the version in force stops."""

import pytest

from smrx.config import NodeConfig
from smrx.consensus.context import UnknownRules
from smrx.consensus.messages import AppendEntries, RulesVersions, SnapshotChunk, decode
from tests.consensus.harness import Clock, Cluster, Member

OLD, NEW, SWITCHED = RulesVersions(1, 1, 1), RulesVersions(1, 2, 1), RulesVersions(1, 2, 2)


def elected(clock: Clock, versions: RulesVersions = NEW) -> tuple[Cluster, Member]:
    cluster = Cluster(clock)
    for member in cluster.members.values():
        member.machine.versions = versions
    leader = cluster.elect()
    cluster.settle()
    return cluster, leader


def others(cluster: Cluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members.values() if member is not leader]


def test_every_member_has_the_next_version(clock: Clock) -> None:
    cluster, leader = elected(clock)
    cluster.run(0.5)
    assert leader.replica.rules.next_version() == 2


def test_refusal_names_each_member_that_lacks_the_version(clock: Clock) -> None:
    cluster, leader = elected(clock)
    lacking, silent = others(cluster, leader)
    lacking.machine.versions = OLD
    cluster.run(0.5)
    cluster.crash(silent.id)
    cluster.run(2.0)
    with pytest.raises(ValueError) as caught:
        leader.replica.rules.next_version()
    first, second = sorted([f"node {lacking.id} applies version 1 only", f"node {silent.id} does not answer"])
    assert str(caught.value) == (
        f"the rules stay at version 1: {first}; {second}; every member has to run a program with version 2 first"
    )


def test_leader_that_lacks_the_version_names_itself(clock: Clock) -> None:
    cluster, leader = elected(clock)
    leader.machine.versions = OLD
    cluster.run(0.5)
    with pytest.raises(ValueError, match=f"node {leader.id} applies version 1 only; every member"):
        leader.replica.rules.next_version()


def test_learner_counts_as_well(clock: Clock) -> None:
    cluster, leader = elected(clock)
    learner = cluster.join()
    leader.replica.add_member(NodeConfig(id=learner.id, port=learner.id))
    cluster.run_until(lambda: learner.replica.leader_id == leader.id)
    with pytest.raises(ValueError, match=f"node {learner.id} "):
        leader.replica.rules.next_version()
    learner.machine.versions = NEW
    cluster.run(0.5)
    assert leader.replica.rules.next_version() == 2


def test_restarted_member_counts_only_with_what_it_says_now(clock: Clock) -> None:
    cluster, leader = elected(clock)
    cluster.run(0.5)
    downgraded = others(cluster, leader)[0]
    cluster.crash(downgraded.id)
    cluster.restart(downgraded.id)
    downgraded.machine.versions = OLD
    cluster.run_until(lambda: leader.transport.incarnation_of(downgraded.id) == downgraded.meta.incarnation)
    cluster.run(0.5)
    with pytest.raises(ValueError, match=f"node {downgraded.id} applies version 1 only"):
        leader.replica.rules.next_version()


def test_node_that_lacks_the_rules_in_force_stops_and_is_sent_no_entries(clock: Clock) -> None:
    cluster, leader = elected(clock)
    stopped = others(cluster, leader)[0]
    cluster.crash(stopped.id)
    for member in cluster.members.values():
        member.machine.versions = SWITCHED
    cluster.commit(3)
    sent: list[object] = []
    transmit = leader.transport._transmit

    def watch(peer: int, frame: bytes) -> bool:
        envelope = decode(frame)
        assert not isinstance(envelope, str)
        if peer == stopped.id:
            sent.append(envelope.body)
        return transmit(peer, frame)

    leader.transport._transmit = watch  # type: ignore[method-assign]
    cluster.restart(stopped.id)
    stopped.machine.versions = OLD
    with pytest.raises(UnknownRules) as caught:
        cluster.run(5.0)
    assert str(caught.value).startswith("version 2 of the rules is in force on node ")
    assert str(caught.value).endswith(
        f", and the program of node {stopped.id} applies version 1 only; run a newer program on this node"
    )
    assert not any(isinstance(body, SnapshotChunk) for body in sent)
    assert not any(body.entries for body in sent if isinstance(body, AppendEntries))
    cluster.crash(stopped.id)
    cluster.commit(3)


def test_entries_with_unknown_rules_stop_the_node_with_the_sentence_of_the_machine(clock: Clock) -> None:
    cluster, leader = elected(clock, OLD)
    follower = others(cluster, leader)[0]

    def refuse(index: int, term: int, command: bytes) -> None:
        raise UnknownRules("version 2 of the rules is in force")

    follower.machine.on_apply = refuse
    cluster.submit(leader)
    with pytest.raises(UnknownRules, match=r"^version 2 of the rules is in force$"):
        cluster.run(5.0)
    with pytest.raises(UnknownRules):
        follower.turn()


def test_exchange_begins_with_the_newest_version_of_all_members(clock: Clock) -> None:
    cluster, leader = elected(clock)
    assert leader.replica.has_applied_earlier_terms
    assert leader.replica.rules.first_version() == 2
    others(cluster, leader)[0].machine.versions = OLD
    cluster.run(0.5)
    assert leader.replica.rules.first_version() == 1


def test_exchange_waits_for_a_silent_member_but_not_for_ever(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    cluster, leader = elected(clock)
    silent = others(cluster, leader)[0]
    view = leader.replica._context.views[silent.id]
    cluster.crash(silent.id)
    cluster.run(0.1)
    # As if the leader had restarted and never heard of it.
    view.incarnation = 0
    assert leader.replica.rules.first_version() is None
    cluster.run(5.0)
    assert leader.replica.rules.first_version() == 1
    assert f"node {silent.id} has not said which versions its program has" in caplog.text
