"""Serve metrics and health of one node over HTTP: /metrics for Prometheus, /health for a load balancer.

Runs in the thread of the HTTP server and only reads the status that the reactor replaces as a whole, so it neither
delays nor changes the node.
"""

from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from smrx.http_server import Answer, HttpServer
from smrx.wire.admin import NodeStatus

_GAUGES = {
    "term": "Raft term",
    "commit_index": "Raft log index committed",
    "applied_index": "Raft log index applied",
    "sequence": "Sequence of the last command applied",
    "event_sequence": "Sequence of the last event",
    "orders_open": "Open orders",
    "rss_bytes": "Resident memory",
    "unread_answer_bytes": "Answers to orders that wait because their clients do not read them",
}


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], NodeStatus | None]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        if status is None:
            return
        for name, help_text in _GAUGES.items():
            yield GaugeMetricFamily(f"smrx_{name}", help_text, value=getattr(status, name))
        yield CounterMetricFamily("smrx_trades", "Trades", value=status.trades)
        yield CounterMetricFamily("smrx_cpu_seconds", "CPU time of the process", value=status.cpu_seconds)
        yield GaugeMetricFamily("smrx_leader", "1 if the node is the leader", value=int(status.role == "leader"))
        clock_help = "1 if the node's clock, or the time of its state, differs too much from the majority clock"
        yield GaugeMetricFamily("smrx_clock_fault", clock_help, value=int(bool(status.clock_fault)))
        if status.clock_offset_s is not None:
            offset_help = "Seconds by which the node's clock is ahead of the majority clock"
            yield GaugeMetricFamily("smrx_clock_offset_seconds", offset_help, value=status.clock_offset_s)
        for name, help_text, counts in (
            ("records", "Records of a kind in the state", status.records),
            ("capacity", "The most records of a kind", status.capacity),
        ):
            gauge = GaugeMetricFamily(f"smrx_{name}", help_text, labels=["kind"])
            for kind, count in counts.items():
                gauge.add_metric([kind], count)
            yield gauge
        for name, help_text, family, counts in (
            ("connections", "Open connections of a port", GaugeMetricFamily, status.connections),
            ("connections_refused", "Connections cut off at a port's bound", CounterMetricFamily,
             status.connections_refused),
        ):  # fmt: skip
            metric = family(f"smrx_{name}", help_text, labels=["port"])
            for port, count in counts.items():
                metric.add_metric([port], count)
            yield metric
        yield CounterMetricFamily("smrx_turns", "Turns of the node's loop", value=status.turns)
        stages = CounterMetricFamily("smrx_stage_seconds", "Time of the node's loop by stage", labels=["stage"])
        for stage, spent in status.stage_ns.items():
            stages.add_metric([stage], spent / 1e9)
        yield stages
        yield GaugeMetricFamily("smrx_fenced", "1 if the node has fenced itself", value=int(bool(status.fenced)))


class MetricsServer:
    """The HTTP server of a node; the reactor replaces `status`."""

    def __init__(self, host: str, port: int) -> None:
        """Start to listen; raises OSError if the port is taken."""
        self.status: NodeStatus | None = None
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(lambda: self.status))
        self._server = HttpServer(host, port, self._answer)

    def _answer(self, path: str) -> Answer:
        if path == "/metrics":
            return Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry))
        if path != "/health":
            return Answer(HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics or /health\n")
        status = self.status
        healthy = status is not None and status.fenced is None and status.leader_id is not None
        code = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(code, "application/json", msgspec.json.encode(status))

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._server.close()
