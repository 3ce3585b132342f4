"""Every fault happens and is survived, and network and clock do what they are documented to do."""

from dataclasses import replace

import pytest

from smrx.sim import simulate
from smrx.sim.network import Network
from smrx.sim.profile import CHANGES, FAULTS, SCENARIOS, draw
from smrx.sim.scheduler import Scheduler, generator
from tests.sim import profiles
from tests.sim.profiles import scenario

#: Conditions of the whole fault phase, not events in it.
CONDITIONS = {"lose messages", "repeat messages", "clock drift", "large state"}


@pytest.mark.parametrize("name", FAULTS)
def test_single_fault_happens_and_is_survived(name: str) -> None:
    result = simulate(11, focus=lambda drawn: replace(drawn, nodes=3, durable=True, faults=frozenset({name})))
    assert result.failure is None
    if name not in CONDITIONS:
        assert result.faults > 2
        assert any(f"fault: {name}" in line for line in result.trace.lines(None))


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_single_membership_change_is_committed(name: str, durable: bool) -> None:
    result = simulate(
        11,
        # Not before the bootstrap, which needs all initial nodes.
        focus=lambda drawn: replace(drawn, nodes=3, spares=2, durable=durable, early=False, faults=frozenset({name})),
    )
    assert result.failure is None
    # A node that joins is a learner first: two changes. A replacement removes a node before.
    assert result.member_changes >= {"join": 4, "leave": 1, "replace": 3}[name]


#: A line of the trace that shows the effect of a scenario, if it is more than dropped frames.
SCENARIO_EFFECTS = {
    "out of memory": "could not be applied: OutOfMemory()",
    "upgrade": "starts, process 2",
    "late acknowledgements": "old messages of node",
    "concurrent changes": "accepts a change of the members",
    "two new nodes": "accepts a change of the members",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_single_scenario_happens_and_is_survived(name: str) -> None:
    result = simulate(11, focus=scenario(name))
    assert result.failure is None
    lines = "\n".join(result.trace.lines(None))
    if name not in CONDITIONS:
        assert result.faults > 2
        assert f"fault: {name}" in lines
    assert SCENARIO_EFFECTS.get(name, "") in lines


def test_some_seeds_draw_scenarios() -> None:
    profiles = [draw(seed) for seed in range(300)]
    assert 60 < sum(bool(profile.faults & set(SCENARIOS)) for profile in profiles) < 120
    for name in SCENARIOS:
        assert 25 < sum(name in profile.faults for profile in profiles) < 75, name
    assert all((profile.state_bytes > 0) == ("large state" in profile.faults) for profile in profiles)


def test_some_seeds_draw_membership_changes() -> None:
    profiles = [draw(seed) for seed in range(200)]
    assert 50 < sum(bool(profile.faults & set(CHANGES)) for profile in profiles) < 110
    assert {profile.spares for profile in profiles} == {0, 1, 2}
    assert all((profile.spares > 0) == ("join" in profile.faults) for profile in profiles)


def test_every_fault_is_drawn_by_some_seeds() -> None:
    profiles = [draw(seed) for seed in range(200)]
    for name in FAULTS:
        drawn = sum(name in profile.faults for profile in profiles)
        assert (5 if name == "crash a majority" else 60) <= drawn <= 140, name
    assert {profile.nodes for profile in profiles} == {1, 3, 5}
    assert 40 < sum(profile.durable for profile in profiles) < 120


def test_wall_clocks_jump_by_seconds_and_by_decades_in_both_directions() -> None:
    seconds: list[float] = []
    for seed in range(12):
        result = simulate(seed, focus=profiles.jumping_clocks_only)
        assert result.failure is None
        lines = [line for line in result.trace.lines(None) if "the wall clock of node" in line]
        seconds += [float(line.rsplit(" is ", 1)[1].removesuffix(" s ahead")) for line in lines]
    assert max(seconds) > 10 * 31_556_952
    assert min(seconds) < -10 * 31_556_952
    assert sum(0 < abs(jump) < 10 for jump in seconds) > 5
    assert 0.0 in seconds


class TwoNodes:
    """Two nodes, and what the second receives."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.received: list[bytes] = []
        self.network = Network(self.scheduler, generator("test", 1), 2, (0.01, 0.05))
        self.network.attach(1, lambda source, frame: None)
        self.network.attach(2, lambda source, frame: self.received.append(frame))

    def send(self, count: int) -> list[bytes]:
        frames = [b"%d" % number for number in range(count)]
        for frame in frames:
            self.network.send(1, 2, frame)
        return frames

    def wait(self, seconds: float = 1.0) -> None:
        self.scheduler.run_for(seconds)


def test_connection_keeps_the_order() -> None:
    nodes = TwoNodes()
    sent = nodes.send(50)
    nodes.wait()
    assert nodes.received == sent


def test_broken_connection_loses_messages_in_flight() -> None:
    nodes = TwoNodes()
    nodes.send(5)
    nodes.network.break_link(1, 2, lose=True)
    nodes.send(5)
    nodes.wait()
    assert nodes.received == []
    sent = nodes.send(3)
    nodes.wait()
    assert nodes.received == sent


def test_new_connection_overtakes_the_old_one() -> None:
    nodes = TwoNodes()
    nodes.network.stall(1, 2, 0.5)
    nodes.network.send(1, 2, b"old")
    nodes.network.break_link(1, 2, lose=False)
    nodes.network.reopen(1, 2)
    nodes.network.send(1, 2, b"new")
    nodes.wait()
    assert nodes.received == [b"new", b"old"]


def test_cut_link_delivers_nothing_until_it_heals() -> None:
    nodes = TwoNodes()
    assert nodes.network.cut([1], [1, 2]) == {(1, 2)}
    assert nodes.network.cut([1], [2]) == set()
    nodes.send(3)
    nodes.wait()
    assert nodes.received == []
    nodes.network.heal()
    sent = nodes.send(3)
    nodes.wait()
    assert nodes.received == sent


def test_repeated_and_replayed_messages_arrive_again() -> None:
    nodes = TwoNodes()
    nodes.network.repeats = 1.0
    sent = nodes.send(4)
    nodes.wait(5.0)
    assert sorted(nodes.received) == sorted(2 * sent)
    nodes.received.clear()
    nodes.network.replay_old_frames()
    assert sorted(nodes.received) == sorted(sent)


def test_skewed_clock_advances_with_every_reading() -> None:
    clock = Scheduler().clock
    clock.set_skew(1.5, 20.0)
    first, second = clock(), clock()
    assert first < second
    assert first == pytest.approx(170.0)
    assert clock.to_true_time(clock()) == pytest.approx(clock.time)


def test_held_messages_arrive_on_release_after_those_of_the_new_connection() -> None:
    nodes = TwoNodes()
    nodes.network.hold(1, 2)
    nodes.network.send(1, 2, b"old")
    nodes.wait(100.0)
    assert nodes.received == []
    deliver = nodes.network.release(1, 2)
    assert deliver is not None
    nodes.network.send(1, 2, b"new")
    nodes.wait(100.0)
    deliver()
    assert nodes.received == [b"new", b"old"]


def test_connection_that_held_nothing_has_nothing_to_release() -> None:
    nodes = TwoNodes()
    nodes.network.hold(1, 2)
    assert nodes.network.release(1, 2) is None
