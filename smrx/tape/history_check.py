"""Proves the engine against history: after every message its levels are the recorded ones, and every recorded
execution happened, at its price, of its size, against its order.

The engine's own levels are read, after each message; nothing is taken from the converter's book. What history did
against time priority is an exception, listed by row. Called by `smrx replay --verify`.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from smrx.tape.convert import Counts, Execution, Maker, Plan
from smrx.tape.engine_session import EngineLike, LocalSession
from smrx.tape.tape_market import setup_failure
from smrx.wire.codes import EventKind, OutcomeStatus

#: Rows (from 0) where the exchange hit a newer order before an older one, in recordings that were looked into. Another
#: exception in one of these files is a failure; in any other file exceptions are reported.
NAMED_EXCEPTIONS: Final[dict[str, tuple[int, ...]]] = {
    "AMZN_2012-06-21_34200000_57600000_message_5": (
        4266, 8397, 76791, 108618, 153053, 153057, 153058, 153059, 153986,
    ),
}  # fmt: skip
#: Failures described in full; the others are counted.
DESCRIBED_FAILURES: Final = 10
#: Plain integers: looked at once a message.
_ACCEPTED: Final = int(OutcomeStatus.ACCEPTED)
_TRADE: Final = int(EventKind.TRADE)
#: Messages between two reports of progress.
_PROGRESS_EVERY: Final = 2048


class Verdict(msgspec.Struct, kw_only=True):
    """What was compared and what came of it."""

    recording: str
    counts: Counts
    commands: int
    #: Messages after which the engine's levels were compared, and how many were equal; 0 without an orderbook file.
    rows: int = 0
    rows_equal: int = 0
    trades: int = 0
    #: Recorded executions that became a trade of the same price and size.
    reproduced: int = 0
    #: Of these, against the very order the recording names.
    maker_matched: int = 0
    #: Against the anonymous quantity that is first in the queue.
    anonymous: int = 0
    #: Against the named order, after anonymous quantity of unknown age was put behind it.
    undecidable: int = 0
    #: Without an orderbook file: executions of orders never seen, not sent.
    unknown: int = 0
    exceptions: list[str] = []
    failures: list[str] = []
    failure_count: int = 0
    state_hash: str = ""
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether nothing failed."""
        return self.failure_count == 0


def verify(plan: Plan, engine: EngineLike | None = None, progress: Callable[[int], object] | None = None) -> Verdict:
    """Run a plan through an engine (a new one if none is given) and compare it with the recording.

    `progress` is called with the number of messages done.
    """
    return _Check(plan, LocalSession(engine), progress).run()


