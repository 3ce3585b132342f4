"""Inject the faults that a seed enables, and repair them at the end of the fault phase.

Owns the draw of the next fault. Changes nodes, clients and network; decides nothing about right and wrong.
"""

import random
from typing import Final

from smrx.sim.fault_schedule import FaultSchedule
from smrx.sim.fault_targets import FaultTargets
from smrx.sim.network_faults import NetworkFaults
from smrx.sim.node_faults import NodeFaults
from smrx.sim.profile import CHANGES, FAULTS, LOSSES
from smrx.sim.simulated_cluster import SimulatedCluster

#: The probability that the next fault heals the network instead, if it is cut: cuts and repairs are about as frequent.
_HEAL_PROBABILITY: Final = 0.35
#: The delay of messages after the repair.
_REPAIRED_DELAY: Final = (0.0002, 0.002)


class FaultInjector(FaultSchedule):
    """The faults of one run."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        profile = cluster.profile
        super().__init__(cluster, rng, profile.fault_seconds)
        targets = FaultTargets(cluster, rng)
        self._node_faults = NodeFaults(targets)
        enabled = [name for name in (*FAULTS, *CHANGES, *LOSSES) if name in profile.faults]
        self.enable(enabled, NetworkFaults(targets).actions() | self._node_faults.actions())
        if "clock drift" in profile.faults:
            self._node_faults.drift_clocks()

    def begin(self) -> None:
        """Start to inject faults."""
        profile, network = self._cluster.profile, self._cluster.network
        network.loss = profile.loss if "lose messages" in profile.faults else 0.0
        network.repeats = profile.repeats if "repeat messages" in profile.faults else 0.0
        super().begin()

    def end(self) -> None:
        """Stop to inject faults, and repair everything."""
        self.is_active = False
        self._cluster.operator.end()
        self._cluster.network.repair(_REPAIRED_DELAY)
        self._node_faults.repair()

    def _inject(self) -> None:
        network = self._cluster.network
        if network.cuts and self._rng.random() < _HEAL_PROBABILITY:
            network.heal()
            self._cluster.trace.note("fault: every cut heals")
        else:
            super()._inject()
