"""The members' mesh over ZeroMQ: a ROUTER bound at the own address, a DEALER to each peer.

Owns the sockets and, with keys, whom a connection lets in; what a message means, and whether it is a member's,
transport says. Driven by the reactor: drain(), tick() and flush(). No waiting; with keys a thread of ZeroMQ's asks the
list of members.
"""

import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import Final, cast

import zmq
from zmq.auth.thread import ThreadAuthenticator

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.keys import LinkKeys, generate, is_key
from smrx.consensus.messages import Envelope
from smrx.consensus.transport import PeerTransport
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

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
#: Answers of one node taken at a time.
_ANSWERS: Final = 4
#: What was sent and not acknowledged by the other machine for so long breaks the connection.
_UNACKNOWLEDGED_MS: Final = 2_000
#: For what a node that is removed is told last.
_LAST_WORDS_MS: Final = 500
ZAP_DOMAIN: Final = "raft"


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
        # Their connections are refused.
        self.accepts_unknown_peers = keys is None
        #: Who can be the sender of the message being taken; None where there are no keys.
        self._speakers: Collection[int] | None = None
        self._key_number: dict[int, int] = {}
        self._next_key_at = 0.0
        self._members = None if keys is None else AllowList(keys)
        self._doorman = None if self._members is None else _doorman(context, self._members)
        self._inbox = context.socket(zmq.ROUTER)
        try:
            _limit(self._inbox)
            self._inbox.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            enable_tcp_keepalive(self._inbox)
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

    def add_peer(self, node: NodeConfig) -> None:
        """As PeerTransport; and connect to it, under its keys where this node has one."""
        super().add_peer(node)
        if self._keys is not None:
            self._keys.peers[node.id] = node.public_keys
        self._connect(node.id, node.raft_address)

    def _disconnect(self, peer: int) -> None:
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
        for peer, socket in tuple(self._outgoing.items()):
            self._speakers = None if self._keys is None else (peer,)
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
            parts = self._take()
            if len(parts) == 2:
                self.receive(parts[1], parts[0])
            else:
                self.dropped["undecodable"] += 1
        return max_messages

    def _take(self) -> list[bytes]:
        """The next message of the inbox; who can have sent it is noted."""
        if self._keys is None:
            return self._inbox.recv_multipart(zmq.DONTWAIT)
        frames = self._inbox.recv_multipart(zmq.DONTWAIT, copy=False)
        self._speakers = self._holders(str(frames[-1].get("User-Id")))
        return [frame.bytes for frame in frames]

    def _holders(self, key: str) -> list[int]:
        """Whose public key this is."""
        assert self._keys is not None
        return [peer for peer, public in self._keys.peers.items() if key in public]

    def _fault(self, envelope: Envelope) -> str | None:
        """As PeerTransport; and a key is one member's: nobody speaks in the name of another."""
        if self._speakers is not None and envelope.sender not in self._speakers:
            return "under a key that is not the sender's"
        return super()._fault(envelope)

    def close(self) -> None:
        """Close every socket without waiting."""
        for socket in (self._inbox, *self._outgoing.values()):
            socket.close(linger=0)
        if self._doorman is not None:
            self._doorman.stop()
            self._doorman = None

    def _answer(self, node: int, route: bytes, frame: bytes) -> None:
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
