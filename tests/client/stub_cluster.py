"""A cluster in one thread: real ZeroMQ sockets, one shared fake exchange behind them, and faults on demand.

`Stub` serves order entry and admin on ports the system chooses. Faults are set by the test and picked up by the thread
between messages; every set is guarded by one lock, so a test sees a fault from the moment its call returns.
"""

import threading
from collections import Counter, deque
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.config import Config, NodeConfig
from smrx.wire import admin, frames
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderType,
    OutcomeStatus,
    Reason,
)
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, LIMITS_COMMAND, RULES_COMMAND, unpack_symbol
from tests.client.fake_exchange import FakeExchange

LOCAL = "tcp://127.0.0.1:*"


class Venue(FakeExchange):
    """The fake exchange with what the verbs need: assets, instruments, balances and resting orders, all of it naive."""

    def __init__(self) -> None:
        super().__init__((0, 1, 2))
        self.account_rows: dict[int, admin.AccountRow] = {}
        self.killed = False
        self.assets: dict[int, admin.AssetRow] = {}
        self.instruments: dict[int, admin.InstrumentRow] = {}
        self.orders: dict[int, admin.OrderRow] = {}
        self.balances: dict[tuple[int, int], int] = {}
        self.transfers: dict[int, admin.TransferRow] = {}

    def position_row(self, account: int, number: int) -> admin.PositionRow:
        """What an account has in an instrument; nothing of it is held here."""
        listed = self.instruments[number]
        own = [row for row in self.orders.values() if (row.account, row.instrument) == (account, number)]
        buys, sells = ([row for row in own if row.side == side] for side in (1, 2))
        worth = [sum(r.price_ticks * r.leaves_lots * listed.scale_units for r in rows) for rows in (buys, sells)]
        return admin.PositionRow(
            account=account,
            instrument=number,
            base_available=self.balances.get((account, listed.base_asset), 0),
            base_held=0,
            quote_available=self.balances.get((account, listed.quote_asset), 0),
            quote_held=0,
            buy_orders=len(buys),
            buy_lots=str(sum(row.leaves_lots for row in buys)),
            buy_notional=str(worth[0]),
            sell_orders=len(sells),
            sell_lots=str(sum(row.leaves_lots for row in sells)),
            sell_notional=str(worth[1]),
        )

    def _one(self, command: NDArray[np.void]) -> NDArray[np.void]:
        before = len(self.ledger)
        outcome = super()._one(command)
        if len(self.ledger) > before and outcome["status"][0] == OutcomeStatus.ACCEPTED:
            self._effect(command[0], outcome)
            self.first_outcomes[int(command["session_id"][0]), int(command["request_id"][0])] = outcome.tobytes()
        return outcome

    def _effect(self, command: np.void, outcome: NDArray[np.void]) -> None:
        kind, account = int(command["kind"]), int(command["account"])
        amount, key = int(command["quantity_lots"]), int(command["order_id"])
        match kind:
            case CommandKind.OPEN_ACCOUNT:
                self.accounts.add(account)
            case CommandKind.ADD_ASSET:
                asset = int(command["instrument"])
                if asset in self.assets:
                    self._refuse(outcome, Reason.ASSET_EXISTS)
                    return
                self.assets[asset] = admin.AssetRow(
                    asset=asset,
                    symbol=unpack_symbol(command["client_order_id"]),
                    decimals=amount,
                    supply=0,
                    cap=int(command["price_ticks"]),
                )
            case CommandKind.SUSPEND_ACCOUNT | CommandKind.RESUME_ACCOUNT:
                status = AccountStatus.SUSPENDED if kind == CommandKind.SUSPEND_ACCOUNT else AccountStatus.ACTIVE
                self.account_rows[account] = replaced(self.account_row(account), status=int(status))
            case CommandKind.SET_LIMITS:
                limits = seen_as(command, LIMITS_COMMAND)
                self.account_rows[account] = replaced(self.account_row(account), **limits)
            case CommandKind.SET_RULES:
                rules = seen_as(command, RULES_COMMAND)
                of = rules["instrument"]
                self.instruments[of] = replaced(self.instruments[of], **rules)
            case CommandKind.SET_STATUS:
                of, new = int(command["instrument"]), int(command["side"])
                self.instruments[of] = replaced(self.instruments[of], status=new)
                if new == InstrumentStatus.CLOSED:
                    outcome["cum_lots"] = len(self.orders)
                    self.orders.clear()
            case CommandKind.KILL | CommandKind.REVIVE:
                self.killed = kind == CommandKind.KILL
            case CommandKind.ADD_INSTRUMENT:
                added = np.frombuffer(command.tobytes(), INSTRUMENT_COMMAND)[0]
                names = (
                    "instrument", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks",
                    "max_quantity_lots",
                )  # fmt: skip
                row = admin.InstrumentRow(
                    symbol=unpack_symbol(added["symbol"]), status=1, **{name: int(added[name]) for name in names}
                )
                self.instruments[row.instrument] = row
            case CommandKind.DEPOSIT | CommandKind.WITHDRAW:
                at = account, int(command["instrument"])
                change = amount if kind == CommandKind.DEPOSIT else -amount
                if key in self.transfers:
                    self._refuse(outcome, Reason.TRANSFER_ALREADY_DONE)
                elif self.balances.get(at, 0) + change < 0:
                    self._refuse(outcome, Reason.INSUFFICIENT_FUNDS)
                else:
                    self.transfers[key] = admin.TransferRow(
                        transfer_id=key, account=account, asset=at[1], kind=kind, amount=amount
                    )
                    self.balances[at] = self.balances.get(at, 0) + change
                    outcome["cum_lots"], outcome["order_id"] = self.balances[at], key
            case CommandKind.PLACE:
                order_id = int(outcome["sequence"][0])
                copied = (
                    "client_order_id", "account", "instrument", "side", "order_type", "tif", "stp", "flags",
                    "price_ticks", "quantity_lots",
                )  # fmt: skip
                display = key & 0xFFFF_FFFF if command["order_type"] == OrderType.LIMIT else 0
                self.orders[order_id] = admin.OrderRow(
                    order_id=order_id,
                    cum_lots=0,
                    leaves_lots=amount,
                    extra=key,
                    shown_lots=min(display, amount),
                    **{name: int(command[name]) for name in copied},
                )
                outcome["leaves_lots"] = amount
            case CommandKind.CANCEL | CommandKind.REPLACE:
                wanted = int(command["client_order_id"])
                found = [
                    o for o in self.orders.values() if o.order_id == key or (wanted and o.client_order_id == wanted)
                ]
                if not found:
                    self._refuse(outcome, Reason.UNKNOWN_ORDER)
                    return
                order = self.orders.pop(found[0].order_id)
                outcome["order_id"], outcome["event_kind"] = order.order_id, EventKind.CANCELLED
                if kind == CommandKind.REPLACE:
                    changed = {**{n: getattr(order, n) for n in order.__struct_fields__}, "quantity_lots": amount}
                    self.orders[order.order_id] = admin.OrderRow(**{**changed, "leaves_lots": amount})
                    outcome["event_kind"], outcome["leaves_lots"] = EventKind.REPLACED, amount
            case CommandKind.MASS_CANCEL:
                mine = [order_id for order_id, order in self.orders.items() if order.account == account]
                for order_id in mine:
                    del self.orders[order_id]
                outcome["cum_lots"], outcome["event_kind"] = len(mine), EventKind.MASS_CANCELLED

    def account_row(self, account: int) -> admin.AccountRow:
        """An account as the admin service shows it."""
        return self.account_rows.get(account) or admin.AccountRow(account=account, status=int(AccountStatus.ACTIVE))

    def sent(self, layout: np.dtype[np.void] = COMMAND) -> dict[str, int]:
        """The fields of the last command that consumed a request id and is no CLOSE_SESSION, by a layout's names."""
        for _, _, body in reversed(self.ledger):
            if body[0] != CommandKind.CLOSE_SESSION:
                return seen_as(np.frombuffer(body, COMMAND)[0], layout)
        raise AssertionError("nothing was sent")

    def _refuse(self, outcome: NDArray[np.void], reason: Reason) -> None:
        outcome["status"], outcome["reason"] = OutcomeStatus.REJECTED, reason


