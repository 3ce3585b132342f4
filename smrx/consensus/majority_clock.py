"""Estimate the clocks of the members, bound the stamps of a leader, find out whether this node's clock is wrong.

Every message carries its sender's clock. From these the node estimates the clock of each voter now. The majority clock
is the highest time that a majority of the voters have reached, this node included. A stamp lies within max_clock_skew
of it: a leader whose clock is years ahead does not move the time of the exchange, and one that is behind does not stop
it. A clock is wrong if it differs by more than that from every time the majority clock can have, whatever the clocks of
the voters that are silent.

Owns the reported clocks and the verdict. Sends nothing; the clock of the node comes through a function, and monotonic
time is an argument. Called by the replica for every message and every tick, by elections and leadership transfers.
"""

import logging
from collections.abc import Callable
from typing import Final, Literal, Protocol

log = logging.getLogger(__name__)

Verdict = Literal["right", "ahead", "behind", "no majority"]

#: A verdict is reported once it has held for so long: messages that waited while this node was paused, or on a
#: connection that stalled, show clocks that are too early.
_CONFIRM_SECONDS: Final = 1.0
#: The time between two judgements: a heartbeat. A turn of the node may take less than a millisecond.
_JUDGE_SECONDS: Final = 0.05
#: The last time that is used, in the year 2255: 64 bits hold a stamp for another 7 years.
LATEST_NS: Final = 9_000_000_000_000_000_000
_SECOND_NS: Final = 1_000_000_000
#: Units of differences above two hours, in seconds.
_UNITS: Final = (("years", 31_556_952.0), ("days", 86_400.0), ("hours", 3_600.0))


class Voters(Protocol):
    """Whose clocks count."""

    voters: frozenset[int]
    is_voter: bool
    majority: int


class _Report:
    """What a member's messages said about its clock."""

    def __init__(self, number: int, clock_ns: int, now: float) -> None:
        #: The number of the newest message.
        self.number = number
        self.heard_at = now
        #: The clock in the message that was least delayed, and when that arrived.
        self.clock_ns = clock_ns
        self.at = now


