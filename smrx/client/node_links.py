"""Own the connections of a client to order entry over TCP: one for each node, its queue of frames and its greeting.

With keys a connection is under TLS and both ends prove their keys; without, it is plain. Built on smrx/links, driven by
the caller: the blocking client waits in NodeLinks.wait(), the asyncio client when the descriptor of the Poller is
readable. Never looks into a frame. The counterpart for ZeroMQ is node_sockets.py; an address says which of the two.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from smrx.client_keys import ClientKeys
from smrx.config import ORDERS_SCHEME, socket_address
from smrx.key_files import KeysError
from smrx.links import greeting, tls
from smrx.links.connection import CLOSED_BY_PEER, Connection
from smrx.links.dialer import Dialer
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ClientGreeting, Terms
from smrx.links.poller import Poller

#: How long a node may take for a handshake, and leave what it was sent unacknowledged.
_GREETING_SECONDS: Final = 3.0
_UNACKNOWLEDGED_MS: Final = 10_000
#: The window of the session bounds the queue.
_QUEUE_BYTES: Final = 1 << 30
#: Frames taken at once, so that a busy node does not delay the others.
_FRAMES: Final = 256
#: Why a node cannot be connected to.
LINK_ERRORS: Final = (OSError, ValueError, KeysError)
#: Whether an event loop can watch the connections.
IS_AVAILABLE: Final = hasattr(select, "epoll")


def is_link(address: str) -> bool:
    """Return whether an address is that of order entry over TCP."""
    return address.startswith(ORDERS_SCHEME)


class NodeLink:
    """The connection to one node, and an Owner of it."""

    def __init__(
        self, poller: Poller, address: str, max_frame_bytes: int, keys: ClientKeys | None = None, cluster: int = 0
    ) -> None:
        """Begin to connect. Raises ValueError for an invalid address, KeysError for a node without a known key."""
        self.address = address
        #: Whether the node has ended the last greeting: it refuses this client's key.
        self.refused = False
        self._poller = poller
        self._max_frame_bytes = max_frame_bytes
        self._keys = keys
        self._known = () if keys is None else keys.nodes.get(address, ())
        if keys is not None and not self._known:
            raise KeysError(f"the public key of the node at {address} is not in the cluster file")
        self._terms = Terms(greeting.ORDERS, cluster)
        self._tls = None if keys is None else tls.client()
        self._greeted = GreetedLinks(self, self._greet)
        self._queue: deque[bytes] = deque()
        self._messages: list[bytes] = []
        self._broke = False
        self._dialer = Dialer(
            socket_address(address),
            self._connected,
            greeting_seconds=_GREETING_SECONDS,
            unacknowledged_ms=_UNACKNOWLEDGED_MS,
        )
        self.tick(time.monotonic())

    def _connected(self, stream: socket.socket) -> Connection:
        return Connection(
            stream,
            self._poller,
            self._greeted,
            max_frame_bytes=self._max_frame_bytes,
            max_queue_bytes=_QUEUE_BYTES,
            tls=self._tls,
            connects=True,
        )

    def _greet(self, connection: Connection) -> ClientGreeting:
        own = None if self._keys is None else self._keys.own
        return ClientGreeting(self._terms, own, connection.peer_certificate, lambda key: key in self._known)

    # What the connection calls.

    def opened(self, connection: Connection) -> None:
        """Send what was queued."""
        self.refused = False
        self.flush()

    def received(self, connection: Connection) -> None:
        """Take the frames that have arrived."""
        while found := connection.frames(_FRAMES):
            self._messages += map(bytes, found)

    def closed(self, connection: Connection) -> None:
        """The connection broke; the dialer connects again."""
        self._broke = True

    # As NodeSocket.

    def send(self, data: bytes, *, only_if_idle: bool = False) -> None:
        """Send, or queue until the node is connected. With `only_if_idle`, do nothing while frames are queued."""
        if only_if_idle and self._queue:
            return
        self._queue.append(data)
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the connection takes it."""
        connection = self._dialer.usable
        if connection is None:
            return
        while self._queue and connection.send(self._queue[0]):
            self._queue.popleft()
        connection.flush()

    @property
    def has_queued(self) -> bool:
        """Whether frames are queued."""
        return bool(self._queue)

    @property
    def is_connected(self) -> bool:
        """Whether a frame would be sent at once."""
        return self._dialer.usable is not None

    @property
    def has_news(self) -> bool:
        """Whether frames have arrived, the connection broke, or the node has refused the key."""
        return bool(self._messages) or self._broke or self.refused

    def receive(self) -> list[bytes]:
        """Return the frames that have arrived."""
        found, self._messages = self._messages, []
        return found

    def disconnected(self) -> bool:
        """Return whether the connection broke since the last call."""
        broke, self._broke = self._broke, False
        return broke

    @property
    def next_deadline(self) -> float:
        """When tick() has something to do."""
        connection = self._dialer.connection
        return float("inf") if connection is not None and connection.greeted else self._dialer.next_deadline

    def tick(self, now: float) -> None:
        """Connect, and connect again."""
        connection = self._dialer.connection
        if connection is not None and connection.reason is not None and not connection.greeted:
            self.refused = self._keys is not None and connection.reason == CLOSED_BY_PEER
        self._dialer.tick(now)

    def close(self) -> None:
        """Close at once and drop queued frames."""
        self._queue.clear()
        self._dialer.close()


