"""The faults happen, and the network and the clock do what they say."""

from dataclasses import replace

import pytest

from smrx.sim import simulate
from smrx.sim.network import Network
from smrx.sim.profile import CHANGES, FAULTS, LARGE_STATE_BYTES, MISHAPS, draw
from smrx.sim.world import World, chance

#: These are conditions of the whole storm, not events of it.
BACKGROUND = {"lose", "repeat", "drift", "large state"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone_happens_and_is_survived(name: str) -> None:
    verdict = simulate(11, focus=lambda drawn: replace(drawn, nodes=3, durable=True, faults=frozenset({name})))
    assert verdict.failure is None
    if name not in BACKGROUND:
        assert verdict.faults > 2
        assert any(f"fault: {name}" in line for line in verdict.timeline.lines(None))


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_members_alone_is_done(name: str, durable: bool) -> None:
    verdict = simulate(
        11,
        # Not before the cluster has begun, which it does with all of its nodes.
        focus=lambda drawn: replace(drawn, nodes=3, spares=2, durable=durable, early=False, faults=frozenset({name})),
    )
    assert verdict.failure is None
    # A node that joins learns first; one that is replaced goes first, and then learns.
    assert verdict.changes >= {"join": 4, "leave": 1, "replace": 3}[name]


#: A cluster in which each can happen.
MISHAP_NODES = {"late acknowledgements": 5, "hasty changes": 4}
MISHAP_SPARES = {"two newcomers": 2}


@pytest.mark.parametrize("name", MISHAPS)
def test_a_mishap_alone_happens_and_is_survived(name: str) -> None:
    verdict = simulate(
        11,
        focus=lambda drawn: replace(
            drawn,
            nodes=MISHAP_NODES.get(name, 3),
            spares=MISHAP_SPARES.get(name, 0),
            durable=True,
            early=False,
            storm_seconds=4.0,
            state_bytes=LARGE_STATE_BYTES if name == "large state" else 0,
            faults=frozenset({name}),
        ),
    )
    assert verdict.failure is None
    lines = "\n".join(verdict.timeline.lines(None))
    if name not in BACKGROUND:
        assert verdict.faults > 2
        assert f"fault: {name}" in lines
    # What it leads to, where that is more than frames that are dropped.
    assert MISHAP_LEADS_TO.get(name, "") in lines


MISHAP_LEADS_TO = {
    "out of memory": "could not be applied: OutOfMemory()",
    "upgrade": "starts, life 2",
    "late acknowledgements": "long ago arrives",
    "hasty changes": "is asked to change the members",
    "two newcomers": "is asked to change the members",
}


def test_some_seeds_have_mishaps_and_the_others_are_as_they_were() -> None:
    profiles = [draw(seed) for seed in range(300)]
    unlucky = [profile for profile in profiles if profile.faults & set(MISHAPS)]
    assert 60 < len(unlucky) < 120
    for name in MISHAPS:
        assert 25 < sum(name in profile.faults for profile in profiles) < 75, name
    assert all((profile.state_bytes > 0) == ("large state" in profile.faults) for profile in profiles)


def test_some_seeds_change_members_and_the_others_are_as_they_were() -> None:
    profiles = [draw(seed) for seed in range(200)]
    changing = [profile for profile in profiles if profile.faults & set(CHANGES)]
    assert 50 < len(changing) < 110
    assert {profile.spares for profile in profiles} == {0, 1, 2}
    assert all((profile.spares > 0) == ("join" in profile.faults) for profile in profiles)


def test_every_seed_draws_some_of_the_faults() -> None:
    profiles = [draw(seed) for seed in range(200)]
    for name in FAULTS:
        drawn = sum(name in profile.faults for profile in profiles)
        assert (5 if name == "crash a majority" else 60) <= drawn <= 140, name
    assert {profile.nodes for profile in profiles} == {1, 3, 5}
    assert 40 < sum(profile.durable for profile in profiles) < 120


class Ends:
    """Two nodes and what the second hears."""

    def __init__(self) -> None:
        self.world = World()
        self.heard: list[bytes] = []
        self.network = Network(self.world, chance("test", 1), 2, (0.01, 0.05))
        self.network.join(1, lambda source, frame: None)
        self.network.join(2, lambda source, frame: self.heard.append(frame))

    def send(self, count: int) -> list[bytes]:
        frames = [b"%d" % number for number in range(count)]
        for frame in frames:
            self.network.send(1, 2, frame)
        return frames

    def wait(self, seconds: float = 1.0) -> None:
        self.world.run_until(self.world.now + seconds)


def test_a_connection_keeps_the_order() -> None:
    ends = Ends()
    sent = ends.send(50)
    ends.wait()
    assert ends.heard == sent


def test_a_broken_connection_loses_what_it_carries() -> None:
    ends = Ends()
    ends.send(5)
    ends.network.break_link(1, 2, lose=True)
    ends.send(5)
    ends.wait()
    assert ends.heard == []
    sent = ends.send(3)
    ends.wait()
    assert ends.heard == sent


def test_a_new_connection_overtakes_the_old_one() -> None:
    ends = Ends()
    ends.network.stall(1, 2, 0.5)
    ends.network.send(1, 2, b"old")
    ends.network.break_link(1, 2, lose=False)
    ends.network.reopen(1, 2)
    ends.network.send(1, 2, b"new")
    ends.wait()
    assert ends.heard == [b"new", b"old"]


def test_nothing_passes_a_cut() -> None:
    ends = Ends()
    ends.network.cuts.add((1, 2))
    ends.send(3)
    ends.wait()
    assert ends.heard == []
    ends.network.heal()
    sent = ends.send(3)
    ends.wait()
    assert ends.heard == sent


def test_repeats_and_echoes_come_again() -> None:
    ends = Ends()
    ends.network.repeats = 1.0
    sent = ends.send(4)
    ends.wait(5.0)
    assert sorted(ends.heard) == sorted(2 * sent)
    ends.heard.clear()
    ends.network.echo()
    assert sorted(ends.heard) == sorted(sent)


def test_a_nodes_clock_drifts_and_jumps_and_never_stands() -> None:
    world = World()
    world.clock.view(1.5, 20.0)
    first, second = world.clock(), world.clock()
    assert first < second
    assert first == pytest.approx(170.0)
    assert world.clock.true(world.clock()) == pytest.approx(world.now)


def test_what_a_connection_holds_arrives_when_it_is_let_go_and_new_words_before() -> None:
    ends = Ends()
    ends.network.hold(1, 2)
    ends.network.send(1, 2, b"old")
    ends.world.run_until(200.0)
    assert ends.heard == []
    arrive = ends.network.let_go(1, 2)
    assert arrive is not None
    ends.network.send(1, 2, b"new")
    ends.world.run_until(300.0)
    arrive()
    assert ends.heard == [b"new", b"old"]


def test_a_connection_that_held_nothing_has_nothing_to_deliver() -> None:
    ends = Ends()
    ends.network.hold(1, 2)
    assert ends.network.let_go(1, 2) is None
