"""Answer the admin requests of one node: status, views of the state, snapshots, members, leadership, shutdown.

Owns the admin socket. Replies come from the state as applied on this node and name its sequence. A client that needs
current data first sends a Barrier to the leader and reads after the reply. Never changes the state, except for the
corruption that a test requests from a node started with --allow-corruption. admin_access.py decides which addresses may
send requests that change the cluster.
"""

import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.consensus import NotLeader
from smrx.consensus.messages import RulesVersions
from smrx.node import admin_access
from smrx.node.connection_guard import HANDSHAKE_MS
from smrx.node.log_service import LogService
from smrx.node.node_view import NodeView
from smrx.wire import admin, tcp_address
from smrx.wire.admin import AdminError, AdminErrorCode
from smrx.wire.frames import FrameError
from smrx.wire.records import pack_symbol
from smrx.wire.state_image import PART_BYTES
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

log = logging.getLogger(__name__)

_REQUESTS_PER_TURN: Final = 32

R = TypeVar("R", bound=msgspec.Struct)


class AdminService:
    """Receives requests and queues replies; the reply to a Barrier waits until its log entry is applied."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, node: NodeView, allow_corruption: bool
    ) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.maxmsgsize = admin.MAX_REQUEST_BYTES
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        enable_tcp_keepalive(self.socket)
        tcp_address.bind(self.socket, address)
        self._node = node
        self._allow_corruption = allow_corruption
        self._replies: list[tuple[bytes, bytes]] = []
        self._barriers: dict[int, tuple[int, bytes, int]] = {}
        self._log_service = LogService(node)

    def receive(self) -> None:
        """Read the requests that have arrived and queue the replies; flush() sends them."""
        for _ in range(_REQUESTS_PER_TURN):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            if len(parts) < 2:
                continue
            identity, data = parts[0].bytes, parts[-1].bytes
            try:
                request_id, request = admin.decode_request(data)
            except FrameError as error:
                self._reply(identity, admin.request_id(data), self._error(AdminErrorCode.MALFORMED, str(error)))
                continue
            refusal = self._refusal(request, parts[-1])
            if refusal is not None:
                self._reply(identity, request_id, self._error(AdminErrorCode.REFUSED, refusal))
            elif isinstance(request, admin.Barrier):
                self._barrier(identity, request_id)
            else:
                self._reply(identity, request_id, self._answer(request))

    def applied(self, log_index: int, term: int) -> None:
        """Queue the reply to the barrier at this index, whose entry was applied."""
        waiting = self._barriers.pop(log_index, None)
        if waiting is None:
            return
        barrier_term, identity, request_id = waiting
        if barrier_term != term:
            message = "the leader changed before the barrier was applied; send the request again"
            self._reply(identity, request_id, self._error(AdminErrorCode.LOST_LEADERSHIP, message))
            return
        state_hash = self._node.state.engine.state_hash
        self._reply(identity, request_id, admin.BarrierReply(**self._at, log_index=log_index, state_hash=state_hash))

    def lost_leadership(self) -> None:
        """Refuse the waiting barriers: their entries may never be committed."""
        for _, identity, request_id in self._barriers.values():
            message = "this node lost its leadership before the barrier was applied; send the request again"
            self._reply(identity, request_id, self._error(AdminErrorCode.LOST_LEADERSHIP, message))
        self._barriers.clear()

    def flush(self) -> None:
        """Send the replies of this turn."""
        for identity, data in self._replies:
            self.socket.send_multipart((identity, data))
        self._replies.clear()

    def status(self) -> admin.NodeStatus:
        """Return the status of this node, as `smrx cluster status` shows it."""
        node, replica, engine = self._node, self._node.replica, self._node.state.engine
        self._log_service.drop_unread()
        counts = engine.inspect.counts()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        agreement = replica.agreement
        return admin.NodeStatus(
            **self._at,
            cluster=node.config.cluster,
            role=replica.role,
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
        return {"node_id": self._node.me.id, "sequence": self._node.state.engine.sequence}

    def _error(self, code: AdminErrorCode, message: str) -> AdminError:
        return AdminError(**self._at, code=code, message=message, leader_id=self._node.replica.leader_id)

    def _reply(self, identity: bytes, request_id: int, reply: admin.AnyReply) -> None:
        self._replies.append((identity, admin.encode_reply(reply, request_id)))

    def _refusal(self, request: admin.AnyRequest, received: zmq.Frame) -> str | None:
        """Return why the sender of a request may not send it, or None."""
        if not isinstance(request, admin_access.CHANGING_REQUESTS):
            return None
        peer = str(received.get("Peer-Address"))
        if admin_access.may_change_cluster(peer, self._node.config.admin_from):
            return None
        return (
            f"{peer} may not change the cluster: it is neither an address of the machine of node {self._node.me.id} "
            "nor in admin_from; run the command on the leader's machine, or add the address to admin_from"
        )

    def _barrier(self, identity: bytes, request_id: int) -> None:
        if self._node.fenced is not None:
            self._reply(identity, request_id, self._error(AdminErrorCode.FENCED, self._node.fenced))
            return
        try:
            index, term = self._node.submit_barrier()
        except NotLeader:
            message = f"node {self._node.me.id} does not lead; send the request to the leader"
            self._reply(identity, request_id, self._error(AdminErrorCode.NOT_LEADER, message))
            return
        self._barriers[index] = (term, identity, request_id)

    def _answer(self, request: admin.AnyRequest) -> admin.AnyReply:
        handler: Callable[[Any], admin.AnyReply] = getattr(self, f"_on_{type(request).__name__.lower()}")
        return handler(request)

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

    def _on_depth(self, request: admin.Depth) -> admin.AnyReply:
        row = self._instrument(request.instrument)
        if row is None:
            message = f"unknown instrument {request.instrument!r}"
            return self._error(AdminErrorCode.UNKNOWN_INSTRUMENT, message)
        bids, asks = self._node.state.engine.inspect.depth(row.instrument, request.levels)
        return admin.DepthReply(
            **self._at, instrument=row.instrument, symbol=row.symbol, bids=_levels(bids), asks=_levels(asks)
        )

    def _on_orders(self, request: admin.Orders) -> admin.AnyReply:
        found = self._node.state.engine.inspect.orders(request.account, request.instrument)
        if request.order_id is not None:
            found = found[found["order_id"] == np.uint64(request.order_id)]
        if request.client_order_id is not None:
            found = found[found["client_order_id"] == request.client_order_id.encode("ascii")]
        rows, more = _page(found, request, admin.OrderRow)
        return admin.OrdersReply(**self._at, rows=rows, more=more)

    def _on_balances(self, request: admin.Balances) -> admin.AnyReply:
        rows, more = _page(self._node.state.engine.inspect.balances(request.account), request, admin.BalanceRow)
        return admin.BalancesReply(**self._at, rows=rows, more=more)

    def _on_positions(self, request: admin.Positions) -> admin.AnyReply:
        found = self._node.state.engine.inspect.positions(request.account)
        end = request.offset + request.limit
        rows = tuple(
            msgspec.convert(_with_digits(position._asdict()), admin.PositionRow)
            for position in found[request.offset : end]
        )
        return admin.PositionsReply(**self._at, rows=rows, more=end < len(found))

    def _on_transfers(self, request: admin.Transfers) -> admin.AnyReply:
        rows, more = _page(self._node.state.engine.inspect.transfers(request.account), request, admin.TransferRow)
        return admin.TransfersReply(**self._at, rows=rows, more=more)

    def _on_accounts(self, request: admin.Accounts) -> admin.AnyReply:
        found = self._node.state.engine.inspect.accounts()
        if request.account is not None:
            found = found[found["account"] == request.account]
        rows, more = _page(found, request, admin.AccountRow)
        return admin.AccountsReply(**self._at, rows=rows, more=more)

    def _on_assets(self, request: admin.Assets) -> admin.AnyReply:
        rows, more = _page(self._node.state.engine.inspect.assets(), request, admin.AssetRow)
        return admin.AssetsReply(**self._at, rows=rows, more=more)

    def _on_instruments(self, request: admin.Instruments) -> admin.AnyReply:
        rows, more = _page(self._node.state.engine.inspect.instruments(), request, admin.InstrumentRow)
        return admin.InstrumentsReply(**self._at, rows=rows, more=more)

    def _on_takestateimage(self, request: admin.TakeStateImage) -> admin.AnyReply:
        if self._node.fenced is not None:
            return self._error(AdminErrorCode.FENCED, self._node.fenced)
        state = self._node.state
        held = state.state_images.request(request.at, state.engine, time.monotonic())
        if held is None:
            return admin.StateImageReply(**self._at, at=request.at)
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

    def _on_corrupt(self, request: admin.Corrupt) -> admin.AnyReply:
        if not self._allow_corruption:
            message = "the node was not started with --allow-corruption; nothing was changed"
            return self._error(AdminErrorCode.REFUSED, message)
        done = self._node.state.engine.corrupt_balance(request.account, request.asset, request.delta)
        log.warning("corrupted the balance of account %d, asset %d: %s", request.account, request.asset, done)
        return admin.CorruptReply(**self._at, done=done)

    def _on_shutdown(self, request: admin.Shutdown) -> admin.AnyReply:
        self._node.stop()
        return admin.ShutdownReply(**self._at)

    def _instrument(self, wanted: int | str) -> admin.InstrumentRow | None:
        found = self._node.state.engine.inspect.instruments()
        if isinstance(wanted, str):
            try:
                found = found[found["symbol"] == pack_symbol(wanted)]
            except ValueError:
                return None
        else:
            found = found[found["instrument"] == wanted]
        return next(iter(_rows(found[:1], admin.InstrumentRow)), None)


def _rows(array: NDArray[np.void], row_type: type[R]) -> tuple[R, ...]:
    names = array.dtype.names or ()
    texts = [name for name in names if array.dtype[name].kind == "S"]
    rows = []
    for values in array.tolist():
        row = dict(zip(names, values, strict=True))
        for name in texts:
            row[name] = row[name].decode("ascii", "replace")
        rows.append(msgspec.convert(row, row_type))
    return tuple(rows)


def _page(found: NDArray[np.void], request: admin.PageRequest, row_type: type[R]) -> tuple[tuple[R, ...], bool]:
    end = request.offset + request.limit
    return _rows(found[request.offset : end], row_type), end < len(found)


def _with_digits(position: dict[str, int]) -> dict[str, int | str]:
    """Return a position with the sums that may exceed 64 bits as text."""
    return {name: str(value) if name.endswith(("_lots", "_notional")) else value for name, value in position.items()}


def _rules_status(rules: RulesVersions) -> admin.RulesStatus:
    return admin.RulesStatus(oldest=rules.oldest, newest=rules.newest, in_force=rules.in_force)


def _levels(levels: Iterable[tuple[int, int, int]]) -> tuple[admin.LevelRow, ...]:
    return tuple(admin.LevelRow(price_ticks=p, quantity_lots=q, orders=n) for p, q, n in levels)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # A system without /proc: the peak instead of the current size, in bytes on macOS and in KiB elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
