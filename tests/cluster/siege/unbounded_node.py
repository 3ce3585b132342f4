"""Run a node or a gateway without one of its bounds: `python -m tests.cluster.siege.unbounded_node FAULT ...`.

The other arguments are those of `smrx`. Each fault is one that a bound of the siege must find.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from smrx import cli
from smrx.consensus import transport_tcp
from smrx.gateway.native import native_server
from smrx.node import admin_service, metrics_server, order_entry, order_socket, peer_outbox
from smrx.wire import frames
from smrx.wire.soup_packets import PacketError

_KEPT: list[bytes] = []
#: Longer than the bound on p99 that a loaded machine gets, and longer than its elections wait.
_LONG_SECONDS: Final = 6.0


def keeps_messages() -> None:
    """Memory: what arrives on the Raft port from a node that is no peer is kept for ever, many times over."""
    names: Any = transport_tcp.TcpTransport
    receive = names.receive

    def receive_and_keep(transport: Any, frame: bytes, route: object = None) -> bool:
        is_known: bool = receive(transport, frame, route)
        if not is_known:
            _KEPT.append(bytes(1 << 20))
        return is_known

    names.receive = receive_and_keep


def reads_slowly() -> None:
    """Time: each message of a node that is no peer holds the loop."""
    names: Any = transport_tcp.TcpTransport
    receive = names.receive

    def receive_slowly(transport: Any, frame: bytes, route: object = None) -> bool:
        is_known: bool = receive(transport, frame, route)
        if not is_known:
            time.sleep(_LONG_SECONDS)
        return is_known

    names.receive = receive_slowly


def takes_pings_of_others() -> None:
    """Sessions: a ping keeps any session alive, any client may send it."""
    names: Any = order_entry.OrderEntry
    pong = names._pong

    def pong_to_all(self: Any, identity: Any, frame: Any, hint: Any, principal: Any) -> None:
        sessions = frames.pinged_sessions(frame)
        self._active_sessions.update(sessions)
        pong(self, identity, frame, hint, principal)

    names._pong = pong_to_all


def ends_on_garbage() -> None:
    """Processes: a malformed admin message ends the node."""
    names: Any = admin_service.AdminService

    def _error(self: Any, code: Any, message: str) -> Any:
        raise SystemExit(1)

    names._error = _error


def a_thread_a_connection() -> None:
    """Threads, and answers beside held connections: the metrics port has no bound."""
    import threading

    names: Any = metrics_server
    server = metrics_server.HttpServer

    class UnboundedServer(server):  # type: ignore[valid-type, misc]
        def _accept(self) -> None:
            threading.Thread(target=time.sleep, args=(600.0,), daemon=True).start()
            super()._accept()

        def _serve(self, connection: Any) -> None:
            """Answer no request."""

    names.HttpServer = UnboundedServer


def keeps_unread_answers() -> None:
    """Memory: all answers that a client does not read are kept."""
    names: Any = order_socket
    names.BOUNDS = order_socket.BOUNDS._replace(peer_bytes=1 << 40, all_bytes=1 << 40)
    outboxes: Any = peer_outbox.PeerOutbox
    outboxes.is_behind = lambda self, peer: False


def gateway_keeps_answers() -> None:
    """Memory: what a gateway sends to the clients of an attack is kept for ever, many times over."""
    names: Any = native_server.NativeServer
    deliver = names._deliver

    def deliver_and_keep(self: Any, slot: int, packets: Any) -> None:
        deliver(self, slot, packets)
        client = self._clients[slot]
        if client is not None and client.name == "attack":
            _KEPT.append(b"x" * (8 << 20))

    names._deliver = deliver_and_keep


def gateway_says_nothing() -> None:
    """A sentence: a client that is cut off by a gateway is not told why."""
    names: Any = native_server.NativeServer

    def end(self: Any, client: Any, why: str, before: bytes = b"") -> None:
        client.end = why
        client.connection.close(why)

    names._end = end


def gateway_ends_on_garbage() -> None:
    """Processes: a packet out of place ends the gateway."""
    names: Any = native_server.NativeServer
    handle = names._handle

    def handle_or_end(self: Any, client: Any, kind: int, payload: bytes) -> None:
        try:
            handle(self, client, kind, payload)
        except PacketError as error:
            raise SystemExit(1) from error

    names._handle = handle_or_end


def gateway_drops_answers() -> None:
    """Answers: one in a hundred is lost."""
    names: Any = native_server.NativeServer
    deliver = names._deliver

    def deliver_most(self: Any, slot: int, packets: Any) -> None:
        client = self._clients[slot]
        if client is not None and client.name == "attack" and len(packets) > native_server.HEADER_SIZE + 64:
            packets = packets[: -(native_server.HEADER_SIZE + 64)]
        deliver(self, slot, packets)

    names._deliver = deliver_most


def gateway_admits_at_once() -> None:
    """Connections: those without a login are not ended to make room for others."""
    names: Any = native_server.NativeServer
    names._freed_slot = lambda self: None
    take = native_server.ClientTable.take
    tables: Any = native_server.ClientTable

    def take_few(self: Any, now: float) -> int | None:
        return take(self, now) if len(self._free) > len(self.rows) - 64 else None

    tables.take = take_few


def gateway_shares_its_address() -> None:
    """Addresses: a second gateway of one name listens beside the first."""
    import socket

    names: Any = socket
    plain = socket.socket

    class SharedSocket(plain):  # type: ignore[valid-type, misc]
        def bind(self, address: Any) -> None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            super().bind(address)

    names.socket = SharedSocket


FAULTS: Final[dict[str, Callable[[], None]]] = {
    "keeps-messages": keeps_messages,
    "reads-slowly": reads_slowly,
    "takes-pings-of-others": takes_pings_of_others,
    "ends-on-garbage": ends_on_garbage,
    "thread-a-connection": a_thread_a_connection,
    "keeps-unread-answers": keeps_unread_answers,
    "gateway-keeps-answers": gateway_keeps_answers,
    "gateway-says-nothing": gateway_says_nothing,
    "gateway-ends-on-garbage": gateway_ends_on_garbage,
    "gateway-drops-answers": gateway_drops_answers,
    "gateway-admits-at-once": gateway_admits_at_once,
    "gateway-shares-its-address": gateway_shares_its_address,
}


def main() -> None:
    """Run the node."""
    fault, *arguments = sys.argv[1:]
    FAULTS[fault]()
    cli.main(arguments)


if __name__ == "__main__":
    main()
