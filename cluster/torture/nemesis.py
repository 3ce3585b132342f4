"""Inject faults into a running cluster and repair them.

Kills and stops processes, cuts links, fills disks and damages files, within the limits of FaultState. Reports every
fault. "Nemesis" is the term of Jepsen.
"""

import itertools
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cluster.torture import link_cuts
from cluster.torture.cluster_under_test import CLIENTS, ClusterUnderTest, WorkloadClients
from cluster.torture.fault_plan import Fault, PlannedFault
from cluster.torture.fault_state import POLL_SECONDS, STOP_SECONDS, FaultState
from cluster.torture.file_damage import damage_file
from cluster.torture.gateway_processes import GatewayProcesses
from cluster.torture.link_proxies import HEALTHY, LinkMode, LinkState, Pair
from cluster.torture.verifier_process import VerifierProcess
from smrx.client.admin_client import Ask
from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.sim.checker import Violation
from smrx.wire.admin import NodeStatus, Snapshot, SnapshotReply, Status, TransferLeadership, TransferLeadershipReply

#: Of LOSE_STATE: how long some nodes receive nothing, and how long the leader is cut off for an election.
_LAG_SECONDS: Final = 0.5
_ELECTION_SECONDS: Final = 2.5
_CUTS: Final = (LinkMode.HOLD, LinkMode.DROP, LinkMode.REFUSE)
#: Space left in the log of a node whose disk is full, for its error message.
_LOG_SPACE_BYTES: Final = 1 << 14


