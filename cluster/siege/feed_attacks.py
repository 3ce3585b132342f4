"""Attack the event feed: subscriptions without end, old events without end, subscribers that do not read."""

import time
from typing import Final

import zmq

from cluster.siege.attack_target import Attacker
from cluster.siege.port_attacks import dealer, try_send, zmq_context
from cluster.siege.zmtp_connection import ZmtpConnection
from smrx.feed.subscription import MAX_CREDIT, Subscription, credit_frame
from smrx.wire import frames
from smrx.wire.frames import MAX_ACCOUNTS, FrameError, FrameKind

#: Bytes of subscriptions of one connection.
_SUBSCRIPTION_BYTES: Final = 16 << 20
#: Connections that subscribe, on each node: more than a node accepts.
_SUBSCRIBERS: Final = 200
_READERS: Final = 4


def subscriptions(attacker: Attacker) -> None:
    """Subscribe to many accounts from many connections to every node, again and again, and read nothing."""
    frame = Subscription(0, MAX_CREDIT, frozenset(range(1, MAX_ACCOUNTS + 1))).frame()
    # As a subscriber of a PUB socket would, without end.
    topics = b"".join(b"\0\x40" + (b"\x01%016x" % topic).ljust(64, b".") for topic in range(1000))
    with zmq_context() as context:
        held = [
            dealer(context, node.events_address, reads=False)
            for node in attacker.config.nodes
            for _ in range(attacker.scaled(_SUBSCRIBERS))
        ]
        while attacker.running:
            flooding = [ZmtpConnection(node.events_address, "SUB") for node in attacker.config.nodes]
            for _ in range(max(1, attacker.scaled(_SUBSCRIPTION_BYTES) // len(topics))):
                for connection in flooding:
                    if attacker.running:
                        connection.send_bytes(topics)
                attacker.report.sent += sum(try_send(to, frame) for to in held)
            for connection in flooding:
                connection.close()


def retransmission(attacker: Attacker) -> None:
    """Ask the leader for its oldest events again and again, with all credit that it takes, and read them."""
    _follow_again(attacker, reads=True)
    attacker.report.note = f"{attacker.report.received >> 20} MiB of events sent again"


def unread_retransmission(attacker: Attacker) -> None:
    """Ask every node for its oldest events from many connections, claim to consume them, and read nothing."""
    _follow_again(attacker, reads=False)


def stalled_readers(attacker: Attacker) -> None:
    """Subscribe to every event of every node, keep the subscription, and read nothing."""
    with zmq_context() as context:
        held = [
            dealer(context, node.events_address, reads=False) for node in attacker.config.nodes for _ in range(_READERS)
        ]
        attacker.report.sent = sum(try_send(to, Subscription(1, MAX_CREDIT).frame()) for to in held)
        while attacker.running:
            attacker.wait(0.5)
            attacker.report.sent += sum(try_send(to, credit_frame(MAX_CREDIT)) for to in held)


def _follow_again(attacker: Attacker, *, reads: bool) -> None:
    nodes = [attacker.leader] if reads else attacker.config.nodes
    with zmq_context() as context:
        sockets = [
            dealer(context, node.events_address, reads=reads)
            for node in nodes
            for _ in range(_READERS if reads else attacker.scaled(16))
        ]
        oldest = 1
        while attacker.running:
            again = Subscription(oldest, MAX_CREDIT).frame()
            retransmit = frames.encode(FrameKind.RETRANSMIT, correlation=oldest, aux=0)
            sent = sum(try_send(to, frame) for to in sockets for frame in (again, retransmit, credit_frame(MAX_CREDIT)))
            attacker.report.sent += sent
            for to in sockets if reads else ():
                oldest = max(oldest, _read_all(attacker, to))
            time.sleep(0.0005 if sent else 0.002)


def _read_all(attacker: Attacker, to: "zmq.Socket[bytes]") -> int:
    """Read what has arrived; return the oldest event that the node says it holds."""
    oldest = 1
    while attacker.running and to.poll(0):
        data = to.recv()
        attacker.report.received += len(data)
        try:
            frame = frames.decode(data)
        except FrameError:
            continue
        if frame.kind is FrameKind.UNAVAILABLE:
            oldest = frame.correlation
    return oldest
