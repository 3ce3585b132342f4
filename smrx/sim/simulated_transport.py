"""Simulate a node's transport: the envelopes, claims and incarnations of the real one, without sockets.

Owns which connections are accepted: the real transport's list of keys decides, as if every link had keys. Frames of
members arrive by the simulated network, which no other sender can use; unknown peers use receive_with_key(). Passes
every frame that leaves to its node, where each is a step at which the process may crash.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, PeerTransport
from smrx.consensus.keys import LinkKeys, holders_of
from smrx.consensus.messages import AppendReply, Body
from smrx.key_files import KeyPair
from smrx.sim.checker import Violation

CLUSTER: Final = "simulation"
#: Limit of the messages of one turn; more of them means a loop.
_MAX_POSTED: Final = 5_000


class TransportHost(Protocol):
    """What a transport uses of its node."""

    id: int
    journal: MemoryJournal

    def transmit(self, peer: int, frame: bytes) -> None:
        """Send a frame to a peer."""
        ...


def key_of(node: int) -> str:
    """Return the public key of a node; a placeholder, as nothing is encrypted here."""
    return f"{node:040d}"


class SimulatedTransport(PeerTransport):
    """Sends frames over the simulated network."""

    def __init__(self, host: TransportHost, peers: Iterable[int], incarnation: int) -> None:
        super().__init__(cluster=CLUSTER, node_id=host.id, peers=peers, incarnation=incarnation)
        #: Messages posted in this turn.
        self.posted = 0
        self._host = host
        self._keys = LinkKeys(KeyPair(key_of(host.id), ""), {peer: (key_of(peer),) for peer in self._nodes})

    def receive_with_key(self, key: str, frame: bytes) -> bool:
        """Receive a frame over a connection made with a key; return whether the connection was accepted."""
        if not self._accepts_key(key):
            return False
        self.receive(frame)
        return True

    def _accepts_key(self, key: str) -> bool:
        return bool(holders_of(self._keys, key))

    def add_peer(self, node: NodeConfig) -> None:
        """See PeerTransport."""
        super().add_peer(node)
        self._keys.peers[node.id] = (key_of(node.id),)

    def _disconnect(self, peer: int) -> None:
        self._keys.peers.pop(peer, None)

    def _transmit(self, peer: int, frame: bytes) -> bool:
        self._host.transmit(peer, frame)
        return True

    def _answer(self, node: int, route: object, frame: bytes) -> None:
        self._host.transmit(node, frame)

    def post(self, peer: int, body: Body) -> None:
        """Put a message into the outbox. Raise Violation for a flood, or an acknowledgement of a missing entry."""
        self.posted += 1
        if self.posted > _MAX_POSTED:
            raise Violation(f"message flood: node {self.node_id} posts more than {_MAX_POSTED} messages in one turn")
        last = self._host.journal.last_index
        if isinstance(body, AppendReply) and body.success and body.next_index - 1 > last:
            raise Violation(
                f"durable acknowledgement: node {self.node_id} acknowledges entry {body.next_index - 1}, and its last "
                f"entry is {last}"
            )
        super().post(peer, body)
