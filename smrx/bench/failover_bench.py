"""How long nobody is served when the leader is killed, or when it hands over: real nodes, one order after the other.

One client orders all the time. Each kill is a SIGKILL of whoever leads; the clock runs until an order that was sent
after it is acknowledged, which is later than the first moment at which one could have been. The killed node is started
again and is a full member before the next kill. In the end the exchange is asked for every order that was acknowledged:
none may be lost, none doubled. Prints nothing; the command line does.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from hdrh.histogram import HdrHistogram

from smrx.bench import machine_conditions
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.client.client_errors import ClientError
from smrx.local import LocalCluster
from smrx.wire.admin import TransferLeadership, TransferLeadershipReply

_SYMBOL: Final = "BTC-USD"
_ACCOUNT: Final = 1
#: Between an answer and the next order, so that a run of many kills ends with orders that can still be listed.
_PAUSE_SECONDS: Final = 0.004
#: Beyond any election: a client that gave up earlier would measure itself.
_CLIENT_SECONDS: Final = 60.0
_RETURN_SECONDS: Final = 60.0
#: Orders before and after what is measured: the cluster is at rest again.
_AROUND: Final = 20
_PERCENTILES: Final = (("p50", 50.0), ("p99", 99.0), ("max", 100.0))


class FailoverError(Exception):
    """The cluster did not come back or did not do as asked: a figure would mean nothing."""


class OrdersDiffer(FailoverError):
    """What was acknowledged is not what the exchange holds."""


class Acknowledged(NamedTuple):
    """One order: what the client called it, what the exchange did, and when it was sent and answered."""

    client_order_id: int
    #: 0 where the exchange remembered that it had taken the order, but not its answer.
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
    """Return the figures of one run; raises FailoverError.

    Keys: failover_ms (p50, p99, max: from SIGKILL to the first order acknowledged that was sent after it),
    transfer_gap_ms (the longest that one order took, around each hand-over), order_ms (between them), orders
    (acknowledged, lost, doubled), conditions. A part that was not asked for is None.
    """
    told = machine_conditions.machine()
    show = progress or (lambda phase, share: None)
    with (
        tempfile.TemporaryDirectory(prefix="smrx-bench-") as directory,
        LocalCluster(directory, nodes, durability=durability) as cluster,
    ):
        cluster.wait_leader()
        _open_market(cluster)
        orders = _Orders(cluster)
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
        with Client(cluster.config, account=_ACCOUNT, timeout=_CLIENT_SECONDS) as client:
            found = [(order.client_order_id, order.order_id) for order in client.orders(account=_ACCOUNT)]
    check(orders.acknowledged, found)
    return {
        "failover_ms": _figures(failovers),
        "transfer_gap_ms": _figures(gaps),
        "order_ms": _figures([order.answered_ns - order.sent_ns for order in orders.acknowledged]),
        "orders": {"acknowledged": len(orders.acknowledged), "lost": 0, "doubled": 0},
        "conditions": told
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


def check(acknowledged: Sequence[Acknowledged], found: Sequence[tuple[int, int]]) -> None:
    """Compare what was acknowledged with the open orders (client order id, order id); raises OrdersDiffer."""
    held = dict(found)
    lost = [order for order in acknowledged if order.client_order_id not in held]
    doubled = [name for name, times in Counter(name for name, _ in found).items() if times > 1]
    other = [order for order in acknowledged if order.order_id not in (0, held.get(order.client_order_id))]
    for what, wrong in (("lost", lost), ("doubled", doubled), ("held under another number", other)):
        if wrong:
            raise OrdersDiffer(
                f"expected each of {len(acknowledged)} acknowledged orders once on the exchange, found {len(wrong)} "
                f"{what}, first {wrong[0]}"
            )


def _figures(nanoseconds: Sequence[int]) -> dict[str, float] | None:
    """Percentiles in milliseconds; None of nothing."""
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


class _Orders:
    """A client in a thread of its own: one order that rests after the other, each with a name of its own."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._cluster = cluster
        self._changed = threading.Condition()
        self._done = False
        self._fault: ClientError | None = None
        self._thread = threading.Thread(target=self._run, name="orders")

    def start(self) -> None:
        """Begin, and return when orders are acknowledged."""
        self._thread.start()
        self.wait_more(_AROUND)

    def stop(self) -> None:
        """Send no more, and wait for the last answer."""
        self._done = True
        self._thread.join()

    def wait_more(self, count: int) -> None:
        """Return once so many more orders are acknowledged; raises FailoverError."""
        wanted = len(self.acknowledged) + count
        self._wait(lambda: len(self.acknowledged) >= wanted)

    def first_sent_after(self, moment_ns: int) -> Acknowledged:
        """The first order acknowledged that was sent after a moment; waits for it. Raises FailoverError."""
        self._wait(lambda: bool(self.acknowledged) and self.acknowledged[-1].sent_ns > moment_ns)
        return next(order for order in reversed(self.acknowledged) if self._is_first(order, moment_ns))

    def _is_first(self, order: Acknowledged, moment_ns: int) -> bool:
        # Names count from 1 in the order of sending, one at a time.
        before = order.client_order_id - 2
        return order.sent_ns > moment_ns and (before < 0 or self.acknowledged[before].sent_ns <= moment_ns)

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            told = self._changed.wait_for(lambda: condition() or self._fault is not None, _CLIENT_SECONDS)
        if self._fault is not None:
            raise FailoverError(f"expected every order to be taken, found: {self._fault}") from self._fault
        if not told:
            raise FailoverError(f"expected orders to be acknowledged within {_CLIENT_SECONDS:g} s, found none")

    def _run(self) -> None:
        try:
            with Client(self._cluster.config, account=_ACCOUNT, timeout=_CLIENT_SECONDS) as client:
                name = 0
                while not self._done:
                    name += 1
                    sent = time.monotonic_ns()
                    answer = client.place_limit(_SYMBOL, "buy", "1", "1", client_order_id=name)
                    answered = time.monotonic_ns()
                    with self._changed:
                        number = 0 if answer.duplicate else answer.order_id
                        self.acknowledged.append(Acknowledged(name, number, sent, answered))
                        self._changed.notify_all()
                    time.sleep(_PAUSE_SECONDS)
        except ClientError as error:
            with self._changed:
                self._fault = error
                self._changed.notify_all()


