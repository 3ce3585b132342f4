"""Speak the native protocol of gateways over a plain socket, as the honest client and the attacks on gateways do.

Owns the session of the connection and the number of its next request. Waits for answers up to a time; sends anything.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cluster.siege.raw_connection import RawConnection
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.records import COMMAND, SESSION_COMMAND
from smrx.wire.soup_packets import Login, Packet, PacketReader, PacketType

HEARTBEAT: Final = soup_packets.encode(PacketType.CLIENT_HEARTBEAT)


class GatewayConnection(RawConnection):
    """One connection to a gateway. Calls may raise OSError: TimeoutError, and ConnectionError at its end."""

    def __init__(self, address: str, timeout_s: float, *, receive_buffer: int | None = None) -> None:
        super().__init__(address)
        self._timeout_s = timeout_s
        if receive_buffer is not None:
            self.limit_receive_buffer(receive_buffer)
        self._socket.settimeout(timeout_s)
        self.connect()
        self.is_open = True
        self._reader = PacketReader()
        self._packets: list[Packet] = []
        #: The open session and the id of its next request.
        self.session = self.next_request = 0

    def log_in(self, name: str) -> None:
        """Log in and wait for the acceptance."""
        self.send_bytes(soup_packets.encode_login(Login(username=name)))
        self._next(PacketType.LOGIN_ACCEPTED)

    def open_session(self, session: int, account: int, answers: int = 0) -> None:
        """Open a session, also one that exists."""
        command = np.zeros(1, SESSION_COMMAND)
        command["kind"], command["session_id"], command["account"] = CommandKind.OPEN_SESSION, session, account
        command["answers"] = answers
        self.send_bytes(soup_packets.encode_commands(command.view(COMMAND)))
        (opened,) = self.outcomes(1)
        if opened["status"] not in (OutcomeStatus.ACCEPTED, OutcomeStatus.DUPLICATE):
            raise ConnectionError(f"session {session} was not opened: reason {opened['reason']}")
        self.session, self.next_request = session, int(opened["order_id"]) + 1

    def packets(self, commands: NDArray[np.void]) -> bytes:
        """Return the packets of commands, as the next requests of the session."""
        rows = commands.copy()
        rows["session_id"] = self.session
        rows["request_id"] = np.arange(self.next_request, self.next_request + len(rows))
        self.next_request += len(rows)
        return soup_packets.encode_commands(rows)

    def ask(self, command: NDArray[np.void]) -> np.void:
        """Send one command and return its outcome."""
        request = self.next_request
        self.send_bytes(self.packets(command))
        outcome: np.void = self.outcomes(1)[0]
        if int(outcome["request_id"]) != request:
            raise ConnectionError(f"expected the answer to request {request}, found {outcome['request_id']}")
        return outcome

    def outcomes(self, count: int) -> NDArray[np.void]:
        """Return the next outcomes."""
        return soup_packets.outcomes_of([self._next(PacketType.SEQUENCED) for _ in range(count)])

    def send_some(self, data: bytes) -> bytes:
        """Send what the system takes without waiting; return the rest."""
        with self._not_blocking(), contextlib.suppress(BlockingIOError):
            return data[self._socket.send(data) :]
        return data

    def arrived(self) -> list[Packet]:
        """Return the packets that have arrived, without waiting."""
        with self._not_blocking(), contextlib.suppress(BlockingIOError):
            while self.is_open:
                try:
                    data = self._socket.recv(1 << 16)
                except ConnectionError:
                    data = b""
                self.is_open = bool(data)
                self._packets += self._reader.feed(data)
        found, self._packets = self._packets, []
        return found

    def rest(self) -> Iterator[Packet]:
        """Yield the packets up to the end of the connection."""
        try:
            while True:
                yield self._packet()
        except ConnectionError:
            return

    @contextmanager
    def _not_blocking(self) -> Iterator[None]:
        self._socket.setblocking(False)
        try:
            yield
        finally:
            self._socket.settimeout(self._timeout_s)

    def _next(self, kind: PacketType) -> Packet:
        """Return the next packet, which has to be of this kind, without heartbeats."""
        while (packet := self._packet()).kind == PacketType.SERVER_HEARTBEAT:
            pass
        if packet.kind != kind:
            raise ConnectionError(f"expected a packet {chr(kind)}, found {chr(packet.kind)}: {packet.payload[:200]!r}")
        return packet

    def _packet(self) -> Packet:
        deadline = time.monotonic() + self._timeout_s
        while not self._packets:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no packet within {self._timeout_s:g} s")
            data = self._socket.recv(1 << 16)
            if not data:
                self.is_open = False
                raise ConnectionError("the gateway closed the connection")
            self._packets += self._reader.feed(data)
        return self._packets.pop(0)
