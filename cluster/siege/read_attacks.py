"""Attack reads: questions that are not read, many small questions on a big market, state images, linearizable reads."""

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final

from cluster.siege import siege_market
from cluster.siege.attack_target import Attacker
from cluster.siege.port_attacks import dealer, try_send, zmq_context
from smrx.wire import admin
from smrx.wire.admin import AnyReply, AnyRequest

_UNREAD: Final = 300
#: Small reads a second on each node: more than a page a client would show in that time.
_SMALL_READS_PER_SECOND: Final = 50
_READERS: Final = 4


def unread_orders(attacker: Attacker) -> None:
    """Ask every node for all orders many times, and read nothing."""
    request = admin.encode_request(admin.Orders(level="any"), 1)
    with zmq_context() as context:
        sockets = [dealer(context, node.admin_address, reads=False) for node in attacker.config.nodes]
        for _ in range(attacker.scaled(_UNREAD)):
            if attacker.running:
                attacker.report.sent += sum(try_send(to, request) for to in sockets)
        attacker.wait(attacker.target.seconds)


def all_orders(attacker: Attacker) -> None:
    """Ask every node for all orders, page by page, as fast as it answers."""
    page = 1000

    def requests() -> Iterator[AnyRequest]:
        for at in cycle(range(0, 20 * page, page)):
            yield admin.Orders(offset=at, limit=page, level="any")

    _ask(attacker, requests, _READERS)


def small_orders(attacker: Attacker) -> None:
    """Ask every node for one order of each account many times a second."""

    def requests() -> Iterator[AnyRequest]:
        for account in cycle((siege_market.CUSTOMER, siege_market.HONEST, siege_market.VICTIM)):
            yield admin.Orders(account=account, limit=1, level="any")

    _ask(attacker, requests, 1, _SMALL_READS_PER_SECOND)


def public_reads(attacker: Attacker) -> None:
    """Ask every node for depth, instruments and status as fast as it answers."""

    def requests() -> Iterator[AnyRequest]:
        depth = admin.Depth(instrument=siege_market.SYMBOL, levels=admin.MAX_LEVELS, level="any")
        yield from cycle((depth, admin.Instruments(level="any"), admin.Status(), admin.Assets(level="any")))

    _ask(attacker, requests, _READERS)


def state_images(attacker: Attacker) -> None:
    """Ask every node for state images at its newest command, and read them, as fast as it answers."""
    sequence = 1

    def requests() -> Iterator[AnyRequest]:
        while True:
            yield admin.TakeStateImage(at=sequence)
            yield admin.ReadStateImage(at=sequence)

    def on_reply(reply: AnyReply) -> None:
        nonlocal sequence
        sequence = max(sequence, reply.sequence)

    _ask(attacker, requests, _READERS, on_reply=on_reply)


def linearizable_reads(attacker: Attacker) -> None:
    """Ask the leader for linearizable reads as fast as it answers, with many of them in flight."""

    def requests() -> Iterator[AnyRequest]:
        while True:
            yield admin.Depth(instrument=siege_market.SYMBOL, levels=1)

    _ask(attacker, requests, 64, leader_only=True)


def _ask(
    attacker: Attacker,
    requests: Callable[[], Iterator[AnyRequest]],
    in_flight: int,
    per_second: float = 0.0,
    *,
    leader_only: bool = False,
    on_reply: Callable[[AnyReply], None] = lambda reply: None,
) -> None:
    """Send requests and read the replies, each node for itself, with so many unanswered."""
    nodes = [attacker.leader] if leader_only else list(attacker.config.nodes)
    pause = 1 / per_second if per_second else 0.0
    with zmq_context() as context:
        sockets = [dealer(context, node.admin_address) for node in nodes]
        asked = [requests() for _ in nodes]
        waiting = [0] * len(nodes)
        while attacker.running:
            is_idle = True
            for at, to in enumerate(sockets):
                while to.poll(0):
                    data = to.recv()
                    waiting[at] -= 1
                    attacker.report.received += 1
                    is_idle = False
                    on_reply(admin.decode_reply(data)[1])
                if waiting[at] < in_flight and try_send(to, admin.encode_request(next(asked[at]), 1)):
                    waiting[at] += 1
                    attacker.report.sent += 1
                    is_idle = False
            if pause:
                attacker.wait(pause)
            elif is_idle:
                time.sleep(0.0002)
    attacker.report.note = f"{attacker.report.received / attacker.target.seconds:.0f} answers a second"
