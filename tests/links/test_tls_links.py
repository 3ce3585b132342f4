"""Links with keys over real sockets: TLS 1.3, and a process in between that ends TLS on both sides is refused."""

import contextlib
import socket
import ssl
from typing import Any

import pytest

from smrx.key_files import generate
from smrx.links import greeting, tls
from smrx.links.connection import TLS_FAILED, Connection
from smrx.links.greeting import MAX_BYTES
from smrx.links.listener import Listener
from smrx.links.tcp_options import Target
from tests.links.sides import BOUNDS, Ends, Recorder, is_closed


class Relay:
    """A process in between: it accepts with a certificate of its own, dials the server, and passes all frames on."""

    def __init__(self, ends: Ends) -> None:
        made = tls.server()
        self.ends = ends
        self.pairs: dict[Connection, Connection] = {}
        self.passed = 0
        self.listener = Listener("tcp://127.0.0.1:0", ends.poller, self, BOUNDS, tls=made.context)
        self.address = f"tcp://127.0.0.1:{self.listener.port}"

    def opened(self, connection: Connection) -> None:
        if connection in self.pairs:
            self._pass(self.pairs[connection])
            return
        target = Target(self.ends.address)
        other = Connection(
            target.connecting(unacknowledged_ms=1_000), self.ends.poller, self, max_frame_bytes=1 << 20,
            max_queue_bytes=1 << 20, tls=tls.client(), connects=True,
        )  # fmt: skip
        self.pairs[connection], self.pairs[other] = other, connection

    def received(self, connection: Connection) -> None:
        if self.pairs[connection].is_open:
            self._pass(connection)

    def _pass(self, connection: Connection) -> None:
        other = self.pairs[connection]
        for frame in connection.frames():
            self.passed += 1
            other.send(bytes(frame))
        other.flush()

    def closed(self, connection: Connection) -> None:
        self.listener.closed(connection)
        if connection in self.pairs:
            self.pairs[connection].close("the other side ended")


def through_relay() -> tuple[Ends, Recorder, Relay]:
    ends = Ends(keys=True)
    relay = Relay(ends)
    client = Recorder()
    ends.dial(client, address=relay.address)
    return ends, client, relay


def test_process_in_between_is_refused() -> None:
    ends, client, relay = through_relay()
    ends.run_until(lambda: ends.dialers[0].fault == "a greeting with a wrong proof", "the client's refusal")
    assert relay.passed >= 2
    assert not client.open
    assert not ends.server.open
    relay.listener.close()
    ends.close()


def test_process_in_between_succeeds_if_the_certificate_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above has a real process in between."""
    made = greeting._Greeting.__init__

    def init(self: Any, terms: Any, own: Any, certificate: Any, allows: Any) -> None:
        made(self, terms, own, certificate and b"the same", allows)

    monkeypatch.setattr(greeting._Greeting, "__init__", init)
    ends, client, relay = through_relay()
    ends.run_until(lambda: client.open and ends.server.open, "a greeting through the process in between")
    relay.listener.close()
    ends.close()


def test_key_of_another_server_is_refused() -> None:
    ends = Ends(keys=True)
    ends.dial(Recorder(), expected=generate().public)
    ends.run_until(lambda: ends.dialers[0].fault == "a greeting under an unknown key", "the client's refusal")
    assert not ends.server.open
    ends.close()


def test_unknown_key_is_refused() -> None:
    ends = Ends(keys=True)
    ends.dial(Recorder(), own=generate())
    ends.run_until(lambda: ends.listener.refused["a greeting under an unknown key"], "the server's refusal")
    assert not ends.server.open
    ends.close()


def test_older_tls_is_refused() -> None:
    ends = Ends(keys=True)
    context = tls.client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    raw = ends.raw()
    raw.setblocking(False)
    connection = context.wrap_socket(raw, do_handshake_on_connect=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    ends.run_until(lambda: ends.listener.refused[TLS_FAILED], "the server's refusal")
    connection.close()
    ends.close()


def test_plain_text_is_refused_where_keys_are_expected() -> None:
    ends = Ends(keys=True)
    with socket.create_connection(("127.0.0.1", ends.listener.port)) as raw:
        raw.sendall(MAX_BYTES.to_bytes(4, "little") + bytes(MAX_BYTES))
        ends.run_until(lambda: is_closed(raw), "the end of the connection")
    assert ends.listener.refused == {TLS_FAILED: 1}
    ends.close()


def test_each_process_has_a_certificate_of_its_own() -> None:
    assert tls.server().certificate != tls.server().certificate
