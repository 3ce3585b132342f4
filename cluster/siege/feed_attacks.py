"""Attack the event feed: subscriptions without end, retransmission, subscribers that do not read."""

import time
from typing import Final

import zmq

from cluster.siege.attack_target import Attacker
from cluster.siege.port_attacks import dealer, try_send, zmq_context
from cluster.siege.zmtp_connection import ZmtpConnection
from smrx.feed.retransmission import MAX_ANSWER_EVENTS
from smrx.wire import frames
from smrx.wire.frames import FrameKind

#: Bytes of subscriptions of one connection, and the length of each.
_SUBSCRIPTION_BYTES: Final = 16 << 20
_TOPIC: Final = 64
_STALLED_READERS: Final = 4
_CONNECTIONS: Final = 4


def subscriptions(attacker: Attacker) -> None:
    """Subscribe to many different things on every node, from one connection each."""
    while attacker.running:
        held = []
        for node in attacker.config.nodes:
            connection = ZmtpConnection(node.events_address, "SUB")
            number = 0
            while connection.is_open and attacker.running and number * _TOPIC < attacker.scaled(_SUBSCRIPTION_BYTES):
                topics = range(number, number + 1000)
                connection.send_bytes(
                    b"".join(b"\0" + bytes((_TOPIC,)) + (b"\x01%016x" % topic).ljust(_TOPIC, b".") for topic in topics)
                )
                number += 1000
            attacker.report.sent += number
            held.append(connection)
        attacker.wait(0.5)
        for connection in held:
            connection.close()


def retransmission(attacker: Attacker) -> None:
    """Ask the leader for its events again and again, and read the answers."""
    request = frames.encode(FrameKind.RETRANSMIT, correlation=1, aux=MAX_ANSWER_EVENTS)
    with zmq_context() as context:
        sockets = [dealer(context, attacker.leader.retransmit_address) for _ in range(_CONNECTIONS)]
        oldest = 1
        while attacker.running:
            sent = sum(try_send(to, request) for to in sockets)
            attacker.report.sent += sent
            for to in sockets:
                while attacker.running and to.poll(0):
                    data = to.recv()
                    attacker.report.received += len(data)
                    frame = frames.decode(data)
                    if frame.kind is FrameKind.UNAVAILABLE and frame.correlation != oldest:
                        oldest = frame.correlation
                        request = frames.encode(FrameKind.RETRANSMIT, correlation=oldest, aux=0)
            if not sent:
                time.sleep(0.0005)
    attacker.report.note = f"{attacker.report.received >> 20} MiB of events sent again"


def stalled_readers(attacker: Attacker) -> None:
    """Subscribe to every event on every node, and read nothing."""
    held = []
    for node in attacker.config.nodes:
        for _ in range(_STALLED_READERS):
            connection = ZmtpConnection(node.events_address, "SUB")
            connection.limit_receive_buffer(4096)
            connection.message(b"\x01")
            held.append(connection)
    attacker.report.sent = len(held)
    attacker.wait(attacker.target.seconds)
    for connection in held:
        connection.close()


def unread_retransmission(attacker: Attacker) -> None:
    """Ask every node for its events from many connections, and read nothing."""
    request = frames.encode(FrameKind.RETRANSMIT, correlation=1, aux=0)
    with zmq_context() as context:
        sockets: list[zmq.Socket[bytes]] = [
            dealer(context, node.retransmit_address, reads=False)
            for node in attacker.config.nodes
            for _ in range(attacker.scaled(16))
        ]
        while attacker.running:
            sent = sum(try_send(to, request) for to in sockets)
            attacker.report.sent += sent
            time.sleep(0.001 if sent else 0.01)