class MajorityClock:
    """The clocks of the voters as one node knows them."""

    def __init__(
        self,
        node_id: int,
        voters: Voters,
        wall_ns: Callable[[], int],
        *,
        max_skew_ms: int,
        report_ms: int,
    ) -> None:
        """`wall_ns` reads this node's clock, in nanoseconds since 1970; a report counts for `report_ms`."""
        #: What this node knows about its own clock, for its operator.
        self.verdict: Verdict = "right"
        self._node_id = node_id
        self._voters = voters
        self._wall_ns = wall_ns
        self._skew_ns = max_skew_ms * 1_000_000
        self._report_seconds = report_ms / 1000
        self._reports: dict[int, _Report] = {}
        #: The latest stamp that was allowed when a majority was last heard.
        self._last_bound_ns = 0
        #: The verdict that is to be confirmed, and since when it holds.
        self._found: Verdict = "right"
        self._found_at = 0.0
        self._next_judgement = float("-inf")

    # Clocks.

    def own_ns(self) -> int:
        """Return this node's clock, in nanoseconds since 1970."""
        return min(max(self._wall_ns(), 0), LATEST_NS)

    def observe(self, peer: int, number: int, clock_ns: int, now: float) -> None:
        """Take the clock from a message of a peer: the sender's `number`th in this incarnation."""
        report = self._reports.get(peer)
        if report is None:
            self._reports[peer] = _Report(number, clock_ns, now)
            return
        if number <= report.number:
            # Delivered twice, or overtaken by a later message: the clock may have been corrected since.
            return
        report.number, report.heard_at = number, now
        # A later clock had the shorter way here. An earlier one had a longer way, or the clock was set back.
        if clock_ns >= self._estimate(report, now) or now - report.at >= self._report_seconds:
            report.clock_ns, report.at = clock_ns, now

    def forget(self, peer: int) -> None:
        """Drop the report of a peer: it has a new incarnation, or is no peer any more."""
        self._reports.pop(peer, None)

    def _estimate(self, report: _Report, now: float) -> int:
        """Return a peer's clock now.

        Extrapolated for no longer than a report counts: a monotonic clock that jumps moves nothing by more than that.
        """
        return report.clock_ns + int(min(now - report.at, self._report_seconds) * _SECOND_NS)

    def _fresh(self, peer: int, now: float) -> _Report | None:
        report = self._reports.get(peer)
        return report if report is not None and now - report.heard_at <= self._report_seconds else None

    def _clocks(self, own: int, now: float) -> list[int]:
        """Return the clocks of the voters that are known, earliest first."""
        clocks = [own] if self._voters.is_voter else []
        for peer in self._voters.voters:
            report = self._fresh(peer, now)
            if report is not None:
                clocks.append(self._estimate(report, now))
        clocks.sort()
        return clocks

    # The bound.

    def stamp_ns(self, now: float) -> int:
        """Return the time for a new log entry: this node's clock, moved to within the skew of the majority clock."""
        own = self.own_ns()
        clocks, majority = self._clocks(own, now), self._voters.majority
        if len(clocks) < majority:
            # No majority is heard, so this node is about to lose its leadership: what was allowed last is the limit.
            return min(own, self._last_bound_ns)
        reached = clocks[-majority]
        self._last_bound_ns = reached + self._skew_ns
        return min(max(own, reached - self._skew_ns), self._last_bound_ns)

    # The verdict.

    def tick(self, now: float) -> None:
        """Judge this node's clock from time to time; log a verdict that has changed."""
        if now < self._next_judgement:
            return
        self._next_judgement = now + _JUDGE_SECONDS
        found = self.judge(now)
        if found is None:
            return
        if found != self._found:
            self._found, self._found_at = found, now
        if found != self.verdict and now - self._found_at >= _CONFIRM_SECONDS:
            self.verdict = found
            fault = self.fault(now)
            if fault is None:
                log.info("node %d: its clock agrees with the majority's again", self._node_id)
            else:
                log.error("node %d: %s", self._node_id, fault)

    @property
    def is_wrong(self) -> bool:
        """Whether this node's clock is known to be wrong."""
        return self.verdict in ("ahead", "behind")

    def judge(self, now: float) -> Verdict | None:
        """Return the verdict about this node's clock at this moment, None if no majority is heard."""
        own = self.own_ns()
        clocks, majority = self._clocks(own, now), self._voters.majority
        if len(clocks) < majority:
            return None
        # Every stamp needs the bound; here it stays up to date while no commands arrive.
        self._last_bound_ns = clocks[-majority] + self._skew_ns
        if (differs := self._differs(own, clocks)) is not None:
            return differs
        spreads = [last - first for first, last in zip(clocks, clocks[majority - 1 :], strict=False)]
        return "right" if min(spreads) <= self._skew_ns else "no majority"

    def _differs(self, clock: int, clocks: list[int]) -> Literal["ahead", "behind"] | None:
        """Compare a clock with every time the majority clock may have.

        The lowest is that if all silent voters are behind, the highest if all are ahead.
        """
        majority = self._voters.majority
        if clock > clocks[majority - 1] + self._skew_ns:
            return "ahead"
        return "behind" if clock < clocks[-majority] - self._skew_ns else None

    # For the operator.

    def peer_fault(self, peer: int, now: float) -> str | None:
        """Return what is wrong with the clock of a peer at this moment, None if nothing is known."""
        report, clocks = self._fresh(peer, now), self._clocks(self.own_ns(), now)
        if report is None or len(clocks) < self._voters.majority:
            return None
        clock = self._estimate(report, now)
        differs = self._differs(clock, clocks)
        return None if differs is None else f"the clock of node {peer} is {self._difference(differs, clock, clocks)}"

    def _difference(self, differs: Literal["ahead", "behind"], clock: int, clocks: list[int]) -> str:
        amount = _duration(clock - clocks[-self._voters.majority])
        return f"{amount} ahead of the majority clock" if differs == "ahead" else f"{amount} behind the majority clock"

    def offset_seconds(self, now: float, peer: int | None = None) -> float | None:
        """Return how far a peer's clock, or this node's, is ahead of the majority clock; None if one is unknown."""
        own = self.own_ns()
        clocks, majority = self._clocks(own, now), self._voters.majority
        if len(clocks) < majority:
            return None
        report = None if peer is None else self._fresh(peer, now)
        if peer is not None and report is None:
            return None
        clock = own if report is None else self._estimate(report, now)
        return round((clock - clocks[-majority]) / _SECOND_NS, 3)

    def fault(self, now: float, state_time_ns: int = 0) -> str | None:
        """Return what is wrong with this node's clock, or with the time of its state; None if nothing is known."""
        own = self.own_ns()
        clocks, majority = self._clocks(own, now), self._voters.majority
        if len(clocks) < majority:
            return None
        if self.verdict == "ahead" or self.verdict == "behind":
            return (
                f"its clock is {self._difference(self.verdict, own, clocks)}; it leads only if no other member can; "
                "correct its clock"
            )
        if self.verdict == "no majority":
            return (
                f"no majority of the clocks agrees within {self._skew_ns / _SECOND_NS:g} s; the exchange uses the "
                "latest time that a majority has reached; correct the clocks"
            )
        ahead = state_time_ns - clocks[-majority]
        # The stamp may be ahead by the skew, and what is known of the clocks behind by the delay of messages.
        if ahead > 2 * self._skew_ns:
            return (
                f"the time of its state is {_duration(ahead)} ahead of the majority clock, and stands still until the "
                "clocks reach it"
            )
        return None


def _duration(time_ns: int) -> str:
    """Return an amount of time in the largest unit of which there are two: "70.0 years", "2.5 s"."""
    seconds = abs(time_ns) / _SECOND_NS
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
