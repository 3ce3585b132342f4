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
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.config import Limits
from smrx.node import compiled_entry
from smrx.node.entry_kernels import (
    ACCOUNT_RATE,
    BYTES,
    COMMANDS,
    DEBT,
    HAS_LIMITS,
    MAX_CONNECTION_BYTES,
    MAX_CONNECTION_COMMANDS,
    NOW_NS,
    SESSION_RATE,
    STOPPED,
    TABLE_FULL,
    TIME,
)
from smrx.node.frame_block import key_of
from smrx.node.keyed_table import KeyedTable
from smrx.node.principal import Principal
from smrx.wire.codes import CommandKind, EventKind, Scope
from smrx.wire.frames import MAX_COMMANDS, Frame
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


class Excess(NamedTuple):
    """Why a frame is refused; for a rate also whose it is, and after how long the frame would pass."""

    message: str
    session: int | None = None
    account: int | None = None
    wait_ms: int | None = None


class TokenBuckets:
    """A rate for each of many keys; a second's worth may be used at once."""

    def __init__(self, per_second: int) -> None:
        self.rate = per_second
        #: The tokens taken, in billionths of one, and when: a bucket that is full again has none.
        self.table = KeyedTable()

    def wait_ns(self, key: int, count: int, now_ns: int) -> int:
        """Return after how long so many tokens can be taken; 0 is now."""
        excess = self._debt(self._row(key, now_ns), now_ns) + (count - self.rate) * _SECOND_NS
        return -(-excess // self.rate) if excess > 0 else 0

    def take(self, key: int, count: int, now_ns: int) -> None:
        """Take tokens; the caller has asked whether they are there."""
        row = self._row(key, now_ns)
        row[DEBT], row[TIME] = self._debt(row, now_ns) + count * _SECOND_NS, now_ns

    def make_space(self, keys: int, now_ns: int) -> None:
        """Make sure that the table has space for so many more keys: leave out full buckets, then begin anew."""
        if not self.table.has_space(keys):
            self.table.make_space(keys, lambda rows: self._are_full(rows, now_ns), most_rows=2 * _MAX_BUCKETS)

    def _are_full(self, rows: NDArray[np.int64], now_ns: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = rows[:, DEBT] <= np.minimum(now_ns - rows[:, TIME], _SECOND_NS) * self.rate
        return found

    def _row(self, key: int, now_ns: int) -> NDArray[np.int64]:
        self.make_space(1, now_ns)
        return self.table.row(key)

    def _debt(self, row: NDArray[np.int64], now_ns: int) -> int:
        elapsed = min(now_ns - int(row[TIME]), _SECOND_NS)
        return max(0, int(row[DEBT]) - elapsed * self.rate)


class SessionCounts:
    """The open sessions of each account, and those that are being opened."""

    def __init__(self) -> None:
        self._account_of: dict[int, int] = {}
        self._open: Counter[int] = Counter()
        self._opening: Counter[int] = Counter()

    def restart(self, sessions: NDArray[np.void]) -> None:
        """Count these sessions (Inspect.session_owners) and no others."""
        found = sessions[sessions["closed"] == 0]
        self._account_of = dict(zip(found["session_id"].tolist(), found["account"].tolist(), strict=True))
        self._open = Counter(self._account_of.values())
        self._opening.clear()

    def applied(self, events: NDArray[np.void]) -> None:
        """Count what these events opened and ended."""
        for event in events[np.isin(events["kind"], _OPENED_OR_ENDED)]:
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
        self.table = KeyedTable()

    def commands(self, identity: bytes) -> int:
        """Return how many commands of a connection wait for their answer."""
        return int(self._row(identity)[COMMANDS])

    def bytes_of(self, identity: bytes) -> int:
        """Return how many bytes wait for a connection."""
        return int(self._row(identity)[BYTES])

    def add(self, identity: bytes, size: int, commands: int = 0) -> None:
        """Count what waits from now on; negative numbers are what no longer does."""
        row = self._row(identity)
        row[COMMANDS] += commands
        row[BYTES] += size

    def make_space(self) -> None:
        """Make sure that the table has space for one more connection: leave out those without anything waiting."""
        if not self.table.has_space(1):
            self.table.make_space(1, lambda rows: (rows[:, COMMANDS] == 0) & (rows[:, BYTES] == 0))

    def _row(self, identity: bytes) -> NDArray[np.int64]:
        self.make_space()
        return self.table.row(key_of(identity))


class ClientLimits:
    """The limits of one node and what counts against them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions = TokenBuckets(limits.session_commands_per_second)
        self._accounts = TokenBuckets(limits.account_commands_per_second)
        self.session_counts = SessionCounts()
        self.use = ConnectionUse()

    def set_limits(self, numbers: NDArray[np.int64]) -> None:
        """Set the limits among the numbers of an admission."""
        numbers[HAS_LIMITS] = 1
        numbers[MAX_CONNECTION_COMMANDS] = self._limits.connection_commands
        numbers[MAX_CONNECTION_BYTES] = self._limits.connection_bytes
        numbers[SESSION_RATE], numbers[ACCOUNT_RATE] = self._sessions.rate, self._accounts.rate

    def admit_block(
        self,
        words: NDArray[np.int64],
        rows: NDArray[np.int64],
        at: int,
        keys: NDArray[np.int64],
        known: NDArray[np.int64],
        waiting: KeyedTable,
        numbers: NDArray[np.int64],
        gathered: NDArray[np.int64],
    ) -> int:
        """See entry_kernels.admit_frames."""
        uses, sessions, accounts = self.use.table, self._sessions.table, self._accounts.table
        while True:
            at = compiled_entry.admit_frames(
                words, rows, at, keys, known, waiting.cells, waiting.numbers, uses.cells, uses.numbers, sessions.cells,
                sessions.numbers, accounts.cells, accounts.numbers, numbers, gathered,
            )  # fmt: skip
            if numbers[STOPPED] != TABLE_FULL:
                return at
            self.use.make_space()
            for buckets in (self._sessions, self._accounts):
                buckets.make_space(MAX_COMMANDS, int(numbers[NOW_NS]))

    def admit(self, identity: bytes, principal: Principal, frame: Frame, now_ns: int) -> "Counter[int] | Excess":
        """Count the commands of a frame and return the sessions that it opens by account; or return why not."""
        limits, use = self._limits, self.use
        waiting, size = use.commands(identity), len(frame.body)
        if waiting + frame.count > limits.connection_commands:
            return Excess(
                f"{waiting} commands of this connection are not answered yet, and it may have "
                f"{limits.connection_commands}; read the answers, then send this frame again"
            )
        if use.bytes_of(identity) + size > limits.connection_bytes:
            return Excess(
                f"{use.bytes_of(identity)} bytes of commands of this connection wait on this node, and it "
                f"may have {limits.connection_bytes}; read the answers, then send this frame again"
            )
        opened = self._opened(principal, frame)
        if isinstance(opened, str):
            return Excess(opened)
        sessions, accounts = (_sessions(frame), _accounts(frame, principal)) if principal.credential else ({}, {})
        for buckets, keys, what, most in (
            (self._sessions, sessions, "session", limits.session_commands_per_second),
            (self._accounts, accounts, "account", limits.account_commands_per_second),
        ):
            for key, count in keys.items():
                wait_ns = buckets.wait_ns(key, count, now_ns)
                if wait_ns:
                    who = f"{what} {key}" if key >= 0 else f"credential {-key}, for accounts of others,"
                    wait_ms = -(-wait_ns // 1_000_000)
                    message = f"{who} may send {most} commands a second; send this frame again after {wait_ms} ms"
                    return Excess(message, **({what: key} if key >= 0 else {}), wait_ms=wait_ms)
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
