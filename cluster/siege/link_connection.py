"""Speak the protocol of links over a plain socket, to send to a Raft port what no member sends.

With the key of a node it speaks TLS and greets under an unknown key, which the node must refuse. Called by the attacks.
"""

import contextlib
import select

from cluster.siege.raw_connection import RawConnection
from smrx.config import Config, NodeConfig
from smrx.consensus import messages
from smrx.key_files import generate
from smrx.links import greeting, tls
from smrx.links.greeting import ClientGreeting, GreetingError, Terms


class LinkConnection(RawConnection):
    """One connection, greeted as a member would, under an unknown key."""

    def __init__(self, config: Config, node: NodeConfig) -> None:
        """Connect and greet; the node may close the connection at any time."""
        super().__init__(node.raft_address)
        terms = Terms(greeting.PEER, messages.cluster_number(config.cluster))
        with contextlib.suppress(OSError, GreetingError):
            self.connect()
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

    def received_bytes(self) -> int:
        """Read what has arrived, and return how much it was."""
        count = 0
        with contextlib.suppress(OSError):
            while select.select([self._socket], [], [], 0)[0] and (part := self._socket.recv(65536)):
                count += len(part)
        return count

    def _received(self) -> bytes:
        size = int.from_bytes(self._receive(4), "little")
        return self._receive(min(size, greeting.MAX_BYTES))
