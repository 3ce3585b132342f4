"""Metrics and health of one node over HTTP: /metrics for Prometheus, /health for a load balancer.

Runs in threads of its own and only reads a status that the reactor swaps in whole; it can neither slow nor change
anything.
"""

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
    "commit_index": "Raft commit index",
    "applied_index": "Raft index applied",
    "sequence": "Command sequence applied",
    "event_sequence": "Event sequence published",
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
        yield CounterMetricFamily("smrx_cpu_seconds", "Processor time of the node", value=status.cpu_seconds)
        yield GaugeMetricFamily("smrx_leader", "1 on the leader", value=int(status.role == "leader"))
        yield GaugeMetricFamily("smrx_fenced", "1 on a node that left the majority", value=int(bool(status.fenced)))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a scrape a second would drown what matters."""


class MetricsServer:
    """The HTTP side of a node; `status` is swapped by the reactor."""

    def __init__(self, host: str, port: int) -> None:
        """Listen at once; raises OSError when the port is taken."""
        self.status: NodeStatus | None = None
        registry = CollectorRegistry()
        registry.register(_StatusCollector(lambda: self.status))
        self._metrics = make_wsgi_app(registry)
        self._server = make_server(host, port, self._respond, server_class=_Server, handler_class=_Quiet)
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
