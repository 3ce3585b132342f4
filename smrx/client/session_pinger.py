"""Keep a session with cancel-on-disconnect alive: a thread that pings every node.

The exchange cancels the orders of such a session when it has received no ping for some seconds. The thread pings every
known node several times in that span, so that a new leader receives pings, too. It ends with the client or the process,
and so do the pings: also with a client that is dropped without close(), because the thread holds only a weak reference
to it. It owns its sockets and shares only the session id with the client.
"""

import secrets
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Final

import zmq

from smrx.client.leader_search import MAX_ADDRESSES, is_valid_address
from smrx.client.node_sockets import CONNECT_ERRORS, configure, connect
from smrx.client_keys import RETRY_SECONDS, ClientKeys
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

    def __init__(self, owner: object, keys: ClientKeys | None = None) -> None:
        """Ping for a client, and no longer than the client exists. Nothing that the pinger holds may refer to it."""
        self._owner = weakref.ref(owner)
        self._keys = keys
        self._session = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._context: zmq.Context[Socket] | None = None
        self._wake: Socket | None = None

    def ping_session(self, session_id: int, addresses: Sequence[str]) -> None:
        """Ping for this session from now on: the nodes at the addresses, and the nodes that these report."""
        self._session = session_id
        if self._thread is not None:
            return
        self._context = zmq.Context(io_threads=1)
        name = f"inproc://{secrets.token_hex(8)}"
        self._wake = self._context.socket(zmq.PAIR)
        self._wake.bind(name)
        woken = self._context.socket(zmq.PAIR)
        woken.connect(name)
        self._thread = threading.Thread(
            target=self._run, args=(self._context, woken, tuple(addresses)), name="smrx-session-pinger", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop to ping; the exchange may end the session."""
        self._session = 0

    def close(self) -> None:
        """End the thread."""
        if self._thread is None or self._wake is None or self._context is None:
            return
        self._stopping = True
        self._wake.send(b"", zmq.DONTWAIT)
        self._thread.join()
        self._wake.close(linger=0)
        self._context.term()
        self._thread = None

    def _run(self, context: "zmq.Context[Socket]", woken: Socket, addresses: Sequence[str]) -> None:
        nodes = _PingSockets(context, addresses, self._keys)
        poller = nodes.poller
        poller.register(woken, zmq.POLLIN)
        due = 0.0
        try:
            while not self._stopping and self._owner() is not None:
                now = time.monotonic()
                if now >= due:
                    session = self._session
                    sent = nodes.ping(session, now) if session else 1
                    due = now + (nodes.interval_s if sent else _UNCONNECTED_INTERVAL_S)
                ready = dict(poller.poll(max(0, int((due - time.monotonic()) * 1000) + 1)))
                for socket in ready:
                    if socket is not woken and nodes.receive(socket):
                        due = min(due, now + nodes.interval_s)
        finally:
            nodes.close()
            woken.close(linger=0)
        if not self._stopping:
            # The client was dropped: nothing else closes what it would have closed.
            context.destroy(linger=0)


class _PingSockets:
    """A DEALER socket for each known node, and the interval of the pings."""

    def __init__(self, context: "zmq.Context[Socket]", addresses: Sequence[str], keys: ClientKeys | None) -> None:
        self._context = context
        self._keys = keys
        #: Of nodes that are not connected: since when, or since the last attempt, and how many attempts there were.
        self._unconnected: dict[str, tuple[float, int]] = {}
        self._sockets: dict[str, Socket] = {}
        self.poller = zmq.Poller()
        self.interval_s = _MAX_INTERVAL_S
        for address in addresses:
            self._add(address)

    def _add(self, address: str) -> None:
        if address in self._sockets or len(self._sockets) >= MAX_ADDRESSES:
            return
        socket = self._context.socket(zmq.DEALER)
        configure(socket, frames.MAX_FRAME_BYTES)
        try:
            connect(socket, address, self._keys)
        except CONNECT_ERRORS:
            # The client connects to the same address and reports the error.
            socket.close(linger=0)
            return
        self._sockets[address] = socket
        self.poller.register(socket, zmq.POLLIN)

    def ping(self, session: int, now: float) -> int:
        """Ping every connected node; return how many there are."""
        sent = 0
        for address, socket in self._sockets.items():
            try:
                socket.send(frames.encode(FrameKind.PING, aux=session), zmq.DONTWAIT)
            except zmq.Again:
                since, attempts = self._unconnected.setdefault(address, (now, 0))
                if self._keys is not None and now - since >= RETRY_SECONDS:
                    self._keys.connect_again(socket, address, attempts + 1)
                    self._unconnected[address] = now, attempts + 1
                continue
            self._unconnected.pop(address, None)
            sent += 1
        return sent

    def receive(self, socket: Socket) -> bool:
        """Process a PONG: it may report another node and the session timeout. Return whether the interval changed."""
        before = self.interval_s
        try:
            frame = frames.decode(socket.recv(zmq.DONTWAIT))
            if frame.kind is not FrameKind.PONG:
                return False
            hint = frames.leader_hint(frame)
        except (FrameError, zmq.Again):
            return False  # The client receives from the same node and reports the error.
        if hint.order_address is not None and is_valid_address(hint.order_address):
            self._add(hint.order_address)
        if hint.disconnect_ms:
            timeout_s = hint.disconnect_ms / 1000
            self.interval_s = min(_MAX_INTERVAL_S, max(_MIN_INTERVAL_S, timeout_s / _PINGS_PER_TIMEOUT))
        return self.interval_s != before

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)
