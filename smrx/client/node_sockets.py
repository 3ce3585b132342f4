"""The sockets of the blocking client: one DEALER a node, what waits to leave for it, and whether it is still there.

Owns sockets and nothing else; knows no protocol beyond "a message is one part". Never blocks but in wait().
"""

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import zmq

#: One look at a socket takes at most this many messages, so that one node cannot keep the others waiting.
_MESSAGES_PER_LOOK: Final = 256

Socket = zmq.Socket[bytes]


_monitors = count(1)


def monitor_address() -> str:
    """Return an address that no monitor had before: pyzmq's own is a file descriptor's number, which comes again."""
    return f"inproc://smrx-monitor-{next(_monitors)}"


def configure(socket: "zmq.Socket[Any]", max_message_bytes: int) -> None:
    """Set what every socket of a client has in common."""
    socket.linger = 0
    # Queued only for a connection that stands: what waits for a dead node must not reach it when it comes back.
    socket.immediate = 1
    # Bounded by the session's window instead.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    socket.maxmsgsize = max_message_bytes
    socket.reconnect_ivl = 20
    socket.reconnect_ivl_max = 500


def close_monitor(socket: "zmq.Socket[Any]", monitor: "zmq.Socket[Any]") -> None:
    """Stop the reports of a socket, and then their reader.

    In this order: ZeroMQ's thread waits for a reader that has gone, for ever, with what it reports of a connection that
    breaks just then, and whoever stops the reports waits for that thread.
    """
    socket.disable_monitor()
    monitor.close(linger=0)


class NodeSocket:
    """One node."""

    def __init__(self, context: "zmq.Context[Socket]", address: str, max_message_bytes: int) -> None:
        """Connect; raises zmq.ZMQError for an address that is none."""
        self.address = address
        self.socket = context.socket(zmq.DEALER)
        self._queue: deque[bytes] = deque()
        try:
            configure(self.socket, max_message_bytes)
            self.monitor: Socket = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED, monitor_address())
            self.socket.connect(address)
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes, *, only_if_idle: bool = False) -> None:
        """Send, now or when the connection stands; or not at all where earlier messages still wait."""
        if only_if_idle and self._queue:
            return
        self._queue.append(data)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self._queue:
            try:
                self.socket.send(self._queue[0], zmq.DONTWAIT)
            except zmq.Again:
                return
            self._queue.popleft()

    @property
    def waiting(self) -> bool:
        """Whether something waits to leave."""
        return bool(self._queue)

    def receive(self) -> list[bytes]:
        """Return the messages that have arrived; those of more than one part are not of any protocol here."""
        found = []
        for _ in range(_MESSAGES_PER_LOOK):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            found.append(parts[0] if len(parts) == 1 else b"")
        return found

    def lost(self) -> bool:
        """Whether the connection broke since the last call."""
        broke = False
        while True:
            try:
                self.monitor.recv_multipart(zmq.DONTWAIT)  # Only the end of a connection is reported there.
            except zmq.Again:
                return broke
            broke = True

    def close(self) -> None:
        """Close at once; nothing that waits is sent any more."""
        self._queue.clear()
        if not self.socket.closed:
            close_monitor(self.socket, self.monitor)
            self.socket.close()


class NodeSockets:
    """Every node a client talks to, by address; connected when first needed."""

    def __init__(self, context: "zmq.Context[Socket]", max_message_bytes: int) -> None:
        self._context = context
        self._links: dict[str, NodeSocket] = {}
        self._max_message_bytes = max_message_bytes
        self._poller = zmq.Poller()

    def to(self, address: str) -> NodeSocket:
        """Return the link to a node; raises zmq.ZMQError for an address that is none."""
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = NodeSocket(self._context, address, self._max_message_bytes)
            self._poller.register(link.socket, zmq.POLLIN)
            self._poller.register(link.monitor, zmq.POLLIN)
        return link

    def wait(self, seconds: float) -> None:
        """Return when something arrived or can leave, or after a while."""
        for link in self._links.values():
            self._poller.modify(link.socket, zmq.POLLIN | (zmq.POLLOUT if link.waiting else 0))
        # Rounded up: a deadline missed by a fraction of a millisecond would turn the loop hot.
        self._poller.poll(max(0, int(seconds * 1000 + 0.999)))

    def flush(self) -> None:
        """Send what waits."""
        for link in self._links.values():
            if link.waiting:
                link.flush()

    def look(self, arrived: Callable[[str, bytes], None], lost: Callable[[str], None]) -> None:
        """Hand out what arrived, and then which connections broke."""
        for link in tuple(self._links.values()):
            for data in link.receive():
                arrived(link.address, data)
            if link.lost():
                lost(link.address)

    def drop(self, address: str) -> None:
        """Close the link to one node."""
        link = self._links.pop(address, None)
        if link is not None:
            self._poller.unregister(link.socket)
            self._poller.unregister(link.monitor)
            link.close()

    def drop_all(self) -> None:
        """Close every link."""
        for address in tuple(self._links):
            self.drop(address)
