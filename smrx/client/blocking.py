"""The blocking client: the verbs and bulk submission over real sockets, on the caller's thread and no other.

A Client belongs to one thread at a time. Ctrl-C ends any call at once; leaving the `with` block closes every socket
without waiting for anybody.
"""

import time
from types import TracebackType
from typing import Any, Final, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.client import core
from smrx.client.core import Cluster, Core, Waiter
from smrx.client.decimals import Number
from smrx.client.errors import ClientError, InvalidValue
from smrx.client.links import Links
from smrx.client.market import Asset, Instrument
from smrx.client.results import (
    AccountAnswer,
    AssetAnswer,
    Balance,
    Book,
    InstrumentAnswer,
    MassCancelAnswer,
    OpenOrder,
    OrderAnswer,
    TransferAnswer,
)
from smrx.client.steps import Connect, Exchange, Pause, Step, Steps, Submit
from smrx.client.verbs import SideLike, TifLike
from smrx.engine.codes import CommandKind
from smrx.engine.records import OUTCOME
from smrx.wire import admin, frames
from smrx.wire.admin import AnyReply, AnyRequest, BarrierReply, NodeStatus
from smrx.wire.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW
from smrx.wire.states import Reset, State

#: A quiet look around while nothing is due.
_IDLE_S: Final = 1.0
#: How long a good-bye to the exchange may take.
_CLOSE_S: Final = 0.5

T = TypeVar("T")


