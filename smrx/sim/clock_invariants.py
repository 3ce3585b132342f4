"""Check the time of the log: no stamp, and no state, is later than the clocks of a majority of the voters allow.

Owns the history of every node's clock, and from it the latest stamp that was ever allowed. Knows the true clocks and
shares no code with the bound that a leader keeps. Simulated nodes report each entry they log and the time of their
state after each turn; a contradiction raises Violation.
"""

from collections.abc import Callable, Collection
from typing import Final

from smrx.config import Timing
from smrx.sim.checker import Violation

#: A message that reports a clock may be under way for so long: stalls and held connections included.
_REPORT_AGE_SECONDS: Final = 5.0
#: What a monotonic clock that runs too fast, and rounding, may add.
_SLACK_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000

#: Return the latest time that a node's clock showed in the last seconds, as it would show it now; 0 for the present.
WallClock = Callable[[float], int]


class ClockInvariants:
    """The clocks and the time of one run."""

    def __init__(self, timing: Timing) -> None:
        self._skew_ns = timing.max_clock_skew_ms * 1_000_000
        # A leader extrapolates a report for as long as it counts, and its monotonic clock may jump.
        self._tolerance_ns = self._skew_ns + timing.leader_fallback_ms * 1_000_000 + _SLACK_NS
        self._clocks: dict[int, WallClock] = {}
        self._latest_allowed_ns = 0

    def add_node(self, node: int, clock: WallClock) -> None:
        """Register a node and its clock."""
        self._clocks[node] = clock

    def entry_logged(self, node: int, stamp_ns: int, voters: Collection[int]) -> None:
        """Check the stamp of an entry that a leader logs while these are the voters."""
        reached = self._reached(voters, _REPORT_AGE_SECONDS)
        allowed = reached + self._tolerance_ns
        if stamp_ns > allowed:
            raise Violation(
                f"bounded time: node {node} stamps an entry {_seconds(stamp_ns - reached)} ahead of the clocks of a "
                f"majority; at most {_seconds(self._tolerance_ns)} are allowed"
            )
        self._latest_allowed_ns = max(self._latest_allowed_ns, allowed)

    def state_time(self, node: int, time_ns: int) -> None:
        """Check the time of a node's state."""
        if time_ns > self._latest_allowed_ns:
            raise Violation(
                f"bounded time: the state of node {node} is {_seconds(time_ns - self._latest_allowed_ns)} later than "
                "any time that the clocks of a majority allowed"
            )

    def check_progress(self, node: int, stamp_ns: int, voters: Collection[int]) -> None:
        """Check that a leader that hears all voters does not stop the time."""
        reached = self._reached(voters, 0.0)
        if stamp_ns < reached - self._tolerance_ns:
            raise Violation(
                f"time advances: node {node} stamps an entry {_seconds(reached - stamp_ns)} behind the clocks of a "
                f"majority; at most {_seconds(self._tolerance_ns)} are allowed"
            )

    def is_right(self, node: int, voters: Collection[int]) -> bool:
        """Return whether a node's clock is near the middle one of the voters' clocks."""
        clocks = sorted(self._clocks[voter](0.0) for voter in voters)
        majority = len(clocks) // 2 + 1
        own = self._clocks[node](0.0)
        return clocks[-majority] - self._tolerance_ns <= own <= clocks[majority - 1] + self._tolerance_ns

    def _reached(self, voters: Collection[int], seconds: float) -> int:
        """Return the latest time that a majority of the voters' clocks have reached."""
        clocks = sorted(self._clocks[voter](seconds) for voter in voters)
        return clocks[-(len(clocks) // 2 + 1)]


def _seconds(time_ns: int) -> str:
    return f"{time_ns / _SECOND_NS:.3f} s"
