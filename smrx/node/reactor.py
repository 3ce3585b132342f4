"""One node: one thread, one loop, no locks. The only place of a node where sockets, clock and processes meet.

A turn: poll; Raft messages into the replica; order entry into the open batch; submit it; tick the replica (commits,
applies); make durable what the turn promised; and only then let messages, answers and events leave.
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

from smrx.config import Config
from smrx.consensus import MetaStore, NotLeader, Replica, ReplicaSettings, ZmqTransport, keys, membership
from smrx.consensus.agreement import remedy
from smrx.consensus.transport_zmq import has_message
from smrx.node.admin_service import AdminService
from smrx.node.metrics_server import MetricsServer
from smrx.node.node_storage import NodeStorage
from smrx.node.order_entry import OrderEntry, Reply
from smrx.node.publisher import Publisher
from smrx.node.replicated_state import ReplicatedState
from smrx.node.timed_commands import ExpiryTimer, SessionTimeouts, disconnects, tick
from smrx.node.turn import Turn
from smrx.wire import balance_digest, frames
from smrx.wire.frames import Claim, FeedPosition, LeaderHint
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Messages of one socket taken in a turn: enough to fill the largest entry, few enough to come back to Raft in time.
_ORDERS_PER_TURN: Final = 256
_RAFT_PER_TURN: Final = 256
_STATUS_SECONDS: Final = 0.5
_LAST_WORDS_MS: Final = 200
#: Records whose cached hash is checked per turn of an idle loop: memory that rots at rest is found before it is used.
_SCRUB_RECORDS: Final = 1024
_SCRUB_SECONDS: Final = 0.1


class PortInUseError(Exception):
    """A socket of this node cannot be bound; the message is one sentence for the operator."""


class Node(Turn):
    """The reactor and everything it turns."""

    transport: ZmqTransport

    def __init__(self, config: Config, node_id: int, *, allow_corruption: bool = False) -> None:
        """Open the data directory and bind every socket.

        Raises MetaError for a foreign or locked data directory, KeysError for a missing or foreign key, PortInUseError
        for a taken address.
        """
        self.config = config
        self.me = config.node(node_id)
        self.started = time.monotonic()
        self._stop = False
        link_keys = keys.of_node(config, node_id)
        self._order_addresses = {node.id: node.orders_address for node in config.nodes}
        self.meta = MetaStore(config.node_dir(node_id), cluster=config.cluster, node_id=node_id)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        try:
            self._open(link_keys, allow_corruption)
        except BaseException:
            self.close()
            raise

    def _open(self, link_keys: keys.LinkKeys | None, allow_corruption: bool) -> None:
        config, me = self.config, self.me
        self.state = ReplicatedState(config.limits.event_ring, config.limits.outcome_ring)
        # Before anything else is bound: a node that is there has all it ever had.
        self.storage = NodeStorage(config, me.id, self.meta, self.state)
        self.order_entry = OrderEntry(me.id, config.limits.pending_commands)
        self.transport = _bound(
            me.raft_address,
            lambda: ZmqTransport(
                self._context,
                cluster=config.cluster,
                node_id=me.id,
                bind=me.raft_address,
                peers={node.id: node.raft_address for node in config.nodes if node.id != me.id},
                incarnation=self.meta.incarnation,
                keys=link_keys,
            ),
        )
        self.publisher = _bound(
            f"{me.events_address} or {me.retransmit_address}",
            lambda: Publisher(self._context, me.events_address, me.retransmit_address),
        )
        self._orders = self._context.socket(zmq.ROUTER)
        self._orders.linger = 0
        self._orders.maxmsgsize = frames.MAX_FRAME_BYTES
        enable_tcp_keepalive(self._orders)
        _bound(me.orders_address, lambda: self._orders.bind(me.orders_address))
        self.admin = _bound(
            me.admin_address, lambda: AdminService(self._context, me.admin_address, self, allow_corruption)
        )
        host, port = me.metrics_bind
        self.metrics = _bound(f"http://{host}:{port}", lambda: MetricsServer(host, port))
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
            snapshot_sequence=self.storage.restarted.sequence_of_snapshot,
            members=membership.of(config.nodes),
        )
        self._poller = zmq.Poller()
        for socket in (*self.transport.sockets, self._orders, self.publisher.requests, self.admin.socket):
            self._poller.register(socket, zmq.POLLIN)
        self._patience_s = config.timing.disconnect_ms / 1000
        self._session_timeouts = SessionTimeouts(self._patience_s)
        self._expiry_timer = ExpiryTimer()
        self._listened_at = time.monotonic()
        self._next_status = 0.0
        # Where damage is done on purpose, it is left for the comparison of state hashes to find.
        self._next_scrub = float("inf") if allow_corruption else 0.0
        self._scrub_at = 0
        self._busy = False

    def stop(self) -> None:
        """End after the current turn."""
        self._stop = True

    def run(self) -> None:
        """Turn until stop(); an exception of the state machine or of consensus ends the node (fail-stop)."""
        while not self._stop:
            self.turn()
        self._hand_over()

    def _hand_over(self) -> None:
        """Let another node lead before this one goes: its clients then wait for a turn instead of an election."""
        try:
            successor = self.replica.transfer_leadership()
        except (NotLeader, ValueError):
            return
        log.info("node %d hands over to node %d", self.me.id, successor)
        while self.replica.is_leader and self.replica.is_transferring:
            self.turn()
        # What was said last must leave: where to ask now.
        self._orders.linger = _LAST_WORDS_MS

    def turn(self) -> None:
        """One turn of the loop."""
        now = time.monotonic()
        ready = dict(self._poller.poll(self._patience_ms(now)))
        self._busy = False
        for socket in self.transport.sockets:
            if socket in ready:
                self.transport.drain(_RAFT_PER_TURN)
        if self._orders in ready:
            self._receive_orders()
        if self.admin.socket in ready:
            self.admin.receive()
        if self.publisher.requests in ready:
            # What a fenced node believes happened is nobody's history.
            self._busy |= self.publisher.answer_requests(
                self.state.events if self.fenced is None else None, self.state.hash_at
            )
        if not self.replica.is_transferring:
            quiet = not self.submit()
            self._submit_timed(time.monotonic(), quiet)
        applied = self.commit()
        if self.replica.removed and not self._stop:
            log.warning("node %d is no member of cluster %r any more and ends", self.me.id, self.config.cluster)
            self._stop = True
        for entry in applied:
            self.admin.applied(entry.log_index, entry.term)
        self.admin.flush()
        now = time.monotonic()
        for entry in applied:
            self._expiry_timer.applied(entry.log_index)
            if self.leading_term is not None:
                self._session_timeouts.applied(entry.events, now)
        if self.fenced is None:
            self.publisher.publish(applied)
            self.publisher.heartbeat(self._position, now)
        if not ready:
            self._scrub(now)
        if now >= self._next_status:
            self._next_status = now + _STATUS_SECONDS
            self.metrics.status = self.admin.status()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def _send(self, reply: Reply) -> None:
        self._orders.send_multipart((reply.identity, reply.frame))

    def hint(self) -> LeaderHint:
        """Who leads, as far as this node knows."""
        leader = self.replica.leader_id
        address = None if leader is None else self._order_address(leader)
        patience_ms = self.config.timing.disconnect_ms
        return LeaderHint(leader, address, self.me.id, self.replica.term, self.me.admin_address, patience_ms)

    def _order_address(self, node_id: int) -> str | None:
        if node_id not in self._order_addresses:
            # One that became a member after this node's cluster file was written.
            node = self.replica.membership.node(node_id)
            return None if node is None else node.orders_address
        return self._order_addresses[node_id]

    def _position(self) -> FeedPosition:
        """Where this node stands, for its heartbeat."""
        engine = self.state.engine
        digest = balance_digest.digest(*engine.inspect.balance_arrays())
        return FeedPosition(engine.event_sequence + 1, Claim(*self.state.position()), digest)

    def submit_barrier(self) -> tuple[int, int]:
        """Put an empty entry into the log; (index, term). When it is applied, every earlier command is.

        Raises NotLeader.
        """
        return self.submit_entry([])

    def _patience_ms(self, now: float) -> int:
        if self._busy:
            return 0
        deadline = min(self.replica.next_deadline(), self.publisher.next_deadline, self._next_status, self._next_scrub)
        if self.leading_term is not None:
            expiry = self._expiry_timer.deadline(self.state.next_expiry_ns, time.time_ns(), now)
            deadline = min(deadline, expiry, self._session_timeouts.deadline)
        # Rounded up: a deadline missed by a fraction of a millisecond would turn the loop hot.
        return max(0, int((deadline - now) * 1000) + 1)

    def _receive_orders(self) -> None:
        hint, fenced = self.hint(), self.fenced
        for _ in range(_ORDERS_PER_TURN):
            if not has_message(self._orders):
                return
            parts = self._orders.recv_multipart(zmq.DONTWAIT)
            # A DEALER sends one part, a REQ an empty one before it; anything else is refused as a malformed frame.
            self.order_entry.receive(parts[0], parts[-1] if len(parts) == 2 else b"", hint, fenced)
        self._busy = True

    def _submit_timed(self, now: float, quiet: bool) -> None:
        """Put into the log what time alone brings: DISCONNECT for silent sessions, and TICK if nothing else came."""
        heard = self.order_entry.take_heard()
        if self.leading_term is None:
            return
        for session in heard:
            self._session_timeouts.heard(session, now)
        if now - self._listened_at > self._patience_s / 2:
            # This node stood still: what clients sent meanwhile is still on its way in.
            self._session_timeouts.resume(now)
        self._listened_at = now
        try:
            silent = self._session_timeouts.due(now)
            if silent:
                self._disconnect(silent)
            if quiet and self._expiry_timer.is_due(self.state.next_expiry_ns, time.time_ns(), now):
                index, _ = self.submit_entry([memoryview(tick().tobytes())])
                self._expiry_timer.submitted(index, now)
        except NotLeader:
            # Not any more, or not yet again: whoever leads next counts anew, this node included.
            self._session_timeouts.restart(self.state.cancel_on_disconnect_sessions(), now)

    def _disconnect(self, silent: list[int]) -> None:
        ended = sorted(set(silent).intersection(self.state.cancel_on_disconnect_sessions(with_orders=True)))
        if ended:
            log.info("cancelling what %d silent sessions left open", len(ended))
            self.submit_entry([memoryview(disconnects(ended).tobytes())])

    def _leadership_changed(self, before: int | None) -> None:
        if before is not None:
            self.admin.lost_leadership()
            log.warning("node %d no longer leads (term %d)", self.me.id, before)
        if self.leading_term is not None:
            log.info("node %d leads in term %d", self.me.id, self.leading_term)
            self._listened_at = time.monotonic()
            self._session_timeouts.restart(self.state.cancel_on_disconnect_sessions(), self._listened_at)
            self._expiry_timer.restart()

    def _scrub(self, now: float) -> None:
        """Check a slice of memory against the hashes kept beside it; a node whose memory rots leaves the majority."""
        if now < self._next_scrub:
            return
        self._next_scrub = now + _SCRUB_SECONDS
        self._scrub_at, bad = self.state.engine.scrub(self._scrub_at, _SCRUB_RECORDS)
        if bad is not None and self.fenced is None:
            sequence = self.state.engine.sequence
            log.critical("memory of node %d is damaged: %s differs from its hash", self.me.id, bad)
            self.replica.agreement.fence(
                f"memory damaged at or before command {sequence}: {bad} differs from its hash; {remedy(self.me.id)}"
            )

    def close(self) -> None:
        """Close every socket and the data directory; safe on a node that was only half opened."""
        metrics = getattr(self, "metrics", None)
        if metrics is not None:
            metrics.close()
        transport = getattr(self, "transport", None)
        if transport is not None:
            # Its doorman is a thread with sockets of this context.
            transport.close()
        orders = getattr(self, "_orders", None)
        if orders is not None:
            orders.close()
        self._context.destroy(linger=0)
        storage = getattr(self, "storage", None)
        if storage is not None:
            storage.close()
        self.meta.close()


def _bound(address: str, bind: Callable[[], T]) -> T:
    try:
        return bind()
    except (zmq.ZMQError, OSError) as error:
        raise PortInUseError(
            f"expected to listen on {address}, found: {error.strerror}; free it or change the "
            "address in the configuration"
        ) from None


def run(config: Config, node_id: int, *, allow_corruption: bool = False) -> None:
    """Run one node until SIGTERM or SIGINT, or until its state can no longer be trusted.

    Raises what Node raises for the operator's mistakes.
    """
    # Connections cost a descriptor each, strangers' included: use all that the machine grants.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    node = Node(config, node_id, allow_corruption=allow_corruption)

    def on_signal(number: int, frame: FrameType | None) -> None:
        node.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    # What was allocated by now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # What a turn leaves behind is freed by counting; cycles are rare, and looked for seven times as seldom.
    gc.set_threshold(5_000)
    log.info("node %d of cluster %r serves (process %d)", node_id, config.cluster, os.getpid())
    try:
        node.run()
    finally:
        node.close()
    log.info("node %d stopped", node_id)
