"""Compare what a cluster did with a tape with what one engine does: all outcomes and all events.

Both are made comparable first: orders are named by the command that placed them, and fields that depend on other
commands of the cluster (sequences, time, session) are left out. Called by `smrx replay --verify`.
"""

import time
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.engine_session import EngineLike, EngineSession
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import setup_failure
from smrx.wire.codes import EventKind, OutcomeStatus
from smrx.wire.records import EVENT

Records = NDArray[np.void]

#: Commands that the engine applies at once.
_PIECE: Final = 1 << 14
#: The fields of an outcome that depend on the tape alone.
_OUTCOME_COLUMNS: Final = ("status", "event_kind", "reason", "event_count", "cum_lots", "leaves_lots")
#: The fields of an event that depend on the tape alone.
_EVENT_COLUMNS: Final = (
    # `credential` is the counter account of a TRADE.
    "kind", "side", "order_type", "tif", "stp", "flags", "reason", "instrument", "account", "credential",
    "command_kind", "client_order_id", "price_ticks", "quantity_lots", "cum_lots", "leaves_lots",
)  # fmt: skip
#: Differences of one kind that are described; the others are only counted.
_DESCRIBED: Final = 5


class Feed(Protocol):
    """A source of events, such as smrx.feed's Subscriber."""

    def poll(self, timeout: float, /) -> Records:
        """Return the next events in order; an empty array after the timeout in seconds."""
        ...


class FeedSilent(Exception):
    """The feed delivered no events for too long before the last event of the tape."""


class Reference(NamedTuple):
    """The outcomes and events of a tape on one engine."""

    outcomes: Records
    events: Records
    engine: EngineLike


class EngineRun(msgspec.Struct, kw_only=True):
    """The result of a tape on one engine, with the number of trades that the tape's generator counted."""

    commands: int
    refused: int
    trades: int
    #: None if the tape was shortened.
    trades_expected: int | None
    state_hash: str

    @property
    def verified(self) -> bool:
        """Whether every command was accepted and the number of trades is the expected one."""
        return self.refused == 0 and self.trades_expected in (None, self.trades)


class ReplayCheck(msgspec.Struct, kw_only=True):
    """The result of a comparison."""

    outcomes_compared: int = 0
    #: Outcomes that were lost by a change of leader; only their events were compared.
    outcomes_unknown: int = 0
    events_compared: int = 0
    trades_compared: int = 0
    differences: list[str] = []
    difference_count: int = 0

    @property
    def verified(self) -> bool:
        """Whether nothing differed."""
        return self.difference_count == 0


def run_reference(tape: Tape, engine: EngineLike | None = None) -> Reference:
    """Apply a tape to an engine in this process (a new one if none is given)."""
    session = EngineSession(engine)
    refused = setup_failure(tape.setup, session.apply(*tape.setup).outcomes)
    if refused:
        raise ValueError(refused)
    outcomes, events = [], []
    for first in range(0, len(tape.commands), _PIECE):
        result = session.apply(tape.commands[first : first + _PIECE], tape.flow.details)
        outcomes.append(result.outcomes)
        events.append(result.events)
    return Reference(np.concatenate(outcomes), np.concatenate(events), session.engine)


def run_engine(tape: Tape) -> EngineRun:
    """Apply a tape to a new engine; return the counts of its outcomes and events."""
    found = run_reference(tape)
    return EngineRun(
        commands=len(tape.commands),
        refused=int((found.outcomes["status"] != OutcomeStatus.ACCEPTED).sum()),
        trades=int((found.events["kind"] == EventKind.TRADE).sum()),
        trades_expected=tape.trades if tape.trades >= 0 else None,
        state_hash=f"{found.engine.state_hash:016x}",
    )