def _kill(cluster: LocalCluster, orders: _Orders) -> int:
    """Kill the leader under orders; the nanoseconds until one is acknowledged. Ends with the node back in full."""
    leader = cluster.wait_leader()
    orders.wait_more(_AROUND)
    killed = time.monotonic_ns()
    cluster.kill(leader)
    served = orders.first_sent_after(killed).answered_ns
    cluster.start_node(leader)
    cluster.wait_for(lambda: _whole(cluster), _RETURN_SECONDS, f"node {leader} back as a full member")
    orders.wait_more(_AROUND)
    return served - killed


def _whole(cluster: LocalCluster) -> bool:
    """Whether every node is a member with a vote that agrees with the others, and one leads."""
    statuses = cluster.statuses().values()
    return (
        len(statuses) == len(cluster.config.nodes)
        and sorted(status.role for status in statuses) == ["follower"] * (len(statuses) - 1) + ["leader"]
        and all(status.agreement.state == "AGREE" for status in statuses)
    )


def _transfer(cluster: LocalCluster, orders: _Orders) -> int:
    """Let another node lead under orders; the nanoseconds of the slowest order around it."""
    cluster.wait_for(lambda: _whole(cluster), _RETURN_SECONDS, "every node as a full member")
    leader = cluster.wait_leader()
    first = len(orders.acknowledged)
    orders.wait_more(_AROUND)
    with open_admin_client(cluster.config, 5.0) as ask:
        reply = ask(leader, TransferLeadership())
    if not isinstance(reply, TransferLeadershipReply):
        raise FailoverError(f"expected node {leader} to hand over, found: {reply}")
    cluster.wait_leader(other_than=leader)
    orders.wait_more(_AROUND)
    return max(order.answered_ns - order.sent_ns for order in orders.acknowledged[first:])
