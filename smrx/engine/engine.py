"""Engine: apply commands, read the state, save and restore it.

Owns a State and the buffers around it, and grows what is too small. Never reads a clock, a file or a random number:
the same commands with the same time stamps give the same bytes on every machine. Called by the node, the tools, the
tests and the benchmarks.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine import index_build, snapshot
from smrx.engine.checks import full_hash, invariants, state_comparison
from smrx.engine.checks.state_comparison import RecordDifference
from smrx.engine.credential_record import Credential
from smrx.engine.engine_error import EngineError, RulesError
from smrx.engine.index_growth import IndexGrowth
from smrx.engine.inspect import Inspect
from smrx.engine.kernels import compiled
from smrx.engine.kernels.rules_version import NEWEST_RULES, OLDEST_RULES
from smrx.engine.state import ACCOUNTS, BALANCES, RING_SIZE, State, allocate, grow, growing_memory
from smrx.wire.codes import AccountStatus
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, EVENT, OUTCOME

#: Events that a buffer has space for, for each command and at least: twice what a busy market causes. A buffer goes to
#: the caller; its unused part takes no memory. A batch that needs more gets another buffer.
EVENTS_PER_COMMAND: Final = 4
MIN_BUFFER_EVENTS: Final = 64
#: A buffer that is filled to less than one part in so many is copied: a caller that keeps one event would keep it all.
MIN_BUFFER_USE: Final = 8
#: A command that needs a buffer of so many events, 2 MiB, gets one of LARGE_BUFFER_EVENTS at once, which is above
#: 32 MiB. The allocator takes a buffer of that size from the operating system each time: its unwritten part takes no
#: memory, and the written part comes in huge pages. Between the two sizes it would come in hundreds of small pages,
#: which is a third of the cost of a long sweep.
LARGE_CASCADE_EVENTS: Final = 1 << 14
LARGE_BUFFER_EVENTS: Final = (1 << 18) + 1
EVENT_WORDS: Final = EVENT.itemsize // 8
OUTCOME_WORDS: Final = OUTCOME.itemsize // 8
#: Balances that one call of balance_digest compares with their hashes: a quarter of a millisecond.
CHECKED_BALANCES: Final = 1 << 14
#: The results of calls with no more commands than this are parts of arrays for several calls: for one command, making
#: an array costs more than applying it.
SMALL_BATCH_COMMANDS: Final = 64


#: Events as u64 words: NumPy makes arrays of words five times faster than arrays of records, and copies them forty
#: times faster.
Words = NDArray[np.uint64]


class Result(NamedTuple):
    """What a batch of commands caused. The arrays belong to the caller."""

    outcomes: NDArray[Any]
    events: NDArray[Any]
    hashes: NDArray[np.uint64]


#: NamedTuple's own __new__ is a function in Python.
_new_tuple: Any = tuple.__new__


class _SmallResults:
    """Arrays for the results of small batches, 48 KiB: a caller that keeps one of these keeps as much memory."""

    def __init__(self) -> None:
        #: A batch begins where its commands may write so many events each, and MIN_BUFFER_EVENTS more.
        self.events_per_command = EVENTS_PER_COMMAND
        self.capacity = EVENTS_PER_COMMAND * SMALL_BATCH_COMMANDS
        events = self.capacity + MIN_BUFFER_EVENTS
        self.buffers = compiled.Buffers(
            np.empty(SMALL_BATCH_COMMANDS * OUTCOME_WORDS, np.uint64),
            np.empty(SMALL_BATCH_COMMANDS, np.uint64),
            np.empty(events * EVENT_WORDS, np.uint64),
        )
        self.events: NDArray[Any] = np.ndarray(events, EVENT, self.buffers.events)
        self.outcomes: NDArray[Any] = np.ndarray(SMALL_BATCH_COMMANDS, OUTCOME, self.buffers.outcomes)
        self.hashes = self.buffers.hashes
        #: Outcomes and events that belong to callers.
        self.used = 0
        self.written = 0


class Engine:
    """The exchange's state machine."""

    #: The versions of the rules that this engine can apply, both included.
    oldest_rules = OLDEST_RULES
    newest_rules = NEWEST_RULES

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
        credentials: int = 64,
        rules: int = NEWEST_RULES,
        hash: bool = True,
        ledger: bool = True,
        reports: bool = True,
    ) -> None:
        """Make an empty exchange. Sizes are initial sizes: every table grows. Without `hash` there is no state hash.

        It begins with a version of the rules: FIRST_RULES is what the log of a cluster begins with. Raises RulesError
        for a version that this program cannot apply.

        Without `ledger` orders hold, pay and need no money, and open notionals are not limited. Without `reports` only
        trades are reported, no events of orders. Both serve comparisons with order books that have neither.
        """
        sizes = {
            "orders": orders, "levels": levels, "nodes": levels, "accounts": accounts, "balances": balances,
            "sessions": sessions, "instruments": instruments, "assets": assets, "transfers": transfers,
            "order_details": orders, "credentials": credentials,
        }  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise EngineError(f"{name}: expected an initial size of 1 or more, found {size}")
        if not self.oldest_rules <= rules <= self.newest_rules:
            raise RulesError(rules_fault(rules, self.oldest_rules, self.newest_rules))
        state = allocate(sizes)
        state.core["rules_version"] = rules
        state.core["hashing"] = hash
        state.core["ledger"] = ledger
        state.core["reporting"] = reports
        _add_venue_account(state)
        self._adopt(state)

    #: Where balance_digest() goes on, and what it found wrong, by first slot.
    _next_checked = 0
    _damage: Mapping[int, tuple[int, int]] = MappingProxyType({})

    #: The version of the rules that the last call found in force, and could apply.
    _checked_rules = 0

    #: The indexes that are being made larger.
    _growing: Sequence[IndexGrowth] = ()

    def _adopt(self, state: State) -> None:
        """Make a state this engine's own."""
        self._state = state
        self._core = state.core[0]
        self._turn = state.turn[0]
        # Reading an item of a memoryview takes a tenth of the time of reading a field of a record.
        self._written = state.turn["written"].data
        self._stage = state.turn["stage"].data
        self._rules_version = state.core["rules_version"].data
        self._small_results = _SmallResults()
        self._apply_small = compiled.ApplyCall(state)
        self._apply_small.use_buffers(self._small_results.buffers)
        self._apply_large = compiled.ApplyCall(state)
        self.inspect = Inspect(state, compiled.addresses(state, NO_DETAILS))
        self._growing_memory = growing_memory(state)

    def growing_memory(self) -> list[tuple[NDArray[np.uint8], int]]:
        """Return the memory that more records will take, and how many bytes from its start on are in use."""
        tops = self._state.pools["top"].tolist()
        return [(memory, tops[number] * size) for number, memory, size in self._growing_memory]

    def apply(self, commands: NDArray[Any], time_ns: int, details: NDArray[Any] = NO_DETAILS) -> Result:
        """Apply commands in order at a time. A bad command gets a REJECTED outcome and never raises.

        `details` are the records that the commands name by number, see records.py.

        Raises RulesError if a SET_VERSION among them switched to a version that this program cannot apply. Then the
        engine is not usable: it may have applied later commands by the wrong rules.
        """
        if self._stage[0]:
            raise EngineError(
                "an earlier call was interrupted in the middle of a command: restore the engine from a snapshot"
            )
        if commands.ndim != 1 or commands.itemsize != COMMAND_SIZE:
            found = f"{commands.ndim} of {commands.dtype}"
            raise EngineError(f"commands: expected one dimension of COMMAND records, found {found}")
        count = len(commands)
        if count > SMALL_BATCH_COMMANDS:
            return self._apply_many(commands, time_ns, details)
        call = self._apply_small
        if details is not call.details:
            call.use_details(_checked_details(details))
        results = self._small_results
        first, first_event = results.used, results.written
        end = first + count
        if end > SMALL_BATCH_COMMANDS or first_event + results.events_per_command * count > results.capacity:
            results = self._small_results = _SmallResults()
            call.use_buffers(results.buffers)
            first, first_event, end = 0, 0, count
        results.used = end
        try:
            done = call.run(commands, 0, time_ns, first, first_event)
        except TypeError:
            # Commands with gaps between them.
            commands = np.ascontiguousarray(commands)
            done = call.run(commands, 0, time_ns, first, first_event)
        if done < count:
            return self._continue_small(results, commands, first, first_event, done, time_ns)
        if self._rules_version[0] != self._checked_rules:
            self._check_rules()
        if self._growing:
            self._grow_indexes(count)
        end_event = results.written = first_event + self._written[0]
        events = results.events[first_event:end_event]
        result: Result = _new_tuple(Result, (results.outcomes[first:end], events, results.hashes[first:end]))
        return result

    def _continue_small(
        self, results: _SmallResults, commands: NDArray[Any], first: int, first_event: int, done: int, time_ns: int
    ) -> Result:
        """Apply the rest of a small batch that stopped, as a large one."""
        count, details = len(commands), self._apply_small.details
        outcomes, hashes, words = results.buffers
        outcomes = outcomes[first * OUTCOME_WORDS : (first + count) * OUTCOME_WORDS]
        hashes = hashes[first : first + count]
        parts: list[Words] = []
        words = self._continued_buffer(words[first_event * EVENT_WORDS :], count - done, parts)
        parts += self._apply_rest(commands, details, done, time_ns, compiled.Buffers(outcomes, hashes, words))
        # The arrays contain events that are copied to other ones.
        self._small_results = _SmallResults()
        self._apply_small.use_buffers(self._small_results.buffers)
        return self._checked_result(outcomes, parts, hashes)

    def _apply_many(self, commands: NDArray[Any], time_ns: int, details: NDArray[Any]) -> Result:
        """See apply."""
        count = len(commands)
        outcomes, hashes = np.empty(count * OUTCOME_WORDS, np.uint64), np.empty(count, np.uint64)
        words = np.empty(max(EVENTS_PER_COMMAND * count, MIN_BUFFER_EVENTS) * EVENT_WORDS, np.uint64)
        commands, details = np.ascontiguousarray(commands), _checked_details(details)
        parts = self._apply_rest(commands, details, 0, time_ns, compiled.Buffers(outcomes, hashes, words))
        return self._checked_result(outcomes, parts, hashes)

    def _checked_result(self, outcomes: Words, parts: list[Words], hashes: Words) -> Result:
        self._check_rules()
        count = len(hashes)
        if self._growing:
            self._grow_indexes(count)
        return Result(np.ndarray(count, OUTCOME, outcomes), _joined_events(parts), hashes)

    def _check_rules(self) -> None:
        """Raise RulesError if this program cannot apply the rules in force."""
        version = self._rules_version[0]
        if not self.oldest_rules <= version <= self.newest_rules:
            raise RulesError(rules_fault(version, self.oldest_rules, self.newest_rules))
        self._checked_rules = version

    def _apply_rest(
        self,
        commands: NDArray[Any],
        details: NDArray[Any],
        done: int,
        time_ns: int,
        buffers: compiled.Buffers,
    ) -> list[Words]:
        """Apply commands from number `done` on, with as many more events buffers as that takes."""
        count = len(commands)
        parts: list[Words] = []
        while True:
            # Growing the tables replaces the call.
            call = self._apply_large
            if details is not call.details:
                call.use_details(details)
            call.use_buffers(buffers)
            done = call.run(commands, done, time_ns, 0, 0)
            words = buffers.events
            if done == count:
                parts.append(words[: self._written[0] * EVENT_WORDS])
                return parts
            buffers = buffers._replace(events=self._continued_buffer(words, count - done, parts))

    def _continued_buffer(self, words: Words, commands: int, parts: list[Words]) -> Words:
        """Return a buffer for the events of so many more commands, and grow the tables if they were too small.

        The events of finished commands go to `parts`; those of an unfinished command, to the start of the new buffer.
        """
        needed, written, first = (int(self._turn[name]) for name in ("needed", "written", "first"))
        if needed == 0:
            self._grow()
        if self._turn["stage"] == 0:
            first = written
        parts.append(words[: first * EVENT_WORDS])
        carried = written - first
        # Several times the present size, so that a long cascade is seldom copied. The unwritten part takes no memory.
        wanted = max(EVENTS_PER_COMMAND * commands, 4 * carried + needed, MIN_BUFFER_EVENTS)
        more = np.empty(
            (max(wanted, LARGE_BUFFER_EVENTS) if wanted >= LARGE_CASCADE_EVENTS else wanted) * EVENT_WORDS, np.uint64
        )
        more[: carried * EVENT_WORDS] = words[first * EVENT_WORDS : written * EVENT_WORDS]
        self._turn["written"] = carried
        self._turn["first"] = 0
        return more

    def _grow(self) -> None:
        """Double the tables that are full. Their indexes follow a little at a time, see index_growth.py."""
        grown = grow(self._state)
        index_build.fill_replaced(self._state, grown.state)
        more = [IndexGrowth(grown.state, number, index, size) for number, index, size in grown.indexes]
        names = {growth.index for growth in more}
        for growth in self._growing:
            if growth.index in names:
                growth.finish(self._state)
        self._growing = [*(growth for growth in self._growing if growth.index not in names), *more]
        self._adopt(grown.state)

    def _grow_indexes(self, commands: int) -> None:
        """Continue to make indexes larger, after a call that applied so many commands."""
        used = sum(growth.is_used for growth in self._growing)
        left = [growth for growth in self._growing if growth.step(self._state, commands)]
        if sum(growth.is_used for growth in self._growing) != used:
            self._apply_small.use_state()
            self._apply_large.use_state()
            self.inspect = Inspect(self._state, compiled.addresses(self._state, NO_DETAILS))
        self._growing = left

    @property
    def sequence(self) -> int:
        """The sequence of the last command applied."""
        return int(self._core["command_sequence"])

    @property
    def event_sequence(self) -> int:
        """The sequence of the last event."""
        return int(self._core["event_sequence"])

    @property
    def match_sequence(self) -> int:
        """The number of the last match."""
        return int(self._core["match_sequence"])

    @property
    def trade_count(self) -> int:
        """The number of trades so far: matches are numbered without gaps."""
        return self.match_sequence

    @property
    def time_ns(self) -> int:
        """The engine's time, in nanoseconds."""
        return int(self._core["time_ns"])

    @property
    def next_expiry_ns(self) -> int | None:
        """See Inspect.next_expiry_ns: the leader logs a TICK then."""
        return self.inspect.next_expiry_ns

    @property
    def rules_version(self) -> int:
        """The version of the rules in force: it applies to the next command."""
        return int(self._rules_version[0])

    @property
    def killed(self) -> bool:
        """Whether the kill switch is on."""
        return self.inspect.killed

    def credential(self, number: int) -> Credential | None:
        """Return the credential with a number, in a time that does not depend on how many there are."""
        return self.inspect.credential(number)

    def credential_of_key(self, key: bytes) -> Credential | None:
        """Return the credential to which a public key of 32 bytes belongs, also if it is revoked, in the same time."""
        return self.inspect.credential_of_key(key)

    def account_firm(self, account: int) -> int | None:
        """Return the firm of an account, 0 for none; None for an unknown account."""
        return self.inspect.account_firm(account)

    @property
    def state_hash(self) -> int:
        """The state hash after the last command; 0 before the first."""
        return int(self._core["state_hash"])

    def content_hash(self) -> int:
        """Return the sum of the hashes of all records and counters, as it is maintained from command to command."""
        return full_hash.maintained(self._state)

    def recompute_content_hash(self) -> int:
        """Return the same sum, computed from the records."""
        return full_hash.recomputed(self._state)

    def balance_digest(self) -> tuple[int, int]:
        """Return the number of balances that are not zero and the sum of their hashes (wire/balance_digest.py).

        Both are maintained from command to command. Each call also compares CHECKED_BALANCES balances with their
        hashes, others each time, and what differs counts as it is: so damage to memory shows, at the latest after a
        call for each so many balances.
        """
        top = int(self._state.pools["top"][BALANCES])
        first = self._next_checked if self._next_checked < top else 0
        self._next_checked = last = min(first + CHECKED_BALANCES, top)
        found = self.inspect.balance_damage(first, last)
        if any(found) or first in self._damage:
            self._damage = {**self._damage, first: found}
        damage = self._damage.values()
        count = int(self._core["funded_balances"]) + sum(count for count, _ in damage)
        total = int(self._core["balance_sum"]) - int(self._core["empty_sum"]) + sum(total for _, total in damage)
        return count, total % (1 << 64)

    def hash_at(self, sequence: int) -> int | None:
        """Return the state hash after a command; None if it is not among the last 65,536, or not applied yet."""
        hashes = self.hashes_between(sequence, sequence)
        return None if hashes is None else int(hashes[0])

    def hashes_between(self, first: int, last: int) -> NDArray[np.uint64] | None:
        """Return the state hashes after the commands first to last, both included; None if one is not kept."""
        newest = self.sequence
        if not newest + 1 - snapshot.kept_hashes(newest) <= first <= last <= newest:
            return None
        hashes: NDArray[np.uint64] = self._state.ring[np.arange(first, last + 1) & (RING_SIZE - 1)]
        return hashes

    def snapshot(self) -> bytes:
        """Return the state as bytes; `restore` makes an engine of them that continues as this one would."""
        return b"".join(self.snapshot_pieces())

    def snapshot_pieces(self) -> list[bytes | memoryview]:
        """Return the bytes of `snapshot` in pieces that are views of the state: they change with it."""
        if not self._core["hashing"]:
            raise EngineError("an engine without hashes cannot be saved: a restore could not be verified")
        if not self._core["ledger"]:
            raise EngineError("an engine without a ledger cannot be saved: its orders hold nothing")
        if not self._core["reporting"]:
            raise EngineError("an engine without order reports cannot be saved: its events have gaps")
        return snapshot.pieces(self._state)

    def arrays_outside_snapshot(self) -> list[NDArray[Any]]:
        """Return the arrays that `snapshot_pieces` neither shows nor reads: a restore rebuilds them."""
        return [getattr(self._state, name) for name in snapshot.NOT_STORED]

    @classmethod
    def restore(cls, data: bytes | memoryview) -> "Engine":
        """Return the engine that a snapshot was taken of.

        Raises SnapshotError if the bytes are not a snapshot; RulesError if the rules in force are a version that this
        program cannot apply.
        """
        version = snapshot.rules_version(data)
        if not cls.oldest_rules <= version <= cls.newest_rules:
            raise RulesError(rules_fault(version, cls.oldest_rules, cls.newest_rules))
        engine = cls.__new__(cls)
        engine._adopt(snapshot.load(data))
        engine._check_rules()
        return engine

    def assume_rules(self, version: int) -> None:
        """Apply another version of the rules from the next command on, without a command that switches to it.

        For a shadow that tries new rules on the log of a cluster: its state hashes differ from then on. Raises
        RulesError for a version that this program cannot apply.
        """
        if not self.oldest_rules <= version <= self.newest_rules:
            raise RulesError(rules_fault(version, self.oldest_rules, self.newest_rules))
        self._state.core["rules_version"] = version

    def differing_records(self, other: "Engine", limit: int) -> list[RecordDifference]:
        """Return up to `limit` records that differ between two engines; see checks/state_comparison.py."""
        return state_comparison.differing_records(self._state, other._state, limit)

    def check_invariants(self) -> list[str]:
        """Return the invariants that do not hold, one sentence each; see checks/invariants.py."""
        return invariants.violations(self._state)

    def scrub(self, start: int, records: int) -> tuple[int, str | None]:
        """Compare some records with their stored hashes; see full_hash.scrub."""
        return full_hash.scrub(self._state, start, records)

    def corrupt_balance(self, account: int, asset: int, delta: int) -> bool:
        """Change an available balance without updating its hash, for tests of corruption checks.

        False if there is no such balance.
        """
        rows = self._state.balances
        slots = np.flatnonzero((rows["live"] != 0) & (rows["account_id"] == account) & (rows["asset_id"] == asset))
        if len(slots):
            rows["available"][slots[0]] += delta
        return bool(len(slots))


