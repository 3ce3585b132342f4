"""What a simulated node is made of, so that a test can put in a part that is broken on purpose."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from smrx.config import Timing
from smrx.consensus import MemoryJournal, MetaStore, Replica
from smrx.consensus.disk_journal import DiskJournal
from smrx.node.order_entry import OrderEntry
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.sim.versions import Formats

if TYPE_CHECKING:
    from smrx.sim.member import Member

#: What a fork makes the loop wait, up to 2 GiB of state: the longest measured by `smrx bench` of smrx/consensus.
_FORK_SECONDS: Final = 0.0035


class _Kept(NamedTuple):
    """What a meta store remembers."""

    term: int
    vote: int | None
    joined: bool
    membership: tuple[int, bytes]
    initialized: bool = False


class SimulatedMeta(MetaStore):
    """The meta store on a disk that forgets, at a crash, what was not synced."""

    def __init__(self, born: int = 0) -> None:
        """The empty store of a node that never ran, with a number for its birth; begin() must follow."""
        self._durable = _Kept(0, None, False, (0, b""))
        self._current = self._durable
        self._life = born

    def begin(self) -> None:
        """Begin another life with what is durable."""
        self._life += 1
        self._current = self._durable

    @property
    def incarnation(self) -> int:
        return self._life

    @property
    def term(self) -> int:
        return self._current.term

    @property
    def vote(self) -> int | None:
        return self._current.vote

    @property
    def joined(self) -> bool:
        return self._current.joined

    def set_term(self, term: int, vote: int | None) -> None:
        self._current = self._current._replace(term=term, vote=vote)

    def set_joined(self) -> None:
        self._current = self._current._replace(joined=True)

    @property
    def initialized(self) -> bool:
        return self._current.initialized

    def set_initialized(self) -> None:
        self._current = self._current._replace(initialized=True)

    def exceed_incarnation(self, life: int) -> None:
        self._life = max(self._life, life + 1)

    @property
    def membership(self) -> tuple[int, bytes]:
        return self._current.membership

    def set_membership(self, membership: tuple[int, bytes]) -> None:
        self._current = self._current._replace(membership=membership)

    def sync(self) -> None:
        self._durable = self._current

    def close(self) -> None:
        pass


def forked(state_bytes: int) -> float:
    """For how long a snapshot of a large state makes the loop stand still; a small one takes no time here."""
    return _FORK_SECONDS if state_bytes else 0.0


@dataclass(frozen=True)
class Parts:
    """The classes of a node; by default what a real node runs, but for the sockets and the disk."""

    replica: type[Replica] = Replica
    machine: type[ReplicatedState] = ReplicatedState
    order_entry: type[OrderEntry] = OrderEntry
    transport: type[SimulatedTransport] = SimulatedTransport
    meta: type[SimulatedMeta] = SimulatedMeta
    journal: type[MemoryJournal] = MemoryJournal
    disk_journal: type[DiskJournal] = DiskJournal
    #: Whether disk mode has somewhere to store snapshots.
    keeps_snapshots: bool = True
    #: Seconds that the loop stands still for a snapshot of so many bytes.
    snapshot_seconds: Callable[[int], float] = forked
    #: What nodes of two versions make of each other's entries.
    formats: type[Formats] = Formats
    #: Takes the place of smrx.sim.member.Member.
    member: "type[Member] | None" = None
    #: Takes the place of the timing that the seed draws.
    timing: Timing | None = None

    def but(self, **changes: object) -> "Parts":
        """The same with other parts."""
        return replace(self, **changes)  # type: ignore[arg-type]


#: What a real node runs.
REAL = Parts()