class NodeLinks:
    """The connections to all nodes, by address; each is made when first used. See NodeSockets."""

    def __init__(
        self,
        max_frame_bytes: int,
        keys: ClientKeys | None = None,
        cluster: int = greeting.ANY_CLUSTER,
        poller: Poller | None = None,
    ) -> None:
        """`cluster`: see greeting.cluster_number(). `poller`: the one of the caller's loop, which runs it."""
        self._max_frame_bytes = max_frame_bytes
        self._keys = keys
        self._cluster = cluster
        self._nodes: dict[str, NodeLink] = {}
        self.poller = poller or Poller()

    def to(self, address: str) -> NodeLink:
        """Return the connection to a node. Raises one of LINK_ERRORS."""
        node = self._nodes.get(address)
        if node is None:
            node = NodeLink(self.poller, address, self._max_frame_bytes, self._keys, self._cluster)
            self._nodes[address] = node
        return node

    @property
    def nodes(self) -> tuple[NodeLink, ...]:
        """The connections."""
        return tuple(self._nodes.values())

    @property
    def has_queued(self) -> bool:
        """Whether frames wait for a connection."""
        return any(node.has_queued for node in self._nodes.values())

    @property
    def next_deadline(self) -> float:
        """When tick() has something to do."""
        return min((node.next_deadline for node in self._nodes.values()), default=float("inf"))

    def tick(self, now: float) -> None:
        """Connect to nodes that are not connected."""
        for node in self._nodes.values():
            node.tick(now)

    def wait(self, seconds: float) -> None:
        """Block until something arrived or was sent, at most this long."""
        now = time.monotonic()
        self.poller.run(max(0.0, min(seconds, self.next_deadline - now)))
        self.tick(time.monotonic())

    def flush(self) -> None:
        """Send the queued frames of all nodes."""
        for node in self._nodes.values():
            if node.has_queued:
                node.flush()

    def receive(
        self,
        on_message: Callable[[str, bytes], None],
        on_disconnect: Callable[[str], None],
        on_refusal: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Report what the last wait() found of each node: frames, a broken connection, a refusal of the key."""
        for node in tuple(self._nodes.values()):
            if not node.has_news:
                continue
            for data in node.receive():
                on_message(node.address, data)
            if node.disconnected():
                on_disconnect(node.address)
            if node.refused:
                node.refused = False
                on_refusal(node.address)

    def drop(self, address: str) -> None:
        """Close the connection to one node."""
        node = self._nodes.pop(address, None)
        if node is not None:
            node.close()

    def drop_all(self) -> None:
        """Close all connections."""
        for address in tuple(self._nodes):
            self.drop(address)

    def close(self) -> None:
        """Close all connections and release the poller."""
        self.drop_all()
        self.poller.close()
