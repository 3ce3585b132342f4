"""The asyncio client: the operations of the blocking client, any number of them at the same time.

Belongs to one event loop. Overlapping calls are sent in the order in which they were made. Cancelling a call stops the
wait but not the request, which the exchange still applies.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.client import client_core
from smrx.client.account_updates import WAIT_S, UpdateRequest
from smrx.client.client_core import ClientCore, Cluster, Waiter
from smrx.client.client_errors import InvalidValue
from smrx.client.client_methods import ClientMethods
from smrx.client.io_steps import Connect, Query, Sleep, Step, Steps, Submit, with_signature_of
from smrx.client.node_links import LINK_ERRORS, NodeLink, NodeLinks
from smrx.client.node_sockets import CONNECT_ERRORS, REFUSED, NodeSocket, connect_error
from smrx.client.results import Update
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW
from smrx.client.session_pinger import SessionPinger
from smrx.client.session_states import DropConnection, State
from smrx.client_keys import RETRY_SECONDS, ClientKeys
from smrx.wire import admin, frames
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.command_list import CommandList
from smrx.wire.records import OUTCOME

#: How long close() waits for the exchange to end the session.
_CLOSE_S: Final = 0.5
#: So that a timer does not end a fraction of a millisecond too early.
_LATER_S: Final = 0.002
_CLOSED: Final = "the client was closed; create a new one"

T = TypeVar("T")


class _WatchedSocket(NodeSocket):
    """The socket of one node, whose messages and disconnects are reported by the event loop.

    ZeroMQ's file descriptor becomes readable once for anything new, also for what a send has already seen. So every
    event is used up: messages are received until there are none, and a send looks for messages.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: str,
        max_message_bytes: int,
        keys: ClientKeys | None,
        on_messages: Callable[[str, list[bytes]], None],
        on_disconnect: Callable[[str], None] = lambda _: None,
        on_refusal: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_messages = on_messages
        self._on_disconnect = on_disconnect
        self._on_refusal = on_refusal
        self._descriptors: tuple[int, ...] = ()
        super().__init__(context, address, max_message_bytes, keys)
        self._descriptors = (self.socket.FD, self.monitor.FD)
        self._loop.add_reader(self._descriptors[0], self._read)
        self._loop.add_reader(self._descriptors[1], self._watch)
        # What happened before is not reported.
        self._loop.call_soon(self._read)
        self._loop.call_soon(self._watch)

    def send(self, data: bytes, *, only_if_idle: bool = False) -> None:
        """Send, or queue until the node is connected. With `only_if_idle`, do nothing while messages are queued."""
        super().send(data, only_if_idle=only_if_idle)
        self._look_again()

    def _look_again(self) -> None:
        """Call _read() soon if there is something to receive, or if what is queued can be sent."""
        wanted = zmq.POLLIN | (zmq.POLLOUT if self.has_queued else 0)
        if int(self.socket.getsockopt(zmq.EVENTS)) & wanted:
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        if self.socket.closed:
            return
        self.flush()
        messages = self.receive()
        self._look_again()
        if messages:
            # May close this socket.
            self._on_messages(self.address, messages)

    def _watch(self) -> None:
        if self.socket.closed:
            return
        if self.disconnected():
            self._on_disconnect(self.address)
        if self.refused:
            self.refused = False
            # flush() then connects again.
            self._loop.call_later(RETRY_SECONDS + _LATER_S, self._read)
            self._on_refusal(self.address)

    def close(self) -> None:
        """Close at once and drop queued messages."""
        for descriptor in self._descriptors:
            # The event loop of a client that was dropped may be closed.
            with contextlib.suppress(RuntimeError):
                self._loop.remove_reader(descriptor)
        self._descriptors = ()
        super().close()


class _FutureWaiter(Waiter):
    """A call that waits for a future."""

    __slots__ = ("_future",)

    def __init__(self, count: int, future: "asyncio.Future[None]") -> None:
        super().__init__(count)
        self._future = future

    def finish(self) -> None:
        """Wake the call, unless it was cancelled."""
        if not self._future.done():
            self._future.set_result(None)


