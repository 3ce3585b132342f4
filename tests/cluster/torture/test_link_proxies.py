"""Link proxies cut, delay and limit the links between nodes; with real sockets."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cluster.torture.link_proxies import LinkMode, LinkProxies, LinkState

#: The deadline for bytes that must arrive. Before a test claims that others do not, it sends over another link.
DEADLINE_S = 60.0


class Receiver:
    """A server that replies to each piece with the same in capitals."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.received = b""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data.upper())
            except OSError:
                return

    def close(self) -> None:
        if self.listening.fileno() >= 0:
            self.listening.shutdown(socket.SHUT_RDWR)
            self.listening.close()


@pytest.fixture
def receivers() -> Iterator[dict[int, Receiver]]:
    found = {1: Receiver(), 2: Receiver()}
    yield found
    for receiver in found.values():
        receiver.close()


@pytest.fixture
def links(receivers: dict[int, Receiver]) -> Iterator[LinkProxies]:
    with LinkProxies({(1, 2): receivers[2].port, (2, 1): receivers[1].port, (3, 2): receivers[2].port}) as found:
        yield found


def connect(links: LinkProxies, pair: tuple[int, int]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", links.port(pair)), timeout=DEADLINE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send bytes and return as many bytes of the reply."""
    connection.sendall(data)
    return received(connection, len(data))


def received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        assert part, f"the connection ended after {found!r}"
        found += part
    return found


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def is_refused(links: LinkProxies, pair: tuple[int, int]) -> bool:
    """Return whether a new connection is reset, before `connect` returns or after."""
    try:
        with connect(links, pair) as connection:
            return is_reset(connection)
    except ConnectionResetError:
        return True


def use_another_link(links: LinkProxies, pair: tuple[int, int]) -> None:
    """Exchange bytes over a link several times: bytes sent earlier over another open link have then arrived."""
    with connect(links, pair) as connection:
        for _ in range(20):
            assert exchange(connection, b"x") == b"X"


def test_open_link_forwards_bytes_both_ways(links: LinkProxies) -> None:
    with connect(links, (1, 2)) as connection:
        data = b"abc" * 100_000
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert received(connection, len(data)) == data.upper()
        sender.join()
    assert links.forwarded((1, 2)) == len(data)
    assert links.forwarded((2, 1)) == 0


def test_reset_link_refuses_connections_until_healed(links: LinkProxies) -> None:
    with connect(links, (1, 2)) as connection:
        assert exchange(connection, b"a") == b"A"
        links.set([(1, 2)], LinkState(LinkMode.REFUSE))
        assert is_reset(connection)
    assert is_refused(links, (1, 2))
    links.heal()
    with connect(links, (1, 2)) as healed:
        assert exchange(healed, b"b") == b"B"


def test_held_link_delivers_everything_in_order_once_healed(links: LinkProxies, receivers: dict[int, Receiver]) -> None:
    with connect(links, (1, 2)) as connection:
        assert exchange(connection, b"a") == b"A"
        links.set([(1, 2)], LinkState(LinkMode.HOLD))
        connection.sendall(b"bc")
        use_another_link(links, (2, 1))
        assert receivers[2].received == b"a"
        with connect(links, (1, 2)) as begun:
            begun.sendall(b"late")
            use_another_link(links, (2, 1))
            assert receivers[2].received == b"a"
            connection.sendall(b"d")
            links.heal()
            assert received(connection, 3) == b"BCD"
            assert received(begun, 4) == b"LATE"


def test_dropping_link_resets_connections_that_lost_bytes_once_healed(
    links: LinkProxies, receivers: dict[int, Receiver]
) -> None:
    with connect(links, (1, 2)) as connection, connect(links, (1, 2)) as quiet:
        assert exchange(connection, b"a") == b"A"
        assert exchange(quiet, b"q") == b"Q"
        links.set([(1, 2)], LinkState(LinkMode.DROP))
        connection.sendall(b"b")
        use_another_link(links, (2, 1))
        links.heal()
        assert is_reset(connection)
        assert exchange(quiet, b"r") == b"R"
    with connect(links, (1, 2)) as healed:
        assert exchange(healed, b"c") == b"C"
    assert b"b" not in receivers[2].received


@pytest.mark.parametrize("mode", [LinkMode.REFUSE, LinkMode.HOLD, LinkMode.DROP])
def test_cut_affects_one_direction_only(links: LinkProxies, mode: LinkMode) -> None:
    links.set([(1, 2)], LinkState(mode))
    use_another_link(links, (2, 1))
    use_another_link(links, (3, 2))
    assert links.forwarded((1, 2)) == 0


def test_delayed_link_keeps_the_order(links: LinkProxies) -> None:
    with connect(links, (1, 2)) as connection:
        links.set([(1, 2)], LinkState(delay_s=0.1))
        started = time.monotonic()
        for piece in (b"a", b"b", b"c"):
            connection.sendall(piece)
        assert received(connection, 3) == b"ABC"
        # At least 0.08 s each way; the three are in flight together.
        assert time.monotonic() - started >= 0.16
        links.heal()
        assert exchange(connection, b"d") == b"D"


def test_limited_link_bounds_bytes_per_second(links: LinkProxies) -> None:
    with connect(links, (1, 2)) as connection:
        links.set([(1, 2)], LinkState(bytes_per_s=200_000))
        data = b"x" * 40_000
        started = time.monotonic()
        assert exchange(connection, data) == data.upper()
        assert time.monotonic() - started >= 2 * len(data) / 200_000


def test_link_to_absent_node_is_reset(links: LinkProxies, receivers: dict[int, Receiver]) -> None:
    receivers[2].close()
    assert is_refused(links, (1, 2))


def test_link_closes_when_the_receiver_closes() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        LinkProxies({(1, 2): listening.getsockname()[1]}) as short,
        connect(short, (1, 2)) as connection,
    ):
        accepted, _ = listening.accept()
        accepted.close()
        assert is_reset(connection)
