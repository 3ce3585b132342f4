"""Replicas over real sockets: they elect, commit and shrug off whatever else arrives at their port."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from smrx.consensus import MemoryJournal, MetaStore, Replica, ZmqTransport, messages
from smrx.local import free_ports
from tests.consensus.harness import TIMING, Machine, entry

CLUSTER = "sockets"
WHY_DROPPED = ("undecodable", "absurd", "of another cluster", "not from a member")


class Node:
    """One replica on loopback."""

    def __init__(self, directory: Path, context: "zmq.Context[zmq.Socket[bytes]]", node: int, ports: list[int]) -> None:
        addresses = {i + 1: f"tcp://127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.address = addresses.pop(node)
        self.meta = MetaStore(directory / f"node-{node}", cluster=CLUSTER, node_id=node)
        self.transport = ZmqTransport(
            context,
            cluster=CLUSTER,
            node_id=node,
            bind=self.address,
            peers=addresses,
            incarnation=self.meta.incarnation,
        )
        self.machine = Machine()
        self.replica = Replica(
            node,
            list(addresses),
            self.machine,
            self.transport,
            self.meta,
            MemoryJournal(),
            TIMING,
            compaction_entries=10_000,
        )

    def turn(self) -> None:
        self.transport.drain(256)
        self.replica.tick()
        self.transport.flush()

    def close(self) -> None:
        self.transport.close()
        self.meta.close()


class Mesh:
    """Nodes turned by one thread as their sockets and deadlines ask."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        ports = free_ports(3)
        self.nodes = [Node(directory, self.context, node, ports) for node in (1, 2, 3)]
        self.poller = zmq.Poller()
        for node in self.nodes:
            for socket in node.transport.sockets:
                self.poller.register(socket, zmq.POLLIN)

    def run_until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [node.replica.waiting for node in self.nodes]
            due = min(node.replica.next_deadline() for node in self.nodes) - time.monotonic()
            self.poller.poll(max(0, int(due * 1000) + 1))
            for node in self.nodes:
                node.turn()

    def leader(self) -> Node | None:
        return next((node for node in self.nodes if node.replica.is_leader), None)

    def elect(self) -> Node:
        self.run_until(self.leader)
        leader = self.leader()
        assert leader is not None
        return leader

    def commit(self, command: bytes) -> None:
        leader = self.elect()
        index = leader.replica.submit(command)
        leader.transport.flush()
        self.run_until(lambda: all(node.replica.applied_index >= index for node in self.nodes))

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.context.destroy(linger=0)


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
    stranger = mesh.context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.connect(victim.address)
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
        [0],
    )
    of_another_cluster = (messages.PROTOCOL, 5, *hello[2:])
    for frame in (b"", b"\xc1", b"\x9a" * 50, bytes(5000), msgspec.msgpack.encode(of_another_cluster)):
        stranger.send(frame)
    stranger.send(msgspec.msgpack.encode(hello))
    stranger.send_multipart([b"many", b"parts"])
    mesh.run_until(lambda: sum(victim.transport.dropped[why] for why in WHY_DROPPED) == 7)
    assert victim.transport.dropped["not from a member"] == 1
    assert victim.transport.dropped["of another cluster"] == 1
    assert victim.transport.dropped["undecodable"] == 5
    stranger.close()
    mesh.commit(entry(1))


def test_an_oversized_frame_is_cut_off_by_the_socket(mesh: Mesh) -> None:
    victim = mesh.elect()
    stranger = mesh.context.socket(zmq.DEALER)
    stranger.linger = 0
    monitor = stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    stranger.connect(victim.address)
    stranger.send(bytes(messages.MAX_MESSAGE_BYTES + 1))
    mesh.run_until(lambda: monitor.poll(0))
    stranger.disable_monitor()
    stranger.close()
    assert victim.transport.dropped["undecodable"] == 0
    mesh.commit(entry(1))


def test_a_peer_that_is_gone_costs_no_memory(mesh: Mesh) -> None:
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
    assert leader.replica.in_flight_bytes(gone.replica.node_id) <= (8 << 20) + 100_000
