"""Messages between members, over ZeroMQ: a ROUTER bound at the own address, a DEALER to each peer.

Owns the sockets, the outbox of a turn, and who is connected. Bytes from the network are data, never code and never
an exception: what no member of this cluster can have meant for this life of this node is counted and dropped. No
threads, no waiting. Driven by the reactor: drain(), and flush(), which makes durable what the messages promise.

Delivery is first in, first out for each peer, and may lose: Raft sends again. Nothing is kept for a peer that is not
there, so a dead one costs no memory and a returning one hears nothing old.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import zmq
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from zmq.auth.thread import ThreadAuthenticator

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.keys import LinkKeys, generate, is_key
from smrx.consensus.messages import Acquaint, AppendEntries, Body, Envelope, Hello

log = logging.getLogger(__name__)

#: Messages of one direction and peer that may wait in ZeroMQ. Raft's own window stops before this for entries.
_HIGH_WATER_MARK: Final = 256
#: From here on ZeroMQ gets the bytes by reference; below, a copy costs less than keeping count. Measured on loopback:
#: 1 MiB takes 98 us copied and 39 us referenced, 256 KiB takes 28 us and 36 us.
_COPY_BELOW_BYTES: Final = 512 << 10
#: Who has not introduced himself by then is hung up on: a flood of connections that say nothing ebbs by itself.
_HANDSHAKE_MS: Final = 3_000
#: A peer that does not answer under one of its keys is tried under the next: it may be changing them.
_KEY_SECONDS: Final = 1.0
#: Who is no member is answered so often.
_STRANGER_SECONDS: Final = 1.0
_STRANGER: Final = "not from a member"
#: Answers of one node taken at a time.
_ANSWERS: Final = 4
#: What was sent and not acknowledged by the other machine for so long breaks the connection.
_UNACKNOWLEDGED_MS: Final = 2_000
#: A caller from whom nothing comes is asked for a sign of life so often, and so many times before it is given up.
_PROBE_SECONDS: Final = 10
_PROBES: Final = 3
#: For what a node that is removed is told last.
_LAST_WORDS_MS: Final = 500
ZAP_DOMAIN: Final = "raft"


class Header(NamedTuple):
    """What a node says of itself on every message."""

    term: int
    flags: int
    sequence: int
    state_hash: int


class _Posted(NamedTuple):
    """A message that waits to leave."""

    peer: int
    frame: bytes
    #: Whether it says that something is on this node's disk.
    promises: bool


class PeerTransport(Transport):  # type: ignore[misc]  # pysyncobj has no types
    """Everything but the network: envelopes, the outbox, who lives."""

    #: Whether nodes that this one does not know can speak to it at all.
    hears_strangers = True

    def __init__(self, *, cluster: str, node_id: int, peers: Iterable[int], incarnation: int) -> None:
        """Know the cluster; attach() must follow before the first message."""
        super().__init__(None, None, ())
        self.node_id = node_id
        self.dropped: Counter[str] = Counter()
        self._cluster = messages.cluster_number(cluster)
        self._incarnation = incarnation
        self._nodes = {peer: Node(peer) for peer in peers}
        self._incarnations = dict.fromkeys(self._nodes, 0)
        self._heard: dict[int, float] = {}
        self._sent: dict[int, float] = {}
        self._connected: set[int] = set()
        self._outbox: list[_Posted] = []
        #: What strangers are told, each over the connection it came by.
        self._answers: list[tuple[int, bytes, bytes]] = []
        self._answered: dict[int, float] = {}
        self._leaving: list[int] = []
        #: By node that was gone: its latest life. What it said is no word of one that has its number now.
        self._outlived: dict[int, int] = {}
        #: The latest life of this node that others know, if it is one this node knows nothing of.
        self.later_life: int | None = None

    def attach(
        self,
        *,
        header: Callable[[], Header],
        persist_term: Callable[[], None],
        persist: Callable[[], None],
        clock: Callable[[], float],
        hello_seconds: float,
        silence_seconds: float,
        greeting: Callable[[int], Body] = lambda peer: Hello(),
        stranger: Callable[[Envelope], Body | None] = lambda envelope: None,
    ) -> None:
        """Meet the replica: who it is now, how to make its promises durable, its clock and its patience.

        `greeting` is what a peer is told that heard nothing for a while. `stranger` hears what no peer says, and may
        have an answer.
        """
        self._greeting = greeting
        self._stranger = stranger
        self._header = header
        self._persist_term = persist_term
        self._persist = persist
        self._clock = clock
        self._hello_seconds = hello_seconds
        self._silence_seconds = silence_seconds
        # The first tick greets everybody.
        self._sent = dict.fromkeys(self._nodes, clock() - hello_seconds)

    def keys_fault(self, node: NodeConfig) -> str | None:
        """What keeps a node's keys from being used on these links; None if nothing."""
        return None if not node.public_keys else f"expected node {node.id} without keys, as the others are, found some"

    def meet(self, node: NodeConfig) -> None:
        """Know one node more, and listen and speak to it from now on."""
        if node.id in self._leaving:
            self._leaving.remove(node.id)
            self._hang_up(node.id)
        self._nodes[node.id] = Node(node.id)
        self._incarnations[node.id] = 0
        self._sent[node.id] = self._clock() - self._hello_seconds

    def part(self, peer: int, *, outlived: bool) -> None:
        """Know a node no more: what it says is not from a member. What it was to be told by now still leaves.

        `outlived`: should its number come again, it is a later life that is heard.
        """
        if peer in self._connected:
            self._connected.discard(peer)
            self._onNodeDisconnected(self._nodes[peer])
        if outlived:
            self._outlived[peer] = max(self._outlived.get(peer, 0), self._incarnations[peer])
        for known in (self._nodes, self._incarnations, self._sent, self._heard):
            known.pop(peer, None)
        self._leaving.append(peer)

    def begin_life(self, incarnation: int) -> None:
        """This node goes on under the number of another life, and everybody is to know."""
        self._incarnation = incarnation
        self.later_life = None
        self._sent = dict.fromkeys(self._nodes, self._clock() - self._hello_seconds)

    def incarnation_of(self, peer: int) -> int:
        """The latest life of a peer, 0 if it was never heard."""
        return self._incarnations[peer]

    def is_connected(self, peer: int) -> bool:
        """Whether the peer was heard lately."""
        return peer in self._connected

    def silent_seconds(self, peer: int) -> float | None:
        """How long ago the peer was heard, None if never."""
        heard = self._heard.get(peer)
        return None if heard is None else max(0.0, self._clock() - heard)

    def post(self, peer: int, body: Body) -> None:
        """Put a message into the outbox, stamped with what is true now."""
        if peer not in self._nodes or (not self._incarnations[peer] and not isinstance(body, Hello | Acquaint)):
            return
        self._sent[peer] = self._clock()
        frame = self._frame(self._incarnations[peer] or self._first_life(peer), body)
        self._outbox.append(_Posted(peer, frame, not isinstance(body, AppendEntries)))

    def _frame(self, life: int, body: Body) -> bytes:
        envelope = Envelope(
            messages.PROTOCOL, self._cluster, self.node_id, self._incarnation, life, *self._header(), body
        )
        return messages.encode(envelope)

    def send(self, node: Node, message: Mapping[str, Any]) -> bool:
        """Put a message of the library into the outbox."""
        self.post(node.id, messages.from_library(message))
        return True

    def flush(self) -> None:
        """Make durable what the outbox promises, and send it in its order; what a peer cannot take now is lost.

        A leader's entries promise nothing but its term. Where they stand first they leave before they are on its own
        disk, and its followers write them at the same time (Ongaro's thesis, 10.2.1). It looks at their answers when
        this has returned: by then it has written what they acknowledge, and may count itself.
        """
        self._persist_term()
        outbox, self._outbox = self._outbox, []
        first = next((at for at, posted in enumerate(outbox) if posted.promises), len(outbox))
        self._send_all(outbox[:first])
        self._persist()
        self._send_all(outbox[first:])
        answers, self._answers = self._answers, []
        for stranger, route, frame in answers:
            self._respond(stranger, route, frame)
        while self._leaving:
            self._hang_up(self._leaving.pop())

    def _send_all(self, posted: Sequence[_Posted]) -> None:
        for peer, frame, _ in posted:
            if not self._transmit(peer, frame):
                self.dropped["peer not ready"] += 1

    def receive(self, frame: bytes, route: bytes = b"") -> None:
        """Take one message from the network, whatever it is; `route` leads back to where it came from."""
        envelope = messages.decode(frame)
        if isinstance(envelope, str):
            self.dropped[envelope] += 1
            return
        fault = self._fault(envelope)
        if fault is not None:
            self.dropped[fault] += 1
            if fault == _STRANGER and self.hears_strangers:
                self._meet_stranger(envelope, route)
            return
        peer = envelope.sender
        self._incarnations[peer] = envelope.incarnation
        self._heard[peer] = self._clock()
        if peer not in self._connected:
            self._connected.add(peer)
            self._onNodeConnected(self._nodes[peer])
        self._onMessageReceived(self._nodes[peer], envelope)

    def _meet_stranger(self, envelope: Envelope, route: bytes) -> None:
        """What strangers say changes nothing here; one that takes itself for a member may be told otherwise."""
        answer = self._stranger(envelope)
        sender, now = envelope.sender, self._clock()
        if answer is not None and now - self._answered.get(sender, -_STRANGER_SECONDS) >= _STRANGER_SECONDS:
            self._answered[sender] = now
            self._answers.append((sender, route, self._frame(envelope.incarnation, answer)))

    def tick(self, now: float) -> None:
        """Greet whoever has heard nothing for a while; give up on whoever was not heard."""
        for peer, node in self._nodes.items():
            if now - self._sent[peer] >= self._hello_seconds:
                self.post(peer, self._greeting(peer))
            if peer in self._connected and now - self._heard[peer] >= self._silence_seconds:
                self._connected.discard(peer)
                self._onNodeDisconnected(node)

    def next_deadline(self) -> float:
        """When tick() has something to do again."""
        return min(self._sent.values(), default=float("inf")) + self._hello_seconds

    def destroy(self) -> None:
        """The library's name for close()."""
        self.close()

    def close(self) -> None:
        """Let the network go."""

    def _transmit(self, peer: int, frame: bytes) -> bool:
        raise NotImplementedError

    def _respond(self, stranger: int, route: bytes, frame: bytes) -> None:
        """Answer a node that is no peer, if it can be."""

    def _hang_up(self, peer: int) -> None:
        """Nothing more will be sent to a node."""

    def _first_life(self, peer: int) -> int:
        """The earliest life of a peer that can be heard, 0 if it may be any."""
        outlived = self._outlived.get(peer, 0)
        return outlived and outlived + 1

    def _fault(self, envelope: Envelope) -> str | None:
        if envelope.cluster != self._cluster:
            return "of another cluster"
        if envelope.sender not in self._nodes:
            return _STRANGER
        if envelope.receiver_incarnation > self._incarnation:
            self.later_life = envelope.receiver_incarnation
        elif envelope.receiver_incarnation == self._incarnation:
            self.later_life = None
        earliest = max(self._incarnations[envelope.sender], self._first_life(envelope.sender))
        if envelope.incarnation < earliest:
            return "from an earlier life of the sender"
        if envelope.receiver_incarnation != self._incarnation and not isinstance(envelope.body, Hello | Acquaint):
            return "for an earlier life of this node"
        return None


