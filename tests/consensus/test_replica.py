"""The replica without faults: it elects a leader, commits in one round trip, and sends little when idle."""

import pytest

from smrx.consensus import NotLeader, messages
from smrx.consensus.messages import AppendEntries
from tests.consensus.harness import Clock, Cluster


def test_three_nodes_elect_and_commit(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.commit(20)
    cluster.settle()
    assert [member.machine.numbers for member in cluster.members.values()] == [list(range(1, 22))] * 3
    assert sorted(member.replica.role for member in cluster.members.values()) == ["follower", "follower", "leader"]
    assert {member.replica.leader_id for member in cluster.members.values()} == {leader.id}
    assert {member.replica.waiting for member in cluster.members.values()} == {None}


def test_node_without_peers_leads_at_once(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=1)
    member = cluster.members[1]
    member.turn()
    assert member.replica.is_leader
    cluster.submit(member)
    member.turn()
    assert member.machine.numbers == [1]


def test_command_commits_after_one_round_trip_and_followers_learn_it_soon(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.001, 0.001)
    cluster.run(0.01)
    cluster.network.keep_sent = True
    start = clock.time
    number = cluster.submit(leader)
    leader.turn()
    cluster.run_until(lambda: number in cluster.acknowledged)
    assert clock.time - start == pytest.approx(0.002, abs=1e-4)
    cluster.settle()
    # Half a trip, and the millisecond in which another entry could have carried the commit index.
    assert clock.time - start == pytest.approx(0.004, abs=1e-4)
    kinds = [type(messages.decode(frame).body).__name__ for _, _, frame in cluster.network.sent]
    # Two appends, two acknowledgements, two words of the commit; a heartbeat or two may fall in between.
    assert len(kinds) <= 6 + 6


def test_under_load_entries_carry_the_commit_index(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.001, 0.001)
    cluster.network.keep_sent = True
    for _ in range(500):
        cluster.submit(leader)
        leader.turn()
        cluster.run(0.0005)
    bodies = [messages.decode(frame).body for source, _, frame in cluster.network.sent if source == leader.id]
    empty = [body for body in bodies if isinstance(body, AppendEntries) and not body.entries]
    assert len(bodies) - len(empty) < 1100
    assert len(empty) < 60
    cluster.settle()


def test_the_next_entry_carries_the_commit_index(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.0001, 0.0001)
    cluster.network.keep_sent = True
    for _ in range(100):
        number = cluster.submit(leader)
        leader.turn()
        cluster.run_until(lambda number=number: number in cluster.acknowledged)
    bodies = [messages.decode(frame).body for source, _, frame in cluster.network.sent if source == leader.id]
    empty = [body for body in bodies if isinstance(body, AppendEntries) and not body.entries]
    assert len(bodies) - len(empty) == 200
    # 20 ms: a heartbeat to each.
    assert len(empty) <= 2
    cluster.settle()


def test_ticks_in_quick_succession_commit_and_leave_what_can_wait(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    cluster.network.delay = (0.0001, 0.0001)
    judged: list[float] = []
    leader.replica.clock.tick = judged.append  # type: ignore[method-assign]
    start = clock.time
    for _ in range(200):
        number = cluster.submit(leader)
        leader.turn()
        cluster.run_until(lambda number=number: number in cluster.acknowledged)
    assert clock.time - start == pytest.approx(0.04, abs=1e-3)
    # Every 5 ms, and two or three ticks for each command.
    assert 7 <= len(judged) <= 9


def test_idle_cluster_sends_few_messages(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.settle()
    cluster.network.keep_sent = True
    cluster.run(10)
    # A period of 50 ms: two heartbeats, two answers, and the followers' greetings to each other.
    assert len(cluster.network.sent) / 10 / 20 <= 6.5


def test_only_the_leader_accepts_commands(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    for member in cluster.members.values():
        if member is not leader:
            with pytest.raises(NotLeader):
                cluster.submit(member)


def test_new_leader_is_elected_soon_after_a_crash(clock: Clock) -> None:
    for _ in range(5):
        cluster = Cluster(clock)
        leader = cluster.elect()
        cluster.commit(5)
        cluster.crash(leader.id)
        start = clock.time
        cluster.run_until(lambda c=cluster, old=leader: c.leader() not in (None, old))
        cluster.commit()
        assert clock.time - start < 2.0


def test_next_deadline_is_in_the_near_future(clock: Clock) -> None:
    cluster = Cluster(clock)
    for _ in range(200):
        for member in cluster.members.values():
            assert abs(member.replica.next_deadline() - clock.time) < 2.0
        cluster.step(clock.time + 0.05)


def test_status_names_what_the_node_waits_for(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.crash(2)
    cluster.crash(3)
    cluster.run(2)
    beginning = "a new cluster starts once all of its nodes have connected"
    assert cluster.members[1].replica.waiting == f"waiting for node 2, 3: {beginning}"
    cluster = Cluster(clock)
    cluster.bootstrap()
    cluster.run(0.2)
    cluster.crash(2)
    cluster.crash(3)
    cluster.run(2)
    assert cluster.members[1].replica.waiting == "waiting for a majority to be connected (1 of 3 members are)"
    cluster.restart(2)
    cluster.run(0.1)
    assert cluster.members[1].replica.waiting in {None, "waiting for a leader to be elected"}
    cluster.elect()
    cluster.run(0.2)
    peers = {peer.node_id: peer for peer in cluster.members[1].replica.peer_status()}
    assert peers[2].connected
    assert not peers[3].connected
    assert peers[3].silent_s > 2
    assert peers[2].sequence == 1
