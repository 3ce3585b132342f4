"""`smrx settle verify --log`: compare what settlement stored with what the log of one node gives.

An auditor has a node's data directory and no cluster. The state machine replays the journal and passes every trade to
this, one by one, in order, and then every other event. Each sink must hold the same trades, movements of money and
definitions, each once, and no others; the books of the checkpoint must be the balances and open orders of the state
there; and the rows of the sinks must add up to those books. Reading the log and running the engine is the caller's part
(see LogAudit).

Reads only. Raises LogDifference, BalanceDifference, Violation, SinkMismatch, SinkError.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from smrx.config import Config
from smrx.settlement.image_books import books_of, rows_of
from smrx.settlement.readers import Reader, open_readers
from smrx.settlement.reverify import Verified, compare_books, from_sinks, stored_books
from smrx.settlement.settlement_errors import LogDifference
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import Catalogue, Rows, Tables, extract, symbol_text
from smrx.wire.codes import EventKind
from smrx.wire.record_words import record_words
from smrx.wire.records import EVENT
from smrx.wire.state_image import StateImage

#: Trades compared at a time; one by one would cost several times as much.
_PIECE: Final = 4096


class LogAudit:
    """One comparison of everything that is stored with one log.

    Call in this order: take_state() for each of `attested`, take_trade() for trades first_trade..last_trade,
    take_events() for the events from first_event on, finish().
    """

    def __init__(self, config: Config, log: str, first_trade: int | None = None) -> None:
        """Open the books and every sink; `log` names the log, trades before `first_trade` are not compared."""
        self._config = config
        self._log = log
        stored = stored_books(config)
        self._books, self._checkpoint, self._origin = stored.books, stored.checkpoint, stored.checkpoint.origin
        begin = 1 if self._origin is None else self._origin.match_id + 1
        self.first_trade = max(begin, first_trade or begin)
        #: Movements and definitions are compared from this event on; if trades are left out, from the first compared.
        self.first_event = 1 if self._origin is None else self._origin.event_sequence + 1
        self._leaves_out = self.first_trade > begin
        self._states: dict[int, StateImage] = {}
        self._catalogue = Catalogue()
        self._pending = np.empty(_PIECE, EVENT)
        self._count = 0
        self._taken = self.first_trade - 1
        self._readers = open_readers(config)
        self._sinks = [_Stored(name, reader, self.first_trade) for name, reader in self._readers]

    def close(self) -> None:
        """Close the sinks; may be called twice."""
        readers, self._readers = self._readers, []
        for _, reader in readers:
            reader.close()

    @property
    def attested(self) -> dict[int, int]:
        """The commands after which the state of the log is needed, and the hashes a majority claimed; 0: unknown.

        They are the last command of the books, and that of the furthest sink.
        """
        held = [self._checkpoint, *(sink.checkpoint for sink in self._sinks)]
        hashes = {checkpoint.command_sequence: checkpoint.state_hash for checkpoint in reversed(held)}
        return {command: hashes[command] for command in sorted({self._checkpoint.command_sequence, max(hashes)})}

    @property
    def last_trade(self) -> int:
        """The last trade that any of the sinks holds."""
        return max([self._checkpoint.match_id, *(sink.checkpoint.match_id for sink in self._sinks)])

    def take_state(self, command: int, state: StateImage) -> None:
        """Take the state of the log just after one of the commands of `attested`."""
        self._states[command] = state
        self._catalogue.add(rows_of(state).definitions)

    def take_trade(self, event: np.void) -> bool:
        """Take the next TRADE event of the log; True for more. Raises LogDifference."""
        self._pending[self._count] = event
        self._count += 1
        self._taken = int(event["match_id"])
        if self._leaves_out and self._taken == self.first_trade:
            self.first_event = int(event["sequence"])
        if self._count == _PIECE or self._taken == self.last_trade:
            self._compare()
        return self._taken < self.last_trade

    def take_events(self, events: Rows) -> bool:
        """Take events of the log from `first_event` on, in order; True for more. Raises LogDifference."""
        self._end_trades()
        tables = extract(events[events["kind"] != int(EventKind.TRADE)], Catalogue())
        last = int(events["sequence"][-1])
        for sink in self._sinks:
            sink.check_events(tables, self.first_event)
        return last < max(sink.checkpoint.event_sequence for sink in self._sinks)

    def finish(self) -> Verified:
        """Compare the ends, definitions, balances, and what the sinks' rows add up to."""
        self._end_trades()
        for sink in self._sinks:
            sink.check_end(self.first_event)
            sink.check_definitions(self._catalogue)
        self._check_places()
        state = self._states[self._checkpoint.command_sequence]
        compare_books(books_of(state), self._books, "the log gives")
        # An LMDB environment can be opened only once in a process.
        self.close()
        found = from_sinks(self._config)
        found.source, found.log = "log", self._log
        found.first_trade = self.first_trade if self.first_trade <= self.last_trade else None
        return found

    def _end_trades(self) -> None:
        """Compare the last trades, and check that nothing is stored after them."""
        self._compare()
        for sink in self._sinks:
            sink.trades.check_end()

    def _compare(self) -> None:
        events, self._count = self._pending[: self._count], 0
        trades = extract(events, self._catalogue).trades
        for sink in self._sinks:
            sink.trades.check(trades)

    def _check_places(self) -> None:
        """Check that the log has the same event, trade and state hash at every checkpoint."""
        held = [("the books", self._checkpoint), *((sink.name, sink.checkpoint) for sink in self._sinks)]
        for name, checkpoint in held:
            state = self._states.get(checkpoint.command_sequence)
            if state is None:
                continue
            place = state.position
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
    """The rows of one sink, read along with the log."""

    def __init__(self, name: str, reader: Reader, first_trade: int) -> None:
        self.name = name
        #: An empty sink stands before event 1.
        self.checkpoint = reader.checkpoint or Checkpoint("", 0, 0, 0, 0)
        self._reader = reader
        self.trades = _Table(name, "trade", "match_id", reader.trades(), first_trade, self.checkpoint.match_id)
        self._others: tuple[_Table, _Table] | None = None

    def check_events(self, tables: Tables, first: int) -> None:
        """Compare the next movements and definitions of the log, from event `first` on, with those stored."""
        movements, definitions = self._from(first)
        movements.check(tables.movements)
        definitions.check(tables.definitions)

    def check_end(self, first_event: int) -> None:
        """Check that no movement and no definition is stored after those of the log."""
        for table in self._from(first_event):
            table.check_end()

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
                        f"{self.name}: {what} {identity} is stored as {_text(definition)}, the log has "
                        f"{_text(expected.get(identity))}"
                    )

    def _from(self, first: int) -> "tuple[_Table, _Table]":
        """Return the movements and definitions from an event on, opened one after the other."""
        if self._others is None:
            last = self.checkpoint.event_sequence
            definitions = iter([self._reader.definitions()])
            self._others = (
                _Table(self.name, "movement", "event_sequence", self._reader.movements(), first, last),
                _Table(self.name, "definition", "event_sequence", definitions, first, last),
            )
        return self._others


