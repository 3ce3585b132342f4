"""Comparison of the engine with recordings: it succeeds for every recording, and reports the row of any difference."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smrx.tape import convert, history_check, lobster
from smrx.tape.convert import Maker
from smrx.tape.engine_session import EngineLike
from smrx.tape.history_check import HistoryCheck
from smrx.tape.lobster import Kind, Recording
from smrx.wire.codes import EventKind, Reason
from tests.oracle.book import Book
from tests.oracle.messages import Outcome
from tests.oracle.oracle import Oracle
from tests.oracle.records import Order
from tests.tape import recordings, synthetic_recording

AMZN = "AMZN_2012-06-21_34200000_57600000_message_5"


def check(recording: Recording, engine: EngineLike | None = None) -> HistoryCheck:
    return history_check.check_history(convert.convert(recording), engine)


@pytest.fixture
def recording() -> Recording:
    """A copy of the synthetic recording that the test may change."""
    found = recordings.read(recordings.SYNTHETIC)
    assert found.books is not None
    return found._replace(messages=found.messages.copy(), books=found.books.copy())


@pytest.mark.parametrize("name", recordings.found())
def test_engine_reproduces_the_recording(name: str) -> None:
    found = recordings.read(name)
    verdict = check(found)
    assert verdict.failures == []
    assert verdict.verified
    assert verdict.rows == verdict.rows_equal == len(found.messages) - 1
    assert verdict.reproduced == verdict.trades == verdict.counts.executions - len(verdict.exceptions)
    assert verdict.reproduced == verdict.maker_matched + verdict.anonymous + verdict.undecidable
    if verdict.recording == AMZN:
        assert (verdict.maker_matched, verdict.anonymous, verdict.undecidable) == (7_272, 1_667, 26)
        rows = tuple(int(text.split(":")[0].removeprefix("row ")) for text in verdict.exceptions)
        assert rows == history_check.KNOWN_EXCEPTIONS[AMZN]
        assert (verdict.rows_equal, verdict.counts.executions) == (155_934, 8_974)


def test_oracle_reproduces_the_recording(recording: Recording) -> None:
    verdict = check(recording, Oracle())
    assert verdict.verified
    assert verdict.rows_equal == len(recording.messages) - 1


def test_known_executions_are_reproduced_without_orderbook(recording: Recording) -> None:
    verdict = check(recording._replace(books=None))
    assert verdict.verified
    assert (verdict.rows, verdict.anonymous) == (0, 0)
    assert verdict.maker_matched == verdict.trades == verdict.counts.executions - verdict.unknown
    assert 0 < verdict.unknown < verdict.counts.executions


def test_progress_ends_at_the_last_message(recording: Recording) -> None:
    seen: list[int] = []
    history_check.check_history(convert.convert(recording), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(recording.messages)


# Altered recordings.


def test_altered_level_is_reported(recording: Recording) -> None:
    assert recording.books is not None
    recording.books[700, 5] += 1
    verdict = check(recording)
    assert not verdict.verified
    assert verdict.failures[0].startswith("row 700 (line 701): ask level 2: expected ")
    assert verdict.rows_equal == verdict.rows - 1


def executions(recording: Recording) -> list[int]:
    """Return the rows of executions against known orders."""
    return [found.row for found in convert.convert(recording).executions if found.maker == Maker.KNOWN]


@pytest.mark.parametrize("direction", [1, -1])
def test_altered_price_of_execution_is_reported(recording: Recording, direction: int) -> None:
    row = executions(recording)[50]
    recording.messages["price"][row] += 100 * direction
    verdict = check(recording)
    assert not verdict.verified
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")


def test_altered_size_of_execution_is_reported(recording: Recording) -> None:
    row = next(row for row in executions(recording) if recording.messages["size"][row] > 1)
    recording.messages["size"][row] -= 1
    verdict = check(recording)
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")
    assert "expected" in verdict.failures[0]


def test_missing_message_is_reported(recording: Recording) -> None:
    row = int(np.flatnonzero(recording.messages["kind"] == Kind.NEW)[100])
    recording.messages["kind"][row] = Kind.HIDDEN_EXECUTION
    verdict = check(recording)
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")


def test_unknown_exception_fails_an_examined_recording(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(found.row for found in convert.convert(recording).exceptions)
    monkeypatch.setitem(history_check.KNOWN_EXCEPTIONS, recording.name, rows)
    assert check(recording).verified
    monkeypatch.setitem(history_check.KNOWN_EXCEPTIONS, recording.name, rows[1:])
    verdict = check(recording)
    assert verdict.failures == [
        f"row {rows[0]} (line {rows[0] + 1}): an execution that violates time priority "
        f"and is not one of the {len(rows) - 1} known ones"
    ]


# Faulty engines.


class NewestFirst(Oracle):
    """Hits the newest order of the best price."""

    def next_maker(self, book: Book, taker: Order) -> Order | None:
        maker = super().next_maker(book, taker)
        return None if maker is None else book.queues[maker.side][maker.price][-1]


class LosesPriority(Oracle):
    """Moves a reduced order to the end of its queue."""

    def replace(self) -> Outcome:
        order = self.named_order()
        book = self.state.books[order.instrument]
        outcome = super().replace()
        book.remove(order)
        book.add(order)
        return outcome


class LosesACancel(Oracle):
    """Reports one cancel as done and keeps the order in its book."""

    cancelled = 0

    def cancel_order(self, order: Order, reason: Reason) -> None:
        self.cancelled += 1
        if self.cancelled == 100:
            self.emit_order(EventKind.CANCELLED, order, reason)
        else:
            super().cancel_order(order, reason)


class TradesOneLess(Oracle):
    """Fills one lot less than possible if more than one is possible."""

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        super().trade(taker, maker, max(1, lots - 1))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NewestFirst, r"expected an execution of order \d+ \(\d+ on the tape\), found order \d+"),
        (LosesPriority, r"expected an execution of order \d+ \(\d+ on the tape\), found order \d+"),
        (LosesACancel, r"(ask|bid) level \d: expected .* as recorded, found "),
        (TradesOneLess, r"expected an execution of \d+ at \d+, found \d+ at \d+"),
    ],
)
def test_faulty_engine_is_detected(recording: Recording, broken: Callable[[], Oracle], sentence: str) -> None:
    verdict = check(recording, broken())
    assert not verdict.verified
    assert re.search(r"^row \d+ \(line \d+\): " + sentence, verdict.failures[0]), verdict.failures
    assert verdict.failure_count >= len(verdict.failures)


def test_recordings_of_other_seeds_are_reproduced(tmp_path: Path) -> None:
    for seed in range(2, 8):
        made = synthetic_recording.write(tmp_path, messages=600, seed=seed)
        verdict = check(lobster.read(made.messages, made.orderbook))
        assert verdict.verified, f"synthetic_recording.write(..., messages=600, seed={seed}): {verdict.failures}"
        assert verdict.counts.executions == made.truth.executions
