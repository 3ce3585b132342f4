"""Run one gateway: a single thread that polls its sockets, collects commands, sends them upstream and answers.

Another thread serves metrics and health, if the gateway has a port for them.

Gateway.turn() shows the order of a turn. The only module of a gateway in which sockets, the clock and the process meet.
A gateway may be killed at any time: sessions, request ids and answers are in the state of the exchange, and its clients
go on through another gateway. `smrx gateway` calls run().
"""

import gc
import logging
import os
import resource
import signal
import time
from contextlib import ExitStack
from types import FrameType
from typing import Final

import msgspec
import numpy as np

from smrx import client_keys, compile_cache
from smrx.client.admin_client import open_admin_client
from smrx.config import Config, GatewayConfig
from smrx.gateway.gateway_metrics import GatewayMetrics, GatewayStatus
from smrx.gateway.native.client_table import LOGGED_IN
from smrx.gateway.native.command_block import AnyRoute
from smrx.gateway.native.native_server import NativeServer
from smrx.gateway.person_directory import Person, PersonDirectory, reader
from smrx.gateway.upstream import Upstream
from smrx.gateway.upstream_links import UpstreamLinks
from smrx.key_files import KeyPair, KeysError
from smrx.links import greeting, tls
from smrx.links.connection import Connection
from smrx.links.framing import SOUP_BIN_TCP
from smrx.links.greeted_links import GreetedLinks
from smrx.links.greeting import ServerGreeting, Terms
from smrx.links.listener import TOO_MANY_CONNECTIONS, Bounds, Listener
from smrx.links.poller import Poller
from smrx.wire import soup_packets

log = logging.getLogger(__name__)

#: A connection whose peer leaves what it was sent unread for so long is closed.
_UNREAD_MS: Final = 10_000
_QUEUE_BYTES: Final = 4 << 20
#: Sessions with cancel-on-disconnect are reported so often within the time after which they count as disconnected.
_REPORTS_PER_TIMEOUT: Final = 4
_REPORT_SECONDS: Final = 1.0
#: How long a node may take to list the credentials.
_ADMIN_SECONDS: Final = 1.0
#: Descriptors kept for files, metrics and what else the process opens, and for the sockets of each node.
_OTHER_DESCRIPTORS: Final = 96
_DESCRIPTORS_OF_NODE: Final = 12
#: The time between two log lines about connections for which there is no room.
_LOG_SECONDS: Final = 60.0
#: Connections beyond those that are served: each is told that there is no room, and ends a moment later.
_REFUSED: Final = 32


class GatewayPortError(Exception):
    """The gateway cannot listen; the message is one sentence for the operator."""