class ZmqTransport(PeerTransport):
    """The mesh between processes."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        *,
        cluster: str,
        node_id: int,
        bind: str,
        peers: Mapping[int, str],
        incarnation: int,
        keys: LinkKeys | None = None,
    ) -> None:
        """Bind and connect; raises zmq.ZMQError where `bind` is taken.

        With `keys`, only their holders are heard and spoken to; the context must be this node's own.
        """
        super().__init__(cluster=cluster, node_id=node_id, peers=peers, incarnation=incarnation)
        self._outgoing: dict[int, zmq.Socket[bytes]] = {}
        self._addresses = dict(peers)
        self._context = context
        self._keys = keys
        # Their connections are refused; and who holds a known key and claims another number is none to listen to.
        self.hears_strangers = keys is None
        self._key_number: dict[int, int] = {}
        self._next_key_at = 0.0
        self._members = None if keys is None else AllowList(keys)
        self._doorman = None if self._members is None else _doorman(context, self._members)
        self._inbox = context.socket(zmq.ROUTER)
        try:
            _limit(self._inbox)
            self._inbox.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            # Nothing is said where others call from: a caller that vanished without a word is noticed by this alone.
            self._inbox.tcp_keepalive = 1
            self._inbox.tcp_keepalive_idle = self._inbox.tcp_keepalive_intvl = _PROBE_SECONDS
            self._inbox.tcp_keepalive_cnt = _PROBES
            if keys is not None:
                self._inbox.curve_secretkey = keys.own.secret.encode("ascii")
                self._inbox.curve_publickey = keys.own.public.encode("ascii")
                self._inbox.curve_server = True
                self._inbox.zap_domain = ZAP_DOMAIN.encode("ascii")
            self._inbox.bind(bind)
        except zmq.ZMQError:
            self.close()
            raise
        for peer, address in peers.items():
            self._connect(peer, address)

    def _connect(self, peer: int, address: str) -> None:
        socket = self._context.socket(zmq.DEALER)
        _limit(socket)
        # Queue for living connections only: messages to a dead peer are lost at once, not delivered late.
        socket.immediate = True
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 500
        # A peer behind a broken network is noticed soon: something is always on its way to it. Not by ZeroMQ's own
        # heartbeats: libzmq 4.3.5 aborts the process when their timer meets a connection that broke while its input was
        # stopped (assertion !_io_error in out_event of stream_engine_base.cpp).
        socket.tcp_maxrt = _UNACKNOWLEDGED_MS
        self._addresses[peer] = address
        self._key_number[peer] = 0
        self._outgoing[peer] = socket
        self._call(peer)

    def _call(self, peer: int) -> None:
        """Connect to where a peer is said to listen; one that cannot be there is as good as dead."""
        self._introduce(peer)
        try:
            self._outgoing[peer].connect(self._addresses[peer])
        except zmq.ZMQError as error:
            log.error("node %d: cannot connect to node %d: %s", self.node_id, peer, error)

    def keys_fault(self, node: NodeConfig) -> str | None:
        """As PeerTransport; with keys on these links the node needs some."""
        if self._keys is None:
            return super().keys_fault(node)
        if node.public_keys and all(map(is_key, node.public_keys)):
            return None
        return f"expected keys of node {node.id}, as the others have, found no usable one; see smrx cluster keygen"

    def meet(self, node: NodeConfig) -> None:
        """As PeerTransport; and connect to it, under its keys where this node has one."""
        super().meet(node)
        if self._keys is not None:
            self._keys.peers[node.id] = node.public_keys
        self._connect(node.id, node.raft_address)

    def _hang_up(self, peer: int) -> None:
        self._outgoing.pop(peer).close(linger=_LAST_WORDS_MS)
        del self._addresses[peer], self._key_number[peer]
        if self._keys is not None:
            del self._keys.peers[peer]

    @property
    def sockets(self) -> "list[zmq.Socket[bytes]]":
        """What to poll for reading."""
        return [self._inbox]

    def _introduce(self, peer: int) -> None:
        """Set the keys under which the next connection to a peer is made."""
        if self._keys is None:
            return
        # Without a key of its own it is called under nobody's, and not reached.
        known = self._keys.peers[peer] or (generate().public,)
        socket = self._outgoing[peer]
        socket.curve_secretkey = self._keys.own.secret.encode("ascii")
        socket.curve_publickey = self._keys.own.public.encode("ascii")
        socket.curve_serverkey = known[self._key_number[peer] % len(known)].encode("ascii")

    def tick(self, now: float) -> None:
        """As PeerTransport; and try again, under its next key, what a peer refused: it may know this node by now."""
        super().tick(now)
        for socket in tuple(self._outgoing.values()):
            # Nobody but one that takes this node for a stranger answers where it was called.
            for _ in range(_ANSWERS):
                # What one says may end the connection to another, or its own.
                if socket.closed or not has_message(socket):
                    break
                self.receive(socket.recv(zmq.DONTWAIT))
        if self._keys is None or now < self._next_key_at:
            return
        self._next_key_at = now + _KEY_SECONDS
        for peer in self._outgoing:
            if not self._reached(peer):
                self._key_number[peer] += 1
                with contextlib.suppress(zmq.ZMQError):
                    self._outgoing[peer].disconnect(self._addresses[peer])
                self._call(peer)

    def _reached(self, peer: int) -> bool:
        """Whether a message to the peer can leave: its side of the handshake was done."""
        return bool(cast(int, self._outgoing[peer].getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def drain(self, max_messages: int) -> int:
        """Take what has arrived, up to a number of messages; return how many there were."""
        for count in range(max_messages):
            if not has_message(self._inbox):
                return count
            parts = self._inbox.recv_multipart(zmq.DONTWAIT)
            if len(parts) == 2:
                self.receive(parts[1], parts[0])
            else:
                self.dropped["undecodable"] += 1
        return max_messages

    def close(self) -> None:
        """Close every socket without waiting."""
        for socket in (self._inbox, *self._outgoing.values()):
            socket.close(linger=0)
        if self._doorman is not None:
            self._doorman.stop()
            self._doorman = None

    def _respond(self, stranger: int, route: bytes, frame: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._inbox.send_multipart((route, frame), zmq.DONTWAIT)

    def _transmit(self, peer: int, frame: bytes) -> bool:
        try:
            self._outgoing[peer].send(frame, zmq.DONTWAIT, copy=len(frame) < _COPY_BELOW_BYTES)
        except zmq.Again:
            return False
        return True


class AllowList:
    """Answers ZeroMQ's question who may come in: holders of the cluster file's keys."""

    def __init__(self, keys: LinkKeys) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the holder of a public key, in Z85, is a member."""
        # Asked by another thread: a copy, for members come and go.
        known = {public for peer in tuple(self._keys.peers.values()) for public in peer}
        return domain == ZAP_DOMAIN and key.decode("ascii", "replace") in known


def _doorman(context: "zmq.Context[zmq.Socket[bytes]]", members: AllowList) -> ThreadAuthenticator:
    """A started authenticator; there can be one a context."""
    doorman = ThreadAuthenticator(context)
    doorman.start()
    doorman.configure_curve_callback(domain=ZAP_DOMAIN, credentials_provider=members)
    return doorman


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Whether a message can be read at once."""
    # A fraction of the price of poll(), and of the exception that says there is nothing.
    return bool(cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _limit(socket: "zmq.Socket[bytes]") -> None:
    socket.linger = 0
    socket.sndhwm = _HIGH_WATER_MARK
    socket.rcvhwm = _HIGH_WATER_MARK
    # ZeroMQ hangs up on a connection that announces more, before it makes room for it.
    socket.maxmsgsize = messages.MAX_MESSAGE_BYTES
