"""Answer the admin requests of one node: status, views of the state, snapshots, members, leadership, shutdown.

Owns the admin socket, the requests that wait, and the time and the memory that they may cost: a turn spends at most
half a millisecond on them, and all turns together a quarter of the time, each peer in turn; a peer that does not read
its replies loses them (peer_outbox.py). read_service.py answers reads of the state. Never changes the state.
admin_access.py decides who may send what.
"""

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import zmq

from smrx.consensus import NotLeader
from smrx.consensus.membership import ChangePending
from smrx.consensus.messages import RulesVersions
from smrx.consensus.read_index import ReadTicket
from smrx.node import admin_access
from smrx.node.log_service import LogService
from smrx.node.node_view import NodeView
from smrx.node.peer_outbox import Bounds, PeerOutbox
from smrx.node.pending_reads import PendingReads
from smrx.node.read_service import ReadService
from smrx.node.turn_budget import TimeShare, TurnBudget
from smrx.wire import admin, tcp_address
from smrx.wire.admin import AdminError, AdminErrorCode
from smrx.wire.frames import FrameError
from smrx.wire.state_image import PART_BYTES

log = logging.getLogger(__name__)

#: What a turn may spend on requests: an order that waits for the turn waits so much longer. One request of any kind
#: takes less. Reading and checking them may take half of it.
_TURN_SECONDS: Final = 0.0005
_READING_PART: Final = 0.5
#: The part of the time that goes by in which reads are answered, after a burst: a loop whose turns follow each other
#: would take a processor of its own for readers that ask as fast as they can.
_SHARE: Final = 0.25
_BURST_SECONDS: Final = 0.02
#: Requests of one connection, and of all, that wait for their answer; and those of one that ZeroMQ reads ahead. More
#: stay in the sender's and the system's buffers.
_WAITING_OF_PEER: Final = 16
_WAITING_IN_ALL: Final = 1024
_UNREAD_OF_PEER: Final = 16
#: What peers may leave unread.
REPLY_BOUNDS: Final = Bounds(
    messages=4, buffer_bytes=256 << 10, peer_bytes=256 << 10, all_bytes=16 << 20, behind_bytes=0, seconds=5.0
)

#: Requests that wait for their turn: the others are few and cheap, or begin something.
_QUEUED: Final = (
    admin.ReadRequest, admin.TakeStateImage, admin.ReadStateImage, admin.TakeState, admin.ReadState, admin.ReadLog,
)  # fmt: skip


