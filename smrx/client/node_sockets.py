"""Own the sockets of the blocking client: a DEALER for each node, its queue of messages, and its connection.

A message is one ZeroMQ part; nothing else of the protocol is used here. Only wait() blocks. The asyncio client and the
session pinger use configure(), monitor_address() and close_monitor().
"""

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import zmq

from smrx.wire import tcp_address

#: Messages received from one node in a row, so that a busy node does not delay the others.
_MESSAGES_PER_NODE: Final = 256

Socket = zmq.Socket[bytes]

_monitors = count(1)


def monitor_address() -> str:
    """Return an unused inproc address for a monitor. pyzmq's default is a file descriptor number, which is reused."""
    return f"inproc://smrx-monitor-{next(_monitors)}"


def configure(socket: "zmq.Socket[Any]", max_message_bytes: int) -> None:
    """Set the options of every socket of a client."""
    socket.linger = 0
    # Queue messages only for an open connection: a node that restarts must not receive old messages.
    socket.immediate = 1
    # The window of the session bounds the queues.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    socket.maxmsgsize = max_message_bytes
    socket.reconnect_ivl = 20
    socket.reconnect_ivl_max = 500


def close_monitor(socket: "zmq.Socket[Any]", monitor: "zmq.Socket[Any]") -> None:
    """Disable the monitor of a socket, then close it.

    The order matters. If the monitor is closed first and a connection breaks, ZeroMQ's thread blocks forever on the
    event it cannot deliver, and disable_monitor() blocks on that thread.
    """
    socket.disable_monitor()
    monitor.close(linger=0)


class NodeSocket:
    """The socket of one node."""

    def __init__(self, context: "zmq.Context[Socket]", address: str, max_message_bytes: int) -> None:
        """Connect. Raises zmq.ZMQError for an invalid address."""
        self.address = address
        self.socket = context.socket(zmq.DEALER)
        self._queue: deque[bytes] = deque()
        try:
            configure(self.socket, max_message_bytes)
            self.monitor: Socket = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED, monitor_address())
            tcp_address.connect(self.socket, address)
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
        """Send queued messages until the socket would block."""
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
                self.monitor.recv_multipart(zmq.DONTWAIT)  # The only event monitored.
            except zmq.Again:
                return broke
            broke = True

    def close(self) -> None:
        """Close at once and drop queued messages."""
        self._queue.clear()
        if not self.socket.closed:
            close_monitor(self.socket, self.monitor)
            self.socket.close()


class NodeSockets:
    """The sockets of all nodes, by address; each is connected when first used."""

    def __init__(self, context: "zmq.Context[Socket]", max_message_bytes: int) -> None:
        self._context = context
        self._nodes: dict[str, NodeSocket] = {}
        self._max_message_bytes = max_message_bytes
        self._poller = zmq.Poller()

    def to(self, address: str) -> NodeSocket:
        """Return the socket of a node. Raises zmq.ZMQError for an invalid address."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = NodeSocket(self._context, address, self._max_message_bytes)
            self._poller.register(node.socket, zmq.POLLIN)
            self._poller.register(node.monitor, zmq.POLLIN)
        return node

    def wait(self, seconds: float) -> None:
        """Block until something arrived or can be sent, at most this long."""
        for node in self._nodes.values():
            self._poller.modify(node.socket, zmq.POLLIN | (zmq.POLLOUT if node.has_queued else 0))
        # Rounded up: returning a fraction of a millisecond early would make the caller's loop spin.
        self._poller.poll(max(0, int(seconds * 1000 + 0.999)))

    def flush(self) -> None:
        """Send the queued messages of all nodes."""
        for node in self._nodes.values():
            if node.has_queued:
                node.flush()

    def receive(self, on_message: Callable[[str, bytes], None], on_disconnect: Callable[[str], None]) -> None:
        """Report, for each node, the messages that arrived and then whether the connection broke."""
        for node in tuple(self._nodes.values()):
            for data in node.receive():
                on_message(node.address, data)
            if node.disconnected():
                on_disconnect(node.address)

    def drop(self, address: str) -> None:
        """Close the socket of one node."""
        node = self._nodes.pop(address, None)
        if node is not None:
            self._poller.unregister(node.socket)
            self._poller.unregister(node.monitor)
            node.close()

    def drop_all(self) -> None:
        """Close all sockets."""
        for address in tuple(self._nodes):
            self.drop(address)
