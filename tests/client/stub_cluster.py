"""A stub cluster in one thread: real ZeroMQ sockets, one shared fake exchange, and injected faults.

`StubCluster` serves order entry and admin requests on ports that the system chooses. Tests set faults; the thread reads
them between messages, under one lock.
"""

import threading
from collections import Counter, deque
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import zmq

from smrx.config import ORDERS_SCHEME, Config, NodeConfig
from smrx.wire import admin, frames
from smrx.wire.codes import CommandKind, Side
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, COMMAND_SIZE
from tests.client.stub_exchange import StubExchange
from tests.client.tcp_bridge import TcpBridge

LOCAL = "tcp://127.0.0.1:*"


class Faults:
    """The faults of the cluster: how often each still occurs, or whether it lasts."""

    def __init__(self) -> None:
        self.drop_answers = 0  #: frames that are applied but not answered
        self.drop_requests = 0  #: frames that are neither applied nor answered
        self.overload = 0  #: frames rejected as OVERLOADED
        self.repeat_answers = 0  #: frames answered twice
        self.hold_answers = False  #: replies wait until release()
        self.garbage_answers = 0  #: frames that are applied and answered with garbage
        self.silent: set[int] = set()  #: nodes that receive messages and never reply
        self.stale: set[int] = set()  #: nodes whose query replies have sequence 0
        self.old: set[int] = set()  #: nodes of an earlier version, which ignore the level of a read