def collect(feed: Feed, outcomes: Records, timeout_seconds: float) -> Records:
    """Return the events of the outcomes' session, from a feed that starts at or before the first of them.

    Raises FeedSilent if no events come for `timeout_seconds` before the last one.
    """
    last = last_event(outcomes)
    session = outcomes["session_id"][0]
    kept = []
    received_at = time.monotonic()
    reached = 0
    while reached < last:
        events = feed.poll(timeout_seconds)
        if len(events):
            received_at = time.monotonic()
            reached = int(events["sequence"][-1])
            kept.append(events[events["session_id"] == session])
        elif time.monotonic() - received_at >= timeout_seconds:
            raise FeedSilent(f"no event after {reached} for {timeout_seconds:g} s; the tape's last event is {last}")
    return np.concatenate(kept)


def first_event(outcomes: Records) -> int:
    """Return the sequence of the first event of outcomes; 1 if none is known."""
    known = outcomes["first_event"][outcomes["first_event"] > 0]
    return int(known.min()) if len(known) else 1


def last_event(outcomes: Records) -> int:
    """Return the sequence of the last event of outcomes; 0 if there are no outcomes."""
    return int((outcomes["first_event"] + outcomes["event_count"]).max()) - 1 if len(outcomes) else 0


def compare(expected: Reference, outcomes: Records, events: Records | None) -> ReplayCheck:
    """Compare a cluster's outcomes, and its events if they were collected, with the reference."""
    check = ReplayCheck()
    _compare_outcomes(check, expected.outcomes, outcomes)
    if events is not None:
        _compare_events(check, expected, outcomes, events)
    return check


def _compare_outcomes(check: ReplayCheck, expected: Records, found: Records) -> None:
    if len(expected) != len(found):
        _add_difference(check, f"expected {len(expected)} outcomes, found {len(found)}")
        return
    known = found["status"] != OutcomeStatus.DUPLICATE
    check.outcomes_unknown = int((~known).sum())
    check.outcomes_compared = int(known.sum())
    wrong = np.zeros(len(found), dtype=bool)
    for column in _OUTCOME_COLUMNS:
        wrong |= known & (expected[column] != found[column])
    _add_differences(check, "command", np.flatnonzero(wrong), expected, found, _OUTCOME_COLUMNS)


def _compare_events(check: ReplayCheck, expected: Reference, outcomes: Records, events: Records) -> None:
    first_request = int(outcomes["request_id"][0])
    of_flow = events[(events["request_id"] >= first_request) & (events["request_id"] < first_request + len(outcomes))]
    left = _comparable(expected.events, int(expected.outcomes["request_id"][0]))
    right = _comparable(of_flow, first_request)
    check.events_compared = len(right)
    check.trades_compared = int((right["kind"] == EventKind.TRADE).sum())
    if len(left) != len(right):
        _add_difference(check, f"expected {len(left)} events, found {len(right)}")
        return
    _add_differences(check, "event", np.flatnonzero(left != right), left, right, left.dtype.names or ())


def _comparable(events: Records, first_request: int) -> Records:
    """Return events with commands and orders numbered from the first command of the flow."""
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
    """Return the number of the command that placed each order; -1 for no order, -2 for an order of another flow."""
    found = np.full(len(ids), -2, dtype=np.int64)
    if len(orders):
        # Order ids increase with the commands, so those of NEW events are sorted.
        place = np.minimum(np.searchsorted(orders, ids), len(orders) - 1)
        match = orders[place] == ids
        found[match] = placed_by[place[match]]
    found[ids == 0] = -1
    return found


def _add_differences(
    check: ReplayCheck, what: str, rows: NDArray[np.intp], expected: Records, found: Records, columns: tuple[str, ...]
) -> None:
    check.difference_count += len(rows)
    for row in rows[:_DESCRIBED]:
        parts = [
            f"{column} expected {expected[column][row]}, found {found[column][row]}"
            for column in columns
            if expected[column][row] != found[column][row]
        ]
        check.differences.append(f"{what} {int(row)}: {'; '.join(parts)}")


def _add_difference(check: ReplayCheck, what: str) -> None:
    check.difference_count += 1
    check.differences.append(what)
