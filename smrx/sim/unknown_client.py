"""Simulate an unknown client of the gateways: it names the key of a client and does not have the secret one.

Owns when it connects. Whatever a gateway sends it behind the greeting is a Violation.
"""

import random
from collections.abc import Sequence

from smrx.key_files import KeyPair
from smrx.links.connection import Connection
from smrx.links.framing import SOUP_BIN_TCP
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ClientGreeting
from smrx.sim.checker import Violation
from smrx.sim.gateway_components import GatewayComponents
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_gateway import QUEUE_BYTES, TERMS, SimulatedGateway
from smrx.sim.simulated_sockets import SimulatedSockets
from smrx.wire import soup_packets
from smrx.wire.soup_packets import Login


class _UncheckedGreeting(ClientGreeting):
    """It believes any gateway: without the secret key it could not check the proof."""

    def _check_proof(self, proof: bytes) -> None:
        pass


class UnknownClient:
    """The owner of its connections."""

    def __init__(
        self,
        end: int,
        gateways: Sequence[SimulatedGateway],
        *,
        scheduler: Scheduler,
        network: Network,
        rng: random.Random,
        components: GatewayComponents,
    ) -> None:
        """`end` is its end of the network."""
        self._gateways = gateways
        self._scheduler = scheduler
        self._rng = rng
        self._components = components
        self._sockets = SimulatedSockets(end, scheduler=scheduler, network=network, rng=rng, wake=self._wake)
        self._links = GreetedLinks(self, self._greet)
        network.attach(end, self._sockets.receive, self._sockets.network_broke)

    def connect(self) -> None:
        """Connect to a gateway and try to log in."""
        self._components.connection(
            self._sockets.connect(self._rng.choice(self._gateways).end),
            self._sockets.as_poller,
            self._links,
            max_frame_bytes=soup_packets.MAX_TEXT,
            max_queue_bytes=QUEUE_BYTES,
            framing=SOUP_BIN_TCP,
            connects=True,
        )

    def opened(self, connection: Connection) -> None:
        """Send a login behind the wrong proof."""
        connection.send_packed(soup_packets.encode_login(Login(username="client")))

    def received(self, connection: Connection) -> None:
        """Nothing may arrive."""
        if connection.frames():
            raise Violation("keys: a gateway serves a client that did not prove its key")

    def closed(self, connection: Connection) -> None:
        """See Owner."""

    def _greet(self, connection: Connection) -> ClientGreeting:
        keys = self._components.keys
        pair = KeyPair(keys.client.public, keys.unknown.secret)
        return _UncheckedGreeting(TERMS, pair, keys.certificate, lambda key: True)

    def _wake(self, time: float) -> None:
        self._scheduler.call_at(max(time, self._scheduler.now), self._sockets.run)
