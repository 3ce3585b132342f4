"""The protocols that the load generator speaks on plain sockets: how a connection begins, and what a refusal says.

The order entry of a node: frames behind their lengths over TCP; and ZMTP 3.1 (RFC 23 and 37 of ZeroMQ) as a DEALER
without security: a client library with threads of its own would cost more than what is measured. The native protocol
of a gateway (soup_packets.py). Sockets block, with a timeout. The bytes after the beginning are load_kernel.py's.
Called by load_connections.py.
"""

from typing import Any, Final
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from smrx.bench.bench_error import BenchError, LeaderChanged
from smrx.bench.load_kernel import RING, SOUP, TCP, ZMTP
from smrx.links import greeting
from smrx.links.greeting import ClientGreeting, GreetingError, Terms
from smrx.rings.ring_end import RingEnd
from smrx.wire import frames, soup_packets
from smrx.wire.command_list import CommandList
from smrx.wire.frames import FrameKind
from smrx.wire.records import OUTCOME
from smrx.wire.soup_packets import Login, PacketType

Records = NDArray[Any]

#: Signature, version 3.1, mechanism NULL, as a client, padding.
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY: Final = b"\x05READY" + b"\x0bSocket-Type" + b"\0\0\0\x06DEALER" + b"\x08Identity" + b"\0\0\0\0"
#: How long a node may leave a ring as it is.
_RING_S: Final = 10.0
_LONG: Final = 2
_COMMAND: Final = 4


