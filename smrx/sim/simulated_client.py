"""Simulate a client: a real session that sends orders, loses its leader and resends.

Owns when a client sends a request. Reports every request and every received outcome to the checker.
"""

import random
from collections.abc import Callable
from typing import Final

import numpy as np

from smrx.client.session import ClientSession
from smrx.client.session_states import DropConnection, State
from smrx.sim import workload
from smrx.sim.checker import Checker, Violation
from smrx.sim.network import Network
from smrx.sim.profile import Profile
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_process import BASE_WALL_NS, address, node_at
from smrx.sim.trace import Trace
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, CREDENTIAL_SHIFT

_NEVER: Final = float("inf")


class SimulatedClient:
    """One client of one account, with one session at a time."""

    def __init__(
        self,
        end: int,
        account: int,
        *,
        scheduler: Scheduler,
        network: Network,
        checker: Checker,
        trace: Trace,
        profile: Profile,
        rng: random.Random,
        cluster_file: Callable[[], set[int]],
    ) -> None:
        """`end` is the client's end of the network; `cluster_file()` returns the ids in the newest cluster file."""
        self.end = end
        self.account = account
        self.session: ClientSession | None = None
        #: The number of its credential, 0 without one, and whether it may open a session: not between the revocation
        #: of its credential and the next one.
        self.credential = 0
        self.may_open = True
        self._scheduler = scheduler
        self._network = network
        self._checker = checker
        self._trace = trace
        self._profile = profile
        self._rng = rng
        self._cluster_file = cluster_file
        self._tick_at = _NEVER
        network.attach(end, self._receive)

    def open(self) -> None:
        """Open a new session; the client abandons an earlier one and its unanswered requests."""
        nodes = sorted(self._cluster_file())
        known = self._rng.sample(nodes, max(1, len(nodes) - 1))
        if min(known) > self._profile.nodes:
            # These are all new nodes, which may never become members: a client knows at least one initial node.
            known.append(min(nodes))
        self.session = ClientSession(
            # The upper half is the number of the credential.
            self.credential << CREDENTIAL_SHIFT | self._rng.getrandbits(31) + 1,
            self.account,
            [address(node) for node in known],
            window=self._profile.client_window,
            frame_commands=self._profile.frame_commands,
        )
        self._trace.note("client {} opens session {:x}", self.end, self.session.session_id)
        self.session.start(self._scheduler.now)
        self._perform_actions()

    def use_credential(self, number: int) -> None:
        """Use a credential from now on; the client abandons the session of another one."""
        self.credential = self._network.credentials[self.end] = number
        self.session = None
        self.may_open = True

    def send(self, commands: CommandList) -> None:
        """Send as many of the commands as the session's window allows."""
        session = self.session
        if session is None or session.state in (State.CLOSING, State.CLOSED):
            return
        commands = commands.part(0, session.free_slots)
        if not len(commands.records):
            return
        first = session.submit(commands.records, self._scheduler.now, commands.details)
        sent = commands.records.copy()
        sent["session_id"] = session.session_id
        sent["request_id"] = np.arange(first, first + len(sent), dtype=np.uint64)
        for at, piece in enumerate(CommandList(sent, commands.details).pieces()):
            self._checker.request_sent(session.session_id, first + at, piece)
        self._trace.note("client {} sends requests {} to {}", self.end, first, first + len(sent) - 1)
        self._perform_actions()

    def trade(self) -> None:
        """Send one to five orders."""
        time_ns = BASE_WALL_NS + int(self._scheduler.now * 1e9)
        self.send(workload.orders(self._rng, self.account, self._rng.choice((1, 1, 2, 5)), time_ns))

    def close(self) -> None:
        """Close the session, also in the exchange if that is safe."""
        session = self.session
        assert session is not None
        before = session.last_request
        session.close(self._scheduler.now)
        if session.last_request > before:
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            command["session_id"], command["request_id"] = session.session_id, session.last_request
            self._checker.request_sent(session.session_id, session.last_request, command.tobytes())
        self._perform_actions()

    def disconnect(self, node: int) -> None:
        """Report a broken connection to a node to the session."""
        if self.session is not None:
            self.session.disconnected(address(node), self._scheduler.now)
            self._perform_actions()

    @property
    def unanswered(self) -> int:
        """Requests without an answer; 1 for a session that is not open yet."""
        session = self.session
        return 0 if session is None else session.unanswered or int(session.state in (State.SEEKING, State.OPENING))

    def describe(self) -> str:
        """Return a line about what the client waits for."""
        session = self.session
        if session is None:
            return f"client {self.end}: idle"
        return (
            f"client {self.end}: {session.state.name.lower()}, request {session.answered} of "
            f"{session.last_request} answered; {session.describe()}"
        )

    def _receive(self, source: int, frame: bytes) -> None:
        if self.session is not None:
            self.session.receive(address(source), frame, self._scheduler.now)
            self._perform_actions()

    def _perform_actions(self) -> None:
        """Send what the session wants to send, and check the outcomes it received."""
        session = self.session
        assert session is not None
        for action in session.take_actions():
            node = node_at(action.address)
            if isinstance(action, DropConnection):
                # Bytes that were sent before a socket is closed may still arrive.
                lose = self._rng.random() < 0.5
                self._network.break_link(self.end, node, lose=lose)
                self._network.break_link(node, self.end, lose=True)
                self._network.reopen(self.end, node)
            else:
                self._network.send(self.end, node, action.data)
        for outcomes in session.take_outcomes():
            last = int(outcomes["request_id"][-1])
            self._trace.note("client {} is answered up to request {}", self.end, last)
            self._checker.outcomes_received(session.session_id, outcomes)
        if session.failure is not None and not self.may_open:
            self._trace.note("client {} fails, as its credential is revoked", self.end)
            self.session = None
            return
        if session.failure is not None:
            raise Violation(f"sessions survive: the session of client {self.end} failed: {session.failure.message}")
        deadline = session.deadline
        if deadline is not None and deadline < self._tick_at:
            self._tick_at = deadline
            self._scheduler.call_at(deadline, self._tick, deadline)

    def _tick(self, due: float) -> None:
        if due != self._tick_at:
            return
        self._tick_at = _NEVER
        if self.session is not None:
            self.session.tick(self._scheduler.now)
            self._perform_actions()
