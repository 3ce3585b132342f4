"""Compare the engine with a recording: its levels after every message, and every recorded execution.

An execution must happen at the recorded price, with the recorded size, against the recorded order. The levels are read
from the engine, not from the converter's book. Executions that violate time priority in the recording are listed as
exceptions. Called by `smrx replay --verify`.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from smrx.tape.convert import Counts, Execution, Maker, ReplayPlan
from smrx.tape.engine_session import EngineLike, EngineSession
from smrx.tape.tape_market import setup_failure
from smrx.wire.codes import EventKind, OutcomeStatus

#: Rows (from 0) where the exchange hit a newer order before an older one, in recordings that were examined. Any other
#: exception in one of these recordings is a failure; in other recordings exceptions are only reported.
KNOWN_EXCEPTIONS: Final[dict[str, tuple[int, ...]]] = {
    "AMZN_2012-06-21_34200000_57600000_message_5": (
        4266, 8397, 76791, 108618, 153053, 153057, 153058, 153059, 153986,
    ),
}  # fmt: skip
#: Failures that are described; the others are only counted.
DESCRIBED_FAILURES: Final = 10
#: Plain integers, because they are compared for every message.
_ACCEPTED: Final = int(OutcomeStatus.ACCEPTED)
_TRADE: Final = int(EventKind.TRADE)
#: Messages between two reports of progress.
_PROGRESS_EVERY: Final = 2048


class HistoryCheck(msgspec.Struct, kw_only=True):
    """The result of a comparison."""

    recording: str
    counts: Counts
    commands: int
    #: Messages after which the engine's levels were compared, and how many were equal; 0 without an orderbook file.
    rows: int = 0
    rows_equal: int = 0
    trades: int = 0
    #: Recorded executions that became a trade of the same price and size.
    reproduced: int = 0
    #: Of these: against the order that the recording names.
    maker_matched: int = 0
    #: Of these: against anonymous quantity at the head of the queue.
    anonymous: int = 0
    #: Of these: against the named order after it was moved ahead of anonymous quantity of unknown age.
    undecidable: int = 0
    #: Executions of orders never seen, which were not sent; only without an orderbook file.
    unknown: int = 0
    exceptions: list[str] = []
    failures: list[str] = []
    failure_count: int = 0
    state_hash: str = ""
    seconds: float = 0.0

    @property
    def verified(self) -> bool:
        """Whether nothing failed."""
        return self.failure_count == 0


def check_history(
    plan: ReplayPlan, engine: EngineLike | None = None, progress: Callable[[int], object] | None = None
) -> HistoryCheck:
    """Apply a plan to an engine (a new one if none is given) and compare it with the recording.

    `progress` is called with the number of messages done.
    """
    return _Checker(plan, EngineSession(engine), progress).run()


class _Checker:
    """The state of a comparison."""

    def __init__(self, plan: ReplayPlan, session: EngineSession, progress: Callable[[int], object] | None) -> None:
        self.plan = plan
        self.session = session
        self.engine = session.engine
        self.progress = progress
        self.result = HistoryCheck(recording=plan.name, counts=plan.counts, commands=len(plan.commands.records))
        self.executions = {execution.row: execution for execution in plan.executions}
        #: Order id of each command that placed an order.
        self.order_ids = np.zeros(len(plan.commands.records), dtype=np.uint64)
        self.instrument = plan.market.instrument
        self.levels = 0 if plan.books is None else plan.books.shape[1] // 4

    def run(self) -> HistoryCheck:
        started = time.perf_counter()
        setup = self.plan.market.setup()
        refused = setup_failure(setup, self.session.apply(*setup).outcomes)
        if refused:
            self._fail(0, refused)
        self._messages()
        self.result.trades = self.engine.trade_count
        self.result.state_hash = f"{self.engine.state_hash:016x}"
        self.result.seconds = time.perf_counter() - started
        return self.result

    def _recording_failures(self) -> dict[int, list[str]]:
        """Return the failures by row that the recording alone shows; add the exceptions to the result."""
        found: dict[int, list[str]] = {}
        for row, conflict in self.plan.conflicts:
            found.setdefault(row, []).append(conflict)
        known = KNOWN_EXCEPTIONS.get(self.plan.name)
        for hit in self.plan.exceptions:
            self.result.exceptions.append(
                f"row {hit.row}: {hit.size} of order {hit.tape_id} at {hit.price_ticks}, before an older order"
            )
            if known is not None and hit.row not in known:
                text = f"an execution that violates time priority and is not one of the {len(known)} known ones"
                found.setdefault(hit.row, []).append(text)
        return found

    def _messages(self) -> None:
        commands = self.session.numbered(self.plan.commands.records)
        first, times = self.plan.first.tolist(), self.plan.times_ns.tolist()
        rows = None if self.plan.books is None else self.plan.books.tolist()
        recording_failures = self._recording_failures()
        for row in range(len(first) - 1):
            for failure in recording_failures.get(row, ()):
                self._fail(row, failure)
            start, end = first[row], first[row + 1]
            if end > start:
                self._message(row, start, commands[start:end], times[row])
            elif row in self.executions:
                self._not_sent(self.executions[row])
            # The initial book was made of row 0.
            if rows is not None and row > 0:
                self._compare(row, rows[row])
            if self.progress is not None and row % _PROGRESS_EVERY == 0:
                self.progress(row)
        if self.progress is not None:
            self.progress(len(first) - 1)

    def _message(self, row: int, start: int, commands: Any, time_ns: int) -> None:
        trades = self.engine.trade_count
        result = self.session.apply_numbered(commands, time_ns, self.plan.commands.details)
        outcomes = result.outcomes
        self.order_ids[start : start + len(commands)] = outcomes["order_id"]
        accepted = outcomes["status"] == _ACCEPTED
        if not accepted.all():
            outcome = outcomes[int(np.argmin(accepted))]
            self._fail(row, f"the engine rejected a command with reason {int(outcome['reason'])}")
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
            self.result.unknown += 1

    def _execution(self, execution: Execution, events: Any) -> None:
        trades = events[events["kind"] == _TRADE]
        found = [(int(trade["price_ticks"]), int(trade["quantity_lots"])) for trade in trades]
        expected = (execution.price_ticks, execution.size)
        if found != [expected]:
            self._fail(
                execution.row, f"expected an execution of {expected[1]} at {expected[0]}, found {_trades(found)}"
            )
            return
        self.result.reproduced += 1
        maker = int(self.order_ids[execution.maker_command])
        hit = int(trades[0]["counter_order_id"])
        if hit != maker:
            self._fail(
                execution.row,
                f"expected an execution of order {maker} ({execution.tape_id} on the tape), found order {hit}",
            )
        elif execution.maker == Maker.KNOWN:
            self.result.maker_matched += 1
        elif execution.maker == Maker.ANONYMOUS:
            self.result.anonymous += 1
        else:
            self.result.undecidable += 1

    def _compare(self, row: int, recorded: list[int]) -> None:
        bids, asks = self.engine.inspect.depth(self.instrument, self.levels)
        found = [0] * len(recorded)
        for place, (price, lots, _) in enumerate(asks):
            found[4 * place], found[4 * place + 1] = price, lots
        for place, (price, lots, _) in enumerate(bids):
            found[4 * place + 2], found[4 * place + 3] = price, lots
        self.result.rows += 1
        if found == recorded:
            self.result.rows_equal += 1
        else:
            self._fail(row, _difference(recorded, found))

    def _fail(self, row: int, what: str) -> None:
        self.result.failure_count += 1
        if len(self.result.failures) < DESCRIBED_FAILURES:
            self.result.failures.append(f"row {row} (line {self.plan.line(row)}): {what}")


def _trades(found: list[tuple[int, int]]) -> str:
    return ", ".join(f"{size} at {price}" for price, size in found) or "none"


def _difference(recorded: list[int], found: list[int]) -> str:
    """Describe the first level that differs."""
    place = next(i for i in range(0, len(recorded), 2) if recorded[i : i + 2] != found[i : i + 2])
    side = "bid" if place % 4 else "ask"

    def level(row: list[int]) -> str:
        return f"{row[place + 1]} at {row[place]}" if row[place] else "none"

    return f"{side} level {place // 4 + 1}: expected {level(recorded)} as recorded, found {level(found)}"