class Nemesis(FaultState):
    """Injects the faults of a plan; repair() ends them all."""

    def __init__(
        self,
        cluster: ClusterUnderTest,
        clients: WorkloadClients,
        verifier: VerifierProcess,
        gateways: GatewayProcesses,
        ask: Ask,
        report: Callable[[str], None],
        seed: int,
    ) -> None:
        chance = random.Random(seed)
        super().__init__(cluster, ask, report, chance)
        self.done: dict[Fault, int] = {}
        self.skipped = 0
        self._clients = clients
        self._verifier = verifier
        self._gateways = gateways
        self._link_states: dict[Pair, dict[int, LinkState]] = {
            pair: {} for pair in cluster.pairs + cluster.client_links
        }
        self._numbers = itertools.count()
        self._do: dict[Fault, Callable[[PlannedFault, random.Random], str | None]] = {
            Fault.KILL_LEADER: lambda planned, chance: self._kill([self.leader()], planned),
            Fault.KILL_FOLLOWER: lambda planned, chance: self._kill([self.follower(chance)], planned),
            Fault.KILL_SEVERAL: self._kill_several,
            Fault.KILL_ALL: lambda planned, chance: self._kill(self.undisturbed(), planned),
            Fault.STOP: self._stop,
            Fault.PAUSE_LEADER: lambda planned, chance: self._pause([self.leader()], planned),
            Fault.PAUSE_FOLLOWER: lambda planned, chance: self._pause([self.follower(chance)], planned),
            Fault.PAUSE_ALL: lambda planned, chance: self._pause(self.undisturbed(), planned),
            Fault.ISOLATE_LEADER: lambda planned, chance: self._cut_around(
                link_cuts.links_of, self.leader(), planned, chance
            ),
            Fault.ISOLATE_FOLLOWER: lambda planned, chance: self._cut_around(
                link_cuts.links_of, self.follower(chance), planned, chance
            ),
            Fault.SPLIT: lambda planned, chance: self._cut(link_cuts.split(self.nodes, chance), planned, chance),
            Fault.BRIDGE: lambda planned, chance: self._cut(link_cuts.bridge(self.nodes, chance), planned, chance),
            Fault.CUT_OUTGOING: lambda planned, chance: self._cut_around(
                link_cuts.outgoing, self.leader(), planned, chance
            ),
            Fault.CUT_INCOMING: lambda planned, chance: self._cut_around(
                link_cuts.incoming, self.leader(), planned, chance
            ),
            Fault.CUT_ONE: lambda planned, chance: self._cut([chance.choice(cluster.pairs)], planned, chance),
            Fault.DELAY: lambda planned, chance: self._slow(
                planned, chance, LinkState(delay_s=chance.uniform(0.01, 0.3))
            ),
            Fault.LIMIT_BANDWIDTH: lambda planned, chance: self._slow(
                planned, chance, LinkState(bytes_per_s=chance.uniform(2e4, 5e5))
            ),
            Fault.CUT_CLIENTS: self._cut_clients,
            Fault.DELAY_CLIENTS: self._slow_clients,
            Fault.TRANSFER_LEADERSHIP: self._transfer_leadership,
            Fault.SNAPSHOT: self._snapshot,
            Fault.LOSE_STATE: self._lose_state,
            Fault.KILL_CLIENT: self._kill_client,
            Fault.PAUSE_CLIENT: self._pause_client,
            Fault.KILL_VERIFIER: self._kill_verifier,
            Fault.PAUSE_VERIFIER: self._pause_verifier,
            Fault.KILL_GATEWAY: self._kill_gateway,
            Fault.PAUSE_GATEWAY: self._pause_gateway,
            Fault.FULL_DISK: self._fill_disk,
            Fault.DAMAGE_FILE: self._damage,
        }

    def inject(self, plan: Iterable[PlannedFault], seconds: float) -> None:
        """Inject every fault of a plan when it is due; return after `seconds`. Raises Violation."""
        waiting = list(plan)
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            while waiting and time.monotonic() - started >= waiting[0].at_s:
                self._start_fault(waiting.pop(0))
            self.turn()

    def turn(self) -> None:
        """Run due repairs, check the nodes and the verifier; raises Violation."""
        super().turn()
        self._verifier.check()
        self._gateways.check()

    def repair(self) -> None:
        """Repair everything; return when every process answers and no node leads. Raises Violation.

        The last fault cuts all links until no node leads, so an election under ideal conditions follows.
        """
        self.repair_all()
        mode = self._chance.choice(_CUTS)
        self.report(f"every process answers; all links {mode.value}")
        self.cluster.links.set(self.cluster.pairs, LinkState(mode))
        deadline = time.monotonic() + STOP_SECONDS
        while self.leader() is not None:
            self.turn()
            if time.monotonic() > deadline:
                raise Violation(f"one leader: node {self.leader()} leads {STOP_SECONDS:g} s after all links were cut")
        self.cluster.links.heal()

    def _start_fault(self, planned: PlannedFault) -> None:
        text = self._do[planned.fault](planned, random.Random(planned.chance))
        if text is None:
            self.skipped += 1
        else:
            self.done[planned.fault] = self.done.get(planned.fault, 0) + 1
            self.report(f"{planned.fault}: {text}")

    # Processes

    def _kill(self, nodes: Iterable[int | None], planned: PlannedFault) -> str | None:
        victims = [node for node in nodes if node is not None and node in self.undisturbed()]
        if not victims or not (self.durable or self.may_lose_state(victims)):
            return None
        for node in victims:
            self.cluster.process(node).kill()
            self.dead.add(node)
        for node in victims:
            self.cluster.process(node).wait()
            if not self.durable:
                self.without_state.add(node)
            self.start_later(node, planned.lasts_s)
        return f"SIGKILL for {_named(victims)}, for {planned.lasts_s:.2f} s"

    def _kill_several(self, planned: PlannedFault, chance: random.Random) -> str | None:
        found = self.undisturbed()
        most = len(found) if self.durable else min(len(found), self.minority - len(self.without_state))
        if most < 1:
            return None
        return self._kill(chance.sample(found, chance.randint(1, most)), planned)

    def _stop(self, planned: PlannedFault, chance: random.Random) -> str | None:
        found = self.undisturbed()
        if not found:
            return None
        node = chance.choice(found)
        # A process that does not answer yet may not have installed its signal handlers.
        answering = isinstance(self.ask(node, Status()), NodeStatus)
        if not answering or not (self.durable or self.may_lose_state([node])):
            return None
        if not self.durable:
            self.without_state.add(node)
        self.stopping[node] = time.monotonic() + STOP_SECONDS
        self.cluster.signal(node, signal.SIGTERM)

        def start() -> None:
            if node in self.dead:
                self.start_later(node, 0.0)
            else:
                self.after(POLL_SECONDS, start)

        self.after(planned.lasts_s, start)
        return f"SIGTERM for node {node}"

    def _pause(self, nodes: Iterable[int | None], planned: PlannedFault) -> str | None:
        victims = [node for node in nodes if node is not None and node in self.undisturbed()]
        if not victims:
            return None
        for node in victims:
            self.cluster.signal(node, signal.SIGSTOP)
        self.paused.update(victims)

        def resume() -> None:
            for node in victims:
                self.cluster.signal(node, signal.SIGCONT)
            self.paused.difference_update(victims)

        self.after(planned.lasts_s, resume)
        return f"SIGSTOP for {_named(victims)}, for {planned.lasts_s:.2f} s"

    # LinkProxies

    def _set(self, pairs: Iterable[Pair], state: LinkState) -> Callable[[], None]:
        """Set the state of links and return a function that undoes it; the last state set and not undone applies."""
        number, changed = next(self._numbers), list(pairs)
        for pair in changed:
            self._link_states[pair][number] = state
        self.cluster.links.set(changed, state)

        def undo() -> None:
            for pair in changed:
                states = self._link_states[pair]
                states.pop(number, None)
                self.cluster.links.set([pair], next(reversed(states.values()), HEALTHY))

        return undo

    def _cut(self, pairs: Iterable[Pair], planned: PlannedFault, chance: random.Random) -> str | None:
        cut = list(pairs)
        mode = chance.choice(_CUTS)
        self.after(planned.lasts_s, self._set(cut, LinkState(mode)))
        return f"{link_cuts.describe(self.nodes, cut)} {mode.value} for {planned.lasts_s:.2f} s"

    def _cut_around(
        self,
        shape: Callable[[Sequence[int], int], list[Pair]],
        node: int | None,
        planned: PlannedFault,
        chance: random.Random,
    ) -> str | None:
        return None if node is None else self._cut(shape(self.nodes, node), planned, chance)

    def _slow(self, planned: PlannedFault, chance: random.Random, state: LinkState) -> str | None:
        node = chance.choice((None, *self.nodes))
        slowed = link_cuts.all_links(self.nodes) if node is None else link_cuts.links_of(self.nodes, node)
        self.after(planned.lasts_s, self._set(slowed, state))
        what = (
            f"delayed by {1000 * state.delay_s:.0f} ms" if state.delay_s else f"at {state.bytes_per_s / 1000:.0f} kB/s"
        )
        return f"{link_cuts.describe(self.nodes, slowed)} {what} for {planned.lasts_s:.2f} s"

    def _cut_clients(self, planned: PlannedFault, chance: random.Random) -> str | None:
        """Cut the clients' links to the leader, to a random node, or to all nodes."""
        leader = self.leader()
        cut = chance.choice(
            (
                [(CLIENTS, leader or self.nodes[0])],
                [chance.choice(self.cluster.client_links)],
                self.cluster.client_links,
            )
        )
        return self._cut(cut, planned, chance)

    def _slow_clients(self, planned: PlannedFault, chance: random.Random) -> str | None:
        state = LinkState(delay_s=chance.uniform(0.01, 0.5))
        self.after(planned.lasts_s, self._set(self.cluster.client_links, state))
        return f"{1000 * state.delay_s:.0f} ms delay on all client links for {planned.lasts_s:.2f} s"

    # A combination of faults

    def _lose_state(self, planned: PlannedFault, chance: random.Random) -> str | None:
        """Let some nodes lagging, let others lose their state, and cut off the leader when those come back.

        The lagging nodes and those without state are a majority together, and must not elect a leader. In disk mode
        the files are discarded, as an operator does.
        """
        leader = self.leader()
        others = [node for node in self.undisturbed() if node != leader]
        chance.shuffle(others)
        losing, lagging = others[: self.minority], others[self.minority :]
        if (
            leader is None
            or leader not in self.undisturbed()
            or len(lagging) < self.minority
            or not self.may_lose_state(losing)
        ):
            return None
        reconnect = self._set(
            [pair for pair in self.cluster.pairs if set(pair) & set(lagging)], LinkState(chance.choice(_CUTS))
        )

        def cut_off() -> None:
            victims = [node for node in losing if node in self.undisturbed()]
            restore_leader = self._set(link_cuts.links_of(self.nodes, leader), LinkState(chance.choice(_CUTS)))
            if self.may_lose_state(victims):
                for node in victims:
                    self.cluster.kill(node)
                    self.without_state.add(node)
                    if self.durable:
                        self.rebuilding.add(node)
                    self.start(node)
            reconnect()
            self.when_answering(victims, lambda: self.after(_ELECTION_SECONDS, restore_leader), time.monotonic())

        self.after(_LAG_SECONDS, cut_off)
        return f"{_named(lagging)} lagging, {_named(losing)} without state, node {leader} cut off"

    # Requests

    def _transfer_leadership(self, planned: PlannedFault, chance: random.Random) -> str | None:
        leader = self.leader()
        if leader is None:
            return None
        reply = self.ask(leader, TransferLeadership())
        return f"from node {leader} to node {reply.successor}" if isinstance(reply, TransferLeadershipReply) else None

    def _snapshot(self, planned: PlannedFault, chance: random.Random) -> str | None:
        node = chance.choice(self.nodes)
        reply = self.ask(node, Snapshot()) if node not in self.dead | self.paused else None
        return f"by node {node}, at log entry {reply.log_index}" if isinstance(reply, SnapshotReply) else None

    # Clients

    def _kill_client(self, planned: PlannedFault, chance: random.Random) -> str | None:
        account = chance.choice(self._clients.accounts)
        self._clients.kill(account)
        seed, timeout_s = chance.getrandbits(32), chance.choice((2.0, 30.0))
        self.after(planned.lasts_s, lambda: self._clients.start(account, seed, timeout_s))
        return f"SIGKILL for client {account}"

    def _pause_client(self, planned: PlannedFault, chance: random.Random) -> str | None:
        account = chance.choice(self._clients.accounts)
        self._clients.signal(account, signal.SIGSTOP)
        self.after(planned.lasts_s, lambda: self._clients.signal(account, signal.SIGCONT))
        return f"SIGSTOP for client {account}, for {planned.lasts_s:.2f} s"

    # The verifier

    def _kill_verifier(self, planned: PlannedFault, chance: random.Random) -> str | None:
        if not self._verifier.running:
            return None
        self._verifier.kill()
        self.after(planned.lasts_s, self._verifier.start)
        return f"SIGKILL, for {planned.lasts_s:.2f} s"

    def _pause_verifier(self, planned: PlannedFault, chance: random.Random) -> str | None:
        if not self._verifier.running:
            return None
        self._verifier.signal(signal.SIGSTOP)
        self.after(planned.lasts_s, lambda: self._verifier.signal(signal.SIGCONT))
        return f"SIGSTOP, for {planned.lasts_s:.2f} s"

    # Gateways

    def _kill_gateway(self, planned: PlannedFault, chance: random.Random) -> str | None:
        name = chance.choice(self._gateways.names)
        if self._gateways.is_killed(name):
            return None
        self._gateways.kill(name)
        self.after(planned.lasts_s, lambda: self._gateways.start(name))
        return f"SIGKILL for gateway {name}, for {planned.lasts_s:.2f} s"

    def _pause_gateway(self, planned: PlannedFault, chance: random.Random) -> str | None:
        name = chance.choice(self._gateways.names)
        self._gateways.signal(name, signal.SIGSTOP)
        self.after(planned.lasts_s, lambda: self._gateways.signal(name, signal.SIGCONT))
        return f"SIGSTOP for gateway {name}, for {planned.lasts_s:.2f} s"

    # Disks

    def _fill_disk(self, planned: PlannedFault, chance: random.Random) -> str | None:
        found = self.undisturbed()
        if not found or not hasattr(resource, "prlimit"):
            return None
        node = chance.choice(found)
        # A limit on the file size acts as a full disk: writes beyond it fail, those to the journal first.
        journal = self.cluster.config.node_dir(node) / JOURNAL
        size = journal.stat().st_size if journal.exists() else 0
        limit = max(
            int(size * chance.uniform(0.5, 1.05)), self.cluster.log_path(node).stat().st_size + _LOG_SPACE_BYTES
        )
        resource.prlimit(self.cluster.process(node).pid, resource.RLIMIT_FSIZE, (limit, limit))
        self.full.add(node)
        process = self.cluster.process(node)

        def restart() -> None:
            # The node wrote nothing that large; the limit ends with its process.
            if node in self.full and self.cluster.process(node) is process and process.poll() is None:
                self.full.discard(node)
                self.cluster.kill(node)
                self.start_later(node, 0.0)

        self.after(2.0 + planned.lasts_s, restart)
        return f"node {node} cannot write beyond byte {limit:,} of a file (its journal has {size:,} bytes)"

    def _damage(self, planned: PlannedFault, chance: random.Random) -> str | None:
        found = [node for node in self.undisturbed() if self.may_lose_state([node])]
        if not found:
            return None
        node = chance.choice(found)
        self.cluster.kill(node)
        text = damage_file(self.cluster.config.node_dir(node), chance)
        self.dead.add(node)
        self.without_state.add(node)

        def start() -> None:
            self.dead.discard(node)
            self.damaged.add(node)
            self.start(node)

        self.after(planned.lasts_s, start)
        return f"node {node} killed; {text}"


def _named(nodes: list[int]) -> str:
    return f"node{'s' * (len(nodes) > 1)} {', '.join(map(str, sorted(nodes)))}"
