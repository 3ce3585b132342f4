"""Two ends of links in one process, for the tests of links."""

import socket
import time
from collections.abc import Callable

from smrx.key_files import KeyPair, generate
from smrx.links import tls
from smrx.links.connection import Connection
from smrx.links.dialer import Dialer
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import MAX_BYTES, PEER, ClientGreeting, ServerGreeting, Terms
from smrx.links.listener import Bounds, Listener
from smrx.links.poller import Poller

TERMS = Terms(PEER, 77)
BOUNDS = Bounds(
    connections=8, unadmitted=4, greeting_seconds=0.3, greeting_bytes=MAX_BYTES, frame_bytes=1 << 20,
    queue_bytes=1 << 20, unread_ms=2_000,
)  # fmt: skip
SERVER_KEY, CLIENT_KEY = generate(), generate()


class Recorder:
    """An owner that keeps what it is told, and answers frames if it should echo."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.open: list[Connection] = []
        self.reasons: list[str | None] = []
        self.frames: list[bytes] = []
        self._echoes = echoes

    def opened(self, connection: Connection) -> None:
        self.open.append(connection)

    def received(self, connection: Connection) -> None:
        while found := connection.frames():
            for frame in found:
                self.frames.append(bytes(frame))
                if self._echoes:
                    connection.send(bytes(frame))
        connection.flush()

    def closed(self, connection: Connection) -> None:
        self.reasons.append(connection.reason)


class Ends:
    """A listener that echoes, and dialers to it."""

    def __init__(
        self,
        *,
        keys: bool = False,
        address: str = "tcp://127.0.0.1:0",
        bounds: Bounds = BOUNDS,
        allowed: tuple[str, ...] = (CLIENT_KEY.public,),
        poller: Poller | None = None,
    ) -> None:
        self.poller = poller or Poller()
        self.server = Recorder(echoes=True)
        self.keys = keys
        made = tls.server() if keys else None
        self.certificate = made.certificate if made else None
        links = GreetedLinks(
            self.server,
            lambda connection: ServerGreeting(
                TERMS, SERVER_KEY if keys else None, self.certificate, lambda key: key in allowed
            ),
        )
        self.listener = links.listener = Listener(
            address, self.poller, links, bounds, tls=made.context if made else None
        )
        self.address = address.replace(":0", f":{self.listener.port}") if address.startswith("tcp") else address
        self.dialers: list[Dialer] = []

    def dial(
        self,
        owner: Recorder,
        *,
        own: KeyPair = CLIENT_KEY,
        expected: str = SERVER_KEY.public,
        terms: Terms = TERMS,
        address: str | None = None,
        certificate: Callable[[Connection], bytes | None] = lambda connection: connection.peer_certificate,
    ) -> Dialer:
        links = GreetedLinks(
            owner,
            lambda connection: ClientGreeting(
                terms, own if self.keys else None, certificate(connection), lambda key: key == expected
            ),
        )

        def connect(stream: socket.socket) -> Connection:
            return Connection(
                stream, self.poller, links, max_frame_bytes=1 << 20, max_queue_bytes=4 << 20,
                tls=tls.client() if self.keys else None, connects=True,
            )  # fmt: skip

        dialer = Dialer(address or self.address, connect, greeting_seconds=5.0, unacknowledged_ms=2_000)
        self.dialers.append(dialer)
        return dialer

    def raw(self) -> socket.socket:
        """Return a plain socket that is connected to the listener."""
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=60.0)

    def run_until(self, condition: Callable[[], object], what: str = "", seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            now = time.monotonic()
            assert now < deadline, (what, self.listener.refused, [dialer.fault for dialer in self.dialers])
            self.listener.tick(now)
            for dialer in self.dialers:
                dialer.tick(now)
            self.poller.run(0.02)

    def close(self) -> None:
        for dialer in self.dialers:
            dialer.close()
        self.listener.close()
        self.poller.close()


def is_closed(raw: socket.socket) -> bool:
    """Return whether the other end has closed a plain socket."""
    raw.setblocking(False)
    try:
        while raw.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
