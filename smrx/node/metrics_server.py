"""Serve metrics and health of one node over HTTP: /metrics for Prometheus, /health for a load balancer.

Runs in threads of its own and only reads the status that the reactor replaces as a whole, so it neither delays nor
changes the node.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from smrx.wire.admin import NodeStatus

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_GAUGES = {
    "term": "Raft term",
    "commit_index": "Raft log index committed",
    "applied_index": "Raft log index applied",
    "sequence": "Sequence of the last command applied",
    "event_sequence": "Sequence of the last event",
    "orders_open": "Open orders",
    "rss_bytes": "Resident memory",
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
        for name, help_text, family, counts in (
            ("connections", "Open connections of a port", GaugeMetricFamily, status.connections),
            ("connections_refused", "Connections cut off at a port's bound", CounterMetricFamily,
             status.connections_refused),
        ):  # fmt: skip
            metric = family(f"smrx_{name}", help_text, labels=["port"])
            for port, count in counts.items():
                metric.add_metric([port], count)
            yield metric
        yield GaugeMetricFamily("smrx_fenced", "1 if the node has fenced itself", value=int(bool(status.fenced)))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: frequent scrapes would fill the log."""


class MetricsServer:
    """The HTTP server of a node; the reactor replaces `status`."""

    def __init__(self, host: str, port: int) -> None:
        """Start to listen; raises OSError if the port is taken."""
        self.status: NodeStatus | None = None
        registry = CollectorRegistry()
        registry.register(_StatusCollector(lambda: self.status))
        self._metrics = make_wsgi_app(registry)
        server_class = _ServerIPv6 if ":" in host else _Server
        self._server = make_server(host, port, self._respond, server_class=server_class, handler_class=_SilentHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def _respond(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            body: Iterable[bytes] = self._metrics(environ, start_response)
            return body
        if path != "/health":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"expected /metrics or /health\n"]
        status = self.status
        healthy = status is not None and status.fenced is None and status.leader_id is not None
        start_response("200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [msgspec.json.encode(status)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
