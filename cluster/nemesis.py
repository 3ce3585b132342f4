"""Whoever breaks a running cluster and repairs it: processes killed or stopped, links cut, disks filled, files hurt.

Owns what is broken at the moment and when it will be whole again. Keeps to what the cluster promises to survive: in
memory mode never more than a minority is without its memory at once, in disk mode never more than a minority without
its files. Says everything it does. A node that ends by itself is a violation, unless its disk was filled or its files
were damaged, and then it has to say so in one sentence.
"""

import heapq
import math
import random
import re
import resource
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

from cluster.damage import damage
from cluster.field import Crowd, Field
from cluster.links import HEALTHY, Fate, Mode, Pair
from cluster.plan import Fault, Step
from smrx.cli.exits import Exit
from smrx.client.asker import Ask
from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.sim.checker import Violation
from smrx.wire.admin import HandOver, HandOverReply, NodeStatus, Snapshot, SnapshotReply, Status

_TURN_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 0.25
#: A node that was asked to end has handed its leadership over and is gone by then, on a machine under load.
_STOP_SECONDS: Final = 30.0
#: A process reads its files, and is there, by then.
_START_SECONDS: Final = 90.0
#: One sentence that says what to do.
_REFUSAL: Final = re.compile(r"smrx: .*(--rebuild`|the version of smrx that wrote it)")
_CUTS: Final = (Mode.HOLD, Mode.DROP, Mode.REFUSE)
#: For a node's last words in its log.
_ROOM_BYTES: Final = 1 << 14


