"""Proves that a cluster did with a tape what one engine does with it: outcome by outcome, event by event.

Both are made comparable first: an order is named by the command that placed it, and what depends on what happened
before or elsewhere (sequences, time, session) is left out. Called by `smrx replay --verify`.
"""

import time
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.engine_session import EngineLike, LocalSession
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import setup_failure
from smrx.wire.codes import EventKind, OutcomeStatus
from smrx.wire.records import EVENT

Records = NDArray[np.void]

#: Commands an engine gets at once here.
_PIECE: Final = 1 << 14
#: What an outcome says of its command alone.
_OUTCOME_COLUMNS: Final = ("status", "event_kind", "reason", "event_count", "cum_lots", "leaves_lots")
#: What an event says beside ids that depend on where it happened.
_EVENT_COLUMNS: Final = (
    "kind", "side", "order_type", "tif", "stp", "flags", "reason", "instrument", "account", "counter_account",
    "command_kind", "client_order_id", "price_ticks", "quantity_lots", "cum_lots", "leaves_lots",
)  # fmt: skip
#: Events of one type of difference that are described.
_DESCRIBED: Final = 5


class Feed(Protocol):
    """Where events come from; smrx.feed's Subscriber is one."""

    def poll(self, timeout: float, /) -> Records:
        """Return the next events in order, none after the timeout."""
        ...


class FeedSilent(Exception):
    """The feed stopped before the last event of the tape."""


class Reference(NamedTuple):
    """What one engine, alone, answers to a tape."""

    outcomes: Records
    events: Records
    engine: EngineLike


class Alone(msgspec.Struct, kw_only=True):
    """What one engine made of a generated tape, beside what its generator says of it."""

    commands: int
    refused: int
    trades: int
    #: None where the tape was cut short.
    trades_expected: int | None
    state_hash: str

    @property
    def proved(self) -> bool:
        """Whether every command was accepted and the trades are those the generator counted."""
        return self.refused == 0 and self.trades_expected in (None, self.trades)


class Proof(msgspec.Struct, kw_only=True):
    """What was compared and what differed."""

    outcomes_compared: int = 0
    #: Outcomes that were lost with a leader, so that only their events could be compared.
    outcomes_unknown: int = 0
    events_compared: int = 0
    trades_compared: int = 0
    differences: list[str] = []
    difference_count: int = 0

    @property
    def proved(self) -> bool:
        """Whether nothing differed."""
        return self.difference_count == 0


def reference(tape: Tape, engine: EngineLike | None = None) -> Reference:
    """Run a tape through an engine in this process (an empty one if none is given)."""
    session = LocalSession(engine)
    refused = setup_failure(tape.setup, session.apply(tape.setup).outcomes)
    if refused:
        raise ValueError(refused)
    outcomes, events = [], []
    for first in range(0, len(tape.commands), _PIECE):
        result = session.apply(tape.commands[first : first + _PIECE])
        outcomes.append(result.outcomes)
        events.append(result.events)
    return Reference(np.concatenate(outcomes), np.concatenate(events), session.engine)


def alone(tape: Tape) -> Alone:
    """Run a tape through a new engine and say what came of it."""
    found = reference(tape)
    return Alone(
        commands=len(tape.commands),
        refused=int((found.outcomes["status"] != OutcomeStatus.ACCEPTED).sum()),
        trades=int((found.events["kind"] == EventKind.TRADE).sum()),
        trades_expected=tape.trades if tape.trades >= 0 else None,
        state_hash=f"{found.engine.state_hash:016x}",
    )


def collect(feed: Feed, outcomes: Records, silence_seconds: float) -> Records:
    """Return the events of the outcomes' session, from a feed that starts at or before the first of them.

    Raises FeedSilent when nothing comes for `silence_seconds` and the last event has not been seen.
    """
    last = last_event(outcomes)
    session = outcomes["session_id"][0]
    kept = []
    heard = time.monotonic()
    reached = 0
    while reached < last:
        events = feed.poll(silence_seconds)
        if len(events):
            heard = time.monotonic()
            reached = int(events["sequence"][-1])
            kept.append(events[events["session_id"] == session])
        elif time.monotonic() - heard >= silence_seconds:
            raise FeedSilent(f"expected events up to {last}, found none after {reached} for {silence_seconds:g} s")
    return np.concatenate(kept)