class _WatchedLinks:
    """The connections to order entry over TCP, whose frames and ends are reported by the event loop."""

    def __init__(self, client: "AsyncClient", nodes: NodeLinks) -> None:
        self.nodes = nodes
        self._client = weakref.ref(client)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Let the running event loop watch the connections."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self.nodes.poller.descriptor, self._read)

    def schedule(self) -> None:
        """Connect again at the right time, if a node is not connected."""
        deadline = self.nodes.next_deadline
        if deadline == float("inf") or self._loop is None or self._timer is not None:
            return
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()) + _LATER_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.nodes.tick(time.monotonic())
        self._read()

    def _read(self) -> None:
        self.nodes.poller.run(0.0)
        self.nodes.tick(time.monotonic())
        client = self._client()
        if client is not None:
            client._receive(self.nodes)
        self.schedule()

    def close(self) -> None:
        """Close all connections."""
        # The event loop of a client that was dropped may be closed.
        with contextlib.suppress(RuntimeError):
            if self._timer is not None:
                self._timer.cancel()
            if self._loop is not None:
                self._loop.remove_reader(self.nodes.poller.descriptor)
        self._loop = None
        self.nodes.close()


class AsyncClient(ClientMethods):
    """A session of one account with the leader of a cluster; see Client for the arguments."""

    def __init__(
        self,
        cluster: Cluster = None,
        *,
        account: int = 0,
        cancel_on_disconnect: bool = False,
        timeout: float = client_core.DEFAULT_TIMEOUT_S,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
        key: str | Path | None = None,
    ) -> None:
        self._keys = client_core.keys_of(cluster, key)
        self._pinger = (
            SessionPinger(self, self._keys, client_core.cluster_number_of(cluster)) if cancel_on_disconnect else None
        )
        self._core = ClientCore(cluster, account, timeout, window, frame_commands, pinger=self._pinger)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._order_sockets: dict[str, _WatchedSocket] = {}
        self._links = _WatchedLinks(self, client_core.links_of(cluster, self._keys)) if self._core.uses_links else None
        self._admin_sockets: dict[str, _WatchedSocket] = {}
        # Also when the client is dropped without close(): pyzmq would close the sockets in any order and then hang.
        self._release = weakref.finalize(
            self, _close_sockets, self._order_sockets, self._admin_sockets, self._links, self._context
        )
        self._release.atexit = False
        self._replies: dict[int, asyncio.Future[AnyReply]] = {}
        self._request_id = 0
        self._connecting = 0
        self._window = window
        self._frame_commands = frame_commands
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._changed: set[asyncio.Future[None]] = set()
        # Calls of this turn of the event loop, which are sent together, and the number of their commands.
        self._batch: list[tuple[CommandList, Waiter]] = []
        self._batched = 0
        # A call that sends more than fits in the window blocks other calls until all of it is sent.
        self._sending = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(graceful=kind is None)

    async def close(self, *, graceful: bool = True) -> None:
        """Close every socket. If `graceful`, first end the session at the exchange, unless that is slow or unsafe."""
        if self._closed:
            return
        self._send_batch()
        try:
            session = self._core.session
            if graceful and session is not None:
                deadline = time.monotonic() + _CLOSE_S
                session.close(time.monotonic())
                self._turn()
                while session.state is State.CLOSING and time.monotonic() < deadline:
                    await self._wait_for_change(deadline)
        finally:
            self._closed = True
            if self._pinger is not None:
                self._pinger.close()
            if self._timer is not None:
                self._timer.cancel()
            self._core.abort(time.monotonic())
            self._release()

    # Bulk

    async def submit(self, commands: NDArray[np.void], details: NDArray[np.void] | None = None) -> NDArray[np.void]:
        """Send any number of COMMAND records in order; return their outcomes (OUTCOME records).

        `details` has those that the commands name (DETAILS records), and may have more. Fills in session and request
        ids. A rejected command is an outcome, not an exception.
        """
        parts = CommandList(client_core.as_commands(commands), client_core.as_details(details))
        client_core.check(parts)
        return await self._submit(parts)

    async def _submit(self, commands: CommandList) -> NDArray[np.void]:
        """Send commands that are valid: with those of other calls in the same turn of the event loop if they fit."""
        count = len(commands.records)
        if not count or count > self._frame_commands or self._sending.locked() or count > self._free_slots():
            return await self._submit_in_parts(commands)
        self._check_open()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        waiter = _FutureWaiter(count, done)
        if not self._batch:
            loop.call_soon(_weakly(self._send_batch))
        self._batch.append((commands, waiter))
        self._batched += count
        await done
        return _outcomes_of(waiter)

    def _free_slots(self) -> int:
        session = self._core.session
        return (self._window if session is None else session.free_slots) - self._batched

    def _send_batch(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        if self._closed:
            for _, waiter in batch:
                waiter.fail(InvalidValue(_CLOSED))
        elif batch:
            self._core.submit_all(batch, time.monotonic())
            self._turn()

    async def _submit_in_parts(self, commands: CommandList) -> NDArray[np.void]:
        """Send as much as the window takes, then the rest; calls made meanwhile wait."""
        records, details = commands
        outcomes = np.zeros(len(records), OUTCOME)
        parts: list[tuple[Waiter, asyncio.Future[None]]] = []
        async with self._sending:
            self._send_batch()
            at = 0
            while at < len(records):
                self._check_open()
                rest = len(records) - at
                free = self._core.open(time.monotonic()).free_slots
                if free >= min(rest, self._frame_commands):
                    end = at + min(free, rest)
                    parts.append(self._send(records[at:end], details, outcomes[at:end]))
                    at = end
                else:
                    await self._wait_for_change(None)
                if parts and parts[-1][0].error is not None:
                    raise parts[-1][0].error
        for waiter, done in parts:
            await done
            _outcomes_of(waiter)
        return outcomes

    def _send(
        self, commands: NDArray[np.void], details: NDArray[np.void], outcomes: NDArray[np.void]
    ) -> "tuple[Waiter, asyncio.Future[None]]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(len(commands), lambda: None if done.done() else done.set_result(None), outcomes)
        self._core.submit(commands, waiter, time.monotonic(), details)
        self._turn()
        return waiter, done

    @property
    def unanswered(self) -> int:
        """How many submitted commands are unanswered."""
        return 0 if self._core.session is None else self._core.session.unanswered

    @property
    def leader(self) -> str | None:
        """The order entry address of the leader, or None if it is unknown."""
        return None if self._core.session is None else self._core.session.leader

    async def connect(self) -> None:
        """Find the leader and open the session now, instead of with the first command."""
        self._check_open()
        session = self._core.open(time.monotonic())
        self._connecting += 1
        try:
            self._turn()
            while session.state is not State.ACTIVE:
                await self._wait_for_change(None)
                if self._core.session is not session and self._core.last_error is not None:
                    raise self._core.last_error
        finally:
            self._connecting -= 1

    def updates(
        self,
        *,
        from_sequence: int | None = None,
        accounts: Iterable[int] | Literal["all"] | None = None,
        idle: float | None = None,
    ) -> AsyncIterator[Update]:
        """Yield what happens to accounts, by default the client's own: orders, fills, trades, transfers.

        Every event is attested by a majority of the nodes and comes once, in order, also what other clients or other
        accounts caused. `accounts`: up to 1,024, or "all" that the credential of this client acts for: one, those of a
        firm, also such as are opened later, or every account. `from_sequence`: the first event, as `Update.sequence`
        numbers them; by default what happens from now on. To continue after a break, give the last sequence + 1; the
        nodes keep the newest events (by default a million). `idle`: end after so many seconds without an update; by
        default the iteration never ends.

        Raises InvalidValue, Unavailable (the nodes no longer hold the events, or refuse them), ProtocolError (the
        nodes contradict each other).
        """
        self._check_open()
        own = (self._core.operations.account,)
        return self._updates(
            UpdateRequest(self._core.config, from_sequence, own if accounts is None else accounts, idle, self._keys)
        )

    async def _updates(self, request: UpdateRequest) -> AsyncIterator[Update]:
        with request.feed() as feed:
            quiet_since = time.monotonic()
            while request.idle is None or time.monotonic() - quiet_since < request.idle:
                events = await feed.poll_async(WAIT_S if request.idle is None else min(WAIT_S, request.idle))
                if len(events):
                    for update in await self._run(self._core.operations.updates_of(events)):
                        yield update
                    quiet_since = time.monotonic()

    # Internals

    @staticmethod
    def _method(operation: Callable[..., Steps[Any]]) -> Callable[..., Any]:
        @with_signature_of(operation)
        async def method(self: "AsyncClient", /, *args: Any, **kwargs: Any) -> Any:
            return await self._run(operation(self._core.operations, *args, **kwargs))

        return method

    async def _run(self, steps: Steps[T]) -> T:
        """Run the steps of an operation; return its result."""
        result: Any = None
        try:
            while True:
                result = await self._run_step(steps.send(result))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    async def _run_step(self, step: Step) -> Any:
        if isinstance(step, Submit):
            return await self._submit(step.commands)
        if isinstance(step, Query):
            return await self._query(step.address, step.request, step.timeout_s)
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Connect)
        return await self.connect()

    async def _wait_for_change(self, deadline: float | None) -> None:
        """Return when something has changed, or at the deadline."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(changed)
        await asyncio.wait((changed,), timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._changed.discard(changed)

    def _turn(self) -> None:
        """Deliver outcomes, send what is due, wake the waiting calls, and schedule the next tick."""
        now = time.monotonic()
        self._core.deliver_outcomes(now)
        if self._core.has_timed_out(now, connecting=self._connecting > 0):
            self._core.time_out(now)
        session = self._core.session
        if session is None:
            self._drop_order_sockets()
        else:
            for action in session.take_actions():
                if isinstance(action, DropConnection):
                    self._drop_order_socket(action.address)
                    continue
                try:
                    self._order_socket(action.address).send(action.data, only_if_idle=action.ping)
                except (*CONNECT_ERRORS, *LINK_ERRORS) as error:
                    session.search.set_status(action.address, connect_error(error))
            if self._links is not None:
                self._links.schedule()
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)
        self._schedule()

    def _schedule(self) -> None:
        """Have _tick() called when something is due; a call that comes too early is harmless and sets the next."""
        session = self._core.session
        due: list[float] = []
        if session is not None:
            if session.deadline is not None:
                due.append(session.deadline)
            if session.unanswered or self._connecting:
                due.append(self._core.timeout_at)
        if self._timer is not None and (not due or self._timer_at > min(due)):
            self._timer.cancel()
            self._timer = None
        if due and self._timer is None:
            self._timer_at = min(due)
            delay = max(0.0, self._timer_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, _weakly(self._tick))

    def _tick(self) -> None:
        self._timer = None
        if self._core.session is not None:
            self._core.session.tick(time.monotonic())
        self._turn()

    def _receive(self, nodes: NodeLinks) -> None:
        """Handle what has arrived over TCP."""
        session = self._core.session
        if session is None:
            return
        now = time.monotonic()
        nodes.receive(
            lambda address, data: session.receive(address, data, now),
            lambda address: session.disconnected(address, now),
            self._on_refusal,
        )
        self._turn()

    def _on_messages(self, address: str, messages: list[bytes]) -> None:
        if self._core.session is not None:
            now = time.monotonic()
            for data in messages:
                self._core.session.receive(address, data, now)
            self._turn()

    def _on_disconnect(self, address: str) -> None:
        if self._core.session is not None:
            self._core.session.disconnected(address, time.monotonic())
            self._turn()

    def _on_refusal(self, address: str) -> None:
        if self._core.session is not None:
            self._core.session.search.set_status(address, REFUSED)

    def _drop_order_socket(self, address: str) -> None:
        if self._links is not None:
            self._links.nodes.drop(address)
            return
        node = self._order_sockets.pop(address, None)
        if node is not None:
            node.close()

    def _drop_order_sockets(self) -> None:
        if self._links is not None:
            self._links.nodes.drop_all()
        _close_all(self._order_sockets)

    def _order_socket(self, address: str) -> _WatchedSocket | NodeLink:
        if self._links is not None:
            self._links.watch()
            return self._links.nodes.to(address)
        node = self._order_sockets.get(address)
        if node is None:
            node = self._order_sockets[address] = _WatchedSocket(
                self._context,
                address,
                frames.MAX_FRAME_BYTES,
                self._keys,
                _weakly(self._on_messages),
                _weakly(self._on_disconnect),
                _weakly(self._on_refusal),
            )
        return node

    async def _query(self, address: str, request: AnyRequest, timeout_s: float) -> AnyReply | None:
        self._check_open()
        node = self._admin_sockets.get(address)
        if node is None:
            try:
                node = _WatchedSocket(
                    self._context, address, admin.MAX_REPLY_BYTES, self._keys, _weakly(self._on_replies)
                )
            except CONNECT_ERRORS as error:
                raise InvalidValue(f"{address}: {connect_error(error)}") from None
            self._admin_sockets[address] = node
        self._request_id += 1
        request_id = self._request_id
        reply: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            node.send(admin.encode_request(request, request_id))
            return await asyncio.wait_for(reply, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._replies[request_id]

    def _on_replies(self, address: str, messages: list[bytes]) -> None:
        for data in messages:
            try:
                request_id, reply = admin.decode_reply(data)
            except frames.FrameError:
                continue
            waiting = self._replies.get(request_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValue(_CLOSED)


def _outcomes_of(waiter: Waiter) -> NDArray[np.void]:
    if waiter.error is not None:
        raise waiter.error
    assert waiter.outcomes is not None
    return waiter.outcomes


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls a method of a client as long as the client exists.

    The event loop keeps timers and tasks alive; through them it must not keep a client alive that was dropped.
    """
    found = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        bound = found()
        if bound is not None:
            bound(*arguments)

    return call


def _close_sockets(
    orders: dict[str, _WatchedSocket],
    admins: dict[str, _WatchedSocket],
    links: _WatchedLinks | None,
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    if links is not None:
        links.close()
    _close_all(orders)
    _close_all(admins)
    context.term()


def _close_all(sockets: dict[str, _WatchedSocket]) -> None:
    for node in sockets.values():
        node.close()
    sockets.clear()
