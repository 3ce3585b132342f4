"""Run one node: poll the sockets, advance the replica, publish. One thread, one loop, no locks.

Node.turn() shows the order of a turn; its middle, advance(), is in turn.py. The only module of a node in which sockets,
the clock and the process meet. `smrx node` calls run().
"""

import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar

import zmq

from smrx.config import Config, NodeConfig, socket_address
from smrx.consensus import MetaStore, NotLeader, Replica, ReplicaSettings, TcpTransport, keys, membership
from smrx.consensus.agreement import remedy
from smrx.consensus.zap import ZapHandler
from smrx.links.poller import Poller
from smrx.node import admin_access, order_rings
from smrx.node.admin_service import AdminService
from smrx.node.admission import Admission
from smrx.node.client_limits import ClientLimits
from smrx.node.connection_guard import ConnectionGuard, most_connections
from smrx.node.frame_block import AnswerBlock, FrameBlock, LinkIdentities, link_number
from smrx.node.memory_scrub import MemoryScrub
from smrx.node.metrics_server import MetricsServer
from smrx.node.node_storage import NodeStorage
from smrx.node.order_entry import OrderEntry, Reply
from smrx.node.order_links import OrderLinks
from smrx.node.order_socket import OrderSocket
from smrx.node.publisher import Publisher
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.node.stage_times import Stage, StageTimes
from smrx.node.timed_commands import ExpiryTimer, SessionTimeouts, disconnects, has_session_events, tick
from smrx.node.turn import Turn
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import Claim, ErrorCode, FeedPosition, LeaderHint

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The time between two updates of the metrics.
_STATUS_SECONDS: Final = 0.5
#: While messages arrive, the steps of a turn that can wait are taken this often.
_FULL_TURN_SECONDS: Final = 0.005
#: How long a node that stops keeps its order entry socket open to send what is queued.
_STOP_LINGER_MS: Final = 200


class PortInUseError(Exception):
    """A socket of this node cannot be bound; the message is one sentence for the operator."""


