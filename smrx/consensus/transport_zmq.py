"""Connect the members over ZeroMQ: a ROUTER bound at the node's own address, a DEALER to each peer.

Owns the sockets and, with keys, which connections are accepted; transport decides whether a message is a member's.
Driven by the reactor: drain(), tick() and flush(). Nothing blocks. With keys the node's ZAP handler (zap.py) asks this
transport which keys may connect to its socket: those of the members.
"""

import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import Final, cast

import zmq

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.keys import LinkKeys
from smrx.consensus.messages import Envelope
from smrx.consensus.transport import PeerTransport
from smrx.consensus.zap import HANDSHAKE_MS, ZapHandler
from smrx.key_files import generate, is_key
from smrx.wire import tcp_address
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

log = logging.getLogger(__name__)

#: Messages that may be queued in ZeroMQ for each direction and peer. Raft's own window is smaller for entries.
_HIGH_WATER_MARK: Final = 256
#: Messages that may be queued for one connection to this node. Any process of the machine can open connections to a
#: node without keys, and each can fill its queue with the largest messages.
_RECEIVE_HIGH_WATER_MARK: Final = 32
#: Messages of no peer that are read in one turn. ZeroMQ reads the connections in turns, so those of peers are read
#: beside them; the loop has to return to its clients.
UNKNOWN_PER_TURN: Final = 32
#: From here on ZeroMQ gets the bytes by reference; below, a copy costs less than the reference. Measured on loopback:
#: 1 MiB takes 98 us copied and 39 us referenced, 256 KiB takes 28 us and 36 us.
_COPY_BELOW_BYTES: Final = 512 << 10
#: A peer that cannot be reached with one of its keys is tried with the next after this time: it may be changing them.
_KEY_SECONDS: Final = 1.0
#: Answers read from one node at a time.
_ANSWERS: Final = 4
#: A connection is closed when the other machine has not acknowledged TCP data for this time.
_UNACKNOWLEDGED_MS: Final = 2_000
#: How long the last message to a removed node may take.
_LINGER_MS: Final = 500
ZAP_DOMAIN: Final = "raft"


