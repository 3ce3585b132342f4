"""Answer ZeroMQ's question which keys may connect: the ZAP handler of a node (ZeroMQ RFC 27), in the node's own loop.

Owns the handler's socket; there is one for each context. libzmq asks it during each CURVE handshake, before a message
of the connection is delivered. Knows no keys: who binds a CURVE socket registers, for its domain, a function that
decides. A connection whose handshake is not answered in time is closed by libzmq (HANDSHAKE_IVL), so a flood of
handshakes costs each turn a bounded number of answers. The raft transport and the node's client ports use it.
"""

from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils import z85

from smrx.key_files import KeyPair

#: The address at which libzmq looks for the handler of a context.
ADDRESS: Final = "inproc://zeromq.zap.01"
#: Handshakes answered in one turn. An answer takes some 30 us, so all of a turn take less than half a millisecond.
HANDSHAKES_PER_TURN: Final = 8
#: A connection without a completed handshake is closed after this time, so that idle connections do not add up.
HANDSHAKE_MS: Final = 3_000
_VERSION: Final = b"1.0"
#: Version, request id, domain, address, routing id, mechanism, key.
_CURVE_PARTS: Final = 7

#: Returns the user id of a public key (Z85) that connects from an address, or None to refuse it.
Decide = Callable[[str, str], str | None]


class ZapHandler:
    """The handler's socket, and who decides for each domain."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Bind; raises zmq.ZMQError if the context has a handler. Do so before a CURVE socket of the context binds."""
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ADDRESS)
        self._decide: dict[bytes, Decide] = {}
        #: How many handshakes were refused.
        self.refused = 0

    def serve(self, socket: "zmq.Socket[bytes]", domain: str, own: KeyPair, decide: Decide) -> None:
        """Make a socket that is not bound yet a CURVE server; `decide` answers for its domain."""
        self._decide[domain.encode("ascii")] = decide
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.curve_secretkey = own.secret.encode("ascii")
        socket.curve_publickey = own.public.encode("ascii")
        socket.curve_server = True
        socket.zap_domain = domain.encode("ascii")

    def answer(self) -> bool:
        """Answer the handshakes that wait, at most HANDSHAKES_PER_TURN; return whether more may be waiting."""
        for _ in range(HANDSHAKES_PER_TURN):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            user = self._user(parts)
            if user is None:
                self.refused += 1
            status, text = (b"400", b"the key may not connect") if user is None else (b"200", b"OK")
            request = parts[1] if len(parts) > 1 else b""
            self.socket.send_multipart([_VERSION, request, status, text, (user or "").encode("ascii"), b""])
        return True

    def _user(self, parts: list[bytes]) -> str | None:
        if len(parts) != _CURVE_PARTS or parts[0] != _VERSION or parts[5] != b"CURVE":
            return None
        decide = self._decide.get(parts[2])
        if decide is None:
            return None
        return decide(z85.encode(parts[6]).decode("ascii"), parts[3].decode("ascii", "replace"))

    def close(self) -> None:
        """Close the socket; handshakes fail from now on."""
        self.socket.close(linger=0)
