"""Conversion of recordings to commands: its rules on small recordings, and known counts of large ones."""

import numpy as np
import pytest

from smrx.tape import convert, history_check, lobster
from smrx.tape.convert import Maker, ReplayPlan
from smrx.tape.lobster import MESSAGE, NO_LEVEL, Recording
from smrx.tape.tape_error import TapeError
from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import CommandKind, Side, TimeInForce
from smrx.wire.records import ORDER_DETAILS
from tests.tape import recordings, synthetic_recording

AMZN = "AMZN_2012-06-21_34200000_57600000_message_5"


def recording(messages: list[tuple[int, int, int, int, int]], books: list[list[int]] | None) -> Recording:
    """Make a recording of (kind, order id, size, price in cents, direction) and rows of one level in cents."""
    records = np.array([(i, k, o, s, p * 100, d) for i, (k, o, s, p, d) in enumerate(messages)], dtype=MESSAGE)
    rows = None
    if books is not None:
        rows = np.array([[p * 100 if i % 2 == 0 and p != NO_LEVEL else p for i, p in enumerate(row)] for row in books])
    return Recording("made", "MADE", records, rows)


def commands_text(plan: ReplayPlan) -> list[str]:
    """Return the commands as short texts."""
    words = []
    for command in plan.commands.records:
        kind, side = CommandKind(int(command["kind"])), int(command["side"])
        word = f"{kind.name.lower()}"
        if kind == CommandKind.PLACE:
            word = "take" if command["tif"] == TimeInForce.IOC else "place"
            word += f" {Side(side).name.lower()}"
        if kind != CommandKind.CANCEL:
            word += f" {int(command['quantity_lots'])}@{int(command['price_ticks'])}"
        name = short_id_text(int(command["client_order_id"])) or ""
        words.append(word + (" #?" if name.startswith("A") else f" #{name}" if name else ""))
    return words


def test_each_message_type_becomes_its_command() -> None:
    plan = convert.convert(
        recording(
            [(5, 0, 1, 100, 1), (1, 7, 30, 99, 1), (2, 7, 10, 99, 1), (4, 7, 5, 99, 1), (5, 0, 9, 99, 1),
             (3, 7, 15, 99, 1)],
            None,
        )
    )  # fmt: skip
    assert commands_text(plan) == ["place buy 30@99 #7", "replace 20@99 #7", "take sell 5@99", "cancel #7"]
    assert (plan.counts.placed, plan.counts.reduced, plan.counts.cancelled, plan.counts.skipped) == (1, 1, 1, 2)


@pytest.mark.parametrize(
    ("tape_id", "text"), [(7, "7"), (99_999_999, "99999999"), (100_000_000, "X1NJCHS"), (36**7 - 1, "XZZZZZZZ")]
)
def test_order_has_its_number_in_the_recording_as_an_id_of_eight_characters(tape_id: int, text: str) -> None:
    plan = convert.convert(recording([(5, 0, 1, 100, 1), (1, tape_id, 30, 99, 1), (3, tape_id, 30, 99, 1)], None))
    assert commands_text(plan) == [f"place buy 30@99 #{text}", f"cancel #{text}"]
    assert len(plan.commands.details) == 0


def test_still_larger_numbers_are_ids_in_the_details() -> None:
    ids = [36**7, 10**17]
    plan = convert.convert(recording([(5, 0, 1, 100, 1), *((k, i, 30, 99, 1) for k in (1, 3) for i in ids)], None))
    assert plan.commands.records["client_order_id"].tolist() == [0] * 4
    assert plan.commands.records["details"].tolist() == [1, 2, 1, 2]
    texts = plan.commands.details.view(ORDER_DETAILS)["client_order_id"].tolist()
    assert texts == [b"X10000000", b"X" + np.base_repr(10**17, 36).encode()]
    assert history_check.check_history(plan).verified


