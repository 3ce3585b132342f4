"""Attack the event feed: subscriptions without end, retransmission, subscribers that do not read."""

import time
from typing import Final

import zmq

from cluster.siege.attack_target import Attacker
from cluster.siege.port_attacks import dealer, try_send, zmq_context
from cluster.siege.zmtp_connection import ZmtpConnection
from smrx.feed.retransmission import MAX_ANSWER_EVENTS
from smrx.feed.subscription import MAX_CREDIT, Subscription, credit_frame
from smrx.wire import frames
from smrx.wire.frames import MAX_ACCOUNTS, FrameKind

#: Bytes of subscriptions of one connection.
_SUBSCRIPTION_BYTES: Final = 16 << 20
_STALLED_READERS: Final = 4
_CONNECTIONS: Final = 4
#: Says that everything was consumed, whether it was read or not.
_CREDIT: Final = credit_frame(MAX_CREDIT)


def subscriptions(attacker: Attacker) -> None:
    """Subscribe to many different accounts on every node, from one connection each."""
    with zmq_context() as context:
        while attacker.running:
            for node in attacker.config.nodes:
                connection = dealer(context, node.events_address)
                sent = number = 0
                while attacker.running and sent < attacker.scaled(_SUBSCRIPTION_BYTES):
                    accounts = frozenset(range(number, number + MAX_ACCOUNTS))
                    request = Subscription(1, MAX_CREDIT, accounts).frame()
                    if not try_send(connection, request):
                        time.sleep(0.0005)
                        continue
                    sent += len(request)
                    number = (number + MAX_ACCOUNTS) % (1 << 31)
                    attacker.report.sent += 1
                connection.close(linger=0)


def retransmission(attacker: Attacker) -> None:
    """Ask the leader for its events again and again, and read the answers."""
    request = frames.encode(FrameKind.RETRANSMIT, correlation=1, aux=MAX_ANSWER_EVENTS)
    with zmq_context() as context:
        sockets = [dealer(context, attacker.leader.events_address) for _ in range(_CONNECTIONS)]
        for to in sockets:
            try_send(to, Subscription(0).frame())
        oldest = 1
        while attacker.running:
            sent = sum(try_send(to, request) and try_send(to, _CREDIT) for to in sockets)
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
    """Subscribe to every event on every node, claim to consume them, and read nothing."""
    held = []
    for node in attacker.config.nodes:
        for _ in range(_STALLED_READERS):
            connection = ZmtpConnection(node.events_address, "DEALER")
            connection.limit_receive_buffer(4096)
            connection.message(Subscription(0).frame())
            held.append(connection)
    attacker.report.sent = len(held)
    while attacker.running:
        for connection in held:
            if connection.is_open:
                connection.message(_CREDIT)
        attacker.wait(0.1)
    for connection in held:
        connection.close()


def unread_retransmission(attacker: Attacker) -> None:
    """Ask every node for its events from many connections, claim to consume them, and read nothing."""
    request = frames.encode(FrameKind.RETRANSMIT, correlation=1, aux=0)
    with zmq_context() as context:
        sockets: list[zmq.Socket[bytes]] = [
            dealer(context, node.events_address, reads=False)
            for node in attacker.config.nodes
            for _ in range(attacker.scaled(16))
        ]
        for to in sockets:
            try_send(to, Subscription(0).frame())
        while attacker.running:
            sent = sum(try_send(to, request) and try_send(to, _CREDIT) for to in sockets)
            attacker.report.sent += sent
            time.sleep(0.001 if sent else 0.01)
