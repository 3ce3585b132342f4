"""What a turn may spend for one purpose, and the part of the time that all turns may."""

import pytest

from smrx.node.turn_budget import TimeShare


def test_share_has_a_burst_and_then_a_part_of_the_time() -> None:
    share = TimeShare(0.25, 0.02, 100.0)
    share.charge(0.015)
    assert share.is_open(100.0)
    share.charge(0.015)
    assert not share.is_open(100.0)
    assert share.opens_at == pytest.approx(100.04)
    assert not share.is_open(100.039)
    assert share.is_open(100.041)


def test_time_that_nobody_spends_is_kept_up_to_the_burst() -> None:
    share = TimeShare(0.25, 0.02, 0.0)
    assert share.is_open(1000.0)
    share.charge(0.02)
    assert not share.is_open(1000.0)


def test_busy_readers_get_the_part_in_the_long_run() -> None:
    share, now, spent = TimeShare(0.25, 0.02, 0.0), 0.0, 0.0
    while now < 10.0:
        if share.is_open(now):
            share.charge(0.0005)
            spent += 0.0005
            now += 0.0005
        else:
            now = max(now + 1e-6, share.opens_at)
    assert spent == pytest.approx(0.02 + 2.5, rel=0.02)
