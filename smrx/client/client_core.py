"""Hold the state of a client: its session, the calls that wait for outcomes, and the operations.

Shared by the blocking and the asyncio client, which own sockets and waiting. Sans I/O.

A client that stops waiting for requests also ends its session. Whether they were applied is unknown and is reported as
such. Request ids are only valid within a session, so requests of an ended session are never sent again.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx import client_keys
from smrx.client import node_links
from smrx.client.client_errors import ClientError, InvalidValue, ProtocolError, Refused, Unavailable
from smrx.client.node_links import NodeLinks, is_link
from smrx.client.operations import Operations
from smrx.client.query_routing import AdminDirectory, QueryRouter
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW, ClientSession
from smrx.client.session_states import LocalError
from smrx.client_keys import ClientKeys
from smrx.config import Config
from smrx.key_files import KeysError
from smrx.links.greeting import ANY_CLUSTER, cluster_number
from smrx.wire import frames
from smrx.wire.codes import SessionFlags
from smrx.wire.command_list import NO_DETAILS, CommandList, join
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE, OUTCOME

DEFAULT_TIMEOUT_S: Final = 10.0

#: A configuration, or the order entry addresses of one or more nodes; None is the default cluster.
Cluster = Config | str | Sequence[str] | None


class Pinger(Protocol):
    """Keeps a session with cancel-on-disconnect alive at the exchange for as long as this process runs."""

    def ping_session(self, session_id: int, addresses: Sequence[str]) -> None:
        """Start to ping for this session, instead of any other."""

    def stop(self) -> None:
        """Stop to ping, so that the exchange may end the session."""


class Waiter:
    """A call that waits for the outcomes of consecutive requests; `error` is set if they cannot arrive."""

    __slots__ = ("_done", "error", "missing", "outcomes")

    def __init__(
        self, count: int, done: Callable[[], None] | None = None, outcomes: NDArray[np.void] | None = None
    ) -> None:
        """Wait for `count` outcomes, in the array `outcomes` if it is given.

        Call `done` when all have arrived or `error` is set.
        """
        self.outcomes = outcomes
        self.missing = count
        self.error: ClientError | None = None
        self._done = done

    def take(self, outcomes: NDArray[np.void], at: int) -> int:
        """Take the outcomes that belong to this call, from index `at` on; return the index after them."""
        end = min(len(outcomes), at + self.missing)
        own = outcomes[at:end]
        if self.outcomes is None and len(own) == self.missing:
            self.outcomes = own  # No copy: they arrived together, as those of a lone order always do.
        else:
            if self.outcomes is None:
                self.outcomes = np.zeros(self.missing, OUTCOME)
            first = len(self.outcomes) - self.missing
            self.outcomes[first : first + len(own)] = own
        self.missing -= len(own)
        if not self.missing:
            self.finish()
        return end

    def fail(self, error: ClientError) -> None:
        """The outcomes cannot arrive: wake the call with an error."""
        self.error = error
        self.finish()

    def finish(self) -> None:
        """Wake the call."""
        if self._done is not None:
            self._done()


class ClientCore:
    """The state of one client."""

    def __init__(
        self,
        cluster: Cluster,
        account: int,
        timeout: float,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
        pinger: Pinger | None = None,
    ) -> None:
        cluster = with_default(cluster)
        if isinstance(cluster, Config):
            self._addresses: tuple[str, ...] = tuple(
                node.orders_tcp_address if node_links.IS_AVAILABLE else node.orders_address for node in cluster.nodes
            )
        else:
            self._addresses = tuple(cluster)
        if not self._addresses or not all(isinstance(a, str) and "://" in a for a in self._addresses):
            raise InvalidValue(
                f"cluster: expected a Config or addresses such as smrx://127.0.0.1:7113, found {list(self._addresses)}"
            )
        if len({is_link(address) for address in self._addresses}) > 1:
            raise InvalidValue("cluster: expected addresses of one transport, smrx:// (TCP) or tcp:// (ZeroMQ)")
        #: Whether orders go over TCP, and not over ZeroMQ.
        self.uses_links = is_link(self._addresses[0])
        self.config = cluster if isinstance(cluster, Config) else None
        self._window, self._frame_commands = window, frame_commands
        self._pinger = pinger
        self._is_pinging = False
        self.timeout = timeout
        self.session: ClientSession | None = None
        self.directory = AdminDirectory(cluster if isinstance(cluster, Config) else None)
        self.router = QueryRouter(self.directory, lambda: self.session, timeout)
        self.operations = Operations(account, self.router)
        #: Outcomes of submit_nowait() that poll() has not returned yet.
        self.unpolled: list[NDArray[np.void]] = []
        #: In request order: a waiting call, or the number of outcomes that poll() returns.
        self._waiters: deque[Waiter | int] = deque()
        self._progress_at = 0.0
        #: Why the last session ended.
        self.last_error: ClientError | None = None
        self._poll_error: ClientError | None = None

    def open(self, now: float) -> ClientSession:
        """Return the session; start a new one if there is none."""
        if self.session is None:
            try:
                self.session = ClientSession(
                    _new_session_id(),
                    self.operations.account,
                    self._addresses,
                    window=self._window,
                    frame_commands=self._frame_commands,
                    flags=SessionFlags.NONE if self._pinger is None else SessionFlags.CANCEL_ON_DISCONNECT,
                    new_id=_new_session_id,
                )
            except LocalError as error:
                raise InvalidValue(str(error)) from None
            self._is_pinging = False
            self.session.start(now)
        if not self.session.unanswered:
            self._progress_at = now
        return self.session

    def submit(
        self, commands: NDArray[np.void], waiter: Waiter | None, now: float, details: NDArray[np.void] = NO_DETAILS
    ) -> None:
        """Send commands, at most as many as the window has free slots; poll() returns the outcomes without a waiter."""
        session = self.open(now)
        try:
            session.submit(commands, now, details)
        except LocalError as error:
            raise InvalidValue(str(error)) from None
        self._waiters.append(len(commands) if waiter is None else waiter)

    def submit_all(self, parts: Sequence[tuple[CommandList, Waiter]], now: float) -> None:
        """Send the commands of several calls together; all fail if they cannot be sent."""
        session = self.open(now)
        commands = parts[0][0] if len(parts) == 1 else join([part for part, _ in parts])
        self._waiters.extend(waiter for _, waiter in parts)
        try:
            session.submit(commands.records, now, commands.details)
        except LocalError as error:
            for _, waiter in parts:
                self._waiters.pop()
                waiter.fail(InvalidValue(str(error)))

    def has_timed_out(self, now: float, *, connecting: bool = False) -> bool:
        """Return whether something is waited for and nothing has arrived for the whole timeout."""
        waiting = self.session is not None and (connecting or self.session.unanswered > 0)
        return waiting and now >= self.timeout_at

    @property
    def timeout_at(self) -> float:
        """The time of the timeout, if nothing is answered before."""
        return self._progress_at + self.timeout

    def deliver_outcomes(self, now: float) -> None:
        """Pass the session's outcomes to the calls that wait. If the session has failed, fail them and end it."""
        session = self.session
        if session is None:
            return
        if session.is_open and not self._is_pinging and self._pinger is not None:
            self._is_pinging = True
            self._pinger.ping_session(session.session_id, self._addresses)
        for outcomes in session.take_outcomes():
            self._progress_at = now
            self.router.last_sequence = max(self.router.last_sequence, int(outcomes["sequence"][-1]))
            self._deliver(outcomes)
        if session.failure is not None:
            message, reason = session.failure
            if reason is not None:
                self._end(Refused(f"session for account {session.account}", reason), now)
            else:
                self._end(ProtocolError(f"{message}; {_describe_unanswered(session)}"), now)

    def _deliver(self, outcomes: NDArray[np.void]) -> None:
        at = 0
        while at < len(outcomes):
            waiter = self._waiters[0]
            if isinstance(waiter, Waiter):
                at = waiter.take(outcomes, at)
                if not waiter.missing:
                    self._waiters.popleft()
                continue
            head = outcomes[at : at + waiter]
            self.unpolled.append(head)
            at += len(head)
            if len(head) == waiter:
                self._waiters.popleft()
            else:
                self._waiters[0] = waiter - len(head)

    def take_unpolled(self) -> NDArray[np.void]:
        """Return the outcomes of submit_nowait() that arrived since the last call, in request order."""
        found, self.unpolled = self.unpolled, []
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.zeros(0, OUTCOME)

    def time_out(self, now: float) -> ClientError:
        """End the session because nothing was answered; every waiting call fails with the returned error."""
        session = self.session
        assert session is not None
        requests = range(session.answered + 1, session.last_request + 1)
        message = f"no answer within {self.timeout:g} s ({session.describe()}); {_describe_unanswered(session)}"
        error = Unavailable(message, requests)
        self._end(error, now)
        return error

    def abort(self, now: float) -> None:
        """End the session at the client only: a call was interrupted, perhaps while it changed the state."""
        if self.session is not None:
            self._end(Unavailable(f"the call was interrupted; {_describe_unanswered(self.session)}"), now)

    def _end(self, error: ClientError, now: float) -> None:
        session, self.session = self.session, None
        if self._pinger is not None:
            self._pinger.stop()
        if session is not None:
            session.close(now)
        self.last_error = error
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if isinstance(waiter, Waiter):
                waiter.fail(error)
            else:
                self._poll_error = error

    def take_poll_error(self) -> ClientError | None:
        """Return, once, why outcomes of submit_nowait() will not arrive."""
        error, self._poll_error = self._poll_error, None
        return error


