"""Serve small answers over HTTP to a bounded number of connections, from one thread.

A connection has a few seconds and a few kilobytes for its request; beyond the bound on connections the oldest one is
closed. Each answer closes its connection. Owns its sockets and its thread, and knows nothing of what it serves. Nodes
and settlement use it for metrics and health.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

#: Connections open at once: several scrapers, and room for those that hold theirs.
MAX_CONNECTIONS: Final = 64
#: From the acceptance of a connection until its answer is sent. A scraper needs milliseconds.
CONNECTION_SECONDS: Final = 5.0
#: The longest request: its first line and headers.
MAX_REQUEST_BYTES: Final = 8192
_BACKLOG: Final = 64
#: The pause before the next attempt to accept a connection for which the process has no descriptor.
_NO_DESCRIPTOR_SECONDS: Final = 0.1
_END_OF_REQUEST: Final = b"\r\n\r\n"


class Answer(NamedTuple):
    """The status, the content type and the body of an answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class _Connection:
    """One connection: its request so far, and what is left of its answer."""

    def __init__(self, accepted: socket.socket, deadline: float) -> None:
        self.socket = accepted
        self.deadline = deadline
        self.request = b""
        self.answer = b""


class HttpServer:
    """Answers GET requests until close()."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str], Answer],
        *,
        max_connections: int = MAX_CONNECTIONS,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        """Start to listen; raises OSError if the port is taken. `answer` gets the path, in the server's thread."""
        self._answer = answer
        self._max_connections = max_connections
        self._connection_seconds = connection_seconds
        #: In the order in which they were accepted.
        self._connections: dict[int, _Connection] = {}
        self._listener = socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        with self._selector, self._listener, self._woken:
            while True:
                for key, _ in self._selector.select(self._select_seconds()):
                    if key.fileobj is self._woken:
                        self._close_all()
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fd in self._connections:
                        self._serve(self._connections[key.fd])
                now = time.monotonic()
                for connection in [found for found in self._connections.values() if found.deadline <= now]:
                    self._close(connection)

    def _select_seconds(self) -> float | None:
        """Return the time until the oldest connection is closed, None without one."""
        oldest = next(iter(self._connections.values()), None)
        return None if oldest is None else max(0.0, oldest.deadline - time.monotonic())

    def _accept(self) -> None:
        """Accept one connection, and serve it if its request has arrived; close the oldest one beyond the bound."""
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            # It is gone again, or no descriptor is free: it waits until one is.
            if self._connections:
                self._close(next(iter(self._connections.values())))
            else:
                time.sleep(_NO_DESCRIPTOR_SECONDS)
            return
        accepted.setblocking(False)
        connection = _Connection(accepted, time.monotonic() + self._connection_seconds)
        self._connections[accepted.fileno()] = connection
        self._selector.register(accepted, selectors.EVENT_READ)
        if len(self._connections) > self._max_connections:
            self._close(next(iter(self._connections.values())))
        self._serve(connection)

    def _serve(self, connection: _Connection) -> None:
        """Read what has arrived, or write what fits."""
        try:
            if not connection.answer:
                data = connection.socket.recv(MAX_REQUEST_BYTES)
                connection.request += data
                is_complete = _END_OF_REQUEST in connection.request
                if not data or (not is_complete and len(connection.request) > MAX_REQUEST_BYTES):
                    self._close(connection)
                    return
                if not is_complete:
                    return
                connection.answer = self._answered(connection.request)
                self._selector.modify(connection.socket, selectors.EVENT_WRITE)
            connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        except BlockingIOError:
            return
        except OSError:
            connection.answer = b""
        if not connection.answer:
            self._close(connection)

    def _answered(self, request: bytes) -> bytes:
        """Return the whole answer to a request."""
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("ascii", "replace")
        if method in (b"GET", b"HEAD"):
            status, kind, body = self._answer(path)
        else:
            status, kind, body = Answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"expected GET\n")
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + (b"" if method == b"HEAD" else body)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._selector.unregister(connection.socket)
        with contextlib.suppress(OSError):
            connection.socket.close()

    def _close_all(self) -> None:
        for connection in tuple(self._connections.values()):
            self._close(connection)