def seen_as(command: np.void, layout: np.dtype[np.void]) -> dict[str, int]:
    """A command's fields by the names of a layout of the same bytes."""
    row = np.frombuffer(command.tobytes(), layout)[0]
    return {name: int(row[name]) for name in layout.names or ()}


def replaced(row: Any, **fields: int) -> Any:
    """A row with those of the fields it has."""
    return msgspec.structs.replace(row, **{name: fields[name] for name in row.__struct_fields__ if name in fields})


class Faults:
    """How often each thing still goes wrong, and what a node does all the time."""

    def __init__(self) -> None:
        self.drop_answers = 0  #: applied, and the answer is lost
        self.drop_requests = 0  #: neither applied nor answered
        self.overload = 0  #: frames refused as OVERLOADED
        self.repeat_answers = 0  #: answered twice
        self.hold_answers = False  #: answers wait until release()
        self.garbage_answers = 0  #: answered with noise
        self.deaf: set[int] = set()  #: nodes that take messages and say nothing
        self.stale: set[int] = set()  #: nodes whose queries are answered as of sequence 0


class Stub:
    """Nodes 1..n; use as a context manager."""

    def __init__(self, nodes: int = 3) -> None:
        self.venue = Venue()
        self.faults = Faults()
        self.leader: int | None = 1
        self.term = 1
        self.admin_hints = True
        self.seen: Counter[str] = Counter()
        #: (node, session) -> pings that named it.
        self.kept_alive: Counter[tuple[int, int]] = Counter()
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
        self.orders_addresses = [socket.last_endpoint.decode() for socket in self._orders.values()]
        self.admin_addresses = [socket.last_endpoint.decode() for socket in self._admin.values()]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="stub", daemon=True)

    def _bind(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(LOCAL)
        return socket

    def __enter__(self) -> "Stub":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"stop")
        self._thread.join(10)
        self._wake.close()
        self._context.term()
        if self._error is not None and kind is None:
            raise self._error

    @property
    def config(self) -> Config:
        """The nodes as a configuration; the ports that are not served are never asked."""
        return Config(
            nodes=tuple(
                NodeConfig(id=node, port=1, orders_port=_port(orders), admin_port=_port(admins))
                for node, orders, admins in zip(self._orders, self.orders_addresses, self.admin_addresses, strict=True)
            )
        )

    def elect(self, leader: int | None) -> None:
        """Change the leader; who waited on the old one is told so, if answers were held."""
        with self.lock:
            self.leader = leader
            self.term += 1

    def release(self) -> None:
        """Let the held answers go, from whichever node they are."""
        with self.lock:
            self.faults.hold_answers = False
        self._wake.send(b"release")

    def applied(self, kind: CommandKind = CommandKind.PLACE) -> list[int]:
        """The client order ids of the commands that consumed a request, in order."""
        with self.lock:
            bodies = np.frombuffer(b"".join(body for _, _, body in self.venue.ledger), frames.COMMAND)
        return [int(command["client_order_id"]) for command in bodies if command["kind"] == kind]

    # The thread

    def _serve(self) -> None:
        try:
            poller = zmq.Poller()
            for socket in (*self._orders.values(), *self._admin.values(), self._woken):
                poller.register(socket, zmq.POLLIN)
            while self._turn(dict(poller.poll())):
                pass
        except Exception as error:  # noqa: BLE001 - told to the test by __exit__
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
                    if node not in self.faults.deaf:
                        request_id, request = admin.decode_request(data)
                        socket.send_multipart((identity, admin.encode_reply(self._answer(node, request), request_id)))
        return True

    def _once(self, fault: str) -> bool:
        left = int(getattr(self.faults, fault))
        setattr(self.faults, fault, max(0, left - 1))
        return left > 0

    def _hint(self, node: int) -> LeaderHint:
        where = None if self.leader is None else self.orders_addresses[self.leader - 1]
        own = self.admin_addresses[node - 1] if self.admin_hints else None
        return LeaderHint(self.leader, where, node, self.term, own, self.disconnect_ms)

    def _take(self, node: int, identity: bytes, data: bytes) -> None:
        frame = frames.decode(data)
        self.seen[frame.kind.name] += 1
        if node in self.faults.deaf:
            return
        if frame.kind is FrameKind.PING:
            if frame.aux:
                self.kept_alive[node, frame.aux] += 1
            self._send(node, identity, frames.encode_body(FrameKind.PONG, self._hint(node), frame.correlation))
        elif node != self.leader:
            self._send(node, identity, frames.encode_body(FrameKind.NOT_LEADER, self._hint(node), frame.correlation))
        elif self._once("drop_requests"):
            pass
        elif self._once("overload"):
            body = ErrorBody(int(ErrorCode.OVERLOADED), "expected fewer commands; send this frame again later")
            self._send(node, identity, frames.encode_body(FrameKind.ERROR, body, frame.correlation))
        else:
            answer = frames.encode_outcomes(self.venue.apply(frames.records(frame)), frame.correlation)
            if self.faults.hold_answers:
                self._held.append((node, identity, answer))
            elif self._once("garbage_answers"):
                self._send(node, identity, b"noise" * 9)
            elif not self._once("drop_answers"):
                self._send(node, identity, answer)
                if self._once("repeat_answers"):
                    self._send(node, identity, answer)

    def _send(self, node: int, identity: bytes, frame: bytes) -> None:
        self._orders[node].send_multipart((identity, frame))

    def _answer(self, node: int, request: admin.AnyRequest) -> admin.AnyReply:
        self.seen[f"{type(request).__name__} {node}"] += 1
        venue = self.venue
        at = {"node_id": node, "sequence": 0 if node in self.faults.stale else venue.sequence}
        match request:
            case admin.Status():
                return _status(at, self.leader, self.term, venue.killed)
            case admin.Assets():
                rows = tuple(venue.assets.values())[request.offset : request.offset + 1]
                return admin.AssetsReply(**at, rows=rows, more=request.offset + 1 < len(venue.assets))
            case admin.Instruments():
                return admin.InstrumentsReply(**at, rows=tuple(venue.instruments.values())[request.offset :])
            case admin.Accounts():
                known = sorted(venue.accounts)
                rows = tuple(venue.account_row(a) for a in known if request.account in (None, a))
                return admin.AccountsReply(**at, rows=rows)
            case admin.Balances():
                found = [
                    admin.BalanceRow(account=account, asset=asset, available=units, held=0)
                    for (account, asset), units in venue.balances.items()
                    if request.account in (None, account)
                ]
                return admin.BalancesReply(**at, rows=tuple(found))
            case admin.Positions():
                rows = tuple(venue.position_row(request.account, number) for number in venue.instruments)
                end = request.offset + 1
                return admin.PositionsReply(**at, rows=rows[request.offset : end], more=end < len(rows))
            case admin.Transfers():
                made = tuple(row for row in venue.transfers.values() if row.account == request.account)
                return admin.TransfersReply(**at, rows=made)
            case admin.Orders():
                orders = tuple(o for o in venue.orders.values() if request.account in (None, o.account))
                return admin.OrdersReply(**at, rows=orders)
            case admin.Depth():
                bids = tuple(
                    admin.LevelRow(price_ticks=o.price_ticks, quantity_lots=o.leaves_lots, orders=1)
                    for o in venue.orders.values()
                    if o.side == 1
                )
                row = venue.instruments[int(request.instrument)]
                return admin.DepthReply(**at, instrument=row.instrument, symbol=row.symbol, bids=bids, asks=())
            case admin.Barrier() if node == self.leader:
                return admin.BarrierReply(**at, log_index=9, state_hash=1)
        code, message = admin.AdminErrorCode.NOT_LEADER, "expected the leader, found another node"
        return admin.AdminError(**at, code=code, message=message, leader_id=self.leader)


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def _status(at: dict[str, int], leader: int | None, term: int, killed: bool) -> admin.NodeStatus:
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