def test_levels_out_of_view_are_evicted_and_levels_in_view_adopted() -> None:
    plan = convert.convert(
        recording(
            [(5, 0, 1, 100, 1), (1, 7, 30, 100, 1), (3, 7, 30, 100, 1)],
            [[110, 5, 99, 40], [110, 5, 100, 30], [110, 5, 98, 60]],
        )
    )
    # The level at 99 is out of view after message 1. When 100 is deleted, the recording shows 98, which is adopted.
    assert commands_text(plan) == [
        "place sell 5@110 #?", "place buy 40@99 #?",
        "place buy 30@100 #7", "cancel #?",
        "cancel #7", "place buy 60@98 #?",
    ]  # fmt: skip
    assert (plan.counts.evictions, plan.counts.adoptions) == (1, 1)
    assert plan.first.tolist() == [0, 2, 4, 6]


def test_missing_level_is_not_adopted() -> None:
    plan = convert.convert(recording([(5, 0, 1, 100, 1)], [[NO_LEVEL, 0, 99, 40]]))
    assert commands_text(plan) == ["place buy 40@99 #?"]


def test_anonymous_quantity_stands_for_orders_never_seen() -> None:
    plan = convert.convert(
        recording([(5, 0, 1, 100, 1), (3, 77, 10, 99, 1), (4, 78, 30, 99, 1)], [[110, 5, 99, 40]] * 3)
    )
    assert commands_text(plan)[2:4] == ["replace 30@99 #?", "take sell 30@99"]
    assert [execution.maker for execution in plan.executions] == [Maker.ANONYMOUS]


def test_execution_of_newer_order_is_an_exception_without_trade() -> None:
    row = [110, 5, 99, 30]
    plan = convert.convert(
        recording(
            [(5, 0, 1, 100, 1), (3, 1, 40, 99, 1), (1, 7, 30, 99, 1), (1, 8, 20, 99, 1), (4, 8, 5, 99, 1),
             (4, 8, 15, 99, 1)],
            [[110, 5, 99, 40], [110, 5, NO_LEVEL, 0], row, row, row, row],
        )
    )  # fmt: skip
    assert [execution.row for execution in plan.exceptions] == [4, 5]
    assert commands_text(plan)[-2:] == ["replace 15@99 #8", "cancel #8"]


def test_executed_order_moves_ahead_of_anonymous_quantity() -> None:
    row = [110, 5, 99, 90]
    plan = convert.convert(
        recording(
            [(5, 0, 1, 100, 1), (1, 7, 30, 99, 1), (1, 8, 20, 99, 1), (4, 7, 10, 99, 1), (4, 7, 20, 99, 1)],
            [[110, 5, 99, 40], row, row, row, row],
        )
    )
    assert commands_text(plan)[4:] == [
        "cancel #?", "place buy 40@99 #?", "cancel #8", "place buy 20@99 #8", "take sell 10@99", "take sell 20@99",
    ]  # fmt: skip
    assert [execution.maker for execution in plan.executions] == [Maker.UNDECIDABLE] * 2


def test_stale_orders_are_cancelled_without_orderbook() -> None:
    plan = convert.convert(
        recording([(1, 1, 10, 100, 1), (1, 2, 10, 99, 1), (1, 3, 10, 99, 1), (4, 3, 5, 99, 1), (1, 4, 1, 98, -1),
                   (3, 5, 1, 70, 1), (4, 6, 1, 98, -1)], None)
    )  # fmt: skip
    # The execution at 99 shows that the orders at 100 and the older one at 99 are gone; the ask at 98, all others.
    assert commands_text(plan)[3:] == ["cancel #1", "cancel #2", "take sell 5@99", "cancel #3", "place sell 1@98 #4"]
    assert (plan.counts.stale, plan.counts.unknown) == (3, 2)
    assert [execution.maker for execution in plan.executions] == [Maker.KNOWN, Maker.UNKNOWN]


