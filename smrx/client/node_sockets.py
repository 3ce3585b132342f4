"""Own the sockets of the blocking client: a DEALER for each node, its queue of messages, its keys and its connection.

A message is one ZeroMQ part; nothing else of the protocol is used here. Only wait() blocks. The asyncio client and the
session pinger use configure(), monitor_address() and close_monitor().
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import zmq

from smrx.client_keys import RETRY_SECONDS, ClientKeys
from smrx.key_files import KeysError
from smrx.wire import tcp_address

#: Messages received from one node in a row, so that a busy node does not delay the others.
_MESSAGES_PER_NODE: Final = 256
#: How long a node may take for a handshake.
_HANDSHAKE_MS: Final = 3_000
#: The events of a connection that a monitor reports.
_MONITORED: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
#: Why a node cannot be connected to.
CONNECT_ERRORS: Final = (zmq.ZMQError, KeysError)
REFUSED: Final = "refuses the key of this client"

Socket = zmq.Socket[bytes]

_monitors = count(1)


def monitor_address() -> str:
    """Return an unused inproc address for a monitor. pyzmq's default is a file descriptor number, which is reused."""
    return f"inproc://smrx-monitor-{next(_monitors)}"


def connect_error(error: Exception) -> str:
    """Return why a node cannot be connected to, for one of CONNECT_ERRORS."""
    return f"cannot connect: {error.strerror if isinstance(error, zmq.ZMQError) else error}"


def configure(socket: "zmq.Socket[Any]", max_message_bytes: int) -> None:
    """Set the options of every socket of a client."""
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.linger = 0
    # Queue messages only for an open connection: a node that restarts must not receive old messages.
    socket.immediate = 1
    # The window of the session bounds the queues.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    socket.maxmsgsize = max_message_bytes
    socket.reconnect_ivl = 20
    socket.reconnect_ivl_max = 500


def connect(socket: "zmq.Socket[Any]", address: str, keys: ClientKeys | None, attempt: int = 0) -> None:
    """Connect to a node; `attempt` counts those that ended in the handshake. Raises one of CONNECT_ERRORS."""
    if keys is not None:
        keys.secure(socket, address, attempt)
    tcp_address.connect(socket, address)


def reconnect(socket: "zmq.Socket[Any]", address: str, keys: ClientKeys, attempt: int) -> None:
    """Try the next key of a node that changes its key, and nothing for any other."""
    if len(keys.nodes.get(address, ())) > 1:
        with contextlib.suppress(zmq.ZMQError):
            socket.disconnect(address)
        connect(socket, address, keys, attempt)


def open_monitor(socket: "zmq.Socket[Any]") -> "zmq.Socket[Any]":
    """Return a monitor of a socket's connection; read_monitor() reads what it reports."""
    address = monitor_address()
    monitor: zmq.Socket[Any] = socket.context.socket(zmq.PAIR)
    # ZeroMQ's thread would block on an event that does not fit. A node that refuses the key causes some every second.
    monitor.rcvhwm = 0
    socket.monitor(address, _MONITORED)
    monitor.connect(address)
    return monitor


def read_monitor(parts: "Sequence[bytes]") -> int:
    """Return the event that a message of a monitor reports."""
    # Two bytes of event, in the machine's order, and four of value. pyzmq's own function would load asyncio.
    return int.from_bytes(parts[0][:2], sys.byteorder)


def close_monitor(socket: "zmq.Socket[Any]", monitor: "zmq.Socket[Any]") -> None:
    """Disable the monitor of a socket, then close it.

    The order matters. If the monitor is closed first and a connection breaks, ZeroMQ's thread blocks forever on the
    event it cannot deliver, and disable_monitor() blocks on that thread.
    """
    socket.disable_monitor()
    monitor.close(linger=0)


