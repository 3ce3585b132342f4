"""Give clients credentials, revoke them while requests are under way, and send commands in the sessions of others.

Owns an officer, a client of the venue that adds and revokes credentials, and an end of the network that sends frames
under a trader's key in sessions that are not the trader's. With a random generator of its own: a run without
credentials is the run it would be if there were none. Decides nothing about rights: credential_checks.py does.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from smrx.sim import workload
from smrx.sim.checker import Violation
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_client import SimulatedClient
from smrx.wire import frames
from smrx.wire.codes import Permission
from smrx.wire.command_list import CommandList
from smrx.wire.frames import FrameKind

#: The end of the network of the frames in others' sessions.
_FOREIGN_END: Final = 192
_FOREIGN_ENDS: Final = 8
_POLL_SECONDS: Final = 0.02
#: Mean times between two revocations, and between two such frames.
_REVOCATION_SECONDS: Final = 0.6
_FOREIGN_SECONDS: Final = 0.3
#: The part of the credentials that may read and not trade.
_READ_ONLY: Final = 0.2
#: A trader's next credential has a number that is higher by this.
_NUMBERS: Final = 10


class CredentialOffice:
    """The credentials of the traders of one run."""

    def __init__(
        self,
        officer: SimulatedClient,
        traders: Sequence[SimulatedClient],
        nodes: Callable[[], Sequence[int]],
        *,
        scheduler: Scheduler,
        network: Network,
        rng: random.Random,
    ) -> None:
        """`nodes()` returns the ids of the nodes that run."""
        self.is_active = False
        self._officer = officer
        self._traders = traders
        self._nodes = nodes
        self._scheduler = scheduler
        self._network = network
        self._rng = rng
        for end in range(_FOREIGN_END, _FOREIGN_END + _FOREIGN_ENDS):
            network.attach(end, self._receive)
        for trader in traders:
            trader.may_open = False

    def begin(self) -> None:
        """Give each trader a credential; from then on revoke some."""
        self.is_active = True
        self._officer.open()
        for trader in self._traders:
            self._add(trader, _NUMBERS + trader.account)
        self._scheduler.call_later(self._rng.expovariate(1 / _REVOCATION_SECONDS), self._revoke)
        self._scheduler.call_later(self._rng.expovariate(1 / _FOREIGN_SECONDS), self._send_in_foreign_session)

    def _add(self, trader: SimulatedClient, number: int) -> None:
        permissions = Permission.READ | (Permission.NONE if self._rng.random() < _READ_ONLY else Permission.TRADE)
        self._officer.send(workload.add_credential(number, trader.account, int(permissions)))
        self._use_when_added(trader, number)

    def _use_when_added(self, trader: SimulatedClient, number: int) -> None:
        """Let a trader use a credential once the exchange has it."""
        if self._officer.unanswered:
            self._scheduler.call_later(_POLL_SECONDS, self._use_when_added, trader, number)
        else:
            trader.use_credential(number)

    def _revoke(self) -> None:
        """Revoke the credential of a trader, whatever it has under way, and give it another one."""
        if not self.is_active:
            return
        trader = self._rng.choice(self._traders)
        if trader.may_open and not self._officer.unanswered:
            trader.may_open = False
            self._officer.send(workload.revoke_credential(trader.credential))
            self._add(trader, trader.credential + _NUMBERS)
        self._scheduler.call_later(self._rng.expovariate(1 / _REVOCATION_SECONDS), self._revoke)

    def _send_in_foreign_session(self) -> None:
        """Send a node an order in the session of another client, under the key of a trader."""
        if not self.is_active:
            return
        thief = self._rng.choice(self._traders)
        session = self._rng.choice(
            [client for client in (*self._traders, self._officer) if client is not thief]
        ).session
        nodes = self._nodes()
        if session is not None and thief.credential and nodes:
            # An end for each credential: what is under way keeps its own.
            end = _FOREIGN_END + thief.credential % _FOREIGN_ENDS
            self._network.credentials[end] = thief.credential
            commands, details = workload.orders(self._rng, thief.account, 1)
            commands = commands.copy()
            commands["session_id"] = session.session_id
            commands["request_id"] = np.uint64(session.last_request + 1)
            frame = frames.encode_commands(CommandList(commands, details), 1)
            self._network.send(end, self._rng.choice(nodes), frame)
        self._scheduler.call_later(self._rng.expovariate(1 / _FOREIGN_SECONDS), self._send_in_foreign_session)

    def _receive(self, node: int, frame: bytes) -> None:
        if frames.decode(frame).kind is FrameKind.OUTCOMES:
            raise Violation(f"own sessions only: node {node} answers an order in the session of another client")
