"""The proof against history: it holds for every recording found, and fails, with the row, where anything is wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smrx.tape import convert, history_check, lobster
from smrx.tape.convert import Maker
from smrx.tape.engine_session import EngineLike
from smrx.tape.history_check import Verdict
from smrx.tape.lobster import Kind, Recording
from smrx.wire.codes import EventKind, Reason
from tests.oracle.book import Book
from tests.oracle.machine import Oracle
from tests.oracle.messages import Outcome
from tests.oracle.records import Order
from tests.tape import recordings, synthetic

AMZN = "AMZN_2012-06-21_34200000_57600000_message_5"


def prove(recording: Recording, engine: EngineLike | None = None) -> Verdict:
    return history_check.verify(convert.convert(recording), engine)


@pytest.fixture
def recording() -> Recording:
    """The synthetic recording, the reader's own to alter."""
    found = recordings.read(recordings.SYNTHETIC)
    assert found.books is not None
    return found._replace(messages=found.messages.copy(), books=found.books.copy())


@pytest.mark.parametrize("name", recordings.found())
def test_the_engine_does_what_history_did(name: str) -> None:
    found = recordings.read(name)
    verdict = prove(found)
    assert verdict.failures == []
    assert verdict.proved
    assert verdict.rows == verdict.rows_equal == len(found.messages) - 1
    assert verdict.reproduced == verdict.trades == verdict.counts.executions - len(verdict.exceptions)
    assert verdict.reproduced == verdict.maker_matched + verdict.anonymous + verdict.undecidable
    if verdict.recording == AMZN:
        assert (verdict.maker_matched, verdict.anonymous, verdict.undecidable) == (7_272, 1_667, 26)
        rows = tuple(int(text.split(":")[0].removeprefix("row ")) for text in verdict.exceptions)
        assert rows == history_check.NAMED_EXCEPTIONS[AMZN]
        assert (verdict.rows_equal, verdict.counts.executions) == (155_934, 8_974)


def test_the_oracle_does_it_too(recording: Recording) -> None:
    verdict = prove(recording, Oracle())
    assert verdict.proved
    assert verdict.rows_equal == len(recording.messages) - 1


def test_without_an_orderbook_the_known_executions_are_reproduced(recording: Recording) -> None:
    verdict = prove(recording._replace(books=None))
    assert verdict.proved
    assert (verdict.rows, verdict.anonymous) == (0, 0)
    assert verdict.maker_matched == verdict.trades == verdict.counts.executions - verdict.unknown
    assert 0 < verdict.unknown < verdict.counts.executions


def test_progress_ends_at_the_last_message(recording: Recording) -> None:
    seen: list[int] = []
    history_check.verify(convert.convert(recording), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(recording.messages)


# A wrong recording.


def test_an_altered_level_is_named(recording: Recording) -> None:
    assert recording.books is not None
    recording.books[700, 5] += 1
    verdict = prove(recording)
    assert not verdict.proved
    assert verdict.failures[0].startswith("row 700 (line 701): ask level 2: expected ")
    assert verdict.rows_equal == verdict.rows - 1


def executions(recording: Recording) -> list[int]:
    """Rows of executions against known orders."""
    return [found.row for found in convert.convert(recording).executions if found.maker == Maker.KNOWN]


@pytest.mark.parametrize("direction", [1, -1])
def test_an_altered_price_of_an_execution_is_named(recording: Recording, direction: int) -> None:
    row = executions(recording)[50]
    recording.messages["price"][row] += 100 * direction
    verdict = prove(recording)
    assert not verdict.proved
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")


def test_an_altered_size_of_an_execution_is_named(recording: Recording) -> None:
    row = next(row for row in executions(recording) if recording.messages["size"][row] > 1)
    recording.messages["size"][row] -= 1
    verdict = prove(recording)
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")
    assert "expected" in verdict.failures[0]


def test_a_message_that_is_missing_is_named(recording: Recording) -> None:
    row = int(np.flatnonzero(recording.messages["kind"] == Kind.NEW)[100])
    recording.messages["kind"][row] = Kind.HIDDEN_EXECUTION
    verdict = prove(recording)
    assert verdict.failures[0].startswith(f"row {row} (line {row + 1}): ")


def test_an_exception_nobody_looked_into_fails_a_known_recording(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(found.row for found in convert.convert(recording).exceptions)
    monkeypatch.setitem(history_check.NAMED_EXCEPTIONS, recording.name, rows)
    assert prove(recording).proved
    monkeypatch.setitem(history_check.NAMED_EXCEPTIONS, recording.name, rows[1:])
    verdict = prove(recording)
    assert verdict.failures == [
        f"row {rows[0]} (line {rows[0] + 1}): an execution that breaks time priority "
        f"and is none of the {len(rows) - 1} known"
    ]


# A wrong engine.


class NewestFirst(Oracle):
    """Hits the newest order of the best price."""

    def next_maker(self, book: Book, taker: Order) -> Order | None:
        maker = super().next_maker(book, taker)
        return None if maker is None else book.queues[maker.side][maker.price][-1]


class LosesPriority(Oracle):
    """Puts a shrunk order behind the others."""

    def replace(self) -> Outcome:
        order = self.named_order()
        book = self.state.books[order.instrument]
        outcome = super().replace()
        book.remove(order)
        book.add(order)
        return outcome


class ForgetsACancel(Oracle):
    """Answers one cancellation as done and keeps the order in its book."""

    cancelled = 0

    def cancel_order(self, order: Order, reason: Reason) -> None:
        self.cancelled += 1
        if self.cancelled == 100:
            self.emit_order(EventKind.CANCELLED, order, reason)
        else:
            super().cancel_order(order, reason)


class TradesOneLess(Oracle):
    """Fills a lot less than it could where it could fill more than one."""

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        super().trade(taker, maker, max(1, lots - 1))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NewestFirst, r"expected it to hit order \d+ \(\d+ on the tape\), found order \d+"),
        (LosesPriority, r"expected it to hit order \d+ \(\d+ on the tape\), found order \d+"),
        (ForgetsACancel, r"(ask|bid) level \d: expected .* as recorded, found "),
        (TradesOneLess, r"expected an execution of \d+ at \d+, found \d+ at \d+"),
    ],
)
def test_a_broken_engine_is_found_out(recording: Recording, broken: Callable[[], Oracle], sentence: str) -> None:
    verdict = prove(recording, broken())
    assert not verdict.proved
    assert re.search(r"^row \d+ \(line \d+\): " + sentence, verdict.failures[0]), verdict.failures
    assert verdict.failure_count >= len(verdict.failures)


def test_another_seed_holds_as_well(tmp_path: Path) -> None:
    for seed in range(2, 8):
        made = synthetic.write(tmp_path, messages=600, seed=seed)
        verdict = prove(lobster.read(made.messages, made.orderbook))
        assert verdict.proved, f"synthetic.write(..., messages=600, seed={seed}): {verdict.failures}"
        assert verdict.counts.executions == made.truth.executions
