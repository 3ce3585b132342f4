"""The blocking client: operations and bulk submission on the caller's thread.

A Client may be used by one thread at a time. Ctrl-C ends any call at once. Leaving the `with` block by an exception
closes every socket without waiting.
"""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.client import client_core
from smrx.client.account_updates import WAIT_S, UpdateRequest
from smrx.client.client_core import ClientCore, Cluster, Waiter
from smrx.client.client_errors import ClientError, InvalidValue
from smrx.client.client_methods import ClientMethods
from smrx.client.io_steps import Connect, Query, Sleep, Step, Steps, Submit, with_signature_of
from smrx.client.node_links import LINK_ERRORS, NodeLinks
from smrx.client.node_sockets import CONNECT_ERRORS, REFUSED, NodeSockets, connect_error
from smrx.client.results import Update
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW
from smrx.client.session_pinger import SessionPinger
from smrx.client.session_states import DropConnection, State
from smrx.wire import admin, frames
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.records import OUTCOME

#: Longest wait while nothing is due.
_IDLE_S: Final = 1.0
#: How long close() waits for the exchange to end the session.
_CLOSE_S: Final = 0.5

T = TypeVar("T")


class Client(ClientMethods):
    """A session of one account with the leader of a cluster.

    `cluster` is a Config, or one or more order entry addresses, smrx:// for TCP or tcp:// for ZeroMQ; one node is
    enough to find the leader. With a Config it is TCP. The session is opened with the first command. A call raises
    Unavailable if nothing is answered for `timeout` seconds.

    `cancel_on_disconnect`: the exchange cancels this client's open orders when the client is closed, and when it has
    received no ping of this process for the `disconnect_ms` of the configuration.

    `key`: the path of a key file, for a cluster whose nodes have keys (`smrx key create`); without it the venue's key
    if this machine has it. Raises InvalidValue if there is none, or it cannot be used.
    """

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
        self._keys = keys = client_core.keys_of(cluster, key)
        self._pinger = (
            SessionPinger(self, keys, client_core.cluster_number_of(cluster)) if cancel_on_disconnect else None
        )
        self._core = ClientCore(cluster, account, timeout, window, frame_commands, pinger=self._pinger)
        self._frame_commands = frame_commands
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._order_sockets: NodeSockets | NodeLinks = (
            client_core.links_of(cluster, keys)
            if self._core.uses_links
            else NodeSockets(self._context, frames.MAX_FRAME_BYTES, keys)
        )
        self._admin_sockets = NodeSockets(self._context, admin.MAX_REPLY_BYTES, keys)
        # Also when the client is dropped without close(): pyzmq would close the sockets in any order and then hang.
        self._release = weakref.finalize(self, _close_sockets, self._order_sockets, self._admin_sockets, self._context)
        self._release.atexit = False
        self._request_id = 0
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(graceful=kind is None)

    def close(self, *, graceful: bool = True) -> None:
        """Close every socket. If `graceful`, first end the session at the exchange, unless that is slow or unsafe."""
        if self._closed:
            return
        try:
            session = self._core.session
            if graceful and session is not None:
                deadline = time.monotonic() + _CLOSE_S
                session.close(time.monotonic())
                while session.state is State.CLOSING and time.monotonic() < deadline:
                    self._turn(deadline)
        finally:
            self._closed = True
            if self._pinger is not None:
                self._pinger.close()
            self._release()

    # Bulk

    def submit(self, commands: NDArray[np.void], details: NDArray[np.void] | None = None) -> NDArray[np.void]:
        """Send any number of COMMAND records in order; return their outcomes (OUTCOME records).

        `details` has those that the commands name (DETAILS records), and may have more. Fills in session and request
        ids. A rejected command is an outcome, not an exception.
        """
        commands, details = client_core.as_commands(commands), client_core.as_details(details)
        outcomes = np.zeros(len(commands), OUTCOME)
        last: Waiter | None = None
        at = 0
        while at < len(commands) or (last is not None and last.missing):
            count = self._sendable(len(commands) - at)
            if count:
                last = Waiter(count, outcomes=outcomes[at : at + count])
                self._core.submit(commands[at : at + count], last, time.monotonic(), details)
                at += count
            self._progress_or_raise()
            if last is not None and last.error is not None:
                raise last.error
        return outcomes

    def submit_nowait(self, commands: NDArray[np.void], details: NDArray[np.void] | None = None) -> int:
        """Send as many of the commands as the window has free slots; return how many. poll() returns their outcomes."""
        commands, details = client_core.as_commands(commands), client_core.as_details(details)
        self._check_open()
        count = min(len(commands), self._core.open(time.monotonic()).free_slots)
        if count:
            self._core.submit(commands[:count], None, time.monotonic(), details)
            self._send_due()
        return count

    def poll(self, timeout: float = 0.0) -> NDArray[np.void]:
        """Return the outcomes of submit_nowait() that have arrived, in request order; wait up to `timeout` for some.

        Raises, once, the error because of which the remaining outcomes will not arrive.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._turn(0.0 if self._core.unpolled else min(deadline, self._core.timeout_at))
            found = self._core.take_unpolled()
            if len(found):
                return found
            now = time.monotonic()
            if self._core.has_timed_out(now):
                self._time_out(now)
            error = self._core.take_poll_error()
            if error is not None:
                raise error
            if now >= deadline or not self.unanswered:
                return found

    @property
    def unanswered(self) -> int:
        """How many submitted commands are unanswered."""
        return 0 if self._core.session is None else self._core.session.unanswered

    @property
    def last_request(self) -> tuple[int, int] | None:
        """(session id, request id of the last command or 0); None without a session."""
        session = self._core.session
        return None if session is None else (session.session_id, session.last_request)

    @property
    def leader(self) -> str | None:
        """The order entry address of the leader, or None if it is unknown."""
        return None if self._core.session is None else self._core.session.leader

    def connect(self) -> None:
        """Find the leader and open the session now, instead of with the first command."""
        self._check_open()
        session = self._core.open(time.monotonic())
        while session.state is not State.ACTIVE:
            self._progress_or_raise(connecting=True)
            if self._core.session is not session and self._core.last_error is not None:
                raise self._core.last_error

    def updates(
        self,
        *,
        from_sequence: int | None = None,
        accounts: Iterable[int] | Literal["all"] | None = None,
        idle: float | None = None,
    ) -> Iterator[Update]:
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

    def _updates(self, request: UpdateRequest) -> Iterator[Update]:
        with request.feed() as feed:
            quiet_since = time.monotonic()
            while request.idle is None or time.monotonic() - quiet_since < request.idle:
                events = feed.poll(WAIT_S if request.idle is None else min(WAIT_S, request.idle))
                if len(events):
                    yield from self._run(self._core.operations.updates_of(events))
                    quiet_since = time.monotonic()

    # Internals

    @staticmethod
    def _method(operation: Callable[..., Steps[Any]]) -> Callable[..., Any]:
        @with_signature_of(operation)
        def method(self: "Client", /, *args: Any, **kwargs: Any) -> Any:
            return self._run(operation(self._core.operations, *args, **kwargs))

        return method

    def _run(self, steps: Steps[T]) -> T:
        """Run the steps of an operation; return its result."""
        result: Any = None
        try:
            while True:
                result = self._run_step(steps.send(result))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    def _run_step(self, step: Step) -> Any:
        if isinstance(step, Submit):
            return self.submit(*step.commands)
        if isinstance(step, Query):
            return self._query(step.address, step.request, step.timeout_s)
        if isinstance(step, Sleep):
            return self._turn(time.monotonic() + step.seconds, until_deadline=True)
        assert isinstance(step, Connect)
        return self.connect()

    def _sendable(self, wanted: int) -> int:
        """Return how many commands to send now: full frames, until fewer are left."""
        self._check_open()
        free = self._core.open(time.monotonic()).free_slots
        return min(free, wanted) if free >= min(wanted, self._frame_commands) else 0

    def _progress_or_raise(self, *, connecting: bool = False) -> None:
        self._turn(self._core.timeout_at)
        now = time.monotonic()
        if self._core.has_timed_out(now, connecting=connecting):
            raise self._time_out(now)

    def _time_out(self, now: float) -> ClientError:
        self._order_sockets.drop_all()
        return self._core.time_out(now)

    def _turn(self, deadline: float, *, until_deadline: bool = False) -> None:
        """Send what is due, wait until something arrives or is due or the deadline is reached, then process it.

        Return after one round, or with `until_deadline` only at the deadline.
        """
        self._check_open()
        try:
            while True:
                self._send_due()
                session = self._core.session
                now = time.monotonic()
                due = [deadline, now + _IDLE_S]
                if session is not None and session.deadline is not None:
                    due.append(session.deadline)
                self._order_sockets.wait(min(due) - now)
                self._receive()
                if not until_deadline or time.monotonic() >= deadline:
                    return
        except KeyboardInterrupt:
            self._core.abort(time.monotonic())
            self._order_sockets.drop_all()
            raise

    def _receive(self) -> None:
        now = time.monotonic()
        session = self._core.session
        if session is not None:
            self._order_sockets.receive(
                lambda address, data: session.receive(address, data, now),
                lambda address: session.disconnected(address, now),
                lambda address: session.search.set_status(address, REFUSED),
            )
            session.tick(now)
            self._core.deliver_outcomes(now)
            if self._core.session is None:
                self._order_sockets.drop_all()
        self._send_due()

    def _send_due(self) -> None:
        session = self._core.session
        if session is not None:
            for action in session.take_actions():
                if isinstance(action, DropConnection):
                    self._order_sockets.drop(action.address)
                    continue
                try:
                    self._order_sockets.to(action.address).send(action.data, only_if_idle=action.ping)
                except (*CONNECT_ERRORS, *LINK_ERRORS) as error:
                    session.search.set_status(action.address, connect_error(error))
        self._order_sockets.flush()

    def _query(self, address: str, request: AnyRequest, timeout_s: float) -> AnyReply | None:
        self._check_open()
        self._request_id += 1
        try:
            node = self._admin_sockets.to(address)
        except CONNECT_ERRORS as error:
            raise InvalidValue(f"{address}: {connect_error(error)}") from None
        node.send(admin.encode_request(request, self._request_id))
        found: list[AnyReply] = []
        deadline = time.monotonic() + timeout_s

        def on_reply(_: str, data: bytes) -> None:
            try:
                request_id, reply = admin.decode_reply(data)
            except frames.FrameError:
                return
            if request_id == self._request_id:
                found.append(reply)

        while not found and time.monotonic() < deadline:
            self._admin_sockets.wait(deadline - time.monotonic())
            self._admin_sockets.flush()
            self._admin_sockets.receive(on_reply, lambda _: None)
        if not found:
            # An abandoned request must not delay the next one.
            self._admin_sockets.drop(address)
        return found[0] if found else None

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValue("the client was closed; create a new one")


def _close_sockets(
    orders: NodeSockets | NodeLinks, admins: NodeSockets, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    orders.close()
    admins.drop_all()
    context.term()
