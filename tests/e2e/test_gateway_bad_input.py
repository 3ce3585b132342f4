"""What clients do wrong costs a gateway little, is answered with a sentence, and does not disturb the other clients."""

import resource
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.local import LocalCluster, free_ports
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, Side
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS
from smrx.wire.soup_packets import Login, NoticeCode, PacketType
from tests.commands import command, open_session, place
from tests.e2e.test_descriptors import FEW_DESCRIPTORS, LIMIT
from tests.gateway.local_gateway import LocalGateways
from tests.gateway.soup_client import SoupClient, numbered

ACCOUNT = 900
HONEST = 9_001
LOGIN_MS, SILENCE_MS = 1_000, 2_500
CONNECTIONS = 600

LOGIN = soup_packets.encode_login(Login())


@pytest.fixture(scope="module")
def gateways(shared_cluster: LocalCluster) -> Iterator[LocalGateways]:
    with Client(shared_cluster.config) as venue:
        venue.open_account(ACCOUNT)
    with LocalGateways(shared_cluster, login_ms=LOGIN_MS, connections=CONNECTIONS) as gateways:
        gateways.start()
        yield gateways


@pytest.fixture
def honest(gateways: LocalGateways) -> Iterator[SoupClient]:
    """A client that is served before and after."""
    with SoupClient(gateways.address()) as client:
        client.login()
        opened = client.open_session(HONEST, ACCOUNT)
        first = int(opened["order_id"]) + 1 if opened["status"] == OutcomeStatus.DUPLICATE else 1
        assert ask(client, first)
        yield client
        assert ask(client, first + 1)


def order(request: int, session: int = HONEST) -> CommandList:
    return place((session, request), ACCOUNT, Side.BUY, 1, 1, instrument=999)


def ask(client: SoupClient, request: int, session: int = HONEST) -> bool:
    """Return whether an order is answered: there is no such instrument."""
    outcome = client.ask(order(request, session))
    return (outcome["request_id"], outcome["reason"]) == (request, Reason.UNKNOWN_INSTRUMENT)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0\0U", "a length of 0"),
        (b"\xff\xffU" + bytes(100), "a length of 65535"),
        (b"GET / HTTP/1.1\r\n\r\n", "a length of 18245"),
        (soup_packets.encode(PacketType.UNSEQUENCED, bytes(64)), "expected a login request first"),
        (soup_packets.encode(PacketType.LOGIN_REQUEST, b"me"), "expected 46 bytes, found 2"),
        (LOGIN + LOGIN, "logged in already"),
        (LOGIN + soup_packets.encode(PacketType.UNSEQUENCED, bytes(40)), "expected 64 bytes, or 192 with details"),
        (
            LOGIN + soup_packets.encode(PacketType.SEQUENCED, bytes(64)),
            "a packet of type U, R or O, found 'S'",
        ),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_why(
    gateways: LocalGateways, honest: SoupClient, data: bytes, why: str
) -> None:
    with SoupClient(gateways.address()) as client:
        client.send_raw(data)
        packets = [packet for packet in client.rest() if packet.kind != PacketType.LOGIN_ACCEPTED]
        assert [packet.kind for packet in packets] == [PacketType.DEBUG, PacketType.END_OF_SESSION]
        assert why in packets[0].payload.decode()


def test_half_a_record_and_a_client_that_never_logs_in_wait_no_longer_than_they_may(
    shared_cluster: LocalCluster, honest: SoupClient
) -> None:
    with LocalGateways(shared_cluster, login_ms=LOGIN_MS, silence_ms=SILENCE_MS) as gateways:
        gateways.start()
        with SoupClient(gateways.address()) as silent, SoupClient(gateways.address()) as half:
            half.login()
            half.send_raw(soup_packets.encode_commands(*order(1))[:30])
            assert b"no login request" in silent.rest()[0].payload
            honest.send_raw(soup_packets.encode(PacketType.CLIENT_HEARTBEAT))
            assert b"nothing was received for 2.5 s" in half.rest()[0].payload


def test_a_session_cannot_be_taken_up_again_by_its_packets(gateways: LocalGateways) -> None:
    with SoupClient(gateways.address()) as client:
        client.send_raw(soup_packets.encode_login(Login(session="0", sequence=17)))
        packets = client.rest()
        assert [packet.kind for packet in packets] == [PacketType.DEBUG, PacketType.LOGIN_REJECTED]
        assert packets[1].payload == b"S"


def test_a_logout_ends_the_connection(gateways: LocalGateways) -> None:
    with SoupClient(gateways.address()) as client:
        client.login()
        client.send_raw(soup_packets.encode(PacketType.LOGOUT_REQUEST))
        assert client.rest() == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (command(CommandKind.TICK, (HONEST + 1, 1)), NoticeCode.FORBIDDEN),
        (order(1, HONEST), NoticeCode.WRONG_SESSION),
        (open_session(HONEST + 1, ACCOUNT, answers=1 << 20), NoticeCode.LIMITED),
    ],
)
def test_a_command_that_is_not_forwarded_is_answered_and_the_next_one_is(
    gateways: LocalGateways, honest: SoupClient, wrong: CommandList, code: NoticeCode
) -> None:
    with SoupClient(gateways.address()) as client:
        client.login()
        opened = client.open_session(HONEST + 1, ACCOUNT)
        first = int(opened["order_id"]) + 1 if opened["status"] == OutcomeStatus.DUPLICATE else 1
        client.send(wrong)
        assert client.notice().code == code
        assert client.ask(order(first, HONEST + 1))["request_id"] == first


