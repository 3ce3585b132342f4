"""Bound what clients may ask of a node: commands a second, open sessions, kept answers, what a connection has waiting.

Owns the counts. Sans I/O: time is an argument, and order entry asks before it accepts a frame; what exceeds a limit is
refused as a whole, with a sentence, and changes no count. All arithmetic is in integers. Only the leader accepts
commands, so only its counts matter; a new leader begins with full allowances.

A rate is of the session, and of an account: for a credential of one account all its commands count for that account,
whatever they name; otherwise the accounts named, and for the credential itself those for which it may not act. So no
client uses up what belongs to another account, and none escapes by naming others. Without a credential there is no
rate: a node without keys does not know who sends, and the keys of the cluster file are the venue's own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.config import Limits
from smrx.node.principal import Principal
from smrx.wire.codes import CommandKind, EventKind, Scope
from smrx.wire.frames import Frame
from smrx.wire.records import COMMAND_SIZE

_SECOND_NS: Final = 1_000_000_000
#: The offsets of the fields read here, and their distance in an array of their type.
_SESSION: Final = slice(8, 16)
_SESSION_WORD: Final = 1
_ACCOUNT_WORD: Final = 6
_ANSWERS_WORD: Final = 7
_U64_PER_COMMAND: Final = COMMAND_SIZE // 8
_U32_PER_COMMAND: Final = COMMAND_SIZE // 4
#: Buckets kept; a bucket that is full again needs no memory.
_MAX_BUCKETS: Final = 1 << 16
_OPENED_OR_ENDED: Final = (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED, EventKind.SESSION_EXPIRED)


class TokenBuckets:
    """A rate for each of many keys; a second's worth may be used at once."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        #: When the bucket of a key is full again, in nanoseconds times the rate: a bucket is one number.
        self._full_at: dict[int, int] = {}

    def wait_ns(self, key: int, count: int, now_ns: int) -> int:
        """Return after how long so many tokens can be taken; 0 is now."""
        now = now_ns * self._rate
        excess = max(self._full_at.get(key, 0), now) - now + (count - self._rate) * _SECOND_NS
        return -(-excess // self._rate) if excess > 0 else 0

    def take(self, key: int, count: int, now_ns: int) -> None:
        """Take tokens; the caller has asked whether they are there."""
        now = now_ns * self._rate
        self._full_at[key] = max(self._full_at.get(key, 0), now) + count * _SECOND_NS
        if len(self._full_at) > _MAX_BUCKETS:
            self._full_at = {key: full for key, full in self._full_at.items() if full > now}
            if len(self._full_at) > _MAX_BUCKETS:
                # More keys are in use than a node can tell apart: each begins anew.
                self._full_at.clear()


class SessionCounts:
    """The open sessions of each account, and those that are being opened."""

    def __init__(self) -> None:
        self._account_of: dict[int, int] = {}
        self._open: Counter[int] = Counter()
        self._opening: Counter[int] = Counter()

    def restart(self, sessions: NDArray[np.void]) -> None:
        """Count these sessions (rows of Inspect.sessions) and no others."""
        found = sessions[sessions["closed"] == 0]
        self._account_of = dict(zip(found["session_id"].tolist(), found["account"].tolist(), strict=True))
        self._open = Counter(self._account_of.values())
        self._opening.clear()

    def applied(self, events: NDArray[np.void]) -> None:
        """Count what these events opened and ended."""
        kinds = events["kind"]
        # Few entries open or end a session, so this check must be cheap.
        present = kinds.tobytes()
        if not any(kind in present for kind in _OPENED_OR_ENDED):
            return
        for event in events[np.isin(kinds, _OPENED_OR_ENDED)]:
            session = int(event["session_id"])
            before = self._account_of.pop(session, None)
            if before is not None:
                self._open[before] -= 1
                if not self._open[before]:
                    del self._open[before]
            if event["kind"] == EventKind.SESSION_OPENED:
                self._account_of[session] = int(event["account"])
                self._open[int(event["account"])] += 1

    def new(self, sessions: Iterable[int], accounts: Iterable[int]) -> Counter[int]:
        """Return how many sessions of each account an OPEN_SESSION for each of these would add."""
        wanted = dict(zip(sessions, accounts, strict=True))
        return Counter(account for session, account in wanted.items() if session not in self._account_of)

    def count(self, account: int) -> int:
        """Return how many sessions an account has or is opening."""
        return self._open[account] + self._opening[account]

    def opening(self, accounts: Mapping[int, int]) -> None:
        """Count sessions that are being opened."""
        self._opening.update(accounts)

    def answered(self, accounts: Mapping[int, int]) -> None:
        """Count no longer as being opened; applied() counts those that were opened."""
        self._opening.subtract(accounts)
        for account in accounts:
            if self._opening[account] <= 0:
                del self._opening[account]


class ConnectionUse:
    """What each connection has waiting on this node: commands without an answer, and the bytes of those commands."""

    def __init__(self) -> None:
        self._commands: Counter[bytes] = Counter()
        self._bytes: Counter[bytes] = Counter()
        #: The bytes of all connections.
        self.total_bytes = 0

    def commands(self, identity: bytes) -> int:
        """Return how many commands of a connection wait for their answer."""
        return self._commands[identity]

    def bytes_of(self, identity: bytes) -> int:
        """Return how many bytes wait for a connection."""
        return self._bytes[identity]

    def add(self, identity: bytes, size: int, commands: int = 0) -> None:
        """Count what waits from now on; negative numbers are what no longer does."""
        self.total_bytes += size
        for counter, amount in ((self._commands, commands), (self._bytes, size)):
            if amount:
                counter[identity] += amount
                if not counter[identity]:
                    del counter[identity]


class ClientLimits:
    """The limits of one node and what counts against them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions = TokenBuckets(limits.session_commands_per_second)
        self._accounts = TokenBuckets(limits.account_commands_per_second)
        self.session_counts = SessionCounts()
        self.use = ConnectionUse()

    def admit(self, identity: bytes, principal: Principal, frame: Frame, now_ns: int) -> "Counter[int] | str":
        """Count the commands of a frame and return the sessions that it opens by account; or return why not."""
        limits, use = self._limits, self.use
        waiting, size = use.commands(identity), len(frame.body)
        if waiting + frame.count > limits.connection_commands:
            return (
                f"{waiting} commands of this connection are not answered yet, and it may have "
                f"{limits.connection_commands}; read the answers, then send this frame again"
            )
        if use.bytes_of(identity) + size > limits.connection_bytes:
            return (
                f"{use.bytes_of(identity)} bytes of commands of this connection wait on this node, and it "
                f"may have {limits.connection_bytes}; read the answers, then send this frame again"
            )
        opened = self._opened(principal, frame)
        if isinstance(opened, str):
            return opened
        sessions, accounts = (_sessions(frame), _accounts(frame, principal)) if principal.credential else ({}, {})
        for buckets, keys, what, most in (
            (self._sessions, sessions, "session", limits.session_commands_per_second),
            (self._accounts, accounts, "account", limits.account_commands_per_second),
        ):
            for key, count in keys.items():
                wait_ns = buckets.wait_ns(key, count, now_ns)
                if wait_ns:
                    who = f"{what} {key}" if key >= 0 else f"credential {-key}, for accounts of others,"
                    return (
                        f"{who} may send {most} commands a second; send this frame again after "
                        f"{-(-wait_ns // 1_000_000)} ms"
                    )
        for key, count in sessions.items():
            self._sessions.take(key, count, now_ns)
        for key, count in accounts.items():
            self._accounts.take(key, count, now_ns)
        self.session_counts.opening(opened)
        use.add(identity, size, frame.count)
        return opened

    def answered(self, identity: bytes, commands: int, size: int, opened: Mapping[int, int] | None) -> None:
        """The commands of an admitted frame are answered, or are not this node's to answer any more."""
        self.use.add(identity, -size, -commands)
        if opened:
            self.session_counts.answered(opened)

    def _opened(self, principal: Principal, frame: Frame) -> "Counter[int] | str":
        """Return how many sessions a frame opens, by account; or why it may not."""
        kinds = frame.body[: frame.count * COMMAND_SIZE : COMMAND_SIZE].tobytes()
        if CommandKind.OPEN_SESSION not in kinds:
            return Counter()
        rows = np.flatnonzero(np.frombuffer(kinds, np.uint8) == CommandKind.OPEN_SESSION)
        words = np.frombuffer(frame.body, np.uint32, frame.count * _U32_PER_COMMAND).reshape(frame.count, -1)[rows]
        answers, most = int(words[:, _ANSWERS_WORD].max()), self._limits.session_answers
        if answers > most:
            return f"a session may ask to keep {most} answers, found {answers}"
        ids = words[:, 2 * _SESSION_WORD : 2 * _SESSION_WORD + 2].copy().view(np.uint64).ravel()
        found = self.session_counts.new(ids.tolist(), words[:, _ACCOUNT_WORD].tolist())
        opened = Counter({account: count for account, count in found.items() if principal.acts_for(account)})
        for account, count in opened.items():
            has = self.session_counts.count(account)
            if has + count > self._limits.account_sessions:
                return f"account {account} has {has} open sessions, and it may have {self._limits.account_sessions}"
        return opened


def _sessions(frame: Frame) -> dict[int, int]:
    """Return how many commands of a frame are of each session."""
    if frame.count > 1:
        words = np.frombuffer(frame.body, np.uint64, frame.count * _U64_PER_COMMAND)
        sessions = words[_SESSION_WORD::_U64_PER_COMMAND]
        if not (sessions == sessions[0]).all():
            return _counted(sessions)
    return {int.from_bytes(frame.body[_SESSION], "little"): frame.count}


def _accounts(frame: Frame, principal: Principal) -> dict[int, int]:
    """Return how many commands of a frame count for each account; for others' accounts, for minus the credential."""
    if principal.scope is Scope.ACCOUNT:
        return {principal.subject: frame.count}
    words = np.frombuffer(frame.body, np.uint32, frame.count * _U32_PER_COMMAND)
    accounts = words[_ACCOUNT_WORD::_U32_PER_COMMAND]
    counted = {int(accounts[0]): frame.count} if (accounts == accounts[0]).all() else _counted(accounts)
    own = {account: count for account, count in counted.items() if principal.acts_for(account)}
    of_others = frame.count - sum(own.values())
    return own | {-principal.credential: of_others} if of_others else own


def _counted(values: NDArray[np.uint64] | NDArray[np.uint32]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
