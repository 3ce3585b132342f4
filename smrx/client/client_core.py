"""What the blocking and the asyncio client share: the session, who waits for which outcomes, and the verbs.

Sans I/O. Owns the order in which outcomes are handed out; the clients own sockets and waiting. A client that gives up
on requests gives up its session with them: their fate is unknown and is reported as such, and because request ids
mean something within a session only, nothing that was given up can be sent again later.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx.client.client_errors import ClientError, InvalidValue, ProtocolError, Refused, Unavailable
from smrx.client.operations import Operations
from smrx.client.query_routing import AdminDirectory, QueryRouter
from smrx.client.session import DEFAULT_FRAME_COMMANDS, DEFAULT_WINDOW, ClientSession
from smrx.client.session_states import LocalError
from smrx.config import Config
from smrx.wire.codes import SessionFlags
from smrx.wire.records import COMMAND, COMMAND_SIZE, OUTCOME

DEFAULT_TIMEOUT_S: Final = 10.0

#: A configuration, or the order entry addresses of one or more nodes; None is the default cluster.
Cluster = Config | str | Sequence[str] | None


class Pinger(Protocol):
    """Lets the exchange hear, while this process lives, of a session that is to end with it."""

    def keep(self, session_id: int, addresses: Sequence[str]) -> None:
        """Begin with this session, and end with any other."""

    def forget(self) -> None:
        """End: the session may go."""


class Waiter:
    """Somebody who waits for the outcomes of consecutive requests; `error` instead of them if they never come."""

    def __init__(self, outcomes: NDArray[np.void], done: Callable[[], None] | None = None) -> None:
        self.outcomes = outcomes
        self.missing = len(outcomes)
        self.error: ClientError | None = None
        self._done = done

    def take(self, outcomes: NDArray[np.void]) -> NDArray[np.void]:
        """Keep what is this waiter's; return the rest."""
        at = len(self.outcomes) - self.missing
        mine = outcomes[: self.missing]
        self.outcomes[at : at + len(mine)] = mine
        self.missing -= len(mine)
        if not self.missing:
            self.finish()
        return outcomes[len(mine) :]

    def finish(self) -> None:
        """Wake whoever waits."""
        if self._done is not None:
            self._done()