class Nemesis:
    """Steps in, broken nodes out; heal() makes everything whole."""

    def __init__(self, field: Field, crowd: Crowd, ask: Ask, say: Callable[[str], None], seed: int) -> None:
        self.done: dict[Fault, int] = {}
        self.skipped = 0
        self._field = field
        self._crowd = crowd
        self._ask = ask
        self._say = say
        self._chance = random.Random(seed)
        self._minority = (len(field.node_ids) - 1) // 2
        self._durable = field.config.durability == "disk"
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._fates: dict[Pair, dict[int, Fate]] = {pair: {} for pair in field.pairs}
        self._dead: set[int] = set()
        self._paused: set[int] = set()
        self._ending: dict[int, float] = {}
        self._full: set[int] = set()
        self._damaged: set[int] = set()
        #: Refused its files, and is not known to have got through with giving them up.
        self._given_up: set[int] = set()
        #: Without its memory, or its files, and not known to have everything again.
        self._empty: set[int] = set()
        self._next_look = 0.0
        self._do: dict[Fault, Callable[[Step, random.Random], str | None]] = {
            Fault.KILL_LEADER: lambda step, chance: self._kill([self._leader()], step),
            Fault.KILL_FOLLOWER: lambda step, chance: self._kill([self._follower(chance)], step),
            Fault.KILL_SEVERAL: self._kill_several,
            Fault.KILL_ALL: lambda step, chance: self._kill(self._steady(), step),
            Fault.STOP: self._stop,
            Fault.PAUSE_LEADER: lambda step, chance: self._pause([self._leader()], step),
            Fault.PAUSE_FOLLOWER: lambda step, chance: self._pause([self._follower(chance)], step),
            Fault.PAUSE_ALL: lambda step, chance: self._pause(self._steady(), step),
            Fault.ISOLATE_LEADER: lambda step, chance: self._isolate(self._leader(), step, chance),
            Fault.ISOLATE_FOLLOWER: lambda step, chance: self._isolate(self._follower(chance), step, chance),
            Fault.SPLIT: self._split,
            Fault.BRIDGE: self._bridge,
            Fault.MUTE: self._mute,
            Fault.DEAFEN: self._deafen,
            Fault.CUT_ONE: lambda step, chance: self._cut([chance.choice(field.pairs)], step, chance),
            Fault.SLOW: lambda step, chance: self._slow(step, chance, Fate(delay_s=chance.uniform(0.01, 0.3))),
            Fault.NARROW: lambda step, chance: self._slow(step, chance, Fate(bytes_per_s=chance.uniform(2e4, 5e5))),
            Fault.HAND_OVER: self._hand_over,
            Fault.SNAPSHOT: self._snapshot,
            Fault.KILL_TRADER: self._kill_trader,
            Fault.PAUSE_TRADER: self._pause_trader,
            Fault.FULL_DISK: self._fill_disk,
            Fault.DAMAGE: self._damage,
        }

    def storm(self, steps: Iterable[Step], seconds: float) -> None:
        """Do every step in its time; raises Violation."""
        waiting = list(steps)
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            while waiting and time.monotonic() - started >= waiting[0].at_s:
                self._take(waiting.pop(0))
            self.turn()

    def turn(self) -> None:
        """Repair what is due, look after the nodes, wait a moment; raises Violation."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        self._look_after_processes()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._look_for_memory()
        time.sleep(_TURN_SECONDS)

    def heal(self) -> None:
        """Make everything whole at once; every process answers by then, and nobody leads. Raises Violation.

        The last link fault is the worst: nobody hears anybody until nobody leads any more. So what follows is an
        election with everything in its favour.
        """
        self._bring_back()
        mode = self._chance.choice(_CUTS)
        self._say(f"every process answers; all links {mode.value}")
        self._field.links.set(self._field.pairs, Fate(mode))
        deadline = time.monotonic() + _STOP_SECONDS
        while self._leader() is not None:
            self.turn()
            if time.monotonic() > deadline:
                raise Violation(f"one leader: node {self._leader()} leads {_STOP_SECONDS:g} s after it heard nobody")
        self._field.links.heal()

    def _bring_back(self) -> None:
        """Undo everything; returns when every node's process answers."""
        for node in self._full:
            self._field.kill(node)
            self._revive_later(node, 0.0)
        self._full.clear()
        while self._due:
            self._due = [(0.0, number, repair) for _, number, repair in self._due]
            self.turn()
        self._field.links.heal()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.turn()
            silent = [node for node in self._field.node_ids if not isinstance(self._ask(node, Status()), NodeStatus)]
            if not silent and not self._dead and not self._ending and not self._damaged:
                return
            if time.monotonic() > deadline:
                raise Violation(f"nodes {silent} do not answer {_START_SECONDS:g} s after everything was repaired")

    # What is how

    def _leader(self) -> int | None:
        return self._field.leader()

    def _follower(self, chance: random.Random) -> int | None:
        leader = self._leader()
        found = [node for node in self._steady() if node != leader]
        return chance.choice(found) if found else None

    def _steady(self) -> list[int]:
        """Nodes whose process is nobody's business at the moment."""
        busy = self._dead | self._paused | self._ending.keys() | self._full | self._damaged
        return [node for node in self._field.node_ids if node not in busy]

    def _may_empty(self, nodes: Iterable[int]) -> bool:
        """Whether these may lose what they have, and a majority still has everything."""
        return len(self._empty | set(nodes)) <= self._minority

    def _look_after_processes(self) -> None:
        for node in self._field.node_ids:
            if node in self._dead:
                continue
            code = self._field.process(node).poll()
            if code is None:
                if self._ending.get(node, math.inf) < time.monotonic():
                    raise Violation(f"node {node} was asked to end and is there {_STOP_SECONDS:g} s later")
                continue
            said = self._field.last_line(node)
            if node in self._ending and code == Exit.OK:
                del self._ending[node]
                self._dead.add(node)
            elif node in self._full and code == Exit.DISK and said.startswith("smrx: "):
                self._say(f"node {node} ended with {code}: {said.removeprefix('smrx: ')}")
                self._full.discard(node)
                self._dead.add(node)
                self._revive_later(node, self._chance.uniform(0.1, 2.0))
            elif node in self._damaged and code == Exit.RESOURCE and _REFUSAL.fullmatch(said):
                self._say(f"node {node} refuses its files: {said.removeprefix('smrx: ')}")
                self._damaged.discard(node)
                self._given_up.add(node)
                self._start(node)
            else:
                raise Violation(f"node {node} ended by itself with code {code}; the last it said: {said}")

    def _look_for_memory(self) -> None:
        """Who has everything again, and who took damaged files for whole ones."""
        for node in tuple(
            (self._empty | self._damaged | self._given_up) - self._dead - self._paused - self._ending.keys()
        ):
            status = self._ask(node, Status())
            if isinstance(status, NodeStatus):
                self._given_up.discard(node)
                if node in self._damaged:
                    self._say(f"node {node} found no damage that matters to it")
                    self._damaged.discard(node)
                if status.role != "learner":
                    self._empty.discard(node)

    def _take(self, step: Step) -> None:
        told = self._do[step.fault](step, random.Random(step.chance))
        if told is None:
            self.skipped += 1
        else:
            self.done[step.fault] = self.done.get(step.fault, 0) + 1
            self._say(f"{step.fault}: {told}")

    def _after(self, seconds: float, repair: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, repair))

    # Processes

    def _kill(self, nodes: Iterable[int | None], step: Step) -> str | None:
        victims = [node for node in nodes if node is not None and node in self._steady()]
        if not victims or not (self._durable or self._may_empty(victims)):
            return None
        for node in victims:
            self._field.process(node).kill()
            self._dead.add(node)
        for node in victims:
            self._field.process(node).wait()
            if not self._durable:
                self._empty.add(node)
            self._revive_later(node, step.lasts_s)
        return f"SIGKILL for {_named(victims)}, for {step.lasts_s:.2f} s"

    def _kill_several(self, step: Step, chance: random.Random) -> str | None:
        found = self._steady()
        most = len(found) if self._durable else min(len(found), self._minority - len(self._empty))
        if most < 1:
            return None
        return self._kill(chance.sample(found, chance.randint(1, most)), step)

    def _revive_later(self, node: int, seconds: float) -> None:
        self._dead.add(node)

        def revive() -> None:
            self._dead.discard(node)
            self._start(node)
            self._say(f"node {node} started")

        self._after(seconds, revive)

    def _start(self, node: int) -> None:
        self._field.start_node(node, *(("--rebuild", "--yes") if node in self._given_up else ()))

    def _stop(self, step: Step, chance: random.Random) -> str | None:
        found = self._steady()
        if not found:
            return None
        node = chance.choice(found)
        # Before it answers it may not have learned yet how to end.
        there = isinstance(self._ask(node, Status()), NodeStatus)
        if not there or not (self._durable or self._may_empty([node])):
            return None
        if not self._durable:
            self._empty.add(node)
        self._ending[node] = time.monotonic() + _STOP_SECONDS
        self._field.signal(node, signal.SIGTERM)

        def revive() -> None:
            if node in self._dead:
                self._revive_later(node, 0.0)
            else:
                self._after(_LOOK_SECONDS, revive)

        self._after(step.lasts_s, revive)
        return f"SIGTERM for node {node}"

    def _pause(self, nodes: Iterable[int | None], step: Step) -> str | None:
        victims = [node for node in nodes if node is not None and node in self._steady()]
        if not victims:
            return None
        for node in victims:
            self._field.signal(node, signal.SIGSTOP)
        self._paused.update(victims)

        def go_on() -> None:
            for node in victims:
                self._field.signal(node, signal.SIGCONT)
            self._paused.difference_update(victims)

        self._after(step.lasts_s, go_on)
        return f"SIGSTOP for {_named(victims)}, for {step.lasts_s:.2f} s"

    # Links

    def _set(self, pairs: Iterable[Pair], fate: Fate, step: Step) -> None:
        """Give links a fate for a while; of several at once the last one counts."""
        self._number += 1
        number, changed = self._number, list(pairs)
        for pair in changed:
            self._fates[pair][number] = fate
        self._field.links.set(changed, fate)

        def undo() -> None:
            for pair in changed:
                fates = self._fates[pair]
                del fates[number]
                self._field.links.set([pair], next(reversed(fates.values()), HEALTHY))

        self._after(step.lasts_s, undo)

    def _cut(self, pairs: Iterable[Pair], step: Step, chance: random.Random) -> str | None:
        cut = list(pairs)
        mode = chance.choice(_CUTS)
        self._set(cut, Fate(mode), step)
        return f"{_links(cut)} {mode.value} for {step.lasts_s:.2f} s"

    def _isolate(self, node: int | None, step: Step, chance: random.Random) -> str | None:
        if node is None:
            return None
        return self._cut([pair for pair in self._field.pairs if node in pair], step, chance)

    def _split(self, step: Step, chance: random.Random) -> str | None:
        nodes = list(self._field.node_ids)
        chance.shuffle(nodes)
        here = set(nodes[: chance.randint(1, len(nodes) - 1)])
        return self._cut([pair for pair in self._field.pairs if (pair[0] in here) != (pair[1] in here)], step, chance)

    def _bridge(self, step: Step, chance: random.Random) -> str | None:
        """Two halves that hear each other only through one node."""
        nodes = list(self._field.node_ids)
        chance.shuffle(nodes)
        _, *rest = nodes
        here, there = set(rest[: len(rest) // 2]), set(rest[len(rest) // 2 :])
        cut = [(a, b) for a, b in self._field.pairs if (a in here and b in there) or (a in there and b in here)]
        return self._cut(cut, step, chance)

    def _mute(self, step: Step, chance: random.Random) -> str | None:
        """A node hears the others, and they do not hear it."""
        node = self._leader() or chance.choice(self._field.node_ids)
        return self._cut([pair for pair in self._field.pairs if pair[0] == node], step, chance)

    def _deafen(self, step: Step, chance: random.Random) -> str | None:
        """A node is heard, and hears nobody."""
        node = self._leader() or chance.choice(self._field.node_ids)
        return self._cut([pair for pair in self._field.pairs if pair[1] == node], step, chance)

    def _slow(self, step: Step, chance: random.Random, fate: Fate) -> str | None:
        node = chance.choice((None, *self._field.node_ids))
        slowed = [pair for pair in self._field.pairs if node is None or node in pair]
        self._set(slowed, fate, step)
        what = f"{1000 * fate.delay_s:.0f} ms later" if fate.delay_s else f"at {fate.bytes_per_s / 1000:.0f} kB/s"
        return f"{_links(slowed)} {what} for {step.lasts_s:.2f} s"

    # Requests

    def _hand_over(self, step: Step, chance: random.Random) -> str | None:
        leader = self._leader()
        if leader is None:
            return None
        reply = self._ask(leader, HandOver())
        return f"from node {leader} to node {reply.successor}" if isinstance(reply, HandOverReply) else None

    def _snapshot(self, step: Step, chance: random.Random) -> str | None:
        node = chance.choice(self._field.node_ids)
        reply = self._ask(node, Snapshot()) if node not in self._dead | self._paused else None
        return f"by node {node}, at log entry {reply.log_index}" if isinstance(reply, SnapshotReply) else None

    # Clients

    def _kill_trader(self, step: Step, chance: random.Random) -> str | None:
        account = chance.choice(self._crowd.accounts)
        self._crowd.kill(account)
        seed, patience_s = chance.getrandbits(32), chance.choice((2.0, 30.0))
        self._after(step.lasts_s, lambda: self._crowd.start(account, seed, patience_s))
        return f"SIGKILL for trader {account}"

    def _pause_trader(self, step: Step, chance: random.Random) -> str | None:
        account = chance.choice(self._crowd.accounts)
        self._crowd.signal(account, signal.SIGSTOP)
        self._after(step.lasts_s, lambda: self._crowd.signal(account, signal.SIGCONT))
        return f"SIGSTOP for trader {account}, for {step.lasts_s:.2f} s"

    # Disks

    def _fill_disk(self, step: Step, chance: random.Random) -> str | None:
        found = self._steady()
        if not found:
            return None
        node = chance.choice(found)
        # What a full disk is to a process: no byte can be written beyond some place, of its journal first of all.
        journal = self._field.config.node_dir(node) / JOURNAL
        size = journal.stat().st_size if journal.exists() else 0
        limit = max(int(size * chance.uniform(0.5, 1.05)), self._field.log_path(node).stat().st_size + _ROOM_BYTES)
        resource.prlimit(self._field.process(node).pid, resource.RLIMIT_FSIZE, (limit, limit))
        self._full.add(node)
        process = self._field.process(node)

        def give_up() -> None:
            # It had nothing to write: the limit goes with the process.
            if node in self._full and self._field.process(node) is process and process.poll() is None:
                self._full.discard(node)
                self._field.kill(node)
                self._revive_later(node, 0.0)

        self._after(2.0 + step.lasts_s, give_up)
        return f"node {node} writes nothing beyond byte {limit:,} of a file (its journal has {size:,})"

    def _damage(self, step: Step, chance: random.Random) -> str | None:
        found = [node for node in self._steady() if self._may_empty([node])]
        if not found:
            return None
        node = chance.choice(found)
        self._field.kill(node)
        told = damage(self._field.config.node_dir(node), chance)
        self._dead.add(node)
        self._empty.add(node)

        def start() -> None:
            self._dead.discard(node)
            self._damaged.add(node)
            self._start(node)

        self._after(step.lasts_s, start)
        return f"node {node} killed, {told}"


def _named(nodes: list[int]) -> str:
    return f"node{'s' * (len(nodes) > 1)} {', '.join(map(str, sorted(nodes)))}"


def _links(pairs: list[Pair]) -> str:
    return f"link{'s' * (len(pairs) > 1)} {', '.join(f'{one}-{other}' for one, other in pairs)}"
