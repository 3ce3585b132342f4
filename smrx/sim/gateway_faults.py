"""Inject the faults of gateways: they are killed and stopped, and their connections to nodes and clients break.

Owns when these happen, with a random generator of its own: a run without gateways is the run it would be if there were
none. Restarts what it killed. Decides nothing about right and wrong.
"""

import random
from collections.abc import Callable
from typing import Final

from smrx.sim.fault_schedule import FaultSchedule
from smrx.sim.simulated_cluster import SimulatedCluster
from smrx.sim.simulated_gateway import SimulatedGateway

_MEAN_SECONDS: Final = 0.3
_DOWN_SECONDS: Final = (0.001, 0.05, 0.5, 1.5)
#: Some are longer than the time after which a gateway asks whether its leader still leads, and than that of a resend.
_STOPPED_SECONDS: Final = (0.05, 0.3, 1.2, 5.0)
_CUT_SECONDS: Final = (0.05, 0.5, 1.5)


class GatewayFaults(FaultSchedule):
    """The faults of the gateways of one run."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        super().__init__(cluster, rng, _MEAN_SECONDS)
        actions: dict[str, Callable[[], None]] = {
            "kill a gateway": self._kill,
            "stop a gateway": self._stop,
            "cut a gateway off": self._cut_off,
            "break a link of a gateway": self._break_to_node,
            "break the connection of a client": self._break_to_client,
            "a client changes its gateway": self._change,
            "an unknown client connects": cluster.unknown_client.connect,
        }
        self.enable(tuple(actions) if cluster.gateways else (), actions)

    def end(self) -> None:
        """Stop to inject faults, and repair everything."""
        self.is_active = False
        for gateway in self._cluster.gateways:
            if not gateway.up:
                gateway.start()
            gateway.go_on()

    def _gateway(self) -> SimulatedGateway:
        return self._rng.choice(self._cluster.gateways)

    def _kill(self) -> None:
        gateway = self._gateway()
        if gateway.up:
            gateway.kill()
            self._cluster.scheduler.call_later(self._rng.choice(_DOWN_SECONDS), self._start, gateway)

    def _start(self, gateway: SimulatedGateway) -> None:
        if not gateway.up:
            gateway.start()

    def _stop(self) -> None:
        self._gateway().stop_for(self._rng.choice(_STOPPED_SECONDS))

    def _cut_off(self) -> None:
        """Cut a gateway off from the leader for a while, in one direction or in both."""
        gateway, node = self._gateway().end, self._leader()
        pairs = self._rng.choice((((gateway, node),), ((node, gateway),), ((gateway, node), (node, gateway))))
        network = self._cluster.network
        network.cuts |= set(pairs)
        self._break(gateway, node)
        self._cluster.scheduler.call_later(self._rng.choice(_CUT_SECONDS), network.cuts.difference_update, pairs)

    def _break_to_node(self) -> None:
        self._break(self._gateway().end, self._leader())

    def _break_to_client(self) -> None:
        """End the connection of a client while its orders, or their answers, are under way."""
        client = self._rng.choice(self._cluster.gateway_clients)
        if client.session:
            client.trade()
            seconds = self._rng.uniform(0, 2 * self._cluster.profile.delay[1])
            self._cluster.scheduler.call_later(seconds, self._break, client.end, client.gateway.end)

    def _change(self) -> None:
        """Let a client connect anew, to any gateway, while the former one still has requests of it."""
        client = self._rng.choice(self._cluster.gateway_clients)
        if client.session:
            client.connect()

    def _break(self, one: int, other: int) -> None:
        """End the connection between two ends; what is under way is lost, or arrives late."""
        network = self._cluster.network
        network.break_link(one, other, lose=self._rng.random() < 0.5)
        network.break_link(other, one, lose=self._rng.random() < 0.5)

    def _leader(self) -> int:
        leaders = [node for node in self._cluster.in_service if node.is_leader]
        return max(leaders, key=lambda node: node.replica.term).id if leaders else self._cluster.in_service[0].id