class Link(Interface):
    """What a protocol needs of a connection: calls that block, as those of a socket."""

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""

    def recv(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class RingLink:
    """A Link through rings in shared memory."""

    def __init__(self, end: RingEnd) -> None:
        self.end = end

    def fileno(self) -> int:
        """Return the descriptor that is readable when there may be something to receive."""
        return self.end.bell

    def close(self) -> None:
        """Release the rings."""
        self.end.close()

    def sendall(self, data: bytes) -> None:
        """Send all bytes."""
        array = np.frombuffer(bytearray(data), np.uint8)
        sent = 0
        while sent < len(array):
            sent += self.end.send(array, sent)
            if sent < len(array) and not self.end.wait(_RING_S, until_room=True):
                raise BenchError("the node does not read its ring")

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        array = np.empty(size, np.uint8)
        while not (count := self.end.receive(array)):
            if self.end.is_other_gone():
                return b""
            if not self.end.wait(_RING_S):
                raise BenchError("the node does not answer through its ring")
        return array[:count].tobytes()


class Protocol(Interface):
    """What a connection needs before the kernel serves it. All methods raise BenchError."""

    #: The protocol's number in load_kernel.py.
    number: int

    def greet(self, link: Link) -> None:
        """Begin."""

    def wait_ready(self, link: Link) -> None:
        """Return when the server accepts commands."""

    def send(self, link: Link, commands: Records) -> None:
        """Send commands (COMMAND) without details."""

    def outcomes(self, link: Link, count: int) -> Records:
        """Return the next `count` outcomes."""

    def fault_text(self, message: bytes) -> str:
        """Return what a message says that is not an answer."""

    def leaves_leader(self, message: bytes) -> bool:
        """Return whether a message says that the node does not lead any more."""


class _Frames:
    """Frames of order entry, however they are carried."""

    def send(self, link: Link, commands: Records) -> None:
        self._send_message(link, frames.encode_commands(CommandList(commands)))

    def outcomes(self, link: Link, count: int) -> Records:
        message = self._message(link)
        frame = frames.decode(message)
        if frame.kind is not FrameKind.OUTCOMES or frame.count != count:
            error = LeaderChanged if frame.kind is FrameKind.NOT_LEADER else BenchError
            raise error(f"the cluster refused a session: {self.fault_text(message)}")
        return frames.records(frame)

    def fault_text(self, message: bytes) -> str:
        try:
            found = frames.decode(message)
            if found.kind is FrameKind.ERROR:
                return frames.error_body(found).message
        except frames.FrameError as error:
            return str(error)
        return f"expected OUTCOMES, found {found.kind.name}"

    def leaves_leader(self, message: bytes) -> bool:
        try:
            return frames.decode(message).kind is FrameKind.NOT_LEADER
        except frames.FrameError:
            return False

    def _send_message(self, link: Link, message: bytes) -> None:
        raise NotImplementedError

    def _message(self, link: Link) -> bytes:
        raise NotImplementedError


class Tcp(_Frames):
    """Frames of order entry behind their lengths."""

    number = TCP

    def greet(self, link: Link) -> None:
        self._send_message(link, _client_greeting().first())

    def wait_ready(self, link: Link) -> None:
        hello = _client_greeting()
        hello.first()
        try:
            hello.receive(self._message(link))
        except GreetingError as error:
            raise BenchError(f"a node refused a connection: {error}") from None

    def _send_message(self, link: Link, message: bytes) -> None:
        link.sendall(len(message).to_bytes(4, "little") + message)

    def _message(self, link: Link) -> bytes:
        return _exactly(link, int.from_bytes(_exactly(link, 4), "little"))


def _client_greeting() -> ClientGreeting:
    """Return the greeting of a client without a key; it has no state."""
    return ClientGreeting(Terms(greeting.ORDERS, greeting.ANY_CLUSTER), None, None, lambda _: True)


class Ring(Tcp):
    """Frames of order entry behind their lengths, in a ring of this machine, without a greeting."""

    number = RING

    def greet(self, link: Link) -> None:
        """Do nothing: who may open the socket of the rings may use them."""

    def wait_ready(self, link: Link) -> None:
        """Do nothing."""


class Zmtp(_Frames):
    """Frames of order entry in ZeroMQ messages."""

    number = ZMTP

    def greet(self, link: Link) -> None:
        link.sendall(_GREETING)
        _send_zmtp(link, _READY, _COMMAND)

    def wait_ready(self, link: Link) -> None:
        _exactly(link, len(_GREETING))
        _zmtp_message(link, _COMMAND)

    def _send_message(self, link: Link, message: bytes) -> None:
        _send_zmtp(link, message, 0)

    def _message(self, link: Link) -> bytes:
        return _zmtp_message(link, 0)


class Soup:
    """Packets of the native protocol."""

    number = SOUP

    def greet(self, link: Link) -> None:
        link.sendall(soup_packets.encode_login(Login(username="load")))

    def wait_ready(self, link: Link) -> None:
        kind, payload = _packet(link)
        if kind != PacketType.LOGIN_ACCEPTED:
            raise BenchError(f"the gateway rejected a login: {payload!r}")

    def send(self, link: Link, commands: Records) -> None:
        link.sendall(soup_packets.encode_commands(commands))

    def outcomes(self, link: Link, count: int) -> Records:
        found: list[bytes] = []
        while len(found) < count:
            kind, payload = _packet(link)
            if kind == PacketType.SEQUENCED:
                found.append(payload)
            elif kind != PacketType.SERVER_HEARTBEAT:
                raise BenchError(f"the gateway refused a session: {_notice_text(payload)}")
        return np.frombuffer(b"".join(found), OUTCOME)

    def fault_text(self, message: bytes) -> str:
        return _notice_text(message)

    def leaves_leader(self, message: bytes) -> bool:
        return False


def _notice_text(payload: bytes) -> str:
    try:
        return soup_packets.decode_notice(payload).text
    except soup_packets.PacketError as error:
        return str(error)


def _packet(link: Link) -> tuple[int, bytes]:
    length, kind = int.from_bytes(_exactly(link, 2), "big"), _exactly(link, 1)[0]
    return kind, _exactly(link, length - 1)


def _send_zmtp(link: Link, body: bytes, flags: int) -> None:
    size = bytes((flags, len(body))) if len(body) < 256 else bytes((flags | _LONG,)) + len(body).to_bytes(8, "big")
    link.sendall(size + body)


def _zmtp_message(link: Link, wanted: int) -> bytes:
    """Return the next message, or with _COMMAND the next command of ZMTP."""
    while True:
        flags, size = _exactly(link, 2)
        if flags & _LONG:
            size = int.from_bytes(bytes((size,)) + _exactly(link, 7), "big")
        body = _exactly(link, size)
        if flags & _COMMAND == wanted:
            return body


def _exactly(link: Link, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        try:
            part = link.recv(count)
        except OSError as error:
            raise BenchError(f"a connection got no answer: {error}") from None
        if not part:
            raise BenchError("a connection was closed while it was being opened")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