class NodeSocket:
    """The socket of one node."""

    def __init__(
        self, context: "zmq.Context[Socket]", address: str, max_message_bytes: int, keys: ClientKeys | None = None
    ) -> None:
        """Connect. Raises zmq.ZMQError for an invalid address, KeysError for a node without a known key."""
        self.address = address
        #: Whether the node has refused this client's key, in the last handshake.
        self.refused = False
        self._keys = keys
        self._handshakes_failed = 0
        #: When to connect again after a refusal, None if there was none.
        self._retry_at: float | None = None
        self.socket = context.socket(zmq.DEALER)
        self._queue: deque[bytes] = deque()
        try:
            configure(self.socket, max_message_bytes)
            self.monitor: Socket = open_monitor(self.socket)
            connect(self.socket, address, keys)
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes, *, only_if_idle: bool = False) -> None:
        """Send, or queue until the node is connected. With `only_if_idle`, do nothing while messages are queued."""
        if only_if_idle and self._queue:
            return
        self._queue.append(data)
        self.flush()

    def flush(self) -> None:
        """Send queued messages until the socket would block; connect again some time after the key was refused."""
        if self._retry_at is not None and self._keys is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self._keys.connect_again(self.socket, self.address, self._handshakes_failed)
        while self._queue:
            try:
                self.socket.send(self._queue[0], zmq.DONTWAIT)
            except zmq.Again:
                return
            self._queue.popleft()

    @property
    def has_queued(self) -> bool:
        """Whether messages are queued."""
        return bool(self._queue)

    def receive(self) -> list[bytes]:
        """Return the messages that have arrived. One of several parts is malformed and is returned as b""."""
        found = []
        for _ in range(_MESSAGES_PER_NODE):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            found.append(parts[0] if len(parts) == 1 else b"")
        return found

    def disconnected(self) -> bool:
        """Return whether the connection broke since the last call."""
        broke = False
        while True:
            try:
                event = read_monitor(self.monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                return broke
            if event == zmq.EVENT_DISCONNECTED:
                broke = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.refused = True
                self._retry_at = time.monotonic() + RETRY_SECONDS
            elif self._keys is not None:
                self._handshakes_failed += 1
                reconnect(self.socket, self.address, self._keys, self._handshakes_failed)

    def close(self) -> None:
        """Close at once and drop queued messages."""
        self._queue.clear()
        if not self.socket.closed:
            close_monitor(self.socket, self.monitor)
            self.socket.close()


class NodeSockets:
    """The sockets of all nodes, by address; each is connected when first used."""

    def __init__(self, context: "zmq.Context[Socket]", max_message_bytes: int, keys: ClientKeys | None = None) -> None:
        self._context = context
        self._keys = keys
        self._nodes: dict[str, NodeSocket] = {}
        self._max_message_bytes = max_message_bytes
        self._poller = zmq.Poller()
        #: What each socket is polled for, and what the last wait() found.
        self._polled: dict[NodeSocket, int] = {}
        self._ready: dict[Any, int] = {}

    def to(self, address: str) -> NodeSocket:
        """Return the socket of a node. Raises one of CONNECT_ERRORS."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = NodeSocket(self._context, address, self._max_message_bytes, self._keys)
            self._polled[node] = zmq.POLLIN
            self._poller.register(node.socket, zmq.POLLIN)
            self._poller.register(node.monitor, zmq.POLLIN)
        return node

    def wait(self, seconds: float) -> None:
        """Block until something arrived or can be sent, at most this long."""
        for node in self._nodes.values():
            wanted = zmq.POLLIN | (zmq.POLLOUT if node.has_queued else 0)
            if self._polled[node] != wanted:
                self._polled[node] = wanted
                self._poller.modify(node.socket, wanted)
        # Rounded up: returning a fraction of a millisecond early would make the caller's loop spin.
        self._ready = dict(self._poller.poll(max(0, int(seconds * 1000 + 0.999))))

    def flush(self) -> None:
        """Send the queued messages of all nodes."""
        for node in self._nodes.values():
            if node.has_queued:
                node.flush()

    def receive(
        self,
        on_message: Callable[[str, bytes], None],
        on_disconnect: Callable[[str], None],
        on_refusal: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Report what the last wait() found of each node: messages, a broken connection, a refusal of the key."""
        for node in tuple(self._nodes.values()):
            if node.socket in self._ready:
                for data in node.receive():
                    on_message(node.address, data)
            if node.monitor in self._ready and node.disconnected():
                on_disconnect(node.address)
            if node.refused:
                node.refused = False
                on_refusal(node.address)

    def drop(self, address: str) -> None:
        """Close the socket of one node."""
        node = self._nodes.pop(address, None)
        if node is not None:
            del self._polled[node]
            self._poller.unregister(node.socket)
            self._poller.unregister(node.monitor)
            node.close()

    def drop_all(self) -> None:
        """Close all sockets."""
        for address in tuple(self._nodes):
            self.drop(address)

    def close(self) -> None:
        """Close all sockets for good."""
        self.drop_all()
