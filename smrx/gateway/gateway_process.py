"""Run one gateway: a single thread that polls its sockets, collects commands, sends them upstream and answers.

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

import numpy as np

from smrx import client_keys, compile_cache
from smrx.client.admin_client import open_admin_client
from smrx.config import Config, GatewayConfig
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
from smrx.links.listener import Bounds, Listener
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
        self.settings = settings
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
            connections=settings.connections,
            unadmitted=settings.connections,
            greeting_seconds=settings.login_ms / 1000,
            greeting_bytes=soup_packets.MAX_TEXT,
            frame_bytes=soup_packets.MAX_TEXT,
            queue_bytes=_QUEUE_BYTES,
            unread_ms=_UNREAD_MS,
        )
        own = None if keys is None else keys.own
        try:
            self._listener = self._listen(bounds, own, cluster)
        except OSError as error:
            self._links.close()
            raise GatewayPortError(
                f"gateway {settings.name!r} cannot listen on {settings.address}: {error.strerror}; it may be running "
                "already: stop the process that uses the address, or give this gateway another name and port"
            ) from None
        self._next_report = 0.0
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
        self._listener.close()
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
