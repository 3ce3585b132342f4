"""Speak the protocol of links over a plain socket, to send to a Raft port what no member sends.

With the key of a node it speaks TLS and greets under an unknown key, which the node must refuse. Called by the attacks.
"""

import contextlib
import select
import socket
from typing import Final

from cluster.siege.zmtp_connection import split_address
from smrx.config import Config, NodeConfig
from smrx.consensus import messages
from smrx.key_files import generate
from smrx.links import greeting, tls
from smrx.links.greeting import ClientGreeting, GreetingError, Terms

_SECONDS: Final = 2.0


class LinkConnection:
    """One connection. `is_open` turns False when the node closes it; sending to it then does nothing."""

    def __init__(self, config: Config, node: NodeConfig) -> None:
        """Connect and greet; the node may close the connection at any time."""
        self.is_open = False
        self.sent_bytes = 0
        self._socket = socket.socket(socket.AF_INET6 if "[" in node.raft_address else socket.AF_INET)
        self._socket.settimeout(_SECONDS)
        terms = Terms(greeting.PEER, messages.cluster_number(config.cluster))
        with contextlib.suppress(OSError, GreetingError):
            self._socket.connect(split_address(node.raft_address))
            own, certificate = None, None
            if node.public_keys:
                secured = tls.client().wrap_socket(self._socket)
                self._socket, certificate, own = secured, secured.getpeercert(binary_form=True), generate()
            self.is_open = True
            client = ClientGreeting(terms, own, certificate, lambda key: True)
            self.message(client.first())
            proof = client.receive(self._received())
            if proof is not None:
                self.message(proof)
            return
        self.close()

    def announce(self, size: int) -> None:
        """Send the head of a frame of this size."""
        self.send_bytes(size.to_bytes(4, "little"))

    def message(self, *bodies: bytes) -> None:
        """Send frames."""
        self.send_bytes(b"".join(len(body).to_bytes(4, "little") + body for body in bodies))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        if not self.is_open:
            return
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_open = False
            return
        self.sent_bytes += len(data)

    def received_bytes(self) -> int:
        """Read what has arrived, and return how much it was."""
        count = 0
        with contextlib.suppress(OSError):
            while select.select([self._socket], [], [], 0)[0] and (part := self._socket.recv(65536)):
                count += len(part)
        return count

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.close()

    def _received(self) -> bytes:
        size = int.from_bytes(self._exactly(4), "little")
        return self._exactly(min(size, greeting.MAX_BYTES))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data
