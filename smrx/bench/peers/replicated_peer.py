"""What the comparison of clusters asks of each peer: a load of one shape, measured. Called by cluster_comparison.py."""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec

from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_members import LoadResult

#: Members of each system.
NODES: Final = 3
#: Connections, and requests under way on each.
_MOST: Final = 10_000
Durability = Literal["memory", "disk"]


class LoadShape(NamedTuple):
    """A closed loop of single requests."""

    connections: int
    in_flight: int  #: requests of each connection that are sent and not answered

    @classmethod
    def parse(cls, text: str) -> "LoadShape":
        """Return the shape that a text like 100x16 names; raises ValueError."""
        connections, cross, in_flight = text.partition("x")
        numbers = [int(part) for part in (connections, in_flight) if part.isascii() and part.isdigit()]
        if not cross or len(numbers) != 2 or not 1 <= numbers[0] <= _MOST or not 1 <= numbers[1] <= _MOST:
            raise ValueError(f"--load: expected connections x requests under way like 100x16, found {text!r}")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.connections:,} x {self.in_flight:,}"


class Answered(msgspec.Struct, frozen=True):
    """What was measured of one system under one load."""

    version: str
    load_from: str  #: what offers the load
    acknowledged: int
    seconds: float
    p50_us: float
    p99_us: float
    nodes_cpu_s: float | None  #: of all members in the measured time; None if it is not known
    load_cpu_s: float


class Timing(NamedTuple):
    """Seconds of the warm-up, and of what is measured."""

    warm_up_s: float
    seconds: float


class ReplicatedPeer(NamedTuple):
    """A replicated system that the comparison runs. `measure` raises PeerUnavailable."""

    does: str  #: what a member does with a request
    durabilities: tuple[Durability, ...]
    measure: Callable[[LoadShape, Durability, Timing, Say], Answered]


def answered(version: str, load_from: str, found: LoadResult, nodes_cpu_s: float | None) -> Answered:
    """Return what a driver's own load generator measured."""
    return Answered(
        version,
        load_from,
        found.acknowledged,
        found.seconds,
        found.p50_us,
        found.p99_us,
        nodes_cpu_s,
        found.cpu_s,
    )
