"""Keeping a session alive that asked for cancel-on-disconnect: one thread that lets every node hear of it.

The exchange cancels such a session's orders when it has not heard of it for some seconds. The thread pings every node
it knows several times in that span, whichever leads, so that a new leader hears of the session too; it ends with the
client or with the process, and so do the pings. Owns its sockets; shares nothing with the client but the session id.
"""

import secrets
import threading
import time
from collections.abc import Sequence
from typing import Final

import zmq

from smrx.client.leader_search import MAX_ADDRESSES, is_valid_address
from smrx.client.node_sockets import configure
from smrx.wire import frames
from smrx.wire.frames import FrameError, FrameKind

#: Pings in the time after which a session counts as gone: two may be lost.
_PINGS_IN_TIME: Final = 4
#: Until a node has said how long it waits, and where it waits for very long.
_SLOWEST_S: Final = 1.0
_FASTEST_S: Final = 0.005
#: While no connection stands.
_AGAIN_S: Final = 0.02

Socket = zmq.Socket[bytes]


class SessionPinger:
    """The thread, started with the first session."""

    def __init__(self) -> None:
        self._session = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._context: zmq.Context[Socket] | None = None
        self._wake: Socket | None = None

    def keep(self, session_id: int, addresses: Sequence[str]) -> None:
        """Let the nodes at the addresses, and those they name, hear of the session from now on."""
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
            target=self._run, args=(self._context, woken, tuple(addresses)), name="smrx-keepalive", daemon=True
        )
        self._thread.start()

    def forget(self) -> None:
        """Say nothing any more; the session may go."""
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
        nodes = _Nodes(context, addresses)
        poller = nodes.poller
        poller.register(woken, zmq.POLLIN)
        due = 0.0
        try:
            while not self._stopping:
                now = time.monotonic()
                if now >= due:
                    session = self._session
                    sent = nodes.ping(session) if session else 1
                    due = now + (nodes.interval_s if sent else _AGAIN_S)
                ready = dict(poller.poll(max(0, int((due - time.monotonic()) * 1000) + 1)))
                for socket in ready:
                    if socket is not woken and nodes.heard(socket):
                        due = min(due, now + nodes.interval_s)
        finally:
            nodes.close()
            woken.close(linger=0)


class _Nodes:
    """A DEALER for each node that is known, and how often they want to hear of a session."""

    def __init__(self, context: "zmq.Context[Socket]", addresses: Sequence[str]) -> None:
        self._context = context
        self._sockets: dict[str, Socket] = {}
        self.poller = zmq.Poller()
        self.interval_s = _SLOWEST_S
        for address in addresses:
            self._add(address)

    def _add(self, address: str) -> None:
        if address in self._sockets or len(self._sockets) >= MAX_ADDRESSES:
            return
        socket = self._context.socket(zmq.DEALER)
        configure(socket, frames.MAX_FRAME_BYTES)
        try:
            socket.connect(address)
        except zmq.ZMQError:
            # The client says so itself, where it attempts the same address.
            socket.close(linger=0)
            return
        self._sockets[address] = socket
        self.poller.register(socket, zmq.POLLIN)

    def ping(self, session: int) -> int:
        """Ping every node whose connection stands; return how many."""
        sent = 0
        for socket in self._sockets.values():
            try:
                socket.send(frames.encode(FrameKind.PING, aux=session), zmq.DONTWAIT)
            except zmq.Again:
                continue
            sent += 1
        return sent

    def heard(self, socket: Socket) -> bool:
        """Take an answer: it may name another node, and how long the exchange waits. True if that has changed."""
        before = self.interval_s
        try:
            frame = frames.decode(socket.recv(zmq.DONTWAIT))
            if frame.kind is not FrameKind.PONG:
                return False
            hint = frames.leader_hint(frame)
        except (FrameError, zmq.Again):
            return False  # The client meets the same node, and says what it found.
        if hint.order_address is not None and is_valid_address(hint.order_address):
            self._add(hint.order_address)
        if hint.disconnect_ms:
            patience_s = hint.disconnect_ms / 1000
            self.interval_s = min(_SLOWEST_S, max(_FASTEST_S, patience_s / _PINGS_IN_TIME))
        return self.interval_s != before

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)