class Gateway:
    """The loop of one gateway and its parts."""

    def __init__(self, config: Config, settings: GatewayConfig, *, key: str | None = None) -> None:
        """Listen. Raises GatewayPortError if the address is taken, KeysError for a missing or foreign key."""
        keys = client_keys.of_client(config, key or settings.secret_key_file)
        if keys is not None and keys.own.public not in settings.public_keys:
            raise KeysError(
                f"gateway {settings.name!r}: its key {keys.own.public} is not among its public_keys in the cluster file"
            )
        self.settings = settings = _with_room(settings, len(config.nodes))
        self._closing = ExitStack()
        self._persons: PersonDirectory | None = None
        self._persons_version = 0
        self._stop = False
        self._poller = Poller()
        self.upstream = Upstream([node.orders_tcp_address for node in config.nodes])
        cluster = greeting.cluster_number(config.cluster)
        self._links = UpstreamLinks(self.upstream, self._poller, keys, cluster)
        if keys is not None:
            ask = self._closing.enter_context(
                open_admin_client(config, _ADMIN_SECONDS, key or settings.secret_key_file)
            )
            self._persons = PersonDirectory(reader(config, ask))
            self._closing.callback(self._persons.stop)
        self.native = NativeServer(
            settings,
            self._submit,
            config.limits,
            person_of=None if keys is None else self._person_of,
        )
        bounds = Bounds(
            connections=settings.connections + _REFUSED,
            unadmitted=settings.connections + _REFUSED,
            greeting_seconds=settings.login_ms / 1000,
            greeting_bytes=soup_packets.MAX_TEXT,
            frame_bytes=soup_packets.MAX_TEXT,
            queue_bytes=_QUEUE_BYTES,
            unread_ms=_UNREAD_MS,
        )
        own = None if keys is None else keys.own
        address = settings.address
        try:
            self._listener = self._listen(bounds, own, cluster)
            self._closing.callback(self._listener.close)
            self._metrics: GatewayMetrics | None = None
            if settings.metrics_port is not None:
                address = settings.metrics_address or ""
                self._metrics = GatewayMetrics(settings.bare_host, settings.metrics_port)
                self._closing.callback(self._metrics.close)
        except OSError as error:
            self.close()
            raise GatewayPortError(
                f"gateway {settings.name!r} cannot listen on {address}: {error.strerror}; it may be running already: "
                "stop the process that uses the address, or give this gateway another name and port"
            ) from None
        self._next_report = self._next_log = 0.0
        self._full_before = 0  # connections refused for lack of room, at the last log line
        self._leader: str | None = None

    def _listen(self, bounds: Bounds, own: KeyPair | None, cluster: int) -> Listener:
        """Listen: in plain text, or with keys under TLS, with a greeting before the protocol."""
        address, poller = self.settings.address, self._poller
        if own is None:
            self.native.listener = Listener(address, poller, self.native, bounds, framing=SOUP_BIN_TCP)
            return self.native.listener
        secured = tls.server()
        terms = Terms(greeting.GATEWAY, cluster)

        def greet(connection: Connection) -> ServerGreeting:
            def allows(key: str) -> bool:
                assert self._persons is not None
                return self._persons.find(key, connection.peer_address) is not None

            return ServerGreeting(terms, own, secured.certificate, allows)

        links = GreetedLinks(self.native, greet)
        links.listener = Listener(address, poller, links, bounds, framing=SOUP_BIN_TCP, tls=secured.context)
        return links.listener

    def _person_of(self, connection: Connection) -> Person | None:
        assert self._persons is not None
        return self._persons.find(connection.peer_key or "", connection.peer_address)

    def run(self) -> None:
        """Turn until stop()."""
        if self._persons is not None:
            self._persons.start()
        self.upstream.start(time.monotonic())
        while not self._stop:
            self.turn()

    def stop(self) -> None:
        """End after the current turn."""
        self._stop = True

    def turn(self) -> None:
        """Run one turn: what has arrived is answered or sent on at its end."""
        self.native.set_time(time.monotonic())
        self._poller.run(self._timeout())  # bytes of clients are buffered, answers of the leader received
        now = time.monotonic()
        self.native.set_time(now)
        self._links.receive(now)
        for answer in self.upstream.take_answers():
            self.native.answer(answer)
        for refusal in self.upstream.take_refusals():
            self.native.refuse(refusal)
        self.native.credential = self.upstream.credential
        self.native.read(may_submit=self.upstream.is_idle)
        while self.native.has_block and self.upstream.is_idle:
            self.native.submit_block()
            self.native.read(may_submit=self.upstream.is_idle)
        self.upstream.tick(now)
        self._report(now)
        self._links.perform(self.upstream.take_actions())
        self.native.tick()
        if self._persons is not None and self._persons.version != self._persons_version:
            self._persons_version = self._persons.version
            self.native.check_persons()
        self._listener.tick(now)

    def close(self) -> None:
        """Close every socket."""
        self._closing.close()
        self._links.close()
        self._poller.close()

    def _timeout(self) -> float:
        if self.native.has_more_to_read:
            return 0.0
        now = time.monotonic()
        deadline = min(
            self.upstream.deadline or self.native.next_deadline, self.native.next_deadline,
            self._listener.next_deadline, self._links.next_deadline,
        )  # fmt: skip
        return max(0.0, deadline - now)

    def _submit(
        self, route: AnyRoute, body: bytes, commands: int, details: int = 0, *, droppable: bool = False
    ) -> None:
        self.upstream.submit(route, body, commands, time.monotonic(), details, droppable=droppable)

    def _report(self, now: float) -> None:
        """Report the sessions whose clients are connected, and log a change of the leader."""
        if self.upstream.leader != self._leader:
            self._leader = self.upstream.leader
            if self._leader is None:
                log.warning("gateway %s looks for the leader", self.settings.name)
            else:
                log.info("gateway %s sends to the leader at %s", self.settings.name, self._leader)
        if now >= self._next_report:
            timeout = self.upstream.disconnect_s
            interval = _REPORT_SECONDS if timeout is None else min(_REPORT_SECONDS, timeout / _REPORTS_PER_TIMEOUT)
            self._next_report = now + interval
            sessions = self.native.table.kept_alive()
            if len(sessions):
                self.upstream.keep_alive(np.asarray(sessions))
            self._report_connections(now)

    def _report_connections(self, now: float) -> None:
        """Log that connections are refused, and replace the status that metrics show."""
        listener, native, upstream = self._listener, self.native, self.upstream
        full = native.without_room + listener.refused[TOO_MANY_CONNECTIONS]
        if full > self._full_before and now >= self._next_log:
            log.warning(
                "gateway %s has its most connections (%d): %d more were cut off; close idle connections, or raise "
                "`connections` and the limit of open files of this process",
                self.settings.name, self.settings.connections, full - self._full_before,
            )  # fmt: skip
            self._next_log, self._full_before = now + _LOG_SECONDS, full
        if self._metrics is not None:
            self._metrics.status = GatewayStatus(
                name=self.settings.name,
                leader=upstream.leader,
                connections=len(listener.connections),
                logged_in=len(native.table.slots(LOGGED_IN)),
                most_connections=self.settings.connections,
                connections_refused={"no room": native.without_room, **listener.refused},
                forwarded=native.forwarded,
                refused=native.refused,
                answered=native.answered,
                under_way=upstream.held,
                held_back=upstream.held_back,
                resent=upstream.resent,
                searches=upstream.searches,
            )


def _with_room(settings: GatewayConfig, nodes: int) -> GatewayConfig:
    """Return the settings with no more connections than the process has descriptors for."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(1, descriptors - _OTHER_DESCRIPTORS - _DESCRIPTORS_OF_NODE * nodes)
    if descriptors == resource.RLIM_INFINITY or room >= settings.connections:
        return settings
    log.warning(
        "gateway %s serves at most %d connections, not %d: the process may open %d files; raise that limit",
        settings.name, room, settings.connections, descriptors,
    )  # fmt: skip
    return msgspec.structs.replace(settings, connections=room)


def run(config: Config, name: str | None = None, key: str | None = None) -> None:
    """Run one gateway until SIGTERM, SIGINT or SIGHUP."""
    settings = config.gateway(name)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # It compiles before it listens.
    with compile_cache.writable_by_owner_only():
        gateway = Gateway(config, settings, key=key)

    received: list[str] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        # Nothing is logged here: the signal may have come in the middle of writing to the log.
        received.append(signal.Signals(number).name)
        gateway.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, on_signal)
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)
    log.info(
        "gateway %s of cluster %r listens on %s (process %d)",
        settings.name,
        config.cluster,
        settings.address,
        os.getpid(),
    )
    try:
        gateway.run()
        log.info("gateway %s stops on %s", settings.name, ", ".join(received))
    finally:
        gateway.close()
    log.info("gateway %s stopped", settings.name)
