"""Bytes that an unknown client sends to a running cluster are answered with an error or dropped; no node stops."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from smrx.local import LocalCluster
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorCode, FrameKind
from smrx.wire.records import COMMAND, DETAILS

DEADLINE_MS = 10_000
TIMER_DRIVEN = (CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION)


class Raw:
    """A raw DEALER socket on the leader's order entry."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(address)

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def receive(self) -> frames.Frame:
        assert self._socket.poll(DEADLINE_MS), "no answer"
        return frames.decode(self._socket.recv())

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def leader(shared_cluster: LocalCluster) -> int:
    return shared_cluster.wait_leader()


@pytest.fixture
def raw(shared_cluster: LocalCluster, leader: int) -> Iterator[Raw]:
    connection = Raw(shared_cluster.config.node(leader).orders_address)
    yield connection
    connection.close()


def outcome_of(raw: Raw, command: np.ndarray) -> np.void:
    raw.send(frames.encode_commands(CommandList(command), 99))
    frame = raw.receive()
    assert (frame.kind, frame.correlation, frame.count) == (FrameKind.OUTCOMES, 99, 1)
    return frames.records(frame)[0]


def assert_all_nodes_serve(cluster: LocalCluster) -> None:
    assert all(cluster.running(node.id) for node in cluster.config.nodes)
    assert cluster.wait_for(lambda: len(cluster.statuses()) == len(cluster.config.nodes), 60, "every node's status")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((b"garbage",), ErrorCode.MALFORMED_FRAME),
        ((b"\xff" * 4096,), ErrorCode.MALFORMED_FRAME),
        ((b"", b"x", b"y"), ErrorCode.MALFORMED_FRAME),
        ((frames.encode_commands(CommandList(np.zeros(3, COMMAND)))[:-7],), ErrorCode.MALFORMED_FRAME),
        ((frames.encode(FrameKind.COMMANDS, bytes(64 * 4097), 4097),), ErrorCode.TOO_MANY_COMMANDS),
        ((frames.encode(FrameKind.OUTCOMES, b"", 0),), ErrorCode.MALFORMED_FRAME),
        ((frames.encode(FrameKind.COMMANDS, bytes(64 + 127), 1, details=1),), ErrorCode.MALFORMED_FRAME),
    ],
)
def test_bad_frame_is_answered_with_an_error(
    raw: Raw, shared_cluster: LocalCluster, parts: tuple[bytes, ...], code: ErrorCode
) -> None:
    raw.send(*parts)
    frame = raw.receive()
    assert frame.kind is FrameKind.ERROR
    body = frames.error_body(frame)
    assert body.code == code
    assert "expected" in body.message
    assert_all_nodes_serve(shared_cluster)


def test_details_that_a_frame_does_not_have_are_answered_with_an_error(raw: Raw, shared_cluster: LocalCluster) -> None:
    commands = CommandList(np.zeros(2, COMMAND), np.zeros(1, DETAILS))
    commands.records["details"] = [1, 2]
    raw.send(frames.encode_commands(commands, 99))
    frame = raw.receive()
    assert (frame.kind, frame.correlation) == (FrameKind.ERROR, 99)
    assert frames.error_body(frame).message == "a command names details 2; the frame has 1"
    assert_all_nodes_serve(shared_cluster)


def test_unknown_command_kind_is_rejected_with_a_reason(raw: Raw, shared_cluster: LocalCluster) -> None:
    command = np.zeros(1, COMMAND)
    command["kind"] = 250
    outcome = outcome_of(raw, command)
    assert (outcome["status"], outcome["reason"]) == (OutcomeStatus.REJECTED, Reason.UNKNOWN_KIND)
    assert outcome["sequence"] > 0
    assert_all_nodes_serve(shared_cluster)


def test_request_without_a_session_is_rejected_with_a_reason(raw: Raw) -> None:
    command = np.zeros(1, COMMAND)
    command["kind"], command["session_id"], command["request_id"] = CommandKind.MASS_CANCEL, 4242, 1
    assert outcome_of(raw, command)["reason"] == Reason.UNKNOWN_SESSION


