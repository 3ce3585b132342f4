"""Keep a session with cancel-on-disconnect alive: a thread that pings every node.

The exchange cancels the orders of such a session when it has received no ping for some seconds. The thread pings every
known node several times in that span, so that a new leader receives pings, too. It ends with the client or the process,
and so do the pings: also with a client that is dropped without close(), because the thread holds only a weak reference
to it. It owns its sockets, over the transport of the client, and shares only the session
id with it.
"""

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Final

import zmq

from smrx.client.leader_search import MAX_ADDRESSES, leader_address
from smrx.client.node_links import LINK_ERRORS, NodeLinks, is_link
from smrx.client.node_sockets import CONNECT_ERRORS, configure, connect
from smrx.client_keys import RETRY_SECONDS, ClientKeys
from smrx.links.greeting import ANY_CLUSTER
from smrx.links.poller import READ
from smrx.wire import frames
from smrx.wire.frames import FrameError, FrameKind

#: Pings within the session timeout; two of them may be lost.
_PINGS_PER_TIMEOUT: Final = 4
#: Longest interval, also used until a node has reported the session timeout.
_MAX_INTERVAL_S: Final = 1.0
_MIN_INTERVAL_S: Final = 0.005
#: Interval while no node is connected.
_UNCONNECTED_INTERVAL_S: Final = 0.02

Socket = zmq.Socket[bytes]


class SessionPinger:
    """The thread; started with the first session."""

    def __init__(self, owner: object, keys: ClientKeys | None = None, cluster: int = ANY_CLUSTER) -> None:
        """Ping for a client, and no longer than the client exists. Nothing that the pinger holds may refer to it.

        `cluster`: see greeting.cluster_number().
        """
        self._owner = weakref.ref(owner)
        self._keys = keys
        self._cluster = cluster
        self._session = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def ping_session(self, session_id: int, addresses: Sequence[str]) -> None:
        """Ping for this session from now on: the nodes at the addresses, and the nodes that these report."""
        self._session = session_id
        if self._thread is not None:
            return
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, args=(woken, tuple(addresses)), name="smrx-session-pinger", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop to ping; the exchange may end the session."""
        self._session = 0

    def close(self) -> None:
        """End the thread."""
        if self._thread is None or self._wake is None:
            return
        self._stopping = True
        self._wake.send(b"\0")
        self._thread.join()
        self._wake.close()
        self._thread = None

    def _run(self, woken: socket.socket, addresses: Sequence[str]) -> None:
        nodes: _PingSockets | _PingLinks
        if is_link(addresses[0]):
            nodes = _PingLinks(woken, addresses, self._keys, self._cluster)
        else:
            nodes = _PingSockets(woken, addresses, self._keys)
        due = 0.0
        try:
            while not self._stopping and self._owner() is not None:
                now = time.monotonic()
                if now >= due:
                    session = self._session
                    sent = nodes.ping(session, now) if session else 1
                    due = now + (nodes.interval_s if sent else _UNCONNECTED_INTERVAL_S)
                before = nodes.interval_s
                nodes.wait(max(0.0, due - time.monotonic()))
                if nodes.interval_s != before:
                    due = min(due, now + nodes.interval_s)
        finally:
            nodes.close()
            woken.close()


class _PingNodes:
    """What the nodes report: further nodes, and the interval of the pings."""

    def __init__(self) -> None:
        self.interval_s = _MAX_INTERVAL_S
        self._addresses: set[str] = set()

    def _take(self, address: str, data: bytes) -> None:
        """Process a PONG: it may report another node and the session timeout."""
        try:
            frame = frames.decode(data)
            if frame.kind is not FrameKind.PONG:
                return
            hint = frames.leader_hint(frame)
        except FrameError:
            return  # The client receives from the same node and reports the error.
        leader = leader_address(address, hint)
        if leader is not None and leader not in self._addresses and len(self._addresses) < MAX_ADDRESSES:
            self._addresses.add(leader)
            self._add(leader)
        if hint.disconnect_ms:
            timeout_s = hint.disconnect_ms / 1000
            self.interval_s = min(_MAX_INTERVAL_S, max(_MIN_INTERVAL_S, timeout_s / _PINGS_PER_TIMEOUT))

    def _add(self, address: str) -> None:
        raise NotImplementedError


class _PingLinks(_PingNodes):
    """A connection over TCP to each known node."""

    def __init__(self, woken: socket.socket, addresses: Sequence[str], keys: ClientKeys | None, cluster: int) -> None:
        super().__init__()
        self._links = NodeLinks(frames.MAX_FRAME_BYTES, keys, cluster)
        self._woken = woken
        self._links.poller.add(woken.fileno(), lambda _: None, READ)
        for address in addresses:
            self._addresses.add(address)
            self._add(address)

    def _add(self, address: str) -> None:
        # The client connects to the same address and reports the error.
        with contextlib.suppress(*LINK_ERRORS):
            self._links.to(address)

    def ping(self, session: int, now: float) -> int:
        """Ping every connected node; return how many there are."""
        sent = 0
        for node in self._links.nodes:
            if node.is_connected:
                node.send(frames.encode(FrameKind.PING, aux=session))
                sent += 1
        return sent

    def wait(self, seconds: float) -> None:
        """Wait for PONGs and process them."""
        self._links.wait(seconds)
        self._links.receive(self._take, lambda _: None)

    def close(self) -> None:
        self._links.close()


class _PingSockets(_PingNodes):
    """A DEALER socket for each known node."""

    def __init__(self, woken: socket.socket, addresses: Sequence[str], keys: ClientKeys | None) -> None:
        super().__init__()
        self._context: zmq.Context[Socket] = zmq.Context(io_threads=1)
        self._keys = keys
        #: Of nodes that are not connected: since when, or since the last attempt, and how many attempts there were.
        self._unconnected: dict[str, tuple[float, int]] = {}
        self._dealers: dict[str, Socket] = {}
        self._address_of: dict[Socket, str] = {}
        self._poller = zmq.Poller()
        self._poller.register(woken.fileno(), zmq.POLLIN)
        for address in addresses:
            self._addresses.add(address)
            self._add(address)

    def _add(self, address: str) -> None:
        dealer = self._context.socket(zmq.DEALER)
        configure(dealer, frames.MAX_FRAME_BYTES)
        try:
            connect(dealer, address, self._keys)
        except CONNECT_ERRORS:
            # The client connects to the same address and reports the error.
            dealer.close(linger=0)
            return
        self._dealers[address] = dealer
        self._address_of[dealer] = address
        self._poller.register(dealer, zmq.POLLIN)

    def ping(self, session: int, now: float) -> int:
        """Ping every connected node; return how many there are."""
        sent = 0
        for address, dealer in self._dealers.items():
            try:
                dealer.send(frames.encode(FrameKind.PING, aux=session), zmq.DONTWAIT)
            except zmq.Again:
                since, attempts = self._unconnected.setdefault(address, (now, 0))
                if self._keys is not None and now - since >= RETRY_SECONDS:
                    self._keys.connect_again(dealer, address, attempts + 1)
                    self._unconnected[address] = now, attempts + 1
                continue
            self._unconnected.pop(address, None)
            sent += 1
        return sent

    def wait(self, seconds: float) -> None:
        """Wait for PONGs and process them."""
        for dealer, _ in self._poller.poll(int(seconds * 1000) + 1):
            address = self._address_of.get(dealer)
            if address is not None:
                with contextlib.suppress(zmq.Again):
                    self._take(address, dealer.recv(zmq.DONTWAIT))

    def close(self) -> None:
        self._context.destroy(linger=0)
