"""A node's transport in the simulation: the envelopes, claims and lives of the real one, without its sockets.

Owns the door: whom a connection lets in is decided by the real transport's list of keys, as if every link had keys.
Frames of members come by the simulated network, whose links nobody can enter; everybody else knocks. Tells its node of
every frame that leaves, each a step at which the process may die.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal, PeerTransport
from smrx.consensus.keys import KeyPair, LinkKeys
from smrx.consensus.messages import AppendReply, Body
from smrx.consensus.transport_zmq import ZAP_DOMAIN, AllowList
from smrx.sim.checker import Violation

CLUSTER: Final = "simulation"
#: Messages that one turn may post; more is a loop that feeds itself.
_FLOOD: Final = 5_000


class Host(Protocol):
    """What a transport needs of its node."""

    id: int
    journal: MemoryJournal

    def transmit(self, peer: int, frame: bytes) -> None:
        """Let a frame leave."""
        ...


def key_of(node: int) -> str:
    """The public key of a node; no real one, for nothing is encrypted here."""
    return f"{node:040d}"


class SimulatedTransport(PeerTransport):
    """Hands frames to the simulated network."""

    def __init__(self, host: Host, peers: Iterable[int], incarnation: int) -> None:
        super().__init__(cluster=CLUSTER, node_id=host.id, peers=peers, incarnation=incarnation)
        #: Messages posted in this turn.
        self.posted = 0
        self._host = host
        self._keys = LinkKeys(KeyPair(key_of(host.id), ""), {peer: (key_of(peer),) for peer in self._nodes})
        self._door = AllowList(self._keys)

    def knock(self, key: str, frame: bytes) -> bool:
        """The holder of a key, which may be nobody's, connects and says something; return whether it was let in."""
        if not self._lets_in(key):
            return False
        self.receive(frame)
        return True

    def _lets_in(self, key: str) -> bool:
        return self._door.callback(ZAP_DOMAIN, key.encode("ascii"))

    def add_peer(self, node: NodeConfig) -> None:
        """As PeerTransport."""
        super().add_peer(node)
        self._keys.peers[node.id] = (key_of(node.id),)

    def _disconnect(self, peer: int) -> None:
        self._keys.peers.pop(peer, None)

    def _transmit(self, peer: int, frame: bytes) -> bool:
        self._host.transmit(peer, frame)
        return True

    def _answer(self, node: int, route: bytes, frame: bytes) -> None:
        self._host.transmit(node, frame)

    def post(self, peer: int, body: Body) -> None:
        """Put a message into the outbox, and notice one that fills it for ever."""
        self.posted += 1
        if self.posted > _FLOOD:
            raise Violation(f"flood: node {self.node_id} posts more than {_FLOOD} messages in one turn")
        last = self._host.journal.last_index
        if isinstance(body, AppendReply) and body.success and body.next_index - 1 > last:
            raise Violation(
                f"an honest word: node {self.node_id} acknowledges entry {body.next_index - 1}, and has no more than "
                f"{last}"
            )
        super().post(peer, body)
