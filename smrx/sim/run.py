"""Run one seed: a simulated cluster and clients under faults, which are repaired at the end: the cluster must recover.

A run has four phases: the venue sets up its market; faults happen; the cluster recovers (a majority makes progress
within five election timeouts); and at the end every client has its answers and every node the same state. A cluster in
memory mode that lost the memory of a majority cannot recover: it must not continue, and must report what it waits for.

Members may change during the fault phase. A majority is then one of the current voters, and the checks at the end apply
to the current members only.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smrx.node.replicated_state import ReplicatedState
from smrx.sim import workload
from smrx.sim.checker import Violation
from smrx.sim.fault_injector import FaultInjector
from smrx.sim.fault_scenarios import FaultScenarios
from smrx.sim.gateway_faults import GatewayFaults
from smrx.sim.profile import Profile, draw
from smrx.sim.recovery_checks import RecoveryChecks
from smrx.sim.scheduler import generator, simulated_time
from smrx.sim.simulated_cluster import REAL, ClusterComponents, SimulatedCluster
from smrx.sim.trace import Trace
from smrx.sim.versions import mixed_versions

_SETUP_SECONDS: Final = 6.0
#: Additional time under faults in a run with upgrades: in memory mode a node must learn the state before the next one.
_UPGRADE_SECONDS: Final = 3.0


@dataclass(frozen=True)
class RunResult:
    """The result of one seed."""

    seed: int
    #: The property that does not hold; None if all hold.
    failure: str | None
    #: Commands applied, answers received, faults injected.
    commands: int
    answers: int
    faults: int
    #: Committed membership changes.
    member_changes: int
    simulated_seconds: float
    #: Whether a majority lost its memory, so that the cluster stopped and reported it.
    stands_still: bool
    #: Reads answered.
    reads: int
    digest: str
    trace: Trace
    profile: Profile

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        return f"smrx sim {self.seed}"


def simulate_upgrades(seed: int, next_version: type[ReplicatedState]) -> RunResult:
    """Run one seed with upgrades to a next version of the program, whichever faults the seed draws."""
    return simulate(
        seed,
        REAL.replace(next_state=next_version),
        lambda drawn: dataclasses.replace(
            drawn,
            faults=drawn.faults | {"upgrade"},
            fault_phase_seconds=drawn.fault_phase_seconds + _UPGRADE_SECONDS,
        ),
    )


def simulate(
    seed: int, components: ClusterComponents = REAL, focus: Callable[[Profile], Profile] = lambda drawn: drawn
) -> RunResult:
    """Run one seed; a failure is in the result and never raised. `focus` may change the profile that the seed draws."""
    profile = focus(draw(seed))
    with simulated_time(seed) as scheduler, mixed_versions(components.formats()) as versions:
        cluster = SimulatedCluster(seed, profile, components, scheduler, versions)
        run = _Run(seed, cluster)
        failure = None
        try:
            run.run()
        except Violation as violation:
            failure = str(violation)
        except Exception as error:  # noqa: BLE001 (an error anywhere in the run is a failure of the seed)
            failure = f"unexpected exception: {error!r}"
        if failure is not None:
            cluster.trace.note("VIOLATION: {}", failure)
        return RunResult(
            seed,
            failure,
            cluster.checker.commands,
            cluster.checker.answered,
            run.faults.injected + run.scenarios.injected + run.gateway_faults.injected,
            cluster.history.changes,
            scheduler.elapsed_seconds,
            run.stands_still,
            cluster.checker.reads_answered,
            cluster.trace.digest(),
            cluster.trace,
            profile,
        )


class _Run:
    """The phases of one run."""

    def __init__(self, seed: int, cluster: SimulatedCluster) -> None:
        self.stands_still = False
        self.faults = FaultInjector(cluster, generator("faults", seed))
        # The label keeps its first name: it is part of every seed.
        self.scenarios = FaultScenarios(cluster, generator("mishap", seed))
        self.gateway_faults = GatewayFaults(cluster, generator("gateway faults", seed))
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._rng = generator("orders", seed)
        self._reads_rng = generator("read", seed)
        self._gateways_rng = generator("gateway orders", seed)

    def run(self) -> None:
        """Run all phases. Raise Violation if a property does not hold."""
        cluster, profile = self._cluster, self._cluster.profile
        for node in cluster.in_service:
            node.start()
        venue, *traders = cluster.clients
        venue.open()
        for gateway in cluster.gateways:
            gateway.start()
        venue.send(workload.setup([trader.account for trader in traders]))
        if not profile.early:
            self._scheduler.run_for(_SETUP_SECONDS, lambda: not venue.unanswered)
        self.faults.begin()
        self.scenarios.begin()
        self.gateway_faults.begin()
        self._trade()
        self._begin_credentials()
        if cluster.gateways:
            self._open_gateway_accounts()
        if profile.read_seconds:
            self._read()
        self._scheduler.run_for(profile.fault_phase_seconds)
        self.scenarios.end()
        self.faults.end()
        self.gateway_faults.end()
        for office in cluster.offices:
            office.is_active = False
        cluster.trace.note("all faults are repaired")
        checks = RecoveryChecks(cluster)
        if not checks.recover():
            self.stands_still = True
            return
        checks.answer_clients()
        if profile.read_seconds:
            checks.answer_reads()
        checks.close_sessions()
        checks.compare_states()
        checks.check_unanswered()
        if "wall clock jump" in profile.faults:
            checks.check_clocks()
        if profile.state_bytes and profile.durable:
            checks.check_rest()

    def _read(self) -> None:
        """Let a reader ask some nodes, and schedule the next read until the fault phase ends."""
        if self.faults.is_active:
            running = [node.id for node in self._cluster.running]
            if running:
                self._reads_rng.choice(self._cluster.readers).read(running)
            seconds = self._reads_rng.expovariate(1 / self._cluster.profile.read_seconds)
            self._scheduler.call_later(seconds, self._read)

    def _begin_credentials(self) -> None:
        """Let the venue give credentials once the accounts exist."""
        if self._cluster.offices and self._cluster.clients[0].unanswered:
            self._scheduler.call_later(self._cluster.profile.order_seconds, self._begin_credentials)
            return
        for office in self._cluster.offices:
            office.begin()

    def _open_gateway_accounts(self) -> None:
        """Let the venue open the accounts of the gateways' clients once it has opened the others."""
        venue = self._cluster.clients[0]
        if venue.unanswered:
            self._scheduler.call_later(self._cluster.profile.order_seconds, self._open_gateway_accounts)
        else:
            venue.send(workload.new_accounts([client.account for client in self._cluster.gateway_clients]))
            self._trade_through_gateways()

    def _trade_through_gateways(self) -> None:
        """Send the next request of a random client of the gateways, as _trade() does."""
        venue = self._cluster.clients[0]
        if self.faults.is_active and not venue.unanswered:
            self._gateways_rng.choice(self._cluster.gateway_clients).trade()
        if self.faults.is_active or venue.unanswered:
            seconds = self._gateways_rng.expovariate(1 / self._cluster.profile.order_seconds)
            self._scheduler.call_later(seconds, self._trade_through_gateways)

    def _trade(self) -> None:
        """Send the next request of a random trader, and schedule the one after it until the fault phase ends."""
        venue, *traders = self._cluster.clients
        # The accounts exist once the venue's requests are answered.
        if self.faults.is_active and not venue.unanswered:
            trader = self._rng.choice(traders)
            if trader.session is None and trader.may_open:
                trader.open()
            trader.trade()
        if self.faults.is_active or venue.unanswered:
            seconds = self._rng.expovariate(1 / self._cluster.profile.order_seconds)
            self._scheduler.call_later(seconds, self._trade)
