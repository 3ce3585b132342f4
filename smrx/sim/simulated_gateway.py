"""Simulate a gateway: the real server of the native protocol on simulated sockets, and the real link to the leader.

Owns when its process runs, stops and dies. A process that dies loses everything: a gateway keeps nothing. Runs the
steps of a turn that a real gateway runs (smrx/gateway/gateway_process.py). Never decides whether an answer is right:
the clients and the checker do.
"""

import random
from collections.abc import Callable
from typing import Final

from smrx.client.session_states import DropConnection
from smrx.config import GatewayConfig, Limits
from smrx.gateway.native.command_block import AnyRoute
from smrx.gateway.native.native_server import NativeServer
from smrx.gateway.upstream import Upstream
from smrx.links import greeting
from smrx.links.connection import Connection
from smrx.links.framing import SOUP_BIN_TCP
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ServerGreeting, Terms
from smrx.sim.gateway_components import GatewayComponents
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_process import FIRST_CLIENT, address, node_at
from smrx.sim.simulated_sockets import SimulatedSocket, SimulatedSockets
from smrx.sim.trace import Trace
from smrx.wire import soup_packets

TERMS: Final = Terms(greeting.GATEWAY, 1)
_NEVER: Final = float("inf")
#: No client of a run is silent for so long, and none logs in later.
_SETTINGS: Final = GatewayConfig(connections=16, login_ms=60_000, silence_ms=600_000)
QUEUE_BYTES: Final = 1 << 20


class SimulatedGateway:
    """The processes of one gateway, one after the other."""

    def __init__(
        self,
        end: int,
        cluster_file: Callable[[], list[int]],
        *,
        scheduler: Scheduler,
        network: Network,
        trace: Trace,
        rng: random.Random,
        components: GatewayComponents,
    ) -> None:
        """`end` is the gateway's end of the network, `cluster_file()` returns the ids in the newest cluster file."""
        self.end = end
        #: Whether a process runs.
        self.up = False
        self._cluster_file = cluster_file
        self._scheduler = scheduler
        self._network = network
        self._trace = trace
        self._rng = rng
        self._components = components
        self._turn_at = _NEVER
        self._stopped_until = 0.0
        self._inbox: list[tuple[int, bytes]] = []
        #: Whether this process ends connections itself, of which it needs no notice.
        self._is_breaking = False
        network.attach(end, self._receive, self._network_broke)

    def start(self) -> None:
        """Start a process."""
        self.up = True
        self._stopped_until = 0.0
        self._turn_at = _NEVER
        self._leader: str | None = None
        self.upstream = self._components.upstream([address(node) for node in self._cluster_file()])
        self.native = NativeServer(_SETTINGS, self._submit, Limits())
        self._links = GreetedLinks(self.native, self._greet)
        self._sockets = SimulatedSockets(
            self.end, scheduler=self._scheduler, network=self._network, rng=self._rng, wake=self.wake
        )
        self._sockets.accept = self._accept
        self._trace.note("gateway {} starts", self.end)
        self.upstream.start(self._scheduler.now)
        self.wake(self._scheduler.now)

    def kill(self) -> None:
        """End the process; the other ends are told that their connections are broken."""
        if self.up:
            self.up = False
            self._inbox.clear()
            self._trace.note("gateway {} is killed", self.end)
            self._sockets.end_all()
            for at in self.upstream.search.addresses:
                self._break(node_at(at))

    def stop_for(self, seconds: float) -> None:
        """Stop the process for some seconds: what arrives waits."""
        self._stopped_until = max(self._stopped_until, self._scheduler.now + seconds)

    def go_on(self) -> None:
        """End a stop."""
        self._stopped_until = 0.0
        self.wake(self._scheduler.now)

    @property
    def held(self) -> int:
        """The number of commands without an answer."""
        return self.upstream.held if self.up else 0

    def wake(self, time: float) -> None:
        """Schedule a turn at a time, or as soon as the process is not stopped."""
        time = max(time, self._stopped_until)
        if self.up and time < self._turn_at:
            self._turn_at = time
            self._scheduler.call_at(time, self._turn_due, time, self.upstream)

    def _receive(self, source: int, frame: bytes) -> None:
        if not self.up:
            # A gateway that is down has no connections.
            self._break(source)
        elif source < FIRST_CLIENT:
            self._inbox.append((source, frame))
            self.wake(self._scheduler.now)
        else:
            self._sockets.receive(source, frame)

    def _network_broke(self, other: int) -> None:
        if not self.up or self._is_breaking:
            return
        if other < FIRST_CLIENT:
            # What was received before counts.
            self._take_messages()
            self.upstream.disconnected(address(other), self._scheduler.now)
            self.wake(self._scheduler.now)
        else:
            self._sockets.network_broke(other)

    def _accept(self, socket: SimulatedSocket) -> None:
        connection = self._components.connection(
            socket,  # type: ignore[arg-type]
            self._sockets.as_poller,
            self._links,
            max_frame_bytes=soup_packets.MAX_TEXT,
            max_queue_bytes=QUEUE_BYTES,
            framing=SOUP_BIN_TCP,
        )
        connection.start()

    def _greet(self, connection: Connection) -> ServerGreeting:
        keys = self._components.keys
        return self._components.greeting(TERMS, keys.gateway, keys.certificate, lambda key: key == keys.client.public)

    def _submit(
        self, route: AnyRoute, body: bytes, commands: int, details: int = 0, *, droppable: bool = False
    ) -> None:
        self.upstream.submit(route, body, commands, self._scheduler.now, details, droppable=droppable)

    def _take_messages(self) -> None:
        inbox, self._inbox = self._inbox, []
        for node, frame in inbox:
            self.upstream.receive(address(node), frame, self._scheduler.now)

    def _turn_due(self, time: float, upstream: Upstream) -> None:
        if self.up and upstream is self.upstream and time == self._turn_at:
            self._turn_at = _NEVER
            if self._scheduler.now < self._stopped_until:
                self.wake(self._stopped_until)
            else:
                self._turn()

    def _turn(self) -> None:
        """See Gateway.turn()."""
        now, native, upstream = self._scheduler.now, self.native, self.upstream
        native.set_time(now)
        self._sockets.run()
        self._take_messages()
        for answer in upstream.take_answers():
            native.answer(answer)
        for refusal in upstream.take_refusals():
            native.refuse(refusal)
        native.credential = upstream.credential
        native.read(may_submit=upstream.is_idle)
        while native.has_block and upstream.is_idle:
            native.submit_block()
            native.read(may_submit=upstream.is_idle)
        upstream.tick(now)
        self._perform()
        native.tick()
        if native.has_more_to_read:
            self.wake(now)
        self.wake(min(upstream.deadline or _NEVER, native.next_deadline))

    def _perform(self) -> None:
        for action in self.upstream.take_actions():
            node = node_at(action.address)
            if isinstance(action, DropConnection):
                self._break(node)
                self._network.reopen(self.end, node)
            else:
                self._network.send(self.end, node, action.data)

    def _break(self, other: int) -> None:
        """End the connections with another end; bytes that were sent may still arrive."""
        self._is_breaking = True
        self._network.break_link(self.end, other, lose=self._rng.random() < 0.5)
        self._network.break_link(other, self.end, lose=True)
        self._is_breaking = False
