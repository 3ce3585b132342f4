"""Measure how long orders are not acknowledged when the leader is killed, or when leadership is transferred.

Real nodes, and one client with one order in flight. A kill is a SIGKILL of the leader; the time runs until an order
sent after the kill is acknowledged, which is an upper bound of the outage. The killed node is restarted and is a full
member again before the next kill. At the end every acknowledged order must be open on the exchange exactly once.
Prints nothing; the command line does.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from hdrh.histogram import HdrHistogram

from smrx.bench import machine_conditions
from smrx.bench.bench_error import BenchError
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.client.client_errors import ClientError
from smrx.local import LocalCluster
from smrx.wire.admin import TransferLeadership, TransferLeadershipReply

_SYMBOL: Final = "BTC-USD"
_ACCOUNT: Final = 1
#: Between an answer and the next order; bounds the number of orders that are listed at the end.
_PAUSE_SECONDS: Final = 0.004
#: Longer than any election, so that the client's timeout is never what is measured.
_CLIENT_TIMEOUT_SECONDS: Final = 60.0
_REJOIN_TIMEOUT_SECONDS: Final = 60.0
#: Orders acknowledged before and after each kill or transfer, so that the cluster is stable when it begins.
_SETTLE_ORDERS: Final = 20
_PERCENTILES: Final = (("p50", 50.0), ("p99", 99.0), ("max", 100.0))


class OrdersDiffer(BenchError):
    """The open orders of the exchange are not the acknowledged orders."""


class Acknowledged(NamedTuple):
    """One acknowledged order, and when it was sent and answered."""

    client_order_id: int
    #: 0 if the answer was DUPLICATE: the order was taken, but its first outcome is not stored any more.
    order_id: int
    sent_ns: int
    answered_ns: int


def run(
    *,
    kills: int = 20,
    transfers: int = 0,
    nodes: int = 3,
    durability: Literal["memory", "disk"] = "memory",
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Return the figures of one run; raises BenchError.

    Keys: failover_ms (p50, p99, max: from SIGKILL to the first acknowledged order that was sent after it),
    transfer_gap_ms (the slowest order around each transfer), order_ms (all orders), orders (acknowledged, lost,
    doubled), conditions. A part that was not requested is None.
    """
    machine = machine_conditions.machine()
    show = progress or (lambda phase, share: None)
    with (
        tempfile.TemporaryDirectory(prefix="smrx-bench-") as directory,
        LocalCluster(directory, nodes, durability=durability) as cluster,
    ):
        cluster.wait_leader()
        _open_market(cluster)
        orders = _OrderThread(cluster)
        orders.start()
        try:
            failovers, gaps = [], []
            for done in range(kills):
                show("kills", done / kills)
                failovers.append(_kill(cluster, orders))
            for done in range(transfers):
                show("transfers", done / transfers)
                gaps.append(_transfer(cluster, orders))
        finally:
            orders.stop()
        with Client(cluster.config, account=_ACCOUNT, timeout=_CLIENT_TIMEOUT_SECONDS) as client:
            open_orders = [(int(order.client_order_id), order.order_id) for order in client.orders(account=_ACCOUNT)]
    check_orders(orders.acknowledged, open_orders)
    return {
        "failover_ms": _figures(failovers),
        "transfer_gap_ms": _figures(gaps),
        "order_ms": _figures([order.answered_ns - order.sent_ns for order in orders.acknowledged]),
        "orders": {"acknowledged": len(orders.acknowledged), "lost": 0, "doubled": 0},
        "conditions": machine
        | {
            "kills": kills,
            "transfers": transfers,
            "nodes": nodes,
            "durability": durability,
            "election_ms": [cluster.config.timing.election_min_ms, cluster.config.timing.election_max_ms],
            "heartbeat_ms": cluster.config.timing.heartbeat_ms,
            "client": f"one order in flight, {1000 * _PAUSE_SECONDS:g} ms between an answer and the next order",
            "network": "loopback, client on the same machine",
        },
    }


def check_orders(acknowledged: Sequence[Acknowledged], open_orders: Sequence[tuple[int, int]]) -> None:
    """Compare the acknowledged orders with the open orders (client order id, order id); raises OrdersDiffer."""
    held = dict(open_orders)
    lost = [order for order in acknowledged if order.client_order_id not in held]
    doubled = [name for name, times in Counter(name for name, _ in open_orders).items() if times > 1]
    other = [order for order in acknowledged if order.order_id not in (0, held.get(order.client_order_id))]
    for what, wrong in (("lost", lost), ("doubled", doubled), ("open with another order id", other)):
        if wrong:
            raise OrdersDiffer(f"of {len(acknowledged)} acknowledged orders {len(wrong)} are {what}, first: {wrong[0]}")


