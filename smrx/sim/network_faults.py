"""Faults of the network and of clients: partitions, one-way cuts, broken and slow connections, abandoned sessions."""

from collections.abc import Callable, Sequence

from smrx.sim.fault_targets import FaultTargets, cut, partition


class NetworkFaults:
    """One method for each fault."""

    def __init__(self, targets: FaultTargets) -> None:
        self._targets = targets
        self._cluster = targets.cluster
        self._network = targets.cluster.network
        self._rng = targets.rng

    def actions(self) -> dict[str, Callable[[], None]]:
        """Return the method of each fault by the fault's name."""
        return {
            "isolate": self._isolate,
            "isolate the leader": self._isolate_leader,
            "strand the leader": self._strand_leader,
            "partition": self._partition_nodes,
            "bridge": self._bridge,
            "one-way cut": self._cut_one_way,
            "one-way isolation": self._isolate_one_way,
            "replay old messages": self._network.replay_old_frames,
            "break a connection": lambda: self._break(lose=True),
            "overtake": lambda: self._break(lose=False),
            "stall a connection": self._stall,
            "corrupt a snapshot chunk": self._corrupt_chunk,
            "client disconnects": self._disconnect_client,
            "client abandons its session": self._abandon_session,
            "client is cut off": self._cut_off_client,
        }

    def _cut(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        cut(self._cluster, sources, targets)

    def _partition(self, some: Sequence[int], others: Sequence[int]) -> None:
        partition(self._cluster, some, others)

    def _isolate(self) -> None:
        self._partition([self._targets.node().id], self._targets.ids)

    def _isolate_leader(self) -> None:
        self._partition([self._targets.leader().id], self._targets.ids)

    def _strand_leader(self) -> None:
        """Leave the leader with a minority, which takes its entries and cannot commit them."""
        ids = self._targets.ids
        leader = self._targets.leader().id
        others = [node_id for node_id in ids if node_id != leader]
        followers = self._rng.sample(others, (len(ids) - 1) // 2 - 1) if len(ids) > 3 else []
        minority = [leader, *followers]
        self._partition(minority, [node_id for node_id in ids if node_id not in minority])

    def _partition_nodes(self) -> None:
        ids = self._targets.ids
        ids = self._rng.sample(ids, len(ids))
        at = self._rng.randrange(1, len(ids)) if len(ids) > 1 else 0
        self._partition(ids[:at], ids[at:])

    def _bridge(self) -> None:
        """Partition the nodes into two halves that only one node is connected to."""
        ids = self._targets.ids
        _, *rest = self._rng.sample(ids, len(ids))
        self._partition(rest[: len(rest) // 2], rest[len(rest) // 2 :])

    def _cut_one_way(self) -> None:
        self._cut([self._targets.node().id], [self._targets.node().id])

    def _isolate_one_way(self) -> None:
        """Stop everything that a node receives, or everything that it sends."""
        node = [self._targets.node().id]
        if self._rng.random() < 0.5:
            self._cut(self._targets.ids, node)
        else:
            self._cut(node, self._targets.ids)

    def _break(self, *, lose: bool) -> None:
        source, target = self._targets.node().id, self._targets.node().id
        if source != target:
            self._network.break_link(source, target, lose=lose)
            if not lose:
                # The new connection opens at once, and its messages overtake those of the old one.
                self._network.reopen(source, target)

    def _stall(self) -> None:
        source, target = self._targets.node().id, self._targets.node().id
        self._network.stall(source, target, self._rng.expovariate(1 / 0.3))

    def _corrupt_chunk(self) -> None:
        self._network.corrupt_chunks += 1

    def _disconnect_client(self) -> None:
        client, node = self._targets.client(), self._targets.node().id
        lose = self._rng.random() < 0.5
        self._network.break_link(client.end, node, lose=lose)
        self._network.break_link(node, client.end, lose=True)
        if self._rng.random() < 0.7:
            client.disconnect(node)

    def _abandon_session(self) -> None:
        """Let a trader open a new session and abandon its requests."""
        client = self._targets.client()
        if client.account and client.session is not None:
            client.open()

    def _cut_off_client(self) -> None:
        client, node = self._targets.client().end, self._targets.leader().id
        if self._rng.random() < 0.5:
            self._cut([client], [node])
        else:
            self._cut([node], [client])