@pytest.mark.parametrize("kind", TIMER_DRIVEN)
def test_timer_driven_command_from_a_client_is_answered_with_an_error(
    raw: Raw, shared_cluster: LocalCluster, kind: CommandKind
) -> None:
    command = np.zeros(1, COMMAND)
    command["kind"] = kind
    raw.send(frames.encode_commands(CommandList(command), 99))
    frame = raw.receive()
    assert (frame.kind, frame.correlation) == (FrameKind.ERROR, 99)
    assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
    assert_all_nodes_serve(shared_cluster)


def test_random_commands_stop_no_node_and_leave_state_hashes_equal(raw: Raw, shared_cluster: LocalCluster) -> None:
    rng = np.random.default_rng(7)
    for i in range(10):
        rows = np.frombuffer(rng.bytes(64 * 1000), COMMAND).copy()
        # A frame with a timer-driven command is refused as a whole.
        rows["kind"][np.isin(rows["kind"], TIMER_DRIVEN)] = 0
        # One with a command that names details that it does not have is refused, too.
        details = np.frombuffer(rng.bytes(128 * (i * 100)), DETAILS)
        rows["details"] %= np.uint16(len(details) + 1)
        # And one that opens a session with more kept answers than a node allows.
        rows["instrument"][rows["kind"] == CommandKind.OPEN_SESSION] %= np.uint32(1024)
        raw.send(frames.encode_commands(CommandList(rows, details), i))
    for i in range(10):
        frame = raw.receive()
        assert (frame.kind, frame.correlation, frame.count) == (FrameKind.OUTCOMES, i, 1000)
    assert_all_nodes_serve(shared_cluster)

    def hashes() -> set[tuple[int, int]] | None:
        positions = {(status.sequence, status.state_hash) for status in shared_cluster.statuses().values()}
        return positions if len(positions) == 1 else None

    shared_cluster.wait_for(hashes, 60, "one sequence and state hash on all nodes")


@pytest.mark.parametrize("port", ["raft", "orders", "events", "admin"])
def test_other_protocols_and_cut_frames_do_no_harm(shared_cluster: LocalCluster, leader: int, port: str) -> None:
    address: str = getattr(shared_cluster.config.node(leader), f"{port}_address")
    host, number = address.removeprefix("tcp://").rsplit(":", 1)
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL",
        b"\0" * 70000,
    ):
        with (
            socket.create_connection((host, int(number)), timeout=30) as connection,
            contextlib.suppress(ConnectionError),  # The node may close the connection before everything is sent.
        ):
            connection.sendall(data)
    assert_all_nodes_serve(shared_cluster)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system does not show its connections' timers")
@pytest.mark.parametrize("port", ["raft", "orders", "events", "admin"])
def test_connection_has_tcp_keepalive(shared_cluster: LocalCluster, leader: int, port: str) -> None:
    """Without keepalive, a connection lost by the network stays open at the node forever."""
    address: str = getattr(shared_cluster.config.node(leader), f"{port}_address")
    host, number = address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_connection((host, int(number)), timeout=30) as connection:
        ends = f"0100007F:{int(number):04X} 0100007F:{connection.getsockname()[1]:04X}"

        def has_keepalive() -> bool:
            """Return whether the node's end of the connection has a keepalive timer."""
            lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
            return any(ends in line and line.split()[5].startswith("02:") for line in lines)

        shared_cluster.wait_for(has_keepalive, 60, f"keepalive on the {port} port")


@pytest.mark.parametrize("port", ["raft", "orders", "events", "admin"])
def test_oversize_message_closes_only_its_connection(
    shared_cluster: LocalCluster, leader: int, raw: Raw, port: str
) -> None:
    unknown = Raw(getattr(shared_cluster.config.node(leader), f"{port}_address"))
    unknown.send(bytes(64 << 20))
    raw.send(frames.encode(FrameKind.PING, correlation=5))
    assert raw.receive().kind is FrameKind.PONG
    unknown.close()
    assert_all_nodes_serve(shared_cluster)


@pytest.mark.parametrize("port", ["raft", "events", "admin"])
def test_garbage_on_internal_ports_does_no_harm(shared_cluster: LocalCluster, leader: int, port: str) -> None:
    rng = np.random.default_rng(3)
    unknown = Raw(getattr(shared_cluster.config.node(leader), f"{port}_address"))
    for size in (0, 1, 31, 32, 33, 200, 5000):
        unknown.send(rng.bytes(size))
        unknown.send(b"", rng.bytes(size), b"")
    assert_all_nodes_serve(shared_cluster)
    unknown.close()
