"""Decide who may connect to a node's client ports, and who sends each message.

Owns the sockets' keys, the answer to each handshake of a client, and the principal of each connection. A key may
connect if it is in the cluster file (`venue_keys`), a member's, or that of a credential of the state that is active and
whose networks hold the address. The principal of a message is looked up in the state as it is now: of a credential that
was revoked, has expired or may no longer connect from there, every further message is refused. So is every message of a
connection that chose its routing id: what is sent to that id later would reach the connection that chooses it next. On
a node without keys every message has the one principal that may do everything, and nothing is looked up.

Called by the reactor, the admin service and the feed. principal.py says what a principal may do.
"""

import time
from typing import Final

import zmq

from smrx.config import Config
from smrx.consensus.keys import LinkKeys
from smrx.consensus.zap import HANDSHAKE_MS, ZapHandler
from smrx.node.credential_lookup import Credentials
from smrx.node.principal import EVERYTHING, Principal, Sender
from smrx.node.replicated_state import ReplicatedState
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

DOMAIN: Final = "clients"
#: What begins the user id of a connection under a key of the cluster file; the id of a credential is its number.
_KEY: Final = "key:"
#: A principal is looked up again after this time, also if the state has not changed: it may have expired.
_LOOKUP_SECONDS: Final = 0.5


class Admission:
    """The keys of a node's client ports, and the principals of their connections."""

    def __init__(self, config: Config, keys: LinkKeys | None, zap: ZapHandler | None, state: ReplicatedState) -> None:
        self._venue_keys = frozenset(config.venue_keys)
        self._keys = keys
        self._zap = zap
        self._state = state
        self._credentials = Credentials(state)
        #: The principals of the connections that sent something since the state last changed.
        self._known: dict[Sender, Principal | None] = {}
        self._position = state.position()
        self._known_until = 0.0

    @property
    def has_keys(self) -> bool:
        """Whether clients need a key."""
        return self._keys is not None

    def prepare(self, socket: "zmq.Socket[bytes]", max_message_bytes: int) -> None:
        """Set the options of a client port's socket before it binds; with keys it becomes a CURVE server."""
        socket.linger = 0
        # ZeroMQ closes a connection that announces a larger message, before it allocates memory for it.
        socket.maxmsgsize = max_message_bytes
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        enable_tcp_keepalive(socket)
        if self._keys is not None and self._zap is not None:
            self._zap.serve(socket, DOMAIN, self._keys.own, self.user_of)

    def principal(self, route: bytes, received: zmq.Frame) -> Principal | None:
        """Return who sent a frame, None if it may not be served; both are parts of recv_multipart(copy=False).

        `route`: the routing id of the connection.
        """
        return EVERYTHING if self._keys is None else self.principal_of(Sender.of(route, received))

    def principal_of(self, sender: Sender) -> Principal | None:
        """Return the principal of a sender now, None if it may not be served any more; only on a node with keys."""
        now = time.monotonic()
        if self._state.position() != self._position or now > self._known_until:
            self._position, self._known_until = self._state.position(), now + _LOOKUP_SECONDS
            self._known.clear()
        if sender not in self._known:
            self._known[sender] = self._find(sender)
        return self._known[sender]

    def user_of(self, key: str, address: str) -> str | None:
        """Return the user id of a connection under a key, None if the key may not connect from the address."""
        if self._is_named(key):
            return _KEY + key
        number = self._credentials.number_of(key)
        if number is None or self._credentials.principal(number) is None:
            return None
        return str(number) if self._credentials.may_connect_from(number, address) else None

    def _is_named(self, key: str) -> bool:
        """Return whether the cluster file names the key, or the key is a member's."""
        assert self._keys is not None
        return (
            key in self._venue_keys
            or key == self._keys.own.public
            or any(key in public for public in self._keys.peers.values())
        )

    def _find(self, sender: Sender) -> Principal | None:
        if not _is_own_route(sender.route):
            return None
        if sender.user.startswith(_KEY):
            return EVERYTHING if self._is_named(sender.user.removeprefix(_KEY)) else None
        number = int(sender.user)
        return (
            self._credentials.principal(number) if self._credentials.may_connect_from(number, sender.address) else None
        )


def _is_own_route(route: bytes) -> bool:
    """Return whether ZeroMQ chose a routing id: those begin with a zero and have a number that no peer knows."""
    return route[:1] == b"\0"
