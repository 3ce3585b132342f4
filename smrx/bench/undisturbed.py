"""What a snapshot costs those who order meanwhile: single orders to a cluster on disk, without snapshots and with them.

The same nodes, the same state and the same questions to the nodes in both phases; in the second each node is told to
take a snapshot again as soon as its last one is whole. The election timeouts are the default ones, and the terms before
and after say whether a node stood still for so long that another wanted to lead. Called by the recovery benchmark.
"""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from smrx.client import Client
from smrx.client.admin_client import Ask, open_admin_client
from smrx.config import Limits
from smrx.local import LocalCluster
from smrx.wire.admin import NodeStatus, Snapshot, Status
from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import COMMAND

Commands = NDArray[np.void]

#: How often the nodes are asked how far their snapshots are, in both phases.
_LOOK_SECONDS: Final = 0.05
#: Loading the state is one call, and a node that stands still is what is measured: neither may end the client.
_CLIENT_SECONDS: Final = 60.0
_NEVER: Final = 100_000_000
#: So much longer the second phase lasts where no snapshot is whole by its end.
_PATIENCE_SECONDS: Final = 30.0
_PERCENTILES: Final = (("p50", 50.0), ("p99", 99.0), ("max", 100.0))


class DisturbedError(Exception):
    """There was nothing to measure: no snapshot was taken, or an order was refused."""


def run(folder: Path, market: Commands, *, seconds: float, nodes: int = 3) -> dict[str, Any]:
    """Return the latencies in microseconds of one order in flight, `seconds` a phase; raises DisturbedError.

    `market`: the commands that make the state, sent first. Keys: without_snapshots_us, with_snapshots_us (p50, p99,
    max, orders), snapshots (taken meanwhile by all nodes, pause_ms: the longest a node named, work_s: the longest),
    elections (terms that began meanwhile).
    """
    limits = Limits(snapshot_commands=_NEVER, snapshot_minutes=_NEVER, compaction_entries=_NEVER)
    cluster = LocalCluster(folder, nodes, durability="disk", limits=limits)
    with cluster, open_admin_client(cluster.config, 1.0) as ask:
        cluster.wait_leader()
        with Client(cluster.config, account=0, timeout=_CLIENT_SECONDS) as client:
            refused = int(np.count_nonzero(client.submit(market)["status"] != OutcomeStatus.ACCEPTED))
            if refused:
                raise DisturbedError(f"expected the market to be taken, found {refused} refused commands")
            sight = _Sight(cluster, ask)
            terms = sight.look()
            calm = _latencies(client, sight, seconds)
            sight.take = True
            busy = _latencies(client, sight, seconds)
            elections = sight.look() - terms
    if not sight.taken:
        raise DisturbedError(f"expected snapshots to be whole within {seconds:g} s, found none; give it more seconds")
    return {
        "without_snapshots_us": calm,
        "with_snapshots_us": busy,
        "snapshots": {
            "taken": sight.taken,
            "pause_ms": round(sight.pause_ms, 3),
            "work_s": round(sight.work_s, 3),
        },
        "elections": elections,
        "nodes": nodes,
        "durability": "disk",
        "election_ms": [cluster.config.timing.election_min_ms, cluster.config.timing.election_max_ms],
    }


class _Sight:
    """What the nodes say of their snapshots; with `take`, they take one after the other."""

    def __init__(self, cluster: LocalCluster, ask: Ask) -> None:
        self.take = False
        self.taken = 0
        self.pause_ms = 0.0
        self.work_s = 0.0
        self._nodes = [node.id for node in cluster.config.nodes]
        self._ask = ask
        self._asked: dict[int, int] = {}

    @property
    def lacks_snapshots(self) -> bool:
        """Whether nodes are to take snapshots, and none has."""
        return self.take and not self.taken

    def look(self) -> int:
        """Ask every node, and for a snapshot whoever has none under way; returns the highest term."""
        term = 0
        for node in self._nodes:
            status = self._ask(node, Status())
            if not isinstance(status, NodeStatus):
                raise DisturbedError(f"expected node {node} to answer, found {status}")
            term = max(term, status.term)
            asked_at = self._asked.get(node)
            if asked_at is not None and status.snapshot_index >= asked_at:
                self.taken += 1
                self.pause_ms = max(self.pause_ms, status.snapshot_pause_ms)
                self.work_s = max(self.work_s, status.snapshot_s)
                del self._asked[node]
            if self.take and node not in self._asked:
                self._asked[node] = status.applied_index
                self._ask(node, Snapshot())
        return term


def _latencies(client: Client, sight: _Sight, seconds: float) -> dict[str, int]:
    """One order after the other, each of which finds nobody and ends; microseconds."""
    histogram = HdrHistogram(1, 60_000_000, 3)
    order = _order()
    started = looked = time.monotonic()
    while (now := time.monotonic()) - started < seconds + (_PATIENCE_SECONDS if sight.lacks_snapshots else 0.0):
        if now - looked >= _LOOK_SECONDS:
            sight.look()
            looked = now
        sent = time.perf_counter_ns()
        outcome = client.submit(order)[0]
        histogram.record_value(max(1, (time.perf_counter_ns() - sent) // 1000))
        if outcome["status"] != OutcomeStatus.ACCEPTED:
            raise DisturbedError(f"expected the order to be accepted, found {outcome}")
    figures = {name: histogram.get_value_at_percentile(share) for name, share in _PERCENTILES}
    return figures | {"orders": histogram.get_total_count()}


def _order() -> Commands:
    order = np.zeros(1, COMMAND)
    order["kind"], order["account"], order["instrument"] = CommandKind.PLACE, 1, 1
    order["side"], order["price_ticks"], order["quantity_lots"] = Side.BUY, 1, 1
    order["order_type"], order["tif"], order["stp"] = OrderType.LIMIT, TimeInForce.IOC, Stp.CANCEL_NEWEST
    return order
