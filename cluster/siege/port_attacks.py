"""Attack ports with connections and bytes: giant frames, garbage, half-open connections, handshakes, metrics, Raft."""

import contextlib
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import zmq

from cluster.siege.attack_target import Attacker
from cluster.siege.link_connection import LinkConnection
from cluster.siege.raw_connection import split_address
from cluster.siege.zmtp_connection import ZmtpConnection
from smrx.client_keys import ClientKeys
from smrx.config import NodeConfig, socket_address
from smrx.consensus import messages
from smrx.consensus.messages import Envelope, Hello, RulesVersions
from smrx.wire import admin

#: The size that a giant frame announces, and how much of it is sent at most: enough to see that it is kept.
_ANNOUNCED: Final = 1 << 30
_GIANT_BYTES: Final = 192 << 20
_CHUNK: Final = 1 << 20
#: Half-open connections to each port of each node.
_HALF_OPEN: Final = 160
_METRICS_CONNECTIONS: Final = 500
_RAFT_CONNECTIONS: Final = 4
_HEALTH_SECONDS: Final = 2.0


def addresses(node: NodeConfig) -> tuple[str, ...]:
    """Return the addresses of a node that speak ZeroMQ."""
    return tuple(dict.fromkeys((node.orders_address, node.events_address, node.admin_address)))


def _stream_addresses(node: NodeConfig) -> tuple[str, ...]:
    """Return the addresses of all ports of a node."""
    return node.raft_address, socket_address(node.orders_tcp_address), *addresses(node), _metrics(node)