def rules_fault(version: int, oldest: int, newest: int) -> str:
    """Return the sentence for an operator whose program lacks the version of the rules in force."""
    known = f"version {oldest} only" if oldest == newest else f"versions {oldest} to {newest}"
    program = "a newer program" if version > newest else "an older program"
    return f"version {version} of the rules is in force, and this program applies {known}; run {program} on this node"


def warm_up() -> None:
    """Compile the engine, or load the compiled code (compiled_before tells which)."""
    engine = Engine()
    engine.apply(np.zeros(1, COMMAND), 0)
    engine.inspect.warm_up()


def _add_venue_account(state: State) -> None:
    """Add account 0, the venue's own, which always exists."""
    account = state.accounts[1:2]
    account["status"] = AccountStatus.ACTIVE
    account["live"] = 1
    state.pools["top"][ACCOUNTS] = 2
    state.pools["live"][ACCOUNTS] = 1
    index_build.fill(state, ACCOUNTS)
    if state.core["hashing"][0]:
        account["hash"] = full_hash.record_hashes(state, "accounts", account)
        state.core["digest"] = account["hash"] + np.uint64(full_hash.retention(state))


def _joined_events(parts: list[Words]) -> NDArray[Any]:
    """Join events in memory of their size; return one part as it is if its buffer is well filled."""
    # A buffer that was too small for the next command is empty: skip it, so that a large one need not be copied.
    (first, *more) = [part for part in parts if len(part)] or parts[:1]
    capacity = len(first.base) if first.base is not None else len(first)
    if more:
        first = np.concatenate([first, *more])
    elif len(first) * MIN_BUFFER_USE < capacity and (
        len(first) * MIN_BUFFER_USE < LARGE_CASCADE_EVENTS * EVENT_WORDS or capacity < LARGE_BUFFER_EVENTS * EVENT_WORDS
    ):
        first = first.copy()
    return np.ndarray(len(first) // EVENT_WORDS, EVENT, first)


def _checked_details(details: NDArray[Any]) -> NDArray[Any]:
    """Return details as a contiguous array."""
    if details.ndim != 1 or details.dtype.itemsize != DETAILS.itemsize:
        raise EngineError(
            f"details: expected one dimension of DETAILS records, found {details.ndim} of {details.dtype}"
        )
    return np.ascontiguousarray(details)
