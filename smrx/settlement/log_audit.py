"""`smrx settle verify --log`: what settlement stored, against what the log of one node leads to.

An auditor has a node's data directory and no cluster: the state machine does everything of its journal once more, and
hands every trade to this, one by one, in order. Each sink must hold the same trades, each once, none besides; the books
of the checkpoint must be the balances and open orders of the state they stand at; and what the sinks hold must add up
to those books. The log and the engine are not looked at from here: whoever has them composes the two (see LogAudit).

Reads only. Raises LogDifference, BalanceDifference, Violation, SinkMismatch, SinkError.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from smrx.config import Config
from smrx.engine.records import EVENT
from smrx.feed.ring import words
from smrx.settlement.errors import LogDifference
from smrx.settlement.opening import books_of, rows_of
from smrx.settlement.readers import Reader, open_readers
from smrx.settlement.sinks.base import Checkpoint
from smrx.settlement.sinks.rows import TRADE_ROW, Catalogue, Rows, extract
from smrx.settlement.verify import Verified, compare_books, from_sinks, stored_books
from smrx.wire.opening import Opening

#: Trades compared at a time: one by one they would cost several times as much.
_PIECE: Final = 4096


class LogAudit:
    """One comparison of everything that is stored with one log.

    In this order: take_state() for each of `attested`, take_trade() for trades first_trade..last_trade, finish().
    """

    def __init__(self, config: Config, log: str, first_trade: int | None = None) -> None:
        """Open the books and every sink; `log` names the log, trades before `first_trade` are not compared."""
        self._config = config
        self._log = log
        stored = stored_books(config)
        self._books, self._checkpoint, self._origin = stored.books, stored.checkpoint, stored.checkpoint.origin
        begin = 1 if self._origin is None else self._origin.match_id + 1
        self.first_trade = max(begin, first_trade or begin)
        self._states: dict[int, Opening] = {}
        self._catalogue = Catalogue()
        self._pending = np.empty(_PIECE, EVENT)
        self._count = 0
        self._taken = self.first_trade - 1
        self._readers = open_readers(config)
        self._sinks = [_Stored(name, reader, self.first_trade) for name, reader in self._readers]

    def close(self) -> None:
        """Let go of the sinks; may be called twice."""
        readers, self._readers = self._readers, []
        for _, reader in readers:
            reader.close()

    @property
    def attested(self) -> dict[int, int]:
        """The commands after which the state of the log is needed, and the hashes a majority claimed; 0: not known.

        Where the books stand, and where the furthest sink does.
        """
        held = [self._checkpoint, *(sink.checkpoint for sink in self._sinks)]
        hashes = {checkpoint.command_sequence: checkpoint.state_hash for checkpoint in reversed(held)}
        return {command: hashes[command] for command in sorted({self._checkpoint.command_sequence, max(hashes)})}

    @property
    def last_trade(self) -> int:
        """The last trade that any of the sinks holds."""
        return max([self._checkpoint.match_id, *(sink.checkpoint.match_id for sink in self._sinks)])

    def take_state(self, command: int, state: Opening) -> None:
        """Take the state of the log just after one of the commands of `attested`."""
        self._states[command] = state
        self._catalogue.add(rows_of(state).definitions)

    def take_trade(self, event: np.void) -> bool:
        """Take the next TRADE event of the log; True for more. Raises LogDifference."""
        self._pending[self._count] = event
        self._count += 1
        self._taken = int(event["match_id"])
        if self._count == _PIECE or self._taken == self.last_trade:
            self._compare()
        return self._taken < self.last_trade

    def finish(self) -> Verified:
        """Compare what is left: the ends, definitions, balances, and what the sinks' rows add up to."""
        self._compare()
        for sink in self._sinks:
            sink.check_end(self._taken)
            sink.check_definitions(self._catalogue)
        self._check_places()
        state = self._states[self._checkpoint.command_sequence]
        compare_books(books_of(state), self._books, "the log gives")
        # An LMDB environment is opened once in a process.
        self.close()
        found = from_sinks(self._config)
        found.source, found.log = "log", self._log
        found.first_trade = self.first_trade if self.first_trade <= self.last_trade else None
        return found

    def _compare(self) -> None:
        events, self._count = self._pending[: self._count], 0
        trades = extract(events, self._catalogue).trades
        for sink in self._sinks:
            sink.check(trades)

    def _check_places(self) -> None:
        """Check that the log had come to the same event, trade and state hash wherever a checkpoint was made."""
        held = [("the books", self._checkpoint), *((sink.name, sink.checkpoint) for sink in self._sinks)]
        for name, checkpoint in held:
            state = self._states.get(checkpoint.command_sequence)
            if state is None:
                continue
            place = state.place
            known = checkpoint.state_hash != 0
            for what, expected, found in (
                ("event", place.event_sequence, checkpoint.event_sequence),
                ("trade", place.match_id, checkpoint.match_id),
                ("state hash", f"{place.state_hash:016x}", f"{checkpoint.state_hash:016x}" if known else None),
            ):
                if found is not None and found != expected:
                    raise LogDifference(
                        f"{name}: the checkpoint after command {checkpoint.command_sequence} has {what} {found}, the "
                        f"log leads to {expected}"
                    )