@pytest.mark.parametrize(
    ("message", "conflict"),
    [
        ((1, 7, 1, 98, 1), "a new order with the id 7 of an open order"),
        ((1, 8, 1, 110, 1), "a new order at 110 that crosses the book (best opposite price 110)"),
        ((3, 7, 31, 99, 1), "order 7: 31 lots, but only 30 are open"),
        ((3, 7, 30, 98, 1), "order 7: placed as BUY at 99, but named as BUY at 98"),
        ((3, 9, 30, 98, 1), "order 9 of 30 at 98, where the book has no anonymous quantity"),
    ],
)
def test_contradictory_message_is_a_conflict(message: tuple[int, int, int, int, int], conflict: str) -> None:
    plan = convert.convert(recording([(5, 0, 1, 100, 1), (1, 7, 30, 99, 1), message], [[110, 5, 99, 30]] * 3))
    assert plan.conflicts == [(2, conflict)]


def test_execution_away_from_best_price_is_a_conflict() -> None:
    books = [[110, 5, 99, 40, 111, 5, 98, 30]] * 2
    plan = convert.convert(recording([(5, 0, 1, 100, 1), (4, 9, 30, 98, 1)], books))
    assert plan.conflicts == [(1, "an execution at 98 instead of the best price 99")]


def test_prices_between_cents_give_a_finer_tick() -> None:
    records = np.array([(0, 1, 1, 10, 1_234_550, 1), (1, 3, 1, 10, 1_234_550, 1)], dtype=MESSAGE)
    plan = convert.convert(Recording("made", "MADE", records, None))
    assert (plan.market.tick_units, int(plan.commands.records["price_ticks"][0])) == (1, 1_234_550)


@pytest.mark.parametrize(("ticker", "symbol"), [("AMZN", "AMZN-USD"), ("A-LONGER-TICKER", "A-LONGER-TICKER-USD")])
def test_ticker_becomes_a_valid_symbol(ticker: str, symbol: str) -> None:
    made = recording([(1, 1, 1, 100, 1)], None)._replace(ticker=ticker)
    assert convert.convert(made).market.symbol == symbol


def test_invalid_ticker_is_refused() -> None:
    with pytest.raises(TapeError, match="expected 1 to 16 characters"):
        convert.convert(recording([(1, 1, 1, 100, 1)], None), symbol="amzn")


@pytest.mark.parametrize("name", recordings.found())
def test_recording_has_no_conflicts(name: str) -> None:
    found = recordings.read(name)
    plan = convert.convert(found)
    assert plan.conflicts == []
    kinds = found.messages["kind"][1:]
    assert plan.counts.placed == int((kinds == lobster.Kind.NEW).sum())
    assert plan.counts.executions == len(plan.executions) == int((kinds == lobster.Kind.EXECUTION).sum())
    assert plan.counts.skipped == int((kinds > lobster.Kind.EXECUTION).sum()) + 1, (
        "the first message is in the initial book"
    )
    # The commands of the messages are contiguous.
    assert plan.first[-1] == len(plan.commands.records)
    assert (np.diff(plan.first) >= 0).all()
    if plan.name == AMZN:
        makers = [execution.maker for execution in plan.executions]
        counted = {maker.name: makers.count(maker) for maker in set(makers)}
        assert counted == {"KNOWN": 7_272, "ANONYMOUS": 1_667, "UNDECIDABLE": 26, "EXCEPTION": 9}
        assert (plan.counts.adoptions, plan.counts.evictions) == (33_840, 35_386)


def test_synthetic_recording_has_all_cases(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = synthetic_recording.write(tmp_path_factory.mktemp("synthetic"))
    plan = convert.convert(lobster.read(made.messages, made.orderbook))
    assert [execution.row for execution in plan.exceptions] == made.truth.exceptions
    assert made.truth.exceptions, "the recording should hold an exception"
    assert plan.counts.executions == made.truth.executions
    assert plan.counts.skipped == made.truth.hidden
    assert min(plan.counts.adoptions, plan.counts.evictions) > 50
    assert any(execution.maker == Maker.ANONYMOUS for execution in plan.executions)


def test_commands_depend_on_the_recording_alone() -> None:
    found = recordings.read(recordings.SYNTHETIC)
    assert convert.convert(found).commands.pieces() == convert.convert(found).commands.pieces()