def first_event(outcomes: Records) -> int:
    """Sequence of the first event of outcomes; 1 where none is known."""
    known = outcomes["first_event"][outcomes["first_event"] > 0]
    return int(known.min()) if len(known) else 1


def last_event(outcomes: Records) -> int:
    """Sequence of the last event of outcomes; 0 where none is known."""
    return int((outcomes["first_event"] + outcomes["event_count"]).max()) - 1 if len(outcomes) else 0


def compare(expected: Reference, outcomes: Records, events: Records | None) -> Proof:
    """Compare a cluster's outcomes, and its events if they were collected, with the reference."""
    proof = Proof()
    _compare_outcomes(proof, expected.outcomes, outcomes)
    if events is not None:
        _compare_events(proof, expected, outcomes, events)
    return proof


def _compare_outcomes(proof: Proof, expected: Records, found: Records) -> None:
    if len(expected) != len(found):
        _differ(proof, f"expected {len(expected)} outcomes, found {len(found)}")
        return
    known = found["status"] != OutcomeStatus.DUPLICATE
    proof.outcomes_unknown = int((~known).sum())
    proof.outcomes_compared = int(known.sum())
    wrong = np.zeros(len(found), dtype=bool)
    for column in _OUTCOME_COLUMNS:
        wrong |= known & (expected[column] != found[column])
    _describe(proof, "command", np.flatnonzero(wrong), expected, found, _OUTCOME_COLUMNS)


def _compare_events(proof: Proof, expected: Reference, outcomes: Records, events: Records) -> None:
    first_request = int(outcomes["request_id"][0])
    of_flow = events[(events["request_id"] >= first_request) & (events["request_id"] < first_request + len(outcomes))]
    left = _comparable(expected.events, int(expected.outcomes["request_id"][0]))
    right = _comparable(of_flow, first_request)
    proof.events_compared = len(right)
    proof.trades_compared = int((right["kind"] == EventKind.TRADE).sum())
    if len(left) != len(right):
        _differ(proof, f"expected {len(left)} events, found {len(right)}")
        return
    _describe(proof, "event", np.flatnonzero(left != right), left, right, left.dtype.names or ())


def _comparable(events: Records, first_request: int) -> Records:
    """Events with commands and orders numbered from the first command of the flow."""
    numbers = ("command", "order", "counter_order")
    found = np.zeros(
        len(events), dtype=[(name, "<i8") for name in numbers] + [(name, EVENT[name]) for name in _EVENT_COLUMNS]
    )
    for name in _EVENT_COLUMNS:
        found[name] = events[name]
    command = (events["request_id"] - np.uint64(first_request)).astype(np.int64)
    found["command"] = command
    new = events["kind"] == EventKind.NEW
    orders, placed_by = events["order_id"][new], command[new]
    for name, column in (("order", "order_id"), ("counter_order", "counter_order_id")):
        found[name] = _placed_by(events[column], orders, placed_by)
    return found


def _placed_by(ids: NDArray[np.uint64], orders: NDArray[np.uint64], placed_by: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the command that placed each order; -1 for no order, -2 for one the flow did not place."""
    found = np.full(len(ids), -2, dtype=np.int64)
    if len(orders):
        # Order ids grow with the commands, so NEW events have them sorted.
        place = np.minimum(np.searchsorted(orders, ids), len(orders) - 1)
        match = orders[place] == ids
        found[match] = placed_by[place[match]]
    found[ids == 0] = -1
    return found


def _describe(
    proof: Proof, what: str, rows: NDArray[np.intp], expected: Records, found: Records, columns: tuple[str, ...]
) -> None:
    proof.difference_count += len(rows)
    for row in rows[:_DESCRIBED]:
        parts = [
            f"{column} expected {expected[column][row]}, found {found[column][row]}"
            for column in columns
            if expected[column][row] != found[column][row]
        ]
        proof.differences.append(f"{what} {int(row)}: {'; '.join(parts)}")


def _differ(proof: Proof, what: str) -> None:
    proof.difference_count += 1
    proof.differences.append(what)
