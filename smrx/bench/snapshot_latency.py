"""Measure the latency of single orders to a cluster on disk, without snapshots and while all nodes take snapshots.

Both phases use the same nodes, the same state and the same status requests; in the second phase each node is asked for
the next snapshot as soon as its last one is complete. Election timeouts are the defaults; a higher term at the end
shows that a pause caused an election. Called by recovery_bench.py.
"""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram

from smrx.bench.bench_error import BenchError
from smrx.bench.bench_market import Commands
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
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND

#: Interval of the status requests, in both phases.
_STATUS_INTERVAL_SECONDS: Final = 0.05
#: Long enough for the one call that loads the state, and for any pause that is measured.
_CLIENT_TIMEOUT_SECONDS: Final = 60.0
_NEVER: Final = 100_000_000
#: Added to the second phase as long as no snapshot is complete.
_EXTRA_SECONDS: Final = 30.0
_PERCENTILES: Final = (("p50", 50.0), ("p99", 99.0), ("max", 100.0))


def run(folder: Path, market: CommandList, *, seconds: float, nodes: int = 3) -> dict[str, Any]:
    """Measure one order in flight for `seconds` in each phase; raises BenchError.

    `market` holds the commands that build the state. Keys: without_snapshots_us, with_snapshots_us (p50, p99, max,
    orders), snapshots (taken: by all nodes in the second phase; pause_ms and work_s: the longest that a node reported),
    elections (terms that began in the two phases).
    """
    limits = Limits(snapshot_commands=_NEVER, snapshot_minutes=_NEVER, compaction_entries=_NEVER)
    cluster = LocalCluster(folder, nodes, durability="disk", limits=limits)
    with cluster, open_admin_client(cluster.config, 1.0) as ask:
        cluster.wait_leader()
        with Client(cluster.config, account=0, timeout=_CLIENT_TIMEOUT_SECONDS) as client:
            refused = int(np.count_nonzero(client.submit(*market)["status"] != OutcomeStatus.ACCEPTED))
            if refused:
                raise BenchError(f"the cluster refused {refused} commands of the market's setup")
            watch = _SnapshotWatch(cluster, ask)
            first_term = watch.poll()
            without_snapshots = _latencies(client, watch, seconds)
            watch.take_snapshots = True
            with_snapshots = _latencies(client, watch, seconds)
            elections = watch.poll() - first_term
    if not watch.taken:
        raise BenchError(f"no node completed a snapshot within {seconds:g} s; measure for more seconds")
    return {
        "without_snapshots_us": without_snapshots,
        "with_snapshots_us": with_snapshots,
        "snapshots": {
            "taken": watch.taken,
            "pause_ms": round(watch.pause_ms, 3),
            "work_s": round(watch.work_s, 3),
        },
        "elections": elections,
        "nodes": nodes,
        "durability": "disk",
        "election_ms": [cluster.config.timing.election_min_ms, cluster.config.timing.election_max_ms],
    }


class _SnapshotWatch:
    """Polls the snapshot status of all nodes; with `take_snapshots`, keeps a snapshot in progress on each of them."""

    def __init__(self, cluster: LocalCluster, ask: Ask) -> None:
        self.take_snapshots = False
        self.taken = 0
        self.pause_ms = 0.0
        self.work_s = 0.0
        self._nodes = [node.id for node in cluster.config.nodes]
        self._ask = ask
        #: Node id -> applied index at which its snapshot in progress was requested.
        self._requested: dict[int, int] = {}

    @property
    def lacks_snapshots(self) -> bool:
        """Whether snapshots are requested and none is complete."""
        return self.take_snapshots and not self.taken

    def poll(self) -> int:
        """Read the status of every node and request the next snapshots; return the highest term."""
        term = 0
        for node in self._nodes:
            status = self._ask(node, Status())
            if not isinstance(status, NodeStatus):
                raise BenchError(f"node {node} did not report its status: {status}")
            term = max(term, status.term)
            requested_at = self._requested.get(node)
            if requested_at is not None and status.snapshot_index >= requested_at:
                self.taken += 1
                self.pause_ms = max(self.pause_ms, status.snapshot_pause_ms)
                self.work_s = max(self.work_s, status.snapshot_s)
                del self._requested[node]
            if self.take_snapshots and node not in self._requested:
                self._requested[node] = status.applied_index
                self._ask(node, Snapshot())
        return term


def _latencies(client: Client, watch: _SnapshotWatch, seconds: float) -> dict[str, int]:
    """Send one IOC order after the other, none of which trades; return percentiles in microseconds."""
    histogram = HdrHistogram(1, 60_000_000, 3)
    order = _order()
    started = polled = time.monotonic()
    while (now := time.monotonic()) - started < seconds + (_EXTRA_SECONDS if watch.lacks_snapshots else 0.0):
        if now - polled >= _STATUS_INTERVAL_SECONDS:
            watch.poll()
            polled = now
        sent = time.perf_counter_ns()
        outcome = client.submit(order)[0]
        histogram.record_value(max(1, (time.perf_counter_ns() - sent) // 1000))
        if outcome["status"] != OutcomeStatus.ACCEPTED:
            raise BenchError(f"the cluster refused an order: {outcome}")
    figures = {name: histogram.get_value_at_percentile(share) for name, share in _PERCENTILES}
    return figures | {"orders": histogram.get_total_count()}


def _order() -> Commands:
    order = np.zeros(1, COMMAND)
    order["kind"], order["account"], order["instrument"] = CommandKind.PLACE, 1, 1
    order["side"], order["price_ticks"], order["quantity_lots"] = Side.BUY, 1, 1
    order["order_type"], order["tif"], order["stp"] = OrderType.LIMIT, TimeInForce.IOC, Stp.CANCEL_NEWEST
    return order
