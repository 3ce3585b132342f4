"""Serve metrics and health of one gateway over HTTP: /metrics for Prometheus, /health for a load balancer.

Runs in the thread of the HTTP server and only reads the status that the gateway's loop replaces as a whole, so it
neither delays nor changes the gateway. Called by gateway_process.py.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from smrx.http_server import Answer, HttpServer


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of itself."""

    name: str
    #: The order entry address of the leader, None while the gateway looks for it.
    leader: str | None
    #: Open connections, those that are logged in, and the most that may be open.
    connections: int
    logged_in: int
    most_connections: int
    #: Connections that were cut off before a login, by the reason.
    connections_refused: dict[str, int]
    #: Commands sent to the leader, refused here, and answered, since the start; and those without an answer now.
    forwarded: int
    refused: int
    answered: int
    under_way: int
    #: Commands without an answer that wait for a rate of their session or account.
    held_back: int
    #: Frames that were sent again, and searches for a leader, since the start.
    resent: int
    searches: int


_GAUGES: Final = {
    "connections": "Open connections",
    "logged_in": "Connections that are logged in",
    "most_connections": "The most connections at once",
    "under_way": "Commands without an answer",
    "held_back": "Commands that wait for a rate of their session or account",
}
_COUNTERS: Final = {
    "forwarded": "Commands sent to the leader",
    "refused": "Commands that the gateway did not forward",
    "answered": "Commands answered",
    "resent": "Frames sent to the leader again",
    "searches": "Searches for the leader",
}


class GatewayMetrics(Collector):
    """The HTTP server of a gateway; the loop replaces `status`."""

    def __init__(self, host: str, port: int) -> None:
        """Start to listen; raises OSError if the port is taken."""
        self.status: GatewayStatus | None = None
        self._registry = CollectorRegistry()
        # Memory, processor time and open descriptors.
        ProcessCollector(registry=self._registry)
        self._registry.register(self)
        self._server = HttpServer(host, port, self._answer)

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._server.close()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the status."""
        status = self.status
        if status is None:
            return
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"smrx_gateway_{name}", text, value=getattr(status, name))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"smrx_gateway_{name}", text, value=getattr(status, name))
        yield GaugeMetricFamily("smrx_gateway_leader", "1 if a leader is known", value=int(status.leader is not None))
        refused = CounterMetricFamily(
            "smrx_gateway_connections_refused", "Connections cut off before a login", labels=["reason"]
        )
        for reason, count in status.connections_refused.items():
            refused.add_metric([reason], count)
        yield refused

    def _answer(self, path: str) -> Answer:
        if path == "/metrics":
            return Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry))
        if path != "/health":
            return Answer(HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics or /health\n")
        status = self.status
        healthy = status is not None and status.leader is not None
        code = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(code, "application/json", msgspec.json.encode(status))
