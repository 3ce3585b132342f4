"""Whoever breaks a running cluster and repairs it: processes killed or stopped, links cut, disks filled, files hurt.

Owns how each fault is done, within what the caretaker allows. Says everything it does.
"""

import itertools
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cluster.torture import cuts
from cluster.torture.bookkeeper import Bookkeeper
from cluster.torture.caretaker import LOOK_SECONDS, STOP_SECONDS, Caretaker
from cluster.torture.damage import damage
from cluster.torture.field import CLIENTS, Crowd, Field
from cluster.torture.plan import Fault, Step
from cluster.torture.proxies import HEALTHY, Fate, Mode, Pair
from smrx.client.admin_client import Ask
from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.sim.checker import Violation
from smrx.wire.admin import NodeStatus, Snapshot, SnapshotReply, Status, TransferLeadership, TransferLeadershipReply

#: How long some nodes miss what the others commit, and how long those have who would have to elect one of themselves.
_LAG_SECONDS: Final = 0.5
_AMONG_THEMSELVES_SECONDS: Final = 2.5
_CUTS: Final = (Mode.HOLD, Mode.DROP, Mode.REFUSE)
#: For a node's last words in its log.
_ROOM_BYTES: Final = 1 << 14


class Nemesis(Caretaker):
    """Steps in, broken nodes out; heal() makes everything whole."""

    def __init__(
        self, field: Field, crowd: Crowd, bookkeeper: Bookkeeper, ask: Ask, say: Callable[[str], None], seed: int
    ) -> None:
        chance = random.Random(seed)
        super().__init__(field, ask, say, chance)
        self.done: dict[Fault, int] = {}
        self.skipped = 0
        self._crowd = crowd
        self._bookkeeper = bookkeeper
        self._fates: dict[Pair, dict[int, Fate]] = {pair: {} for pair in field.pairs + field.entries}
        self._numbers = itertools.count()
        self._do: dict[Fault, Callable[[Step, random.Random], str | None]] = {
            Fault.KILL_LEADER: lambda step, chance: self._kill([self.leader()], step),
            Fault.KILL_FOLLOWER: lambda step, chance: self._kill([self.follower(chance)], step),
            Fault.KILL_SEVERAL: self._kill_several,
            Fault.KILL_ALL: lambda step, chance: self._kill(self.steady(), step),
            Fault.STOP: self._stop,
            Fault.PAUSE_LEADER: lambda step, chance: self._pause([self.leader()], step),
            Fault.PAUSE_FOLLOWER: lambda step, chance: self._pause([self.follower(chance)], step),
            Fault.PAUSE_ALL: lambda step, chance: self._pause(self.steady(), step),
            Fault.ISOLATE_LEADER: lambda step, chance: self._cut_around(cuts.around, self.leader(), step, chance),
            Fault.ISOLATE_FOLLOWER: lambda step, chance: self._cut_around(
                cuts.around, self.follower(chance), step, chance
            ),
            Fault.SPLIT: lambda step, chance: self._cut(cuts.split(self.nodes, chance), step, chance),
            Fault.BRIDGE: lambda step, chance: self._cut(cuts.bridge(self.nodes, chance), step, chance),
            Fault.MUTE: lambda step, chance: self._cut_around(cuts.said_by, self.leader(), step, chance),
            Fault.DEAFEN: lambda step, chance: self._cut_around(cuts.heard_by, self.leader(), step, chance),
            Fault.CUT_ONE: lambda step, chance: self._cut([chance.choice(field.pairs)], step, chance),
            Fault.SLOW: lambda step, chance: self._slow(step, chance, Fate(delay_s=chance.uniform(0.01, 0.3))),
            Fault.NARROW: lambda step, chance: self._slow(step, chance, Fate(bytes_per_s=chance.uniform(2e4, 5e5))),
            Fault.CUT_CLIENTS: self._cut_clients,
            Fault.SLOW_CLIENTS: self._slow_clients,
            Fault.HAND_OVER: self._hand_over,
            Fault.SNAPSHOT: self._snapshot,
            Fault.FORGET: self._forget,
            Fault.KILL_TRADER: self._kill_trader,
            Fault.PAUSE_TRADER: self._pause_trader,
            Fault.KILL_VERIFIER: self._kill_verifier,
            Fault.PAUSE_VERIFIER: self._pause_verifier,
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
        """As Caretaker, and look after the verifier."""
        super().turn()
        self._bookkeeper.look()

    def heal(self) -> None:
        """Make everything whole at once; every process answers by then, and nobody leads. Raises Violation.

        The last link fault is the worst: nobody hears anybody until nobody leads any more. So what follows is an
        election with everything in its favour.
        """
        self.bring_back()
        mode = self._chance.choice(_CUTS)
        self.say(f"every process answers; all links {mode.value}")
        self.field.links.set(self.field.pairs, Fate(mode))
        deadline = time.monotonic() + STOP_SECONDS
        while self.leader() is not None:
            self.turn()
            if time.monotonic() > deadline:
                raise Violation(f"one leader: node {self.leader()} leads {STOP_SECONDS:g} s after it heard nobody")
        self.field.links.heal()

    def _take(self, step: Step) -> None:
        told = self._do[step.fault](step, random.Random(step.chance))
        if told is None:
            self.skipped += 1
        else:
            self.done[step.fault] = self.done.get(step.fault, 0) + 1
            self.say(f"{step.fault}: {told}")

    # Processes

    def _kill(self, nodes: Iterable[int | None], step: Step) -> str | None:
        victims = [node for node in nodes if node is not None and node in self.steady()]
        if not victims or not (self.durable or self.may_empty(victims)):
            return None
        for node in victims:
            self.field.process(node).kill()
            self.dead.add(node)
        for node in victims:
            self.field.process(node).wait()
            if not self.durable:
                self.empty.add(node)
            self.revive_later(node, step.lasts_s)
        return f"SIGKILL for {_named(victims)}, for {step.lasts_s:.2f} s"

    def _kill_several(self, step: Step, chance: random.Random) -> str | None:
        found = self.steady()
        most = len(found) if self.durable else min(len(found), self.minority - len(self.empty))
        if most < 1:
            return None
        return self._kill(chance.sample(found, chance.randint(1, most)), step)

    def _stop(self, step: Step, chance: random.Random) -> str | None:
        found = self.steady()
        if not found:
            return None
        node = chance.choice(found)
        # Before it answers it may not have learned yet how to end.
        there = isinstance(self.ask(node, Status()), NodeStatus)
        if not there or not (self.durable or self.may_empty([node])):
            return None
        if not self.durable:
            self.empty.add(node)
        self.ending[node] = time.monotonic() + STOP_SECONDS
        self.field.signal(node, signal.SIGTERM)

        def revive() -> None:
            if node in self.dead:
                self.revive_later(node, 0.0)
            else:
                self.after(LOOK_SECONDS, revive)

        self.after(step.lasts_s, revive)
        return f"SIGTERM for node {node}"

    def _pause(self, nodes: Iterable[int | None], step: Step) -> str | None:
        victims = [node for node in nodes if node is not None and node in self.steady()]
        if not victims:
            return None
        for node in victims:
            self.field.signal(node, signal.SIGSTOP)
        self.paused.update(victims)

        def go_on() -> None:
            for node in victims:
                self.field.signal(node, signal.SIGCONT)
            self.paused.difference_update(victims)

        self.after(step.lasts_s, go_on)
        return f"SIGSTOP for {_named(victims)}, for {step.lasts_s:.2f} s"

    # Links

    def _set(self, pairs: Iterable[Pair], fate: Fate) -> Callable[[], None]:
        """Give links a fate, and return what takes it back; of several at once the last one counts."""
        number, changed = next(self._numbers), list(pairs)
        for pair in changed:
            self._fates[pair][number] = fate
        self.field.links.set(changed, fate)

        def undo() -> None:
            for pair in changed:
                fates = self._fates[pair]
                fates.pop(number, None)
                self.field.links.set([pair], next(reversed(fates.values()), HEALTHY))

        return undo

    def _cut(self, pairs: Iterable[Pair], step: Step, chance: random.Random) -> str | None:
        cut = list(pairs)
        mode = chance.choice(_CUTS)
        self.after(step.lasts_s, self._set(cut, Fate(mode)))
        return f"{cuts.named(self.nodes, cut)} {mode.value} for {step.lasts_s:.2f} s"

    def _cut_around(
        self, shape: Callable[[Sequence[int], int], list[Pair]], node: int | None, step: Step, chance: random.Random
    ) -> str | None:
        return None if node is None else self._cut(shape(self.nodes, node), step, chance)

    def _slow(self, step: Step, chance: random.Random, fate: Fate) -> str | None:
        node = chance.choice((None, *self.nodes))
        slowed = cuts.between(self.nodes) if node is None else cuts.around(self.nodes, node)
        self.after(step.lasts_s, self._set(slowed, fate))
        what = f"{1000 * fate.delay_s:.0f} ms later" if fate.delay_s else f"at {fate.bytes_per_s / 1000:.0f} kB/s"
        return f"{cuts.named(self.nodes, slowed)} {what} for {step.lasts_s:.2f} s"

    def _cut_clients(self, step: Step, chance: random.Random) -> str | None:
        """Between clients and the leader, or some node, or all of them."""
        leader = self.leader()
        cut = chance.choice(
            ([(CLIENTS, leader or self.nodes[0])], [chance.choice(self.field.entries)], self.field.entries)
        )
        return self._cut(cut, step, chance)

    def _slow_clients(self, step: Step, chance: random.Random) -> str | None:
        fate = Fate(delay_s=chance.uniform(0.01, 0.5))
        self.after(step.lasts_s, self._set(self.field.entries, fate))
        return f"{1000 * fate.delay_s:.0f} ms later for {step.lasts_s:.2f} s"

    # What one fault alone does not do

    def _forget(self, step: Step, chance: random.Random) -> str | None:
        """Some lag; those who have what the leader has lose it; the leader is cut off when they come back.

        Whoever lags and whoever forgot are a majority together, and may not act as one. In disk mode the files are
        given up, as an operator does.
        """
        leader = self.leader()
        others = [node for node in self.steady() if node != leader]
        chance.shuffle(others)
        forget, lag = others[: self.minority], others[self.minority :]
        if leader is None or leader not in self.steady() or len(lag) < self.minority or not self.may_empty(forget):
            return None
        hear_again = self._set([pair for pair in self.field.pairs if set(pair) & set(lag)], Fate(chance.choice(_CUTS)))

        def cut_off() -> None:
            victims = [node for node in forget if node in self.steady()]
            back = self._set(cuts.around(self.nodes, leader), Fate(chance.choice(_CUTS)))
            if self.may_empty(victims):
                for node in victims:
                    self.field.kill(node)
                    self.empty.add(node)
                    if self.durable:
                        self.given_up.add(node)
                    self.start(node)
            hear_again()
            self.when_there(victims, lambda: self.after(_AMONG_THEMSELVES_SECONDS, back), time.monotonic())

        self.after(_LAG_SECONDS, cut_off)
        return f"{_named(lag)} behind, {_named(forget)} without memory, node {leader} cut off"

    # Requests

    def _hand_over(self, step: Step, chance: random.Random) -> str | None:
        leader = self.leader()
        if leader is None:
            return None
        reply = self.ask(leader, TransferLeadership())
        return f"from node {leader} to node {reply.successor}" if isinstance(reply, TransferLeadershipReply) else None

    def _snapshot(self, step: Step, chance: random.Random) -> str | None:
        node = chance.choice(self.nodes)
        reply = self.ask(node, Snapshot()) if node not in self.dead | self.paused else None
        return f"by node {node}, at log entry {reply.log_index}" if isinstance(reply, SnapshotReply) else None

    # Clients

    def _kill_trader(self, step: Step, chance: random.Random) -> str | None:
        account = chance.choice(self._crowd.accounts)
        self._crowd.kill(account)
        seed, patience_s = chance.getrandbits(32), chance.choice((2.0, 30.0))
        self.after(step.lasts_s, lambda: self._crowd.start(account, seed, patience_s))
        return f"SIGKILL for trader {account}"

    def _pause_trader(self, step: Step, chance: random.Random) -> str | None:
        account = chance.choice(self._crowd.accounts)
        self._crowd.signal(account, signal.SIGSTOP)
        self.after(step.lasts_s, lambda: self._crowd.signal(account, signal.SIGCONT))
        return f"SIGSTOP for trader {account}, for {step.lasts_s:.2f} s"

    # The verifier

    def _kill_verifier(self, step: Step, chance: random.Random) -> str | None:
        if not self._bookkeeper.running:
            return None
        self._bookkeeper.kill()
        self.after(step.lasts_s, self._bookkeeper.start)
        return f"SIGKILL, for {step.lasts_s:.2f} s"

    def _pause_verifier(self, step: Step, chance: random.Random) -> str | None:
        if not self._bookkeeper.running:
            return None
        self._bookkeeper.signal(signal.SIGSTOP)
        self.after(step.lasts_s, lambda: self._bookkeeper.signal(signal.SIGCONT))
        return f"SIGSTOP, for {step.lasts_s:.2f} s"

    # Disks

    def _fill_disk(self, step: Step, chance: random.Random) -> str | None:
        found = self.steady()
        if not found or not hasattr(resource, "prlimit"):
            return None
        node = chance.choice(found)
        # What a full disk is to a process: no byte can be written beyond some place, of its journal first of all.
        journal = self.field.config.node_dir(node) / JOURNAL
        size = journal.stat().st_size if journal.exists() else 0
        limit = max(int(size * chance.uniform(0.5, 1.05)), self.field.log_path(node).stat().st_size + _ROOM_BYTES)
        resource.prlimit(self.field.process(node).pid, resource.RLIMIT_FSIZE, (limit, limit))
        self.full.add(node)
        process = self.field.process(node)

        def give_up() -> None:
            # It had nothing to write: the limit goes with the process.
            if node in self.full and self.field.process(node) is process and process.poll() is None:
                self.full.discard(node)
                self.field.kill(node)
                self.revive_later(node, 0.0)

        self.after(2.0 + step.lasts_s, give_up)
        return f"node {node} writes nothing beyond byte {limit:,} of a file (its journal has {size:,})"

    def _damage(self, step: Step, chance: random.Random) -> str | None:
        found = [node for node in self.steady() if self.may_empty([node])]
        if not found:
            return None
        node = chance.choice(found)
        self.field.kill(node)
        told = damage(self.field.config.node_dir(node), chance)
        self.dead.add(node)
        self.empty.add(node)

        def start() -> None:
            self.dead.discard(node)
            self.damaged.add(node)
            self.start(node)

        self.after(step.lasts_s, start)
        return f"node {node} killed, {told}"


def _named(nodes: list[int]) -> str:
    return f"node{'s' * (len(nodes) > 1)} {', '.join(map(str, sorted(nodes)))}"
