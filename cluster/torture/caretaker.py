"""Whoever looks after a cluster that is being broken: what is broken now, when it is whole again, and what may break.

Keeps to what the cluster promises to survive: in memory mode never more than a minority is without its memory at once,
in disk mode never more than a minority without its files. A node that ends by itself is a violation, unless its disk
was filled or its files were damaged, and then it has to say so in one sentence.
"""

import heapq
import math
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from cluster.torture.field import Field
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask
from smrx.sim.checker import Violation
from smrx.wire.admin import NodeStatus, Status

_TURN_SECONDS: Final = 0.02
LOOK_SECONDS: Final = 0.25
#: A node that was asked to end has handed its leadership over and is gone by then, on a machine under load.
STOP_SECONDS: Final = 30.0
#: A process reads its files, and is there, by then.
_START_SECONDS: Final = 90.0
#: In the middle of a run so long is waited for one.
_THERE_SECONDS: Final = 20.0
#: One sentence that says what to do.
_REFUSAL: Final = re.compile(r"smrx: .*(--rebuild`|the version of smrx that wrote it)")


class Caretaker:
    """The state of every node's process, and what is to be done later."""

    def __init__(self, field: Field, ask: Ask, say: Callable[[str], None], chance: random.Random) -> None:
        self.field = field
        self.nodes = field.node_ids
        self.ask = ask
        self.say = say
        self.minority = (len(field.node_ids) - 1) // 2
        self.durable = field.config.durability == "disk"
        self.dead: set[int] = set()
        self.paused: set[int] = set()
        #: Asked to end, and the time by which it has to be gone.
        self.ending: dict[int, float] = {}
        self.full: set[int] = set()
        self.damaged: set[int] = set()
        #: Refused its files, and is not known to have got through with giving them up.
        self.given_up: set[int] = set()
        #: Without its memory, or its files, and not known to have everything again.
        self.empty: set[int] = set()
        self._chance = chance
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._next_look = 0.0

    def turn(self) -> None:
        """Repair what is due, look after the nodes, wait a moment; raises Violation."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        self._look_after_processes()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._look_for_memory()
        time.sleep(_TURN_SECONDS)

    def bring_back(self) -> None:
        """Undo everything; returns when every node's process answers."""
        for node in self.full:
            self.field.kill(node)
            self.revive_later(node, 0.0)
        self.full.clear()
        while self._due:
            self._due = [(0.0, number, repair) for _, number, repair in self._due]
            self.turn()
        self.field.links.heal()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.turn()
            silent = [node for node in self.nodes if not isinstance(self.ask(node, Status()), NodeStatus)]
            if not silent and not self.dead and not self.ending and not self.damaged:
                return
            if time.monotonic() > deadline:
                raise Violation(f"nodes {silent} do not answer {_START_SECONDS:g} s after everything was repaired")

    def leader(self) -> int | None:
        """Who leads in the highest term."""
        return self.field.leader()

    def follower(self, chance: random.Random) -> int | None:
        """Somebody who does not."""
        leader = self.leader()
        found = [node for node in self.steady() if node != leader]
        return chance.choice(found) if found else None

    def steady(self) -> list[int]:
        """Nodes whose process is nobody's business at the moment."""
        busy = self.dead | self.paused | self.ending.keys() | self.full | self.damaged
        return [node for node in self.nodes if node not in busy]

    def may_empty(self, nodes: Iterable[int]) -> bool:
        """Whether these may lose what they have, and a majority still has everything."""
        return len(self.empty | set(nodes)) <= self.minority

    def _look_after_processes(self) -> None:
        for node in self.nodes:
            if node in self.dead:
                continue
            code = self.field.process(node).poll()
            if code is None:
                if self.ending.get(node, math.inf) < time.monotonic():
                    raise Violation(f"node {node} was asked to end and is there {STOP_SECONDS:g} s later")
                continue
            said = self.field.last_line(node)
            if node in self.ending and code == Exit.OK:
                del self.ending[node]
                self.dead.add(node)
            elif node in self.full and code == Exit.DISK and said.startswith("smrx: "):
                self.say(f"node {node} ended with {code}: {said.removeprefix('smrx: ')}")
                self.full.discard(node)
                self.dead.add(node)
                self.revive_later(node, self._chance.uniform(0.1, 2.0))
            elif node in self.damaged and code == Exit.RESOURCE and _REFUSAL.fullmatch(said):
                self.say(f"node {node} refuses its files: {said.removeprefix('smrx: ')}")
                self.damaged.discard(node)
                self.given_up.add(node)
                self.start(node)
            else:
                raise Violation(f"node {node} ended by itself with code {code}; the last it said: {said}")

    def _look_for_memory(self) -> None:
        """Who has everything again, and who took damaged files for whole ones."""
        for node in tuple((self.empty | self.damaged | self.given_up) - self.dead - self.paused - self.ending.keys()):
            status = self.ask(node, Status())
            if isinstance(status, NodeStatus):
                self.given_up.discard(node)
                if node in self.damaged:
                    self.say(f"node {node} found no damage that matters to it")
                    self.damaged.discard(node)
                if status.role != "learner":
                    self.empty.discard(node)

    def after(self, seconds: float, repair: Callable[[], None]) -> None:
        """Do something later, or when everything is repaired, if that is sooner."""
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, repair))

    def revive_later(self, node: int, seconds: float) -> None:
        """Start a node that is dead after a while."""
        self.dead.add(node)

        def revive() -> None:
            self.dead.discard(node)
            self.start(node)
            self.say(f"node {node} started")

        self.after(seconds, revive)

    def start(self, node: int) -> None:
        """Start a node; one that refused its files gives them up."""
        self.field.start_node(node, *(("--rebuild", "--yes") if node in self.given_up else ()))

    def when_there(self, nodes: Iterable[int], go_on: Callable[[], None], since: float) -> None:
        """Go on once these nodes answer, or were given time enough."""
        there = all(isinstance(self.ask(node, Status()), NodeStatus) for node in nodes if node not in self.dead)
        if there or time.monotonic() > since + _THERE_SECONDS:
            go_on()
        else:
            self.after(LOOK_SECONDS, lambda: self.when_there(nodes, go_on, since))