class Client:
    """One session of one account with whoever leads the cluster.

    `cluster` is a Config, or one or more order entry addresses (any node is enough to find the leader). The session
    is opened with the first command. A call raises Unavailable when nothing was answered for `timeout` seconds.
    """

    def __init__(
        self,
        cluster: Cluster = None,
        *,
        account: int = 0,
        timeout: float = core.DEFAULT_TIMEOUT_S,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
    ) -> None:
        self._core = Core(cluster, account, timeout, window, frame_commands)
        self._frame_commands = frame_commands
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links = Links(self._context, frames.MAX_FRAME_BYTES)
        self._admin = Links(self._context, admin.MAX_REPLY_BYTES)
        self._request_id = 0
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(polite=kind is None)

    def close(self, *, polite: bool = True) -> None:
        """Close every socket; if polite, end the session at the exchange first where that is quick and safe."""
        if self._closed:
            return
        try:
            session = self._core.session
            if polite and session is not None:
                deadline = time.monotonic() + _CLOSE_S
                session.close(time.monotonic())
                while session.state is State.CLOSING and time.monotonic() < deadline:
                    self._turn(deadline)
        finally:
            self._closed = True
            self._links.drop_all()
            self._admin.drop_all()
            self._context.term()

    # Venue

    def open_account(self, account: int) -> AccountAnswer:
        """Open an account (of the venue, as account 0)."""
        return self._run(self._core.verbs.open_account(account))

    def add_asset(self, symbol: str, decimals: int) -> AssetAnswer:
        """Add something to own, counted in units of 10^-decimals."""
        return self._run(self._core.verbs.add_asset(symbol, decimals))

    def add_instrument(
        self,
        symbol: str,
        base: str,
        quote: str,
        tick: Number = "0.01",
        lot: Number = "0.0001",
        max_price: Number | None = None,
        max_quantity: Number | None = None,
    ) -> InstrumentAnswer:
        """Add something to trade: base for quote, prices in ticks, quantities in lots."""
        return self._run(self._core.verbs.add_instrument(symbol, base, quote, tick, lot, max_price, max_quantity))

    # Money

    def deposit(self, account: int, asset: str, amount: Number, transfer_id: int) -> TransferAnswer:
        """Credit an account (as account 0). The same transfer id again changes nothing."""
        return self._run(self._core.verbs.transfer(CommandKind.DEPOSIT, account, asset, amount, transfer_id))

    def withdraw(self, account: int, asset: str, amount: Number, transfer_id: int) -> TransferAnswer:
        """Debit an account. The same transfer id again changes nothing."""
        return self._run(self._core.verbs.transfer(CommandKind.WITHDRAW, account, asset, amount, transfer_id))

    # Orders

    def place_limit(
        self,
        symbol: str,
        side: SideLike,
        price: Number,
        quantity: Number,
        *,
        tif: TifLike = "GTC",
        post_only: bool = False,
        client_order_id: int = 0,
        account: int | None = None,
    ) -> OrderAnswer:
        """Place a limit order; raises Refused."""
        verbs = self._core.verbs
        return self._run(verbs.place(symbol, side, price, quantity, tif, post_only, client_order_id, account))

    def place_market(
        self,
        symbol: str,
        side: SideLike,
        quantity: Number,
        *,
        client_order_id: int = 0,
        account: int | None = None,
    ) -> OrderAnswer:
        """Take what the book offers now, up to the quantity; raises Refused."""
        verbs = self._core.verbs
        return self._run(verbs.place(symbol, side, None, quantity, "IOC", False, client_order_id, account))

    def cancel(
        self, order_id: int | None = None, *, client_order_id: int | None = None, account: int | None = None
    ) -> OrderAnswer:
        """Cancel an order by either id; raises Refused."""
        return self._run(self._core.verbs.cancel(order_id, client_order_id, account))

    def replace(
        self,
        symbol: str,
        price: Number,
        quantity: Number,
        *,
        order_id: int | None = None,
        client_order_id: int | None = None,
        account: int | None = None,
    ) -> OrderAnswer:
        """Give an order a new price and total quantity; raises Refused."""
        verbs = self._core.verbs
        return self._run(verbs.replace(symbol, price, quantity, order_id, client_order_id, account))

    def reduce(
        self,
        quantity: Number,
        *,
        order_id: int | None = None,
        client_order_id: int | None = None,
        account: int | None = None,
    ) -> OrderAnswer:
        """Shrink an order to a smaller total quantity; it keeps its place in the queue."""
        return self._run(self._core.verbs.reduce(quantity, order_id, client_order_id, account))

    def mass_cancel(
        self, symbol: str | None = None, side: SideLike | None = None, *, account: int | None = None
    ) -> MassCancelAnswer:
        """Cancel every open order, of one instrument and one side if named."""
        return self._run(self._core.verbs.mass_cancel(symbol, side, account))

    # Queries

    def balances(self, account: int | None = None, *, everyone: bool = False) -> list[Balance]:
        """What an account owns (its own where none is named), or everyone."""
        return self._run(self._core.verbs.balances(account, everyone))

    def orders(
        self, symbol: str | None = None, *, account: int | None = None, everyone: bool = False
    ) -> list[OpenOrder]:
        """Open orders of an account (its own where none is named), or everyone's, oldest first."""
        return self._run(self._core.verbs.orders(symbol, account, everyone))

    def depth(self, symbol: str, levels: int = 10) -> Book:
        """The best levels of a book."""
        return self._run(self._core.verbs.depth(symbol, levels))

    def accounts(self) -> list[int]:
        """Every account."""
        return self._run(self._core.verbs.accounts())

    def assets(self) -> list[Asset]:
        """Every asset."""
        return self._run(self._core.verbs.assets())

    def instruments(self) -> list[Instrument]:
        """Every instrument."""
        return self._run(self._core.verbs.instruments())

    def barrier(self) -> BarrierReply:
        """Return when everything submitted before, by anybody, is applied on the leader."""
        return self._run(self._core.verbs.barrier())

    def status(self, node_id: int | None = None) -> NodeStatus:
        """How a node is: one of the configuration, or whichever answers first."""
        return self._run(self._core.verbs.status(node_id))

    # Bulk

    def submit(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Send any number of COMMAND records, in order, and return their outcomes (OUTCOME records).

        Session and request ids are filled in. Refusals are outcomes, not exceptions.
        """
        commands = core.as_commands(commands)
        outcomes = np.zeros(len(commands), OUTCOME)
        last: Waiter | None = None
        at = 0
        while at < len(commands) or (last is not None and last.missing):
            count = self._takes(len(commands) - at)
            if count:
                last = Waiter(outcomes[at : at + count])
                self._core.submit(commands[at : at + count], last, time.monotonic())
                at += count
            self._progress_or_raise()
            if last is not None and last.error is not None:
                raise last.error
        return outcomes

    def submit_nowait(self, commands: NDArray[np.void]) -> int:
        """Send as many of the commands as there is room for, and return how many; poll() returns their outcomes."""
        commands = core.as_commands(commands)
        self._check_open()
        count = min(len(commands), self._core.open(time.monotonic()).room)
        if count:
            self._core.submit(commands[:count], None, time.monotonic())
            self._act()
        return count

    def poll(self, timeout: float = 0.0) -> NDArray[np.void]:
        """Return the outcomes that arrived for submit_nowait(), in request order; waits for some, up to `timeout`.

        Raises, once, what keeps the rest from ever coming.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._turn(0.0 if self._core.unclaimed else min(deadline, self._core.expires_at))
            found = self._core.take_unclaimed()
            if len(found):
                return found
            now = time.monotonic()
            if self._core.expired(now):
                self._give_up(now)
            error = self._core.take_untold()
            if error is not None:
                raise error
            if now >= deadline or not self.unanswered:
                return found

    @property
    def unanswered(self) -> int:
        """Commands sent and not answered yet."""
        return 0 if self._core.session is None else self._core.session.unanswered

    @property
    def leader(self) -> str | None:
        """The order address of the leader this client talks to, or None."""
        return None if self._core.session is None else self._core.session.leader

    def connect(self) -> None:
        """Find the leader and open the session now, instead of with the first command."""
        session = self._core.open(time.monotonic())
        while session.state is not State.ACTIVE:
            self._progress_or_raise(connecting=True)
            if self._core.session is not session and self._core.last_error is not None:
                raise self._core.last_error

    # How it runs

    def _run(self, steps: Steps[T]) -> T:
        """Carry a verb's steps out."""
        result: Any = None
        try:
            while True:
                result = self._do(steps.send(result))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    def _do(self, step: Step) -> Any:
        if isinstance(step, Submit):
            return self.submit(step.commands)
        if isinstance(step, Exchange):
            return self._exchange(step.address, step.request, step.wait_s)
        if isinstance(step, Pause):
            return self._turn(time.monotonic() + step.seconds, whole=True)
        assert isinstance(step, Connect)
        return self.connect()

    def _takes(self, wanted: int) -> int:
        """How many commands to send now: whole frames while there are many left."""
        self._check_open()
        room = self._core.open(time.monotonic()).room
        return min(room, wanted) if room >= min(wanted, self._frame_commands) else 0

    def _progress_or_raise(self, *, connecting: bool = False) -> None:
        self._turn(self._core.expires_at)
        now = time.monotonic()
        if self._core.expired(now, connecting=connecting):
            raise self._give_up(now)

    def _give_up(self, now: float) -> ClientError:
        self._links.drop_all()
        return self._core.give_up(now)

    def _turn(self, deadline: float, *, whole: bool = False) -> None:
        """Send what is due, then wait until something arrives, something is due, or the deadline; then take it in."""
        self._check_open()
        try:
            while True:
                self._act()
                session = self._core.session
                now = time.monotonic()
                due = [deadline, now + _IDLE_S]
                if session is not None and session.deadline is not None:
                    due.append(session.deadline)
                self._links.wait(min(due) - now)
                self._take_in()
                if not whole or time.monotonic() >= deadline:
                    return
        except KeyboardInterrupt:
            self._core.abandon(time.monotonic())
            self._links.drop_all()
            raise

    def _take_in(self) -> None:
        now = time.monotonic()
        session = self._core.session
        if session is not None:
            self._links.look(
                lambda address, data: session.receive(address, data, now),
                lambda address: session.disconnected(address, now),
            )
            session.tick(now)
            self._core.collect(now)
            if self._core.session is None:
                self._links.drop_all()
        self._act()

    def _act(self) -> None:
        session = self._core.session
        if session is not None:
            for action in session.take_actions():
                if isinstance(action, Reset):
                    self._links.drop(action.address)
                    continue
                try:
                    self._links.to(action.address).send(action.data, only_if_idle=action.ping)
                except zmq.ZMQError as error:
                    session.search.note(action.address, f"not an address: {error.strerror}")
        self._links.flush()

    def _exchange(self, address: str, request: AnyRequest, wait_s: float) -> AnyReply | None:
        self._check_open()
        self._request_id += 1
        try:
            link = self._admin.to(address)
        except zmq.ZMQError as error:
            raise InvalidValue(f"{address}: expected an address to connect to, found: {error.strerror}") from None
        link.send(admin.encode_request(request, self._request_id))
        found: list[AnyReply] = []
        deadline = time.monotonic() + wait_s

        def arrived(_: str, data: bytes) -> None:
            try:
                request_id, reply = admin.decode_reply(data)
            except frames.FrameError:
                return
            if request_id == self._request_id:
                found.append(reply)

        while not found and time.monotonic() < deadline:
            self._admin.wait(deadline - time.monotonic())
            self._admin.flush()
            self._admin.look(arrived, lambda _: None)
        if not found:
            # A question that nobody waits for any more must not stand in the way of the next.
            self._admin.drop(address)
        return found[0] if found else None

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValue("expected an open client, found one that was closed")