class StubCluster:
    """Nodes 1 to n; used as a context manager."""

    def __init__(self, nodes: int = 3, transport: str = "tcp") -> None:
        """Order entry is served over both transports; `orders_addresses` are those of one."""
        self.exchange = StubExchange()
        self.faults = Faults()
        self.leader: int | None = 1
        self.term = 1
        #: What the status says of SET_CAPACITY.
        self.capacity: dict[str, int] = {}
        self.admin_hints = True
        self.received: Counter[str] = Counter()
        #: (level, min_sequence, max_age_ms) of the reads answered.
        self.levels: list[tuple[str, int, float | None]] = []
        #: (node, session) -> pings for the session.
        self.session_pings: Counter[tuple[int, int]] = Counter()
        self.disconnect_ms: int | None = None
        self.lock = threading.Lock()
        self._held: deque[tuple[int, bytes, bytes]] = deque()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._orders = {node: self._bind() for node in range(1, nodes + 1)}
        self._admin = {node: self._bind() for node in range(1, nodes + 1)}
        self._wake = self._context.socket(zmq.PAIR)
        self._woken = self._context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        self._woken.connect("inproc://wake")
        self._zmq_addresses = [socket.last_endpoint.decode() for socket in self._orders.values()]
        self._bridge = TcpBridge(self._zmq_addresses)
        self._tcp_addresses = [f"{ORDERS_SCHEME}127.0.0.1:{port}" for port in self._bridge.ports]
        self.orders_addresses = self._tcp_addresses if transport == "tcp" else self._zmq_addresses
        self.admin_addresses = [socket.last_endpoint.decode() for socket in self._admin.values()]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="stub", daemon=True)

    def _bind(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(LOCAL)
        return socket

    def __enter__(self) -> "StubCluster":
        self._thread.start()
        self._bridge.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bridge.stop()
        self._wake.send(b"stop")
        self._thread.join(10)
        self._wake.close()
        self._context.term()
        if self._error is not None and kind is None:
            raise self._error

    @property
    def config(self) -> Config:
        """The nodes as a configuration; ports that the stub does not serve are 1."""
        return Config(
            nodes=tuple(
                NodeConfig(id=node, port=1, orders_port=_port(orders), orders_tcp_port=tcp, admin_port=_port(admins))
                for node, orders, tcp, admins in zip(
                    self._orders, self._zmq_addresses, self._bridge.ports, self.admin_addresses, strict=True
                )
            )
        )

    def elect(self, leader: int | None) -> None:
        """Change the leader. Commands applied before stay applied."""
        with self.lock:
            self.leader = leader
            self.term += 1

    def release(self) -> None:
        """Send the held replies, each from the node that applied the commands."""
        with self.lock:
            self.faults.hold_answers = False
        self._wake.send(b"release")

    def applied(self, kind: CommandKind = CommandKind.PLACE) -> list[int]:
        """Return the client order ids of the commands of a kind that consumed a request id, in order."""
        with self.lock:
            bodies = np.frombuffer(b"".join(piece[:COMMAND_SIZE] for _, _, piece in self.exchange.ledger), COMMAND)
        return [int(command["client_order_id"]) for command in bodies if command["kind"] == kind]

    # The thread

    def _serve(self) -> None:
        try:
            poller = zmq.Poller()
            for socket in (*self._orders.values(), *self._admin.values(), self._woken):
                poller.register(socket, zmq.POLLIN)
            while self._turn(dict(poller.poll())):
                pass
        except Exception as error:  # noqa: BLE001 - __exit__ raises it in the test
            self._error = error
        finally:
            for socket in (*self._orders.values(), *self._admin.values(), self._woken):
                socket.close(linger=0)

    def _turn(self, ready: "dict[zmq.Socket[bytes], int]") -> bool:
        with self.lock:
            if self._woken in ready:
                if self._woken.recv() == b"stop":
                    return False
                while self._held:
                    node, identity, frame = self._held.popleft()
                    self._orders[node].send_multipart((identity, frame))
            for node, socket in self._orders.items():
                if socket in ready:
                    identity, data = socket.recv_multipart()
                    self._take(node, identity, data)
            for node, socket in self._admin.items():
                if socket in ready:
                    identity, data = socket.recv_multipart()
                    if node not in self.faults.silent:
                        request_id, request = admin.decode_request(data)
                        socket.send_multipart((identity, admin.encode_reply(self._answer(node, request), request_id)))
        return True

    def _once(self, fault: str) -> bool:
        left = int(getattr(self.faults, fault))
        setattr(self.faults, fault, max(0, left - 1))
        return left > 0

    def _hint(self, node: int) -> LeaderHint:
        where = None if self.leader is None else self._zmq_addresses[self.leader - 1]
        tcp = None if self.leader is None else self._tcp_addresses[self.leader - 1]
        own = self.admin_addresses[node - 1] if self.admin_hints else None
        return LeaderHint(self.leader, where, node, self.term, own, self.disconnect_ms, order_tcp_address=tcp)

    def _take(self, node: int, identity: bytes, data: bytes) -> None:
        frame = frames.decode(data)
        self.received[frame.kind.name] += 1
        if node in self.faults.silent:
            return
        if frame.kind is FrameKind.PING:
            if frame.aux:
                self.session_pings[node, frame.aux] += 1
            self._send(node, identity, frames.encode_body(FrameKind.PONG, self._hint(node), frame.correlation))
        elif node != self.leader:
            self._send(node, identity, frames.encode_body(FrameKind.NOT_LEADER, self._hint(node), frame.correlation))
        elif self._once("drop_requests"):
            pass
        elif self._once("overload"):
            body = ErrorBody(int(ErrorCode.OVERLOADED), "the node is overloaded; send the frame again later")
            self._send(node, identity, frames.encode_body(FrameKind.ERROR, body, frame.correlation))
        else:
            answer = frames.encode_outcomes(self.exchange.apply(frames.command_list(frame)), frame.correlation)
            if self.faults.hold_answers:
                self._held.append((node, identity, answer))
            elif self._once("garbage_answers"):
                self._send(node, identity, b"garbage" * 9)
            elif not self._once("drop_answers"):
                self._send(node, identity, answer)
                if self._once("repeat_answers"):
                    self._send(node, identity, answer)

    def _send(self, node: int, identity: bytes, frame: bytes) -> None:
        self._orders[node].send_multipart((identity, frame))

    def _answer(self, node: int, request: admin.AnyRequest) -> admin.AnyReply:
        self.received[f"{type(request).__name__} {node}"] += 1
        exchange = self.exchange
        at: dict[str, Any] = {"node_id": node, "sequence": 0 if node in self.faults.stale else exchange.sequence}
        if isinstance(request, admin.ReadRequest):
            if request.level != "any" and node != self.leader:
                code, message = admin.AdminErrorCode.NOT_LEADER, "only the leader answers this read"
                return admin.AdminError(**at, code=code, message=message, leader_id=self.leader)
            at |= {"role": "" if node in self.faults.old else "leader" if node == self.leader else "follower"}
            at |= {"age_ms": 0.0}
            self.levels.append((request.level, request.min_sequence, request.max_age_ms))
        match request:
            case admin.Status():
                return msgspec.structs.replace(
                    _status(at, self.leader, self.term, exchange.killed), capacity=self.capacity
                )
            case admin.Assets():
                rows = tuple(exchange.assets.values())[request.offset : request.offset + 1]
                return admin.AssetsReply(**at, rows=rows, more=request.offset + 1 < len(exchange.assets))
            case admin.Instruments():
                return admin.InstrumentsReply(**at, rows=tuple(exchange.instruments.values())[request.offset :])
            case admin.Accounts():
                known = sorted(exchange.accounts)
                rows = tuple(exchange.account_row(a) for a in known if request.account in (None, a))
                return admin.AccountsReply(**at, rows=rows)
            case admin.Balances():
                found = [
                    admin.BalanceRow(account=account, asset=asset, available=units, held=0)
                    for (account, asset), units in exchange.balances.items()
                    if request.account in (None, account)
                ]
                return admin.BalancesReply(**at, rows=tuple(found))
            case admin.Positions():
                rows = tuple(exchange.position_row(request.account, number) for number in exchange.instruments)
                end = request.offset + 1
                return admin.PositionsReply(**at, rows=rows[request.offset : end], more=end < len(rows))
            case admin.Transfers():
                made = tuple(row for row in exchange.transfers.values() if row.account == request.account)
                return admin.TransfersReply(**at, rows=made)
            case admin.Orders():
                orders = tuple(
                    order
                    for order in exchange.orders.values()
                    if request.account in (None, order.account)
                    and request.order_id in (None, order.order_id)
                    and request.client_order_id in (None, order.client_order_id)
                )
                return admin.OrdersReply(**at, rows=orders)
            case admin.Depth():
                row = exchange.instruments[int(request.instrument)]
                bids, asks = (exchange.levels(row.instrument, side) for side in (Side.BUY, Side.SELL))
                return admin.DepthReply(**at, instrument=row.instrument, symbol=row.symbol, bids=bids, asks=asks)
        raise AssertionError(f"the stub cluster does not answer {type(request).__name__}")


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def _status(at: dict[str, Any], leader: int | None, term: int, killed: bool) -> admin.NodeStatus:
    return admin.NodeStatus(
        **at,
        cluster="stub",
        role="leader" if leader == at["node_id"] else "follower",
        term=term,
        leader_id=leader,
        commit_index=0,
        applied_index=0,
        last_log_index=0,
        event_sequence=0,
        trades=0,
        state_hash=0,
        agreement=admin.AgreementStatus(state="AGREE"),
        killed=killed,
    )
