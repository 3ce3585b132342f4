"""Plans of torture: the same for a seed, within their time, and none leaves a fault out for ever."""

from cluster.torture.plan import Fault, draw

DISK_ONLY = {Fault.KILL_ALL, Fault.FULL_DISK, Fault.DAMAGE}


def test_a_seed_is_a_plan() -> None:
    assert draw(5, "disk", 60) == draw(5, "disk", 60)
    assert draw(5, "disk", 60) != draw(6, "disk", 60)


def test_steps_come_in_order_and_end_before_the_storm() -> None:
    for seed in range(20):
        times = [step.at_s for step in draw(seed, "memory", 30)]
        assert times == sorted(times)
        assert len(times) > 10
        assert times[-1] < 27


def test_every_fault_is_drawn_and_memory_mode_is_asked_for_nothing_it_does_not_promise() -> None:
    memory = {step.fault for seed in range(30) for step in draw(seed, "memory", 60)}
    disk = {step.fault for seed in range(30) for step in draw(seed, "disk", 60)}
    assert memory == set(Fault) - DISK_ONLY
    assert disk == set(Fault)
