"""A blocking client of the native protocol over one plain socket, for tests."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.key_files import KeyPair
from smrx.links import greeting, tls
from smrx.links.greeting import ClientGreeting, Terms
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind, SessionFlags
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, SESSION_COMMAND
from smrx.wire.soup_packets import Login, Notice, Packet, PacketReader, PacketType

DEADLINE_S = 30.0


class ClientSide(NamedTuple):
    """What a client with a key knows: its own pair, the public key of the gateway, and the name of the cluster."""

    own: KeyPair
    gateway: str
    cluster: str


class SoupClient:
    """A connection to a gateway."""

    def __init__(
        self,
        address: str,
        *,
        receive_buffer: int | None = None,
        timeout_s: float = DEADLINE_S,
        keys: ClientSide | None = None,
    ) -> None:
        """`keys`: on a cluster with keys; raises GreetingError, OSError if the gateway refuses them."""
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if keys is not None:
            self.socket = tls.client().wrap_socket(self.socket)
            self._greet(keys)
        self._reader = PacketReader()
        self._packets: list[Packet] = []

    def _greet(self, keys: ClientSide) -> None:
        assert isinstance(self.socket, ssl.SSLSocket)
        certificate = self.socket.getpeercert(binary_form=True)
        terms = Terms(greeting.GATEWAY, xxhash.xxh3_64_intdigest(keys.cluster.encode()))
        own = ClientGreeting(terms, keys.own, certificate, lambda key: key == keys.gateway)
        first = own.first()
        self.socket.sendall(len(first).to_bytes(2, "big") + first)
        size = int.from_bytes(self._exactly(2), "big")
        proof = own.receive(self._exactly(size))
        assert proof is not None
        self.socket.sendall(len(proof).to_bytes(2, "big") + proof)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the gateway closed the connection")
            data += more
        return data

    def __enter__(self) -> "SoupClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def login(self, username: str = "test") -> tuple[str, int]:
        """Log in; return the session and the number of the next packet."""
        self.send_raw(soup_packets.encode_login(Login(username=username)))
        packet = self.packet()
        assert packet.kind == PacketType.LOGIN_ACCEPTED, packet
        return soup_packets.decode_accepted(packet.payload)

    def open_session(
        self, session: int, account: int, *, answers: int = 0, cancel_on_disconnect: bool = False
    ) -> np.void:
        """Open a session; return the outcome."""
        command = np.zeros(1, SESSION_COMMAND)
        command["kind"], command["session_id"], command["account"] = CommandKind.OPEN_SESSION, session, account
        command["answers"] = answers
        command["flags"] = SessionFlags.CANCEL_ON_DISCONNECT if cancel_on_disconnect else SessionFlags.NONE
        return self.ask(CommandList(command.view(COMMAND)))

    def send(self, commands: CommandList) -> None:
        self.send_raw(soup_packets.encode_commands(*commands))

    def ask(self, commands: CommandList) -> np.void:
        """Send one command; return its outcome."""
        self.send(commands)
        return self.outcomes(1)[0]

    def outcomes(self, count: int) -> NDArray[np.void]:
        """Return the next outcomes; anything else but heartbeats fails."""
        found: list[Packet] = []
        while len(found) < count:
            packet = self.packet()
            assert packet.kind == PacketType.SEQUENCED, packet
            found.append(packet)
        return soup_packets.outcomes_of(found)

    def notice(self) -> Notice:
        packet = self.packet()
        assert packet.kind == PacketType.UNSEQUENCED, packet
        return soup_packets.decode_notice(packet.payload)

    def packet(self) -> Packet:
        """Return the next packet that is no heartbeat; raises ConnectionError at the end of the connection."""
        deadline = time.monotonic() + (self.socket.gettimeout() or 0)
        while True:
            while self._packets:
                packet = self._packets.pop(0)
                if packet.kind != PacketType.SERVER_HEARTBEAT:
                    return packet
            if time.monotonic() > deadline:
                raise TimeoutError("only heartbeats in time")
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the gateway closed the connection")
            self._packets += self._reader.feed(data)

    def rest(self) -> list[Packet]:
        """Return all packets up to the end of the connection."""
        found = []
        try:
            while True:
                found.append(self.packet())
        except ConnectionError:
            return found


def numbered(commands: Sequence[CommandList], session: int, first: int = 1) -> CommandList:
    """Return commands without details as one list, with a session and consecutive request ids."""
    records = np.concatenate([command.records for command in commands])
    records["session_id"] = session
    records["request_id"] = np.arange(first, first + len(records))
    return CommandList(records)


class RepeatingClient:
    """A session that goes on through any of several gateways: what has no answer is sent again with the same ids."""

    def __init__(
        self, addresses: Sequence[str], session: int, account: int, *, cancel_on_disconnect: bool = False
    ) -> None:
        self._addresses = addresses
        self._session = session
        self._account = account
        self._cancel_on_disconnect = cancel_on_disconnect
        #: Connections so far.
        self.connections = 0

    def run(
        self,
        commands: CommandList,
        *,
        window: int,
        progress: Callable[[int], None] = lambda _: None,
        silence_s: float = 3.0,
        deadline_s: float = 120.0,
    ) -> NDArray[np.void]:
        """Return the outcome of each command. `progress` gets the number of those answered so far.

        `silence_s`: how long the gateway may be silent before the client tries the next gateway.
        """
        found: list[NDArray[np.void]] = []
        answered = 0
        deadline = time.monotonic() + deadline_s
        while answered < len(commands.records):
            assert time.monotonic() < deadline, f"{answered} commands are answered"
            address = self._addresses[self.connections % len(self._addresses)]
            self.connections += 1
            try:
                with SoupClient(address, timeout_s=silence_s) as client:
                    client.login()
                    client.open_session(self._session, self._account, cancel_on_disconnect=self._cancel_on_disconnect)
                    sent = answered
                    while answered < len(commands.records):
                        last = min(answered + window, len(commands.records))
                        if last > sent:
                            client.send(commands.part(sent, last))
                            sent = last
                        outcome = client.outcomes(1)
                        assert int(outcome["request_id"][0]) == int(commands.records["request_id"][answered])
                        found.append(outcome)
                        answered += 1
                        progress(answered)
            except OSError:  # Also a timeout.
                time.sleep(0.02)
        return np.concatenate(found)
