"""Inject faults from outside the cluster or from the program itself, and arranged coincidences.

Owns when these happen, with a random generator of its own: a run without scenarios is the run it would be if there were
none. A coincidence is a sequence of possible events that chance would not produce in any feasible number of runs.
Decides nothing about right and wrong.
"""

import contextlib
import random
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import NotLeader
from smrx.sim import fault_targets
from smrx.sim.fault_schedule import FaultSchedule
from smrx.sim.network import LinkId
from smrx.sim.profile import SCENARIOS
from smrx.sim.simulated_cluster import SimulatedCluster
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.simulated_transport import key_of
from smrx.sim.unknown_peer import KnownState, forge_message
from smrx.sim.versions import CURRENT_VERSION, NEXT_VERSION

_MEAN_SECONDS: Final = 0.3
#: Messages of an unknown peer on one connection.
_FORGED_MESSAGES: Final = 5
#: Time between two steps of a coincidence: less than a message takes.
_STEP_SECONDS: Final = 0.001
#: Entries that only a minority receives, and then those in their places.
_BARRIERS: Final = 12
#: The smallest cluster in which a coincidence is possible, spare nodes included.
_MIN_NODES: Final = {"late acknowledgements": 5, "concurrent changes": 4, "two new nodes": 5}
#: Timeouts for the effect of an election, and for a leader without a majority to step down.
_ELECTION_TIMEOUT_SECONDS: Final = 3.0
_LEASE_TIMEOUT_SECONDS: Final = 1.5

_Steps = Generator[None, None, None]


