"""Speak ZMTP 3.0, the protocol of ZeroMQ, over a plain TCP socket, to send what no ZeroMQ library sends.

Only the NULL mechanism: an attack on a port with keys does not get past the handshake anyway. Called by the attacks.
"""

from typing import Final

from cluster.siege.raw_connection import RawConnection

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_LONG, _COMMAND = 0x02, 0x04


class ZmtpConnection(RawConnection):
    """One connection, greeted as a socket of ZeroMQ."""

    def __init__(self, address: str, socket_type: str = "DEALER") -> None:
        """Connect and greet; the peer may close the connection at any time."""
        super().__init__(address)
        #: The socket type that the peer reported, "" if the handshake was not completed.
        self.peer_type = ""
        try:
            self.connect()
            self.is_open = True
            self.send_bytes(_GREETING)
            self._receive(64)
            ready = b"\x05READY\x0bSocket-Type" + len(socket_type).to_bytes(4, "big") + socket_type.encode()
            self.send_bytes(bytes((_COMMAND, len(ready))) + ready)
            flags, size = self._receive(2)
            reply = self._receive(size) if flags == _COMMAND else b""
            _, found, value = reply.partition(b"\x0bSocket-Type")
            if found:
                self.peer_type = value[4 : 4 + int.from_bytes(value[:4], "big")].decode("ascii", "replace")
        except (OSError, ValueError):
            self.is_open = False

    def announce(self, size: int) -> None:
        """Send the head of a message of this size."""
        self.send_bytes(bytes((_LONG,)) + size.to_bytes(8, "big"))

    def message(self, body: bytes) -> None:
        """Send a message of one part."""
        self.announce(len(body))
        self.send_bytes(body)
