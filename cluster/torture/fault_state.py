"""Track what is broken in a cluster and schedule its repair.

Owns the limits of the faults: in memory mode at most a minority of the nodes is without its state at once, in disk mode
at most a minority without its files. A node that ends by itself is a violation, unless its disk was filled or its files
were damaged; then its last line must say so.
"""

import heapq
import math
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from cluster.torture.cluster_under_test import ClusterUnderTest
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask
from smrx.sim.checker import Violation
from smrx.wire.admin import NodeStatus, Status

_TURN_SECONDS: Final = 0.02
POLL_SECONDS: Final = 0.25
#: A node that received SIGTERM has transferred its leadership and ended after this time, even on a loaded machine.
STOP_SECONDS: Final = 30.0
#: A started process has read its files and answers after this time.
_START_SECONDS: Final = 90.0
#: How long to wait for a started node during a run.
_ANSWER_SECONDS: Final = 20.0
#: The last line of a node that refuses its files: it names the remedy.
_REFUSAL: Final = re.compile(r"smrx: .*(--rebuild`|the version of smrx that wrote it)")


class FaultState:
    """The state of every node's process, and the scheduled repairs."""

    def __init__(
        self, cluster: ClusterUnderTest, ask: Ask, report: Callable[[str], None], chance: random.Random
    ) -> None:
        self.cluster = cluster
        self.nodes = cluster.node_ids
        self.ask = ask
        self.report = report
        self.minority = (len(cluster.node_ids) - 1) // 2
        self.durable = cluster.config.durability == "disk"
        self.dead: set[int] = set()
        self.paused: set[int] = set()
        #: Nodes that received SIGTERM, and when each must have ended.
        self.stopping: dict[int, float] = {}
        self.full: set[int] = set()
        self.damaged: set[int] = set()
        #: Nodes that refused their files and have not yet answered since they were started with --rebuild.
        self.rebuilding: set[int] = set()
        #: Nodes that lost their state and have not yet been seen with all of it.
        self.without_state: set[int] = set()
        self._chance = chance
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._next_poll = 0.0

    def turn(self) -> None:
        """Run the repairs that are due, check the nodes and sleep a moment; raises Violation."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        self._check_processes()
        if time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + POLL_SECONDS
            self._check_state()
        time.sleep(_TURN_SECONDS)

    def repair_all(self) -> None:
        """Repair everything; return when every node answers. Raises Violation."""
        for node in self.full:
            self.cluster.kill(node)
            self.start_later(node, 0.0)
        self.full.clear()
        while self._due:
            self._due = [(0.0, number, repair) for _, number, repair in self._due]
            self.turn()
        self.cluster.links.heal()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.turn()
            silent = [node for node in self.nodes if not isinstance(self.ask(node, Status()), NodeStatus)]
            if not silent and not self.dead and not self.stopping and not self.damaged:
                return
            if time.monotonic() > deadline:
                raise Violation(f"nodes {silent} do not answer {_START_SECONDS:g} s after the repair")

    def leader(self) -> int | None:
        """Return the leader of the highest term."""
        return self.cluster.leader()

    def follower(self, chance: random.Random) -> int | None:
        """Return a random node that is not the leader, or None."""
        leader = self.leader()
        found = [node for node in self.undisturbed() if node != leader]
        return chance.choice(found) if found else None

    def undisturbed(self) -> list[int]:
        """Return the nodes whose process no fault affects."""
        disturbed = self.dead | self.paused | self.stopping.keys() | self.full | self.damaged
        return [node for node in self.nodes if node not in disturbed]

    def may_lose_state(self, nodes: Iterable[int]) -> bool:
        """Return whether a majority keeps all state if these nodes lose theirs."""
        return len(self.without_state | set(nodes)) <= self.minority

    def _check_processes(self) -> None:
        for node in self.nodes:
            if node in self.dead:
                continue
            code = self.cluster.process(node).poll()
            if code is None:
                if self.stopping.get(node, math.inf) < time.monotonic():
                    raise Violation(f"node {node} is still running {STOP_SECONDS:g} s after SIGTERM")
                continue
            last_line = self.cluster.last_line(node)
            if node in self.stopping and code == Exit.OK:
                del self.stopping[node]
                self.dead.add(node)
            elif node in self.full and code == Exit.DISK and last_line.startswith("smrx: "):
                self.report(f"node {node} ended with {code}: {last_line.removeprefix('smrx: ')}")
                self.full.discard(node)
                self.dead.add(node)
                self.start_later(node, self._chance.uniform(0.1, 2.0))
            elif node in self.damaged and code == Exit.RESOURCE and _REFUSAL.fullmatch(last_line):
                self.report(f"node {node} refuses its files: {last_line.removeprefix('smrx: ')}")
                self.damaged.discard(node)
                self.rebuilding.add(node)
                self.start(node)
            else:
                raise Violation(f"node {node} ended by itself with code {code}; its last line: {last_line}")

    def _check_state(self) -> None:
        """Note which nodes have all state again, and which found no damage in their damaged files."""
        affected = self.without_state | self.damaged | self.rebuilding
        for node in affected - self.dead - self.paused - self.stopping.keys():
            status = self.ask(node, Status())
            if isinstance(status, NodeStatus):
                self.rebuilding.discard(node)
                if node in self.damaged:
                    self.report(f"node {node} started: the damage is in no data it reads")
                    self.damaged.discard(node)
                if status.role != "learner":
                    self.without_state.discard(node)

    def after(self, seconds: float, repair: Callable[[], None]) -> None:
        """Run a repair after some time, or in repair_all() if that is sooner."""
        self._count += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._count, repair))

    def start_later(self, node: int, seconds: float) -> None:
        """Mark a node as dead and start it after some time."""
        self.dead.add(node)

        def start() -> None:
            self.dead.discard(node)
            self.start(node)
            self.report(f"node {node} started")

        self.after(seconds, start)

    def start(self, node: int) -> None:
        """Start a node; one that refused its files is rebuilt."""
        self.cluster.start_node(node, *(("--rebuild", "--yes") if node in self.rebuilding else ()))

    def when_answering(self, nodes: Iterable[int], action: Callable[[], None], since: float) -> None:
        """Run an action once these nodes answer, at the latest some time after `since`."""
        answering = all(isinstance(self.ask(node, Status()), NodeStatus) for node in nodes if node not in self.dead)
        if answering or time.monotonic() > since + _ANSWER_SECONDS:
            action()
        else:
            self.after(POLL_SECONDS, lambda: self.when_answering(nodes, action, since))
