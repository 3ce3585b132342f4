"""The HTTP server for metrics: requests are answered beside connections that are held open or send too much."""

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from smrx.http_server import MAX_REQUEST_BYTES, Answer, HttpServer

DEADLINE_S = 30.0
CONNECTIONS = 8
SECONDS = 3.0
#: More than the buffers of the system hold for a connection that does not read.
BODY = b"x" * (16 << 20)


def answer(path: str) -> Answer:
    return Answer(HTTPStatus.OK if path == "/here" else HTTPStatus.NOT_FOUND, "text/plain", BODY)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, answer, max_connections=CONNECTIONS, connection_seconds=SECONDS)
    yield server
    server.close()


def get(server: HttpServer, path: str = "/here?x=1") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=DEADLINE_S) as reply:
        return bytes(reply.read())


def connect(server: HttpServer, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    connection.sendall(data)
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_whole_answer_is_sent_and_unknown_paths_are_not_found(server: HttpServer) -> None:
    assert get(server) == BODY
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/elsewhere")


def test_other_methods_are_refused(server: HttpServer) -> None:
    with connect(server, b"DELETE /here HTTP/1.1\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("data", [b"", b"GET /here HTTP/1.1\r\n"])
def test_more_connections_than_the_bound_delay_no_request(server: HttpServer, data: bytes) -> None:
    threads = threading.active_count()
    held = [connect(server, data) for _ in range(5 * CONNECTIONS)]
    try:
        for _ in range(20):
            assert get(server)
        assert threading.active_count() == threads
        assert all(is_closed(connection) for connection in held[: 3 * CONNECTIONS])
    finally:
        for connection in held:
            connection.close()


def test_connection_that_sends_slowly_is_closed(server: HttpServer) -> None:
    started = time.monotonic()
    with connect(server) as connection:
        connection.settimeout(0.02)
        while time.monotonic() < started + DEADLINE_S:
            try:
                connection.send(b"G")
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("the connection is still open")


def test_connection_that_does_not_read_its_answer_is_closed(server: HttpServer) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /here HTTP/1.1\r\n\r\n")
        time.sleep(1.5 * SECONDS)
        assert get(server) == BODY
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                received += len(part)
        assert received < len(BODY)


def test_request_without_end_is_closed(server: HttpServer) -> None:
    with connect(server) as connection:
        try:
            for _ in range(2 + 2 * MAX_REQUEST_BYTES // 1000):
                connection.sendall(b"x" * 1000)
                time.sleep(0.005)
        except ConnectionError:
            return
        assert is_closed(connection)


def test_port_in_use_is_reported(server: HttpServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer("127.0.0.1", server.port, answer)
