"""Serve the ROUTER sockets of a stub cluster over TCP as well: each connection gets a DEALER of its own."""

import threading
import time
from collections.abc import Sequence
from functools import partial

import zmq

from smrx.links import greeting
from smrx.links.connection import Connection
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ServerGreeting, Terms
from smrx.links.listener import Bounds, Listener
from smrx.links.poller import Poller
from smrx.wire import frames

_BOUNDS = Bounds(
    connections=64, unadmitted=64, greeting_seconds=5.0, greeting_bytes=greeting.MAX_BYTES,
    frame_bytes=frames.MAX_FRAME_BYTES, queue_bytes=64 << 20, unread_ms=10_000,
)  # fmt: skip


class TcpBridge:
    """A thread with a listener for each ROUTER."""

    def __init__(self, routers: Sequence[str]) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = Poller()
        terms = Terms(greeting.ORDERS, greeting.ANY_CLUSTER)
        self._listeners: list[Listener] = []
        for router in routers:
            node = _Node(self._context, self._poller, router)
            links = GreetedLinks(node, lambda _: ServerGreeting(terms, None, None, lambda _: True))
            links.listener = Listener("tcp://127.0.0.1:0", self._poller, links, _BOUNDS)
            self._listeners.append(links.listener)
        self.ports = [listener.port for listener in self._listeners]
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and every connection."""
        self._stopping = True
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping:
            self._poller.run(0.01)
            for listener in self._listeners:
                listener.tick(time.monotonic())
        for listener in self._listeners:
            listener.close()
        self._context.destroy(linger=0)
        self._poller.close()


class _Node:
    """An Owner of the connections to one node."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", poller: Poller, router: str) -> None:
        self._context, self._poller, self._router = context, poller, router

    def opened(self, connection: Connection) -> None:
        dealer = self._context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(self._router)
        connection.context = dealer, self._poller.add_zmq(dealer, partial(self._answer, connection, dealer))

    def received(self, connection: Connection) -> None:
        dealer, entry = connection.context
        while found := connection.frames():
            for frame in found:
                dealer.send(bytes(frame))
        entry.is_used = True

    def closed(self, connection: Connection) -> None:
        dealer, _ = connection.context
        self._poller.remove(dealer.FD)
        dealer.close()

    def _answer(self, connection: Connection, dealer: "zmq.Socket[bytes]", _events: int) -> None:
        while dealer.poll(0):
            connection.send(dealer.recv())
        connection.flush()
