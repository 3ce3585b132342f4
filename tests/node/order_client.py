"""A client of a node's order entry over either transport, with the methods of a DEALER that tests use."""

import time

import zmq

from smrx.client.node_links import NodeLink
from smrx.client_keys import ClientKeys
from smrx.config import ORDERS_SCHEME, NodeConfig, socket_address
from smrx.links.poller import Poller
from smrx.wire import frames

TRANSPORTS = ("tcp", "zmq")


class LinkSocket:
    """A NodeLink as a socket."""

    def __init__(self, address: str, keys: ClientKeys | None = None) -> None:
        """`address`: tcp:// or smrx://; with keys it has to be the node's in the cluster file."""
        self._poller = Poller()
        self.link = NodeLink(
            self._poller, ORDERS_SCHEME + socket_address(address).removeprefix("tcp://"), frames.MAX_FRAME_BYTES, keys
        )
        self._frames: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.link.send(data)

    @property
    def was_turned_away(self) -> bool:
        """Whether the node has ended an attempt to connect."""
        return self.link._dialer.fault is not None

    def poll(self, timeout_ms: float = -1) -> bool:
        """Return whether a frame can be received; wait for one, without end by default."""
        deadline = time.monotonic() + timeout_ms / 1000 if timeout_ms >= 0 else float("inf")
        while True:
            left = max(0.0, min(1.0, deadline - time.monotonic()))
            self._poller.run(min(left, max(0.0, self.link.next_deadline - time.monotonic())))
            self.link.tick(time.monotonic())
            self._frames += self.link.receive()
            if self._frames or time.monotonic() >= deadline:
                return bool(self._frames)

    def recv(self) -> bytes:
        if not self._frames:
            self.poll()
        return self._frames.pop(0)

    def close(self, linger: int = 0) -> None:
        self.link.close()
        self._poller.close()


#: What tests send orders with.
OrderClient = LinkSocket | zmq.Socket[bytes]


def connected(
    transport: str, context: "zmq.Context[zmq.Socket[bytes]]", node: NodeConfig, keys: ClientKeys | None = None
) -> OrderClient:
    """Return a client that connects to a node's order entry."""
    if transport == "tcp":
        return LinkSocket(node.orders_tcp_address, keys)
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    if keys is not None:
        keys.secure(socket, node.orders_address)
    socket.connect(node.orders_address)
    return socket
