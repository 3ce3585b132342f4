"""Build a simulated cluster: nodes, clients, network, operator and checkers of one run, all on one scheduler.

Owns what the faults and the checks of a run share. Decides neither when something happens nor whether it is right.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Final

from smrx.config import NodeConfig, Timing
from smrx.consensus import membership
from smrx.sim.checker import Checker
from smrx.sim.clock_invariants import ClockInvariants
from smrx.sim.credential_checks import CredentialChecks
from smrx.sim.credential_office import CredentialOffice
from smrx.sim.gateway_components import GatewayComponents
from smrx.sim.membership_history import MembershipHistory
from smrx.sim.network import FIRST_GATEWAY, Network
from smrx.sim.node_components import NodeComponents
from smrx.sim.operator import Operator
from smrx.sim.profile import Profile
from smrx.sim.scheduler import Scheduler, generator
from smrx.sim.simulated_client import SimulatedClient
from smrx.sim.simulated_gateway import SimulatedGateway
from smrx.sim.simulated_gateway_client import SimulatedGatewayClient
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.simulated_process import FIRST_CLIENT
from smrx.sim.simulated_reader import SimulatedReader
from smrx.sim.trace import Trace
from smrx.sim.unknown_client import UnknownClient
from smrx.sim.versions import EntryFormats, Versions
from smrx.sim.wire_invariants import WireInvariants

#: The network end of the client of the venue that adds and revokes credentials.
_OFFICER: Final = 190
#: The network ends of readers are numbered from here on; those of clients are below.
_FIRST_READER: Final = 200
_READERS: Final = 2
#: Then those of gateways, and those of their clients.
_FIRST_GATEWAY_CLIENT: Final = 400
_UNKNOWN_CLIENT: Final = 500


@dataclass(frozen=True)
class ClusterComponents(NodeComponents):
    """The classes a simulated cluster is built from."""

    #: The entry formats of the two program versions.
    formats: type[EntryFormats] = EntryFormats
    node: type[SimulatedNode] = SimulatedNode
    gateway: GatewayComponents = field(default_factory=GatewayComponents)
    #: Replaces the timing that the seed draws.
    timing: Timing | None = None

    def replace(self, **changes: object) -> "ClusterComponents":
        """Return the same components with some replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


#: The components of a real node.
REAL = ClusterComponents()


class SimulatedCluster:
    """The nodes, clients and observers of one run."""

    def __init__(
        self, seed: int, profile: Profile, components: ClusterComponents, scheduler: Scheduler, versions: Versions
    ) -> None:
        self.profile = profile
        self.scheduler = scheduler
        self.timing = components.timing or profile.timing
        self.trace = Trace(scheduler)
        replayed = components.replayed(has_upgrades="upgrade" in profile.faults)
        self.checker = Checker(
            lambda: replayed(profile.event_ring), CredentialChecks() if profile.credentials else None
        )
        initial_ids = list(range(1, profile.nodes + 1))
        node_count = profile.nodes + profile.spares
        self.network = Network(scheduler, generator("network", seed), node_count, profile.delay)
        self.history = MembershipHistory(membership.of(NodeConfig(id=node, port=node) for node in initial_ids))
        wire = WireInvariants(self.history, profile.timing.election_min_ms / 1000, self.checker)
        self.clocks = ClockInvariants(self.timing)
        #: Every node that may run, spare ones included, by id.
        self.nodes = [
            components.node(
                node_id,
                initial_ids,
                scheduler=scheduler,
                versions=versions,
                network=self.network,
                checker=self.checker,
                wire=wire,
                clocks=self.clocks,
                trace=self.trace,
                components=components,
                profile=profile,
                timing=self.timing,
                rng=generator(f"disk {node_id}", seed),
            )
            for node_id in range(1, node_count + 1)
        ]
        for node in self.nodes:
            node.in_service = node.id in initial_ids
        self.operator = Operator(
            scheduler=scheduler,
            nodes=self.nodes,
            history=self.history,
            trace=self.trace,
            profile=profile,
            rng=generator("operator", seed),
        )

        def client(end: int, account: int, label: str) -> SimulatedClient:
            return SimulatedClient(
                end,
                account,
                scheduler=scheduler,
                network=self.network,
                checker=self.checker,
                trace=self.trace,
                profile=profile,
                rng=generator(label, seed),
                cluster_file=lambda: self.operator.cluster_file,
            )

        self.clients = [
            client(FIRST_CLIENT + account, account, f"client {account}") for account in range(profile.traders + 1)
        ]
        self.officers = [client(_OFFICER, 0, "officer")] if profile.credentials else []
        self.offices = [
            CredentialOffice(
                officer,
                self.clients[1:],
                lambda: [node.id for node in self.running],
                scheduler=scheduler,
                network=self.network,
                rng=generator("credential office", seed),
            )
            for officer in self.officers
        ]
        self.readers = [
            SimulatedReader(
                _FIRST_READER + number,
                scheduler=scheduler,
                network=self.network,
                checker=self.checker,
                trace=self.trace,
                rng=generator(f"reader {number}", seed),
            )
            for number in range(_READERS)
        ]

        self.gateways = [
            SimulatedGateway(
                FIRST_GATEWAY + number,
                lambda: sorted(self.operator.cluster_file),
                scheduler=scheduler,
                network=self.network,
                trace=self.trace,
                rng=generator(f"gateway {number}", seed),
                components=components.gateway,
            )
            for number in range(profile.gateways)
        ]
        self.gateway_clients = [
            SimulatedGatewayClient(
                _FIRST_GATEWAY_CLIENT + number,
                profile.traders + 1 + number,
                self.gateways,
                scheduler=scheduler,
                network=self.network,
                checker=self.checker,
                trace=self.trace,
                rng=generator(f"gateway client {number}", seed),
                components=components.gateway,
            )
            for number in range(profile.gateway_clients)
        ]
        self.unknown_client = UnknownClient(
            _UNKNOWN_CLIENT,
            self.gateways,
            scheduler=scheduler,
            network=self.network,
            rng=generator("unknown client", seed),
            components=components.gateway,
        )

    @property
    def running(self) -> list[SimulatedNode]:
        """The nodes whose process runs."""
        return [node for node in self.nodes if node.up]

    @property
    def in_service(self) -> list[SimulatedNode]:
        """The nodes that run, or restart after a crash."""
        return [node for node in self.nodes if node.in_service]

    @property
    def members(self) -> list[SimulatedNode]:
        """The nodes of the newest committed membership."""
        return [node for node in self.nodes if node.id in self.history.newest.ids]

    def describe(self) -> str:
        """Return a line about the replica of every running node."""
        return "; ".join(
            f"node {node.id}: {node.replica.role} term {node.replica.term} last {node.replica.last_index} "
            f"commit {node.replica.commit_index} waiting {node.replica.waiting!r}"
            for node in self.running
        )
