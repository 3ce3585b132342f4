"""Run replicas over real sockets, driven by one thread, for the tests of the transport."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq

from smrx.consensus import MemoryJournal, MetaStore, Replica, ReplicaSettings, ZmqTransport
from smrx.consensus.keys import LinkKeys
from smrx.consensus.zap import ZapHandler
from smrx.local import free_ports
from tests.consensus.harness import TIMING, Machine

CLUSTER = "sockets"


class Node:
    """One replica on loopback."""

    def __init__(self, directory: Path, node: int, ports: list[int], keys: LinkKeys | None) -> None:
        # One context for each node, as in separate processes: a context has one ZAP handler.
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        addresses = {i + 1: f"tcp://127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.address = addresses.pop(node)
        self.meta = MetaStore(directory / f"node-{node}", cluster=CLUSTER, node_id=node)
        self.zap = ZapHandler(self.context)
        self.transport = ZmqTransport(
            self.context,
            cluster=CLUSTER,
            node_id=node,
            bind=self.address,
            peers=addresses,
            incarnation=self.meta.incarnation,
            keys=keys,
            zap=self.zap,
        )
        self.machine = Machine()
        self.replica = Replica(
            node,
            list(addresses),
            machine=self.machine,
            transport=self.transport,
            meta=self.meta,
            journal=MemoryJournal(),
            settings=ReplicaSettings(timing=TIMING, compaction_entries=10_000),
        )

    def turn(self) -> None:
        self.zap.answer()
        self.transport.drain(256)
        self.replica.tick()
        self.transport.flush()

    def close(self) -> None:
        self.transport.close()
        self.zap.close()
        self.meta.close()
        self.context.destroy(linger=0)


class Mesh:
    """Nodes that one thread runs when their sockets or deadlines require it."""

    def __init__(self, directory: Path, keys: Mapping[int, LinkKeys] | None = None) -> None:
        #: For other sockets of a test.
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ports = free_ports(3)
        self.nodes = [Node(directory, node, self.ports, keys[node] if keys else None) for node in (1, 2, 3)]
        self.poller = zmq.Poller()
        for node in self.nodes:
            for socket in (node.zap.socket, *node.transport.sockets):
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
