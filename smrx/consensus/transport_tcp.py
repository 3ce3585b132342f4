"""Connect the members over TCP: a listening socket at the node's own address, a connection to each peer.

A node sends to a peer over the connection that it dialed, and receives over those that it accepted. Owns these
connections and, with keys, whose are accepted: those of the members, under TLS 1.3 and with a proof of both keys
(smrx/links/greeting.py). transport.py decides whether a message is a member's. Driven by the loop of the node: its
Poller calls received(), and the loop begin_turn(), tick() and flush(). Nothing blocks.
"""

import socket
from collections.abc import Mapping
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.keys import LinkKeys, holders_of
from smrx.consensus.messages import Envelope
from smrx.consensus.transport import PeerTransport
from smrx.key_files import is_key
from smrx.links import greeting, tls
from smrx.links.connection import FRAMES_AT_A_TIME, Connection
from smrx.links.dialer import Dialer
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ClientGreeting, ServerGreeting, Terms
from smrx.links.listener import Bounds, Listener
from smrx.links.poller import Poller

#: Messages of no member that are handled in one turn; the loop has to return to its clients.
UNKNOWN_PER_TURN: Final = 32
#: A connection without a complete greeting is closed after this time; so many may be without one.
_GREETING_SECONDS: Final = 3.0
_UNADMITTED: Final = 64
#: Messages that wait for one peer. Raft's own window is smaller for entries.
_QUEUE_BYTES: Final = 16 << 20
#: What waits to be answered to one node that is no peer.
_ANSWER_BYTES: Final = 256 << 10
#: A connection is closed when the other machine has not acknowledged data for this time. Something is always sent, so
#: a broken network is noticed soon.
_UNACKNOWLEDGED_MS: Final = 2_000
#: How long the last messages to a removed node may take.
_LINGER_SECONDS: Final = 0.5
#: The time between two looks at which connections are lost or late: too much work for every turn.
_LOOK_SECONDS: Final = 0.01


