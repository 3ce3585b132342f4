"""Replicas over real sockets elect and commit, whatever else arrives at their port."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from smrx.consensus import messages
from smrx.consensus.transport_tcp import UNKNOWN_PER_TURN
from smrx.links.connection import FRAME_TOO_LARGE
from smrx.links.listener import TOO_MANY_CONNECTIONS, TOO_MANY_UNKNOWN
from tests.consensus.harness import entry
from tests.consensus.sockets import CLUSTER, Mesh, Outsider

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
    outsider = Outsider(mesh, victim)
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
    mesh.run_until(lambda: sum(victim.transport.dropped[why] for why in WHY_DROPPED) == 6)
    assert victim.transport.dropped["not from a member"] == 1
    assert victim.transport.dropped["of another cluster"] == 1
    assert victim.transport.dropped["undecodable"] == 4
    outsider.close()
    mesh.commit(entry(1))


def test_announced_giant_message_closes_its_connection(mesh: Mesh) -> None:
    victim = mesh.elect()
    outsider = Outsider(mesh, victim)
    outsider.send(bytes(messages.MAX_MESSAGE_BYTES + 1))
    mesh.run_until(lambda: outsider.has_ended)
    assert victim.transport.listener.refused[FRAME_TOO_LARGE] == 0, "it had greeted"
    assert victim.transport.dropped["undecodable"] == 0
    mesh.commit(entry(1))


def test_links_of_members_stay_beside_too_many_connections(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path, max_connections=5)
    victim = mesh.elect()
    mesh.commit(entry(1))
    outsiders = [Outsider(mesh, victim) for _ in range(10)]
    refused = victim.transport.listener.refused
    mesh.run_until(lambda: refused[TOO_MANY_CONNECTIONS] + refused[TOO_MANY_UNKNOWN] == 7)
    assert len(victim.transport.listener.connections) == 5
    mesh.commit(entry(2))
    for outsider in outsiders:
        outsider.close()
    mesh.close()


def test_disconnected_peer_costs_no_memory(mesh: Mesh) -> None:
    leader = mesh.elect()
    mesh.commit(entry(1))
    gone = next(node for node in mesh.nodes if node is not leader)
    gone.close()
    mesh.nodes.remove(gone)
    for number in range(2, 200):
        leader.replica.submit(entry(number, 100_000))
        leader.turn()
        for node in mesh.nodes:
            mesh.poller.run(0.0)
            node.turn()
    mesh.run_until(lambda: all(node.machine.sequence == 199 for node in mesh.nodes))
    # 20 MB were submitted; what waits for the missing peer stays within the window.
    assert leader.replica.leader.in_flight_bytes(gone.replica.node_id) <= (8 << 20) + 100_000


def test_few_messages_of_unknown_nodes_are_read_in_a_turn(mesh: Mesh) -> None:
    victim = mesh.elect()
    outsider = Outsider(mesh, victim)
    sent = 10 * UNKNOWN_PER_TURN
    outsider.send(*[b"\xc1"] * sent)
    dropped, transport = victim.transport.dropped, victim.transport
    deadline = time.monotonic() + 20.0
    while dropped["undecodable"] < sent:
        before = dropped["undecodable"]
        transport.begin_turn()
        mesh.poller.run(0.0)
        assert dropped["undecodable"] - before <= UNKNOWN_PER_TURN
        assert transport.has_more_to_read or not before or dropped["undecodable"] == sent
        assert time.monotonic() < deadline


def test_member_is_read_beside_messages_of_unknown_nodes(mesh: Mesh) -> None:
    """The bound is for the others: a flood does not slow the log down."""
    victim = mesh.elect()
    outsider = Outsider(mesh, victim)
    outsider.send(*[b"\xc1"] * 20_000)
    for number in range(1, 20):
        mesh.commit(entry(number))
    outsider.close()


def test_message_posted_to_a_removed_node_arrives(mesh: Mesh) -> None:
    """Its connection stays until what was posted is sent."""
    leader = mesh.elect()
    mesh.commit(entry(1))
    gone = next(node for node in mesh.nodes if node is not leader)
    leader.replica.remove_member(gone.replica.node_id)
    mesh.run_until(lambda: gone.replica.removed)
    assert gone.replica.node_id not in leader.transport._nodes
