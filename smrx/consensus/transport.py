"""Exchange messages between members: envelopes, the outbox of a turn, and which peers are connected.

Bytes from the network are data, never code and never an exception. A message that no member of this cluster can have
meant for this incarnation of this node is counted and dropped. Owns no socket: transport_tcp does, and a simulation has
none. No threads, no blocking. Called for each message that arrives, at each tick, and to flush(), which makes durable
what the messages acknowledge.

Delivery is first in, first out for each peer, and may lose messages: Raft sends again. Nothing is kept for a peer that
is disconnected, so it costs no memory and receives nothing old when it returns.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.messages import AppendEntries, Body, Envelope, Hello, MembershipHint, RulesVersions

#: A node that is no peer is answered at most this often.
_ANSWER_SECONDS: Final = 1.0
_UNKNOWN_PEER: Final = "not from a member"


class Header(NamedTuple):
    """What a node reports about itself on every message."""

    term: int
    flags: int
    sequence: int
    state_hash: int
    clock_ns: int
    rules: RulesVersions


class _Posted(NamedTuple):
    """A message that waits to be sent."""

    peer: int
    frame: bytes
    #: Whether the log has to be durable before it is sent.
    needs_sync: bool


class PeerTransport(Transport):  # type: ignore[misc]  # pysyncobj has no types
    """Everything but the network: envelopes, the outbox, connected peers."""

    #: Whether a node that is no peer can send messages to this one at all.
    accepts_unknown_peers = True

    def __init__(self, *, cluster: str, node_id: int, peers: Iterable[int], incarnation: int) -> None:
        """Set the cluster and the first peers; attach() must follow before the first message."""
        super().__init__(None, None, ())
        self.node_id = node_id
        self.dropped: Counter[str] = Counter()
        self._cluster = messages.cluster_number(cluster)
        self._incarnation = incarnation
        self._nodes = {peer: Node(peer) for peer in peers}
        self._incarnations = dict.fromkeys(self._nodes, 0)
        self._received_at: dict[int, float] = {}
        self._sent_at: dict[int, float] = {}
        self._connected: set[int] = set()
        self._outbox: list[_Posted] = []
        #: Answers to nodes that are no peers: (node, route, frame), each sent over the connection of the message.
        self._answers: list[tuple[int, object, bytes]] = []
        self._answered_at: dict[int, float] = {}
        #: Messages of this process so far.
        self._messages = 0
        self._leaving: list[int] = []
        #: By removed peer: its last incarnation. Messages of it are not accepted from a new node of the same id.
        self._retired: dict[int, int] = {}
        #: A higher incarnation of this node that peers know of, None if there is none.
        self.newer_incarnation: int | None = None

    def attach(
        self,
        *,
        header: Callable[[], Header],
        persist_term: Callable[[], None],
        persist: Callable[[], None],
        clock: Callable[[], float],
        hello_interval_seconds: float,
        peer_timeout_seconds: float,
        hello: Callable[[int], Body] = lambda peer: Hello(),
        unknown_peer: Callable[[Envelope], Body | None] = lambda envelope: None,
    ) -> None:
        """Set the replica's functions: its header, how to make it durable, its clock.

        `hello` makes the message for a peer that was sent nothing for an interval. `unknown_peer` gets the messages of
        nodes that are no peers, and may return an answer. A peer that sends nothing before the timeout is disconnected.
        """
        self._hello = hello
        self._unknown_peer = unknown_peer
        self._header = header
        self._persist_term = persist_term
        self._persist = persist
        self._clock = clock
        self._hello_interval_seconds = hello_interval_seconds
        self._peer_timeout_seconds = peer_timeout_seconds
        # The first tick sends a hello to every peer.
        self._sent_at = dict.fromkeys(self._nodes, clock() - hello_interval_seconds)

    def keys_fault(self, node: NodeConfig) -> str | None:
        """Return why a node's keys cannot be used on these links, None if they can."""
        return None if not node.public_keys else f"expected node {node.id} without keys, as the others are, found some"

    def add_peer(self, node: NodeConfig) -> None:
        """Exchange messages with one more node."""
        if node.id in self._leaving:
            self._leaving.remove(node.id)
            self._disconnect(node.id)
        self._nodes[node.id] = Node(node.id)
        self._incarnations[node.id] = 0
        self._sent_at[node.id] = self._clock() - self._hello_interval_seconds

    def remove_peer(self, peer: int, *, require_newer: bool) -> None:
        """Drop a peer: its messages are no longer accepted. What was posted to it before is still sent.

        `require_newer`: if the node id is used again, only messages of a higher incarnation are accepted.
        """
        if peer in self._connected:
            self._connected.discard(peer)
            self._onNodeDisconnected(self._nodes[peer])
        if require_newer:
            self._retired[peer] = max(self._retired.get(peer, 0), self._incarnations[peer])
        for known in (self._nodes, self._incarnations, self._sent_at, self._received_at):
            known.pop(peer, None)
        self._leaving.append(peer)

    def set_incarnation(self, incarnation: int) -> None:
        """Continue under another incarnation number, and send it to every peer."""
        self._incarnation = incarnation
        self.newer_incarnation = None
        self._sent_at = dict.fromkeys(self._nodes, self._clock() - self._hello_interval_seconds)

    def incarnation_of(self, peer: int) -> int:
        """Return the latest incarnation of a peer, 0 if it has sent nothing."""
        return self._incarnations[peer]

    def is_connected(self, peer: int) -> bool:
        """Whether the peer has sent something within its timeout."""
        return peer in self._connected

    def silent_seconds(self, peer: int) -> float | None:
        """Return the time since the last message of a peer, None if there was none."""
        received_at = self._received_at.get(peer)
        return None if received_at is None else max(0.0, self._clock() - received_at)

    def post(self, peer: int, body: Body) -> None:
        """Put a message into the outbox, with the header of this moment."""
        if peer not in self._nodes or (not self._incarnations[peer] and not isinstance(body, Hello | MembershipHint)):
            return
        self._sent_at[peer] = self._clock()
        frame = self._frame(self._incarnations[peer] or self._lowest_incarnation(peer), body)
        self._outbox.append(_Posted(peer, frame, not isinstance(body, AppendEntries)))

    def _frame(self, receiver_incarnation: int, body: Body) -> bytes:
        self._messages += 1
        header = self._header()
        envelope = Envelope(
            messages.PROTOCOL,
            self._cluster,
            self.node_id,
            self._incarnation,
            receiver_incarnation,
            header.term,
            header.flags,
            header.sequence,
            header.state_hash,
            header.clock_ns,
            self._messages,
            body,
            header.rules,
        )
        return messages.encode(envelope)

    def send(self, node: Node, message: Mapping[str, Any]) -> bool:
        """Put a message of the library into the outbox."""
        self.post(node.id, messages.from_library(message))
        return True

    def flush(self) -> None:
        """Make durable what the outbox acknowledges, and send it in order; what a peer cannot take now is lost.

        A leader's entries acknowledge nothing but its term. Those at the head of the outbox are sent before they are on
        this node's disk, and the followers write them at the same time (Ongaro's thesis, 10.2.1). The leader processes
        the replies only after flush() has returned, and so counts itself only for entries that it has written.
        """
        self._persist_term()
        outbox = self._outbox
        if outbox:
            self._outbox = []
            first = 0
            while first < len(outbox) and not outbox[first].needs_sync:
                first += 1
            if first:
                self._send_all(outbox[:first])
            self._persist()
            if first < len(outbox):
                self._send_all(outbox[first:])
        else:
            self._persist()
        if self._answers:
            answers, self._answers = self._answers, []
            for node, route, frame in answers:
                self._answer(node, route, frame)
        while self._leaving:
            self._disconnect(self._leaving.pop())

    def _send_all(self, posted: Sequence[_Posted]) -> None:
        for peer, frame, _ in posted:
            if not self._transmit(peer, frame):
                self.dropped["peer not ready"] += 1
        self._send_now()

    def receive(self, frame: bytes | memoryview, route: object = None) -> bool:
        """Handle one message from the network; return whether it was a valid one of a peer.

        `route` identifies the connection it came by.
        """
        envelope = messages.decode(frame)
        if isinstance(envelope, str):
            self.dropped[envelope] += 1
            return False
        fault = self._fault(envelope)
        if fault is not None:
            self.dropped[fault] += 1
            if fault == _UNKNOWN_PEER and self.accepts_unknown_peers:
                self._answer_unknown_peer(envelope, route)
            return False
        peer = envelope.sender
        self._incarnations[peer] = envelope.incarnation
        self._received_at[peer] = self._clock()
        if peer not in self._connected:
            self._connected.add(peer)
            self._onNodeConnected(self._nodes[peer])
        self._onMessageReceived(self._nodes[peer], envelope)
        return True

    def _answer_unknown_peer(self, envelope: Envelope, route: object) -> None:
        answer = self._unknown_peer(envelope)
        sender, now = envelope.sender, self._clock()
        if answer is not None and now - self._answered_at.get(sender, -_ANSWER_SECONDS) >= _ANSWER_SECONDS:
            self._answered_at[sender] = now
            self._answers.append((sender, route, self._frame(envelope.incarnation, answer)))

    def tick(self, now: float) -> None:
        """Send hellos that are due; disconnect peers that have timed out."""
        for peer, node in self._nodes.items():
            if now - self._sent_at[peer] >= self._hello_interval_seconds:
                self.post(peer, self._hello(peer))
            if peer in self._connected and now - self._received_at[peer] >= self._peer_timeout_seconds:
                self._connected.discard(peer)
                self._onNodeDisconnected(node)

    def next_deadline(self) -> float:
        """Return when the next hello is due."""
        return min(self._sent_at.values(), default=float("inf")) + self._hello_interval_seconds

    def destroy(self) -> None:
        """Close; the library's name for it."""
        self.close()

    def close(self) -> None:
        """Release the network."""

    def _transmit(self, peer: int, frame: bytes) -> bool:
        """Send a frame; return False if the peer cannot take it now."""
        raise NotImplementedError

    def _send_now(self) -> None:
        """Send what _transmit() has taken, if it only queues."""

    def _answer(self, node: int, route: object, frame: bytes) -> None:
        """Send a frame to a node that is no peer, over the connection of its message."""

    def _disconnect(self, peer: int) -> None:
        """Close the connection to a removed peer."""

    def _lowest_incarnation(self, peer: int) -> int:
        """Return the lowest incarnation of a peer that is accepted, 0 if any is."""
        retired = self._retired.get(peer, 0)
        return retired and retired + 1

    def _fault(self, envelope: Envelope) -> str | None:
        """Return why a message is dropped, None if it is not."""
        if envelope.cluster != self._cluster:
            return "of another cluster"
        if envelope.sender not in self._nodes:
            return _UNKNOWN_PEER
        if envelope.receiver_incarnation > self._incarnation:
            self.newer_incarnation = envelope.receiver_incarnation
        elif envelope.receiver_incarnation == self._incarnation:
            self.newer_incarnation = None
        lowest = max(self._incarnations[envelope.sender], self._lowest_incarnation(envelope.sender))
        if envelope.incarnation < lowest:
            return "from an earlier incarnation of the sender"
        if envelope.receiver_incarnation != self._incarnation and not isinstance(envelope.body, Hello | MembershipHint):
            return "for an earlier incarnation of this node"
        return None
