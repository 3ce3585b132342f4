"""Carry the messages of the upstream link over ZeroMQ: a socket for each node, watched by the loop of the gateway.

Owns the sockets. Never looks into a message. Called by gateway_process.py.
"""

import time
from collections.abc import Iterable
from functools import partial
from typing import cast

import zmq

from smrx.client.node_sockets import CONNECT_ERRORS, NodeSocket, connect_error
from smrx.client.session_states import Action, DropConnection
from smrx.client_keys import ClientKeys
from smrx.gateway.upstream import Upstream
from smrx.links.poller import Poller, ZmqSocket
from smrx.wire import frames


class UpstreamSockets:
    """The sockets of one upstream link, by the order entry addresses of the nodes."""

    def __init__(self, upstream: Upstream, poller: Poller, keys: ClientKeys | None) -> None:
        self._upstream = upstream
        self._poller = poller
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._nodes: dict[str, NodeSocket] = {}
        self._watched: dict[str, tuple[ZmqSocket, ZmqSocket]] = {}
        #: Nodes that refuse the key of the gateway.
        self.refusing: set[str] = set()

    def perform(self, actions: Iterable[Action]) -> None:
        """Carry out what the upstream link asks for."""
        for action in actions:
            if isinstance(action, DropConnection):
                self._drop(action.address)
                continue
            node = self._to(action.address)
            if node is not None:
                node.send(action.data, only_if_idle=action.ping)
                self._watched[action.address][0].is_used = True

    def flush(self) -> None:
        """Send what waits for a connection."""
        for node in self._nodes.values():
            if node.has_queued:
                node.flush()
                self._watched[node.address][0].is_used = True

    @property
    def has_queued(self) -> bool:
        """Whether messages wait for a connection; call flush() again soon."""
        return any(node.has_queued for node in self._nodes.values())

    def close(self) -> None:
        """Close all sockets; what is queued is lost."""
        for address in tuple(self._nodes):
            self._drop(address)
        self._context.destroy(linger=0)

    def _to(self, address: str) -> NodeSocket | None:
        node = self._nodes.get(address)
        if node is None:
            try:
                node = NodeSocket(self._context, address, frames.MAX_FRAME_BYTES, self._keys)
            except CONNECT_ERRORS as error:
                self._upstream.search.set_status(address, connect_error(error))
                return None
            self._nodes[address] = node
            self._watched[address] = (
                self._poller.add_zmq(node.socket, partial(self._receive, node)),
                self._poller.add_zmq(node.monitor, partial(self._notice, node)),
            )
        return node

    def _receive(self, node: NodeSocket, _events: int) -> None:
        now = time.monotonic()
        for data in node.receive():
            self._upstream.receive(node.address, data, now)
        self.refusing.discard(node.address)

    def _notice(self, node: NodeSocket, _events: int) -> None:
        if node.disconnected():
            self._upstream.disconnected(node.address, time.monotonic())
        if node.refused:
            node.refused = False
            self.refusing.add(node.address)

    def _drop(self, address: str) -> None:
        node = self._nodes.pop(address, None)
        if node is not None:
            for entry in self._watched.pop(address):
                self._poller.remove(cast(int, entry.watched.getsockopt(zmq.FD)))
            node.close()