class AdminService:
    """Receives requests and answers them in the same turn or a later one, within a budget of time a turn."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, node: NodeView, token: str | None
    ) -> None:
        """Bind; raises zmq.ZMQError. `token`: what changing requests carry on a node without keys."""
        self.socket = context.socket(zmq.ROUTER)
        node.admission.prepare(self.socket, admin.MAX_REQUEST_BYTES)
        self.socket.rcvhwm = _UNREAD_OF_PEER
        self._outbox = PeerOutbox(self.socket, REPLY_BOUNDS)
        tcp_address.bind(self.socket, address)
        self._node = node
        self._token = token
        self._budget = TurnBudget(_TURN_SECONDS)
        self._share = TimeShare(_SHARE, _BURST_SECONDS, time.monotonic())
        #: By peer: the id and the content of its requests.
        self._reads: PendingReads[bytes, tuple[int, admin.AnyRequest]] = PendingReads(
            of_peer=_WAITING_OF_PEER, in_all=_WAITING_IN_ALL
        )
        self._read_service = ReadService(node)
        self._log_service = LogService(node, self._read_service)

    def receive(self, *, is_ready: bool) -> None:
        """Read requests while there is time, if there are any; answer those of operators, queue those that read."""
        self._budget.begin_turn()
        if not is_ready:
            return
        started = time.thread_time()
        self._budget.start()
        while self._budget.has_time(_READING_PART) and not self._reads.is_full:
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            if len(parts) >= 2:
                self._receive(parts[0].bytes, parts[-1])
        self._budget.stop()
        self._share.charge(time.thread_time() - started)

    def _receive(self, peer: bytes, received: zmq.Frame) -> None:
        data = received.bytes
        try:
            request_id, request = admin.decode_request(data)
        except FrameError as error:
            self._reply(peer, admin.request_id(data), self._error(AdminErrorCode.MALFORMED, str(error)))
            return
        principal = self._node.admission.principal(peer, received)
        refusal = admin_access.refusal(request, principal, self._token)
        if refusal is not None:
            self._reply(peer, request_id, self._error(AdminErrorCode.REFUSED, refusal))
        elif not self._reads.has_space(peer):
            message = f"node {self._node.me.id} is busy: {_WAITING_OF_PEER} requests of this connection wait; ask again"
            self._reply(peer, request_id, self._error(AdminErrorCode.UNAVAILABLE, message))
        else:
            self._accept(peer, request_id, request)

    def _accept(self, peer: bytes, request_id: int, request: admin.AnyRequest) -> None:
        """Queue a read; a linearizable one waits until this node is confirmed as the leader."""
        if not isinstance(request, _QUEUED):
            self._reply(peer, request_id, self._answer(request))
            return
        ticket: ReadTicket | None = None
        if isinstance(request, admin.ReadRequest):
            refusal = self._read_service.refusal(request)
            if refusal is not None:
                self._reply(peer, request_id, refusal)
                return
            if request.level == "linearizable":
                ticket = self._node.replica.request_read()
        self._reads.add(peer, (request_id, request), ticket)

    def answer(self) -> None:
        """Answer reads, of each peer in turn, while there is time; send what the peers can take."""
        self._budget.start()
        started = time.thread_time()
        self._outbox.retry()
        self._read_service.poll()
        self._reads.release(self._node.replica.read_state)
        goes_on = self._share.is_open(time.monotonic())
        while goes_on:
            answerable = self._reads.take(self._outbox.blocked)
            if answerable is None:
                break
            request_id, request = answerable.read
            if isinstance(request, admin.ReadRequest):
                reply = self._read(request, answerable.peer, is_lost=answerable.is_lost)
            else:
                reply = self._answer(request)
            self._reply(answerable.peer, request_id, reply)
            goes_on = self._budget.has_time()
        for peer in self._outbox.take_gone():
            self._reads.drop(peer)
        self._budget.stop()
        self._share.charge(time.thread_time() - started)

    def has_time(self, now: float) -> bool:
        """Whether requests may be read and answered: their share of the time is not used up."""
        return self._share.is_open(now)

    @property
    def has_requests(self) -> bool:
        """Whether requests or replies wait."""
        return len(self._reads) > 0 or bool(self._outbox.blocked)

    @property
    def has_more_to_do(self) -> bool:
        """Whether requests wait that could be answered now."""
        return self._reads.has_answerable(self._outbox.blocked) and self._share.is_open(time.monotonic())

    @property
    def next_deadline(self) -> float:
        """When answer() has something to do even without a request, on time.monotonic()."""
        return (
            min(self._outbox.next_deadline, self._share.opens_at)
            if self._share.is_closed
            else self._outbox.next_deadline
        )

    def close(self) -> None:
        """Free what is held for readers; the socket is the context's."""
        self._read_service.close()

    def status(self) -> admin.NodeStatus:
        """Return the status of this node, as `smrx cluster status` shows it."""
        node, replica, engine = self._node, self._node.replica, self._node.state.engine
        self._log_service.drop_unread()
        counts = engine.inspect.counts()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        agreement = replica.agreement
        unread_bytes, most_unread_bytes, dropped = node.unread_answers
        return admin.NodeStatus(
            **self._at,
            cluster=node.config.cluster,
            term=replica.term,
            leader_id=replica.leader_id,
            commit_index=replica.commit_index,
            applied_index=replica.applied_index,
            last_log_index=replica.last_index,
            event_sequence=engine.event_sequence,
            trades=engine.trade_count,
            state_hash=engine.state_hash,
            agreement=admin.AgreementStatus(state=agreement.state, sequence=agreement.sequence),
            fenced=agreement.fenced,
            waiting=replica.waiting,
            # The other nodes also record the sequence, but only the fenced node diverged.
            first_divergent_sequence=agreement.first_divergent if agreement.fenced is not None else None,
            diverged=dict(agreement.diverged),
            peers=replica.peer_status(),
            uptime_s=round(time.monotonic() - node.started, 3),
            orders_open=counts["orders"],
            accounts=counts["accounts"],
            records=engine.inspect.records(),
            capacity=engine.inspect.capacity(),
            killed=engine.inspect.killed,
            rss_bytes=_resident_bytes(),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            version=self._version,
            durability=node.config.durability,
            incarnation=node.meta.incarnation,
            voters=tuple(sorted(replica.membership.voters)),
            learners=tuple(sorted(replica.membership.ids - replica.membership.voters)),
            rules=_rules_status(node.state.rules()),
            time_ns=engine.time_ns,
            clock_offset_s=replica.clock_offset_seconds(),
            clock_fault=replica.clock_fault(engine.time_ns),
            connections=node.connections.open,
            connections_refused=node.connections.refused,
            unread_answer_bytes=unread_bytes,
            most_unread_answer_bytes=most_unread_bytes,
            unread_answers_dropped=dropped,
            turns=node.stages.turns,
            stage_ns={stage.value: spent for stage, spent in node.stages.ns.items()},
            **self._snapshot_status(),
        )

    def _snapshot_status(self) -> dict[str, Any]:
        snapshots = self._node.storage.snapshots
        if snapshots.stored is None:
            return {}
        return {
            "snapshot_index": snapshots.stored.metadata.log_index,
            "snapshot_sequence": snapshots.stored.metadata.sequence,
            "snapshot_pause_ms": round(1000 * snapshots.last_pause_s, 3),
            "snapshot_s": round(snapshots.last_work_s, 3),
        }

    @cached_property
    def _version(self) -> str:
        return version("smrx")

    @property
    def _at(self) -> dict[str, Any]:
        return self._read_service.at()

    def _error(self, code: AdminErrorCode, message: str) -> AdminError:
        return self._read_service.error(code, message)

    def _reply(self, peer: bytes, request_id: int, reply: admin.AnyReply) -> None:
        self._outbox.send(peer, admin.encode_reply(reply, request_id))

    def _answer(self, request: admin.AnyRequest) -> admin.AnyReply:
        handler: Callable[[Any], admin.AnyReply] = getattr(self, f"_on_{type(request).__name__.lower()}")
        return handler(request)

    def _read(self, request: admin.ReadRequest, peer: bytes, *, is_lost: bool) -> admin.AnyReply:
        reads = self._read_service
        if is_lost:
            message = f"node {self._node.me.id} lost its leadership before it could answer; ask again"
            return self._error(AdminErrorCode.LOST_LEADERSHIP, message)
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, f"{self._node.fenced}; ask another node")
        return reads.staleness(request) or reads.answer(request, peer)

    def _on_status(self, request: admin.Status) -> admin.AnyReply:
        return self.status()

    def _on_hashat(self, request: admin.HashAt) -> admin.AnyReply:
        return admin.HashReply(**self._at, at=request.at, state_hash=self._node.state.hash_at(request.at))

    def _on_logdigest(self, request: admin.LogDigest) -> admin.AnyReply:
        state = self._node.state
        return admin.LogDigestReply(
            **self._at,
            applied_index=self._node.replica.applied_index,
            log_digest=state.log_digest,
            state_hash=state.engine.state_hash,
            event_sequence=state.engine.event_sequence,
            trades=state.engine.trade_count,
        )

    def _on_takestateimage(self, request: admin.TakeStateImage) -> admin.AnyReply:
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, self._node.fenced)
        state = self._node.state
        held = state.state_images.request(request.at, state.engine, time.monotonic())
        if held is None:
            pending = state.state_images.is_delayed(request.at, state.engine)
            return admin.StateImageReply(**self._at, at=request.at, pending=pending)
        if not held.is_ready:
            return admin.StateImageReply(**self._at, at=request.at, pending=True)
        return admin.StateImageReply(
            **self._at, at=request.at, position=held.position, size=held.size, digest=held.digest
        )

    def _on_readstateimage(self, request: admin.ReadStateImage) -> admin.AnyReply:
        held = self._node.state.state_images.get(request.at, time.monotonic())
        if held is None or not held.is_ready:
            message = f"no state image is held for command {request.at}; request one first"
            return self._error(AdminErrorCode.UNAVAILABLE, message)
        end = request.offset + PART_BYTES
        part = held.read(request.offset, PART_BYTES)
        return admin.StateImagePart(**self._at, at=request.at, data=part, more=end < held.size)

    def _on_takestate(self, request: admin.TakeState) -> admin.AnyReply:
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, self._node.fenced)
        return self._log_service.take_state(request)

    def _on_readstate(self, request: admin.ReadState) -> admin.AnyReply:
        return self._log_service.read_state(request)

    def _on_readlog(self, request: admin.ReadLog) -> admin.AnyReply:
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, self._node.fenced)
        return self._log_service.read_log(request)

    def _on_snapshot(self, request: admin.Snapshot) -> admin.AnyReply:
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, self._node.fenced)
        self._node.replica.compact()
        return admin.SnapshotReply(**self._at, log_index=self._node.replica.applied_index)

    def _on_addmember(self, request: admin.AddMember) -> admin.AnyReply:
        return self._change_members(lambda: self._node.replica.add_member(request.node))

    def _on_removemember(self, request: admin.RemoveMember) -> admin.AnyReply:
        return self._change_members(lambda: self._node.replica.remove_member(request.node_id))

    def _change_members(self, change: Callable[[], int]) -> admin.AnyReply:
        try:
            return admin.MembersReply(**self._at, log_index=change())
        except NotLeader:
            message = f"node {self._node.me.id} does not lead; only the leader changes members"
            return self._error(AdminErrorCode.NOT_LEADER, message)
        except ChangePending as error:
            return self._error(AdminErrorCode.UNAVAILABLE, str(error))
        except ValueError as error:
            return self._error(AdminErrorCode.REFUSED, str(error))

    def _on_upgraderules(self, request: admin.UpgradeRules) -> admin.AnyReply:
        try:
            index, version = self._node.upgrade_rules()
        except NotLeader:
            message = f"node {self._node.me.id} does not lead; only the leader switches the rules"
            return self._error(AdminErrorCode.NOT_LEADER, message)
        except ValueError as error:
            return self._error(AdminErrorCode.REFUSED, str(error))
        log.info("node %d switches to version %d of the rules at log entry %d", self._node.me.id, version, index)
        return admin.UpgradeRulesReply(**self._at, log_index=index, version=version)

    def _on_transferleadership(self, request: admin.TransferLeadership) -> admin.AnyReply:
        try:
            return admin.TransferLeadershipReply(
                **self._at, successor=self._node.replica.transfer_leadership(request.successor)
            )
        except NotLeader:
            message = f"node {self._node.me.id} does not lead; only the leader transfers leadership"
            return self._error(AdminErrorCode.NOT_LEADER, message)
        except ValueError as error:
            return self._error(AdminErrorCode.REFUSED, str(error))

    def _on_shutdown(self, request: admin.Shutdown) -> admin.AnyReply:
        self._node.stop()
        return admin.ShutdownReply(**self._at)


def _rules_status(rules: RulesVersions) -> admin.RulesStatus:
    return admin.RulesStatus(oldest=rules.oldest, newest=rules.newest, in_force=rules.in_force)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # A system without /proc: the peak instead of the current size, in bytes on macOS and in KiB elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
