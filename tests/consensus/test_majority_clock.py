"""The bound of a leader's stamps, and what a node does whose clock differs from the others'."""

import logging
from dataclasses import dataclass, field

import pytest

from smrx.config import NodeConfig
from smrx.consensus.majority_clock import LATEST_NS, MajorityClock
from tests.consensus.harness import TIMING, Clock, Cluster, Member, simulated

SECOND = 1_000_000_000
YEARS_70 = 70 * 365 * 86_400 * SECOND
YEARS_50 = 50 * 31_556_952 * SECOND
NOW_NS = 1_700_000_000 * SECOND
SKEW = TIMING.max_clock_skew_ms * 1_000_000
REPORT_S = TIMING.leader_fallback_ms / 1000


@dataclass
class Voters:
    """The other voters of node 1."""

    voters: frozenset[int]
    is_voter: bool = True

    @property
    def majority(self) -> int:
        return (len(self.voters) + self.is_voter) // 2 + 1


@dataclass
class Node:
    """The clock of node 1; by member, how far its clock is ahead; true time."""

    others: tuple[int, ...] = (2, 3)
    is_voter: bool = True
    ahead: dict[int, int] = field(default_factory=dict)
    time: float = 100.0
    sent: int = 0

    def __post_init__(self) -> None:
        self.clock = MajorityClock(
            1,
            Voters(frozenset(self.others), self.is_voter),
            lambda: self.wall(1),
            max_skew_ms=TIMING.max_clock_skew_ms,
            report_ms=TIMING.leader_fallback_ms,
        )

    def wall(self, node: int) -> int:
        return NOW_NS + int((self.time - 100.0) * SECOND) + self.ahead.get(node, 0)

    def hear(self, *nodes: int, delay: float = 0.001) -> None:
        """Read a message of each of these, sent `delay` seconds ago."""
        for node in nodes or self.others:
            self.sent += 1
            self.clock.observe(node, self.sent, self.wall(node) - int(delay * SECOND), self.time)

    def run(self, seconds: float, *nodes: int) -> None:
        """Hear these nodes, by default all, every 50 ms."""
        for _ in range(round(seconds / 0.0501)):
            self.time += 0.0501
            if nodes != (0,):
                self.hear(*nodes)
            self.clock.tick(self.time)

    def stamp(self) -> int:
        """Return how far the next stamp is ahead of true time."""
        return self.clock.stamp_ns(self.time) - (self.wall(1) - self.ahead.get(1, 0))


def near(found: int, expected: int, seconds: float = 0.002) -> bool:
    return abs(found - expected) <= seconds * SECOND