def _new_session_id() -> int:
    """Return a random id; the session puts the number of its credential into the upper half."""
    return secrets.randbits(32) or 1


def with_default(cluster: Cluster) -> Config | Sequence[str]:
    """Return the default configuration for None, and one address as a sequence."""
    if cluster is None:
        return Config()
    return (cluster,) if isinstance(cluster, str) else cluster


def links_of(cluster: Cluster, keys: ClientKeys | None) -> NodeLinks:
    """Return connections to order entry over TCP."""
    return NodeLinks(frames.MAX_FRAME_BYTES, keys, cluster_number_of(cluster))


def cluster_number_of(cluster: Cluster) -> int:
    """Return the number of a cluster for a greeting; without a Config it may be any."""
    cluster = with_default(cluster)
    return cluster_number(cluster.cluster) if isinstance(cluster, Config) else ANY_CLUSTER


def keys_of(cluster: Cluster, key: str | Path | None) -> ClientKeys | None:
    """Return the keys for the sockets of a client, None if the cluster has none. Raises InvalidValue."""
    cluster = with_default(cluster)
    if not isinstance(cluster, Config):
        if key is not None:
            raise InvalidValue("key: expected a Config as the cluster: it has the public keys of the nodes")
        return None
    try:
        return client_keys.of_client(cluster, key)
    except KeysError as error:
        raise InvalidValue(f"key: {error}") from None


