"""Change the members of a simulated cluster: the steps of `smrx cluster add` and `remove`, repeated until they succeed.

Owns the newest cluster file and the changes in progress. Sends requests to the current leader, as the commands do, and
starts again when the leader changes. Checks what the commands leave to the operator: no change may leave a majority of
nodes that lost their state, and two initial nodes stay, because clients know no others. Decides nothing about right and
wrong.
"""

import contextlib
import random
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import NotLeader
from smrx.consensus.membership import MembershipError
from smrx.sim.membership_history import MembershipHistory
from smrx.sim.profile import Profile
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.trace import Trace

_POLL_SECONDS: Final = 0.05
#: A change that takes longer is abandoned at its current step.
_CHANGE_TIMEOUT_SECONDS: Final = 6.0
#: Changes in progress at once: two operators who do not know of each other.
_MAX_CHANGES: Final = 2
#: Initial nodes that are never removed.
_MIN_INITIAL_NODES: Final = 2

_Steps = Generator[None, None, None]


class Operator:
    """The membership changes of one run."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        nodes: Sequence[SimulatedNode],
        history: MembershipHistory,
        trace: Trace,
        profile: Profile,
        rng: random.Random,
    ) -> None:
        #: The ids in the newest cluster file.
        self.cluster_file = {node.id for node in nodes if node.in_service}
        #: Completed changes.
        self.done = 0
        self._scheduler = scheduler
        self._nodes = nodes
        self._history = history
        self._trace = trace
        self._profile = profile
        self._rng = rng
        #: The changes in progress, by the id of the node they add or remove.
        self._changes: dict[int, _Steps] = {}

    @property
    def leader(self) -> SimulatedNode | None:
        """The running leader of the newest term."""
        leaders = [node for node in self._nodes if node.is_leader]
        return max(leaders, key=lambda node: node.replica.term, default=None)

    @property
    def losable_nodes(self) -> int:
        """How many more nodes may lose their state without the loss of a majority's."""
        return self._losable_without(None)

    def _losable_without(self, removed: int | None) -> int:
        journals = [node.journal for node in self._nodes if node.in_service]
        lost = {node.id for node in self._nodes if node.in_service and node.may_lack_memory}
        losable = []
        for members in self._history.possible(journals):
            voters = members.voters - {removed}
            # A learner may become a voter at any moment.
            losable.append((len(voters) - 1) // 2 - len(lost & (members.ids - {removed})))
        return min(losable)

    @property
    def voters(self) -> frozenset[int]:
        """The voters of the newest committed membership."""
        return self._history.newest.voters

    def may_remove(self, *nodes: SimulatedNode) -> bool:
        """Return whether each and all of these can be removed, and no change is in progress."""
        removed = {node.id for node in nodes}
        return (
            not self._changes
            and self._keeps_initial_nodes(removed)
            and all(self._losable_without(node_id) >= 0 for node_id in removed)
        )

    def _keeps_initial_nodes(self, removed: set[int]) -> bool:
        """Return whether enough initial nodes stay, whichever possible membership is in force."""
        initial, needed = frozenset(range(1, self._profile.nodes + 1)), min(_MIN_INITIAL_NODES, self._profile.nodes)
        journals = [node.journal for node in self._nodes if node.in_service]
        return not removed & initial or all(
            len(members.ids & initial - removed) >= needed for members in self._history.possible(journals)
        )

    def update_cluster_file(self) -> None:
        """Write the committed members into the cluster file, unless a change is in progress."""
        if not self._changes:
            self.cluster_file.clear()
            self.cluster_file |= self._member_ids()

    def spare_nodes(self) -> list[SimulatedNode]:
        """Return the nodes that do not run and that no change is about."""
        return [node for node in self._nodes if not node.in_service and node.id not in self._changes]

    def start(self, node: SimulatedNode) -> None:
        """Start a node that is to become a member."""
        node.cluster_file = sorted(self.cluster_file | {node.id})
        node.in_service = True
        if not node.start():
            node.on_crash()

    # The changes.

    def join(self) -> None:
        """Start to add a node: a new one, or one that was removed."""
        spares = [
            node
            for node in self._nodes
            if not (node.in_service and node.id in self._member_ids()) and node.id not in self._changes
        ]
        if spares:
            self._begin(self._rng.choice(spares), self._join)

    def leave(self) -> None:
        """Start to remove a member; its process stops or runs on."""
        initial_nodes = self._profile.nodes
        initial = [n for n in sorted(self.cluster_file) if n <= initial_nodes and n not in self._changes]
        needed = min(_MIN_INITIAL_NODES, initial_nodes)
        choices = [n for n in sorted(self.cluster_file) if n > initial_nodes or len(initial) > needed]
        choices = [n for n in choices if n not in self._changes and n in self._member_ids()]
        if choices:
            self._begin(self._node(self._rng.choice(choices)), self._leave)

    def replace(self) -> None:
        """Start to replace a member: it crashes, and an empty node with the same id joins."""
        initial_nodes = self._profile.nodes
        candidates = [
            node
            for node in self._nodes
            if node.up and not node.replica.is_leader and node.id in self._member_ids() and node.id not in self._changes
        ]
        initial = len([n for n in self.cluster_file if n <= initial_nodes and n not in self._changes])
        if initial_nodes == 1:
            candidates = [node for node in candidates if node.id > 1]
        elif initial <= _MIN_INITIAL_NODES:
            candidates = [node for node in candidates if node.id > initial_nodes]
        if candidates and (self._profile.durable or self.losable_nodes > 0):
            self._begin(self._rng.choice(candidates), self._replace)

    def end(self) -> None:
        """Abandon all changes at their current steps."""
        for steps in self._changes.values():
            steps.close()
        self._changes.clear()

    def _begin(self, node: SimulatedNode, change: Callable[[SimulatedNode], _Steps]) -> None:
        if len(self._changes) < _MAX_CHANGES:
            self._changes[node.id] = steps = change(node)
            self._continue(node, steps, self._scheduler.now + _CHANGE_TIMEOUT_SECONDS)

    def _continue(self, node: SimulatedNode, steps: _Steps, deadline: float) -> None:
        if self._changes.get(node.id) is not steps:
            return
        if self._scheduler.now <= deadline:
            try:
                next(steps)
            except StopIteration:
                self.done += 1
            else:
                self._scheduler.call_later(_POLL_SECONDS, self._continue, node, steps, deadline)
                return
        self._trace.note(
            "the change of node {} ends; the cluster file has nodes {}", node.id, sorted(self.cluster_file)
        )
        steps.close()
        del self._changes[node.id]

    def _join(self, node: SimulatedNode) -> _Steps:
        if not node.up and self._rng.random() < 0.5:
            node.wipe()
        yield from self._add(node)

    def _add(self, node: SimulatedNode) -> _Steps:
        self.cluster_file.add(node.id)
        if not node.up:
            self.start(node)
        while True:
            leader = self.leader
            if leader is not None:
                membership = leader.replica.membership
                if node.id in membership.voters and leader is self._leader_with_committed_membership():
                    return
                if node.id not in membership.ids:
                    self.request(leader, partial(leader.replica.add_member, NodeConfig(id=node.id, port=node.id)))
            yield

    def _leave(self, node: SimulatedNode) -> _Steps:
        stops = self._rng.random() < 0.5
        yield from self._remove(node)
        if stops:
            self._trace.note("node {} is removed and stops", node.id)
            node.stop()
        else:
            self._trace.note("node {} is removed and runs on", node.id)

    def _replace(self, node: SimulatedNode) -> _Steps:
        node.steps_to_crash = 1
        node.wake(self._scheduler.now)
        node.may_restart = False
        try:
            while node.up:
                yield
            yield from self._remove(node)
            node.wipe()
        finally:
            node.may_restart = True
            if not node.up:
                node.on_crash()
        yield from self._add(node)

    def _remove(self, node: SimulatedNode) -> _Steps:
        while True:
            leader = self._leader_with_committed_membership()
            if leader is not None:
                if node.id not in leader.replica.membership.ids:
                    self.cluster_file.discard(node.id)
                    return
                if leader is node:
                    with contextlib.suppress(NotLeader, ValueError):
                        leader.transfer_leadership()
                elif self._losable_without(node.id) >= 0 and self._keeps_initial_nodes({node.id}):
                    self.request(leader, partial(leader.replica.remove_member, node.id))
            yield

    def request(self, leader: SimulatedNode, change: Callable[[], int]) -> None:
        """Request a membership change from a leader, which may refuse it."""
        with contextlib.suppress(NotLeader, MembershipError):
            leader.call(change)
            self._trace.note("node {} accepts a change of the members", leader.id)

    def _leader_with_committed_membership(self) -> SimulatedNode | None:
        """Return the leader if it has committed its membership, and an entry of its own term."""
        leader = self.leader
        if leader is None:
            return None
        replica, journal = leader.replica, leader.journal
        is_committed = journal.membership[0] <= replica.commit_index
        return leader if is_committed and journal.term_at(replica.commit_index) == replica.term else None

    def _member_ids(self) -> frozenset[int]:
        return self._history.newest.ids

    def _node(self, node_id: int) -> SimulatedNode:
        return next(node for node in self._nodes if node.id == node_id)
