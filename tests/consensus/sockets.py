"""Run replicas over real sockets, driven by one thread, for the tests of the transport."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from smrx.consensus import MemoryJournal, MetaStore, Replica, ReplicaSettings, TcpTransport, messages
from smrx.consensus.keys import LinkKeys
from smrx.key_files import KeyPair
from smrx.links import greeting, tls
from smrx.links.connection import Connection
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ClientGreeting, Terms
from smrx.links.poller import Poller
from smrx.links.tcp_options import Target
from smrx.local import free_ports
from tests.consensus.harness import TIMING, Machine

CLUSTER = "sockets"


class Node:
    """One replica on loopback."""

    def __init__(
        self, directory: Path, node: int, ports: list[int], keys: LinkKeys | None, poller: Poller, max_connections: int
    ) -> None:
        addresses = {i + 1: f"tcp://127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.address = addresses.pop(node)
        self.meta = MetaStore(directory / f"node-{node}", cluster=CLUSTER, node_id=node)
        self.transport = TcpTransport(
            poller,
            cluster=CLUSTER,
            node_id=node,
            bind=self.address,
            peers=addresses,
            incarnation=self.meta.incarnation,
            keys=keys,
            max_connections=max_connections,
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
        self.transport.begin_turn()
        self.replica.tick()
        self.transport.flush()

    def close(self) -> None:
        self.transport.close()
        self.meta.close()


class Mesh:
    """Nodes that one thread runs when their sockets or deadlines require it."""

    def __init__(
        self, directory: Path, keys: Mapping[int, LinkKeys] | None = None, *, max_connections: int = 100
    ) -> None:
        self.ports = free_ports(3)
        #: One for all nodes and for other sockets of a test.
        self.poller = Poller()
        self.nodes = [
            Node(directory, node, self.ports, keys[node] if keys else None, self.poller, max_connections)
            for node in (1, 2, 3)
        ]

    def run_until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [node.replica.waiting for node in self.nodes]
            due = min(node.replica.next_deadline() for node in self.nodes) - time.monotonic()
            has_more = any(node.transport.has_more_to_read for node in self.nodes)
            self.poller.run(0.0 if has_more else max(0.0, due))
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
        self.poller.close()


class Outsider:
    """A connection of an unknown process to a node's Raft port, with a key or without one."""

    def __init__(self, mesh: Mesh, victim: Node, own: KeyPair | None = None, server: str | None = None) -> None:
        """With `own`, speak TLS and prove that key to the holder of `server`."""
        self.mesh = mesh
        self.received_frames: list[bytes] = []
        #: Why the connection ended.
        self.reason: str | None = None
        self._queued: list[bytes] = []
        terms = Terms(greeting.PEER, messages.cluster_number(CLUSTER))
        links = GreetedLinks(
            self, lambda found: ClientGreeting(terms, own, found.peer_certificate, lambda key: key == server)
        )
        self.connection = Connection(
            Target(victim.address).connecting(unacknowledged_ms=2_000), mesh.poller, links, max_frame_bytes=1 << 20,
            max_queue_bytes=64 << 20, tls=None if own is None else tls.client(), connects=True,
        )  # fmt: skip

    def send(self, *sent: bytes) -> None:
        """Send frames, once the greeting is complete."""
        self._queued += sent
        if self.connection.greeted:
            self.opened(self.connection)

    @property
    def has_ended(self) -> bool:
        """Whether the node ended the connection."""
        return self.connection.reason is not None

    def opened(self, connection: Connection) -> None:
        for frame in self._queued:
            connection.send(frame)
        self._queued.clear()
        connection.flush()

    def received(self, connection: Connection) -> None:
        self.received_frames += map(bytes, connection.frames())

    def closed(self, connection: Connection) -> None:
        self.reason = connection.reason

    def close(self) -> None:
        self.connection.close("the test ends")