def as_commands(commands: NDArray[np.void]) -> NDArray[np.void]:
    """Return the array as COMMAND records. Raises InvalidValue."""
    if not isinstance(commands, np.ndarray) or commands.ndim != 1 or commands.dtype.itemsize != COMMAND_SIZE:
        raise InvalidValue("commands: expected a one-dimensional array of COMMAND records")
    return commands if commands.dtype == COMMAND else commands.view(COMMAND)


def as_details(details: NDArray[np.void] | None) -> NDArray[np.void]:
    """Return the array as DETAILS records; none for None. Raises InvalidValue."""
    if details is None:
        return NO_DETAILS
    if not isinstance(details, np.ndarray) or details.ndim != 1 or details.dtype.itemsize != DETAILS_SIZE:
        raise InvalidValue("details: expected a one-dimensional array of DETAILS records")
    return details if details.dtype == DETAILS else details.view(DETAILS)


def check(commands: CommandList) -> None:
    """Raise InvalidValue for commands that a client may not send."""
    if len(commands.records):
        try:
            ClientSession.check(*commands)
        except LocalError as error:
            raise InvalidValue(str(error)) from None


def _describe_unanswered(session: ClientSession) -> str:
    first, last = session.answered + 1, session.last_request
    if last < first:
        return "no request was unanswered"
    if session.attempts == 0:
        return "nothing was sent"
    which = f"request {first} of session {session.session_id} was"
    if first != last:
        which = f"requests {first} to {last} of session {session.session_id} were"
    return f"it is unknown whether {which} applied"