class ClientCore:
    """One client's state."""

    def __init__(
        self,
        cluster: Cluster,
        account: int,
        timeout: float,
        window: int = DEFAULT_WINDOW,
        frame_commands: int = DEFAULT_FRAME_COMMANDS,
        pinger: Pinger | None = None,
    ) -> None:
        if cluster is None:
            cluster = Config()
        if isinstance(cluster, str):
            cluster = (cluster,)
        if isinstance(cluster, Config):
            self._addresses: tuple[str, ...] = tuple(node.orders_address for node in cluster.nodes)
        else:
            self._addresses = tuple(cluster)
        if not self._addresses or not all(isinstance(a, str) and "://" in a for a in self._addresses):
            raise InvalidValue(
                f"cluster: expected a Config or addresses such as tcp://127.0.0.1:7111, found {list(self._addresses)}"
            )
        self._window, self._frame_commands = window, frame_commands
        self._pinger = pinger
        self.timeout = timeout
        self.session: ClientSession | None = None
        self.directory = AdminDirectory(cluster if isinstance(cluster, Config) else None)
        self.router = QueryRouter(self.directory, lambda: self.session, timeout)
        self.verbs = Operations(account, self.router)
        #: Outcomes nobody waits for by name: those of submit_nowait().
        self.unclaimed: list[NDArray[np.void]] = []
        self._waiters: deque[Waiter | int] = deque()
        self._progress_at = 0.0
        #: Why the last session ended.
        self.last_error: ClientError | None = None
        self._untold: ClientError | None = None

    def open(self, now: float) -> ClientSession:
        """Return the session, started; a new one where there is none or it was given up."""
        if self.session is None:
            session_id = secrets.randbits(64) or 1
            try:
                self.session = ClientSession(
                    session_id,
                    self.verbs.account,
                    self._addresses,
                    window=self._window,
                    frame_commands=self._frame_commands,
                    flags=SessionFlags.NONE if self._pinger is None else SessionFlags.CANCEL_ON_DISCONNECT,
                )
            except LocalError as error:
                raise InvalidValue(str(error)) from None
            if self._pinger is not None:
                self._pinger.keep(session_id, self._addresses)
            self.session.start(now)
        if not self.session.unanswered:
            self._progress_at = now
        return self.session

    def submit(self, commands: NDArray[np.void], waiter: Waiter | None, now: float) -> None:
        """Send commands, as many as there is room for; their outcomes go to the waiter, or to `unclaimed`."""
        session = self.open(now)
        try:
            session.submit(commands, now)
        except LocalError as error:
            raise InvalidValue(str(error)) from None
        self._waiters.append(len(commands) if waiter is None else waiter)

    def expired(self, now: float, *, connecting: bool = False) -> bool:
        """Whether it is time to give up: something is waited for, and nothing came for the whole timeout."""
        waiting = self.session is not None and (connecting or self.session.unanswered > 0)
        return waiting and now >= self.expires_at

    @property
    def expires_at(self) -> float:
        """When to give up, if nothing is answered before."""
        return self._progress_at + self.timeout

    def collect(self, now: float) -> None:
        """Hand out what the session has got; a session that failed fails everybody who waits, and is given up."""
        session = self.session
        if session is None:
            return
        for outcomes in session.take_outcomes():
            self._progress_at = now
            self.router.seen = max(self.router.seen, int(outcomes["sequence"][-1]))
            self._hand_out(outcomes)
        if session.failure is not None:
            message, reason = session.failure
            if reason is not None:
                self._end(Refused(f"session for account {session.account}", reason), now)
            else:
                self._end(ProtocolError(f"{message}; {_fate(session)}"), now)

    def _hand_out(self, outcomes: NDArray[np.void]) -> None:
        while len(outcomes):
            waiter = self._waiters[0]
            if isinstance(waiter, Waiter):
                outcomes = waiter.take(outcomes)
                if not waiter.missing:
                    self._waiters.popleft()
                continue
            mine = outcomes[:waiter]
            self.unclaimed.append(mine)
            outcomes = outcomes[waiter:]
            if len(mine) == waiter:
                self._waiters.popleft()
            else:
                self._waiters[0] = waiter - len(mine)

    def take_unclaimed(self) -> NDArray[np.void]:
        """Return what came for submit_nowait() since the last call, in request order."""
        found, self.unclaimed = self.unclaimed, []
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.zeros(0, OUTCOME)

    def give_up(self, now: float) -> ClientError:
        """End the session because nobody answered; everybody who waits fails with the error returned."""
        session = self.session
        assert session is not None
        requests = range(session.answered + 1, session.last_request + 1)
        message = f"no answer within {self.timeout:g} s ({session.describe()}); {_fate(session)}"
        error = Unavailable(message, requests)
        self._end(error, now)
        return error

    def abandon(self, now: float) -> None:
        """End the session without a word: the caller was interrupted, perhaps in the middle of a change of state."""
        if self.session is not None:
            self._end(Unavailable(f"the call was interrupted; {_fate(self.session)}"), now)

    def _end(self, error: ClientError, now: float) -> None:
        session, self.session = self.session, None
        if self._pinger is not None:
            self._pinger.forget()
        if session is not None:
            session.close(now)
        self.last_error = error
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if isinstance(waiter, Waiter):
                waiter.error = error
                waiter.finish()
            else:
                self._untold = error

    def take_untold(self) -> ClientError | None:
        """Return, once, why outcomes that nobody waits for by name will never come."""
        error, self._untold = self._untold, None
        return error


def as_commands(commands: NDArray[np.void]) -> NDArray[np.void]:
    """Return the array as COMMAND records; raises InvalidValue."""
    if not isinstance(commands, np.ndarray) or commands.ndim != 1 or commands.dtype.itemsize != COMMAND_SIZE:
        raise InvalidValue("commands: expected a one-dimensional array of COMMAND records")
    return commands if commands.dtype == COMMAND else commands.view(COMMAND)


def _fate(session: ClientSession) -> str:
    first, last = session.answered + 1, session.last_request
    if last < first:
        return "no request was on its way"
    if session.attempts == 0:
        return "nothing was sent"
    which = f"request {first}" if first == last else f"requests {first} to {last}"
    return f"{which} of session {session.session_id}: unknown whether applied"
