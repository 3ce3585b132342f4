"""Simulated clients: real sessions (smrx/wire) that send orders, lose their leader and send again.

Owns when a client asks for something. Everything a client asks and learns goes to the checker too.
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
from smrx.sim.simulated_process import address, node_at
from smrx.sim.timeline import Timeline
from smrx.sim.workload import Commands
from smrx.sim.world import World
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND, COMMAND_SIZE

_NEVER: Final = float("inf")


class Client:
    """One client: one session at a time, of one account."""

    def __init__(
        self,
        number: int,
        account: int,
        *,
        world: World,
        network: Network,
        checker: Checker,
        timeline: Timeline,
        profile: Profile,
        chance: random.Random,
        file: Callable[[], set[int]],
    ) -> None:
        """`number` is the client's end of the network; `file()` says whom the newest cluster file names."""
        self.number = number
        self.account = account
        self.session: ClientSession | None = None
        self._world = world
        self._network = network
        self._checker = checker
        self._timeline = timeline
        self._profile = profile
        self._chance = chance
        self._file = file
        self._tick_at = _NEVER
        network.join(number, self._receive)

    def open(self) -> None:
        """Begin a new session; one that was there is left behind with what it asked for."""
        nodes = sorted(self._file())
        known = self._chance.sample(nodes, max(1, len(nodes) - 1))
        if min(known) > self._profile.nodes:
            # Only newcomers, which may never become members: somebody would have told it of one that is.
            known.append(min(nodes))
        self.session = ClientSession(
            self._chance.getrandbits(63) + 1,
            self.account,
            [address(node) for node in known],
            window=self._profile.client_window,
            frame_commands=self._profile.frame_commands,
        )
        self._timeline.note("client {} opens session {:x}", self.number, self.session.session_id)
        self.session.start(self._world.now)
        self._carry()

    def ask(self, commands: Commands) -> None:
        """Send commands; as many as there is room for."""
        session = self.session
        if session is None or session.state in (State.CLOSING, State.CLOSED):
            return
        commands = commands[: session.free_slots]
        if not len(commands):
            return
        first = session.submit(commands, self._world.now)
        sent = commands.copy()
        sent["session_id"] = session.session_id
        sent["request_id"] = np.arange(first, first + len(sent), dtype=np.uint64)
        raw = sent.tobytes()
        for at in range(len(sent)):
            command = raw[COMMAND_SIZE * at : COMMAND_SIZE * (at + 1)]
            self._checker.asked(session.session_id, first + at, command)
        self._timeline.note("client {} asks for requests {} to {}", self.number, first, first + len(sent) - 1)
        self._carry()

    def trade(self) -> None:
        """Send a few orders."""
        self.ask(workload.orders(self._chance, self.account, self._chance.choice((1, 1, 2, 5))))

    def close(self) -> None:
        """End the session, in the exchange too where that is safe."""
        session = self.session
        assert session is not None
        before = session.last_request
        session.close(self._world.now)
        if session.last_request > before:
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            command["session_id"], command["request_id"] = session.session_id, session.last_request
            self._checker.asked(session.session_id, session.last_request, command.tobytes())
        self._carry()

    def disconnect(self, node: int) -> None:
        """The connection to a node breaks, and the client notices."""
        if self.session is not None:
            self.session.disconnected(address(node), self._world.now)
            self._carry()

    @property
    def unanswered(self) -> int:
        """Requests without an answer; 1 for a session that is not even open."""
        session = self.session
        return 0 if session is None else session.unanswered or int(session.state in (State.SEEKING, State.OPENING))

    def describe(self) -> str:
        """What the client waits for."""
        session = self.session
        if session is None:
            return f"client {self.number}: idle"
        return (
            f"client {self.number}: {session.state.name.lower()}, request {session.answered} of "
            f"{session.last_request} answered; {session.describe()}"
        )

    def _receive(self, source: int, frame: bytes) -> None:
        if self.session is not None:
            self.session.receive(address(source), frame, self._world.now)
            self._carry()

    def _carry(self) -> None:
        session = self.session
        assert session is not None
        for action in session.take_actions():
            node = node_at(action.address)
            if isinstance(action, DropConnection):
                # Closing a socket does not call back the bytes that left.
                lose = self._chance.random() < 0.5
                self._network.break_link(self.number, node, lose=lose)
                self._network.break_link(node, self.number, lose=True)
                self._network.reopen(self.number, node)
            else:
                self._network.send(self.number, node, action.data)
        for outcomes in session.take_outcomes():
            last = int(outcomes["request_id"][-1])
            self._timeline.note("client {} is answered up to request {}", self.number, last)
            self._checker.told(session.session_id, outcomes)
        if session.failure is not None:
            raise Violation(f"sessions go on: client {self.number} gave up: {session.failure.message}")
        deadline = session.deadline
        if deadline is not None and deadline < self._tick_at:
            self._tick_at = deadline
            self._world.at(deadline, self._tick, deadline)

    def _tick(self, due: float) -> None:
        if due != self._tick_at:
            return
        self._tick_at = _NEVER
        if self.session is not None:
            self.session.tick(self._world.now)
            self._carry()