class _Check:
    """One verification under way."""

    def __init__(self, plan: Plan, session: LocalSession, progress: Callable[[int], object] | None) -> None:
        self.plan = plan
        self.session = session
        self.engine = session.engine
        self.progress = progress
        self.verdict = Verdict(recording=plan.name, counts=plan.counts, commands=len(plan.commands))
        self.executions = {execution.row: execution for execution in plan.executions}
        #: Order id of each command that placed an order.
        self.order_ids = np.zeros(len(plan.commands), dtype=np.uint64)
        self.instrument = plan.market.instrument
        self.levels = 0 if plan.books is None else plan.books.shape[1] // 4

    def run(self) -> Verdict:
        started = time.perf_counter()
        setup = self.plan.market.setup()
        refused = setup_failure(setup, self.session.apply(setup).outcomes)
        if refused:
            self._fail(0, refused)
        self._messages()
        self.verdict.trades = self.engine.trade_count
        self.verdict.state_hash = f"{self.engine.state_hash:016x}"
        self.verdict.seconds = time.perf_counter() - started
        return self.verdict

    def _known_before(self) -> dict[int, list[str]]:
        """Failures by row that the recording alone shows; lists the exceptions on the way."""
        found: dict[int, list[str]] = {}
        for row, conflict in self.plan.conflicts:
            found.setdefault(row, []).append(conflict)
        named = NAMED_EXCEPTIONS.get(self.plan.name)
        for hit in self.plan.exceptions:
            self.verdict.exceptions.append(
                f"row {hit.row}: {hit.size} of order {hit.tape_id} at {hit.price_ticks}, before an older order"
            )
            if named is not None and hit.row not in named:
                text = f"an execution that breaks time priority and is none of the {len(named)} known"
                found.setdefault(hit.row, []).append(text)
        return found

    def _messages(self) -> None:
        commands = self.session.numbered(self.plan.commands)
        first, times = self.plan.first.tolist(), self.plan.times_ns.tolist()
        rows = None if self.plan.books is None else self.plan.books.tolist()
        known = self._known_before()
        for row in range(len(first) - 1):
            for failure in known.get(row, ()):
                self._fail(row, failure)
            start, end = first[row], first[row + 1]
            if end > start:
                self._message(row, start, commands[start:end], times[row])
            elif row in self.executions:
                self._not_sent(self.executions[row])
            # Row 0 is what the book was made from.
            if rows is not None and row > 0:
                self._compare(row, rows[row])
            if self.progress is not None and row % _PROGRESS_EVERY == 0:
                self.progress(row)
        if self.progress is not None:
            self.progress(len(first) - 1)

    def _message(self, row: int, start: int, commands: Any, time_ns: int) -> None:
        trades = self.engine.trade_count
        result = self.session.apply_numbered(commands, time_ns)
        outcomes = result.outcomes
        self.order_ids[start : start + len(commands)] = outcomes["order_id"]
        accepted = outcomes["status"] == _ACCEPTED
        if not accepted.all():
            outcome = outcomes[int(np.argmin(accepted))]
            self._fail(row, f"expected its commands to be accepted, found reason {int(outcome['reason'])}")
        execution = self.executions.get(row)
        expected = 0
        if execution is not None:
            expected = int(execution.command >= 0)
            if expected:
                self._execution(execution, result.events)
            else:
                self._not_sent(execution)
        if self.engine.trade_count - trades != expected:
            self._fail(row, f"expected {expected} trades, found {self.engine.trade_count - trades}")

    def _not_sent(self, execution: Execution) -> None:
        if execution.maker == Maker.UNKNOWN:
            self.verdict.unknown += 1

    def _execution(self, execution: Execution, events: Any) -> None:
        trades = events[events["kind"] == _TRADE]
        found = [(int(trade["price_ticks"]), int(trade["quantity_lots"])) for trade in trades]
        expected = (execution.price_ticks, execution.size)
        if found != [expected]:
            self._fail(
                execution.row, f"expected an execution of {expected[1]} at {expected[0]}, found {_trades(found)}"
            )
            return
        self.verdict.reproduced += 1
        maker = int(self.order_ids[execution.maker_command])
        hit = int(trades[0]["counter_order_id"])
        if hit != maker:
            self._fail(
                execution.row,
                f"expected it to hit order {maker} ({execution.tape_id} on the tape), found order {hit}",
            )
        elif execution.maker == Maker.KNOWN:
            self.verdict.maker_matched += 1
        elif execution.maker == Maker.ANONYMOUS:
            self.verdict.anonymous += 1
        else:
            self.verdict.undecidable += 1

    def _compare(self, row: int, recorded: list[int]) -> None:
        bids, asks = self.engine.inspect.depth(self.instrument, self.levels)
        found = [0] * len(recorded)
        for place, (price, lots, _) in enumerate(asks):
            found[4 * place], found[4 * place + 1] = price, lots
        for place, (price, lots, _) in enumerate(bids):
            found[4 * place + 2], found[4 * place + 3] = price, lots
        self.verdict.rows += 1
        if found == recorded:
            self.verdict.rows_equal += 1
        else:
            self._fail(row, _difference(recorded, found))

    def _fail(self, row: int, what: str) -> None:
        self.verdict.failure_count += 1
        if len(self.verdict.failures) < DESCRIBED_FAILURES:
            self.verdict.failures.append(f"row {row} (line {row + 1}): {what}")


def _trades(found: list[tuple[int, int]]) -> str:
    return ", ".join(f"{size} at {price}" for price, size in found) or "none"


def _difference(recorded: list[int], found: list[int]) -> str:
    """The first level that differs, as a sentence."""
    place = next(i for i in range(0, len(recorded), 2) if recorded[i : i + 2] != found[i : i + 2])
    side = "bid" if place % 4 else "ask"

    def level(row: list[int]) -> str:
        return f"{row[place + 1]} at {row[place]}" if row[place] else "none"

    return f"{side} level {place // 4 + 1}: expected {level(recorded)} as recorded, found {level(found)}"
