"""Attack a gateway: halves of records, floods, unread answers, idle connections, a stop, a second one of its name.

Each attack also checks what it is answered, and reports harm if an answer is missing or wrong.
"""

import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.siege import siege_gateway, siege_market
from cluster.siege.attack_target import Attacker
from cluster.siege.gateway_connection import HEARTBEAT, GatewayConnection
from cluster.siege.siege_gateway import MAIN, SPARE, SiegeGateway
from smrx.cli.exit_codes import Exit
from smrx.config import dump
from smrx.local import free_ports
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND
from smrx.wire.soup_packets import Login, PacketType

_TIMEOUT_S: Final = 30.0
_HALVES: Final = 200
_GARBAGE: Final = 50
_FLOODING: Final = 8
_UNREAD: Final = 8
_READERS: Final = 8
_IDLE: Final = 10_000
_STOP_S: Final = 10.0
#: Requests that a client sends at once; more than it may have without an answer.
_BURST: Final = 2_000


def _reports_loss(attack: Callable[[Attacker], None]) -> Callable[[Attacker], None]:
    """Report a lost connection as harm: a gateway does not end, and gives a reason before it closes a connection."""

    def run(attacker: Attacker) -> None:
        try:
            attack(attacker)
        except OSError as error:
            attacker.harmed(f"the gateway does not serve its clients: {error}")

    return run


@_reports_loss
def half_records(attacker: Attacker) -> None:
    """Log in on many connections, send half a command on each, and wait for the sentence that ends it."""
    login = soup_packets.encode_login(Login(username="half"))
    half = soup_packets.encode_commands(_cancels(1))[:30]
    _send_and_watch(attacker, attacker.scaled(_HALVES), lambda: login + half)


@_reports_loss
def garbage(attacker: Attacker) -> None:
    """Send what is no protocol, and packets out of place, each on a connection of its own."""
    rng = random.Random(1)
    login = soup_packets.encode_login(Login(username="wrong"))
    wrong = (
        b"GET / HTTP/1.1\r\n\r\n", bytes(3), b"\xff\xff" + bytes(5_000), login + login,
        login + soup_packets.encode(PacketType.UNSEQUENCED, bytes(40)),
        login + soup_packets.encode(PacketType.SEQUENCED, bytes(64)),
        login + soup_packets.encode_commands(_cancels(50)),
    )  # fmt: skip
    _send_and_watch(attacker, attacker.scaled(_GARBAGE), lambda: rng.choice((*wrong, b"\x11" + rng.randbytes(300))))


@_reports_loss
def flood(attacker: Attacker) -> None:
    """Send commands on several connections as fast as the gateway takes them, and read the answers."""
    with contextlib.ExitStack() as stack:
        flooding = [stack.enter_context(contextlib.closing(_session(attacker, at))) for at in range(_FLOODING)]
        waiting = dict.fromkeys(flooding, b"")
        while attacker.running:
            for connection in flooding:
                if not waiting[connection]:
                    waiting[connection] = connection.packets(_cancels(_BURST))
                    attacker.report.sent += _BURST
                waiting[connection] = connection.send_some(waiting[connection])
                attacker.report.received += _count(attacker, connection)
            time.sleep(0.001)
    attacker.report.note = f"{attacker.report.received} commands answered"


@_reports_loss
def unread_answers(attacker: Attacker) -> None:
    """Send commands without end and read no answer."""
    with contextlib.ExitStack() as stack:
        sending = []
        for at in range(_UNREAD):
            connection = stack.enter_context(contextlib.closing(_session(attacker, at, receive_buffer=4096)))
            sending.append(connection)
        waiting = dict.fromkeys(sending, b"")
        while attacker.running:
            for connection in sending:
                waiting[connection] = connection.send_some(waiting[connection] or connection.packets(_cancels(_BURST)))
            attacker.report.sent = sum(connection.next_request for connection in sending)
            time.sleep(0.001)