class Node(Turn):
    """The reactor, and the parts of the node that it runs."""

    transport: TcpTransport
    _scrub: MemoryScrub
    #: Times on time.monotonic(): when this node last read from its clients, and when it next updates its metrics.
    _last_read_at: float
    _next_status: float
    #: When the next turn takes every step, on time.monotonic(), and whether the last one did.
    _full_turn_at: float = 0.0
    _was_full = False

    def __init__(self, config: Config, node_id: int) -> None:
        """Open the data directory and bind every socket.

        Raises MetaError for a foreign or locked data directory, KeysError for a missing or foreign key, PortInUseError
        for an address that is taken.
        """
        self.config = config
        self.me = config.node(node_id)
        self.started = time.monotonic()
        self.stages = StageTimes()
        self._stop = False
        self._stop_reason = ""
        link_keys = keys.of_node(config, node_id)
        self._nodes = {node.id: node for node in config.nodes}
        self.meta = MetaStore(config.node_dir(node_id), cluster=config.cluster, node_id=node_id)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._poller = Poller(spin_seconds=config.timing.spin_us / 1e6, on_waited=lambda: self.stages.end(Stage.WAIT))
        try:
            self._open(link_keys)
        except BaseException:
            self.close()
            raise

    # The loop.

    def run(self) -> None:
        """Turn until stop(); an exception of the state or of consensus ends the node (fail-stop)."""
        while not self._stop:
            self.turn()
        if self._stop_reason:
            log.info("node %d stops on %s", self.me.id, self._stop_reason)
        self._transfer_leadership()

    def stop(self, reason: str = "") -> None:
        """End after the current turn, and log the reason."""
        self._stop, self._stop_reason = True, reason

    def turn(self) -> None:
        """Run one turn. Nothing leaves before what it depends on is durable.

        While messages arrive, most turns leave timers, periodic work and services that have nothing to do to a later
        one: they would cost a lone order more than its own steps.
        """
        self.stages.turns += 1
        if self._orders.outbox.blocked:
            self._orders.flush()
            self._watched_orders.is_used = True
        was_idle = not self._receive()  # Raft messages, orders, admin requests, requests of subscribers
        now = time.monotonic()
        is_full = self._was_full = was_idle or self._admin_is_ready or now >= self._full_turn_at
        if is_full:
            self._full_turn_at = now + _FULL_TURN_SECONDS
        self._submit(now, is_full=is_full)  # client commands and timer-driven commands, into the log
        self.stages.end(Stage.APPEND)
        applied = self.advance()  # turn.py: send entries, tick the replica, apply, make durable, reply
        if applied:
            self._report_applied(applied)  # to the timers
        if is_full or self.admin.has_requests:
            self._answer_admin()
        self.stages.end(Stage.OTHER)
        if is_full or applied or self.publisher.has_work:
            self._publish(applied, is_full=is_full)  # events and heartbeat
        self.stages.end(Stage.PUBLISH)
        if is_full:
            self._run_periodic_work(idle=was_idle)  # memory scrub, metrics
            self.stages.end(Stage.OTHER)

    def _poll_timeout(self, now: float) -> float:
        """Return how many seconds a poll may block: until the next deadline, not at all if messages may be waiting."""
        if self._has_more_to_read or self.transport.has_more_to_read or self._order_links.has_more:
            return 0.0
        if self._order_rings is not None and self._order_rings.has_more:
            return 0.0
        if not self._was_full:
            return max(0.0, min(self.replica.next_deadline(), self._full_turn_at) - now)
        deadline = min(
            self.replica.next_deadline(), self.publisher.next_deadline, self._next_status, self._scrub.next_deadline,
            self.admin.next_deadline, self._orders.outbox.next_deadline, self._order_links.next_deadline,
        )  # fmt: skip
        if self.leading_term is not None:
            deadline = min(deadline, self._session_timeouts.deadline)
            expiry_ns = self.state.next_expiry_ns
            if expiry_ns is not None:
                deadline = min(deadline, self._expiry_timer.deadline(expiry_ns, self.stamp_ns(), now))
        return max(0.0, deadline - now)

    def _receive(self) -> bool:
        """Wait for messages and take them; return whether there were any."""
        timeout = self._poll_timeout(time.monotonic())
        self._has_more_to_read = self._admin_is_ready = False
        self.transport.begin_turn()
        now = time.monotonic()
        # Those who ask as fast as they can wait in their own buffers.
        self._watched_admin.is_paused = not self.admin.has_time(now)
        self._watched_events.is_paused = not self.publisher.has_time(now)
        self._order_links.begin_turn()
        found = self._poller.run(timeout)
        self.stages.end(Stage.REPLICATE)
        self._order_links.deliver()
        if self._order_rings is not None:
            found |= self._order_rings.deliver()
        self._order_links.tick(time.monotonic())
        self.admin.receive(is_ready=self._admin_is_ready)
        self.stages.end(Stage.OTHER)
        return found

    def _answer_handshakes(self, events: int) -> None:
        assert self._zap is not None
        self._has_more_to_read |= self._zap.answer()

    def _note_admin(self, events: int) -> None:
        self._admin_is_ready = True

    def _receive_subscribers(self, events: int) -> None:
        newest = self.state.engine.event_sequence
        self._has_more_to_read |= self.publisher.receive(newest, time.monotonic(), self.fenced)

    def _receive_orders(self, events: int) -> None:
        self.stages.end(Stage.REPLICATE)
        block = self._orders.receive()
        self._has_more_to_read |= self._orders.has_more
        if block is not None:
            self.order_entry.receive_block(block, self.hint(), self.fenced, time.monotonic_ns())
        self.stages.end(Stage.DECODE)

    def _take_orders(self, block: FrameBlock) -> None:
        self.order_entry.receive_block(block, self.hint(), self.fenced, time.monotonic_ns())
        self.stages.end(Stage.DECODE)

    def _submit(self, now: float, *, is_full: bool) -> None:
        if self.replica.is_transferring:
            return
        no_orders = not self.submit()
        if is_full:
            self._submit_timer_driven(now, no_orders)

    def _submit_timer_driven(self, now: float, no_orders: bool) -> None:
        """Append DISCONNECT for silent sessions, and TICK if an order expires and no other command brings the time."""
        active = self.order_entry.take_active_sessions()
        if self.leading_term is None:
            return
        self._session_timeouts.all_active(active, now)
        if now - self._last_read_at > self._session_timeout_s / 2:
            # This node was suspended: what clients sent in the meantime is not read yet.
            self._session_timeouts.resume(now)
        self._last_read_at = now
        try:
            silent = self._session_timeouts.due(now, self.state.orders_ending_with)
            if silent:
                self._disconnect(silent)
            expiry_ns = self.state.next_expiry_ns if no_orders else None
            if expiry_ns is not None and self._expiry_timer.is_due(expiry_ns, self.stamp_ns(), now):
                index, _ = self.submit_entry([memoryview(tick().tobytes())])
                self._expiry_timer.submitted(index, now)
        except NotLeader:
            # Leadership was lost, or is not complete yet; every new leader restarts the timeouts, this node too.
            self._session_timeouts.restart(self.state.cancel_on_disconnect_sessions(), now)

    def _disconnect(self, silent: list[int]) -> None:
        sessions = sorted(session for session in silent if self.state.orders_ending_with(session))
        if sessions:
            log.info("cancelling the open orders of %d sessions that timed out", len(sessions))
            index, _ = self.submit_entry([memoryview(disconnects(sessions).tobytes())])
            self._session_timeouts.submitted(index)

    def _answer_admin(self) -> None:
        self._watched_admin.is_used |= self.admin.has_requests
        self.admin.answer()
        self._has_more_to_read |= self.admin.has_more_to_do

    def _report_applied(self, applied: list[Applied]) -> None:
        now = time.monotonic()
        for entry in applied:
            self._expiry_timer.applied(entry.log_index)
            self._session_timeouts.entry_applied(entry.log_index)
            if self.leading_term is not None and has_session_events(entry.events):
                self._session_timeouts.applied(entry.events, now)
                self._limits.session_counts.applied(entry.events)

    def _publish(self, applied: list[Applied], *, is_full: bool) -> None:
        publisher = self.publisher
        self._watched_events.is_used |= publisher.subscribers > 0
        if self.fenced is not None:
            # Its events may differ from those of the majority.
            publisher.end_all(ErrorCode.FENCED, self.fenced)
            return
        publisher.publish(applied)
        if is_full or publisher.has_work:
            now = time.monotonic()
            publisher.catch_up(lambda: self.state.events, self.state.hash_at, now)
            publisher.heartbeat(self._stream_position, self.state.engine.event_sequence, now)

    def _run_periodic_work(self, *, idle: bool) -> None:
        now = time.monotonic()
        if self.replica.removed and not self._stop:
            log.warning("node %d was removed from cluster %r and stops", self.me.id, self.config.cluster)
            self._stop = True
        self.connections.run(now)
        damaged = self._scrub.run(now) if idle else None
        if damaged is not None and self.fenced is None:
            self._fence_damaged_memory(damaged)
        if now >= self._next_status:
            self._next_status = now + _STATUS_SECONDS
            self.metrics.status = self.admin.status()

    def _fence_damaged_memory(self, damaged: str) -> None:
        log.critical("memory of node %d is damaged: %s differs from its hash", self.me.id, damaged)
        self.replica.agreement.fence(
            f"memory damaged at or before command {self.state.engine.sequence}: {damaged} differs from its hash; "
            f"{remedy(self.me.id)}"
        )

    def _transfer_leadership(self) -> None:
        """Make another node the leader before this one ends: its clients then wait for a turn, not for an election."""
        try:
            successor = self.replica.transfer_leadership()
        except (NotLeader, ValueError):
            return
        log.info("node %d transfers leadership to node %d", self.me.id, successor)
        while self.replica.is_leader and self.replica.is_transferring:
            self.turn()
        # The queued replies name the new leader; send them before the socket closes.
        self._orders.socket.linger = _STOP_LINGER_MS

    # What a turn asks of the reactor (turn.py), and what the admin service does.

    def wall_ns(self) -> int:
        """Return the nanoseconds since 1970 by the clock of this machine."""
        return time.time_ns()

    @property
    def unread_answers(self) -> tuple[int, int, int]:
        """As NodeView."""
        outbox, links = self._orders.outbox, self._order_links
        most = outbox.most_waiting_bytes + links.most_waiting_bytes
        return outbox.waiting_bytes + links.waiting_bytes, most, outbox.dropped

    def _send(self, reply: Reply) -> None:
        if self._order_rings is not None and order_rings.is_ring(reply.identity):
            self._order_rings.send(reply.identity, reply.frame)
            return
        if link_number(reply.identity) is not None:
            self._order_links.send(reply.identity, reply.frame)
            return
        self._orders.send(reply.identity, reply.frame)
        self._watched_orders.is_used = True

    def _stage_ended(self, stage: Stage) -> None:
        self.stages.end(stage)

    def _send_answers(self, answers: AnswerBlock) -> None:
        if self._order_rings is not None and order_rings.are_rings(answers):
            self._order_rings.send_answers(answers)
            return
        if isinstance(answers.identities, LinkIdentities):
            self._order_links.send_answers(answers)
            return
        self._orders.send_answers(answers)
        self._watched_orders.is_used = True

    def hint(self) -> LeaderHint:
        """Return the leader and its address, as far as this node has learned."""
        leader = self.replica.leader_id
        node = None if leader is None else self._node_of(leader)
        return LeaderHint(
            leader,
            None if node is None else node.orders_address,
            self.me.id,
            self.replica.term,
            self.me.admin_address,
            self.config.timing.disconnect_ms,
            0,
            None if node is None else node.orders_tcp_address,
        )

    def _node_of(self, node_id: int) -> NodeConfig | None:
        """Return the addresses of a node that clients are told."""
        # A node that became a member after this node's cluster file was written is in the membership only.
        return self._nodes.get(node_id) or self.replica.membership.node(node_id)

    def _stream_position(self) -> FeedPosition:
        """Return the end of this node's event stream and the state there, for its heartbeat."""
        engine = self.state.engine
        digest = Digest(*engine.balance_digest())
        return FeedPosition(engine.event_sequence + 1, Claim(*self.state.position()), digest)

    def _leadership_changed(self, before: int | None) -> None:
        if before is not None:
            log.warning("node %d no longer leads (term %d)", self.me.id, before)
        if self.leading_term is not None:
            log.info("node %d leads in term %d", self.me.id, self.leading_term)
            self._last_read_at = time.monotonic()
            self._session_timeouts.restart(self.state.cancel_on_disconnect_sessions(), self._last_read_at)
            self._limits.session_counts.restart(self.state.engine.inspect.session_owners())
            self._expiry_timer.restart()

    # Opening and closing.

    def _open(self, link_keys: keys.LinkKeys | None) -> None:
        config, me = self.config, self.me
        self.state = ReplicatedState(config.limits.event_ring)
        # Before any socket is bound: a node that answers has restored its whole state.
        self.storage = NodeStorage(config, me.id, self.meta, self.state)
        self.state.state_images.forks, self.state.state_images.pages = True, self.storage.snapshots.pages
        self._limits = ClientLimits(config.limits)
        self.order_entry = OrderEntry(
            me.id, config.limits.pending_commands, limits=self._limits, has_keys=link_keys is not None
        )
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # Before the sockets that it serves.
        self._zap = None if link_keys is None else ZapHandler(self._context)
        self.admission = Admission(config, link_keys, self._zap, self.state)
        self.transport = _bound(
            me.raft_address,
            lambda: TcpTransport(
                self._poller,
                cluster=config.cluster,
                node_id=me.id,
                bind=me.raft_address,
                peers={node.id: node.raft_address for node in config.nodes if node.id != me.id},
                incarnation=self.meta.incarnation,
                keys=link_keys,
                max_connections=most_connections("raft", descriptors),
            ),
        )
        self.publisher = _bound(
            me.events_address,
            lambda: Publisher(
                self._context,
                me.events_address,
                principal_of=self.admission.principal_of if self.admission.has_keys else None,
                prepare=self.admission.prepare,
                firm_reader=lambda *wanted: self.state.engine.inspect.accounts_of_firm(*wanted),
                max_subscribers=config.limits.subscribers,
            ),
        )
        self._orders = _bound(me.orders_address, lambda: OrderSocket(self._context, me.orders_address, self.admission))
        orders_tcp = socket_address(me.orders_tcp_address)
        self._order_links = _bound(
            orders_tcp,
            lambda: OrderLinks(
                self._poller,
                orders_tcp,
                self.admission,
                self._take_orders,
                cluster=config.cluster,
                keys=link_keys,
                max_connections=most_connections("orders_tcp", descriptors),
            ),
        )
        self._order_rings = order_rings.open_rings(
            self._poller, config.ring_path(me.id), self._take_orders, has_keys=link_keys is not None
        )
        token = None if link_keys is not None else admin_access.write_token(config.admin_token_path(me.id))
        self.admin = _bound(me.admin_address, lambda: AdminService(self._context, me.admin_address, self, token))
        host, port = me.metrics_bind
        self.metrics = _bound(me.metrics_address, lambda: MetricsServer(host, port))
        self.replica = Replica(
            me.id,
            [node.id for node in config.nodes if node.id != me.id],
            machine=self.state,
            transport=self.transport,
            meta=self.meta,
            journal=self.storage.journal,
            settings=ReplicaSettings(
                timing=config.timing,
                compaction_entries=config.limits.compaction_entries,
                snapshot_commands=config.limits.snapshot_commands,
                snapshot_seconds=60.0 * config.limits.snapshot_minutes,
            ),
            snapshots=self.storage.snapshots,
            snapshot_sequence=self.storage.restarted.snapshot_sequence,
            members=membership.of(config.nodes),
            wall_ns=self.wall_ns,
        )
        ports = {"orders": self._orders.socket, "events": self.publisher.socket, "admin": self.admin.socket}
        listeners = {"raft": self.transport.listener, "orders_tcp": self._order_links.listener}
        self.connections = ConnectionGuard(ports, descriptors, listeners)
        if self._zap is not None:
            self._poller.add_zmq(self._zap.socket, self._answer_handshakes)
        self._watched_orders = self._poller.add_zmq(self._orders.socket, self._receive_orders)
        self._watched_events = self._poller.add_zmq(self.publisher.socket, self._receive_subscribers)
        self._watched_admin = self._poller.add_zmq(self.admin.socket, self._note_admin)
        self._session_timeout_s = config.timing.disconnect_ms / 1000
        self._session_timeouts = SessionTimeouts(self._session_timeout_s)
        self._expiry_timer = ExpiryTimer()
        self._last_read_at = time.monotonic()
        self._next_status = 0.0
        self._scrub = MemoryScrub(self.state)
        self._has_more_to_read = self._admin_is_ready = False

    def close(self) -> None:
        """Close every socket and the data directory; safe on a node that was opened in part."""
        connections = getattr(self, "connections", None)
        if connections is not None:
            connections.close()
        metrics = getattr(self, "metrics", None)
        if metrics is not None:
            metrics.close()
        transport = getattr(self, "transport", None)
        if transport is not None:
            transport.close()
        admin = getattr(self, "admin", None)
        if admin is not None:
            admin.close()
        order_links = getattr(self, "_order_links", None)
        if order_links is not None:
            order_links.close()
        rings = getattr(self, "_order_rings", None)
        if rings is not None:
            rings.close()
        orders = getattr(self, "_orders", None)
        if orders is not None:
            orders.close()
        storage = getattr(self, "storage", None)
        if storage is not None:
            storage.close()
        self.meta.close()
        # Last: ZeroMQ waits for its threads, and the lock on the data directory does not.
        self._context.destroy(linger=0)
        self._poller.close()


def _bound(address: str, bind: Callable[[], T]) -> T:
    try:
        return bind()
    except (zmq.ZMQError, OSError) as error:
        raise PortInUseError(
            f"cannot listen on {address}: {error.strerror}; stop the process that uses the address, or change it in "
            "the configuration"
        ) from None


def run(config: Config, node_id: int) -> None:
    """Run one node until SIGTERM, SIGINT or SIGHUP, or until it fails. Raises what Node raises for operator errors."""
    # What a node writes holds the orders and balances of all accounts.
    os.umask(0o077)
    # Every connection takes a descriptor, also one of an unknown peer: use as many as the system grants.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    node = Node(config, node_id)

    def on_signal(number: int, frame: FrameType | None) -> None:
        node.stop(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    # Under nohup the signal is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, on_signal)
    # Everything allocated so far stays until the process ends: exclude it from collection.
    gc.collect()
    gc.freeze()
    # Reference counting frees the garbage of a turn; cycles are rare, so collect seven times less often than usual.
    gc.set_threshold(5_000)
    log.info("node %d of cluster %r started (process %d)", node_id, config.cluster, os.getpid())
    try:
        node.run()
    finally:
        node.close()
    log.info("node %d stopped", node_id)