def test_leader_stamps_its_own_clock_while_the_clocks_agree() -> None:
    node = Node(ahead={1: SECOND // 4, 2: -SECOND // 4})
    node.run(2.0)
    assert node.stamp() == SECOND // 4
    assert node.clock.verdict == "right"


@pytest.mark.parametrize("jump", [2 * SECOND, 3600 * SECOND, YEARS_70, 500 * YEARS_70])
def test_clock_that_jumps_ahead_moves_the_stamp_by_the_skew_only(jump: int) -> None:
    node = Node()
    node.run(2.0)
    node.ahead[1] = jump
    assert near(node.stamp(), SKEW)
    node.run(5.0)
    assert near(node.stamp(), SKEW)
    assert node.clock.verdict == "ahead"


def test_clock_that_is_behind_does_not_stop_the_time() -> None:
    node = Node()
    node.run(2.0)
    node.ahead[1] = -YEARS_50
    before = node.clock.stamp_ns(node.time)
    node.run(3.0)
    assert near(node.stamp(), -SKEW)
    assert near(node.clock.stamp_ns(node.time) - before, 3 * SECOND, 0.05)
    assert node.clock.verdict == "behind"


def test_one_wrong_clock_of_three_changes_nothing_for_the_others() -> None:
    for wrong in (YEARS_50, -YEARS_50):
        node = Node(ahead={3: wrong})
        node.run(3.0)
        assert node.stamp() == 0
        assert node.clock.verdict == "right"
        fault = node.clock.peer_fault(3, node.time)
        assert fault is not None
        direction = "ahead of" if wrong > 0 else "behind"
        assert fault == f"the clock of node 3 is 50.0 years {direction} the majority clock"


def test_majority_that_is_ahead_is_followed() -> None:
    node = Node(ahead={2: YEARS_70, 3: YEARS_70})
    node.run(3.0)
    assert near(node.stamp(), YEARS_70 - SKEW)
    assert node.clock.verdict == "behind"


def test_nothing_is_allowed_before_a_majority_was_heard() -> None:
    node = Node(others=(2, 3, 4, 5))
    assert node.clock.stamp_ns(node.time) == 0
    node.hear(2)
    assert node.clock.stamp_ns(node.time) == 0
    node.hear(3)
    assert node.stamp() == 0


def test_without_a_majority_the_last_bound_holds() -> None:
    node = Node()
    node.run(2.0)
    bound = node.wall(1) + SKEW
    node.ahead[1] = YEARS_70
    node.run(60.0, 0)
    assert node.clock.stamp_ns(node.time) <= bound + REPORT_S * SECOND


def test_one_node_alone_has_only_its_own_clock() -> None:
    node = Node(others=())
    node.ahead[1] = YEARS_70
    node.run(3.0)
    assert node.stamp() == YEARS_70
    assert node.clock.verdict == "right"


def test_clocks_of_learners_do_not_count() -> None:
    node = Node(others=(2,), ahead={2: 0, 4: YEARS_70, 5: YEARS_70, 1: YEARS_70})
    node.run(2.0, 2, 4, 5)
    assert near(node.stamp(), SKEW)


def test_learner_is_judged_by_the_voters() -> None:
    node = Node(is_voter=False, ahead={1: YEARS_70})
    node.run(2.0)
    assert node.clock.verdict == "ahead"


def test_delayed_messages_do_not_set_a_clock_back() -> None:
    node = Node()
    node.run(2.0)
    node.time += 0.1
    node.hear(2, 3, delay=0.3)
    assert near(node.clock.stamp_ns(node.time) - node.wall(1), 0)
    assert node.clock.offset_seconds(node.time, 2) == pytest.approx(-0.001, abs=0.002)


def test_message_that_arrives_again_reports_no_clock() -> None:
    """Nodes 2 and 3 are not ahead at one time, only in their old and new messages together."""
    node = Node(ahead={2: YEARS_70})
    node.hear(2)
    old = (node.sent, node.wall(2))
    node.ahead = {}
    node.run(1.0)
    node.ahead = {1: YEARS_70}
    node.clock.observe(2, *old, node.time)
    assert near(node.stamp(), SKEW)


def test_clock_that_is_set_back_is_known_after_a_report_expires() -> None:
    node = Node(ahead={2: 10 * SECOND})
    node.run(2.0)
    node.ahead = {}
    node.run(REPORT_S + 0.1)
    assert node.clock.offset_seconds(node.time, 2) == pytest.approx(0.0, abs=0.002)


def test_new_incarnation_counts_its_messages_anew() -> None:
    node = Node()
    node.run(2.0)
    node.clock.forget(2)
    node.sent, node.ahead = 0, {2: YEARS_70}
    node.hear(2)
    assert node.clock.peer_fault(2, node.time) is not None


def test_monotonic_clock_that_jumps_extrapolates_no_further_than_a_report_counts() -> None:
    node = Node()
    node.run(2.0)
    node.ahead[1] = YEARS_70
    true_now = node.wall(1) - YEARS_70
    assert node.clock.stamp_ns(node.time + 300.0) <= true_now + SKEW + REPORT_S * SECOND


def test_paused_machine_whose_clock_is_corrected_at_once_is_not_wrong() -> None:
    """Monotonic time stands still during the pause: the reports of the others seem to be new."""
    node = Node()
    node.run(2.0)
    for other in (1, 2, 3):
        node.ahead[other] = 3600 * SECOND
    node.clock.tick(node.time)
    assert node.stamp() <= 3600 * SECOND
    node.run(1.0)
    assert node.clock.verdict == "right"
    assert near(node.stamp(), 3600 * SECOND)


def test_paused_machine_whose_clock_is_not_corrected_is_behind() -> None:
    node = Node()
    node.run(2.0)
    node.ahead.update({2: 3600 * SECOND, 3: 3600 * SECOND})
    node.run(2.0)
    assert node.clock.verdict == "behind"
    assert near(node.stamp(), 3600 * SECOND - SKEW)


def test_two_of_three_that_disagree_follow_the_earlier_clock() -> None:
    """The third is silent: either may be right. Both say so, and neither is known to be wrong."""
    for own, other in ((YEARS_70, 0), (0, YEARS_70)):
        node = Node(ahead={1: own, 2: other})
        node.run(3.0, 2)
        assert node.clock.verdict == "no majority"
        assert 0 <= node.stamp() <= SKEW
        assert node.clock.fault(node.time) == (
            "no majority of the clocks agrees within 1 s; the exchange uses the latest time that a majority has "
            "reached; correct the clocks"
        )


def test_four_that_are_two_and_two_follow_the_earlier_clocks() -> None:
    for own in (0, YEARS_70):
        node = Node(others=(2, 3, 4), ahead={1: own, 2: own, 3: YEARS_70 - own, 4: YEARS_70 - own})
        node.run(3.0)
        assert node.clock.verdict == "no majority"
        assert 0 <= node.stamp() <= SKEW


def test_three_that_all_disagree_follow_the_middle_one() -> None:
    ahead = {1: -YEARS_50, 2: 0, 3: YEARS_70}
    node = Node(ahead=ahead)
    node.run(3.0)
    assert node.clock.verdict == "behind"
    assert near(node.stamp(), -SKEW)
    middle = Node(ahead={1: 0, 2: -YEARS_50, 3: YEARS_70})
    middle.run(3.0)
    assert middle.clock.verdict == "no majority"
    assert middle.stamp() == 0


def test_silent_voter_may_be_right_so_nobody_is_wrong() -> None:
    node = Node(others=(2, 3, 4, 5), ahead={1: YEARS_70, 2: YEARS_70})
    node.run(3.0, 2, 3)
    assert node.clock.verdict == "no majority"
    node.run(3.0, 2, 3, 4, 5)
    assert node.clock.verdict == "ahead"


def test_verdict_is_confirmed_logged_once_and_withdrawn(caplog: pytest.LogCaptureFixture) -> None:
    node = Node(ahead={1: YEARS_70})
    node.hear()
    with caplog.at_level(logging.INFO):
        node.run(0.9)
        assert node.clock.verdict == "right"
        assert node.clock.judge(node.time) == "ahead"
        node.run(5.0)
        node.ahead = {}
        node.run(5.0)
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == [
        "node 1: its clock",
        "node 1: its clock agrees with the majority's again",
    ]
    assert "ahead of the majority clock; it leads only if no other member can" in caplog.records[0].getMessage()


def test_verdict_stays_while_no_majority_is_heard() -> None:
    node = Node(ahead={1: -YEARS_50})
    node.run(2.0)
    node.run(10.0, 0)
    assert node.clock.verdict == "behind"
    assert node.clock.fault(node.time) is None


def test_state_from_the_future_is_reported() -> None:
    node = Node()
    node.run(2.0)
    assert node.clock.fault(node.time, node.wall(1) + SKEW) is None
    fault = node.clock.fault(node.time, node.wall(1) + 10 * 86_400 * SECOND)
    assert fault is not None
    assert fault.startswith("the time of its state is 10.0 days ahead of the majority clock")


@pytest.mark.parametrize(("wall", "own"), [(-5, 0), (0, 0), (1 << 70, LATEST_NS)])
def test_clock_out_of_range_is_the_nearest_time_that_a_message_can_carry(wall: int, own: int) -> None:
    clock = MajorityClock(1, Voters(frozenset()), lambda: wall, max_skew_ms=1, report_ms=1)
    assert clock.own_ns() == own
    assert clock.stamp_ns(0.0) == own


# Clusters.


def others(cluster: Cluster, member: Member) -> list[Member]:
    return [other for other in cluster.members.values() if other is not member]


def stamp_ahead(cluster: Cluster, member: Member) -> int:
    """Return how far a stamp of the member is ahead of true time."""
    return member.replica.stamp_ns() - (cluster.wall_ns(member.id) - cluster.wall_offset_ns[member.id])


@pytest.mark.parametrize("jump", [YEARS_70, -YEARS_50, 5 * SECOND, -5 * SECOND])
def test_leader_whose_clock_jumps_transfers_its_leadership(clock: Clock, jump: int) -> None:
    cluster = Cluster(clock)
    first = cluster.elect()
    cluster.run(1.0)
    term = first.replica.term
    cluster.wall_offset_ns[first.id] = jump
    assert abs(stamp_ahead(cluster, first)) <= SKEW + SECOND // 100
    cluster.run_until(lambda: cluster.leader() not in (None, first), 3.0, "another leader")
    second = cluster.leader()
    assert second is not None
    # A transfer, not an election after a timeout, and it stays.
    assert second.replica.term == term + 1
    cluster.commit(5)
    cluster.run(10.0)
    assert cluster.leader() is second
    assert abs(stamp_ahead(cluster, second)) <= SECOND // 100
    assert first.replica.clock_fault(0) is not None
    assert second.replica.clock_fault(0) is None
    peers = {peer.node_id: peer.clock_offset_s for peer in second.replica.peer_status()}
    assert peers[first.id] == pytest.approx(jump / SECOND, abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_node_with_a_wrong_clock_leaves_the_election_to_others(seed: int) -> None:
    with simulated(seed) as clock:
        cluster = Cluster(clock, seed)
        leader = cluster.elect()
        cluster.settle()
        wrong, right = others(cluster, leader)
        cluster.wall_offset_ns[wrong.id] = YEARS_70
        cluster.run(0.2)
        leader.crash()
        # The wrong one hears one other clock only: it cannot know who is right, and may lead; its stamps are bounded.
        cluster.run_until(lambda: cluster.leader() is not None)
        assert stamp_ahead(cluster, wrong) <= SKEW + SECOND // 100
        leader.start()
        cluster.run_until(lambda: leader.replica.holds_log, what="the crashed node with its log")
        cluster.run(8.0)
        assert cluster.leader() is not wrong
        cluster.leader().turn()  # type: ignore[union-attr]
        cluster.check_end()
        assert right.up


@pytest.mark.parametrize("seed", range(6))
def test_node_that_restarts_with_a_wrong_clock_does_not_campaign(seed: int) -> None:
    with simulated(seed) as clock:
        cluster = Cluster(clock, seed, nodes=5)
        leader = cluster.elect()
        cluster.settle()
        wrong = others(cluster, leader)[0]
        wrong.crash()
        cluster.wall_offset_ns[wrong.id] = -YEARS_50
        wrong.start()
        cluster.run_until(lambda: wrong.replica.holds_log)
        leader.crash()
        cluster.run_until(lambda: cluster.leader() is not None)
        assert cluster.leader() is not wrong
        cluster.commit(3)
        assert cluster.leader() is not wrong


def test_wrong_clock_leads_if_it_alone_has_the_newest_entry(clock: Clock) -> None:
    """The entry is on the two nodes with wrong clocks; the third, with the middle clock, cannot win."""
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    companion, cut_off = others(cluster, leader)
    cluster.network.isolate(cut_off.id, list(cluster.members))
    cluster.submit(leader)
    cluster.run(0.3)
    cluster.wall_offset_ns.update({leader.id: YEARS_70, companion.id: -YEARS_50})
    cluster.network.cut |= {(leader.id, companion.id), (companion.id, leader.id)}
    cluster.run_until(lambda: cluster.leader() is None)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.leader() is not None, 6.0, "a leader")
    assert cluster.leader() is not cut_off
    # Once the third has the log, it leads.
    cluster.run_until(lambda: cluster.leader() is cut_off, 8.0, "the middle clock to lead")
    cluster.commit(3)
    cluster.check_end()


def test_clocks_of_which_none_agree_stop_nothing(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    cluster.wall_offset_ns.update({node: (node - 3) * YEARS_50 // 4 for node in cluster.ids})
    cluster.elect()
    cluster.run(8.0)
    cluster.commit(5)
    leader = cluster.leader()
    assert leader is cluster.members[3]
    assert abs(stamp_ahead(cluster, leader)) <= SECOND // 100
    assert "no majority of the clocks agrees" in str(leader.replica.clock_fault(0))
    cluster.check_end()


def test_leader_with_a_wrong_clock_and_no_successor_leads_on(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    for other in others(cluster, leader):
        # Neither campaigns nor takes over, but it votes and its clock counts.
        other.replica.elections.may_start_election = lambda: False  # type: ignore[method-assign]
        other.replica._raft._hooks = other.replica._raft._hooks._replace(may_start_election=lambda: False)
    cluster.wall_offset_ns[leader.id] = YEARS_70
    cluster.run(20.0)
    assert cluster.leader() is leader
    assert leader.replica.clock.is_wrong
    cluster.commit(5)
    assert stamp_ahead(cluster, leader) <= SKEW + SECOND // 100


def test_transfer_to_a_wrong_clock_is_refused_if_named_and_avoided_if_not(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    wrong, right = others(cluster, leader)
    cluster.wall_offset_ns[wrong.id] = YEARS_70
    cluster.run(1.0)
    with pytest.raises(ValueError, match=rf"the clock of node {wrong.id} is .* years ahead .*; nothing was changed"):
        leader.replica.transfer_leadership(wrong.id)
    assert leader.replica.transfer_leadership() == right.id


def test_leader_that_stops_hands_over_to_a_wrong_clock_if_there_is_no_other(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    cluster.settle()
    wrong, right = others(cluster, leader)
    cluster.wall_offset_ns[wrong.id] = YEARS_70
    right.crash()
    cluster.run(1.5)
    assert leader.replica.transfer_leadership() == wrong.id
    cluster.run_until(lambda: wrong.replica.is_leader, 1.0, "the successor to lead")


def test_single_node_leads_with_any_clock(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=1)
    cluster.wall_offset_ns[1] = YEARS_70
    leader = cluster.elect()
    assert leader.replica.stamp_ns() == cluster.wall_ns(1)
    assert leader.replica.clock_fault(cluster.wall_ns(1)) is None


def test_joining_node_with_a_wrong_clock_changes_no_stamp(clock: Clock) -> None:
    cluster = Cluster(clock)
    leader = cluster.elect()
    joining = cluster.join()
    cluster.wall_offset_ns[joining.id] = YEARS_70
    leader.replica.add_member(NodeConfig(id=joining.id, port=joining.id))
    cluster.run(0.3)
    assert abs(stamp_ahead(cluster, leader)) <= SECOND // 100
    cluster.run_until(lambda: joining.id in leader.replica.membership.voters)
    cluster.run(3.0)
    assert abs(stamp_ahead(cluster, leader)) <= SECOND // 100
    assert joining.replica.clock.is_wrong
    cluster.commit(3)


def test_fresh_leader_has_heard_a_majority(clock: Clock) -> None:
    cluster = Cluster(clock, nodes=5)
    cluster.run_until(lambda: cluster.leader() is not None)
    leader = cluster.leader()
    assert leader is not None
    assert leader.replica.stamp_ns() == cluster.wall_ns(leader.id)