@contextmanager
def zmq_context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    """Yield a context whose sockets are closed without waiting."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 16_000)
    try:
        yield context
    finally:
        context.destroy(linger=0)


def dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, *, reads: bool = True, keys: ClientKeys | None = None
) -> "zmq.Socket[bytes]":
    """Return a DEALER for an address; with `reads` False it takes as little as it can from the peer."""
    connected = context.socket(zmq.DEALER)
    connected.linger = 0
    if not reads:
        connected.rcvhwm = 1
        connected.rcvbuf = 4096
    if keys is not None:
        keys.secure(connected, address)
    connected.connect(address)
    return connected


def try_send(to: "zmq.Socket[bytes]", *parts: bytes) -> bool:
    """Send if that does not block; return whether it was sent."""
    try:
        to.send_multipart(parts, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def giant_frames(attacker: Attacker) -> None:
    """Announce a frame of 1 GiB on every port of every node, and send it until the node closes the connection."""
    while attacker.running:
        open_ports: list[ZmtpConnection | LinkConnection] = []
        for node in attacker.config.nodes:
            connections: list[ZmtpConnection | LinkConnection] = [LinkConnection(attacker.config, node)]
            connections += [ZmtpConnection(address, "SUB") for address in addresses(node)]
            for connection in connections:
                connection.announce(_ANNOUNCED)
                # As a subscription, where the port takes some.
                connection.send_bytes(b"\x01" + bytes(_CHUNK - 1))
                for _ in range(attacker.scaled(_GIANT_BYTES) // _CHUNK):
                    if not (connection.is_open and attacker.running):
                        break
                    connection.send_bytes(bytes(_CHUNK))
                attacker.report.sent += connection.sent_bytes
                open_ports.append(connection)
        attacker.wait(0.2)
        for connection in open_ports:
            connection.close()


def garbage(attacker: Attacker) -> None:
    """Send random bytes, other protocols and random messages to every port of every node."""
    rng = random.Random(1)
    with zmq_context() as context:
        sockets = [dealer(context, address) for node in attacker.config.nodes for address in addresses(node)]
        while attacker.running:
            for to in sockets:
                size = rng.choice((0, 1, 31, 32, 33, 200, 511, 4096))
                body = rng.choice((b"", b"SMRX\x02", b"SMRX\x03")) + rng.randbytes(size)
                attacker.report.sent += try_send(to, *rng.choice(((body,), (b"", body), (body, body, body))))
                while to.poll(0):
                    attacker.report.received += sum(map(len, to.recv_multipart()))
            for node in attacker.config.nodes:
                for address in _stream_addresses(node):
                    _send_raw(address, rng.choice((b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(300), bytes(70_000))))
                    attacker.report.sent += 1


def half_open(attacker: Attacker) -> None:
    """Open many connections to every port of every node and leave them in the middle of the handshake."""
    held: list[socket.socket] = []
    half_greeting = b"\xff" + bytes(8) + b"\x7f"
    try:
        for number in range(attacker.scaled(_HALF_OPEN)):
            for node in attacker.config.nodes:
                for address in _stream_addresses(node):
                    if not attacker.running:
                        return
                    connection = socket.socket()
                    connection.settimeout(1.0)
                    held.append(connection)
                    with contextlib.suppress(OSError):
                        connection.connect(split_address(address))
                        if number % 2:
                            connection.sendall(half_greeting)
                        attacker.report.sent += 1
        attacker.report.note = f"{attacker.report.sent} connections held"
        attacker.wait(attacker.target.seconds)
    finally:
        for connection in held:
            connection.close()


def handshakes(attacker: Attacker) -> None:
    """Start handshakes under unknown keys on every port of every node, one after another: CURVE, and TLS for links."""
    servers = [node.public_keys[0] if node.public_keys else zmq.curve_keypair()[0] for node in attacker.config.nodes]
    with zmq_context() as context:
        while attacker.running:
            opened = []
            for node, server in zip(attacker.config.nodes, servers, strict=True):
                for address in addresses(node):
                    unknown = context.socket(zmq.DEALER)
                    unknown.linger = 0
                    unknown.reconnect_ivl = 1
                    unknown.curve_publickey, unknown.curve_secretkey = zmq.curve_keypair()
                    unknown.curve_serverkey = server.encode() if isinstance(server, str) else server
                    unknown.connect(address)
                    try_send(unknown, b"let me in")
                    opened.append(unknown)
            attacker.report.sent += len(opened)
            for node in attacker.config.nodes:
                LinkConnection(attacker.config, node).close()
                attacker.report.sent += 1
            time.sleep(0.02)
            for unknown in opened:
                unknown.close(linger=0)


def metrics_connections(attacker: Attacker) -> None:
    """Hold connections to the metrics port open, some of them sending a request byte by byte, and ask for health."""
    held: list[socket.socket] = []
    asked = answered = 0
    address = _metrics(attacker.leader)
    try:
        for _ in range(attacker.scaled(_METRICS_CONNECTIONS)):
            if attacker.running:
                held.append(_held(address))
        while attacker.running or not asked:
            for at, connection in enumerate(held):
                try:
                    connection.send(b"G" if at % 2 else b"")
                except OSError:
                    connection.close()
                    held[at] = _held(address)
                attacker.report.sent += 1
            asked += 1
            answered += _is_health_answered(address)
            attacker.wait(0.1)
    finally:
        for connection in held:
            connection.close()
    attacker.report.note = f"{answered} of {asked} requests for /health answered"
    if answered * 2 < asked:
        attacker.harmed(f"only {attacker.report.note}, within {_HEALTH_SECONDS:g} s each")


def raft_frames(attacker: Attacker) -> None:
    """Send messages to the Raft port of the leader as fast as it takes them: garbage, and messages of no member."""
    envelope = Envelope(
        messages.PROTOCOL, messages.cluster_number(attacker.config.cluster), 200, 1, 1, 9, 0, 0, 0, time.time_ns(), 1,
        Hello(), RulesVersions(1, 1, 1),
    )  # fmt: skip
    known = messages.encode(envelope)
    bodies = (b"", bytes(64), random.Random(1).randbytes(4096), known, known[:-1])
    links: list[LinkConnection] = []
    try:
        while attacker.running:
            links = [link for link in links if link.is_open]
            while len(links) < _RAFT_CONNECTIONS and attacker.running:
                links.append(LinkConnection(attacker.config, attacker.leader))
            for link in links:
                link.message(*bodies)
                attacker.report.sent += len(bodies)
                attacker.report.received += link.received_bytes()
    finally:
        for link in links:
            link.close()


def shutdown(attacker: Attacker) -> None:
    """Ask every node for what only its operator may do, without a right to it."""
    requests = (
        admin.Snapshot(), admin.RemoveMember(node_id=attacker.config.nodes[-1].id), admin.UpgradeRules(),
        admin.TransferLeadership(), admin.Shutdown(),
    )  # fmt: skip
    with zmq_context() as context:
        sockets = {node.id: dealer(context, node.admin_address) for node in attacker.config.nodes}
        while attacker.running and not attacker.report.harm:
            for node, to in sockets.items():
                for request in requests:
                    try_send(to, admin.encode_request(request, 1))
                    attacker.report.sent += 1
                    if not to.poll(500):
                        continue
                    _, reply = admin.decode_reply(to.recv())
                    attacker.report.received += 1
                    if not isinstance(reply, admin.AdminError):
                        attacker.harmed(f"node {node} did {type(request).__name__} for a process without a right to it")
            attacker.wait(0.05)


def _metrics(node: NodeConfig) -> str:
    host, port = node.metrics_bind
    return f"tcp://{host}:{port}"


def _held(address: str) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(1.0)
    with contextlib.suppress(OSError):
        connection.connect(split_address(address))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    return connection


def _is_health_answered(address: str) -> bool:
    host, port = split_address(address)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/health", timeout=_HEALTH_SECONDS) as answer:
            return bool(answer.read())
    except OSError:
        return False


def _send_raw(address: str, data: bytes) -> None:
    with contextlib.suppress(OSError), socket.create_connection(split_address(address), timeout=1.0) as connection:
        connection.sendall(data)
