"""Engine: the state machine as Python sees it.

Owns a State and the buffers around it; grows what is too small. Never reads a clock, a file or chance: the same
commands with the same stamps give the same bytes on every machine. Called by the node, the tests and the benchmarks.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine import index_build, snapshot
from smrx.engine.checks import full_hash, invariants
from smrx.engine.engine_error import EngineError
from smrx.engine.inspect import Inspect
from smrx.engine.kernels import compiled
from smrx.engine.state import ACCOUNTS, RING_SIZE, State, allocate, grow
from smrx.wire.codes import AccountStatus
from smrx.wire.records import COMMAND, EVENT, OUTCOME

#: Room for events in a buffer, for each command and at least: twice what a busy market causes. A buffer is the
#: caller's afterwards and does not cost what it does not hold; a batch that needs more gets another one.
EVENTS_PER_COMMAND: Final = 4
LEAST_EVENTS: Final = 64
#: A buffer that is filled to less than one part in so many is not handed out: whoever keeps an event would keep it all.
SPARSE: Final = 8
#: A cascade that needs a buffer of so many events, 2 MiB, gets one of UNTOUCHED at once, which is above 32 MiB. What is
#: as large as that comes from the kernel each time: its unwritten part takes no memory, and the written one is given in
#: huge pages. Between both sizes it would come in hundreds of small ones, which is a third of what a sweep costs.
LONG: Final = 1 << 14
UNTOUCHED: Final = (1 << 18) + 1
EVENT_WORDS: Final = EVENT.itemsize // 8
OUTCOME_WORDS: Final = OUTCOME.itemsize // 8
#: Calls with no more commands than this write their events into a buffer that the engine keeps, and hand out a copy:
#: for one command, making an array costs more than applying it, and for 64 of them it is still a quarter.
FEW_COMMANDS: Final = 64


#: Events as words: of them, NumPy makes arrays five times as fast as of records, and copies them forty times as fast.
Words = NDArray[np.uint64]


class Result(NamedTuple):
    """What a batch caused. The arrays belong to the caller."""

    outcomes: NDArray[Any]
    events: NDArray[Any]
    hashes: NDArray[np.uint64]


class _Few:
    """The buffer for the events of a few commands, as the three types it is seen through."""

    def __init__(self) -> None:
        length = EVENTS_PER_COMMAND * FEW_COMMANDS + LEAST_EVENTS
        self.words = np.empty(length * EVENT_WORDS, np.uint64)
        self.events: NDArray[Any] = np.ndarray(length, EVENT, self.words)
        self.bytes = self.words.data.cast("B")


class Engine:
    """The exchange's state machine: apply commands, read the state, save and restore it."""

    def __init__(
        self,
        *,
        orders: int = 1024,
        levels: int = 256,
        accounts: int = 64,
        balances: int = 256,
        sessions: int = 64,
        instruments: int = 64,
        assets: int = 64,
        transfers: int = 64,
        hash: bool = True,
        ledger: bool = True,
        reports: bool = True,
    ) -> None:
        """An empty exchange. Sizes are first sizes: every table grows. Without `hash` there is no state hash.

        Without `ledger` orders hold, pay and need no money, and open notionals are not limited; without `reports` no
        event says what becomes of an order, only trades do: for comparison with order books that know neither.
        """
        sizes = {
            "orders": orders, "levels": levels, "nodes": levels, "accounts": accounts, "balances": balances,
            "sessions": sessions, "instruments": instruments, "assets": assets, "transfers": transfers,
        }  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise EngineError(f"{name}: expected a first size of 1 or more, found {size}")
        state = allocate(sizes)
        state.core["hashing"] = hash
        state.core["ledger"] = ledger
        state.core["reporting"] = reports
        _open_venue_account(state)
        self._adopt(state)

    def _adopt(self, state: State) -> None:
        """Make a state this engine's own."""
        self._state = state
        self._core = state.core[0]
        self._turn = state.turn[0]
        # Reading an item of a memoryview takes a tenth of the time that reading a field of a record does.
        self._written = state.turn["written"].data
        self._stage = state.turn["stage"].data
        self._addresses = compiled.addresses(state)
        self._few = _Few()
        self.inspect = Inspect(state)

    def apply(self, commands: NDArray[Any], time_ns: int) -> Result:
        """Apply commands in order at a time. Whatever is wrong with one of them is its outcome, never an exception."""
        if self._stage[0]:
            raise EngineError("a call before was broken off in the middle of a command: expected a restored engine")
        commands = _readable(commands)
        count = len(commands)
        hashes = np.empty(count, np.uint64)
        outcomes: NDArray[Any]
        events: NDArray[Any]
        if count > FEW_COMMANDS:
            outcomes = np.ndarray(count, OUTCOME, np.empty(count * OUTCOME_WORDS, np.uint64))
            words = np.empty(max(EVENTS_PER_COMMAND * count, LEAST_EVENTS) * EVENT_WORDS, np.uint64)
            parts = self._events_of(commands, 0, time_ns, outcomes, words, hashes)
            return Result(outcomes, _joined(parts), hashes)
        outcomes = np.ndarray(count, OUTCOME, bytearray(count * OUTCOME.itemsize))
        few = self._few
        done = compiled.call(
            self._state, self._addresses, commands, 0, time_ns, outcomes, few.events, few.words, hashes
        )
        if done == count:
            written = self._written[0]
            events = np.ndarray(written, EVENT, bytearray(few.bytes[: written * EVENT.itemsize]))
        else:
            parts = []
            more = self._make_room(few.words, count - done, parts)
            # The buffer is the engine's own: what is handed out of it is a copy.
            parts = [parts[0].copy(), *self._events_of(commands, done, time_ns, outcomes, more, hashes)]
            events = _joined(parts)
        return Result(outcomes, events, hashes)

    def _events_of(
        self,
        commands: NDArray[Any],
        done: int,
        time_ns: int,
        outcomes: NDArray[Any],
        words: Words,
        hashes: NDArray[np.uint64],
    ) -> list[Words]:
        """Apply commands from number `done` on, with as many more buffers for their events as that takes."""
        count = len(commands)
        parts: list[Words] = []
        while True:
            events: NDArray[Any] = np.ndarray(len(words) // EVENT_WORDS, EVENT, words)
            done = compiled.call(self._state, self._addresses, commands, done, time_ns, outcomes, events, words, hashes)
            if done == count:
                parts.append(words[: self._written[0] * EVENT_WORDS])
                return parts
            words = self._make_room(words, count - done, parts)

    def _make_room(self, words: Words, commands: int, parts: list[Words]) -> Words:
        """A buffer for the events of so many commands more, and larger tables if it was they that were too small.

        Events of commands that are done go to the parts; those of one that is done in part, to the buffer's beginning.
        """
        needed, written, first = (int(self._turn[name]) for name in ("needed", "written", "first"))
        if needed == 0:
            self._grow()
        if self._turn["stage"] == 0:
            first = written
        parts.append(words[: first * EVENT_WORDS])
        carried = written - first
        # Several times what there is, so that a long cascade is seldom carried. What is not written takes no memory.
        wanted = max(EVENTS_PER_COMMAND * commands, 4 * carried + needed, LEAST_EVENTS)
        more = np.empty((max(wanted, UNTOUCHED) if wanted >= LONG else wanted) * EVENT_WORDS, np.uint64)
        more[: carried * EVENT_WORDS] = words[first * EVENT_WORDS : written * EVENT_WORDS]
        self._turn["written"] = carried
        self._turn["first"] = 0
        return more

    def _grow(self) -> None:
        grown = grow(self._state)
        index_build.fill_grown(self._state, grown)
        self._adopt(grown)

    @property
    def sequence(self) -> int:
        """The sequence of the last command applied."""
        return int(self._core["command_sequence"])

    @property
    def event_sequence(self) -> int:
        return int(self._core["event_sequence"])

    @property
    def match_sequence(self) -> int:
        return int(self._core["match_sequence"])

    @property
    def trade_count(self) -> int:
        """Trades since the beginning: every match has a number, without gaps."""
        return self.match_sequence

    @property
    def time_ns(self) -> int:
        return int(self._core["time_ns"])

    @property
    def next_expiry_ns(self) -> int | None:
        """See inspect.next_expiry_ns: the node's leader sends a TICK then."""
        return self.inspect.next_expiry_ns

    @property
    def killed(self) -> bool:
        return self.inspect.killed

    @property
    def state_hash(self) -> int:
        """The hash after the last command; 0 at the beginning."""
        return int(self._core["state_hash"])

    def content_digest(self) -> int:
        """The digest of the records as it was kept from command to command."""
        return full_hash.incremental(self._state)

    def content_digest_from_scratch(self) -> int:
        """The digest of the records as they are."""
        return full_hash.from_scratch(self._state)

    def hash_at(self, sequence: int) -> int | None:
        """The state hash after a command; None if it is not among the last 65,536, or not applied yet."""
        hashes = self.hashes_between(sequence, sequence)
        return None if hashes is None else int(hashes[0])

    def hashes_between(self, first: int, last: int) -> NDArray[np.uint64] | None:
        """The state hashes after the commands first to last, both included; None if one of them is not kept."""
        newest = self.sequence
        if not newest + 1 - snapshot.kept_hashes(newest) <= first <= last <= newest:
            return None
        hashes: NDArray[np.uint64] = self._state.ring[np.arange(first, last + 1) & (RING_SIZE - 1)]
        return hashes

    def snapshot(self) -> bytes:
        """The whole state as bytes; `restore` makes an engine of them that goes on as this one would."""
        return b"".join(self.snapshot_pieces())

    def snapshot_pieces(self) -> list[bytes | memoryview]:
        """The bytes of `snapshot` in pieces that show the state as it is when they are read."""
        if not self._core["hashing"]:
            raise EngineError("an engine without hashes cannot be saved: nothing would prove what is restored")
        if not self._core["ledger"]:
            raise EngineError("an engine without a ledger cannot be saved: its orders hold nothing")
        if not self._core["reporting"]:
            raise EngineError("an engine without reports cannot be saved: its events have gaps")
        return snapshot.pieces(self._state)

    def beside_snapshots(self) -> list[NDArray[Any]]:
        """The arrays that `snapshot_pieces` neither shows nor reads: they are made again from the others."""
        return [getattr(self._state, name) for name in snapshot.LEFT_OUT]

    @classmethod
    def restore(cls, data: bytes | memoryview) -> "Engine":
        """The engine that a snapshot was taken of. SnapshotError, in one sentence, if the bytes are not one."""
        engine = cls.__new__(cls)
        engine._adopt(snapshot.load(data))
        return engine

    def check_invariants(self) -> list[str]:
        """What should always hold and does not; see invariants.py."""
        return invariants.broken(self._state)

    def scrub(self, start: int, records: int) -> tuple[int, str | None]:
        """Compare some records with the hashes kept of them; see rehash.scrub."""
        return full_hash.scrub(self._state, start, records)

    def corrupt_balance(self, account: int, asset: int, delta: int) -> bool:
        """For tests of what notices it: change what is available behind the digest's back. False if there is no such
        balance."""
        rows = self._state.balances
        slots = np.flatnonzero((rows["live"] != 0) & (rows["account_id"] == account) & (rows["asset_id"] == asset))
        if len(slots):
            rows["available"][slots[0]] += delta
        return bool(len(slots))


def warm_up() -> None:
    """Compile the engine, or load what was compiled before (entry.compiled_before tells which)."""
    Engine().apply(np.zeros(1, COMMAND), 0)


def _open_venue_account(state: State) -> None:
    """Account 0, the venue's own, is there from the beginning."""
    account = state.accounts[1:2]
    account["status"] = AccountStatus.ACTIVE
    account["live"] = 1
    state.pools["top"][ACCOUNTS] = 2
    state.pools["live"][ACCOUNTS] = 1
    index_build.fill(state, ACCOUNTS)
    if state.core["hashing"][0]:
        account["hash"] = full_hash.record_hashes(state, "accounts", account)
        state.core["digest"] = account["hash"]


def _joined(parts: list[Words]) -> NDArray[Any]:
    """Events one after the other, in memory of their size; or as they are where that is little more than they need."""
    # A buffer that turned out too small for the next command holds nothing: what is large need not be copied for it.
    (first, *more) = [part for part in parts if len(part)] or parts[:1]
    room = len(first.base) if first.base is not None else len(first)
    if more:
        first = np.concatenate([first, *more])
    elif len(first) * SPARSE < room and (len(first) * SPARSE < LONG * EVENT_WORDS or room < UNTOUCHED * EVENT_WORDS):
        first = first.copy()
    return np.ndarray(len(first) // EVENT_WORDS, EVENT, first)


def _readable(commands: NDArray[Any]) -> NDArray[Any]:
    """The commands as the one type the entry point is compiled for: read only, without gaps."""
    if commands.ndim != 1 or commands.dtype.itemsize != COMMAND.itemsize:
        raise EngineError(
            f"commands: expected one dimension of COMMAND records, found {commands.ndim} of {commands.dtype}"
        )
    if commands.dtype is not COMMAND or not commands.flags.c_contiguous:
        commands = np.ascontiguousarray(commands).view(COMMAND)
    view = commands[:]
    view.setflags(write=False)
    return view
