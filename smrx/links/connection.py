"""Carry frames over one non-blocking stream socket, in plain text or under TLS.

Owns the socket, its buffers, and why it was closed. Driven by a Poller: the owner of the connection is called when it
opens, when bytes have arrived and when it ends. Nothing blocks. Never looks into a frame, and knows no keys, which
greeting.py proves. Listeners and dialers make connections.
"""

import errno
import os
import socket
import ssl
from typing import Any, Final, Protocol

from smrx.links.framing import KEPT_BYTES, NATIVE, FrameTooLarge, Framing, ReceiveBuffer, SendQueue
from smrx.links.poller import READ, WRITE, Watcher

#: Frames handed out at once unless the owner says otherwise; the rest stays in the buffer.
FRAMES_AT_A_TIME: Final = 256
#: Bytes read from one connection at once, so that the others are read, too.
_READ_BYTES: Final = 1 << 20
CLOSED_BY_PEER: Final = "closed by the peer"
FRAME_TOO_LARGE: Final = "frame too large"
TLS_FAILED: Final = "TLS handshake failed"

_WOULD_BLOCK: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """What a connection tells its owner."""

    def opened(self, connection: "Connection") -> None:
        """Frames can be sent and received; nothing about the peer is proven."""

    def received(self, connection: "Connection") -> None:
        """Bytes have arrived: take what frames() returns."""

    def closed(self, connection: "Connection") -> None:
        """The connection has ended, see its `reason`; it is the last call."""