def _figures(nanoseconds: Sequence[int]) -> dict[str, float] | None:
    """Return percentiles in milliseconds, or None if there are no values."""
    if not nanoseconds:
        return None
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for value in nanoseconds:
        histogram.record_value(max(1, value // 1000))
    return {name: round(histogram.get_value_at_percentile(share) / 1000, 2) for name, share in _PERCENTILES}


def _open_market(cluster: LocalCluster) -> None:
    with Client(cluster.config) as client:
        client.add_asset("BTC", 8)
        client.add_asset("USD", 2)
        client.add_instrument(_SYMBOL, "BTC", "USD", tick="1", lot="1", max_price="1000", max_quantity="1000")
        client.open_account(_ACCOUNT)
        client.deposit(_ACCOUNT, "USD", "1000000000", 1)


class _OrderThread:
    """A client in its own thread that places one resting order after the other, with client order ids from 1."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._cluster = cluster
        self._changed = threading.Condition()
        self._done = False
        self._error: ClientError | None = None
        self._thread = threading.Thread(target=self._run, name="orders")

    def start(self) -> None:
        """Start placing orders; return when some are acknowledged."""
        self._thread.start()
        self.wait_more(_SETTLE_ORDERS)

    def stop(self) -> None:
        """Place no more orders, and wait for the last answer."""
        self._done = True
        self._thread.join()

    def wait_more(self, count: int) -> None:
        """Wait until `count` more orders are acknowledged; raises BenchError."""
        wanted = len(self.acknowledged) + count
        self._wait(lambda: len(self.acknowledged) >= wanted)

    def first_sent_after(self, moment_ns: int) -> Acknowledged:
        """Wait for the first acknowledged order that was sent after a moment, and return it; raises BenchError."""
        self._wait(lambda: bool(self.acknowledged) and self.acknowledged[-1].sent_ns > moment_ns)
        return next(order for order in reversed(self.acknowledged) if self._is_first(order, moment_ns))

    def _is_first(self, order: Acknowledged, moment_ns: int) -> bool:
        # Client order ids count from 1 in the order of sending, one at a time.
        before = order.client_order_id - 2
        return order.sent_ns > moment_ns and (before < 0 or self.acknowledged[before].sent_ns <= moment_ns)

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            in_time = self._changed.wait_for(lambda: condition() or self._error is not None, _CLIENT_TIMEOUT_SECONDS)
        if self._error is not None:
            raise BenchError(f"an order failed: {self._error}") from self._error
        if not in_time:
            raise BenchError(f"no order was acknowledged within {_CLIENT_TIMEOUT_SECONDS:g} s")

    def _run(self) -> None:
        try:
            with Client(self._cluster.config, account=_ACCOUNT, timeout=_CLIENT_TIMEOUT_SECONDS) as client:
                client_order_id = 0
                while not self._done:
                    client_order_id += 1
                    sent = time.monotonic_ns()
                    answer = client.place_limit(_SYMBOL, "buy", "1", "1", client_order_id=client_order_id)
                    answered = time.monotonic_ns()
                    with self._changed:
                        order_id = 0 if answer.duplicate else answer.order_id
                        self.acknowledged.append(Acknowledged(client_order_id, order_id, sent, answered))
                        self._changed.notify_all()
                    time.sleep(_PAUSE_SECONDS)
        except ClientError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


def _kill(cluster: LocalCluster, orders: _OrderThread) -> int:
    """Kill the leader; return the nanoseconds until an order is acknowledged, after the node has rejoined."""
    leader = cluster.wait_leader()
    orders.wait_more(_SETTLE_ORDERS)
    killed = time.monotonic_ns()
    cluster.kill(leader)
    answered = orders.first_sent_after(killed).answered_ns
    cluster.start_node(leader)
    cluster.wait_for(lambda: _is_complete(cluster), _REJOIN_TIMEOUT_SECONDS, f"node {leader} back as a full member")
    orders.wait_more(_SETTLE_ORDERS)
    return answered - killed


def _is_complete(cluster: LocalCluster) -> bool:
    """Return whether one node leads, all others follow it, and all of them agree on the state."""
    statuses = cluster.statuses().values()
    return (
        len(statuses) == len(cluster.config.nodes)
        and sorted(status.role for status in statuses) == ["follower"] * (len(statuses) - 1) + ["leader"]
        and all(status.agreement.state == "AGREE" for status in statuses)
    )


def _transfer(cluster: LocalCluster, orders: _OrderThread) -> int:
    """Transfer leadership; return the nanoseconds of the slowest order around it."""
    cluster.wait_for(lambda: _is_complete(cluster), _REJOIN_TIMEOUT_SECONDS, "every node as a full member")
    leader = cluster.wait_leader()
    first = len(orders.acknowledged)
    orders.wait_more(_SETTLE_ORDERS)
    with open_admin_client(cluster.config, 5.0) as ask:
        reply = ask(leader, TransferLeadership())
    if not isinstance(reply, TransferLeadershipReply):
        raise BenchError(f"node {leader} did not transfer leadership: {reply}")
    cluster.wait_leader(other_than=leader)
    orders.wait_more(_SETTLE_ORDERS)
    return max(order.answered_ns - order.sent_ns for order in orders.acknowledged[first:])