def test_a_command_whose_details_are_not_in_its_packet_is_refused(gateways: LocalGateways) -> None:
    with SoupClient(gateways.address()) as client:
        client.login()
        wrong = order(1).records.copy()
        wrong["details"] = 2
        client.send(CommandList(wrong, np.zeros(2, DETAILS)))  # The encoder numbers it 1, and sends the details.
        assert client.notice().code == NoticeCode.WRONG_SESSION
        client.send_raw(soup_packets.encode(PacketType.UNSEQUENCED, wrong.tobytes()))
        assert client.notice().code == NoticeCode.MALFORMED


def test_a_client_that_sends_and_does_not_read_is_read_no_further(gateways: LocalGateways, honest: SoupClient) -> None:
    pid = gateways.processes["a"].pid
    before = resident_bytes(pid)
    count = 200_000
    with SoupClient(gateways.address(), receive_buffer=4096) as flood:
        flood.login()
        flood.open_session(HONEST + 2, ACCOUNT, answers=1 << 16)
        commands = np.repeat(order(1).records, count).view(COMMAND)
        commands["session_id"], commands["request_id"] = HONEST + 2, np.arange(1, count + 1)
        left = memoryview(soup_packets.encode_commands(commands))
        flood.socket.setblocking(False)
        last_sent = time.monotonic()
        while left and time.monotonic() - last_sent < 1:
            try:
                left = left[flood.socket.send(left) :]
                last_sent = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        # The kernel's buffers are full: the gateway reads no more. What it did read waits for a bounded time.
        assert len(left) > 0
        assert resident_bytes(pid) - before < 64 << 20
        flood.socket.settimeout(30)
        outcomes = flood.outcomes(10_000)
        assert outcomes["request_id"].tolist() == list(range(1, 10_001))


def test_idle_connections_do_no_harm_and_are_closed(gateways: LocalGateways, honest: SoupClient) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    host, port = gateways.address().removeprefix("tcp://").split(":")
    idle = [socket.create_connection((host, int(port)), 30) for _ in range(CONNECTIONS + 100)]
    try:
        for connection in idle:
            # Those above the bound end, or the oldest for them; the others when their login time is over.
            connection.settimeout(30)
            while connection.recv(1000):
                pass
    finally:
        for connection in idle:
            connection.close()


def test_connections_leave_descriptors_and_those_without_a_login_make_room(
    shared_cluster: LocalCluster, gateways: LocalGateways
) -> None:
    (metrics,) = free_ports(1)
    with LocalGateways(shared_cluster, program=FEW_DESCRIPTORS, metrics_port=metrics, login_ms=60_000) as few:
        few.start()
        room = LIMIT - 96 - 12 * 3
        address = few.address()
        assert f"serves at most {room} connections, not 16384" in few.log()
        host, port = address.removeprefix("tcp://").split(":")
        idle = [socket.create_connection((host, int(port)), 30) for _ in range(2 * LIMIT)]
        clients = [SoupClient(address) for _ in range(room)]
        try:
            for client in clients:
                client.login()
            for connection in idle:
                # Long before its login time is over, each has made room.
                connection.settimeout(30)
                while connection.recv(1000):
                    pass
            with SoupClient(address) as late:
                packets = late.rest()
                assert [packet.kind for packet in packets] == [PacketType.DEBUG, PacketType.END_OF_SESSION]
                assert b"has its most connections" in packets[0].payload
            clients[0].open_session(HONEST + 3, ACCOUNT)
            assert ask(clients[0], 1, HONEST + 3)
            shared_cluster.wait_for(lambda: "more were cut off; close idle" in few.log(), 60, "a line in the log")
            found = http_get(metrics, "/metrics")
            assert f"smrx_gateway_logged_in {room}.0" in found
            assert 'smrx_gateway_connections_refused_total{reason="no room"}' in found
            assert f'"most_connections":{room}' in http_get(metrics, "/health")
        finally:
            for connection in (*idle, *clients):
                connection.close()


def test_a_second_gateway_of_one_name_is_refused_at_its_address_and_serves_at_another(
    shared_cluster: LocalCluster, gateways: LocalGateways
) -> None:
    first = gateways.processes["a"]
    try:
        second = gateways.launch("a")
        assert second.wait(60) == Exit.RESOURCE
        assert f"gateway 'a' cannot listen on {gateways.address()}: Address already in use" in gateways.log()
    finally:
        gateways.processes["a"] = first
    with LocalGateways(shared_cluster, ("a",)) as others:
        others.start()
        with SoupClient(gateways.address()) as one, SoupClient(others.address()) as two:
            for client in (one, two):
                client.login()
                client.open_session(HONEST + 4, ACCOUNT)
            # One session at both: a request is applied once, and the second gets the answer of the first.
            assert one.ask(order(1, HONEST + 4))["sequence"] == two.ask(order(1, HONEST + 4))["sequence"]


def test_clients_of_a_gateway_that_was_stopped_for_a_time_are_answered(
    shared_cluster: LocalCluster, gateways: LocalGateways
) -> None:
    with LocalGateways(shared_cluster, ("b",), silence_ms=3_000) as others:
        others.start("b")
        with SoupClient(others.address("b")) as client:
            client.login()
            client.open_session(HONEST + 5, ACCOUNT)
            others.signal("b", signal.SIGSTOP)
            client.send(numbered([order(1)] * 50, HONEST + 5))
            with SoupClient(gateways.address()) as other:
                other.login()
                other.open_session(HONEST + 6, ACCOUNT)
                end = time.monotonic() + 3.5
                request = 0
                while time.monotonic() < end:
                    request += 1
                    assert ask(other, request, HONEST + 6)
            others.signal("b", signal.SIGCONT)
            assert client.outcomes(50)["request_id"].tolist() == list(range(1, 51))


def http_get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as reply:
        return str(reply.read().decode())


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
