"""Fault plans: equal for a seed, ordered in time, and over many seeds with every fault."""

from cluster.torture.fault_plan import Fault, draw_plan

DISK_ONLY = {Fault.KILL_ALL, Fault.FULL_DISK, Fault.DAMAGE_FILE}


def test_same_seed_gives_same_plan() -> None:
    assert draw_plan(5, "disk", 60) == draw_plan(5, "disk", 60)
    assert draw_plan(5, "disk", 60) != draw_plan(6, "disk", 60)


def test_faults_are_ordered_and_start_before_the_last_tenth() -> None:
    for seed in range(20):
        times = [planned.at_s for planned in draw_plan(seed, "memory", 30)]
        assert times == sorted(times)
        assert len(times) > 10
        assert times[-1] < 27


def test_every_fault_is_drawn_and_disk_faults_only_in_disk_mode() -> None:
    memory = {planned.fault for seed in range(30) for planned in draw_plan(seed, "memory", 60)}
    disk = {planned.fault for seed in range(30) for planned in draw_plan(seed, "disk", 60)}
    assert memory == set(Fault) - DISK_ONLY
    assert disk == set(Fault)