@_reports_loss
def slow_readers(attacker: Attacker) -> None:
    """Send more commands than answers are read, a few each moment; all answers come, in order."""
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(contextlib.closing(_session(attacker, at, receive_buffer=4096)))
            for at in range(_READERS)
        ]
        expected = {reader: reader.next_request for reader in readers}
        waiting = {reader: reader.packets(_cancels(_BURST)) for reader in readers}
        while attacker.running:
            for reader in readers:
                waiting[reader] = reader.send_some(waiting[reader])
                found = reader.outcomes(4)["request_id"].tolist()
                attacker.report.received += len(found)
                if found != list(range(expected[reader], expected[reader] + 4)):
                    attacker.harmed(f"expected the answers from request {expected[reader]} on, found {found}")
                    return
                expected[reader] += 4
            attacker.wait(0.02)


@_reports_loss
def idle_connections(attacker: Attacker) -> None:
    """Hold thousands of connections without a login and as many after it, while new clients log in and trade."""
    most = attacker.scaled(_IDLE) // 2
    unknown: list[GatewayConnection] = []
    known: list[GatewayConnection] = []
    tried = 0
    next_client = time.monotonic()
    try:
        while attacker.running or not tried:
            for _ in range(50):
                if len(unknown) < most:
                    unknown.append(_connected(attacker))
                if len(known) < most:
                    known.append(_connected(attacker))
                    known[-1].send_bytes(soup_packets.encode_login(Login(username="idle")))
            attacker.report.sent = len(unknown) + len(known)
            if time.monotonic() >= next_client:
                next_client = time.monotonic() + 0.2
                tried += 1
                try:
                    with contextlib.closing(_session(attacker, tried)) as client:
                        client.ask(_cancels(1))
                        attacker.report.received += 1
                except OSError as error:
                    attacker.harmed(f"a new client beside idle connections was not served: {error}")
            for group in (unknown, known):
                # Those without a login end after its time, and others come.
                group[:] = [connection for connection in group[:100] if _is_held(connection)] + group[100:]
                group.append(group.pop(0)) if group else None
            attacker.wait(0.02)
    finally:
        _close(unknown + known)
    attacker.report.note = f"{len(unknown)} idle without a login, {len(known)} with; {tried} new clients"


@_reports_loss
def stopped_gateway(attacker: Attacker) -> None:
    """Stop another gateway for ten seconds while its clients have commands under way; then all are answered."""
    address = attacker.config.gateway(SPARE).address
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(_gateway(attacker, attacker.target.path, SPARE))
        gateway.wait_listening(address)
        clients = []
        for at in range(4):
            clients.append(stack.enter_context(contextlib.closing(_session(attacker, 100 + at, address=address))))
        orders = {client: client.packets(_cancels(100)) for client in clients}
        first = {client: client.next_request - 100 for client in clients}
        for client in clients:
            client.send_bytes(orders[client])
        gateway.signal(signal.SIGSTOP)
        attacker.wait(_STOP_S)
        gateway.signal(signal.SIGCONT)
        for client in clients:
            try:
                found = client.outcomes(100)["request_id"].tolist()
                client.ask(_cancels(1))
            except OSError as error:
                attacker.harmed(f"a client of a gateway that was stopped for a time got no answers: {error}")
                continue
            attacker.report.received += len(found)
            if found != list(range(first[client], first[client] + 100)):
                attacker.harmed("a client of a gateway that was stopped for a time got the answers of other requests")


