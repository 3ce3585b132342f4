"""Choose the nodes and clients that a fault affects, and cut the network between nodes."""

import random
from collections.abc import Sequence

from smrx.sim.network import LinkId
from smrx.sim.simulated_client import SimulatedClient
from smrx.sim.simulated_cluster import SimulatedCluster
from smrx.sim.simulated_node import SimulatedNode


class FaultTargets:
    """Random choices among the nodes and clients of a cluster."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng

    @property
    def ids(self) -> list[int]:
        """The ids of the nodes that run, or restart after a crash."""
        return [node.id for node in self.cluster.in_service]

    def node(self) -> SimulatedNode:
        """Return a node that runs, or restarts after a crash."""
        return self.rng.choice(self.cluster.in_service)

    def leader(self) -> SimulatedNode:
        """Return the leader of the newest term, or a random node if there is no leader."""
        leaders = [node for node in self.cluster.in_service if node.is_leader]
        return max(leaders, key=lambda node: node.replica.term) if leaders else self.node()

    def client(self) -> SimulatedClient:
        """Return a client."""
        return self.rng.choice(self.cluster.clients)


def cut(cluster: SimulatedCluster, sources: Sequence[int], targets: Sequence[int]) -> set[LinkId]:
    """Cut the network from each source to each target; return the links that were not cut before."""
    cluster.trace.note("the network from {} to {} is cut", list(sources), list(targets))
    return cluster.network.cut(sources, targets)


def partition(cluster: SimulatedCluster, some: Sequence[int], others: Sequence[int]) -> set[LinkId]:
    """Cut the network between two groups in both directions; return the links that were not cut before."""
    return cut(cluster, some, others) | cut(cluster, others, some)
