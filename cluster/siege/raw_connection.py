"""Hold a plain TCP socket to a port of a node, for attacks that speak its protocol by hand.

Owns the socket, whether it is open, and how much was sent. Knows no protocol: ZmtpConnection and LinkConnection do.
"""

import contextlib
import socket
from typing import Final

_SECONDS: Final = 2.0


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of an address such as tcp://127.0.0.1:7111."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


class RawConnection:
    """One connection. `is_open` turns False when the peer closes it; sending to it then does nothing."""

    def __init__(self, address: str) -> None:
        """Make the socket; connect() uses it."""
        self.is_open = False
        self.sent_bytes = 0
        self._address = address
        self._socket = socket.socket(socket.AF_INET6 if "[" in address else socket.AF_INET)
        self._socket.settimeout(_SECONDS)

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self._socket.connect(split_address(self._address))

    def limit_receive_buffer(self, size: int) -> None:
        """Let the system keep few bytes that are not read."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are; give the peer a moment if it does not read."""
        if not self.is_open:
            return
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_open = False
            return
        self.sent_bytes += len(data)

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.close()

    def _receive(self, size: int) -> bytes:
        """Return exactly so many bytes. Raises OSError."""
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data