class TcpTransport(PeerTransport):
    """A PeerTransport over TCP."""

    def __init__(
        self,
        poller: Poller,
        *,
        cluster: str,
        node_id: int,
        bind: str,
        peers: Mapping[int, str],
        incarnation: int,
        keys: LinkKeys | None = None,
        max_connections: int = 1_024,
    ) -> None:
        """Bind; tick() connects. Raises OSError if `bind` is in use. With `keys`, only their holders can connect."""
        super().__init__(cluster=cluster, node_id=node_id, peers=peers, incarnation=incarnation)
        self._poller = poller
        self._keys = keys
        # With keys their connections are refused.
        self.accepts_unknown_peers = keys is None
        self._terms = Terms(greeting.PEER, self._cluster)
        server = None if keys is None else tls.server()
        self._certificate = None if server is None else server.certificate
        self._client_tls = None if keys is None else tls.client()
        self._dialers: dict[int, Dialer] = {}
        #: Dialers of removed peers, and until when they may send what waits.
        self._closing: list[tuple[Dialer, float]] = []
        #: Connections with messages to send.
        self._unsent: set[Connection] = set()
        #: Connections with messages that the last turn left, and those whose last message was a member's.
        self._behind: dict[Connection, None] = {}
        self._trusted: set[Connection] = set()
        self._unknown_left = UNKNOWN_PER_TURN
        self._next_look = self._links_deadline = 0.0
        #: The peers that can have sent the message in hand; None without keys.
        self._allowed_senders: tuple[int, ...] | None = None
        #: The peers by a public key.
        self._holders: dict[str, tuple[int, ...]] = {}
        accepted = GreetedLinks(self, self._greet_back)
        bounds = Bounds(
            connections=max_connections,
            unadmitted=_UNADMITTED,
            greeting_seconds=_GREETING_SECONDS,
            greeting_bytes=greeting.MAX_BYTES,
            frame_bytes=messages.MAX_MESSAGE_BYTES,
            queue_bytes=_ANSWER_BYTES,
            unread_ms=_UNACKNOWLEDGED_MS,
        )
        self.listener = accepted.listener = Listener(
            bind, poller, accepted, bounds, tls=None if server is None else server.context
        )
        for peer, address in peers.items():
            self._connect(peer, address)

    # Connections.

    def _connect(self, peer: int, address: str) -> None:
        links = GreetedLinks(self, lambda connection: self._greet(peer, connection))

        def connect(stream: socket.socket) -> Connection:
            connection = Connection(
                stream,
                self._poller,
                links,
                # Only a node for which this one is an unknown peer answers on the connection of the message.
                max_frame_bytes=messages.MAX_MEMBERSHIP_BYTES,
                max_queue_bytes=_QUEUE_BYTES,
                tls=self._client_tls,
                connects=True,
            )
            connection.context = peer
            return connection

        self._dialers[peer] = Dialer(
            address, connect, greeting_seconds=_GREETING_SECONDS, unacknowledged_ms=_UNACKNOWLEDGED_MS
        )

    def _greet(self, peer: int, connection: Connection) -> ClientGreeting:
        own = None if self._keys is None else self._keys.own
        return ClientGreeting(self._terms, own, connection.peer_certificate, lambda key: peer in self._peers_of(key))

    def _greet_back(self, connection: Connection) -> ServerGreeting:
        own = None if self._keys is None else self._keys.own
        return ServerGreeting(self._terms, own, self._certificate, lambda key: bool(self._peers_of(key)))

    def _peers_of(self, key: str) -> tuple[int, ...]:
        assert self._keys is not None
        if key not in self._holders:
            self._holders[key] = tuple(holders_of(self._keys, key))
        return self._holders[key]

    def keys_fault(self, node: NodeConfig) -> str | None:
        """As PeerTransport; with keys on these links a node needs valid ones."""
        if self._keys is None:
            return super().keys_fault(node)
        if node.public_keys and all(map(is_key, node.public_keys)):
            return None
        return f"node {node.id} has no valid public key, but this cluster uses keys; see smrx cluster keygen"

    def add_peer(self, node: NodeConfig) -> None:
        """As PeerTransport; also connect to it, with its keys if this node has one."""
        super().add_peer(node)
        if self._keys is not None:
            self._keys.peers[node.id] = node.public_keys
            self._holders.clear()
        self._connect(node.id, node.raft_address)

    def _disconnect(self, peer: int) -> None:
        self._closing.append((self._dialers.pop(peer), self._clock() + _LINGER_SECONDS))
        if self._keys is not None:
            del self._keys.peers[peer]
            self._holders.clear()
            for connection in tuple(self.listener.connections):
                if connection.peer_key is not None and not self._peers_of(connection.peer_key):
                    connection.close("a removed node's")

    # What the connections call.

    def opened(self, connection: Connection) -> None:
        """A greeting is complete. A peer that was dialed gets a hello with the next tick."""
        peer = connection.context
        if peer in self._sent_at:
            self._sent_at[peer] = float("-inf")

    def received(self, connection: Connection) -> None:
        """Handle the messages that have arrived, few of them from nodes that are no peers."""
        is_known = connection in self._trusted
        limit = FRAMES_AT_A_TIME if is_known else self._unknown_left
        route = None if connection.context is not None else connection
        if self._keys is not None:
            assert connection.peer_key is not None
            self._allowed_senders = self._peers_of(connection.peer_key)
        for frame in connection.frames(limit):
            is_known = self.receive(frame, route)
            if not is_known:
                self._unknown_left = max(0, self._unknown_left - 1)
            # A message may remove this peer or another one.
            if connection.reason is not None:
                return
        if is_known:
            self._trusted.add(connection)
        else:
            self._trusted.discard(connection)
        if connection.has_frames:
            self._behind[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._trusted.discard(connection)
        self._unsent.discard(connection)
        self._behind.pop(connection, None)

    # What the loop calls.

    def begin_turn(self) -> None:
        """Handle what the last turn left."""
        self._unknown_left = UNKNOWN_PER_TURN
        behind, self._behind = self._behind, {}
        for connection in behind:
            if connection.reason is None:
                self.received(connection)

    @property
    def has_more_to_read(self) -> bool:
        """Whether messages wait that the poller does not report."""
        return bool(self._behind)

    def tick(self, now: float) -> None:
        """As PeerTransport; also connect to peers that are not connected."""
        if now >= self._next_look:
            self._look(now)
        super().tick(now)

    def _look(self, now: float) -> None:
        self.listener.tick(now)
        for dialer in tuple(self._dialers.values()):
            dialer.tick(now)
        for dialer, until in tuple(self._closing):
            connection = dialer.usable
            if now >= until or connection is None or not connection.queued_bytes:
                dialer.close()
                self._closing.remove((dialer, until))
        dials = min((dialer.next_deadline for dialer in self._dialers.values()), default=float("inf"))
        closes = self._closing[0][1] if self._closing else float("inf")
        self._next_look = now + _LOOK_SECONDS
        self._links_deadline = max(self._next_look, min(dials, closes, self.listener.next_deadline))

    def next_deadline(self) -> float:
        """As PeerTransport; also of the connections, as of the last look: a node turns at least once a heartbeat."""
        return min(super().next_deadline(), self._links_deadline)

    def close(self) -> None:
        """Close every socket without blocking."""
        for dialer in (*self._dialers.values(), *(dialer for dialer, _ in self._closing)):
            dialer.close()
        self.listener.close()

    # What PeerTransport calls.

    def _fault(self, envelope: Envelope) -> str | None:
        """As PeerTransport; also drop a message whose sender does not hold the connection's key."""
        if self._allowed_senders is not None and envelope.sender not in self._allowed_senders:
            return "under a key that is not the sender's"
        return super()._fault(envelope)

    def _transmit(self, peer: int, frame: bytes) -> bool:
        connection = self._dialers[peer].usable
        if connection is None or not connection.send(frame):
            return False
        self._unsent.add(connection)
        return True

    def _send_now(self) -> None:
        while self._unsent:
            self._unsent.pop().flush()

    def _answer(self, node: int, route: object, frame: bytes) -> None:
        if isinstance(route, Connection) and route.send(frame):
            route.flush()