class _Stored:
    """What one sink holds, read along with the log."""

    def __init__(self, name: str, reader: Reader, first_trade: int) -> None:
        self.name = name
        #: One that holds nothing stands before everything.
        self.checkpoint = reader.checkpoint or Checkpoint("", 0, 0, 0, 0)
        self._reader = reader
        self._first = first_trade
        self._batches: Iterator[Rows] = reader.trades()
        self._rows = np.empty(0, TRADE_ROW)
        self._skipping = True

    def check(self, derived: Rows) -> None:
        """Compare the next trades of the log with the next ones stored. Raises LogDifference for the first other."""
        derived = derived[derived["match_id"] <= self.checkpoint.match_id]
        while len(derived):
            # What is there is compared before more is read: what follows may be unreadable because of it.
            if not len(self._rows) and not self._read():
                raise LogDifference(self._missing(int(derived[0]["match_id"]), None))
            both = min(len(self._rows), len(derived))
            differs = (words(self._rows[:both]) != words(derived[:both])).any(axis=1)
            if differs.any():
                at = int(differs.argmax())
                raise LogDifference(self._difference(self._rows[at], derived[at]))
            self._rows, derived = self._rows[both:], derived[both:]

    def check_end(self, last: int) -> None:
        """Check that nothing is stored after the last trade of the log."""
        if len(self._rows) or self._read():
            raise LogDifference(self._beyond(int(self._rows[0]["match_id"]), last))

    def check_definitions(self, log: Catalogue) -> None:
        """Check that every asset and instrument stored is the log's."""
        stored = Catalogue()
        stored.add(self._reader.definitions())
        for what, found, expected in (
            ("asset", stored.assets, log.assets),
            ("instrument", stored.instruments, log.instruments),
        ):
            for identity, definition in found.items():
                if definition != expected.get(identity):
                    raise LogDifference(
                        f"{self.name}: {what} {identity} is stored as {_said(definition)}, the log has "
                        f"{_said(expected.get(identity))}"
                    )

    def _read(self) -> bool:
        """Read more rows, leaving out those before the first one that is compared; False at the end."""
        for rows in self._batches:
            self._rows = rows
            if self._skipping:
                self._rows = rows[int(np.count_nonzero(rows["match_id"] < self._first)) :]
            if len(self._rows):
                self._skipping = False
                return True
        return False

    def _difference(self, stored: np.void, derived: np.void) -> str:
        """Say what is wrong where a stored trade is not the log's."""
        found, expected = int(stored["match_id"]), int(derived["match_id"])
        if found > expected:
            return self._missing(expected, found)
        if found < expected:
            return self._doubled(found, expected)
        column = next(name for name in TRADE_ROW.names or () if stored[name] != derived[name])
        return (
            f"{self.name}: trade {found} (event {int(derived['event_sequence'])}) differs: {column} {stored[column]} "
            f"is stored, the log gives {derived[column]}"
        )

    def _missing(self, expected: int, found: int | None) -> str:
        after = "nothing follows" if found is None else f"trade {found} follows"
        return f"{self.name}: trade {expected} of the log is missing: {after} after trade {expected - 1}"

    def _doubled(self, found: int, expected: int) -> str:
        return f"{self.name}: trade {found} is stored twice: it stands where trade {expected} of the log is expected"

    def _beyond(self, found: int, last: int) -> str:
        if found <= last:
            return f"{self.name}: trade {found} is stored twice: it stands after trade {last}, the last one of the log"
        return f"{self.name}: trade {found} is stored and is none of the log's, which ends with trade {last} there"


def _said(definition: object) -> str:
    fields: Callable[[], dict[str, object]] | None = getattr(definition, "_asdict", None)
    return "none" if fields is None else ", ".join(f"{name} {value}" for name, value in fields().items())
