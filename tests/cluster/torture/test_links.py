"""Links between nodes that can be cut and slowed, with real sockets."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cluster.torture.proxies import Fate, Links, Mode

#: For what must come; what must not come is waited for by sending something else over another link.
PATIENCE_S = 10.0


class Receiver:
    """Listens, and answers each piece with the same in capitals."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.heard = b""
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
                    self.heard += data
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
def links(receivers: dict[int, Receiver]) -> Iterator[Links]:
    with Links({(1, 2): receivers[2].port, (2, 1): receivers[1].port, (3, 2): receivers[2].port}) as found:
        yield found


def connect(links: Links, pair: tuple[int, int]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", links.port(pair)), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def said(connection: socket.socket, data: bytes) -> bytes:
    """Send something and return as many bytes of answer."""
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


def is_refused(links: Links, pair: tuple[int, int]) -> bool:
    """Whether a new connection is reset, be it before `connect` has returned or after."""
    try:
        with connect(links, pair) as connection:
            return is_reset(connection)
    except ConnectionResetError:
        return True


def elsewhere(links: Links, pair: tuple[int, int]) -> None:
    """Let time pass in which whatever can arrive over another link has arrived over this one, several times."""
    with connect(links, pair) as connection:
        for _ in range(20):
            assert said(connection, b"x") == b"X"


def test_an_open_link_carries_bytes_both_ways(links: Links) -> None:
    with connect(links, (1, 2)) as connection:
        data = b"abc" * 100_000
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert received(connection, len(data)) == data.upper()
        sender.join()
    assert links.forwarded((1, 2)) == len(data)
    assert links.forwarded((2, 1)) == 0


def test_a_reset_link_ends_connections_and_takes_no_new_ones_until_it_is_healed(links: Links) -> None:
    with connect(links, (1, 2)) as connection:
        assert said(connection, b"a") == b"A"
        links.set([(1, 2)], Fate(Mode.REFUSE))
        assert is_reset(connection)
    assert is_refused(links, (1, 2))
    links.heal()
    with connect(links, (1, 2)) as healed:
        assert said(healed, b"b") == b"B"


def test_a_link_that_holds_back_delivers_everything_late_and_in_order(
    links: Links, receivers: dict[int, Receiver]
) -> None:
    with connect(links, (1, 2)) as connection:
        assert said(connection, b"a") == b"A"
        links.set([(1, 2)], Fate(Mode.HOLD))
        connection.sendall(b"bc")
        elsewhere(links, (2, 1))
        assert receivers[2].heard == b"a"
        with connect(links, (1, 2)) as begun:
            begun.sendall(b"late")
            elsewhere(links, (2, 1))
            assert receivers[2].heard == b"a"
            connection.sendall(b"d")
            links.heal()
            assert received(connection, 3) == b"BCD"
            assert received(begun, 4) == b"LATE"


def test_a_black_hole_swallows_and_the_torn_connection_is_reset_when_it_is_healed(
    links: Links, receivers: dict[int, Receiver]
) -> None:
    with connect(links, (1, 2)) as connection, connect(links, (1, 2)) as quiet:
        assert said(connection, b"a") == b"A"
        assert said(quiet, b"q") == b"Q"
        links.set([(1, 2)], Fate(Mode.DROP))
        connection.sendall(b"b")
        elsewhere(links, (2, 1))
        links.heal()
        assert is_reset(connection)
        assert said(quiet, b"r") == b"R"
    with connect(links, (1, 2)) as healed:
        assert said(healed, b"c") == b"C"
    assert b"b" not in receivers[2].heard


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HOLD, Mode.DROP])
def test_one_way_is_cut_and_the_other_way_and_others_to_the_same_node_are_not(links: Links, mode: Mode) -> None:
    links.set([(1, 2)], Fate(mode))
    elsewhere(links, (2, 1))
    elsewhere(links, (3, 2))
    assert links.forwarded((1, 2)) == 0


def test_a_slow_link_takes_its_time_and_keeps_the_order(links: Links) -> None:
    with connect(links, (1, 2)) as connection:
        links.set([(1, 2)], Fate(delay_s=0.1))
        started = time.monotonic()
        for piece in (b"a", b"b", b"c"):
            connection.sendall(piece)
        assert received(connection, 3) == b"ABC"
        # There and back, each 0.08 s or more; the three are under way at the same time.
        assert 0.16 <= time.monotonic() - started < PATIENCE_S
        links.heal()
        assert said(connection, b"d") == b"D"


def test_a_narrow_link_bounds_the_bytes_a_second(links: Links) -> None:
    with connect(links, (1, 2)) as connection:
        links.set([(1, 2)], Fate(bytes_per_s=200_000))
        data = b"x" * 40_000
        started = time.monotonic()
        assert said(connection, data) == data.upper()
        assert time.monotonic() - started >= 2 * len(data) / 200_000


def test_a_link_to_a_node_that_is_not_there_is_reset(links: Links, receivers: dict[int, Receiver]) -> None:
    receivers[2].close()
    assert is_refused(links, (1, 2))


def test_when_the_receiver_hangs_up_so_does_the_link() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Links({(1, 2): listening.getsockname()[1]}) as short,
        connect(short, (1, 2)) as connection,
    ):
        accepted, _ = listening.accept()
        accepted.close()
        assert is_reset(connection)