class FaultScenarios(FaultSchedule):
    """The fault scenarios of one run."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        super().__init__(cluster, rng, _MEAN_SECONDS)
        self._operator = cluster.operator
        self._network = cluster.network
        profile = cluster.profile
        node_count = profile.nodes + profile.spares
        self.enable(
            [name for name in SCENARIOS if name in profile.faults and node_count >= _MIN_NODES.get(name, 1)],
            {
                "unknown peer": self._send_forged_messages,
                "out of memory": self._exhaust_memory,
                "upgrade": self._upgrade,
                "late acknowledgements": partial(self._arrange, self._late_acknowledgements),
                "concurrent changes": partial(self._arrange, self._concurrent_changes),
                "two new nodes": partial(self._arrange, self._two_new_nodes),
            },
        )
        #: The coincidence in progress.
        self._coincidence: _Steps | None = None

    def end(self) -> None:
        """Stop to inject faults, and complete an upgrade that was started."""
        self.is_active = False
        if self._coincidence is not None:
            self._coincidence.close()
        is_upgrading = any(node.version != CURRENT_VERSION for node in self._cluster.nodes)
        for node in self._cluster.nodes:
            node.memory_fault_before = node.memory_fault_after = False
            # In memory mode all at once would lose the state; a node that lacks the rules in force is upgraded anyway.
            completes = is_upgrading and self._cluster.profile.durable
            if completes and node.in_service and node.version == CURRENT_VERSION:
                node.version = NEXT_VERSION
                node.crash()

    def _send_forged_messages(self) -> None:
        """Let an unknown peer connect to a node and claim to be a member."""
        running, in_service = self._cluster.running, self._cluster.in_service
        if not running:
            return
        target = self._rng.choice(running)
        others = [node for node in in_service if node is not target]
        claimed = self._rng.choice(others) if others else target
        overheard = self._network.recent_frames_to(target.id)
        journal = target.journal
        known = KnownState(
            target.meta.incarnation,
            target.replica.term,
            journal.last_index,
            journal.last_term,
            claimed.id,
            claimed.meta.incarnation,
            key_of(claimed.id),
        )
        for _ in range(_FORGED_MESSAGES):
            target.receive_from_unknown_peer(*forge_message(self._rng, known, overheard))

    def _exhaust_memory(self) -> None:
        """Let a node run out of memory before or after it applies its next entry."""
        nodes = [node for node in self._cluster.running if node.steps_to_crash is None]
        if nodes and (self._cluster.profile.durable or self._operator.losable_nodes > 0):
            node = self._rng.choice(nodes)
            if self._rng.random() < 0.5:
                node.memory_fault_before = True
            else:
                node.memory_fault_after = True

    def _upgrade(self) -> None:
        """Take one step of an upgrade: restart nodes as the next version, or switch to its rules once all have it.

        Sometimes a node goes back to the current version; after the switch it then has to stop. In memory mode a node
        is restarted only if the others keep the state.
        """
        cluster, switched = self._cluster, self._cluster.checker.has_logged_next_rules
        running, durable = cluster.running, cluster.profile.durable
        old = [node for node in running if node.version == CURRENT_VERSION]
        new = [node for node in running if node.version == NEXT_VERSION]
        goes_back = new and self._rng.random() < (0.05 if switched else 0.15)
        if not goes_back and (not old or self._rng.random() < 0.1):
            self._switch_rules()
            return
        count = len(old) if durable and not goes_back and self._rng.random() < 0.3 else 1
        chosen, version = (new, CURRENT_VERSION) if goes_back else (old, NEXT_VERSION)
        for node in self._rng.sample(chosen, count):
            if durable or self._operator.losable_nodes > 0:
                way = (
                    "is upgraded to the next version" if version == NEXT_VERSION else "goes back to the current version"
                )
                self._cluster.trace.note("node {} {}", node.id, way)
                node.version = version
                node.crash()

    def _switch_rules(self) -> None:
        """Ask the leader for the switch, which it refuses unless every member has the next version."""
        leader = self._operator.leader
        if leader is not None:
            with contextlib.suppress(NotLeader, ValueError):
                leader.call(leader.upgrade_rules)

    # Coincidences.

    def _arrange(self, coincidence: Callable[[], _Steps]) -> None:
        if self._coincidence is None:
            self._coincidence = coincidence()
            self._continue()

    def _continue(self) -> None:
        steps = self._coincidence
        if steps is None or not self.is_active:
            return
        try:
            next(steps)
        except StopIteration:
            self._coincidence = None
        else:
            self._cluster.scheduler.call_later(_STEP_SECONDS, self._continue)

    def _wait(
        self, condition: Callable[[], object], seconds: float = _ELECTION_TIMEOUT_SECONDS
    ) -> Generator[None, None, bool]:
        """Wait for a condition; return whether it held before the timeout."""
        scheduler = self._cluster.scheduler
        end = scheduler.now + seconds
        while not condition():
            if scheduler.now > end:
                return False
            yield
        return True

    def _late_acknowledgements(self) -> _Steps:
        """Deliver acknowledgements to a leader that has led an earlier term and has another log by now.

        The leader and one node are cut off with entries that no other node receives; the node's acknowledgements stay
        in flight. Another leader is elected and transfers the leadership back to the first. The first has other entries
        at the same indexes, and one node that receives them, when the old acknowledgements arrive on a connection that
        both ends consider closed.
        """
        first = self._operator.leader
        voters = self._running_voters()
        if first is None or first not in voters or len(voters) < 5:
            return
        companion, witness, *rest = self._rng.sample([node for node in voters if node is not first], len(voters) - 1)
        self._network.hold(companion.id, first.id)
        cut = self._partition([first, companion], [witness, *rest])
        self._submit_barriers(first)
        elected = yield from self._wait(lambda: self._operator.leader not in (first, None) and not first.is_leader)
        deliver_old_messages = self._network.release(companion.id, first.id)
        self._network.cuts -= cut
        if not elected or not deliver_old_messages:
            return

        def first_leads_again() -> bool:
            leader = self._operator.leader
            if leader is not None and leader is not first and not leader.replica.is_transferring:
                with contextlib.suppress(NotLeader, ValueError):
                    leader.replica.transfer_leadership(first.id)
                    leader.wake(self._cluster.scheduler.now)
            return leader is first

        if not (yield from self._wait(first_leads_again)):
            return
        # The link from the companion stays open for the old acknowledgements, although it sends nothing new.
        cut = self._partition([first], [companion, *rest])
        self._network.cuts.discard((companion.id, first.id))
        self._submit_barriers(first)
        self._cluster.trace.note("old messages of node {} to node {} arrive", companion.id, first.id)
        deliver_old_messages()
        yield from self._wait(lambda: not first.is_leader, _LEASE_TIMEOUT_SECONDS)
        self._network.cuts -= cut

    def _concurrent_changes(self) -> _Steps:
        """Let two leaders start a membership change each, the second as soon as it leads, unknown to each other.

        Four voters: the first leader, cut off, is to remove one. The second leader, elected by the other three, is to
        remove the first, while one of its voters receives nothing of it. That voter is then connected to the first
        leader alone.
        """
        first = self._operator.leader
        voters = self._running_voters()
        if first is None or first not in voters or len(voters) != 4:
            return
        others = [node for node in voters if node is not first]
        may_remove = self._operator.may_remove
        removed = next((node for node in self._rng.sample(others, 3) if may_remove(node, first)), None)
        if removed is None:
            return
        cut = self._partition([first], others)
        self._operator.request(first, partial(first.replica.remove_member, removed.id))
        yield from self._wait(lambda: any(node.is_leader for node in others))
        self._network.cuts -= cut
        second = self._operator.leader
        if second is None or second not in others or not second.is_leader:
            return
        uninformed = next(node for node in others if node not in (second, removed))
        staying = [node for node in others if node is not uninformed]
        cut = self._partition([first, uninformed], staying)
        self._operator.request(second, partial(second.replica.remove_member, first.id))
        yield from self._wait(lambda: first.is_leader)
        yield from self._wait(lambda: not first.is_leader, _LEASE_TIMEOUT_SECONDS)
        self._network.cuts -= cut
        self._operator.update_cluster_file()

    def _two_new_nodes(self) -> _Steps:
        """Let a leader of three that is cut off add two new nodes, which are connected to it alone.

        With both it would be a majority of five, while the other two are a majority of three.
        """
        first = self._operator.leader
        voters, new = self._running_voters(), self._operator.spare_nodes()[:2]
        if first is None or first not in voters or len(voters) != 3 or len(new) < 2:
            return
        others = [node for node in voters if node is not first]
        for node in new:
            self._operator.start(node)
        cut = self._partition([first, *new], others)
        for node in new:
            config = NodeConfig(id=node.id, port=node.id)
            self._operator.request(first, partial(first.replica.add_member, config))
        yield from self._wait(lambda: any(node.is_leader for node in others))
        yield from self._wait(lambda: not first.is_leader, _LEASE_TIMEOUT_SECONDS)
        self._network.cuts -= cut
        self._operator.update_cluster_file()

    def _running_voters(self) -> list[SimulatedNode]:
        """Return the voters, or no node if one of them does not run."""
        voters = [node for node in self._cluster.nodes if node.id in self._operator.voters]
        return voters if all(node.up for node in voters) else []

    def _partition(self, some: Sequence[SimulatedNode], others: Sequence[SimulatedNode]) -> set[LinkId]:
        return fault_targets.partition(self._cluster, [node.id for node in some], [node.id for node in others])

    def _submit_barriers(self, node: SimulatedNode) -> None:
        """Log some empty entries, as queries do that ask whether the node leads."""
        with contextlib.suppress(NotLeader):
            for _ in range(_BARRIERS):
                node.call(lambda: node.submit_entry([])[0])
