"""Replicas over real sockets elect and commit, whatever else arrives at their port."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from smrx.consensus import messages
from smrx.consensus.transport_zmq import UNKNOWN_PER_TURN
from tests.consensus.harness import entry
from tests.consensus.sockets import CLUSTER, Mesh

WHY_DROPPED = ("undecodable", "absurd", "of another cluster", "not from a member")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path)
    try:
        yield mesh
    finally:
        mesh.close()


def test_nodes_elect_and_commit_small_and_large_entries(mesh: Mesh) -> None:
    for number, size in enumerate((12, 1000, 70_000, messages.MAX_ENTRY_BYTES), start=1):
        mesh.commit(entry(number, size))
    assert [node.machine.numbers for node in mesh.nodes] == [[1, 2, 3, 4]] * 3
    assert len({node.machine.position() for node in mesh.nodes}) == 1


def test_garbage_on_the_port_is_counted_and_changes_nothing(mesh: Mesh) -> None:
    victim = mesh.elect()
    outsider = mesh.context.socket(zmq.DEALER)
    outsider.linger = 0
    outsider.connect(victim.address)
    hello = (
        messages.PROTOCOL,
        messages.cluster_number(CLUSTER),
        9,
        1,
        1,
        3,
        0,
        0,
        0,
        0,
        0,
        [0],
    )
    of_another_cluster = (messages.PROTOCOL, 5, *hello[2:])
    for frame in (b"", b"\xc1", b"\x9a" * 50, bytes(5000), msgspec.msgpack.encode(of_another_cluster)):
        outsider.send(frame)
    outsider.send(msgspec.msgpack.encode(hello))
    outsider.send_multipart([b"many", b"parts"])
    mesh.run_until(lambda: sum(victim.transport.dropped[why] for why in WHY_DROPPED) == 7)
    assert victim.transport.dropped["not from a member"] == 1
    assert victim.transport.dropped["of another cluster"] == 1
    assert victim.transport.dropped["undecodable"] == 5
    outsider.close()
    mesh.commit(entry(1))


def test_socket_rejects_oversized_frame(mesh: Mesh) -> None:
    victim = mesh.elect()
    outsider = mesh.context.socket(zmq.DEALER)
    outsider.linger = 0
    monitor = outsider.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    outsider.connect(victim.address)
    outsider.send(bytes(messages.MAX_MESSAGE_BYTES + 1))
    mesh.run_until(lambda: monitor.poll(0))
    outsider.disable_monitor()
    outsider.close()
    assert victim.transport.dropped["undecodable"] == 0
    mesh.commit(entry(1))


def test_disconnected_peer_costs_no_memory(mesh: Mesh) -> None:
    leader = mesh.elect()
    mesh.commit(entry(1))
    gone = next(node for node in mesh.nodes if node is not leader)
    gone.close()
    mesh.poller = zmq.Poller()
    mesh.nodes.remove(gone)
    for node in mesh.nodes:
        for socket in node.transport.sockets:
            mesh.poller.register(socket, zmq.POLLIN)
    for number in range(2, 200):
        leader.replica.submit(entry(number, 100_000))
        leader.turn()
        for node in mesh.nodes:
            node.turn()
    mesh.run_until(lambda: all(node.machine.sequence == 199 for node in mesh.nodes))
    # 20 MB were submitted; what waits for the missing peer stays within the window.
    assert leader.replica.leader.in_flight_bytes(gone.replica.node_id) <= (8 << 20) + 100_000


def test_few_messages_of_unknown_nodes_are_read_in_a_turn(mesh: Mesh) -> None:
    victim = mesh.elect()
    outsider = mesh.context.socket(zmq.DEALER)
    outsider.linger = 0
    outsider.connect(victim.address)
    sent = 10 * UNKNOWN_PER_TURN
    for _ in range(sent):
        outsider.send(b"\xc1")
    dropped = victim.transport.dropped
    deadline = time.monotonic() + 20.0
    while dropped["undecodable"] < sent:
        before = dropped["undecodable"]
        victim.transport.drain(256)
        assert dropped["undecodable"] - before <= UNKNOWN_PER_TURN
        assert time.monotonic() < deadline
