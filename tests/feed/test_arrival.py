"""Frames that arrive late and frames that arrive twice are counted apart."""

import pytest

from smrx.feed.arrival import _MAX_SKIPPED, Arrival, ArrivalStats


@pytest.mark.parametrize(
    ("frames", "reordered", "duplicate"),
    [
        ([(1, 3), (4, 6), (7, 7)], 0, 0),
        ([(1, 3), (7, 9)], 0, 0),
        ([(1, 3), (7, 9), (4, 6)], 1, 0),
        ([(1, 3), (7, 9), (4, 4), (6, 6), (5, 5)], 3, 0),
        ([(1, 3), (1, 3)], 0, 1),
        ([(1, 3), (7, 9), (4, 6), (4, 6)], 1, 1),
        ([(1, 3), (7, 9), (3, 5)], 1, 0),
        ([(1, 3), (2, 5)], 0, 0),
        ([(5, 6), (3, 4), (1, 2), (3, 4)], 2, 1),
        ([(5, 6), (5, 6), (7, 8)], 0, 1),
    ],
)
def test_late_and_repeated_frames_are_counted_apart(
    frames: list[tuple[int, int]], reordered: int, duplicate: int
) -> None:
    stats = ArrivalStats()
    arrival = Arrival(stats)
    for first, last in frames:
        arrival.take(first, last)
    assert stats == ArrivalStats(reordered, duplicate)


def test_skipped_ranges_are_bounded() -> None:
    stats = ArrivalStats()
    arrival = Arrival(stats)
    for sequence in range(1, 20 * _MAX_SKIPPED, 2):
        arrival.take(sequence, sequence)
    assert len(arrival._skipped) == _MAX_SKIPPED
    assert stats == ArrivalStats()