@_reports_loss
def twin_gateways(attacker: Attacker) -> None:
    """Start a second gateway under the name of the first: at its address, and at another one."""
    main = attacker.config.gateway(MAIN)
    moved = msgspec.structs.replace(main, port=free_ports(1)[0])
    path = attacker.target.path.with_name("twin.toml")
    path.write_text(dump(msgspec.structs.replace(attacker.config, gateways=(moved,))), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        twin = stack.enter_context(_gateway(attacker, path, MAIN))
        second = stack.enter_context(_gateway(attacker, attacker.target.path, MAIN))
        code, line = second.wait_ended(_TIMEOUT_S)
        attacker.report.note = line[-120:]
        if code != Exit.RESOURCE or "cannot listen" not in line:
            attacker.harmed(f"a second gateway at the address of the first was not refused: {code}, {line}")
        twin.wait_listening(moved.address)
        # Both have the session of one client: each request is applied once, and a repeated one is answered again.
        at_first = stack.enter_context(contextlib.closing(_session(attacker, 200)))
        at_twin = stack.enter_context(contextlib.closing(_session(attacker, 200, address=moved.address)))
        while attacker.running or not attacker.report.sent:
            at_twin.next_request = at_first.next_request
            answers = [client.ask(_cancels(1)) for client in (at_first, at_twin)]
            attacker.report.sent += 2
            if answers[0]["sequence"] != answers[1]["sequence"]:
                attacker.harmed("a request that was sent through two gateways of one name was applied twice")
            attacker.wait(0.05)


def _send_and_watch(attacker: Attacker, most: int, data: Callable[[], bytes]) -> None:
    """Send on many connections at once what the gateway must end with a sentence; others follow those that ended."""
    held: list[GatewayConnection] = []
    ended = told = 0
    try:
        while attacker.running:
            while len(held) < most and attacker.running:
                held.append(_connected(attacker))
                held[-1].send_bytes(data())
                attacker.report.sent += 1
            attacker.wait(0.05)
            for connection in held:
                packets = connection.arrived()
                attacker.report.received += len(packets)
                if any(packet.kind in (PacketType.END_OF_SESSION, PacketType.LOGIN_REJECTED) for packet in packets):
                    told += 1
                    connection.close()
                elif not connection.is_open:
                    ended += 1
                    connection.close()
            held = [connection for connection in held if connection.is_open]
    finally:
        _close(held)
    attacker.report.note = f"{attacker.report.sent} connections, {told} told why they end, {ended} not"
    if ended:
        attacker.harmed(f"a connection ended without a sentence: {attacker.report.note}")


def _connected(attacker: Attacker, address: str | None = None, receive_buffer: int | None = None) -> GatewayConnection:
    address = address or attacker.config.gateway(MAIN).address
    return GatewayConnection(address, _TIMEOUT_S, receive_buffer=receive_buffer)


def _session(
    attacker: Attacker, number: int, *, address: str | None = None, receive_buffer: int | None = None
) -> GatewayConnection:
    """Return a connection with a session of the customer's own."""
    connection = _connected(attacker, address, receive_buffer)
    connection.log_in("attack")
    connection.open_session(1 << 20 | number, siege_market.CUSTOMER, siege_gateway.COMMANDS_UNDER_WAY)
    return connection


def _cancels(count: int) -> NDArray[np.void]:
    """Return commands that cancel nothing: each is answered, and none changes the market."""
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["account"], rows["order_id"] = CommandKind.CANCEL, siege_market.CUSTOMER, 1 << 40
    return rows


def _count(attacker: Attacker, connection: GatewayConnection) -> int:
    """Read what has arrived; return the number of outcomes."""
    packets = connection.arrived()
    if not connection.is_open:
        attacker.harmed("the gateway closed the connection of a client that reads its answers")
        attacker.stop()
    return sum(packet.kind == PacketType.SEQUENCED for packet in packets)


def _is_held(connection: GatewayConnection) -> bool:
    """Whether a connection is open still; a heartbeat keeps one that is logged in."""
    packets = connection.arrived()
    if connection.is_open and any(packet.kind == PacketType.SERVER_HEARTBEAT for packet in packets):
        connection.send_bytes(HEARTBEAT)
    if not connection.is_open:
        connection.close()
    return connection.is_open


def _gateway(attacker: Attacker, config_path: Path, name: str) -> SiegeGateway:
    return SiegeGateway(
        attacker.target.program, config_path, name, config_path.with_name(f"{name}-{config_path.stem}.log")
    )


def _close(connections: list[GatewayConnection]) -> None:
    for connection in connections:
        connection.close()
