"""Faults of nodes: crashes, pauses, clocks, disks, and requests of an operator.

Owns the restart of crashed nodes, and the limit that memory mode needs: no more nodes than a minority lose their state
at once, except by the fault that crashes a majority.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

from smrx.consensus import NotLeader
from smrx.sim.fault_targets import FaultTargets
from smrx.sim.simulated_node import SimulatedNode

#: A crash happens within so many steps of its node (messages read, messages sent, syncs).
_MAX_STEPS_TO_CRASH: Final = 40
#: The sizes of the jumps of a wall clock, in seconds: what a time server corrects in small steps, a step, a wrong time
#: zone, a wrong year; 0 corrects the clock.
_WALL_CLOCK_SECONDS: Final = (0.0, 0.4, 10.0, 50_000.0, 70 * 365.25 * 86_400.0)


class NodeFaults:
    """One method for each fault."""

    def __init__(self, targets: FaultTargets) -> None:
        self._targets = targets
        self._cluster = targets.cluster
        self._scheduler = targets.cluster.scheduler
        self._operator = targets.cluster.operator
        self._durable = targets.cluster.profile.durable
        self._rng = targets.rng
        for node in targets.cluster.nodes:
            node.on_crash = partial(self._restart_later, node)

    def actions(self) -> dict[str, Callable[[], None]]:
        """Return the method of each fault by the fault's name."""
        return {
            "crash": self._crash_node,
            "crash the leader": self._crash_leader,
            "crash at an election": self._crash_at_election,
            "crash a majority": self._crash_majority,
            "pause": self._pause,
            "slow turns": self._slow_turns,
            "clock jump": self._jump_clock,
            "wall clock jump": self._jump_wall_clock,
            "bit rot": self._flip_bit,
            "torn sync": self._tear_sync,
            "full disk": self._fill_disk,
            "transfer leadership": self._transfer_leadership,
            "join": self._operator.join,
            "leave": self._operator.leave,
            "replace": self._operator.replace,
            "lose a directory": self._lose_directory,
            "compact": self._compact,
        }

    def drift_clocks(self) -> None:
        """Let the clock of every node run up to 3 % too fast or too slow."""
        for node in self._cluster.nodes:
            node.clock_rate = self._rng.uniform(0.97, 1.03)

    def repair(self) -> None:
        """End all faults of nodes, and start those that crashed."""
        for node in self._cluster.in_service:
            node.steps_to_crash = None
            node.crashes_at_election = False
            node.turn_seconds = 0.0
            node.disk.full = False
            node.end_pause()
            if not node.up:
                node.start()

    def _may_crash(self) -> bool:
        return self._durable or self._operator.losable_nodes > 0

    def _crash(self, node: SimulatedNode) -> None:
        if node.up and node.steps_to_crash is None:
            node.steps_to_crash = 1 + self._rng.randrange(self._rng.choice((1, 6, _MAX_STEPS_TO_CRASH)))

    def _crash_node(self) -> None:
        if self._may_crash():
            self._crash(self._targets.node())

    def _crash_leader(self) -> None:
        if self._may_crash():
            self._crash(self._targets.leader())

    def _crash_at_election(self) -> None:
        """Crash a node right after it has granted or requested a vote."""
        node = self._targets.node()
        if self._may_crash() and node.up:
            node.crashes_at_election = True

    def _crash_majority(self) -> None:
        nodes = self._cluster.in_service
        for node in self._rng.sample(nodes, len(nodes) // 2 + 1):
            self._crash(node)

    def _restart_later(self, node: SimulatedNode) -> None:
        """Restart a crashed node, at once or after a while."""
        seconds = self._rng.choice((0.001, 0.05, 0.5, 1.5))
        self._scheduler.call_later(seconds, self._restart, node, node.process_number)

    def _restart(self, node: SimulatedNode, process_number: int) -> None:
        is_due = not node.up and node.in_service and node.may_restart
        if is_due and node.process_number == process_number and not node.start():
            self._restart_later(node)

    def _may_damage(self, node: SimulatedNode) -> bool:
        return self._durable and self._operator.losable_nodes > 0 and not node.disk.may_be_damaged

    def _flip_bit(self) -> None:
        """Flip a bit on a disk; the node detects it when it restarts."""
        node = self._targets.node()
        if self._may_damage(node):
            node.disk.flip_bit()
            self._crash(node)

    def _tear_sync(self) -> None:
        """Break the disk's contract: a part of an interrupted sync is durable."""
        node = self._targets.node()
        if self._may_damage(node):
            node.disk.tears_next_sync = node.disk.may_be_damaged = True
            self._crash(node)

    def _lose_directory(self) -> None:
        """Crash a node and remove its directory; it restarts with an empty one, and no other node is informed."""
        node = self._targets.node()
        may_lose = self._operator.losable_nodes > 0 and not node.disk.may_be_damaged
        if may_lose and node.up and node.steps_to_crash is None:
            node.crash()
            node.lose_directory()

    def _fill_disk(self) -> None:
        node = self._targets.node()
        node.disk.full = True
        self._scheduler.call_later(self._rng.expovariate(1 / 0.8), self._free_disk, node)

    def _free_disk(self, node: SimulatedNode) -> None:
        node.disk.full = False

    def _pause(self) -> None:
        self._targets.node().pause(self._rng.choice((0.05, 0.3, 0.7, 2.0)))

    def _slow_turns(self) -> None:
        self._targets.node().turn_seconds = self._rng.choice((0.0, 0.005, 0.03, 0.15))

    def _jump_clock(self) -> None:
        """Move the monotonic clock of a node, which can only jump forward: the computer was suspended."""
        node = self._targets.node()
        node.clock_offset += self._rng.choice((0.1, 0.5, 3.0))
        node.wake(self._scheduler.now)

    def _jump_wall_clock(self) -> None:
        """Move the wall clock of a node forward or back; only a later jump corrects it."""
        node = self._targets.node()
        # One draw, as in the first version of this fault: the other draws of a seed stay as they were.
        size, fraction = divmod(len(_WALL_CLOCK_SECONDS) * self._rng.random(), 1)
        node.set_wall_clock(int(_WALL_CLOCK_SECONDS[int(size)] * (2 * fraction - 1) * 1e9))

    def _compact(self) -> None:
        node = self._targets.node()
        if node.up:
            node.replica.compact()

    def _transfer_leadership(self) -> None:
        node = self._targets.leader()
        if node.up:
            # A node that does not lead, or has no successor, refuses.
            with contextlib.suppress(NotLeader, ValueError):
                node.transfer_leadership()
