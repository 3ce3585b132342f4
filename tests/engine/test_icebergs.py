"""Icebergs: what the book shows, where the next part queues, and what still counts of the hidden."""

from typing import Any

import pytest

from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.commands import command, place
from tests.engine.desk import BASE, Desk, ended, fills, order_id, told


def berg_and_bids() -> tuple[Desk, int, int]:
    """At 100: an ask of 10 that shows 3, of account 1, and one of 4, of account 2."""
    desk = Desk()
    return desk, order_id(desk.sell(1, 10, 100, display_lots=3)), order_id(desk.sell(2, 4, 100))


def test_only_what_is_shown_is_public() -> None:
    desk, _, _ = berg_and_bids()
    assert desk.book()[1] == [(100, 7, 2)]
    row = desk.engine.inspect.orders(1)[0]
    assert [int(row[name]) for name in ("display_lots", "shown_lots", "leaves_lots")] == [3, 3, 10]
    assert desk.money(1, BASE) == (0, 10)
    desk.buy(3, 2, 100)
    assert desk.engine.inspect.orders(1)["shown_lots"].tolist() == [1]
    assert desk.book()[1] == [(100, 5, 2)]
    desk.check()


def test_the_next_part_goes_behind_what_is_there() -> None:
    desk, berg, other = berg_and_bids()
    result = desk.buy(3, 12, 100)
    # 3 shown, then the other's 4, then three and two more.
    assert fills(result) == [(berg, 100, 3), (other, 100, 4), (berg, 100, 3), (berg, 100, 2)]
    refresh = [event for event in result.events if event["kind"] == 2 and event["order_id"] == berg]
    row = desk.engine.inspect.orders(1)[0]
    assert int(row["priority"]) == int(refresh[1]["sequence"])
    assert [int(row[name]) for name in ("shown_lots", "leaves_lots")] == [1, 2]
    assert ended(desk.buy(3, 2, 100)) == ("FILLED", "NONE", 2, 0)
    assert desk.book() == ([], [])
    desk.check()


def test_the_last_part_is_what_is_left() -> None:
    desk, berg, _ = berg_and_bids()
    desk.buy(3, 7, 100)
    desk.buy(3, 6, 100)
    assert desk.book()[1] == [(100, 1, 1)]
    assert told(desk.buy(3, 1, 100))[2] == ("FILLED", berg)
    desk.check()


def test_a_taker_trades_with_all_it_has_and_rests_as_an_iceberg() -> None:
    desk = Desk()
    desk.sell(2, 6, 100)
    result = desk.buy(1, 20, 100, display_lots=5)
    assert ended(result) == ("PARTIALLY_FILLED", "NONE", 6, 14)
    assert desk.book() == ([(100, 5, 1)], [])
    desk.check()


def test_shrinking_takes_the_hidden_first() -> None:
    desk, berg, other = berg_and_bids()
    desk.replace(1, berg, 4, 100)
    assert desk.book()[1] == [(100, 7, 2)]
    desk.buy(3, 2, 100)
    assert desk.refused(desk.replacing(1, berg, 3, 100)) == Reason.INVALID_DISPLAY
    # DECREMENT may leave less than the display; it shows what is left.
    desk.buy(1, 1, 100, stp=Stp.DECREMENT)
    assert desk.engine.inspect.orders(1)["shown_lots"].tolist() == [1]
    assert desk.engine.inspect.orders(1)["leaves_lots"].tolist() == [1]
    assert fills(desk.buy(3, 5, 100)) == [(berg, 100, 1), (other, 100, 4)]
    desk.check()


def test_a_replaced_iceberg_shows_its_display_again() -> None:
    desk, berg, _ = berg_and_bids()
    desk.buy(3, 2, 100)
    desk.replace(1, berg, 12, 101)
    assert desk.book()[1] == [(100, 4, 1), (101, 3, 1)]
    desk.check()


@pytest.mark.parametrize(("lots", "fills_whole"), [(14, True), (15, False)])
def test_fill_or_kill_counts_what_is_hidden(lots: int, fills_whole: bool) -> None:
    desk, _, _ = berg_and_bids()
    result = desk.buy(3, lots, 100, tif=TimeInForce.FOK)
    assert ended(result)[0] == ("FILLED" if fills_whole else "EXPIRED")
    desk.check()


@pytest.mark.parametrize(("lots", "fills_whole"), [(7, True), (8, False)])
def test_fill_or_kill_meets_its_own_order_before_the_refreshed_parts(lots: int, fills_whole: bool) -> None:
    desk, _, _ = berg_and_bids()
    desk.sell(3, 1, 100)
    result = desk.buy(3, lots, 100, tif=TimeInForce.FOK)
    assert ended(result)[0] == ("FILLED" if fills_whole else "EXPIRED")
    desk.check()


def test_what_a_display_may_be() -> None:
    desk = Desk()

    def refused(lots: int, display: int, **more: Any) -> Reason:
        return desk.refused(place(desk.sender(1), 1, Side.SELL, lots, 100, display_lots=display, **more))

    assert refused(10, 10) == Reason.INVALID_DISPLAY
    # More than a thousand parts: one order could cause any number of events.
    assert refused(2_001, 2) == Reason.INVALID_DISPLAY
    assert refused(10, 9, tif=TimeInForce.IOC) == Reason.UNSUPPORTED_COMBINATION
    assert refused(10, 9, tif=TimeInForce.FOK) == Reason.UNSUPPORTED_COMBINATION
    assert ended(desk.sell(1, 2_000, 100, display_lots=2, flags=OrderFlags.POST_ONLY))[0] == "NEW"
    assert ended(desk.sell(1, 10, 100, display_lots=9))[0] == "NEW"
    desk.check()


def test_many_parts_in_one_sweep() -> None:
    """Three icebergs of a thousand parts, and a taker that takes them all: in turns, each lot a trade."""
    desk = Desk()
    bergs = [order_id(desk.sell(account, 1_000, 100, display_lots=1)) for account in (1, 2)]
    result = desk.buy(3, 2_000, 100)
    assert [fill[0] for fill in fills(result)] == bergs * 1_000
    assert ended(result) == ("FILLED", "NONE", 2_000, 0)
    desk.check()


def test_cancelling_frees_all_of_it() -> None:
    desk, _, other = berg_and_bids()
    desk.send(command(CommandKind.MASS_CANCEL, desk.sender(1), account=1))
    assert desk.money(1, BASE) == (0, 0)
    assert desk.open_ids() == [other]
    desk.check()
