"""The time of the loop is counted once, for the stage that ended."""

import time

import pytest

from smrx.node import stage_times
from smrx.node.stage_times import Stage, StageTimes


def test_every_nanosecond_counts_for_the_stage_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100, 130, 131, 190])
    monkeypatch.setattr(stage_times.time, "perf_counter_ns", lambda: next(clock))
    stages = StageTimes()
    for stage in (Stage.WAIT, Stage.DECODE, Stage.WAIT):
        stages.end(stage)
    assert {stage: spent for stage, spent in stages.ns.items() if spent} == {Stage.WAIT: 89, Stage.DECODE: 1}


def test_stages_add_up_to_the_time_that_passed() -> None:
    before = time.perf_counter_ns()
    stages = StageTimes()
    for stage in Stage:
        stages.end(stage)
    assert sum(stages.ns.values()) <= time.perf_counter_ns() - before
    assert list(stages.ns) == list(Stage)
