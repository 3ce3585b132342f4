"""Export the metrics of settlement to Prometheus, on a loopback port if one is configured."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from smrx.follower.alarms import Alarm
from smrx.http_server import Answer, HttpServer

_GAUGES: Final = {
    "sequence": "Last event settled and committed",
    "known_sequence": "Newest event that any node has announced",
    "unverified_events": "Events received that no majority has attested",
    "trades": "Trades settled",
    "events_per_second": "Events settled a second",
    "gaps": "Gaps found in the feed",
    "gaps_healed": "Gaps filled by retransmission",
    "reordered_frames": "Frames that arrived after later ones of the same node, and were reordered",
    "duplicate_frames": "Frames that a node had published before, dropped",
    "attesting_nodes": "Nodes that claimed the last attested state or a later one",
    "balances_compared": "Balance digests of nodes that were equal to the books",
}


class Metrics:
    """Gauges read at each scrape, and a counter of alarms by code."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        """read() returns the value of every gauge by name."""
        self.registry = CollectorRegistry()
        self._read = read
        for name, text in _GAUGES.items():
            gauge = Gauge(f"smrx_settlement_{name}", text, registry=self.registry)
            gauge.set_function(partial(self._value, name))
        self._alarms = Counter("smrx_settlement_alarms", "Alarms by code", ["code"], registry=self.registry)
        self._server: HttpServer | None = None

    def _value(self, name: str) -> float:
        return float(self._read().get(name, 0.0))

    def alarm(self, alarm: Alarm) -> None:
        """Count an alarm."""
        self._alarms.labels(alarm.code.value).inc()

    def serve(self, port: int) -> None:
        """Serve http://127.0.0.1:port/metrics until close(). Raises OSError if the port is in use."""
        self._server = HttpServer("127.0.0.1", port, self._answer)

    def _answer(self, path: str) -> Answer:
        if path != "/metrics":
            return Answer(HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics\n")
        return Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry))

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
