"""The asyncio client: the same verbs as the blocking one, any number of them at once.

Belongs to one event loop. Calls that overlap are sent in the order they were made. Cancelling a call ends the waiting,
not the request: it was sent, and the exchange applies it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np
import zmq
import zmq.asyncio
from numpy.typing import NDArray

from smrx.client import client_core
from smrx.client.client_core import ClientCore, Cluster, Waiter
from smrx.client.client_errors import InvalidValue
from smrx.client.io_steps import Connect, Query, Sleep, Step, Steps, Submit, with_signature_of
from smrx.client.node_sockets import close_monitor, configure, monitor_address
from smrx.client.operations import Operations
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW
from smrx.client.session_pinger import SessionPinger
from smrx.client.session_states import DropConnection, State
from smrx.wire import admin, frames
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.records import OUTCOME

#: How long a good-bye to the exchange may take.
_CLOSE_S: Final = 0.5

P = ParamSpec("P")
T = TypeVar("T")


class _NodeSocket:
    """One node: a DEALER, and a task each that hands out its messages and the end of its connection."""

    def __init__(
        self,
        context: zmq.asyncio.Context,
        address: str,
        max_message_bytes: int,
        arrived: Callable[[str, bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        self._address = address
        self._socket = context.socket(zmq.DEALER)
        self._waiting = 0
        self.tasks: list[asyncio.Task[None]] = []
        try:
            configure(self._socket, max_message_bytes)
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED, monitor_address())
            self._socket.connect(address)
        except BaseException:
            self.close()
            raise
        self.tasks = [asyncio.create_task(self._read(arrived)), asyncio.create_task(self._watch(lost))]

    async def _read(self, arrived: Callable[[str, bytes], None]) -> None:
        # What arrives may close this very link.
        while not self._socket.closed:
            parts = await self._socket.recv_multipart()
            arrived(self._address, parts[0] if len(parts) == 1 else b"")

    async def _watch(self, lost: Callable[[str], None]) -> None:
        while not self._socket.closed:
            await self._monitor.recv_multipart()
            lost(self._address)

    def send(self, data: bytes, *, only_if_idle: bool = False) -> None:
        """Send, now or when the connection stands; or not at all where earlier messages still wait."""
        if only_if_idle and self._waiting:
            return
        sent = asyncio.ensure_future(self._socket.send(data))
        self._waiting += 1
        sent.add_done_callback(self._left)

    def _left(self, sent: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not sent.cancelled():
            sent.exception()  # A send that failed is a message that was lost; the session sends again.

    def close(self) -> None:
        """Close at once; nothing that waits is sent any more."""
        for task in self.tasks:
            task.cancel()
        if not self._socket.closed:
            close_monitor(self._socket, self._monitor)
            self._socket.close(linger=0)


def _verb(
    of: Callable[Concatenate[Operations, P], Steps[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """Offer a verb as a coroutine."""

    @with_signature_of(of)
    async def call(self: "AsyncClient", /, *arguments: P.args, **named: P.kwargs) -> T:
        return await self._run(of(self._core.verbs, *arguments, **named))

    return call


class AsyncClient:
    """One session of one account with whoever leads the cluster; see Client for the arguments."""

    def __init__(
        self,
        cluster: Cluster = None,
        *,
        account: int = 0,
        cancel_on_disconnect: bool = False,
        timeout: float = client_core.DEFAULT_TIMEOUT_S,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
    ) -> None:
        self._pinger = SessionPinger() if cancel_on_disconnect else None
        self._core = ClientCore(cluster, account, timeout, window, frame_commands, pinger=self._pinger)
        self._context = zmq.asyncio.Context()
        self._links: dict[str, _NodeSocket] = {}
        self._admin: dict[str, _NodeSocket] = {}
        self._replies: dict[int, asyncio.Future[AnyReply]] = {}
        self._request_id = 0
        self._connecting = 0
        self._frame_commands = frame_commands
        self._timer: asyncio.TimerHandle | None = None
        self._changed: set[asyncio.Future[None]] = set()
        # Whoever sends more than there is room for keeps the others out until the last of it is on its way.
        self._sending = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(graceful=kind is None)

    async def close(self, *, graceful: bool = True) -> None:
        """Close every socket; if polite, end the session at the exchange first where that is quick and safe."""
        if self._closed:
            return
        try:
            session = self._core.session
            if graceful and session is not None:
                deadline = time.monotonic() + _CLOSE_S
                session.close(time.monotonic())
                self._turn()
                while session.state is State.CLOSING and time.monotonic() < deadline:
                    await self._change(deadline)
        finally:
            self._closed = True
            if self._pinger is not None:
                self._pinger.close()
            if self._timer is not None:
                self._timer.cancel()
            self._core.abandon(time.monotonic())
            tasks = [task for link in (*self._links.values(), *self._admin.values()) for task in link.tasks]
            _close_all(self._links)
            _close_all(self._admin)
            self._context.term()
            await asyncio.gather(*tasks, return_exceptions=True)

    # VenueOperations

    open_account = _verb(Operations.open_account)
    suspend_account = _verb(Operations.suspend_account)
    resume_account = _verb(Operations.resume_account)
    set_limits = _verb(Operations.set_limits)
    add_asset = _verb(Operations.add_asset)
    add_instrument = _verb(Operations.add_instrument)
    set_status = _verb(Operations.set_status)
    set_rules = _verb(Operations.set_rules)
    kill = _verb(Operations.kill)
    revive = _verb(Operations.revive)
    apply_market = _verb(Operations.apply_market)

    # Money

    deposit = _verb(Operations.deposit)
    withdraw = _verb(Operations.withdraw)

    # Orders

    place = _verb(Operations.place)
    place_limit = _verb(Operations.place_limit)
    place_market = _verb(Operations.place_market)
    cancel = _verb(Operations.cancel)
    replace = _verb(Operations.replace)
    reduce = _verb(Operations.reduce)
    mass_cancel = _verb(Operations.mass_cancel)

    # Queries

    balances = _verb(Operations.balances)
    positions = _verb(Operations.positions)
    orders = _verb(Operations.orders)
    depth = _verb(Operations.depth)
    accounts = _verb(Operations.accounts)
    account_state = _verb(Operations.account_state)
    assets = _verb(Operations.assets)
    instruments = _verb(Operations.instruments)
    barrier = _verb(Operations.barrier)
    status = _verb(Operations.status)

    # Bulk

    async def submit(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Send any number of COMMAND records, in order, and return their outcomes (OUTCOME records).

        Session and request ids are filled in. Refusals are outcomes, not exceptions.
        """
        commands = client_core.as_commands(commands)
        outcomes = np.zeros(len(commands), OUTCOME)
        parts: list[tuple[Waiter, asyncio.Future[None]]] = []
        async with self._sending:
            at = 0
            while at < len(commands):
                self._check_open()
                rest = len(commands) - at
                room = self._core.open(time.monotonic()).free_slots
                if room >= min(rest, self._frame_commands):
                    end = at + min(room, rest)
                    parts.append(self._send(commands[at:end], outcomes[at:end]))
                    at = end
                else:
                    await self._change(None)
                if parts and parts[-1][0].error is not None:
                    raise parts[-1][0].error
        for waiter, done in parts:
            await done
            if waiter.error is not None:
                raise waiter.error
        return outcomes

    def _send(self, commands: NDArray[np.void], outcomes: NDArray[np.void]) -> "tuple[Waiter, asyncio.Future[None]]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(outcomes, lambda: None if done.done() else done.set_result(None))
        self._core.submit(commands, waiter, time.monotonic())
        self._turn()
        return waiter, done

    @property
    def unanswered(self) -> int:
        """Commands sent and not answered yet."""
        return 0 if self._core.session is None else self._core.session.unanswered

    @property
    def leader(self) -> str | None:
        """The order address of the leader this client talks to, or None."""
        return None if self._core.session is None else self._core.session.leader

    async def connect(self) -> None:
        """Find the leader and open the session now, instead of with the first command."""
        self._check_open()
        session = self._core.open(time.monotonic())
        self._connecting += 1
        try:
            self._turn()
            while session.state is not State.ACTIVE:
                await self._change(None)
                if self._core.session is not session and self._core.last_error is not None:
                    raise self._core.last_error
        finally:
            self._connecting -= 1

    # How it runs

    async def _run(self, steps: Steps[T]) -> T:
        """Carry a verb's steps out."""
        result: Any = None
        try:
            while True:
                result = await self._do(steps.send(result))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Submit):
            return await self.submit(step.commands)
        if isinstance(step, Query):
            return await self._exchange(step.address, step.request, step.wait_s)
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Connect)
        return await self.connect()

    async def _change(self, deadline: float | None) -> None:
        """Return when something happened, or at the deadline."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(changed)
        await asyncio.wait((changed,), timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._changed.discard(changed)

    def _turn(self) -> None:
        """Hand out what came, send what is due, wake who waits, and be back when something is due."""
        now = time.monotonic()
        self._core.collect(now)
        if self._core.expired(now, connecting=self._connecting > 0):
            self._core.give_up(now)
        session = self._core.session
        if session is None:
            _close_all(self._links)
        else:
            for action in session.take_actions():
                if isinstance(action, DropConnection):
                    link = self._links.pop(action.address, None)
                    if link is not None:
                        link.close()
                    continue
                try:
                    self._link(action.address).send(action.data, only_if_idle=action.ping)
                except zmq.ZMQError as error:
                    session.search.note(action.address, f"not an address: {error.strerror}")
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        session = self._core.session
        if session is None:
            return
        due = [] if session.deadline is None else [session.deadline]
        if session.unanswered or self._connecting:
            due.append(self._core.expires_at)
        if due:
            delay = max(0.0, min(due) - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        if self._core.session is not None:
            self._core.session.tick(time.monotonic())
        self._turn()

    def _arrived(self, address: str, data: bytes) -> None:
        if self._core.session is not None:
            self._core.session.receive(address, data, time.monotonic())
            self._turn()

    def _lost(self, address: str) -> None:
        if self._core.session is not None:
            self._core.session.disconnected(address, time.monotonic())
            self._turn()

    def _link(self, address: str) -> _NodeSocket:
        link = self._links.get(address)
        if link is None:
            link = _NodeSocket(self._context, address, frames.MAX_FRAME_BYTES, self._arrived, self._lost)
            self._links[address] = link
        return link

    async def _exchange(self, address: str, request: AnyRequest, wait_s: float) -> AnyReply | None:
        self._check_open()
        link = self._admin.get(address)
        if link is None:
            try:
                link = _NodeSocket(self._context, address, admin.MAX_REPLY_BYTES, self._answered, lambda _: None)
            except zmq.ZMQError as error:
                raise InvalidValue(f"{address}: expected an address to connect to, found: {error.strerror}") from None
            self._admin[address] = link
        self._request_id += 1
        request_id = self._request_id
        reply: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            link.send(admin.encode_request(request, request_id))
            return await asyncio.wait_for(reply, wait_s)
        except TimeoutError:
            return None
        finally:
            del self._replies[request_id]

    def _answered(self, address: str, data: bytes) -> None:
        try:
            request_id, reply = admin.decode_reply(data)
        except frames.FrameError:
            return
        waiting = self._replies.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValue("expected an open client, found one that was closed")


def _close_all(links: dict[str, _NodeSocket]) -> None:
    for link in links.values():
        link.close()
    links.clear()