class _Table:
    """One table of a sink, in the order of its key, compared with the same rows of the log."""

    def __init__(self, sink: str, what: str, key: str, batches: Iterator[Rows], first: int, last: int) -> None:
        """Compare rows `first`..`last`, by key; messages name a row as `what` and its key."""
        self._sink, self._what, self._key = sink, what, key
        self._batches = batches
        self._first, self._last = first, last
        self._rows: Rows | None = None
        self._skipping = True
        self._seen = 0  #: the last row that is equal to the log's

    def check(self, derived: Rows) -> None:
        """Compare the next rows of the log with the next stored ones. Raises LogDifference for the first difference."""
        derived = derived[derived[self._key] <= self._last]
        while len(derived):
            # Rows already read are compared first: a fault in them may make the next ones unreadable.
            stored = self._next()
            if stored is None:
                raise LogDifference(self._missing(int(derived[0][self._key]), None))
            both = min(len(stored), len(derived))
            differs = (record_words(stored[:both]) != record_words(derived[:both])).any(axis=1)
            at = int(differs.argmax()) if differs.any() else both
            if at:
                self._seen = int(derived[at - 1][self._key])
            if at < both:
                raise LogDifference(self._difference(stored[at], derived[at]))
            self._rows, derived = stored[both:], derived[both:]

    def check_end(self) -> None:
        """Check that nothing is stored after the last row of the log. Raises LogDifference."""
        rest = self._next()
        if rest is not None:
            raise LogDifference(self._extra(int(rest[0][self._key])))

    def _next(self) -> Rows | None:
        """Return the next stored rows, at least one, from the first to compare on; None at the end."""
        while self._rows is None or not len(self._rows):
            self._rows = next(self._batches, None)
            if self._rows is None:
                return None
            if self._skipping:
                self._rows = self._rows[int(np.count_nonzero(self._rows[self._key] < self._first)) :]
                self._skipping = not len(self._rows)
        return self._rows

    def _difference(self, stored: np.void, derived: np.void) -> str:
        """Describe how a stored row differs from the log's."""
        found, expected = int(stored[self._key]), int(derived[self._key])
        if found > expected:
            return self._missing(expected, found)
        if found < expected:
            return self._extra(found)
        column = next(name for name in stored.dtype.names or () if stored[name] != derived[name])
        return (
            f"{self._named(found)} (event {int(derived['event_sequence'])}) differs: {column} "
            f"{_cell(stored[column])} is stored, the log gives {_cell(derived[column])}"
        )

    def _missing(self, expected: int, found: int | None) -> str:
        follows = "nothing" if found is None else f"{self._what} {found}"
        after = f" after {self._what} {self._seen}" if self._seen else ""
        return f"{self._named(expected)} of the log is missing: {follows} follows{after}"

    def _extra(self, found: int) -> str:
        if found <= self._seen:
            return f"{self._named(found)} is stored twice: it stands again after {self._what} {self._seen}"
        after = f": it stands after {self._what} {self._seen}" if self._seen else ""
        return f"{self._named(found)} is stored and is none of the log's{after}"

    def _named(self, number: int) -> str:
        return f"{self._sink}: {self._what} {number}"


def _cell(value: object) -> str:
    return symbol_text(value) if isinstance(value, bytes) else str(value)


def _text(definition: object) -> str:
    fields: Callable[[], dict[str, object]] | None = getattr(definition, "_asdict", None)
    return "none" if fields is None else ", ".join(f"{name} {value}" for name, value in fields().items())