class Connection:
    """One stream of frames in each direction."""

    def __init__(
        self,
        stream: socket.socket,
        poller: Watcher,
        owner: Owner,
        *,
        max_frame_bytes: int,
        max_queue_bytes: int,
        kept_bytes: int = KEPT_BYTES,
        framing: Framing = NATIVE,
        tls: ssl.SSLContext | None = None,
        connects: bool = False,
    ) -> None:
        """Take a non-blocking socket; `connects`: this side dials, and the socket may still be connecting.

        `max_queue_bytes`: what may wait to be sent, one frame always may. `kept_bytes`: the receive buffer that it
        keeps after a larger frame. With `tls` the handshake comes first.
        """
        #: Anything of the owner's.
        self.context: Any = None
        #: Whether the other end has greeted, and its proven public key, None without keys; see greeted_links.py.
        self.greeted = False
        self.peer_key: str | None = None
        #: Why it was closed, None while it is open.
        self.reason: str | None = None
        self.is_open = False
        self._owner = owner
        self._poller = poller
        self._socket = stream
        self._tls: ssl.SSLSocket | None = None
        self._received = ReceiveBuffer(framing, max_frame_bytes, kept_bytes)
        self._queue = SendQueue(framing, max_queue_bytes)
        self._connects = connects
        self._context = tls
        self._reads = True
        self._waits_for = WRITE if connects else READ
        poller.add(stream.fileno(), self._advance, self._waits_for)

    @property
    def peer_address(self) -> str:
        """The address of the other side, without its port."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return ""
        return name[0] if isinstance(name, tuple) else str(name)

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate of the other side as it was sent, None without one."""
        return None if self._tls is None else self._tls.getpeercert(binary_form=True)

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that is accepted."""
        return self._received.max_frame_bytes

    @max_frame_bytes.setter
    def max_frame_bytes(self, size: int) -> None:
        self._received.max_frame_bytes = size

    def frames(self, limit: int = FRAMES_AT_A_TIME) -> list[memoryview]:
        """Return the frames that have arrived, up to a number; valid until bytes are received again.

        An announced frame above the bound closes the connection.
        """
        if self.reason is not None:
            return []
        try:
            return self._received.frames(limit)
        except FrameTooLarge:
            self.close(FRAME_TOO_LARGE)
            return []

    @property
    def has_frames(self) -> bool:
        """Whether frames() has more; the poller does not report it again."""
        return self.reason is None and self._received.has_frame

    def received_bytes(self) -> memoryview:
        """Return the received bytes, with the length of each frame, for an owner that cuts them itself."""
        return self._received.held()

    def consume(self, count: int) -> None:
        """Drop bytes from the front of received_bytes(), those that the owner has taken."""
        self._received.consume(count)

    def start(self) -> None:
        """Open an accepted connection without TLS, once its owner knows it."""
        self._establish()

    def move_to(self, watcher: Watcher) -> None:
        """Be watched by another from now on."""
        self._poller.remove(self._socket.fileno())
        self._poller = watcher
        watcher.add(self._socket.fileno(), self._advance, self._waits_for)

    def receive(self) -> bool:
        """Read what the kernel has, a buffer of it or one large frame; return whether there was anything.

        The poller calls it before received().
        """
        if self.reason is not None:
            return False
        buffer, total = self._received, 0
        if buffer.has_frame:
            # The owner is behind. Reading more would only make the buffer larger.
            return True
        try:
            while True:
                space = buffer.space()
                count = self._socket.recv_into(space)
                if not count:
                    # After bytes the end is reported once more.
                    if not total:
                        self.close(CLOSED_BY_PEER)
                    return total > 0
                buffer.received(count)
                total += count
                # TLS gives one record at a time. Without it, only a large frame needs more than one read.
                if (self._tls is None and count < len(space)) or total >= _READ_BYTES or buffer.has_frame:
                    return True
        except _WOULD_BLOCK:
            return total > 0
        except OSError as error:
            self.close(_why(error))
            return False

    def pause(self, *, reading: bool) -> None:
        """Stop reading, or go on: a peer that is not read from stops sending."""
        self._reads = reading
        self._wait(write=bool(self._waits_for & WRITE))

    @property
    def queued_bytes(self) -> int:
        """The bytes that wait to be sent."""
        return self._queue.size

    def send(self, *parts: bytes | memoryview) -> bool:
        """Queue one frame, given in parts; return False if the queue has no room or the connection ended.

        flush() sends it.
        """
        return self.reason is None and self._queue.append(*parts)

    def send_packed(self, data: bytes | memoryview) -> None:
        """Send bytes that are whole frames with their lengths; what is not sent at once is copied and follows.

        The bound of the queue does not hold for them: the owner looks at queued_bytes.
        """
        if self.reason is not None:
            return
        count = 0
        if self.is_open and not self._queue.size:
            try:
                count = self._socket.send(data)
            except _WOULD_BLOCK:
                pass
            except OSError as error:
                self.close(_why(error))
                return
            if count == len(data):
                return
        self._queue.append_packed(bytes(data[count:]))
        self._wait(write=True)

    def flush(self) -> None:
        """Send what is queued as far as the kernel takes it; the rest follows when it takes more."""
        if not self.is_open:
            return
        queue = self._queue
        while queue.size:
            buffers = queue.take()
            try:
                if len(buffers) == 1 or self._tls is not None:
                    # TLS repeats a write with the same bytes, or more of them.
                    count = self._socket.send(buffers[0])
                else:
                    count = self._socket.sendmsg(buffers)
            except _WOULD_BLOCK:
                self._wait(write=True)
                return
            except OSError as error:
                self.close(_why(error))
                return
            queue.sent(count)
        if self._waits_for & WRITE:
            self._wait(write=False)

    def close(self, reason: str) -> None:
        """End the connection at once; what is queued is lost."""
        if self.reason is not None:
            return
        self.reason = reason
        self.is_open = False
        self._poller.remove(self._socket.fileno())
        self._socket.close()
        self._owner.closed(self)

    def _wait(self, *, write: bool) -> None:
        waits_for = (READ if self._reads else 0) | (WRITE if write else 0)
        if self.reason is None and waits_for != self._waits_for:
            self._waits_for = waits_for
            self._poller.change(self._socket.fileno(), waits_for)

    # What the poller calls.

    def _advance(self, events: int) -> None:
        """Go on with what the connection is doing; an error shows in the call that it fails."""
        if not self.is_open:
            self._establish()
            return
        if events & WRITE:
            self.flush()
        if events & ~WRITE:
            self._receive_all()

    def _receive_all(self) -> None:
        if self.receive():
            self._owner.received(self)
        # The poller does not report what TLS has decrypted already.
        while self._tls is not None and self.reason is None and self._tls.pending() and self.receive():
            self._owner.received(self)

    def _establish(self) -> None:
        """Go on with connecting and with the TLS handshake."""
        try:
            if self._connects:
                error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    self.close(os.strerror(error))
                    return
                self._connects = False
                if self._context is not None:
                    self._secure(server=False)
            elif self._context is not None and self._tls is None:
                self._secure(server=True)
            if self._tls is not None:
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._wait(write=False)
        except ssl.SSLWantWriteError:
            self._wait(write=True)
        except OSError as error:
            self.close(TLS_FAILED if isinstance(error, ssl.SSLError) else _why(error))
        else:
            self._wait(write=False)
            self.is_open = True
            self._owner.opened(self)
            self.flush()
            if self._tls is not None:
                # The peer may have sent frames behind its handshake.
                self._receive_all()

    def _secure(self, *, server: bool) -> None:
        assert self._context is not None
        self._tls = self._context.wrap_socket(self._socket, server_side=server, do_handshake_on_connect=False)
        self._socket = self._tls


def _why(error: OSError) -> str:
    if error.errno in (errno.ECONNRESET, errno.EPIPE) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return CLOSED_BY_PEER
    return error.strerror or str(error)
