"""Simulate a client of the gateways: one session that goes on through any gateway, request by request.

Owns when it connects, to which gateway, and what it has to send again: everything without an answer, with the same ids.
Checks that it gets an answer to its next request and nothing else, and reports requests and outcomes to the checker.
Sends and receives packets of the native protocol over a real connection on simulated sockets.
"""

import random
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.links.connection import Connection
from smrx.links.framing import SOUP_BIN_TCP
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ClientGreeting
from smrx.sim import workload
from smrx.sim.checker import Checker, Violation
from smrx.sim.gateway_components import GatewayComponents
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_gateway import QUEUE_BYTES, TERMS, SimulatedGateway
from smrx.sim.simulated_process import BASE_WALL_NS
from smrx.sim.simulated_sockets import SimulatedSockets
from smrx.sim.trace import Trace
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, OUTCOME, OUTCOME_SIZE, SESSION_COMMAND
from smrx.wire.soup_packets import Login, PacketType

#: Bounds of the time until a client connects again.
_RECONNECT_SECONDS: Final = (0.001, 0.3)
#: Unanswered requests of a client.
_WINDOW: Final = 16
_NEVER: Final = float("inf")


class SimulatedGatewayClient:
    """One client of one account. It is the owner of its connections."""

    def __init__(
        self,
        end: int,
        account: int,
        gateways: Sequence[SimulatedGateway],
        *,
        scheduler: Scheduler,
        network: Network,
        checker: Checker,
        trace: Trace,
        rng: random.Random,
        components: GatewayComponents,
    ) -> None:
        """`end` is the client's end of the network."""
        self.end = end
        self.account = account
        self.session = 0
        #: Connections so far.
        self.connections = 0
        self._gateways = gateways
        self._scheduler = scheduler
        self._checker = checker
        self._trace = trace
        self._rng = rng
        self._components = components
        #: The requests without an answer, the last answered one, and how many were sent on this connection.
        self._unanswered: deque[CommandList] = deque()
        self._answered = 0
        self._sent = 0
        self._is_open = False
        self._connection: Connection | None = None
        self._wakes_at = _NEVER
        self._sockets = SimulatedSockets(end, scheduler=scheduler, network=network, rng=rng, wake=self._wake)
        self._links = GreetedLinks(self, self._greet)
        network.attach(end, self._sockets.receive, self._sockets.network_broke)

    def trade(self) -> None:
        """Send one to five orders, as far as the window allows; connect first if needed."""
        if not self.session:
            self.session = self._rng.getrandbits(31) + 1
            self.connect()
        time_ns = BASE_WALL_NS + int(self._scheduler.now * 1e9)
        commands = workload.orders(self._rng, self.account, self._rng.choice((1, 1, 2, 5)), time_ns)
        self.send(commands.part(0, _WINDOW - len(self._unanswered)))

    def send(self, commands: CommandList) -> None:
        """Send commands, each with the next request id."""
        for at in range(len(commands.records)):
            one = commands.part(at, at + 1)
            records = one.records.copy()
            request = self._answered + len(self._unanswered) + 1
            records["session_id"], records["request_id"] = self.session, request
            one = CommandList(records, one.details)
            self._checker.request_sent(self.session, request, one.pieces()[0])
            self._unanswered.append(one)
        self._send_waiting()

    def connect(self) -> None:
        """Connect to a gateway, whatever connection there was."""
        if self._connection is not None:
            self._connection.close("another connection is made")
        self._is_open = False
        self.gateway = gateway = self._rng.choice(self._gateways)
        self.connections += 1
        self._trace.note("client {} connects to gateway {}", self.end, gateway.end)
        self._connection = self._components.connection(
            self._sockets.connect(gateway.end),
            self._sockets.as_poller,
            self._links,
            max_frame_bytes=soup_packets.MAX_TEXT,
            max_queue_bytes=QUEUE_BYTES,
            framing=SOUP_BIN_TCP,
            connects=True,
        )

    @property
    def unanswered(self) -> int:
        """Requests without an answer."""
        return len(self._unanswered)

    def describe(self) -> str:
        """Return a line about what the client waits for."""
        state = "not connected" if self._connection is None else "open" if self._is_open else "connecting"
        return f"client {self.end}: {state}, request {self._answered} answered, {len(self._unanswered)} not"

    # What its connection calls.

    def opened(self, connection: Connection) -> None:
        """The greeting is complete: log in."""
        self._send(connection, soup_packets.encode_login(Login(username="client")))

    def received(self, connection: Connection) -> None:
        """Handle the packets that have arrived."""
        for packet in connection.frames():
            if connection is self._connection:
                self._handle(connection, packet[0], bytes(packet[1:]))

    def closed(self, connection: Connection) -> None:
        """Connect again, to any gateway, after a while."""
        # Of a connection that was not greeted the owner is not told: see _turn().

    def _greet(self, connection: Connection) -> ClientGreeting:
        keys = self._components.keys
        return ClientGreeting(TERMS, keys.client, keys.certificate, lambda key: key == keys.gateway.public)

    def _handle(self, connection: Connection, kind: int, payload: bytes) -> None:
        if kind == PacketType.LOGIN_ACCEPTED:
            command = np.zeros(1, SESSION_COMMAND)
            command["kind"], command["session_id"] = CommandKind.OPEN_SESSION, self.session
            command["account"], command["answers"] = self.account, _WINDOW
            self._send(connection, soup_packets.encode_commands(command.view(COMMAND)))
        elif kind == PacketType.SEQUENCED and len(payload) == OUTCOME_SIZE:
            self._on_outcome(np.frombuffer(payload, OUTCOME))
        elif kind != PacketType.SERVER_HEARTBEAT:
            raise Violation(f"packets: client {self.end} receives a packet of type {chr(kind)!r}: {payload[:80]!r}")

    def _on_outcome(self, outcome: NDArray[np.void]) -> None:
        session, request = int(outcome["session_id"][0]), int(outcome["request_id"][0])
        expected = self._answered + 1 if self._is_open else 0
        if (session, request) != (self.session, expected):
            raise Violation(
                f"answers of a gateway: client {self.end} receives the answer to request {request} of session "
                f"{session:x}, and waits for request {expected} of session {self.session:x}"
            )
        if not request:
            if outcome["status"][0] == OutcomeStatus.REJECTED:
                raise Violation(f"sessions survive: session {session:x} is refused: {outcome['reason'][0]}")
            self._is_open, self._sent = True, 0
            self._send_waiting()
            return
        if not self._unanswered:
            raise Violation(
                f"answers of a gateway: client {self.end} receives an answer to request {request}, not sent"
            )
        self._unanswered.popleft()
        self._answered = request
        self._sent -= 1
        self._checker.outcomes_received(session, outcome)

    def _send_waiting(self) -> None:
        """Send what was not sent on this connection."""
        connection = self._connection
        if connection is None or not self._is_open:
            return
        for one in list(self._unanswered)[self._sent :]:
            self._send(connection, soup_packets.encode_commands(*one))
        self._sent = len(self._unanswered)

    def _send(self, connection: Connection, packets: bytes) -> None:
        connection.send_packed(packets)

    # Time.

    def _wake(self, time: float) -> None:
        time = max(time, self._scheduler.now)
        if time < self._wakes_at:
            self._wakes_at = time
            self._scheduler.call_at(time, self._turn, time)

    def _turn(self, time: float) -> None:
        if time != self._wakes_at:
            return
        self._wakes_at = _NEVER
        self._sockets.run()
        connection = self._connection
        if connection is not None and connection.reason is not None:
            self._connection = None
            self._is_open = False
            self._scheduler.call_later(self._rng.uniform(*_RECONNECT_SECONDS), self._connect_again)

    def _connect_again(self) -> None:
        if self._connection is None:
            self.connect()
