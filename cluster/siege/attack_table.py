"""List the attacks: what each does, the market that it needs, and the bounds that the cluster must keep.

The bounds are for a machine that does nothing else. A run may relax those of time (siege_run.py), never those of
memory.
To add an attack: write a function of an Attacker, and add a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cluster.siege import feed_attacks, gateway_attacks, order_attacks, port_attacks, read_attacks
from cluster.siege.attack_target import Attacker
from cluster.siege.siege_verdict import Bounds

#: Orders that rest in the book of an ordinary market.
FEW_ORDERS: Final = 12_000


@dataclass(frozen=True)
class Attack:
    """One attack."""

    summary: str
    run: Callable[[Attacker], None]
    bounds: Bounds = field(default_factory=Bounds)
    #: Whether the market has as many resting orders as the run was asked for, instead of FEW_ORDERS.
    big_market: bool = False
    #: Whether the cluster has keys.
    keyed: bool = False
    #: Whether the honest client trades through a gateway, which is watched as the nodes are.
    gateway: bool = False
    #: Whether a customer sends a flow of orders, also while the honest client is measured alone.
    with_flow: bool = False
    #: Whether the attack may leave the cluster changed, so that the next one needs another.
    fresh_after: bool = False


ATTACKS: Final[dict[str, Attack]] = {
    # Connections and bytes.
    "giant-frames": Attack("frames of 1 GiB on every port", port_attacks.giant_frames),
    "garbage": Attack("random bytes and messages on every port", port_attacks.garbage),
    "half-open": Attack("thousands of connections in the middle of the handshake", port_attacks.half_open),
    "metrics": Attack("metrics connections held open", port_attacks.metrics_connections),
    "raft-frames": Attack("messages of no member on an unkeyed Raft port", port_attacks.raft_frames),
    "handshakes": Attack("handshakes under unknown keys, without end", port_attacks.handshakes, keyed=True),
    # The feed.
    "subscriptions": Attack("more subscriptions and subscribers than a node accepts", feed_attacks.subscriptions),
    "retransmission": Attack("the newest events asked for again, without end", feed_attacks.retransmission),
    "unread-retransmission": Attack("events asked for again and not read", feed_attacks.unread_retransmission),
    "stalled-readers": Attack(
        "subscribers that do not read, beside a flow of orders", feed_attacks.stalled_readers, with_flow=True
    ),
    # Reads.
    "unread-orders": Attack("300 questions for all orders, not read", read_attacks.unread_orders),
    "all-orders": Attack("all orders, page by page, without end", read_attacks.all_orders),
    "small-orders": Attack(
        "50 questions a second for one order, on a big market", read_attacks.small_orders, big_market=True
    ),
    "public-reads": Attack("depth, instruments and status without end", read_attacks.public_reads),
    "state-images": Attack("state images without end", read_attacks.state_images),
    "linearizable-reads": Attack(
        "linearizable reads without end", read_attacks.linearizable_reads, Bounds(log_entries_per_second=100)
    ),
    # Orders and sessions.
    "unread-answers": Attack(
        "maximal frames of commands, answers not read",
        order_attacks.unread_answers,
        # Each of the connections has a budget of 4 MiB, besides that of its commands.
        Bounds(memory_mib=128, unread_answers_mib=16),
    ),
    "sessions": Attack("sessions of one account without end", order_attacks.sessions),
    "session-theft": Attack("requests on a session of another client", order_attacks.session_theft),
    "pings-of-others": Attack(
        "pings for the session of another client, who has gone", order_attacks.pings_of_others, keyed=True
    ),
    # A gateway.
    "gateway-half-records": Attack("half a command on 200 connections", gateway_attacks.half_records, gateway=True),
    "gateway-garbage": Attack("no packets, and packets out of place", gateway_attacks.garbage, gateway=True),
    "gateway-flood": Attack("commands as fast as the gateway takes them", gateway_attacks.flood, gateway=True),
    "gateway-unread-answers": Attack("commands, answers not read", gateway_attacks.unread_answers, gateway=True),
    "gateway-slow-readers": Attack("commands faster than answers are read", gateway_attacks.slow_readers, gateway=True),
    "gateway-idle": Attack(
        "10,000 idle connections, half of them logged in",
        gateway_attacks.idle_connections,
        # A connection costs some 10 KiB.
        Bounds(memory_mib=192, memory_after_mib=192),
        gateway=True,
    ),
    "gateway-stopped": Attack("another gateway stopped for ten seconds", gateway_attacks.stopped_gateway, gateway=True),
    "gateway-twins": Attack("two gateways with one name", gateway_attacks.twin_gateways, gateway=True),
    # Authority.
    "shutdown": Attack("what only an operator may do", port_attacks.shutdown, fresh_after=True),
}