class ZmqTransport(PeerTransport):
    """A PeerTransport over ZeroMQ sockets."""

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
        zap: ZapHandler | None = None,
    ) -> None:
        """Bind and connect; raises zmq.ZMQError if `bind` is in use.

        With `keys`, only their holders can connect; `zap` is then the handler of the context, which the caller runs.
        """
        super().__init__(cluster=cluster, node_id=node_id, peers=peers, incarnation=incarnation)
        self._outgoing: dict[int, zmq.Socket[bytes]] = {}
        self._addresses = dict(peers)
        self._context = context
        self._keys = keys
        # With keys their connections are refused.
        self.accepts_unknown_peers = keys is None
        #: The nodes that can have sent the message in hand, by its key; None without keys.
        self._allowed_senders: Collection[int] | None = None
        self._key_number: dict[int, int] = {}
        self._next_key_at = 0.0
        self._inbox = context.socket(zmq.ROUTER)
        try:
            _limit(self._inbox)
            self._inbox.rcvhwm = _RECEIVE_HIGH_WATER_MARK
            self._inbox.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
            enable_tcp_keepalive(self._inbox)
            if keys is not None:
                assert zap is not None, "links with keys need a ZAP handler"
                zap.serve(self._inbox, ZAP_DOMAIN, keys.own, self._user)
            tcp_address.bind(self._inbox, bind)
        except zmq.ZMQError:
            self.close()
            raise
        for peer, address in peers.items():
            self._connect(peer, address)

    def _connect(self, peer: int, address: str) -> None:
        socket = self._context.socket(zmq.DEALER)
        _limit(socket)
        # Queue for open connections only: messages to a dead peer are lost at once, not delivered late.
        socket.immediate = True
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 500
        # Detects a broken network soon, because something is always being sent. ZeroMQ's own heartbeats cannot be used:
        # libzmq 4.3.5 aborts the process if their timer meets a connection that broke while its input was stopped
        # (assertion !_io_error in out_event of stream_engine_base.cpp).
        socket.tcp_maxrt = _UNACKNOWLEDGED_MS
        self._addresses[peer] = address
        self._key_number[peer] = 0
        self._outgoing[peer] = socket
        self._connect_socket(peer)

    def _connect_socket(self, peer: int) -> None:
        """Connect to a peer's address; a peer with an invalid address is treated as dead."""
        self._set_keys(peer)
        try:
            tcp_address.connect(self._outgoing[peer], self._addresses[peer])
        except zmq.ZMQError as error:
            log.error("node %d: cannot connect to node %d: %s", self.node_id, peer, error)

    def keys_fault(self, node: NodeConfig) -> str | None:
        """As PeerTransport; with keys on these links a node needs valid ones."""
        if self._keys is None:
            return super().keys_fault(node)
        if node.public_keys and all(map(is_key, node.public_keys)):
            return None
        return f"node {node.id} has no valid public key, but this cluster uses keys; see smrx cluster keygen"

    def add_peer(self, node: NodeConfig) -> None:
        """As PeerTransport; also connect to it, with its keys if this node has one."""
        super().add_peer(node)
        if self._keys is not None:
            self._keys.peers[node.id] = node.public_keys
        self._connect(node.id, node.raft_address)

    def _disconnect(self, peer: int) -> None:
        self._outgoing.pop(peer).close(linger=_LINGER_MS)
        del self._addresses[peer], self._key_number[peer]
        if self._keys is not None:
            del self._keys.peers[peer]

    @property
    def sockets(self) -> "list[zmq.Socket[bytes]]":
        """The sockets to poll for reading."""
        return [self._inbox]

    def _set_keys(self, peer: int) -> None:
        """Set the keys of the next connection to a peer."""
        if self._keys is None:
            return
        # A peer without a key is connected to with a random one, which fails.
        known = self._keys.peers[peer] or (generate().public,)
        socket = self._outgoing[peer]
        socket.curve_secretkey = self._keys.own.secret.encode("ascii")
        socket.curve_publickey = self._keys.own.public.encode("ascii")
        socket.curve_serverkey = known[self._key_number[peer] % len(known)].encode("ascii")

    def tick(self, now: float) -> None:
        """As PeerTransport; also reconnect, with the next key, to peers that are not reachable."""
        super().tick(now)
        for peer, socket in tuple(self._outgoing.items()):
            self._allowed_senders = None if self._keys is None else (peer,)
            # Only a node for which this one is an unknown peer answers on the connection of the message.
            for _ in range(_ANSWERS):
                # A message may remove this peer or another one, and close its socket.
                if socket.closed or not has_message(socket):
                    break
                self.receive(socket.recv(zmq.DONTWAIT))
        if self._keys is None or now < self._next_key_at:
            return
        self._next_key_at = now + _KEY_SECONDS
        for peer in self._outgoing:
            if not self._is_reachable(peer):
                self._key_number[peer] += 1
                with contextlib.suppress(zmq.ZMQError):
                    self._outgoing[peer].disconnect(self._addresses[peer])
                self._connect_socket(peer)

    def _is_reachable(self, peer: int) -> bool:
        """Return whether a message to the peer can be sent: the handshake is complete."""
        return bool(cast(int, self._outgoing[peer].getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def drain(self, max_messages: int) -> int:
        """Receive up to a number of messages, few of them from nodes that are no peers; return how many there were."""
        unknown = 0
        for count in range(max_messages):
            if not has_message(self._inbox):
                return count
            parts = self._take()
            if len(parts) != 2:
                self.dropped["undecodable"] += 1
            elif self.receive(parts[1], parts[0]):
                continue
            unknown += 1
            if unknown == UNKNOWN_PER_TURN:
                return count + 1
        return max_messages

    def _take(self) -> list[bytes]:
        """Read the next message of the inbox, and set which nodes can have sent it."""
        if self._keys is None:
            return self._inbox.recv_multipart(zmq.DONTWAIT)
        frames = self._inbox.recv_multipart(zmq.DONTWAIT, copy=False)
        assert self._keys is not None
        self._allowed_senders = holders_of(self._keys, str(frames[-1].get("User-Id")))
        return [frame.bytes for frame in frames]

    def _user(self, key: str, address: str) -> str | None:
        """Return the user id of a key that connects: the key itself if it is a peer's, else None."""
        assert self._keys is not None
        return key if holders_of(self._keys, key) else None

    def _fault(self, envelope: Envelope) -> str | None:
        """As PeerTransport; also drop a message whose sender does not hold the connection's key."""
        if self._allowed_senders is not None and envelope.sender not in self._allowed_senders:
            return "under a key that is not the sender's"
        return super()._fault(envelope)

    def close(self) -> None:
        """Close every socket without blocking."""
        for socket in (self._inbox, *self._outgoing.values()):
            socket.close(linger=0)

    def _answer(self, node: int, route: bytes, frame: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._inbox.send_multipart((route, frame), zmq.DONTWAIT)

    def _transmit(self, peer: int, frame: bytes) -> bool:
        try:
            self._outgoing[peer].send(frame, zmq.DONTWAIT, copy=len(frame) < _COPY_BELOW_BYTES)
        except zmq.Again:
            return False
        return True


def holders_of(keys: LinkKeys, key: str) -> list[int]:
    """Return the peers with this public key: they may connect, and a message under it is from one of them."""
    return [peer for peer, public in keys.peers.items() if key in public]


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Return whether a message can be read at once."""
    # A fraction of the cost of poll(), and of the exception that recv() raises if there is none.
    return bool(cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _limit(socket: "zmq.Socket[bytes]") -> None:
    socket.linger = 0
    socket.sndhwm = _HIGH_WATER_MARK
    socket.rcvhwm = _HIGH_WATER_MARK
    # ZeroMQ closes a connection that announces a larger message, before it allocates memory for it.
    socket.maxmsgsize = messages.MAX_MESSAGE_BYTES
