"""The blocking client: the verbs and bulk submission over real sockets, on the caller's thread and no other.

A Client belongs to one thread at a time. Ctrl-C ends any call at once; leaving the `with` block closes every socket
without waiting for anybody.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.client import client_core
from smrx.client.client_core import ClientCore, Cluster, Waiter
from smrx.client.client_errors import ClientError, InvalidValue
from smrx.client.io_steps import Connect, Query, Sleep, Step, Steps, Submit, with_signature_of
from smrx.client.node_sockets import NodeSockets
from smrx.client.operations import Operations
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW
from smrx.client.session_pinger import SessionPinger
from smrx.client.session_states import DropConnection, State
from smrx.wire import admin, frames
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.records import OUTCOME

#: A quiet look around while nothing is due.
_IDLE_S: Final = 1.0
#: How long a good-bye to the exchange may take.
_CLOSE_S: Final = 0.5

P = ParamSpec("P")
T = TypeVar("T")


def _verb(of: Callable[Concatenate[Operations, P], Steps[T]]) -> "Callable[Concatenate[Client, P], T]":
    """Offer a verb as a method that returns when it is done."""

    @with_signature_of(of)
    def call(self: "Client", /, *arguments: P.args, **named: P.kwargs) -> T:
        return self._run(of(self._core.verbs, *arguments, **named))

    return call


class Client:
    """One session of one account with whoever leads the cluster.

    `cluster` is a Config, or one or more order entry addresses (any node is enough to find the leader). The session
    is opened with the first command. A call raises Unavailable when nothing was answered for `timeout` seconds.

    `cancel_on_disconnect`: the exchange cancels what this client placed and left open when the client is closed, and
    some seconds (`disconnect_ms` in the configuration) after the exchange last heard of this process.
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
    ) -> None:
        self._pinger = SessionPinger() if cancel_on_disconnect else None
        self._core = ClientCore(cluster, account, timeout, window, frame_commands, pinger=self._pinger)
        self._frame_commands = frame_commands
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links = NodeSockets(self._context, frames.MAX_FRAME_BYTES)
        self._admin = NodeSockets(self._context, admin.MAX_REPLY_BYTES)
        self._request_id = 0
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(graceful=kind is None)

    def close(self, *, graceful: bool = True) -> None:
        """Close every socket; if polite, end the session at the exchange first where that is quick and safe."""
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
            self._links.drop_all()
            self._admin.drop_all()
            self._context.term()

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

    def submit(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Send any number of COMMAND records, in order, and return their outcomes (OUTCOME records).

        Session and request ids are filled in. Refusals are outcomes, not exceptions.
        """
        commands = client_core.as_commands(commands)
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
        commands = client_core.as_commands(commands)
        self._check_open()
        count = min(len(commands), self._core.open(time.monotonic()).free_slots)
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
    def last_request(self) -> tuple[int, int] | None:
        """(session id, id of the last command sent, 0 before the first); None while there is no session."""
        session = self._core.session
        return None if session is None else (session.session_id, session.last_request)

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
        if isinstance(step, Query):
            return self._exchange(step.address, step.request, step.wait_s)
        if isinstance(step, Sleep):
            return self._turn(time.monotonic() + step.seconds, whole=True)
        assert isinstance(step, Connect)
        return self.connect()

    def _takes(self, wanted: int) -> int:
        """How many commands to send now: whole frames while there are many left."""
        self._check_open()
        room = self._core.open(time.monotonic()).free_slots
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
                if isinstance(action, DropConnection):
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
