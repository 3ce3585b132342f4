"""The classes a simulated node is built from; a test replaces one of them with a broken one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smrx.consensus import MemoryJournal, Replica
from smrx.consensus.disk_journal import DiskJournal
from smrx.node.order_entry import OrderEntry
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.simulated_meta import SimulatedMeta
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.sim.small_tables import SmallState
from smrx.sim.versions import CURRENT_VERSION, NextState

#: Seconds a fork blocks the loop for up to 2 GiB of state: the longest that `smrx bench` measured in smrx/consensus.
_FORK_SECONDS: Final = 0.0035


def fork_seconds(state_bytes: int) -> float:
    """Return how long a snapshot blocks the loop: the time of a fork for a large state, none for a small one."""
    return _FORK_SECONDS if state_bytes else 0.0


@dataclass(frozen=True)
class NodeComponents:
    """By default what a real node runs, except for sockets and disk."""

    replica: type[Replica] = Replica
    state: type[ReplicatedState] = SmallState
    #: The state machine of the next version of the program, and the one that the checker replays the log with.
    next_state: type[ReplicatedState] = NextState
    reference: type[ReplicatedState] | None = None
    order_entry: type[OrderEntry] = OrderEntry
    transport: type[SimulatedTransport] = SimulatedTransport
    meta: type[SimulatedMeta] = SimulatedMeta
    journal: type[MemoryJournal] = MemoryJournal
    disk_journal: type[DiskJournal] = DiskJournal
    #: Whether a node in disk mode stores snapshots.
    keeps_snapshots: bool = True
    #: Return the seconds that a snapshot of so many bytes blocks the loop.
    snapshot_seconds: Callable[[int], float] = fork_seconds

    def state_of(self, version: int) -> type[ReplicatedState]:
        """Return the state machine of a version of the program."""
        return self.state if version == CURRENT_VERSION else self.next_state

    def replayed(self, *, has_upgrades: bool) -> type[ReplicatedState]:
        """Return the state machine of the checker: with upgrades, one that has the rules of both versions."""
        return self.reference or (self.next_state if has_upgrades else self.state)
